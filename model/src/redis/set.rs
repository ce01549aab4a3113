//! Sets: `SADD SREM SISMEMBER SMISMEMBER SCARD SMEMBERS SMOVE SPOP SRANDMEMBER`. `SINTER` and its
//! kin are in [`set_algebra`](super::set_algebra), `SSCAN` is in [`scan`](super::scan).
//!
//! A record per member, without a value.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::meta::Encoding;
use super::number::{integer_within, parse_int, positive};
use super::random::{self, Random};
use super::reply::{self, Reply};
use super::value::Kind;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Redis's `set-max-intset-entries`, `set-max-listpack-entries`, `set-max-listpack-value`.
const INTEGERS_MAX: usize = 512;
const SMALL_ENTRIES_MAX: usize = 128;
const SMALL_BYTES_MAX: usize = 64;

fn open(call: &mut Call<'_, '_>) -> Result<Option<Collection>, CommandError> {
    let key = call.key(1);
    call.open(&key, Kind::Set)
}

/// Adds a member; whether it is new.
pub(crate) fn add(call: &mut Call<'_, '_>, set: &mut Collection, member: &[u8]) -> bool {
    let new = set.put_member(call, member, Bytes::new());
    if new {
        let size = set.len();
        set.meta.encoding = match set.meta.encoding {
            Encoding::Integers if parse_int(member).is_some() && size <= INTEGERS_MAX => {
                Encoding::Integers
            }
            Encoding::Integers | Encoding::Small
                if size <= SMALL_ENTRIES_MAX && member.len() <= SMALL_BYTES_MAX =>
            {
                Encoding::Small
            }
            _ => Encoding::Large,
        };
    }
    new
}

/// What `OBJECT ENCODING` answers.
pub(crate) fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Integers => "intset",
        Encoding::Small => "listpack",
        Encoding::Large => "hashtable",
    }
}

/// `SADD key member …`: how many are new.
pub(crate) fn sadd(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let mut set = call.open_or_create(&key, Kind::Set)?;
    let mut new = 0;
    for member in &call.args[2..] {
        new += i64::from(add(call, &mut set, member));
    }
    if new > 0 {
        call.save(&set);
    }
    Ok(reply::int(new))
}

/// `SREM key member …`: how many there were.
pub(crate) fn srem(call: &mut Call<'_, '_>) -> Outcome {
    let Some(mut set) = open(call)? else {
        return Ok(reply::int(0));
    };
    let mut removed = 0;
    for member in &call.args[2..] {
        removed += i64::from(set.remove_member(call, member));
    }
    if removed > 0 {
        call.save(&set);
    }
    Ok(reply::int(removed))
}

/// `SISMEMBER key member`.
pub(crate) fn sismember(call: &mut Call<'_, '_>) -> Outcome {
    let set = open(call)?;
    let found = set.is_some_and(|set| set.member(&*call.txn, &call.args[2]).is_some());
    Ok(reply::int(i64::from(found)))
}

/// `SMISMEMBER key member …`.
pub(crate) fn smismember(call: &mut Call<'_, '_>) -> Outcome {
    let set = open(call)?;
    let mut reply = Reply::new(call.protocol);
    reply.array(call.args.len() - 2);
    for member in &call.args[2..] {
        let set = set.as_ref();
        let found = set.is_some_and(|set| set.member(&*call.txn, member).is_some());
        reply.int(i64::from(found));
    }
    Ok(reply.finish())
}

/// `SCARD key`.
pub(crate) fn scard(call: &mut Call<'_, '_>) -> Outcome {
    Ok(reply::int(open(call)?.map_or(0, |set| set.len() as i64)))
}

/// `SMEMBERS key`.
pub(crate) fn smembers(call: &mut Call<'_, '_>) -> Outcome {
    let set = open(call)?;
    let mut reply = Reply::new(call.protocol);
    reply.set(set.as_ref().map_or(0, Collection::len));
    if let Some(set) = set {
        let mut visited = 0;
        set.members(&*call.txn, 0, &mut |_, member, _| {
            reply.bulk(member);
            visited += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(visited, set.len(), "members of a set, and its size");
    }
    Ok(reply.finish())
}

/// `SMOVE source destination member`: 1 if it was in the source.
pub(crate) fn smove(call: &mut Call<'_, '_>) -> Outcome {
    let (from, to) = (call.key(1), call.key(2));
    let member = &call.args[3];
    // A source that does not exist is answered before the destination is looked at.
    if call.read(&from).is_none() {
        return Ok(reply::int(0));
    }
    let source = call.open(&from, Kind::Set)?;
    let mut destination = call.open_or_create(&to, Kind::Set)?;
    let Some(mut source) = source else {
        return Ok(reply::int(0));
    };
    if from == to {
        let found = source.member(&*call.txn, member).is_some();
        return Ok(reply::int(i64::from(found)));
    }
    if !source.remove_member(call, member) {
        return Ok(reply::int(0));
    }
    call.save(&source);
    if add(call, &mut destination, member) {
        call.save(&destination);
    }
    Ok(reply::int(1))
}

/// `SPOP key [count]`: removes and answers random members.
pub(crate) fn spop(call: &mut Call<'_, '_>) -> Outcome {
    let mut random = Random::new(call.context.seed);
    let count = match &call.args[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let set = open(call)?;
    let Some(count) = count else {
        let Some(mut set) = set else {
            return Ok(reply::nil(call.protocol));
        };
        let (member, _) = random::one(call, &set, &mut random);
        set.remove_member(call, &member);
        call.save(&set);
        return Ok(reply::bulk(&member));
    };
    let mut reply = Reply::new(call.protocol);
    let Some(mut set) = set.filter(|_| count > 0) else {
        reply.set(0);
        return Ok(reply.finish());
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let chosen = random::distinct(call, &set, count, &mut random);
    reply.set(chosen.len());
    let all = chosen.len() == set.len();
    for (member, _) in &chosen {
        reply.bulk(member);
        if !all {
            set.remove_member(call, member);
        }
    }
    match all {
        true => call.delete(set.key),
        false => call.save(&set),
    }
    Ok(reply.finish())
}

/// `SRANDMEMBER key [count]`: a negative count may answer a member repeatedly.
pub(crate) fn srandmember(call: &mut Call<'_, '_>) -> Outcome {
    let mut random = Random::new(call.context.seed);
    let count = match &call.args[2..] {
        [] => None,
        [count] => Some(integer_within(count, -i64::MAX, i64::MAX)?),
        _ => return Err(CommandError::Syntax),
    };
    let set = open(call)?;
    match (set, count) {
        (None, None) => Ok(reply::nil(call.protocol)),
        (None, Some(_)) => Ok(reply::empty_array()),
        (Some(set), None) => Ok(reply::bulk(&random::one(call, &set, &mut random).0)),
        (Some(set), Some(count)) => {
            let chosen = random::choose(call, &set, count, &mut random)?;
            let mut reply = Reply::new(call.protocol);
            reply.array(chosen.len());
            chosen.iter().for_each(|(member, _)| {
                reply.bulk(member);
            });
            Ok(reply.finish())
        }
    }
}
