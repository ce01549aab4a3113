//! Floating-point numbers as `INCRBYFLOAT` computes them.
//!
//! Redis adds in C's `long double`, which on x86-64 is the 80-bit extended format: 64 bits of
//! mantissa, 15 of exponent, rounding to the nearest and on a tie to the even. Rust has no
//! such type, so that it is done here with integers, and exactly: 0.1 + 0.2 is 0.3, as in
//! Redis, where `f64` would say 0.30000000000000004. The result is also the same on every
//! machine, whatever its `long double` is.
//!
//! The one liberty: numbers below 2^-16382 keep 64 bits of mantissa instead of fewer. They
//! are printed as 0 either way.

use super::bignum::Natural;

/// Texts of this many bytes and more are no numbers (Redis's `MAX_LONG_DOUBLE_CHARS`).
const TEXT_BYTES_MAX: usize = 5 * 1024;
/// Exponent of the leading bit of the greatest numbers.
const EXPONENT_MAX: i64 = 16383;
/// Exponent of the leading bit of the least number that is not 0.
const EXPONENT_MIN: i64 = -16445;
/// Digits after the point.
const DECIMALS: usize = 17;

/// An 80-bit extended-precision number; never NaN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extended {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Magnitude {
    Zero,
    /// `mantissa × 2^exponent`; the mantissa's most significant bit is set.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    /// Infinity, or the sum of two opposite infinities: no number that could be stored.
    TooLarge,
}

impl Extended {
    pub const ZERO: Extended = Extended {
        negative: false,
        magnitude: Magnitude::Zero,
    };

    /// Reads what C's `strtold` reads (decimal and hexadecimal, with or without exponent, and
    /// `inf`), without spaces. `None` for anything else, `nan`, and numbers too large or too
    /// small for the format.
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let magnitude = match text {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
            _ if text.eq_ignore_ascii_case(b"inf") => Magnitude::TooLarge,
            _ if text.eq_ignore_ascii_case(b"infinity") => Magnitude::TooLarge,
            _ => parse_decimal(text)?,
        };
        Some(Extended {
            negative,
            magnitude,
        })
    }

    /// The rounded sum.
    pub fn add(self, other: Extended) -> Extended {
        use Magnitude::{Finite, TooLarge, Zero};
        match (self.magnitude, other.magnitude) {
            (TooLarge, _) | (_, Zero) => self,
            (_, TooLarge) | (Zero, _) => other,
            (Finite { exponent: a, .. }, Finite { exponent: b, .. }) if a < b => other.add(self),
            (
                Finite { mantissa, exponent },
                Finite {
                    mantissa: addend,
                    exponent: lower,
                },
            ) => {
                // 63 bits of room below the greater number, one above for the carry.
                let (greater, base) = (u128::from(mantissa) << 63, exponent - 63);
                let distance = (exponent - lower).min(127) as u32;
                let whole = u128::from(addend) << 63;
                let (lesser, cut) = (whole >> distance, whole.trailing_zeros() < distance);
                let (negative, sum) = if self.negative == other.negative {
                    (self.negative, greater + lesser)
                } else if greater >= lesser {
                    // What was cut off makes the difference a little less than it looks.
                    (self.negative, greater - lesser - u128::from(cut))
                } else {
                    (other.negative, lesser - greater)
                };
                match round(sum, base, cut) {
                    Some(Zero) => Extended::ZERO,
                    Some(magnitude) => Extended {
                        negative,
                        magnitude,
                    },
                    None => Extended {
                        negative,
                        magnitude: TooLarge,
                    },
                }
            }
        }
    }

    /// Whether it is infinite, as read or as a sum.
    pub fn is_infinite(self) -> bool {
        self.magnitude == Magnitude::TooLarge
    }

    /// The nearest double; infinite if there is none.
    pub fn to_double(self) -> f64 {
        let value = match self.magnitude {
            Magnitude::Zero => 0.0,
            Magnitude::TooLarge => f64::INFINITY,
            Magnitude::Finite { mantissa, exponent } => {
                // In steps within what a double's power can be.
                let exponent = exponent.clamp(-2200, 2200) as i32;
                let half = exponent / 2;
                mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
            }
        };
        if self.negative {
            -value
        } else {
            value
        }
    }

    /// Plain decimal notation, rounded to 17 digits after the point, without trailing zeros.
    /// `None` if the number is infinite.
    pub fn to_decimal(self) -> Option<String> {
        let (mantissa, exponent) = match self.magnitude {
            Magnitude::Zero => return Some("0".to_owned()),
            Magnitude::TooLarge => return None,
            Magnitude::Finite { mantissa, exponent } => (mantissa, exponent),
        };
        let digits = if exponent >= 0 {
            integer_digits(mantissa, exponent as u64)
        } else {
            fraction_digits(mantissa, exponent.unsigned_abs())
        };
        Some(match digits {
            zero if zero == "0" => zero,
            digits if self.negative => format!("-{digits}"),
            digits => digits,
        })
    }
}

