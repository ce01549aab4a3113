//! Strings as bits: `SETBIT GETBIT BITCOUNT BITPOS BITOP`. `BITFIELD` is in
//! [`bitfield`](super::bitfield).
//!
//! Bit 0 is the most significant bit of the first byte. A write makes room with zeros, keeps the
//! key's expiry, and writes the whole string: what it costs grows with the string.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::number::{integer, parse_int};
use super::reply;
use super::string::STRING_BYTES_MAX;
use super::value::{self, Value, RAW};
use bytes::Bytes;

/// A bit's index: one within the longest string.
pub(crate) fn parse_offset(text: &[u8], times: i64) -> Result<u64, CommandError> {
    parse_int(text)
        .and_then(|offset| offset.checked_mul(times))
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset >> 3 < STRING_BYTES_MAX)
        .ok_or(CommandError::Of(
            "ERR bit offset is not an integer or out of range",
        ))
}

/// The string at a key, as bytes that can be changed, at least `length` of them; and its expiry.
pub(crate) fn writable(value: Option<&Value<Bytes>>, length: usize) -> (Vec<u8>, Option<u64>) {
    let mut bytes = value.map_or(Vec::new(), |value| value.payload().to_vec());
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    (bytes, value.and_then(|value| value.expires_at_ms))
}

/// `SETBIT key offset value`: the old bit.
pub(crate) fn setbit(call: &mut Call<'_, '_>) -> Outcome {
    let offset = parse_offset(&call.args[2], 1)?;
    let on = parse_int(&call.args[3])
        .filter(|bit| (0..=1).contains(bit))
        .ok_or(CommandError::Of(
            "ERR bit is not an integer or out of range",
        ))?;
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let at = (offset >> 3) as usize;
    let (mut bytes, expires_at_ms) = writable(value.as_ref(), at + 1);
    let shift = 7 - (offset & 7);
    let old = bytes[at] >> shift & 1;
    bytes[at] = bytes[at] & !(1 << shift) | (on as u8) << shift;
    call.put(key, value::string(RAW, expires_at_ms, &[&bytes]));
    Ok(reply::int(i64::from(old)))
}

/// `GETBIT key offset`: 0 beyond the end.
pub(crate) fn getbit(call: &mut Call<'_, '_>) -> Outcome {
    let offset = parse_offset(&call.args[2], 1)?;
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let byte = value.and_then(|value| value.payload().get((offset >> 3) as usize).copied());
    Ok(reply::int(i64::from(
        byte.unwrap_or(0) >> (7 - (offset & 7)) & 1,
    )))
}

