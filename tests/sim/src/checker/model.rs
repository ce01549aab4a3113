//! A Redis string as a sequential object.
//!
//! Text is represented by its length and two polynomial hashes modulo 2^61 - 1, which makes
//! appending to, comparing and storing a value independent of its length. Two different texts
//! of one history are taken for equal with a probability below 2^-90.

use super::jit::Model;
use crate::history::{Op, Reply};
use crate::items::ItemOp;
use crate::random::Hashed;
use std::collections::BTreeSet;

const PRIME: u64 = (1 << 61) - 1;
const BASES: [u64; 2] = [0x0abc_de12_3456_789b, 0x1357_9bdf_0246_8ace];

/// A text: length and hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    length: u64,
    hashes: [u64; 2],
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "text of {} bytes #{:08x}",
            self.length, self.hashes[0] as u32
        )
    }
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME {
        folded - PRIME
    } else {
        folded
    }
}

fn plus(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME {
        sum - PRIME
    } else {
        sum
    }
}

impl Digest {
    const EMPTY: Digest = Digest {
        length: 0,
        hashes: [0, 0],
    };

    fn push(&mut self, byte: u8) {
        self.length += 1;
        for (hash, base) in self.hashes.iter_mut().zip(BASES) {
            *hash = plus(times(*hash, base), u64::from(byte) + 1);
        }
    }

    fn of(text: &[u8]) -> Digest {
        let mut digest = Digest::EMPTY;
        text.iter().for_each(|b| digest.push(*b));
        digest
    }
}

/// A text with what it takes to append it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    digest: Digest,
    powers: [u64; 2],
}

impl Piece {
    fn of(text: &[u8]) -> Piece {
        let mut powers = [1, 1];
        for _ in text {
            for (power, base) in powers.iter_mut().zip(BASES) {
                *power = times(*power, base);
            }
        }
        Piece {
            digest: Digest::of(text),
            powers,
        }
    }

    fn appended_to(&self, to: Digest) -> Digest {
        let mut hashes = [0; 2];
        for (i, hash) in hashes.iter_mut().enumerate() {
            *hash = plus(times(to.hashes[i], self.powers[i]), self.digest.hashes[i]);
        }
        Digest {
            length: to.length + self.digest.length,
            hashes,
        }
    }
}

/// What the key holds. Text that is a canonical integer is always `Int`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// No such key.
    Absent,
    /// An integer.
    Int(i64),
    /// Any other text.
    Text(Digest),
    /// A text that no reply shows. Which one it is makes no difference.
    Unseen,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Absent => write!(f, "nothing"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Text(digest) => write!(f, "{digest:?}"),
            Value::Unseen => write!(f, "a text that nobody read"),
        }
    }
}

impl Value {
    fn of(text: &[u8]) -> Value {
        match std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse::<i64>().ok())
        {
            Some(n) if n.to_string().as_bytes() == text => Value::Int(n),
            _ => Value::Text(Digest::of(text)),
        }
    }

    fn digest(self) -> Digest {
        match self {
            Value::Absent => Digest::EMPTY,
            Value::Int(n) => Digest::of(n.to_string().as_bytes()),
            Value::Text(digest) => digest,
            Value::Unseen => unreachable!("where lengths matter all texts are told apart"),
        }
    }
}

/// A reply, with text as a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observed {
    Ok,
    Int(i64),
    Value(Value),
    Error,
    /// Two values that should be one and are not.
    Half,
    /// Something.
    Any,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Strlen,
    Exists,
    Set(Value),
    GetSet(Value),
    SetNx(Value),
    SetNxGet(Value),
    Del,
    GetDel,
    IncrBy(i64),
    /// Sets the second if the first is there, and otherwise says what is.
    Swap(Value, Value),
    Append(Piece),
}

/// The operations of one key's history.
pub struct StringModel {
    ops: Vec<(Action, Option<Observed>)>,
    /// If nothing but APPEND ever changes the key: the longest value that was read, by prefix
    /// length. Every value the key ever holds is a prefix of it or begins with it.
    longest: Option<Hashed<u64, Digest>>,
    longest_length: u64,
    /// The greatest length that any reply shows; what is longer was made by unknown appends that
    /// nobody saw.
    length_max: u64,
    /// By state: who saw it. Only of states that never recur.
    witnesses: Hashed<Value, Vec<usize>>,
    /// Writes that nobody saw.
    unseen: Vec<bool>,
    /// If replies show whole texts or nothing: all texts that were read, and how they began.
    /// An append of unknown outcome that leads to no such text may as well not have been.
    beginnings: Option<BTreeSet<Digest>>,
}

