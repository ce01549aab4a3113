//! `HSCAN`, `SSCAN` and `ZSCAN`: a cursor is a place in the order of the elements' hashes, so
//! that Redis's guarantee holds: an element that is there from the first call to the last is
//! returned, whatever comes and goes around it.
//!
//! As Redis does with a `listpack`, a small collection is answered whole, whatever `COUNT`
//! says. Elements of equal hash are returned together.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::float;
use super::glob;
use super::meta::Encoding;
use super::number::integer;
use super::reply::Reply;
use super::value::Kind;
use bytes::Bytes;
use std::ops::ControlFlow;

/// `HSCAN key cursor [MATCH pattern] [COUNT count]`, and the same of sets and sorted sets.
pub(crate) fn evaluate(call: &mut Call<'_, '_>, kind: Kind) -> Outcome {
    let from = parse_cursor(&call.args[2])?;
    let key = call.key(1);
    let Some(collection) = call.open(&key, kind)? else {
        return Ok(page(call, 0, kind, &[]));
    };
    let (pattern, count) = parse_options(&call.args[3..])?;
    let limit = match collection.meta.encoding {
        Encoding::Large => count,
        _ => usize::MAX,
    };
    let mut visited = 0;
    let mut last = 0;
    let mut next = 0;
    let mut found = Vec::new();
    let from = if limit == usize::MAX { 0 } else { from };
    let visit = &mut |hash, member: &[u8], value: &[u8]| {
        if visited >= limit && hash != last {
            next = hash;
            return ControlFlow::Break(());
        }
        visited += 1;
        last = hash;
        if pattern.is_none_or(|pattern| glob::matches(pattern, member)) {
            found.push((
                Bytes::copy_from_slice(member),
                Bytes::copy_from_slice(value),
            ));
        }
        ControlFlow::Continue(())
    };
    // A cursor beyond all hashes is none that was given out.
    if from >> super::keys::HASH_BITS == 0 {
        collection.members(&*call.txn, from, visit);
    }
    Ok(page(call, next, kind, &found))
}

fn page(call: &Call<'_, '_>, next: u64, kind: Kind, found: &[(Bytes, Bytes)]) -> Bytes {
    let mut reply = Reply::new(call.protocol);
    reply.array(2).bulk(next.to_string().as_bytes());
    reply.array(found.len() * if kind == Kind::Set { 1 } else { 2 });
    for (member, value) in found {
        reply.bulk(member);
        match kind {
            Kind::Hash => reply.bulk(value),
            Kind::SortedSet => reply.bulk(float::text(super::zset::score_from(value)).as_bytes()),
            _ => &mut reply,
        };
    }
    reply.finish()
}

/// As C's `strtoul` reads it, which takes nothing for 0 and a sign.
fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    let wrong = CommandError::Of("ERR invalid cursor");
    if digits.is_empty() {
        return match text {
            [] => Ok(0),
            _ => Err(wrong),
        };
    }
    let text = std::str::from_utf8(digits).map_err(|_| wrong.clone())?;
    text.parse().map_err(|_| wrong)
}

fn parse_options(options: &[Bytes]) -> Result<(Option<&[u8]>, usize), CommandError> {
    let (mut pattern, mut count) = (None, 10);
    for option in options.chunks(2) {
        let [name, value] = option else {
            return Err(CommandError::Syntax);
        };
        if name.eq_ignore_ascii_case(b"count") {
            count = integer(value)?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
        } else if name.eq_ignore_ascii_case(b"match") {
            pattern = Some(&value[..]).filter(|pattern| *pattern != b"*");
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((pattern, usize::try_from(count).unwrap_or(usize::MAX)))
}