/// The magnitude nearest to `number × 2^exponent`, or, with `cut`, to a little more than that
/// (then `number` has at least 66 bits). `None` if it is too large or too small, but not 0.
fn round(number: u128, exponent: i64, cut: bool) -> Option<Magnitude> {
    if number == 0 && !cut {
        return Some(Magnitude::Zero);
    }
    let bits = i64::from(u128::BITS - number.leading_zeros());
    let (mantissa, exponent) = if bits <= 64 {
        debug_assert!(!cut, "nothing below {bits} bits may be cut off");
        ((number as u64) << (64 - bits), exponent - (64 - bits))
    } else {
        let drop = bits - 64;
        let kept = (number >> drop) as u64;
        let (rest, half) = (number & ((1 << drop) - 1), 1u128 << (drop - 1));
        let up = rest > half || (rest == half && (cut || kept & 1 == 1));
        match kept.checked_add(u64::from(up)) {
            Some(rounded) => (rounded, exponent + drop),
            None => (1 << 63, exponent + drop + 1),
        }
    };
    let leading = exponent + 63;
    (EXPONENT_MIN..=EXPONENT_MAX)
        .contains(&leading)
        .then_some(Magnitude::Finite { mantissa, exponent })
}

fn round_natural(number: &Natural, exponent: i64) -> Option<Magnitude> {
    let (leading, below, cut) = number.leading();
    round(leading, exponent + below as i64, cut)
}

/// Digits with at most one point among them, the number of those after the point, and what
/// follows.
fn split_digits(text: &[u8], is_digit: fn(&u8) -> bool) -> Option<(Vec<u8>, i64, &[u8])> {
    let run = |text: &[u8]| text.iter().take_while(|byte| is_digit(byte)).count();
    let whole = run(text);
    let mut digits = text[..whole].to_vec();
    let mut rest = &text[whole..];
    let mut decimals = 0;
    if let [b'.', after @ ..] = rest {
        decimals = run(after);
        digits.extend_from_slice(&after[..decimals]);
        rest = &after[decimals..];
    }
    (!digits.is_empty()).then_some((digits, decimals as i64, rest))
}

/// The exponent after `mark` (lower case), 0 if there is none. Bounded to what can matter.
fn parse_exponent(text: &[u8], mark: u8) -> Option<i64> {
    const BOUND: i64 = 1_000_000;
    let (sign, digits) = match text {
        [] => return Some(0),
        [first, rest @ ..] if first.eq_ignore_ascii_case(&mark) => match rest {
            [b'-', digits @ ..] => (-1, digits),
            [b'+', digits @ ..] => (1, digits),
            digits => (1, digits),
        },
        _ => return None,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(BOUND)
    });
    Some(sign * magnitude)
}

fn parse_decimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, decimals, rest) = split_digits(text, u8::is_ascii_digit)?;
    let exponent = parse_exponent(rest, b'e')? - decimals;
    let mut number = Natural::default();
    for digit in &digits {
        number.multiply_add(10, u64::from(digit - b'0'));
    }
    if number.is_zero() {
        return Some(Magnitude::Zero);
    }
    // Beyond these powers of ten every number is out of range, whatever its digits.
    let power = exponent + number.bits() as i64 * 3 / 10;
    if !(-5000..=5000).contains(&power) {
        return None;
    }
    if exponent >= 0 {
        number.multiply_power(10, exponent as u32);
        return round_natural(&number, 0);
    }
    // number / 10^k = (number / 5^k) × 2^-k.
    let mut divisor = Natural::from(1);
    divisor.multiply_power(5, exponent.unsigned_abs() as u32);
    divide_and_round(number, divisor, exponent)
}

/// The magnitude nearest to `number / divisor × 2^exponent`.
fn divide_and_round(mut number: Natural, mut divisor: Natural, exponent: i64) -> Option<Magnitude> {
    /// Enough that two bits and a remainder are left below the mantissa.
    const QUOTIENT_BITS: u64 = 66;
    let shift = (divisor.bits() + QUOTIENT_BITS) as i64 - number.bits() as i64;
    if shift >= 0 {
        number.shift_left(shift as u64);
    } else {
        divisor.shift_left(shift.unsigned_abs());
    }
    divisor.shift_left(QUOTIENT_BITS);
    let mut quotient = 0u128;
    for _ in 0..=QUOTIENT_BITS {
        quotient = quotient << 1 | u128::from(number.subtract_if_fits(&divisor));
        divisor.halve();
    }
    round(quotient, exponent - shift, !number.is_zero())
}

fn parse_hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, decimals, rest) = split_digits(text, u8::is_ascii_hexdigit)?;
    let exponent = parse_exponent(rest, b'p')? - decimals * 4;
    let mut number = Natural::default();
    for &digit in &digits {
        let value = (digit as char).to_digit(16)?;
        number.multiply_add(16, u64::from(value));
    }
    round_natural(&number, exponent)
}