/// `BYTE` or `BIT`: whether bits are counted.
fn parse_unit(text: &[u8]) -> Result<bool, CommandError> {
    match text {
        unit if unit.eq_ignore_ascii_case(b"bit") => Ok(true),
        unit if unit.eq_ignore_ascii_case(b"byte") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// The bits of a range of bytes or bits as typed, `[from, to)`; `None` if it is empty.
fn bits_of(start: i64, end: i64, bits: bool, length: usize) -> Option<(usize, usize)> {
    let total = length as i64 * if bits { 8 } else { 1 };
    let from_end = |index: i64| match index {
        index if index < 0 => index.saturating_add(total).max(0),
        index => index,
    };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    let unit = if bits { 1 } else { 8 };
    (start <= end).then(|| (start as usize * unit, (end as usize + 1) * unit))
}

/// The bits of byte `at` that lie in `[from, to)`.
fn mask(at: usize, from: usize, to: usize) -> u8 {
    let (first, last) = (at * 8, at * 8 + 8);
    let head = if from > first {
        0xFF >> (from - first).min(7)
    } else {
        0xFFu8
    };
    let tail = if to < last {
        0xFFu16 << (last - to)
    } else {
        0xFF
    };
    head & tail as u8
}

/// `BITCOUNT key [start end [BYTE | BIT]]`.
pub(crate) fn bitcount(call: &mut Call<'_, '_>) -> Outcome {
    let range = match &call.args[2..] {
        [] => None,
        [start, end] => Some((integer(start)?, integer(end)?, false)),
        [start, end, unit] => Some((integer(start)?, integer(end)?, parse_unit(unit)?)),
        _ => return Err(CommandError::Syntax),
    };
    let key = call.key(1);
    let Some(value) = call.read_string(&key)? else {
        return Ok(reply::int(0));
    };
    let bytes = value.payload();
    let bits = match range {
        None => Some((0, bytes.len() * 8)),
        Some((start, end, _)) if start < 0 && end < 0 && start > end => None,
        Some((start, end, bits)) => bits_of(start, end, bits, bytes.len()),
    };
    let count = bits.map_or(0, |(from, to)| {
        let (first, end) = (from / 8, to.div_ceil(8));
        let inner = bytes[first..end].iter().enumerate();
        inner
            .map(|(n, byte)| i64::from((byte & mask(first + n, from, to)).count_ones()))
            .sum()
    });
    Ok(reply::int(count))
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`: the first such bit, or -1. The string counts as
/// followed by zeros, unless an end is given.
pub(crate) fn bitpos(call: &mut Call<'_, '_>) -> Outcome {
    let wanted = match integer(&call.args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Of("ERR The bit argument must be 1 or 0.")),
    };
    let (start, end, bits) = match &call.args[3..] {
        [] => (0, None, false),
        [start] => (integer(start)?, None, false),
        [start, end] => (integer(start)?, Some(integer(end)?), false),
        [start, end, unit] => {
            let (start, bits) = (integer(start)?, parse_unit(unit)?);
            (start, Some(integer(end)?), bits)
        }
        _ => return Err(CommandError::Syntax),
    };
    let key = call.key(1);
    let Some(value) = call.read_string(&key)? else {
        return Ok(reply::int(if wanted { -1 } else { 0 }));
    };
    let bytes = value.payload();
    let Some((from, to)) = bits_of(start, end.unwrap_or(i64::MAX), bits, bytes.len()) else {
        return Ok(reply::int(-1));
    };
    let skip = if wanted { 0x00 } else { 0xFFu8 };
    let found = (from / 8..to.div_ceil(8)).find_map(|at| {
        let differs = (bytes[at] ^ skip) & mask(at, from, to);
        (differs != 0).then(|| at as i64 * 8 + i64::from(differs.leading_zeros()))
    });
    Ok(reply::int(match found {
        Some(position) => position,
        None if wanted || end.is_some() => -1,
        None => to as i64,
    }))
}

/// `BITOP AND | OR | XOR | NOT destination key …`: the length of the result.
pub(crate) fn bitop(call: &mut Call<'_, '_>) -> Outcome {
    let operation: fn(u8, u8) -> u8 = match &call.args[1].to_ascii_lowercase()[..] {
        b"and" => |a, b| a & b,
        b"or" => |a, b| a | b,
        b"xor" => |a, b| a ^ b,
        b"not" if call.args.len() != 4 => {
            return Err(CommandError::Of(
                "ERR BITOP NOT must be called with a single source key.",
            ))
        }
        b"not" => |a, _| a,
        _ => return Err(CommandError::Syntax),
    };
    let negates = call.args[1].eq_ignore_ascii_case(b"not");
    let mut sources = Vec::with_capacity(call.args.len() - 3);
    for index in 3..call.args.len() {
        let key = call.key(index);
        sources.push(call.read_string(&key)?);
    }
    let payload = |source: &'_ Option<Value<Bytes>>| -> Bytes {
        source.as_ref().map_or(Bytes::new(), |value| {
            Bytes::copy_from_slice(value.payload())
        })
    };
    let sources: Vec<Bytes> = sources.iter().map(payload).collect();
    let length = sources.iter().map(Bytes::len).max().unwrap_or(0);
    let byte = |source: &Bytes, at: usize| source.get(at).copied().unwrap_or(0);
    let result: Vec<u8> = (0..length)
        .map(|at| match &sources[..] {
            [only] if negates => !byte(only, at),
            [first, others @ ..] => others.iter().fold(byte(first, at), |sum, other| {
                operation(sum, byte(other, at))
            }),
            [] => 0,
        })
        .collect();
    let destination = call.key(2);
    if result.is_empty() {
        // Whatever was there is gone, if it was.
        call.read(&destination);
        call.delete(destination);
    } else {
        call.put(destination, value::string(RAW, None, &[&result]));
    }
    Ok(reply::int(length as i64))
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::*;

    #[test]
    fn xor_of_one_key_is_the_key() {
        let mut keyspace = Keyspace::new();
        keyspace.run("SET k abc");
        keyspace.run("BITOP XOR d k");
        assert_eq!(keyspace.run("GET d"), "$3 abc ");
    }

    #[test]
    fn masks_cover_the_ends_of_a_range() {
        for (at, from, to, expected) in [
            (0, 0, 8, 0xFF),
            (0, 3, 8, 0x1F),
            (0, 3, 5, 0x18),
            (1, 3, 9, 0x80),
            (1, 3, 40, 0xFF),
            (0, 7, 8, 0x01),
        ] {
            assert_eq!(mask(at, from, to), expected, "{at} {from} {to}");
        }
    }
}
