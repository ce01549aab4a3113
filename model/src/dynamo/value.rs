//! Attribute values and items, and what DynamoDB counts for their sizes.

use super::number::Number;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// An item: attribute values by name.
pub type Item = BTreeMap<String, Value>;

/// Bytes of an item at most ("Item size", Amazon DynamoDB Developer Guide).
pub const ITEM_BYTES_MAX: usize = 400 * 1024;

/// Levels of lists and maps in one another at most.
pub const DEPTH_MAX: usize = 32;

/// One attribute's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// String.
    S(String),
    /// Number.
    N(Number),
    /// Binary.
    B(Bytes),
    /// Boolean.
    Bool(bool),
    /// Null.
    Null,
    /// List.
    L(Vec<Value>),
    /// Map.
    M(BTreeMap<String, Value>),
    /// String set; never empty.
    Ss(BTreeSet<String>),
    /// Number set; never empty.
    Ns(BTreeSet<Number>),
    /// Binary set; never empty.
    Bs(BTreeSet<Bytes>),
}

impl Value {
    /// The type's name in requests.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::S(_) => "S",
            Value::N(_) => "N",
            Value::B(_) => "B",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::L(_) => "L",
            Value::M(_) => "M",
            Value::Ss(_) => "SS",
            Value::Ns(_) => "NS",
            Value::Bs(_) => "BS",
        }
    }

    /// The order of two strings, two numbers or two binaries; no others have one.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::S(a), Value::S(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Value::N(a), Value::N(b)) => Some(a.cmp(b)),
            (Value::B(a), Value::B(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Bytes that DynamoDB counts for it.
    pub fn size(&self) -> usize {
        match self {
            Value::S(s) => s.len(),
            Value::N(n) => n.size(),
            Value::B(b) => b.len(),
            Value::Bool(_) | Value::Null => 1,
            Value::L(list) => 3 + list.iter().map(|v| v.size() + 1).sum::<usize>(),
            Value::M(map) => {
                let entry = |(k, v): (&String, &Value)| k.len() + v.size() + 1;
                3 + map.iter().map(entry).sum::<usize>()
            }
            Value::Ss(set) => set.iter().map(String::len).sum(),
            Value::Ns(set) => set.iter().map(Number::size).sum(),
            Value::Bs(set) => set.iter().map(Bytes::len).sum(),
        }
    }

    /// What the `size` function of expressions answers; `None` for types that have none.
    pub fn length(&self) -> Option<usize> {
        match self {
            Value::S(s) => Some(s.chars().count()),
            Value::B(b) => Some(b.len()),
            Value::L(list) => Some(list.len()),
            Value::M(map) => Some(map.len()),
            Value::Ss(set) => Some(set.len()),
            Value::Ns(set) => Some(set.len()),
            Value::Bs(set) => Some(set.len()),
            Value::N(_) | Value::Bool(_) | Value::Null => None,
        }
    }

    /// Whether lists and maps lie in one another deeper than `levels`.
    pub fn deeper_than(&self, levels: usize) -> bool {
        match self {
            Value::L(list) => levels == 0 || list.iter().any(|v| v.deeper_than(levels - 1)),
            Value::M(map) => levels == 0 || map.values().any(|v| v.deeper_than(levels - 1)),
            _ => false,
        }
    }
}

/// Bytes that DynamoDB counts for an item: names and values.
pub fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, v)| name.len() + v.size()).sum()
}
