//! Decimal integers as Redis reads them.

use super::error::CommandError;

/// Parses a 64-bit integer in its one canonical form: no leading zeros, plus sign or spaces,
/// and no `-0`. `None` for anything else, out-of-range numbers included.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < 19 => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        // Downwards, because the negative numbers are one more.
        value = value.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// As an argument that has to be one.
pub(crate) fn integer(text: &[u8]) -> Result<i64, CommandError> {
    parse_int(text).ok_or(CommandError::NotInteger)
}

/// An argument between two bounds, both inclusive.
pub(crate) fn integer_within(text: &[u8], min: i64, max: i64) -> Result<i64, CommandError> {
    match integer(text)? {
        number if (min..=max).contains(&number) => Ok(number),
        _ => Err(CommandError::OutOfRange { min, max }),
    }
}

/// An argument that must not be negative.
pub(crate) fn positive(text: &[u8]) -> Result<u64, CommandError> {
    let number = parse_int(text).and_then(|number| u64::try_from(number).ok());
    number.ok_or(CommandError::Of(
        "ERR value is out of range, must be positive",
    ))
}

/// `start` and `stop` of a range in a sequence of `length`, where negative ones count from the
/// end: the part of the sequence that they name, or nothing.
pub(crate) fn range_within(start: i64, stop: i64, length: u64) -> Option<(u64, u64)> {
    let length = length as i64;
    let from_end = |index: i64| {
        if index < 0 {
            index.saturating_add(length)
        } else {
            index
        }
    };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(length - 1));
    (start <= stop && start < length).then_some((start as u64, stop as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_canonical_integers_parse() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: i64) {
            prop_assert_eq!(parse_int(value.to_string().as_bytes()), Some(value));
        }
    }
}
