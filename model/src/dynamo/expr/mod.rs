//! Expressions: condition, filter, key condition, projection and update.
//!
//! The grammar and the words of the errors are those of "Expressions in DynamoDB", Amazon
//! DynamoDB Developer Guide. Parsing resolves placeholders, and refuses whatever can be known to
//! be wrong without an item; what is left to evaluation depends on the item alone.

pub mod ast;
pub mod condition;
mod lexer;
mod parser;
pub mod path;
mod reserved;
pub mod update;

use super::value::Value;
use ast::{Condition, Update};
use path::Path;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of an expression that a client may write.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Bytes of an expression at most that stands for older parameters: those may be about thousands of
/// attributes.
const BYTES_MAX: usize = 64 << 10;

/// Refuses an expression that a client may not write because of its length.
pub fn check_size(kind: Kind, text: &str) -> Result<(), String> {
    match text.len() > EXPRESSION_BYTES_MAX {
        true => Err(parser::too_long(kind, text)),
        false => Ok(()),
    }
}

/// Which parameter an expression came in: named by errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `ConditionExpression`.
    Condition,
    /// `FilterExpression`.
    Filter,
    /// `KeyConditionExpression`.
    KeyCondition,
    /// `ProjectionExpression`.
    Projection,
    /// `UpdateExpression`.
    Update,
}

impl Kind {
    /// The parameter's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Condition => "ConditionExpression",
            Kind::Filter => "FilterExpression",
            Kind::KeyCondition => "KeyConditionExpression",
            Kind::Projection => "ProjectionExpression",
            Kind::Update => "UpdateExpression",
        }
    }
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues`, and which of them were used.
#[derive(Clone, Debug, Default)]
pub struct Placeholders {
    /// By placeholder, `#` included.
    pub names: BTreeMap<String, String>,
    /// By placeholder, `:` included.
    pub values: BTreeMap<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Placeholders {
    /// Placeholders of which none was used yet.
    pub fn new(names: BTreeMap<String, String>, values: BTreeMap<String, Value>) -> Self {
        Placeholders {
            names,
            values,
            used: RefCell::default(),
        }
    }

    fn name(&self, placeholder: &str) -> Option<&String> {
        let name = self.names.get(placeholder)?;
        self.used.borrow_mut().insert(placeholder.to_owned());
        Some(name)
    }

    fn value(&self, placeholder: &str) -> Option<&Value> {
        let value = self.values.get(placeholder)?;
        self.used.borrow_mut().insert(placeholder.to_owned());
        Some(value)
    }

    /// An error if one was not used by any of the expressions parsed with it.
    pub fn check_used(&self) -> Result<(), String> {
        let used = self.used.borrow();
        let list = |unused: Vec<&String>| {
            let unused: Vec<&str> = unused.into_iter().map(String::as_str).collect();
            unused.join(", ")
        };
        let names: Vec<_> = self.names.keys().filter(|n| !used.contains(*n)).collect();
        if !names.is_empty() {
            return Err(format!(
                "Value provided in ExpressionAttributeNames unused in expressions: keys: {{{}}}",
                list(names)
            ));
        }
        let values: Vec<_> = self.values.keys().filter(|n| !used.contains(*n)).collect();
        if !values.is_empty() {
            return Err(format!(
                "Value provided in ExpressionAttributeValues unused in expressions: keys: {{{}}}",
                list(values)
            ));
        }
        Ok(())
    }
}

/// A condition, filter or key condition. The error is DynamoDB's message.
pub fn parse_condition(
    kind: Kind,
    text: &str,
    placeholders: &Placeholders,
) -> Result<Condition, String> {
    parser::parse(kind, text, placeholders, parser::Parser::condition)
}

/// An update.
pub fn parse_update(text: &str, placeholders: &Placeholders) -> Result<Update, String> {
    parser::parse(Kind::Update, text, placeholders, parser::Parser::update)
}

/// A projection.
pub fn parse_projection(text: &str, placeholders: &Placeholders) -> Result<Vec<Path>, String> {
    parser::parse(
        Kind::Projection,
        text,
        placeholders,
        parser::Parser::projection,
    )
}

#[cfg(test)]
mod tests;
