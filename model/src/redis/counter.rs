//! Strings as numbers: `INCR`, `DECR`, `INCRBY`, `DECRBY`, `INCRBYFLOAT`.
//!
//! A missing key counts as 0, and the key's expiry is kept.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::extended::Extended;
use super::number::parse_int;
use super::reply::{self, push_int};
use super::value::{self, TEXT};

/// `INCR key` (`by` = 1), `DECR key` (`by` = -1).
pub(crate) fn incr(call: &mut Call<'_, '_>, by: i64) -> Outcome {
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let (before, expires_at_ms) = match &value {
        Some(value) => (parse_int(value.payload()), value.expires_at_ms),
        None => (Some(0), None),
    };
    let before = before.ok_or(CommandError::NotInteger)?;
    let after = before.checked_add(by).ok_or(CommandError::Overflow)?;
    let mut digits = Vec::with_capacity(20);
    push_int(&mut digits, after);
    call.put(key, value::string(0, expires_at_ms, &[&digits]));
    Ok(reply::int(after))
}

/// `INCRBY key increment`.
pub(crate) fn incrby(call: &mut Call<'_, '_>) -> Outcome {
    let by = parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    incr(call, by)
}

/// `DECRBY key decrement`.
pub(crate) fn decrby(call: &mut Call<'_, '_>) -> Outcome {
    let by = parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    let by = by.checked_neg().ok_or(CommandError::DecrementOverflow)?;
    incr(call, by)
}

/// `INCRBYFLOAT key increment`: the sum in plain decimal notation, at most 17 digits after
/// the point.
pub(crate) fn incrbyfloat(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let (before, expires_at_ms) = match &value {
        Some(value) => (Extended::parse(value.payload()), value.expires_at_ms),
        None => (Some(Extended::ZERO), None),
    };
    let before = before.ok_or(CommandError::NotFloat)?;
    let by = Extended::parse(&call.args[2]).ok_or(CommandError::NotFloat)?;
    let after = before.add(by).to_decimal().ok_or(CommandError::NotFinite)?;
    let after = after.as_bytes();
    call.put(key, value::string(TEXT, expires_at_ms, &[after]));
    Ok(reply::bulk(after))
}
