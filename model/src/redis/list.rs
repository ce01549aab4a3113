//! Lists: `LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LLEN LRANGE LINDEX LSET LINSERT LREM LTRIM LPOS
//! LMOVE RPOPLPUSH LMPOP`. Where the elements are is in [`position`].
//!
//! Both ends cost the same in a list of any length, and so does an index, as long as nothing
//! was removed from or inserted into the middle.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::meta::Encoding;
use super::number::{integer, integer_within, parse_int, positive, range_within};
use super::position::{self, Pivot};
use super::reply::{self, Reply};
use super::value::Kind;
use super::zset_pop::parse_mpop;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Up to here Redis keeps a list in one `listpack` for sure: it allows 8 KiB of elements, which
/// are not counted here.
const SMALL_ENTRIES_MAX: usize = 128;
const SMALL_BYTES_MAX: usize = 60;

/// What `OBJECT ENCODING` answers.
pub(crate) fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Small => "listpack",
        _ => "quicklist",
    }
}

fn open(call: &mut Call<'_, '_>) -> Result<Option<Collection>, CommandError> {
    let key = call.key(1);
    call.open(&key, Kind::List)
}

/// Adds an element to an end.
pub(crate) fn add(call: &mut Call<'_, '_>, list: &mut Collection, left: bool, value: &[u8]) {
    position::push(call, list, left, Bytes::copy_from_slice(value));
    let large = list.len() > SMALL_ENTRIES_MAX || value.len() > SMALL_BYTES_MAX;
    list.grow_if(large);
}

fn reply_values(call: &Call<'_, '_>, values: &[Bytes]) -> Bytes {
    let mut reply = Reply::new(call.protocol);
    reply.array(values.len());
    for value in values {
        reply.bulk(value);
    }
    reply.finish()
}

/// `LPUSH key element …`, `RPUSH`, and with `X` only if there is such a list: the new length.
pub(crate) fn push(call: &mut Call<'_, '_>) -> Outcome {
    let (left, must_exist) = (call.name.starts_with('l'), call.name.ends_with('x'));
    let key = call.key(1);
    let mut list = call.open_or_create(&key, Kind::List)?;
    if must_exist && list.len() == 0 {
        return Ok(reply::int(0));
    }
    for value in &call.args[2..] {
        add(call, &mut list, left, value);
    }
    call.save(&list);
    Ok(reply::int(list.len() as i64))
}

/// `LPOP key [count]`, `RPOP key [count]`.
pub(crate) fn pop(call: &mut Call<'_, '_>) -> Outcome {
    let left = call.name == "lpop";
    let count = match &call.args[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(CommandError::Arity(call.name.to_owned())),
    };
    let Some(mut list) = open(call)? else {
        return Ok(match count {
            Some(_) => reply::nil_array(call.protocol),
            None => reply::nil(call.protocol),
        });
    };
    let number = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
    let popped = position::pop(call, &mut list, left, number);
    if !popped.is_empty() {
        call.save(&list);
    }
    Ok(match count {
        Some(_) => reply_values(call, &popped),
        None => reply::bulk(&popped[0]),
    })
}

/// `LMPOP numkeys key … LEFT | RIGHT [COUNT count]`: from the first list that exists.
pub(crate) fn lmpop(call: &mut Call<'_, '_>) -> Outcome {
    let (keys, right, count) = parse_mpop(call.args, [b"left", b"right"])?;
    for index in keys {
        let key = call.key(index);
        let Some(mut list) = call.open(&key, Kind::List)? else {
            continue;
        };
        let popped = position::pop(call, &mut list, !right, count);
        call.save(&list);
        let mut reply = Reply::new(call.protocol);
        reply.array(2).bulk(&call.args[index]);
        reply.raw(&reply_values(call, &popped));
        return Ok(reply.finish());
    }
    Ok(reply::nil_array(call.protocol))
}

/// `LLEN key`.
pub(crate) fn llen(call: &mut Call<'_, '_>) -> Outcome {
    Ok(reply::int(open(call)?.map_or(0, |list| list.len() as i64)))
}