fn integer_digits(mantissa: u64, exponent: u64) -> String {
    const DIGITS_AT_ONCE: usize = 19;
    let mut number = Natural::from(mantissa);
    number.shift_left(exponent);
    let mut groups = Vec::new();
    while !number.is_zero() {
        groups.push(number.divide(10u64.pow(DIGITS_AT_ONCE as u32)));
    }
    let mut digits = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        digits.push_str(&format!("{group:0width$}", width = DIGITS_AT_ONCE));
    }
    digits
}

/// The digits of `mantissa / 2^shift`.
fn fraction_digits(mantissa: u64, shift: u64) -> String {
    // At most 64 + 57 bits, so that from 128 on less than a half is left.
    let scaled = u128::from(mantissa) * 10u128.pow(DECIMALS as u32);
    let rounded = if shift >= 128 {
        0
    } else {
        let (kept, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
        let half = 1u128 << (shift - 1);
        kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
    };
    let digits = format!("{rounded:0width$}", width = DECIMALS + 1);
    let (whole, decimals) = digits.split_at(digits.len() - DECIMALS);
    match decimals.trim_end_matches('0') {
        "" => whole.to_owned(),
        decimals => format!("{whole}.{decimals}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let (a, b) = (
            Extended::parse(a.as_bytes())?,
            Extended::parse(b.as_bytes())?,
        );
        Some(a.add(b).to_decimal().unwrap_or("too large".to_owned()))
    }

    #[test]
    fn sums_are_those_of_redis() {
        for (a, b, expected) in [
            ("10.50", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("3", "1.1", "4.1"),
            ("1", "-1", "0"),
            ("-0", "-0", "0"),
            ("-1e-30", "0", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            (".5", "5.", "5.5"),
            ("0x10", "0x.8p1", "17"),
            ("+1", "1E+1", "11"),
            ("1e20", "1", "100000000000000000000"),
            ("12345678901234567890", "0.5", "12345678901234567890"),
            ("9007199254740993", "0", "9007199254740993"),
            ("1e4000", "-1e4000", "0"),
            // Just below, at and above the middle between two neighbours.
            (
                "18446744073709551616",
                "-0.4999999999999999999",
                "18446744073709551616",
            ),
            ("18446744073709551616", "-0.5", "18446744073709551616"),
            (
                "18446744073709551616",
                "-0.5000000000000000001",
                "18446744073709551615",
            ),
            ("inf", "1", "too large"),
            ("1", "-Infinity", "too large"),
            ("1.1e4932", "1.1e4932", "too large"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "", "-", "+", ".", "e5", "1e", "1e+", "1 ", " 1", "1.2.3", "abc", "nan", "-nan", "0x",
            "0x.p1", "1p3", "1e5000", "1e-5000", "--1", "1\0", "infinit", "1f", "0x1e+", "1,5",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Extended::parse("1".repeat(TEXT_BYTES_MAX).as_bytes()), None);
        let long = format!("0.{}", "1".repeat(TEXT_BYTES_MAX - 3));
        assert_eq!(sum(&long, "0").unwrap(), "0.11111111111111111");
    }

    proptest! {
        #[test]
        fn integers_are_exact(a: i64, b: i64) {
            // Sums of 65 bits may round.
            let (a, b) = (a / 2, b / 2);
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()).unwrap(), (a + b).to_string());
        }

        #[test]
        fn what_is_printed_reads_back_the_same(a in -1_000_000_000i64..1_000_000_000, scale in 0usize..12) {
            let digits = format!("{:0width$}", a.abs(), width = scale + 1);
            let (whole, decimals) = digits.split_at(digits.len() - scale);
            let sign = if a < 0 { "-" } else { "" };
            let text = format!("{sign}{whole}.{decimals}");
            let printed = sum(&text, "0").unwrap();
            // In units of 10^-17, as near as 64 bits of mantissa can come.
            let (whole, decimals) = printed.split_once('.').unwrap_or((&printed, ""));
            let units: i128 = format!("{whole}{decimals:0<DECIMALS$}").parse().unwrap();
            let exact = i128::from(a) * 10i128.pow((DECIMALS - scale) as u32);
            prop_assert!((units - exact).abs() <= (exact.abs() >> 64) + 1, "{} {}", text, printed);
            prop_assert_eq!(sum(&printed, "0").unwrap(), printed);
        }

        #[test]
        fn doubles_survive(mantissa in 1.0f64..2.0, exponent in 52i32..1023) {
            let value = mantissa * 2f64.powi(exponent);
            // The shortest digits may lie so close to the middle between two doubles that
            // rounding twice, to 64 bits and then to 53, ends at the other one.
            let printed = sum(&format!("{value:.20e}"), "0").unwrap();
            prop_assert_eq!(printed.parse::<f64>().unwrap(), value);
        }
    }
}
