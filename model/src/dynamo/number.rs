//! Numbers with 38 exact decimal digits, as DynamoDB has them.
//!
//! A number is `± coefficient × 10^exponent`. Invariants: the coefficient has at most
//! [`DIGITS_MAX`] digits and no trailing zero, zero is `0 × 10^0` and not negative, so that equal
//! numbers are equal values; the magnitude is zero or within 1E-130 … 9.99…E+125
//! ("Data types: Number", Amazon DynamoDB Developer Guide).

use std::cmp::Ordering;
use std::fmt;

/// Significant digits of a number.
pub const DIGITS_MAX: u32 = 38;
/// Decimal exponent of the first digit of the greatest number.
const MAGNITUDE_MAX: i32 = 125;
/// Decimal exponent of the first digit of the least positive number.
const MAGNITUDE_MIN: i32 = -130;

/// See the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Number {
    negative: bool,
    coefficient: u128,
    exponent: i16,
}

/// Why a text or a sum is no number. The words are DynamoDB's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NumberError {
    /// The text is not a decimal number.
    #[error("The parameter cannot be converted to a numeric value: {0}")]
    Syntax(String),
    /// More than 38 significant digits.
    #[error("Attempting to store more than 38 significant digits in a Number")]
    Precision,
    /// 1E+126 or more.
    #[error(
        "Number overflow. Attempting to store a number with magnitude larger than supported range"
    )]
    Overflow,
    /// Below 1E-130, and not zero.
    #[error("Number underflow. Attempting to store a number with magnitude smaller than supported range")]
    Underflow,
}

impl Number {
    /// Zero.
    pub const ZERO: Number = Number {
        negative: false,
        coefficient: 0,
        exponent: 0,
    };

