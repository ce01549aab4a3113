//! Hashes: `HSET HSETNX HMSET HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN HDEL HINCRBY
//! HINCRBYFLOAT HRANDFIELD`. `HSCAN` is in [`scan`](super::scan).
//!
//! A record per field. Whole hashes are answered in the order of [`member_hash`](super::keys::member_hash).

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::extended::Extended;
use super::meta::Encoding;
use super::number::{integer, integer_within, parse_int};
use super::random::{self, Random};
use super::reply::{self, push_int, Reply};
use super::value::Kind;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Redis's `hash-max-listpack-entries` and `hash-max-listpack-value`.
const SMALL_ENTRIES_MAX: usize = 512;
const SMALL_BYTES_MAX: usize = 64;

fn open(call: &mut Call<'_, '_>) -> Result<Option<Collection>, CommandError> {
    let key = call.key(1);
    call.open(&key, Kind::Hash)
}

fn open_or_create(call: &mut Call<'_, '_>) -> Result<Collection, CommandError> {
    let key = call.key(1);
    call.open_or_create(&key, Kind::Hash)
}

/// Sets one field; whether it is new.
fn put(call: &mut Call<'_, '_>, hash: &mut Collection, field: &[u8], value: Bytes) -> bool {
    let long = field.len().max(value.len()) > SMALL_BYTES_MAX;
    let new = hash.put_member(call, field, value);
    hash.grow_if(long || hash.len() > SMALL_ENTRIES_MAX);
    new
}

/// `HSET key field value …` answers how many fields are new; `HMSET` answers `OK`.
pub(crate) fn hset(call: &mut Call<'_, '_>) -> Outcome {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.name.to_owned()));
    }
    let mut hash = open_or_create(call)?;
    let mut new = 0;
    for pair in call.args[2..].chunks_exact(2) {
        new += i64::from(put(call, &mut hash, &pair[0], own(&pair[1])));
    }
    call.save(&hash);
    Ok(match call.name {
        "hmset" => reply::ok(),
        _ => reply::int(new),
    })
}

