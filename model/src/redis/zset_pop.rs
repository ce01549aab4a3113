//! Members off the ends of sorted sets, and random ones: `ZPOPMIN ZPOPMAX ZMPOP ZRANDMEMBER`.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::number::{integer_within, parse_int, positive};
use super::random::{self, Random};
use super::reply::{self, Reply};
use super::value::Kind;
use super::zset::{self, EVERYTHING};
use super::zset_range::reply_members;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Removes up to `count` members from one end.
fn pop(
    call: &mut Call<'_, '_>,
    mut set: Collection,
    highest: bool,
    count: usize,
) -> Vec<(Bytes, f64)> {
    let mut popped = Vec::new();
    let everything: (&[u8], &[u8]) = (&[], EVERYTHING);
    zset::visit(
        &set,
        &*call.txn,
        everything,
        highest,
        &mut |member, score| {
            popped.push((Bytes::copy_from_slice(member), score));
            match popped.len() < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        },
    );
    if popped.len() == set.len() {
        call.delete(set.key);
        return popped;
    }
    for (member, score) in &popped {
        zset::remove(call, &mut set, member, *score);
    }
    call.save(&set);
    popped
}

/// `ZPOPMIN key [count]`, `ZPOPMAX key [count]`.
pub(crate) fn zpop(call: &mut Call<'_, '_>) -> Outcome {
    let count = match &call.args[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let highest = call.name == "zpopmax";
    let Some(set) = zset::open(call)?.filter(|_| count != Some(0)) else {
        return Ok(reply::empty_array());
    };
    let number = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
    let popped = pop(call, set, highest, number);
    if count.is_some() {
        return Ok(reply_members(call, &popped, true));
    }
    // A single one is no pair of its own in any protocol version.
    let mut reply = Reply::new(call.protocol);
    reply.array(2);
    for (member, score) in &popped {
        reply.bulk(member).double(*score);
    }
    Ok(reply.finish())
}

/// What follows the name of `ZMPOP` and `LMPOP`: the keys, which of two ends, and the count.
pub(crate) fn parse_mpop(
    args: &[Bytes],
    ends: [&[u8]; 2],
) -> Result<(std::ops::Range<usize>, bool, usize), CommandError> {
    let at_least_one = |text: &[u8], error| {
        parse_int(text)
            .filter(|number| *number > 0)
            .ok_or(CommandError::Of(error))
    };
    let keys = at_least_one(&args[1], "ERR numkeys should be greater than 0")?;
    if keys > args.len() as i64 - 3 {
        return Err(CommandError::Syntax);
    }
    let at = 2 + keys as usize;
    let second = match &args[at] {
        end if end.eq_ignore_ascii_case(ends[0]) => false,
        end if end.eq_ignore_ascii_case(ends[1]) => true,
        _ => return Err(CommandError::Syntax),
    };
    let mut count = None;
    let mut rest = args[at + 1..].iter();
    while let Some(option) = rest.next() {
        if count.is_some() || !option.eq_ignore_ascii_case(b"count") {
            return Err(CommandError::Syntax);
        }
        let number = rest.next().ok_or(CommandError::Syntax)?;
        count = Some(at_least_one(number, "ERR count should be greater than 0")?);
    }
    let count = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
    Ok((2..at, second, count))
}

/// `ZMPOP numkeys key … MIN | MAX [COUNT count]`: from the first sorted set that exists.
pub(crate) fn zmpop(call: &mut Call<'_, '_>) -> Outcome {
    let (keys, highest, count) = parse_mpop(call.args, [b"min", b"max"])?;
    for index in keys {
        let key = call.key(index);
        let Some(set) = call.open(&key, Kind::SortedSet)? else {
            continue;
        };
        let popped = pop(call, set, highest, count);
        let mut reply = Reply::new(call.protocol);
        reply.array(2).bulk(&call.args[index]).array(popped.len());
        for (member, score) in &popped {
            reply.array(2).bulk(member).double(*score);
        }
        return Ok(reply.finish());
    }
    Ok(reply::nil_array(call.protocol))
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`: a negative count may answer a member repeatedly.
pub(crate) fn zrandmember(call: &mut Call<'_, '_>) -> Outcome {
    let mut random = Random::new(call.context.seed);
    let Some(count) = call.args.get(2) else {
        let Some(set) = zset::open(call)? else {
            return Ok(reply::nil(call.protocol));
        };
        return Ok(reply::bulk(&random::one(call, &set, &mut random).0));
    };
    let count = integer_within(count, -i64::MAX, i64::MAX)?;
    let with_scores = match &call.args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withscores") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::Of("ERR value is out of range"));
    }
    let Some(set) = zset::open(call)? else {
        return Ok(reply::empty_array());
    };
    let chosen: Vec<(Bytes, f64)> = random::choose(call, &set, count, &mut random)?
        .into_iter()
        .map(|(member, record)| (member, zset::score_from(&record)))
        .collect();
    Ok(reply_members(call, &chosen, with_scores))
}
