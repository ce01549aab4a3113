//! The metadata of a collection: the payload of its key's own record.
//!
//! ```text
//! version, 8 bytes | size, 8 bytes                            hash, set
//!                                  | first, 8 | last, 8       list: positions of its ends
//!                                  | salt, 8 | height, 1      sorted set: see rank.rs
//! ```
//!
//! Numbers are big-endian. Bits 1 and 2 of the record's flags say how Redis would have stored
//! the collection, which depends on what it once held and not on what it holds now; bit 3 that
//! a list has elements between two positions.
//!
//! Invariant: a collection that exists has at least one element.

use super::value::{self, Kind, Value};
use bytes::Bytes;

/// How Redis would have stored the collection: what `OBJECT ENCODING` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    /// `listpack`.
    Small = 0,
    /// `hashtable`, `skiplist` or `quicklist`.
    Large = 1,
    /// `intset`.
    Integers = 2,
}

const ENCODING_SHIFT: u8 = 1;
const FRACTIONAL: u8 = 1 << 3;

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub kind: Kind,
    pub encoding: Encoding,
    pub expires_at_ms: Option<u64>,
    /// Of the sub-keys of its elements; never used before under the same user key.
    pub version: u64,
    /// How many elements.
    pub size: u64,
    /// Lists: the whole parts of the positions of the first and last element.
    pub first: i64,
    pub last: i64,
    /// Lists: there may be elements whose positions are not whole.
    pub fractional: bool,
    /// Sorted sets: makes the levels of members unpredictable; kept by a copy.
    pub salt: u64,
    /// Sorted sets: levels of counts in use.
    pub height: u8,
}

impl Meta {
    /// Of an empty collection, which is not to be written.
    pub fn new(kind: Kind, version: u64) -> Self {
        Meta {
            kind,
            encoding: match kind {
                Kind::Set => Encoding::Integers,
                _ => Encoding::Small,
            },
            expires_at_ms: None,
            version,
            size: 0,
            first: 0,
            last: -1,
            fractional: false,
            salt: version,
            height: 0,
        }
    }

    /// `None` if it is no collection, or not one that this version can read.
    pub fn parse<B: AsRef<[u8]>>(value: &Value<B>) -> Option<Self> {
        if !value.kind.is_collection() {
            return None;
        }
        let mut rest = value.payload();
        let mut number = || {
            let (first, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_be_bytes(*first))
        };
        let mut meta = Meta::new(value.kind, number()?);
        meta.size = number()?;
        match value.kind {
            Kind::List => {
                meta.first = number()? as i64;
                meta.last = number()? as i64;
            }
            Kind::SortedSet => {
                meta.salt = number()?;
                let (height, after) = rest.split_first()?;
                meta.height = *height;
                rest = after;
            }
            _ => {}
        }
        meta.encoding = match value.flags >> ENCODING_SHIFT & 3 {
            0 => Encoding::Small,
            1 => Encoding::Large,
            2 => Encoding::Integers,
            _ => return None,
        };
        meta.fractional = value.flags & FRACTIONAL != 0;
        meta.expires_at_ms = value.expires_at_ms;
        rest.is_empty().then_some(meta)
    }

    /// The record.
    pub fn record(&self) -> Bytes {
        debug_assert!(self.size > 0, "an empty collection does not exist");
        let mut payload = Vec::with_capacity(33);
        payload.extend_from_slice(&self.version.to_be_bytes());
        payload.extend_from_slice(&self.size.to_be_bytes());
        match self.kind {
            Kind::List => {
                payload.extend_from_slice(&self.first.to_be_bytes());
                payload.extend_from_slice(&self.last.to_be_bytes());
            }
            Kind::SortedSet => {
                payload.extend_from_slice(&self.salt.to_be_bytes());
                payload.push(self.height);
            }
            _ => {}
        }
        let fractional = if self.fractional { FRACTIONAL } else { 0 };
        let flags = (self.encoding as u8) << ENCODING_SHIFT | fractional;
        value::collection(self.kind, flags, self.expires_at_ms, &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> impl Strategy<Value = Meta> {
        let kind = prop_oneof![
            Just(Kind::Hash),
            Just(Kind::List),
            Just(Kind::Set),
            Just(Kind::SortedSet)
        ];
        let encoding = prop_oneof![
            Just(Encoding::Small),
            Just(Encoding::Large),
            Just(Encoding::Integers)
        ];
        let numbers = (
            any::<u64>(),
            1..u64::MAX,
            any::<i64>(),
            any::<i64>(),
            any::<u64>(),
        );
        (
            kind,
            encoding,
            any::<Option<u64>>(),
            numbers,
            any::<(bool, u8)>(),
        )
            .prop_map(
                |(kind, encoding, expires_at_ms, numbers, (fractional, height))| {
                    let mut meta = Meta::new(kind, numbers.0);
                    (meta.encoding, meta.expires_at_ms) = (encoding, expires_at_ms);
                    meta.size = numbers.1;
                    match kind {
                        Kind::List => (meta.first, meta.last) = (numbers.2, numbers.3),
                        Kind::SortedSet => (meta.salt, meta.height) = (numbers.4, height),
                        _ => {}
                    }
                    meta.fractional = fractional;
                    meta
                },
            )
    }

    proptest! {
        #[test]
        fn metadata_round_trips(meta in meta()) {
            let record = meta.record();
            let value = Value::parse(record.clone());
            prop_assert_eq!(value.kind, meta.kind);
            prop_assert_eq!(Meta::parse(&value), Some(meta));
            let short = Value::parse(record.slice(..record.len() - 1));
            prop_assert_eq!(Meta::parse(&short), None);
        }
    }
}
