//! How items are stored: one record per item, in our own compact encoding.
//!
//! A record is the format byte 0x01, then the item as a map. Lengths and counts are LEB128.
//! A value is a type byte (the codes below) and: S, B: length and bytes; N: sign and exponent as a
//! zigzag LEB128 of `exponent << 1 | negative`, the coefficient as LEB128; L: count and values;
//! M: count and (name length, name, value) in name order; sets: count and elements in order.
//! True, false and null are type bytes alone. Never change a code: old records are read for ever.

use super::number::Number;
use super::value::{Item, Value, DEPTH_MAX};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 1;

mod code {
    pub const S: u8 = 1;
    pub const N: u8 = 2;
    pub const B: u8 = 3;
    pub const FALSE: u8 = 4;
    pub const TRUE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const L: u8 = 7;
    pub const M: u8 = 8;
    pub const SS: u8 = 9;
    pub const NS: u8 = 10;
    pub const BS: u8 = 11;
}

/// The record of `item`.
pub fn encode_item(item: &Item) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_map(&mut out, item);
    out
}

/// The item of a record; `None` if it is damaged or of a later format.
pub fn decode_item(record: &[u8]) -> Option<Item> {
    let (format, rest) = record.split_first()?;
    let mut input = Input(rest);
    let item = (*format == FORMAT).then(|| input.map(0))??;
    input.0.is_empty().then_some(item)
}

/// Appends `value`.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::S(s) => {
            out.push(code::S);
            put_bytes(out, s.as_bytes());
        }
        Value::N(n) => {
            out.push(code::N);
            put_number(out, n);
        }
        Value::B(b) => {
            out.push(code::B);
            put_bytes(out, b);
        }
        Value::Bool(false) => out.push(code::FALSE),
        Value::Bool(true) => out.push(code::TRUE),
        Value::Null => out.push(code::NULL),
        Value::L(list) => {
            out.push(code::L);
            put_length(out, list.len() as u128);
            list.iter().for_each(|v| put_value(out, v));
        }
        Value::M(map) => {
            out.push(code::M);
            put_map(out, map);
        }
        Value::Ss(set) => {
            out.push(code::SS);
            put_length(out, set.len() as u128);
            set.iter().for_each(|s| put_bytes(out, s.as_bytes()));
        }
        Value::Ns(set) => {
            out.push(code::NS);
            put_length(out, set.len() as u128);
            set.iter().for_each(|n| put_number(out, n));
        }
        Value::Bs(set) => {
            out.push(code::BS);
            put_length(out, set.len() as u128);
            set.iter().for_each(|b| put_bytes(out, b));
        }
    }
}

/// Appends a map as [`Input::map`] reads it.
pub fn put_map(out: &mut Vec<u8>, map: &BTreeMap<String, Value>) {
    put_length(out, map.len() as u128);
    for (name, value) in map {
        put_bytes(out, name.as_bytes());
        put_value(out, value);
    }
}

/// Appends a length, or any number, as LEB128.
pub fn put_length(out: &mut Vec<u8>, mut n: u128) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends bytes with their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len() as u128);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, n: &Number) {
    let (negative, coefficient, exponent) = n.parts();
    let signed = i32::from(exponent) << 1 | i32::from(negative);
    put_length(out, ((signed << 1) ^ (signed >> 31)) as u32 as u128);
    put_length(out, coefficient);
}

/// What is left to decode.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number in LEB128.
    pub fn number(&mut self) -> Option<u128> {
        let mut n = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return None;
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    /// A count of things that take a byte each at least.
    pub fn count(&mut self) -> Option<usize> {
        let n = usize::try_from(self.number()?).ok()?;
        (n <= self.0.len()).then_some(n)
    }

    /// Bytes with their length.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A text with its length.
    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn decimal(&mut self) -> Option<Number> {
        let zigzag = u32::try_from(self.number()?).ok()?;
        let signed = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
        let coefficient = self.number()?;
        Number::from_parts(
            signed & 1 != 0,
            coefficient,
            i16::try_from(signed >> 1).ok()?,
        )
    }

    /// A value; `depth` is how many lists and maps it lies in.
    pub fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX + 1 {
            return None;
        }
        Some(match self.byte()? {
            code::S => Value::S(self.text()?),
            code::N => Value::N(self.decimal()?),
            code::B => Value::B(Bytes::copy_from_slice(self.bytes()?)),
            code::FALSE => Value::Bool(false),
            code::TRUE => Value::Bool(true),
            code::NULL => Value::Null,
            code::L => {
                let count = self.count()?;
                Value::L(
                    (0..count)
                        .map(|_| self.value(depth + 1))
                        .collect::<Option<_>>()?,
                )
            }
            code::M => Value::M(self.map(depth + 1)?),
            code::SS => Value::Ss(self.set(Input::text)?),
            code::NS => Value::Ns(self.set(Input::decimal)?),
            code::BS => Value::Bs(self.set(|input| input.bytes().map(Bytes::copy_from_slice))?),
            _ => return None,
        })
    }

    /// A map.
    pub fn map(&mut self, depth: usize) -> Option<BTreeMap<String, Value>> {
        let count = self.count()?;
        (0..count)
            .map(|_| Some((self.text()?, self.value(depth)?)))
            .collect()
    }

    fn set<T: Ord>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<BTreeSet<T>> {
        let count = self.count()?;
        (0..count).map(|_| element(self)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn decimals() -> impl Strategy<Value = Number> {
        (any::<i64>(), -20i32..20)
            .prop_map(|(n, e)| Number::parse(&format!("{n}e{e}")).expect("within bounds"))
    }

    /// Values of all types, a few levels deep.
    pub(crate) fn values() -> impl Strategy<Value = Value> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
        let leaf = prop_oneof![
            "[a-c]{0,4}".prop_map(Value::S),
            decimals().prop_map(Value::N),
            bytes().prop_map(Value::B),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
            prop::collection::btree_set("[a-d]{1,3}", 1..4).prop_map(Value::Ss),
            prop::collection::btree_set(decimals(), 1..4).prop_map(Value::Ns),
            prop::collection::btree_set(bytes(), 1..4).prop_map(Value::Bs),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::L),
                prop::collection::btree_map("[a-c]{1,2}", inner, 0..4).prop_map(Value::M),
            ]
        })
    }

    pub(crate) fn items() -> impl Strategy<Value = Item> {
        prop::collection::btree_map("[a-e]{1,2}", values(), 0..6)
    }

    proptest! {
        #[test]
        fn items_are_read_back(item in items()) {
            prop_assert_eq!(decode_item(&encode_item(&item)), Some(item));
        }

        #[test]
        fn no_record_panics(record in prop::collection::vec(any::<u8>(), 0..64), item in items(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = decode_item(&record);
            let mut damaged = encode_item(&item);
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let _ = decode_item(&damaged);
        }
    }
}
