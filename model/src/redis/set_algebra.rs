//! Several sets at once: `SINTER SUNION SDIFF`, the same with `STORE`, and `SINTERCARD`.
//!
//! All keys lie in one range: the router refuses the command otherwise. Intersections read
//! the smallest set and look its members up in the others.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::set;
use super::value::Kind;
use crate::eval::View;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Intersection,
    Union,
    Difference,
}

/// `SINTER key …`, `SUNION key …`, `SDIFF key …`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>, operation: Operation) -> Outcome {
    let sets = open_all(call, 1..call.args.len())?;
    let found = combine(call, operation, &sets, usize::MAX);
    let mut reply = Reply::new(call.protocol);
    reply.set(found.len());
    for member in &found {
        reply.bulk(member);
    }
    Ok(reply.finish())
}

/// The same with `STORE`: how many members the destination has then.
pub(crate) fn store(call: &mut Call<'_, '_>, operation: Operation) -> Outcome {
    let sets = open_all(call, 2..call.args.len())?;
    let found = combine(call, operation, &sets, usize::MAX);
    let destination = call.key(1);
    let mut result = call.create(&destination, Kind::Set);
    for member in &found {
        set::add(call, &mut result, member);
    }
    call.save(&result);
    Ok(reply::int(found.len() as i64))
}

/// `SINTERCARD numkeys key … [LIMIT limit]`.
pub(crate) fn intercard(call: &mut Call<'_, '_>) -> Outcome {
    let (keys, limit) = parse_card(call.args)?;
    let sets = open_all(call, keys)?;
    let found = combine(call, Operation::Intersection, &sets, limit);
    Ok(reply::int(found.len() as i64))
}

/// The arguments of `SINTERCARD` and `ZINTERCARD`: where the keys are, and the limit.
pub(crate) fn parse_card(args: &[Bytes]) -> Result<(std::ops::Range<usize>, usize), CommandError> {
    let keys = parse_int(&args[1])
        .filter(|count| *count > 0)
        .ok_or(CommandError::Of("ERR numkeys should be greater than 0"))?;
    if keys > args.len() as i64 - 2 {
        return Err(CommandError::Of(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let end = 2 + keys as usize;
    let mut limit = 0;
    let mut rest = args[end..].iter();
    while let Some(option) = rest.next() {
        if !option.eq_ignore_ascii_case(b"limit") {
            return Err(CommandError::Syntax);
        }
        let number = rest.next().ok_or(CommandError::Syntax)?;
        limit = parse_int(number)
            .filter(|limit| *limit >= 0)
            .ok_or(CommandError::Of("ERR LIMIT can't be negative"))?;
    }
    let limit = match limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    Ok((2..end, limit))
}

fn open_all(
    call: &mut Call<'_, '_>,
    indexes: std::ops::Range<usize>,
) -> Result<Vec<Option<Collection>>, CommandError> {
    indexes
        .map(|index| {
            let key = call.key(index);
            call.open(&key, Kind::Set)
        })
        .collect()
}

fn combine(
    call: &Call<'_, '_>,
    operation: Operation,
    sets: &[Option<Collection>],
    limit: usize,
) -> BTreeSet<Bytes> {
    let view: &dyn View = &*call.txn;
    let mut found = BTreeSet::new();
    let mut collect = |from: &Collection, wanted: &dyn Fn(&[u8]) -> bool| {
        from.members(view, 0, &mut |_, member, _| {
            if wanted(member) {
                found.insert(Bytes::copy_from_slice(member));
            }
            match found.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    };
    match operation {
        Operation::Union => {
            for set in sets.iter().flatten() {
                collect(set, &|_| true);
            }
        }
        Operation::Intersection => {
            let present: Option<Vec<&Collection>> = sets.iter().map(Option::as_ref).collect();
            // One that does not exist has no members.
            let Some(mut present) = present else {
                return found;
            };
            present.sort_by_key(|set| set.meta.size);
            let (smallest, others) = present.split_first().expect("a command has a key");
            collect(smallest, &|member| {
                others.iter().all(|set| set.member(view, member).is_some())
            });
        }
        Operation::Difference => {
            let Some(Some(first)) = sets.first() else {
                return found;
            };
            let others = &sets[1..];
            collect(first, &|member| {
                let mut others = others.iter().flatten();
                others.all(|set| set.member(view, member).is_none())
            });
        }
    }
    found
}
