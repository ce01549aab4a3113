//! The Redis model: commands as pure functions over an ordered view of records.
//!
//! A command comes in as [`codec`] encodes it and leaves as RESP bytes in the client's own
//! protocol version ([`reply`]), so that the router forwards it without parsing. Behaviour,
//! error texts and their precedence are those of Redis 7.2.
//!
//! Invariants:
//! - A key is absent from the millisecond of its expiry on ([`value`]); evaluations that meet
//!   an expired record remove it, read-only commands too.
//! - `GET` reads one record; `SET` without options reads none.
//! - A command whose reply is an error has written nothing, save for such removals.
//! - All records of one user key are neighbours ([`keys`]), and a split never parts them.
//!
//! Left out on purpose: memory limits and eviction, and recording when a key was last used.

mod call;
pub mod codec;
pub mod command_docs;
pub mod error;
pub mod glob;
pub mod keys;
pub mod keyspace;
pub mod lcs;
pub mod number;
pub mod paging;
pub mod reply;
pub mod spec;
pub mod string;
pub mod value;

use crate::eval::{Context, Evaluator, Txn};
use bytes::Bytes;
use call::{Call, Outcome};
use error::CommandError;
pub use lcs::lcs;

/// Evaluates Redis commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisModel;

impl Evaluator for RedisModel {
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        let command = match codec::decode_command(command) {
            Ok(command) => command,
            Err(error) => return CommandError::from(error).to_reply(),
        };
        let mut call = Call {
            context,
            protocol: command.protocol,
            db: command.db,
            args: &command.args,
            txn,
            outside: false,
        };
        let outcome = dispatch(&mut call);
        if call.outside {
            call.txn.clear();
            return CommandError::OutsideRange.to_reply();
        }
        outcome.unwrap_or_else(|error| error.to_reply())
    }

    fn split_key(&self, start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
        split_key(start, end, near)
    }
}

fn dispatch(call: &mut Call<'_, '_>) -> Outcome {
    let name = &call.args[0];
    if name.first() == Some(&0) {
        return paging::evaluate(call);
    }
    let Some(spec) = spec::lookup(name) else {
        return Err(CommandError::unknown_command(call.args));
    };
    if !spec.accepts(call.args.len()) {
        return Err(CommandError::Arity(spec.name.to_owned()));
    }
    match spec.name {
        "get" => string::get(call),
        "set" => string::set(call),
        "del" | "unlink" => keyspace::del(call),
        "exists" | "touch" => keyspace::exists(call),
        "lcs" => lcs::evaluate(call),
        "type" => keyspace::type_of(call),
        _ => Err(CommandError::NotEvaluated(spec.name)),
    }
}

/// Where to cut `[start, end)` (`end` empty = the end of the keyspace) close to `near`: at the
/// start of a slot if one lies strictly inside, so that slots stay whole as long as possible;
/// within a single slot at or after `near`, but never among the records of one user key.
fn split_key(start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
    let inside = |key: &[u8]| key > start && (end.is_empty() || key < end);
    let slot = keys::slot_at(near);
    let slots = [slot, slot.saturating_add(1), slot];
    let after = slots[..2]
        .iter()
        .map(|&slot| keys::slot_start(slot.min(keys::SLOTS)));
    if let Some(boundary) = after.filter(|key| &key[..] >= near).find(|key| inside(key)) {
        return Some(boundary);
    }
    let before = keys::slot_start(slots[2]);
    if inside(&before) {
        return Some(before);
    }
    match keys::user_key_prefix(near) {
        Some(prefix) if prefix.len() < near.len() => {
            let (own, next) = (Bytes::copy_from_slice(prefix), keys::after_user_key(prefix));
            [next, own].into_iter().find(|key| inside(key))
        }
        _ => Some(Bytes::copy_from_slice(near)).filter(|key| inside(key)),
    }
}