    /// Reads `[+-]digits[.digits][e[+-]digits]`.
    pub fn parse(text: &str) -> Result<Number, NumberError> {
        let syntax = || NumberError::Syntax(text.to_owned());
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, power) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..]).ok_or_else(syntax)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let digits: Vec<u8> = digits().map(|b| b - b'0').collect();
        Number::normal(
            negative,
            &digits,
            power.saturating_sub(fraction.len() as i64),
        )
    }

    /// `±digits × 10^exponent`, most significant digit first.
    fn normal(negative: bool, digits: &[u8], exponent: i64) -> Result<Number, NumberError> {
        let Some(first) = digits.iter().position(|d| *d != 0) else {
            return Ok(Number::ZERO);
        };
        let last = digits.iter().rposition(|d| *d != 0).unwrap_or(first);
        let significant = &digits[first..=last];
        let magnitude = exponent.saturating_add((digits.len() - 1 - first) as i64);
        if magnitude > i64::from(MAGNITUDE_MAX) {
            return Err(NumberError::Overflow);
        }
        if magnitude < i64::from(MAGNITUDE_MIN) {
            return Err(NumberError::Underflow);
        }
        if significant.len() > DIGITS_MAX as usize {
            return Err(NumberError::Precision);
        }
        let coefficient = significant
            .iter()
            .fold(0u128, |sum, d| sum * 10 + u128::from(*d));
        let exponent = magnitude - (significant.len() as i64 - 1);
        Ok(Number {
            negative,
            coefficient,
            exponent: exponent as i16,
        })
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.coefficient == 0
    }

    /// The digits of the coefficient, most significant first; none for zero.
    fn digits(&self) -> Vec<u8> {
        let mut digits = Vec::with_capacity(DIGITS_MAX as usize);
        let mut rest = self.coefficient;
        while rest > 0 {
            digits.push((rest % 10) as u8);
            rest /= 10;
        }
        digits.reverse();
        digits
    }

    /// Decimal exponent of the first digit; only for numbers other than zero.
    fn magnitude(&self) -> i32 {
        i32::from(self.exponent) + self.coefficient.ilog10() as i32
    }

    /// Bytes that DynamoDB counts for it: about one per two significant digits, and one.
    /// ("Item sizes and formats", Amazon DynamoDB Developer Guide.)
    pub fn size(&self) -> usize {
        if self.is_zero() {
            return 1;
        }
        // Pairs of digits are counted from the decimal point.
        let length = self.coefficient.ilog10() as usize + 1;
        let odd = usize::from(self.exponent.rem_euclid(2) == 1);
        (length + odd).div_ceil(2) + 1 + usize::from(self.negative)
    }

    /// The negative of it.
    pub fn negate(self) -> Number {
        Number {
            negative: !self.negative && !self.is_zero(),
            ..self
        }
    }

    /// The exact sum, or why it is no number.
    pub fn plus(self, other: Number) -> Result<Number, NumberError> {
        if self.is_zero() {
            return Ok(other);
        }
        if other.is_zero() {
            return Ok(self);
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |n: &Number| {
            let mut digits = n.digits();
            digits.resize(digits.len() + (n.exponent - exponent) as usize, 0);
            digits
        };
        let (a, b) = (aligned(&self), aligned(&other));
        if self.negative == other.negative {
            return Number::normal(self.negative, &sum(&a, &b), i64::from(exponent));
        }
        match compare_digits(&a, &b) {
            Ordering::Equal => Ok(Number::ZERO),
            Ordering::Greater => {
                Number::normal(self.negative, &difference(&a, &b), i64::from(exponent))
            }
            Ordering::Less => {
                Number::normal(other.negative, &difference(&b, &a), i64::from(exponent))
            }
        }
    }

    /// Appends an encoding whose byte order is the numbers' order, and of which none is a prefix
    /// of another: a class byte (0 negative, 1 zero, 2 positive); for the positive the exponent of
    /// the first digit + 0x4000 as two bytes, the digits in pairs + 1, a zero byte; for the
    /// negative the same with all bits flipped.
    pub fn encode_ordered(&self, out: &mut Vec<u8>) {
        if self.is_zero() {
            return out.push(1);
        }
        out.push(if self.negative { 0 } else { 2 });
        let body = out.len();
        out.extend(((self.magnitude() + 0x4000) as u16).to_be_bytes());
        for pair in self.digits().chunks(2) {
            out.push(pair[0] * 10 + pair.get(1).unwrap_or(&0) + 1);
        }
        out.push(0);
        if self.negative {
            out[body..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    /// Reads what [`encode_ordered`](Self::encode_ordered) wrote, and how long it was.
    pub fn decode_ordered(bytes: &[u8]) -> Option<(Number, usize)> {
        let flip = match bytes.first()? {
            1 => return Some((Number::ZERO, 1)),
            0 => 0xff,
            2 => 0,
            _ => return None,
        };
        let at = |i: usize| bytes.get(i).map(|b| b ^ flip);
        let magnitude = i64::from(u16::from_be_bytes([at(1)?, at(2)?])) - 0x4000;
        let mut digits = Vec::new();
        let mut length = 3;
        loop {
            match at(length)? {
                0 => break,
                pair if pair <= 100 => digits.extend([(pair - 1) / 10, (pair - 1) % 10]),
                _ => return None,
            }
            length += 1;
        }
        let exponent = magnitude - (digits.len() as i64 - 1);
        let number = Number::normal(flip != 0, &digits, exponent).ok()?;
        (!number.is_zero()).then_some((number, length + 1))
    }

    /// Sign, coefficient and exponent, for a codec.
    pub fn parts(&self) -> (bool, u128, i16) {
        (self.negative, self.coefficient, self.exponent)
    }

    /// The number of these parts; `None` if there is none.
    pub fn from_parts(negative: bool, coefficient: u128, exponent: i16) -> Option<Number> {
        let number = Number {
            negative,
            coefficient,
            exponent,
        };
        let again = Number::normal(negative, &number.digits(), i64::from(exponent)).ok()?;
        (again == number).then_some(number)
    }
}

/// Digits of an exponent, signed; saturates, since a greater one is out of bounds anyhow.
fn exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse::<i64>().unwrap_or(i64::MAX / 4);
    Some(sign * value.min(i64::MAX / 4))
}

fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(a.len().max(b.len()) + 1);
    let mut carry = 0;
    for i in 0..a.len().max(b.len()) {
        let digit = |n: &[u8]| n.len().checked_sub(i + 1).map_or(0, |at| n[at]);
        let total = digit(a) + digit(b) + carry;
        out.push(total % 10);
        carry = total / 10;
    }
    out.push(carry);
    out.reverse();
    out
}

/// `a - b`, where `a` is the greater.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(a.len());
    let mut borrow = 0;
    for i in 0..a.len() {
        let subtrahend = b.len().checked_sub(i + 1).map_or(0, |at| b[at]) + borrow;
        let minuend = a[a.len() - 1 - i];
        borrow = u8::from(minuend < subtrahend);
        out.push(minuend + 10 * borrow - subtrahend);
    }
    assert_eq!(borrow, 0, "the greater minus the lesser");
    out.reverse();
    out
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let class = |n: &Number| match (n.is_zero(), n.negative) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        };
        class(self).cmp(&class(other)).then_with(|| {
            if self.is_zero() {
                return Ordering::Equal;
            }
            let magnitude = self.magnitude().cmp(&other.magnitude());
            let order = magnitude.then_with(|| self.digits().cmp(&other.digits()));
            if self.negative {
                order.reverse()
            } else {
                order
            }
        })
    }
}

