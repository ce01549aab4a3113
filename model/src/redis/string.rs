//! Strings as a whole: `GET`, `SET` and their kin, of one key or several.
//!
//! Invariant: `SET`, `SETEX`, `PSETEX` and `MSET` write without reading what was there.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::expire::{self, Unit};
use super::reply::{self, Reply};
use super::set_options::{self, Condition, Of, Options};
use super::value::{self, Kind};
use bytes::Bytes;

/// The longest string, in bytes, as Redis's default for `proto-max-bulk-len`.
pub const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// `GET key`.
pub(crate) fn get(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    get_record(call, &key)
}

fn get_record(call: &mut Call<'_, '_>, key: &Bytes) -> Outcome {
    Ok(match call.read_string(key)? {
        Some(value) => reply::bulk(value.payload()),
        None => reply::nil(call.protocol),
    })
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(crate) fn set(call: &mut Call<'_, '_>) -> Outcome {
    if call.args.len() == 3 {
        call.put(call.key(1), value::string(0, None, &[&call.args[2]]));
        return Ok(reply::ok());
    }
    let options = set_options::parse(Of::Set, &call.args[3..])?;
    let expires_at_ms = match options.expiry {
        Some(expiry) => Some(expire::deadline_ms(call, &expiry)?),
        None => None,
    };
    set_with_options(call, &options, expires_at_ms)
}

fn set_with_options(
    call: &mut Call<'_, '_>,
    options: &Options<'_>,
    mut expires_at_ms: Option<u64>,
) -> Outcome {
    let key = call.key(1);
    let mut answer = None;
    if options.get {
        answer = Some(get_record(call, &key)?);
    }
    if options.condition.is_some() || options.keep_expiry {
        let before = call.read(&key);
        let unmet = match options.condition {
            Some(Condition::Absent) => before.is_some(),
            Some(Condition::Present) => before.is_none(),
            None => false,
        };
        if unmet {
            return Ok(answer.unwrap_or_else(|| reply::nil(call.protocol)));
        }
        if options.keep_expiry {
            expires_at_ms = before.and_then(|value| value.expires_at_ms);
        }
    }
    put_string(call, key, 2, expires_at_ms);
    Ok(answer.unwrap_or_else(reply::ok))
}

/// Sets `key` to the argument at `index`; with an expiry that has come already this is as
/// good as deleting it.
fn put_string(call: &mut Call<'_, '_>, key: Bytes, index: usize, expires_at_ms: Option<u64>) {
    if expires_at_ms.is_some_and(|at| at <= call.context.now_ms) {
        call.delete(key);
    } else {
        call.put(key, value::string(0, expires_at_ms, &[&call.args[index]]));
    }
}

/// `SETNX key value`.
pub(crate) fn setnx(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    if call.read(&key).is_some() {
        return Ok(reply::int(0));
    }
    put_string(call, key, 2, None);
    Ok(reply::int(1))
}

/// `SETEX key seconds value`, `PSETEX key milliseconds value`.
pub(crate) fn setex(call: &mut Call<'_, '_>, unit: Unit) -> Outcome {
    let expiry = set_options::Expiry {
        unit,
        absolute: false,
        number: &call.args[2],
    };
    let expires_at_ms = expire::deadline_ms(call, &expiry)?;
    put_string(call, call.key(1), 3, Some(expires_at_ms));
    Ok(reply::ok())
}

/// `GETSET key value`.
pub(crate) fn getset(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let before = get_record(call, &key)?;
    put_string(call, key, 2, None);
    Ok(before)
}

/// `GETDEL key`.
pub(crate) fn getdel(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let Some(value) = call.read_string(&key)? else {
        return Ok(reply::nil(call.protocol));
    };
    call.delete(key);
    Ok(reply::bulk(value.payload()))
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`. The options are looked at before
/// the key, the number of an expiry after it.
pub(crate) fn getex(call: &mut Call<'_, '_>) -> Outcome {
    let options = set_options::parse(Of::GetEx, &call.args[2..])?;
    let key = call.key(1);
    let Some(value) = call.read_string(&key)? else {
        return Ok(reply::nil(call.protocol));
    };
    if let Some(expiry) = options.expiry {
        let at = expire::deadline_ms(call, &expiry)?;
        expire::set_expiry(call, key, &value, at);
    } else if options.persist && value.expires_at_ms.is_some() {
        call.put(key, value.with_expiry(None));
    }
    Ok(reply::bulk(value.payload()))
}

/// `MGET key …`: nil for a key that does not exist or holds something else.
pub(crate) fn mget(call: &mut Call<'_, '_>) -> Outcome {
    let mut reply = Reply::new(call.protocol);
    reply.array(call.args.len() - 1);
    for index in 1..call.args.len() {
        let key = call.key(index);
        match call.read(&key) {
            Some(value) if value.kind == Kind::String => reply.bulk(value.payload()),
            _ => reply.nil(),
        };
    }
    Ok(reply.finish())
}

/// `MSET key value …`: of a key named twice, the last value.
pub(crate) fn mset(call: &mut Call<'_, '_>) -> Outcome {
    check_pairs(call)?;
    for index in (1..call.args.len()).step_by(2) {
        put_string(call, call.key(index), index + 1, None);
    }
    Ok(reply::ok())
}

/// `MSETNX key value …`: all or none.
pub(crate) fn msetnx(call: &mut Call<'_, '_>) -> Outcome {
    check_pairs(call)?;
    for index in (1..call.args.len()).step_by(2) {
        let key = call.key(index);
        if call.read(&key).is_some() {
            return Ok(reply::int(0));
        }
    }
    mset(call)?;
    Ok(reply::int(1))
}

fn check_pairs(call: &Call<'_, '_>) -> Result<(), CommandError> {
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.name.to_owned()));
    }
    Ok(())
}
