//! What a range remembers of transactions that named a token, so that a repeated one is answered
//! and not carried out again.
//!
//! ("TransactWriteItems: Idempotency", Amazon DynamoDB Developer Guide.) The record is written by
//! the evaluation that writes the items, beside the first of them, and moves with it: wherever
//! ranges are cut, who repeats the transaction finds the record where its first item is. It counts
//! for [`WINDOW_MS`]; `Command::Sweep` removes it later.
//!
//! A token that is used again for a transaction that begins with another item is not recognised.
//!
//! A record is the format byte 0x02, then time, token and digest. It is no item: walks pass it by.

use super::codec::{put_bytes, put_length, Input};
use super::command::{encode_operations, Operation};
use super::keys;

const FORMAT: u8 = 2;

/// How long a transaction is remembered, in milliseconds.
pub const WINDOW_MS: u64 = 10 * 60 * 1000;

/// `ClientRequestToken` of a transaction, and what it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// As the client sent it.
    pub text: String,
    /// Of the transaction's operations.
    pub digest: u128,
}

impl Token {
    /// The token `text` of a transaction that consists of `operations`.
    pub fn of(text: &str, operations: &[Operation]) -> Token {
        let mut encoded = Vec::new();
        encode_operations(&mut encoded, operations);
        Token {
            text: text.to_owned(),
            digest: keys::digest(&encoded),
        }
    }

    /// The record of a transaction that is carried out at `now_ms`.
    pub fn record(&self, now_ms: u64) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_length(&mut out, now_ms.into());
        put_bytes(&mut out, self.text.as_bytes());
        out.extend(self.digest.to_be_bytes());
        out
    }
}

/// Whether `record` is that of a token: then it is no item.
pub fn is_token(record: &[u8]) -> bool {
    record.first() == Some(&FORMAT)
}

/// When the transaction was carried out, and its token; `None` if the record is damaged.
pub fn read(record: &[u8]) -> Option<(u64, Token)> {
    let mut input = Input(record.strip_prefix(&[FORMAT])?);
    let at_ms = u64::try_from(input.number()?).ok()?;
    let text = input.text()?;
    let digest = u128::from_be_bytes(input.0.try_into().ok()?);
    Some((at_ms, Token { text, digest }))
}

/// Whether what was carried out at `at_ms` counts no more.
pub fn is_over(at_ms: u64, now_ms: u64) -> bool {
    now_ms >= at_ms.saturating_add(WINDOW_MS)
}
