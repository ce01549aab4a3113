//! The key schema of a table.

use super::value::Value;

/// The type of a key attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// String.
    S,
    /// Number.
    N,
    /// Binary.
    B,
}

impl KeyType {
    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::S => "S",
            KeyType::N => "N",
            KeyType::B => "B",
        }
    }

    /// The type called `name`.
    pub fn named(name: &str) -> Option<KeyType> {
        [KeyType::S, KeyType::N, KeyType::B]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Whether `value` is of this type.
    pub fn fits(self, value: &Value) -> bool {
        value.type_name() == self.name()
    }
}

/// A key attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyType,
}

/// What identifies an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySchema {
    /// Which partition it is in (HASH).
    pub partition: KeyAttribute,
    /// Where in the partition (RANGE), if partitions have more than one item.
    pub sort: Option<KeyAttribute>,
}

impl KeySchema {
    /// The attributes, partition key first.
    pub fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    /// The attribute called `name`.
    pub fn find(&self, name: &str) -> Option<&KeyAttribute> {
        self.attributes().find(|a| a.name == name)
    }
}
