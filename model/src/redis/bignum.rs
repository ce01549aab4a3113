//! Natural numbers of any size: just enough to convert between decimal and binary exactly.

use std::cmp::Ordering;

/// A natural number. Invariant: the most significant word is not 0; zero has no words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Natural {
    /// 64 bits each, the least significant first.
    words: Vec<u64>,
}

impl Natural {
    pub fn is_zero(&self) -> bool {
        self.words.is_empty()
    }

    /// The number of bits without leading zeros.
    pub fn bits(&self) -> u64 {
        match self.words.last() {
            Some(last) => self.words.len() as u64 * 64 - u64::from(last.leading_zeros()),
            None => 0,
        }
    }

    /// Multiplies by `factor`, then adds `addend`.
    pub fn multiply_add(&mut self, factor: u64, addend: u64) {
        let mut carry = addend;
        for word in &mut self.words {
            let product = u128::from(*word) * u128::from(factor) + u128::from(carry);
            *word = product as u64;
            carry = (product >> 64) as u64;
        }
        if carry != 0 {
            self.words.push(carry);
        }
        self.trim();
    }

    /// Multiplies by `base` to the power of `exponent`.
    pub fn multiply_power(&mut self, base: u64, exponent: u32) {
        // As many factors at a time as fit into a word.
        let at_once = u64::MAX.ilog(base);
        for _ in 0..exponent / at_once {
            self.multiply_add(base.pow(at_once), 0);
        }
        self.multiply_add(base.pow(exponent % at_once), 0);
    }

    /// Divides by `divisor`, which is not 0, and returns the remainder.
    pub fn divide(&mut self, divisor: u64) -> u64 {
        let mut remainder = 0u64;
        for word in self.words.iter_mut().rev() {
            let dividend = u128::from(remainder) << 64 | u128::from(*word);
            *word = (dividend / u128::from(divisor)) as u64;
            remainder = (dividend % u128::from(divisor)) as u64;
        }
        self.trim();
        remainder
    }

    /// Multiplies by 2 to the power of `bits`.
    pub fn shift_left(&mut self, bits: u64) {
        self.multiply_add(1 << (bits % 64), 0);
        if !self.is_zero() {
            let words = (bits / 64) as usize;
            self.words.splice(0..0, std::iter::repeat_n(0, words));
        }
    }

    /// Halves, rounding down.
    pub fn halve(&mut self) {
        let mut carry = 0;
        for word in self.words.iter_mut().rev() {
            let low = *word << 63;
            *word = *word >> 1 | carry;
            carry = low;
        }
        self.trim();
    }

    /// Subtracts `other` if it is not greater; says whether it did.
    pub fn subtract_if_fits(&mut self, other: &Natural) -> bool {
        if self.compare(other).is_lt() {
            return false;
        }
        let mut borrow = false;
        for (index, word) in self.words.iter_mut().enumerate() {
            let subtrahend = other.words.get(index).copied().unwrap_or(0);
            let (difference, under) = word.overflowing_sub(subtrahend);
            let (difference, under_again) = difference.overflowing_sub(u64::from(borrow));
            *word = difference;
            borrow = under || under_again;
        }
        debug_assert!(!borrow);
        self.trim();
        true
    }

    /// The 128 most significant bits, or all if there are fewer; how many bits lie below
    /// them; and whether any of those is set.
    pub fn leading(&self) -> (u128, u64, bool) {
        let below = self.bits().saturating_sub(128);
        let word = |index: usize| u128::from(self.words.get(index).copied().unwrap_or(0));
        let (first, shift) = ((below / 64) as usize, below % 64);
        let mut leading = word(first) >> shift | word(first + 1) << (64 - shift);
        if shift > 0 {
            leading |= word(first + 2) << (128 - shift);
        }
        let cut = self.words.iter().take(first).any(|&word| word != 0)
            || word(first) & ((1 << shift) - 1) != 0;
        (leading, below, cut)
    }

    fn compare(&self, other: &Natural) -> Ordering {
        let lengths = self.words.len().cmp(&other.words.len());
        lengths.then_with(|| self.words.iter().rev().cmp(other.words.iter().rev()))
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

impl From<u64> for Natural {
    fn from(value: u64) -> Self {
        let mut number = Natural { words: vec![value] };
        number.trim();
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn natural(value: u128) -> Natural {
        let mut number = Natural {
            words: vec![value as u64, (value >> 64) as u64],
        };
        number.trim();
        number
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_machine_words(
            a in any::<u128>(), cut in 0u32..128, b: u64, c: u64, shift in 0u64..200
        ) {
            let a = a >> cut;
            let mut n = natural(a >> 64);
            n.multiply_add(b, c);
            prop_assert_eq!(&n, &natural((a >> 64) * u128::from(b) + u128::from(c)));
            let mut n = natural(a);
            prop_assert_eq!(n.bits(), u64::from(128 - a.leading_zeros()));
            let divisor = b.max(1);
            prop_assert_eq!(u128::from(n.divide(divisor)), a % u128::from(divisor));
            prop_assert_eq!(&n, &natural(a / u128::from(divisor)));
            let mut n = natural(a);
            n.halve();
            prop_assert_eq!(&n, &natural(a / 2));
            let mut n = natural(a);
            prop_assert_eq!(n.subtract_if_fits(&natural(c.into())), a >= u128::from(c));
            prop_assert_eq!(&n, &natural(a.checked_sub(c.into()).unwrap_or(a)));
            let mut n = natural(a);
            n.shift_left(shift);
            let (leading, below, cut) = n.leading();
            prop_assert!(!cut || a == 0 || a.leading_zeros() == 0);
            if a != 0 {
                let total = u64::from(128 - a.leading_zeros()) + shift;
                prop_assert_eq!(below, total.saturating_sub(128));
                let expected = if total <= 128 { a << shift } else { a << a.leading_zeros() };
                prop_assert_eq!(leading, expected);
            }
            for _ in 0..shift {
                n.halve();
            }
            prop_assert_eq!(n, natural(a));
        }
    }
}