impl StringModel {
    /// From operations and their replies (`None` = unknown outcome).
    pub fn new(history: &[(&Op, Option<&Reply>)]) -> StringModel {
        let mut ops: Vec<(Action, Option<Observed>)> = history
            .iter()
            .map(|(op, reply)| (action(op), reply.map(observed)))
            .collect();
        let beginnings = beginnings(history);
        if beginnings.is_some() {
            forget_lengths(&mut ops);
        }
        forget_unseen(&mut ops);
        let (longest, longest_length) = longest_read(history);
        let lengths = history.iter().filter_map(|(_, reply)| match reply {
            Some(Reply::Int(n)) => Some(*n as u64),
            _ => None,
        });
        let length_max = lengths.fold(longest_length, u64::max);
        let witnesses = witnesses(history, &ops);
        // If all writes are plain SETs and all reads say what was there (never merely whether
        // something was), a value that was not read leaves no trace.
        let only_values = history.iter().all(|(op, _)| {
            matches!(
                op,
                Op::Get
                    | Op::Set(_)
                    | Op::GetSet(_)
                    | Op::OldGetSet(_)
                    | Op::PairSet(_)
                    | Op::PairGet
            )
        }) && have_unique_values(history);
        let unseen = ops
            .iter()
            .map(|(action, reply)| match (action, reply) {
                (Action::Set(value), None | Some(Observed::Ok)) => {
                    only_values && !witnesses.contains_key(value)
                }
                _ => false,
            })
            .collect();
        StringModel {
            ops,
            longest,
            longest_length,
            length_max,
            witnesses,
            unseen,
            beginnings,
        }
    }
}

/// Unknown appends beyond which lengths are not looked at.
const UNKNOWN_MAX: usize = 4;

/// The texts that were read, and all their beginnings, if there are many appends of unknown
/// outcome, other writes, and no reply but that of an append says less than the whole text.
fn beginnings(history: &[(&Op, Option<&Reply>)]) -> Option<BTreeSet<Digest>> {
    let whole = |op: &Op| {
        matches!(
            op,
            Op::Get | Op::GetSet(_) | Op::OldGetSet(_) | Op::GetDel | Op::Append(_)
        )
    };
    let only_appends = |op: &Op| matches!(op, Op::Get | Op::Append(_));
    let unknown =
        |(op, reply): &&(&Op, Option<&Reply>)| matches!(op, Op::Append(_)) && reply.is_none();
    if !history.iter().all(|(op, _)| whole(op))
        || history.iter().all(|(op, _)| only_appends(op))
        || history.iter().filter(unknown).count() <= UNKNOWN_MAX
    {
        return None;
    }
    let mut beginnings = BTreeSet::new();
    for (_, reply) in history {
        if let Some(Reply::Bulk(text)) = reply {
            let mut digest = Digest::EMPTY;
            for byte in text {
                digest.push(*byte);
                beginnings.insert(digest);
            }
        }
    }
    Some(beginnings)
}

/// Replies of appends say no more than that there was one.
fn forget_lengths(ops: &mut [(Action, Option<Observed>)]) {
    for (action, reply) in ops {
        if let (Action::Append(_), Some(Observed::Int(_))) = (action, &reply) {
            *reply = Some(Observed::Any);
        }
    }
}

/// Makes one of all texts that no reply shows, unless a reply may depend on their length.
fn forget_unseen(ops: &mut [(Action, Option<Observed>)]) {
    if ops
        .iter()
        .any(|(action, _)| matches!(action, Action::Strlen | Action::Append(_)))
    {
        return;
    }
    let seen: BTreeSet<Digest> = ops
        .iter()
        .filter_map(|(_, reply)| match reply {
            Some(Observed::Value(Value::Text(digest))) => Some(*digest),
            _ => None,
        })
        .collect();
    for (action, _) in ops {
        let (Action::Set(value)
        | Action::GetSet(value)
        | Action::SetNx(value)
        | Action::SetNxGet(value)) = action
        else {
            continue;
        };
        if matches!(value, Value::Text(digest) if !seen.contains(digest)) {
            *value = Value::Unseen;
        }
    }
}