/// `LRANGE key start stop`.
pub(crate) fn lrange(call: &mut Call<'_, '_>) -> Outcome {
    let (start, stop) = (integer(&call.args[2])?, integer(&call.args[3])?);
    let list = open(call)?;
    let found = list.and_then(|list| {
        let (start, stop) = range_within(start, stop, list.meta.size)?;
        Some(position::range(&list, &*call.txn, start, stop))
    });
    let mut reply = Reply::new(call.protocol);
    let found = found.unwrap_or_default();
    reply.array(found.len());
    for (_, value) in &found {
        reply.bulk(value);
    }
    Ok(reply.finish())
}

/// The element at an index as typed, negative ones counted from the end.
fn at_index(call: &Call<'_, '_>, list: &Collection, index: i64) -> Option<position::Element> {
    let size = list.meta.size as i64;
    let index = if index < 0 {
        index.saturating_add(size)
    } else {
        index
    };
    let index = u64::try_from(index)
        .ok()
        .filter(|index| *index < list.meta.size)?;
    position::range(list, &*call.txn, index, index).pop()
}

/// `LINDEX key index`.
pub(crate) fn lindex(call: &mut Call<'_, '_>) -> Outcome {
    let Some(list) = open(call)? else {
        return Ok(reply::nil(call.protocol));
    };
    let index = integer(&call.args[2])?;
    Ok(match at_index(call, &list, index) {
        Some((_, value)) => reply::bulk(&value),
        None => reply::nil(call.protocol),
    })
}

/// `LSET key index element`.
pub(crate) fn lset(call: &mut Call<'_, '_>) -> Outcome {
    let mut list = open(call)?.ok_or(CommandError::NoSuchKey)?;
    let index = integer(&call.args[2])?;
    let (position, _) =
        at_index(call, &list, index).ok_or(CommandError::Of("ERR index out of range"))?;
    let value = Bytes::copy_from_slice(&call.args[3]);
    if value.len() > SMALL_BYTES_MAX && list.meta.encoding == Encoding::Small {
        list.grow_if(true);
        call.save(&list);
    }
    position::set(call, &list, &position, value);
    Ok(reply::ok())
}

/// `LINSERT key BEFORE | AFTER pivot element`: the new length, or -1 if there is no such pivot.
pub(crate) fn linsert(call: &mut Call<'_, '_>) -> Outcome {
    let after = match &call.args[2] {
        place if place.eq_ignore_ascii_case(b"after") => true,
        place if place.eq_ignore_ascii_case(b"before") => false,
        _ => return Err(CommandError::Syntax),
    };
    let Some(mut list) = open(call)? else {
        return Ok(reply::int(0));
    };
    // Where the element before the pivot is, the pivot, and the one after it.
    let (mut before, mut pivot, mut next) = (None, None, None);
    position::visit(&list, &*call.txn, false, &mut |position, value| {
        if pivot.is_some() {
            next = Some(position.to_vec());
            return ControlFlow::Break(());
        }
        match value == &call.args[3][..] {
            true => pivot = Some(position.to_vec()),
            false => before = Some(position.to_vec()),
        }
        ControlFlow::Continue(())
    });
    let Some(pivot) = pivot else {
        return Ok(reply::int(-1));
    };
    let value = &call.args[4];
    let neighbours = match after {
        true => next
            .as_ref()
            .map(|next| ((&pivot[..], &next[..]), Pivot::Left)),
        false => before
            .as_ref()
            .map(|before| ((&before[..], &pivot[..]), Pivot::Right)),
    };
    match neighbours {
        Some((neighbours, side)) => {
            let value = Bytes::copy_from_slice(value);
            position::insert(call, &mut list, neighbours, side, value);
        }
        None => add(call, &mut list, !after, value),
    }
    let large = list.len() > SMALL_ENTRIES_MAX || value.len() > SMALL_BYTES_MAX;
    list.grow_if(large);
    call.save(&list);
    Ok(reply::int(list.len() as i64))
}