/// Without an exponent, as DynamoDB answers: `100`, not `1E2`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let digits = self.coefficient.to_string();
        let exponent = i32::from(self.exponent);
        if exponent >= 0 {
            return write!(f, "{digits}{:0<1$}", "", exponent as usize);
        }
        let point = digits.len() as i32 + exponent;
        if point <= 0 {
            write!(f, "0.{:0<1$}{digits}", "", -point as usize)
        } else {
            let (whole, fraction) = digits.split_at(point as usize);
            write!(f, "{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn numbers() -> impl Strategy<Value = Number> {
        let digits = prop::collection::vec(0u8..10, 1..=38);
        (any::<bool>(), digits, prop_oneof![-140i64..130, -3i64..3])
            .prop_filter_map("out of bounds", |(negative, digits, exponent)| {
                Number::normal(negative, &digits, exponent).ok()
            })
    }

    #[test]
    fn texts_and_back() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("0e999999999999999999999", "0"),
            ("+007.500", "7.5"),
            ("1E2", "100"),
            ("1e-3", "0.001"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-12.034e1", "-120.34"),
            (
                "99999999999999999999999999999999999999",
                "99999999999999999999999999999999999999",
            ),
            (
                "100000000000000000000000000000000000000000",
                "100000000000000000000000000000000000000000",
            ),
        ] {
            assert_eq!(number(text).to_string(), shown, "{text}");
        }
        assert_eq!(number("1E125").to_string().len(), 126);
        assert_eq!(number("1E-130").to_string().len(), 132);
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "", "-", ".", "e5", "1e", "1e+", "0x10", "1 ", "NaN", "Infinity", "1.2.3", "١",
        ] {
            assert!(
                matches!(Number::parse(text), Err(NumberError::Syntax(_))),
                "{text}"
            );
        }
        assert_eq!(Number::parse("1E126"), Err(NumberError::Overflow));
        assert_eq!(
            Number::parse("-1E99999999999999999999"),
            Err(NumberError::Overflow)
        );
        assert_eq!(Number::parse("9E-131"), Err(NumberError::Underflow));
        assert_eq!(
            Number::parse("123456789012345678901234567890123456789"),
            Err(NumberError::Precision)
        );
    }

    #[test]
    fn sums() {
        for (a, b, c) in [
            ("1", "2", "3"),
            ("1", "-1", "0"),
            ("0.1", "0.2", "0.3"),
            ("-5", "3", "-2"),
            ("1E20", "1E-10", "100000000000000000000.0000000001"),
            ("99", "1", "100"),
        ] {
            assert_eq!(
                number(a).plus(number(b)).unwrap().to_string(),
                c,
                "{a} + {b}"
            );
        }
        assert_eq!(
            number("1E100").plus(number("1")),
            Err(NumberError::Precision)
        );
        let greatest = number("9.9999999999999999999999999999999999999E125");
        assert_eq!(greatest.plus(greatest), Err(NumberError::Overflow));
    }

    proptest! {
        #[test]
        fn encodings_have_the_order_of_numbers(a in numbers(), b in numbers()) {
            let encoded = |n: &Number| {
                let mut out = Vec::new();
                n.encode_ordered(&mut out);
                out
            };
            let (x, y) = (encoded(&a), encoded(&b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(Number::decode_ordered(&x), Some((a, x.len())));
            prop_assert!(a == b || !y.starts_with(&x));
        }

        #[test]
        fn texts_are_read_back(a in numbers()) {
            prop_assert_eq!(Number::parse(&a.to_string()), Ok(a));
            let (negative, coefficient, exponent) = a.parts();
            prop_assert_eq!(Number::from_parts(negative, coefficient, exponent), Some(a));
        }

        #[test]
        fn sums_undo(a in numbers(), b in numbers()) {
            if let Ok(sum) = a.plus(b) {
                prop_assert_eq!(b.plus(a), Ok(sum));
                if let Ok(back) = sum.plus(b.negate()) {
                    prop_assert_eq!(back, a);
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,20}") {
            let _ = Number::decode_ordered(&bytes);
            let _ = Number::parse(&text);
        }
    }
}