/// The prefixes of the longest value read, if the key is only ever appended to.
fn longest_read(history: &[(&Op, Option<&Reply>)]) -> (Option<Hashed<u64, Digest>>, u64) {
    let only_appends = history
        .iter()
        .all(|(op, _)| op.is_read_only() || matches!(op, Op::Append(_)));
    let longest = history
        .iter()
        .filter_map(|(op, reply)| match (op, reply) {
            (Op::Get, Some(Reply::Bulk(text))) => Some(text),
            _ => None,
        })
        .max_by_key(|text| text.len());
    let Some(text) = longest.filter(|_| only_appends) else {
        return (None, 0);
    };
    let mut prefixes = Hashed::default();
    let mut digest = Digest::EMPTY;
    prefixes.insert(0, digest);
    for byte in text {
        digest.push(*byte);
        prefixes.insert(digest.length, digest);
    }
    (Some(prefixes), text.len() as u64)
}

/// Whether all values written differ, and pieces that are appended can be told apart again.
fn have_unique_values(history: &[(&Op, Option<&Reply>)]) -> bool {
    let mut values = BTreeSet::new();
    let appends = history.iter().any(|(op, _)| matches!(op, Op::Append(_)));
    history.iter().all(|(op, _)| {
        op.value().is_none_or(|v| {
            let is_piece = v.iter().position(|b| *b == b';') == Some(v.len().wrapping_sub(1));
            values.insert(v) && (!appends || is_piece)
        })
    })
}

/// Who saw which state. A text begins with a value that one operation wrote, and unique pieces
/// follow: once overwritten or appended to, it can't come back. A number can, unless it only
/// ever grows.
fn witnesses(
    history: &[(&Op, Option<&Reply>)],
    ops: &[(Action, Option<Observed>)],
) -> Hashed<Value, Vec<usize>> {
    let mut witnesses: Hashed<Value, Vec<usize>> = Hashed::default();
    let grows = history.iter().all(|(op, _)| match op {
        Op::IncrBy(n) | Op::Item(ItemOp::Add(n) | ItemOp::Once(n, _)) => *n > 0,
        Op::Item(ItemOp::Swap { from, to }) => *to > from.unwrap_or(0),
        op => op.is_read_only(),
    });
    if !grows && !have_unique_values(history) {
        return witnesses;
    }
    for (id, (action, reply)) in ops.iter().enumerate() {
        let found = match (action, reply) {
            (
                Action::Get
                | Action::GetSet(_)
                | Action::SetNxGet(_)
                | Action::GetDel
                | Action::Swap(..),
                Some(Observed::Value(found)),
            ) => *found,
            (Action::Swap(from, _), Some(Observed::Ok)) => *from,
            (Action::IncrBy(n), Some(Observed::Int(sum))) => Value::Int(sum - n),
            _ => continue,
        };
        match found {
            Value::Text(_) => witnesses.entry(found).or_default().push(id),
            Value::Int(_) if grows => witnesses.entry(found).or_default().push(id),
            _ => {}
        }
    }
    witnesses
}

fn action(op: &Op) -> Action {
    match op {
        Op::Get => Action::Get,
        Op::Strlen => Action::Strlen,
        Op::Exists => Action::Exists,
        Op::Set(v) => Action::Set(Value::of(v)),
        Op::GetSet(v) | Op::OldGetSet(v) => Action::GetSet(Value::of(v)),
        Op::PairSet(v) => Action::Set(Value::of(v)),
        Op::PairGet => Action::Get,
        Op::SetPx(..) | Op::SetNxPxGet(..) | Op::GetEx(_) | Op::PExpire(_) | Op::PTtl => {
            unreachable!("keys with operations that concern expiry have a model of their own")
        }
        Op::SetNx(v) => Action::SetNx(Value::of(v)),
        Op::SetNxGet(v) => Action::SetNxGet(Value::of(v)),
        Op::Del => Action::Del,
        Op::GetDel => Action::GetDel,
        Op::IncrBy(n) | Op::Item(ItemOp::Add(n) | ItemOp::Once(n, _)) => Action::IncrBy(*n),
        Op::Item(ItemOp::Get) => Action::Get,
        Op::Item(ItemOp::Swap { from, to }) => {
            Action::Swap(from.map_or(Value::Absent, Value::Int), Value::Int(*to))
        }
        Op::Append(v) => {
            // Text that became a number by appending would have to be read back from a hash.
            assert!(
                !v.iter().all(u8::is_ascii_digit),
                "APPEND of {v:?}: the model needs a byte that is no digit"
            );
            Action::Append(Piece::of(v))
        }
    }
}

