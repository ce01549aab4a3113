//! Parts of strings: `APPEND`, `STRLEN`, `GETRANGE`, `SUBSTR`, `SETRANGE`.
//!
//! Edits keep the key's expiry.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::number::parse_int;
use super::reply;
use super::string::STRING_BYTES_MAX;
use super::value::{self, RAW};
use bytes::Bytes;

/// `APPEND key value`: the new length.
pub(crate) fn append(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let addition = &call.args[2];
    let Some(value) = call.read_string(&key)? else {
        call.put(key, value::string(0, None, &[addition]));
        return Ok(reply::int(addition.len() as i64));
    };
    let before = value.payload();
    let length = checked_length(before.len() as u64, addition.len() as u64)?;
    call.put(
        key,
        value::string(RAW, value.expires_at_ms, &[before, addition]),
    );
    Ok(reply::int(length))
}

/// `STRLEN key`: 0 if there is no such key.
pub(crate) fn strlen(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let value = call.read_string(&key)?;
    Ok(reply::int(
        value.map_or(0, |value| value.payload().len() as i64),
    ))
}

/// `GETRANGE key start end`, `SUBSTR key start end`: both ends inclusive, negative ones
/// counted from the end of the string.
pub(crate) fn getrange(call: &mut Call<'_, '_>) -> Outcome {
    let start = parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    let end = parse_int(&call.args[3]).ok_or(CommandError::NotInteger)?;
    let key = call.key(1);
    let Some(value) = call.read_string(&key)? else {
        return Ok(reply::bulk(b""));
    };
    Ok(reply::bulk(slice(value.payload(), start, end)))
}

fn slice(text: &[u8], start: i64, end: i64) -> &[u8] {
    let length = text.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from_end = |index: i64| match index {
        index if index < 0 => length.saturating_add(index).max(0),
        index => index,
    };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end {
        return b"";
    }
    &text[start as usize..=end as usize]
}

/// `SETRANGE key offset value`: the new length. What lies between the old end and the offset
/// becomes zero bytes; an empty value changes nothing.
pub(crate) fn setrange(call: &mut Call<'_, '_>) -> Outcome {
    let offset = parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    let offset = u64::try_from(offset).map_err(|_| CommandError::OffsetOutOfRange)?;
    let patch = &call.args[3];
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let before = value.as_ref().map_or(&b""[..], |value| value.payload());
    if patch.is_empty() {
        return Ok(reply::int(before.len() as i64));
    }
    checked_length(offset, patch.len() as u64)?;
    let offset = offset as usize;
    let kept = &before[..offset.min(before.len())];
    let gap = Bytes::from(vec![0; offset - kept.len()]);
    let tail = before.get(offset + patch.len()..).unwrap_or_default();
    let length = kept.len() + gap.len() + patch.len() + tail.len();
    let expires_at_ms = value.as_ref().and_then(|value| value.expires_at_ms);
    call.put(
        key,
        value::string(RAW, expires_at_ms, &[kept, &gap, patch, tail]),
    );
    Ok(reply::int(length as i64))
}

/// The sum of two lengths, if a string may be so long.
fn checked_length(before: u64, addition: u64) -> Result<i64, CommandError> {
    match before.checked_add(addition) {
        Some(length) if length <= STRING_BYTES_MAX => Ok(length as i64),
        _ => Err(CommandError::StringTooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_inclusive_and_count_from_both_ends() {
        let text = b"This is a string";
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 4, ""),
            (-1, -5, ""),
            (100, 200, ""),
            (-100, 0, "T"),
            (-100, -100, "T"),
            (-100, -99, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
        ] {
            assert_eq!(
                slice(text, start, end),
                expected.as_bytes(),
                "{start} {end}"
            );
        }
        assert_eq!(slice(b"", 0, -1), b"");
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(checked_length(STRING_BYTES_MAX - 1, 1).is_ok());
        assert!(checked_length(STRING_BYTES_MAX, 1).is_err());
        assert!(checked_length(u64::MAX, 1).is_err());
    }
}