/// `LREM key count element`: removes that many from the beginning, or the end if negative; all
/// if 0.
pub(crate) fn lrem(call: &mut Call<'_, '_>) -> Outcome {
    let count = integer(&call.args[2])?;
    let Some(mut list) = open(call)? else {
        return Ok(reply::int(0));
    };
    let limit = match usize::try_from(count.unsigned_abs()) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    let mut doomed = Vec::new();
    position::visit(&list, &*call.txn, count < 0, &mut |position, value| {
        if value == &call.args[3][..] {
            doomed.push(position.to_vec());
        }
        match doomed.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    if !doomed.is_empty() {
        position::remove(call, &mut list, doomed.iter().map(|position| &position[..]));
        call.save(&list);
    }
    Ok(reply::int(doomed.len() as i64))
}

/// `LTRIM key start stop`.
pub(crate) fn ltrim(call: &mut Call<'_, '_>) -> Outcome {
    let (start, stop) = (integer(&call.args[2])?, integer(&call.args[3])?);
    let Some(mut list) = open(call)? else {
        return Ok(reply::ok());
    };
    match range_within(start, stop, list.meta.size) {
        Some((start, stop)) if stop - start + 1 == list.meta.size => {}
        Some((start, stop)) => {
            position::trim(call, &mut list, start, stop);
            call.save(&list);
        }
        None => call.delete(list.key),
    }
    Ok(reply::ok())
}

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN length]`.
pub(crate) fn lpos(call: &mut Call<'_, '_>) -> Outcome {
    let (mut rank, mut count, mut length_max) = (1, None, 0);
    for option in call.args[3..].chunks(2) {
        let [name, value] = option else {
            return Err(CommandError::Syntax);
        };
        let not_negative = |error| {
            parse_int(value)
                .filter(|number| *number >= 0)
                .ok_or(CommandError::Of(error))
        };
        match &name.to_ascii_lowercase()[..] {
            b"rank" => {
                rank = integer_within(value, -i64::MAX, i64::MAX)?;
                if rank == 0 {
                    return Err(CommandError::Of(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                         second ... or use negative to start from the end of the list",
                    ));
                }
            }
            b"count" => count = Some(not_negative("ERR COUNT can't be negative")?),
            b"maxlen" => length_max = not_negative("ERR MAXLEN can't be negative")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let list = open(call)?;
    let mut found = Vec::new();
    if let Some(list) = list {
        let limit = match count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let (mut skip, mut visited) = (rank.unsigned_abs() - 1, 0);
        position::visit(&list, &*call.txn, rank < 0, &mut |_, value| {
            visited += 1;
            if value == &call.args[2][..] {
                if skip > 0 {
                    skip -= 1;
                } else {
                    found.push(match rank < 0 {
                        true => list.meta.size as i64 - visited,
                        false => visited - 1,
                    });
                }
            }
            match found.len() < limit && visited != length_max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    }
    if count.is_none() {
        return Ok(match found.first() {
            Some(index) => reply::int(*index),
            None => reply::nil(call.protocol),
        });
    }
    let mut reply = Reply::new(call.protocol);
    reply.array(found.len());
    for index in found {
        reply.int(index);
    }
    Ok(reply.finish())
}

/// `LMOVE source destination LEFT | RIGHT LEFT | RIGHT`, `RPOPLPUSH source destination`.
pub(crate) fn lmove(call: &mut Call<'_, '_>) -> Outcome {
    let end = |arg: &Bytes| match arg {
        arg if arg.eq_ignore_ascii_case(b"left") => Ok(true),
        arg if arg.eq_ignore_ascii_case(b"right") => Ok(false),
        _ => Err(CommandError::Syntax),
    };
    let (from_left, to_left) = match call.name {
        "lmove" => (end(&call.args[3])?, end(&call.args[4])?),
        _ => (false, true),
    };
    let (from, to) = (call.key(1), call.key(2));
    let Some(mut source) = call.open(&from, Kind::List)? else {
        return Ok(reply::nil(call.protocol));
    };
    if from == to {
        let popped = position::pop(call, &mut source, from_left, 1);
        add(call, &mut source, to_left, &popped[0]);
        call.save(&source);
        return Ok(reply::bulk(&popped[0]));
    }
    let mut destination = call.open_or_create(&to, Kind::List)?;
    let popped = position::pop(call, &mut source, from_left, 1);
    call.save(&source);
    add(call, &mut destination, to_left, &popped[0]);
    call.save(&destination);
    Ok(reply::bulk(&popped[0]))
}