fn observed(reply: &Reply) -> Observed {
    match reply {
        Reply::Ok => Observed::Ok,
        Reply::Nil => Observed::Value(Value::Absent),
        Reply::Int(n) => Observed::Int(*n),
        Reply::Bulk(text) => Observed::Value(Value::of(text)),
        Reply::Error(_) => Observed::Error,
        Reply::Array(both) => match &both[..] {
            [None, None] => Observed::Value(Value::Absent),
            [Some(a), Some(b)] if a == b => Observed::Value(Value::of(a)),
            _ => Observed::Half,
        },
        Reply::Any => Observed::Any,
    }
}

/// What the store answers, and what the key holds then.
fn apply(action: &Action, old: Value) -> (Observed, Value) {
    let absent = old == Value::Absent;
    match *action {
        Action::Get => (Observed::Value(old), old),
        Action::Strlen => (Observed::Int(old.digest().length as i64), old),
        Action::Exists => (Observed::Int(i64::from(!absent)), old),
        Action::Set(new) => (Observed::Ok, new),
        Action::GetSet(new) => (Observed::Value(old), new),
        Action::SetNx(new) if absent => (Observed::Ok, new),
        Action::SetNx(_) => (Observed::Value(Value::Absent), old),
        Action::SetNxGet(new) if absent => (Observed::Value(old), new),
        Action::SetNxGet(_) => (Observed::Value(old), old),
        Action::Del => (Observed::Int(i64::from(!absent)), Value::Absent),
        Action::GetDel => (Observed::Value(old), Value::Absent),
        Action::IncrBy(n) => {
            let base = match old {
                Value::Absent => Some(0),
                Value::Int(base) => Some(base),
                Value::Text(_) | Value::Unseen => None,
            };
            match base.and_then(|base: i64| base.checked_add(n)) {
                Some(sum) => (Observed::Int(sum), Value::Int(sum)),
                None => (Observed::Error, old),
            }
        }
        Action::Swap(from, to) if from == old => (Observed::Ok, to),
        Action::Swap(..) => (Observed::Value(old), old),
        Action::Append(piece) => {
            let new = piece.appended_to(old.digest());
            (Observed::Int(new.length as i64), Value::Text(new))
        }
    }
}

impl Model for StringModel {
    type State = Value;

    fn initial(&self) -> Value {
        Value::Absent
    }

    fn step(&self, state: &Value, op: usize) -> Option<Value> {
        let (action, wanted) = &self.ops[op];
        let (reply, next) = apply(action, *state);
        if let (Action::Append(_), None, Some(read)) = (action, wanted, &self.beginnings) {
            if !matches!(next, Value::Text(text) if read.contains(&text)) {
                return None;
            }
        }
        wanted
            .is_none_or(|wanted| wanted == reply || wanted == Observed::Any)
            .then_some(next)
    }

    fn same_effect(&self, a: usize, b: usize) -> bool {
        match (self.ops[a].0, self.ops[b].0) {
            (Action::IncrBy(a), Action::IncrBy(b)) => a == b,
            (Action::Swap(from, to), Action::Swap(other, next)) => (from, to) == (other, next),
            (Action::Del | Action::GetDel, Action::Del | Action::GetDel) => true,
            (Action::Set(a) | Action::GetSet(a), Action::Set(b) | Action::GetSet(b))
            | (Action::SetNx(a) | Action::SetNxGet(a), Action::SetNx(b) | Action::SetNxGet(b)) => {
                a == b
            }
            _ => false,
        }
    }

    fn witnesses(&self, state: &Value) -> &[usize] {
        self.witnesses.get(state).map_or(&[], Vec::as_slice)
    }

    fn changed_nothing(&self, op: usize) -> bool {
        let absent = Observed::Value(Value::Absent);
        match self.ops[op] {
            (_, None) => false,
            (Action::Get | Action::Strlen | Action::Exists, _) => true,
            (Action::SetNx(_) | Action::GetDel, Some(reply)) => reply == absent,
            (Action::SetNxGet(_), Some(reply)) => reply != absent,
            (Action::Del, Some(reply)) => reply == Observed::Int(0),
            (Action::Swap(..), Some(reply)) => reply != Observed::Ok,
            (_, Some(reply)) => reply == Observed::Error,
        }
    }

    fn overwrites(&self, op: usize) -> bool {
        matches!(self.ops[op].0, Action::Set(_))
    }

    fn unseen(&self, op: usize) -> bool {
        self.unseen[op]
    }

    fn plausible(&self, state: &Value) -> bool {
        let (Some(prefixes), Value::Text(digest)) = (&self.longest, state) else {
            return true;
        };
        match digest.length > self.longest_length {
            true => digest.length <= self.length_max,
            false => prefixes.get(&digest.length) == Some(digest),
        }
    }
}
