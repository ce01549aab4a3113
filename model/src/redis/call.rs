//! One evaluation: a command, its context, and the only way to its data.
//!
//! Invariants:
//! - A record whose expiry has come is absent, and whoever meets it removes it.
//! - Nothing outside the range is read or written; a command that tries has no effect.

use super::codec::Protocol;
use super::error::CommandError;
use super::keys;
use super::value::{Kind, Value};
use crate::eval::{Context, Txn, View};
use bytes::Bytes;

/// What a command answers.
pub(crate) type Outcome = Result<Bytes, CommandError>;

/// A command being evaluated.
pub(crate) struct Call<'a, 'v> {
    pub context: &'a Context<'a>,
    pub protocol: Protocol,
    pub db: u8,
    /// The command's name in lower case, for error messages.
    pub name: &'static str,
    /// The name first; as many as the command's arity says.
    pub args: &'a [Bytes],
    pub txn: &'a mut Txn<'v>,
    /// Whether a key outside the range was asked for.
    pub outside: bool,
}

impl Call<'_, '_> {
    /// The record key of the user key at `index` of the arguments.
    pub fn key(&self, index: usize) -> Bytes {
        keys::record_key(self.db, &self.args[index])
    }

    /// The value at a record key, if it exists now. Removes it if it has expired.
    pub fn read(&mut self, key: &Bytes) -> Option<Value<Bytes>> {
        if !self.contains(key) {
            return None;
        }
        let value = Value::parse(self.txn.get(key)?);
        if value.is_expired(self.context.now_ms) {
            self.txn.delete(key.clone());
            return None;
        }
        Some(value)
    }

    /// As [`read`](Self::read), for commands on strings.
    pub fn read_string(&mut self, key: &Bytes) -> Result<Option<Value<Bytes>>, CommandError> {
        match self.read(key) {
            Some(value) if value.kind != Kind::String => Err(CommandError::WrongType),
            found => Ok(found),
        }
    }

    /// Sets a record.
    pub fn put(&mut self, key: Bytes, record: Bytes) {
        if self.contains(&key) {
            self.txn.put(key, record);
        }
    }

    /// Removes the key's own record.
    pub fn delete(&mut self, key: Bytes) {
        if self.contains(&key) {
            self.txn.delete(key);
        }
    }

    /// Whether a key lies in the range; if not, the command has no effect.
    pub fn contains(&mut self, key: &[u8]) -> bool {
        let Context { start, end, .. } = *self.context;
        let inside = key >= start && (end.is_empty() || key < end);
        self.outside |= !inside;
        inside
    }
}
