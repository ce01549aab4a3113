//! Double-precision numbers as Redis reads and writes them: scores, coordinates.
//!
//! Written are the fewest digits that read back as the same number, in the notation that Redis
//! 7.2 chooses (its `d2string`). Redis finds the digits with Grisu2, which in about one of a
//! thousand numbers takes one digit more than needed, or a last digit that is one off; ours
//! are always the shortest.

use super::extended::Extended;
use super::reply::push_int;

/// Reads a score: what C's `strtod` reads, all of it. `None` for anything else, NaN, and for
/// what is too large for a double or so small that it becomes zero.
pub(crate) fn parse(text: &[u8]) -> Option<f64> {
    let value = read(text)?;
    let digits = text.iter().any(|b| b.is_ascii_digit());
    if value.is_nan() || (value.is_infinite() && digits) {
        return None;
    }
    if value == 0.0 && is_underflow(text) {
        return None;
    }
    Some(value)
}

/// Reads a bound of a score range: as `strtod` does, which skips spaces before the number, takes
/// nothing at all for 0, and stops at a zero byte.
pub(crate) fn parse_bound(text: &[u8]) -> Option<f64> {
    let text = c_string(text);
    if text.is_empty() {
        return Some(0.0);
    }
    read(skip_spaces(text)).filter(|value| !value.is_nan())
}

/// Reads what `SORT` sorts by: a score which may follow spaces and ends at a zero byte, and
/// nothing at all for 0.
pub(crate) fn parse_padded(text: &[u8]) -> Option<f64> {
    match c_string(text) {
        [] => Some(0.0),
        text => parse(skip_spaces(text)),
    }
}

/// What C sees of a string: nothing from a zero byte on.
pub(crate) fn c_string(text: &[u8]) -> &[u8] {
    text.split(|&b| b == 0).next().unwrap_or_default()
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = |b: &&u8| matches!(b, b' ' | b'\t'..=b'\r');
    &text[text.iter().take_while(spaces).count()..]
}

fn read(text: &[u8]) -> Option<f64> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if let [b'0', b'x' | b'X', ..] = unsigned {
        let value = Extended::parse(unsigned)?.to_double();
        return Some(if negative { -value } else { value });
    }
    // A second sign is none of the number's.
    if matches!(unsigned.first(), Some(b'-' | b'+')) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a text that reads as zero names another number.
fn is_underflow(text: &[u8]) -> bool {
    let hexadecimal = text.iter().any(|b| matches!(b, b'x' | b'X'));
    let end = if hexadecimal { b"pP" } else { b"eE" };
    let mantissa = text.iter().take_while(|b| !end.contains(b));
    mantissa.into_iter().any(|b| match b {
        b'1'..=b'9' => true,
        b'a'..=b'f' | b'A'..=b'F' => hexadecimal,
        _ => false,
    })
}

/// The text of a double.
pub(crate) fn text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    const WHOLE_MAX: f64 = (i64::MAX / 2) as f64;
    if value.abs() <= WHOLE_MAX && value.trunc() == value {
        let mut digits = Vec::with_capacity(20);
        push_int(&mut digits, value as i64);
        return String::from_utf8_lossy(&digits).into_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let shortest = format!("{:e}", value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let count = digits.len() as i32;
    // The number is digits × 10^scale.
    let scale = exponent - (count - 1);
    if scale >= 0 && exponent.abs() < count + 7 {
        return format!("{sign}{digits}{}", "0".repeat(scale as usize));
    }
    if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        let whole = count + scale;
        return if whole <= 0 {
            format!(
                "{sign}0.{}{digits}",
                "0".repeat(whole.unsigned_abs() as usize)
            )
        } else {
            let (whole, fraction) = digits.split_at(whole as usize);
            format!("{sign}{whole}.{fraction}")
        };
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{direction}{}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_are_read_whole() {
        for (written, expected) in [
            ("1", Some(1.0)),
            ("-0", Some(-0.0)),
            ("+1.5e3", Some(1500.0)),
            ("0x1p-1", Some(0.5)),
            ("-0x10", Some(-16.0)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1e400", None),
            ("1e-400", None),
            ("0e-400", Some(0.0)),
            ("nan", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("+-1", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse(written.as_bytes()), expected, "{written:?}");
        }
        for (written, expected) in [
            ("", Some(0.0)),
            (" 1", Some(1.0)),
            ("1 ", None),
            ("nan", None),
        ] {
            assert_eq!(parse_bound(written.as_bytes()), expected, "{written:?}");
        }
    }

    #[test]
    fn notation_is_that_of_redis() {
        for (value, expected) in [
            (3.1, "3.1"),
            (-0.0, "-0"),
            (1e15, "1000000000000000"),
            (1e18, "1000000000000000000"),
            (1e19, "1e+19"),
            (1.5e19, "1.5e+19"),
            (123456789e12, "1.23456789e+20"),
            (0.001, "0.001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-1.5e-7, "-1.5e-7"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: f64) {
            prop_assume!(!value.is_nan());
            prop_assert_eq!(read(text(value).as_bytes()), Some(value));
        }
    }
}