/// A value that does not keep the whole request alive.
fn own(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// `HSETNX key field value`: 1 if it was set.
pub(crate) fn hsetnx(call: &mut Call<'_, '_>) -> Outcome {
    let mut hash = open_or_create(call)?;
    if hash.member(&*call.txn, &call.args[2]).is_some() {
        return Ok(reply::int(0));
    }
    put(call, &mut hash, &call.args[2], own(&call.args[3]));
    call.save(&hash);
    Ok(reply::int(1))
}

/// `HGET key field`.
pub(crate) fn hget(call: &mut Call<'_, '_>) -> Outcome {
    let value = open(call)?.and_then(|hash| hash.member(&*call.txn, &call.args[2]));
    Ok(match value {
        Some(value) => reply::bulk(&value),
        None => reply::nil(call.protocol),
    })
}

/// `HMGET key field …`.
pub(crate) fn hmget(call: &mut Call<'_, '_>) -> Outcome {
    let hash = open(call)?;
    let mut reply = Reply::new(call.protocol);
    reply.array(call.args.len() - 2);
    for field in &call.args[2..] {
        match hash
            .as_ref()
            .and_then(|hash| hash.member(&*call.txn, field))
        {
            Some(value) => reply.bulk(&value),
            None => reply.nil(),
        };
    }
    Ok(reply.finish())
}

/// `HGETALL key`, `HKEYS key`, `HVALS key`.
pub(crate) fn hgetall(call: &mut Call<'_, '_>) -> Outcome {
    let (fields, values) = (call.name != "hvals", call.name != "hkeys");
    let hash = open(call)?;
    let size = hash.as_ref().map_or(0, Collection::len);
    let mut reply = Reply::new(call.protocol);
    match fields && values {
        true => reply.map(size),
        false => reply.array(size),
    };
    let mut visited = 0;
    if let Some(hash) = hash {
        hash.members(&*call.txn, 0, &mut |_, field, value| {
            visited += 1;
            if fields {
                reply.bulk(field);
            }
            if values {
                reply.bulk(value);
            }
            ControlFlow::Continue(())
        });
    }
    assert_eq!(visited, size, "fields of a hash, and its size");
    Ok(reply.finish())
}

/// `HLEN key`.
pub(crate) fn hlen(call: &mut Call<'_, '_>) -> Outcome {
    Ok(reply::int(open(call)?.map_or(0, |hash| hash.len() as i64)))
}

/// `HEXISTS key field`, `HSTRLEN key field`.
pub(crate) fn hexists(call: &mut Call<'_, '_>) -> Outcome {
    let value = open(call)?.and_then(|hash| hash.member(&*call.txn, &call.args[2]));
    Ok(reply::int(match (value, call.name) {
        (None, _) => 0,
        (Some(value), "hstrlen") => value.len() as i64,
        (Some(_), _) => 1,
    }))
}

/// `HDEL key field …`: how many there were.
pub(crate) fn hdel(call: &mut Call<'_, '_>) -> Outcome {
    let Some(mut hash) = open(call)? else {
        return Ok(reply::int(0));
    };
    let mut removed = 0;
    for field in &call.args[2..] {
        removed += i64::from(hash.remove_member(call, field));
    }
    if removed > 0 {
        call.save(&hash);
    }
    Ok(reply::int(removed))
}

/// `HINCRBY key field increment`: a missing field counts as 0.
pub(crate) fn hincrby(call: &mut Call<'_, '_>) -> Outcome {
    let by = integer(&call.args[3])?;
    let mut hash = open_or_create(call)?;
    let before = match hash.member(&*call.txn, &call.args[2]) {
        Some(value) => {
            parse_int(&value).ok_or(CommandError::Of("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let after = before.checked_add(by).ok_or(CommandError::Overflow)?;
    let mut digits = Vec::with_capacity(20);
    push_int(&mut digits, after);
    put(call, &mut hash, &call.args[2], digits.into());
    call.save(&hash);
    Ok(reply::int(after))
}

/// `HINCRBYFLOAT key field increment`.
pub(crate) fn hincrbyfloat(call: &mut Call<'_, '_>) -> Outcome {
    let by = Extended::parse(&call.args[3]).ok_or(CommandError::NotFloat)?;
    if by.is_infinite() {
        return Err(CommandError::Of("ERR value is NaN or Infinity"));
    }
    let mut hash = open_or_create(call)?;
    let before = match hash.member(&*call.txn, &call.args[2]) {
        Some(value) => {
            Extended::parse(&value).ok_or(CommandError::Of("ERR hash value is not a float"))?
        }
        None => Extended::ZERO,
    };
    let after = before.add(by).to_decimal().ok_or(CommandError::NotFinite)?;
    let answer = reply::bulk(after.as_bytes());
    put(call, &mut hash, &call.args[2], after.into());
    call.save(&hash);
    Ok(answer)
}

/// `HRANDFIELD key [count [WITHVALUES]]`: a negative count may answer a field repeatedly.
pub(crate) fn hrandfield(call: &mut Call<'_, '_>) -> Outcome {
    let mut random = Random::new(call.context.seed);
    let Some(count) = call.args.get(2) else {
        let Some(hash) = open(call)? else {
            return Ok(reply::nil(call.protocol));
        };
        return Ok(reply::bulk(&random::one(call, &hash, &mut random).0));
    };
    let count = integer_within(count, -i64::MAX, i64::MAX)?;
    let values = match &call.args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withvalues") => true,
        _ => return Err(CommandError::Syntax),
    };
    if values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::Of("ERR value is out of range"));
    }
    let Some(hash) = open(call)? else {
        return Ok(reply::empty_array());
    };
    let chosen = random::choose(call, &hash, count, &mut random)?;
    let mut reply = Reply::new(call.protocol);
    reply.pairs(chosen.len(), values);
    for (field, value) in &chosen {
        reply.pair(values);
        reply.bulk(field);
        if values {
            reply.bulk(value);
        }
    }
    Ok(reply.finish())
}

/// What `OBJECT ENCODING` answers.
pub(crate) fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Small => "listpack",
        _ => "hashtable",
    }
}
