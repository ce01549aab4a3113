//! What clients did and saw: the only evidence on which the store is judged.
//!
//! Invariants:
//! - Times are positions in one global order of the simulation's events, so "A returned before
//!   B was called" is exact, also between events at the same virtual nanosecond.
//! - Values written to one key are unique, so that a reply says which write it saw.
//! - An operation is [`Outcome::NotExecuted`] only if the store *promised* that nothing was
//!   proposed. A value of such an operation that shows up later is a violation.
//! - The operations of one client on one key take effect in the order in which they were begun,
//!   also when they were pipelined.

use crate::clock::WallBounds;
use crate::items::ItemOp;
use crate::schedule::Time;
use bytes::Bytes;
use rangekv_router::reply;
use std::collections::BTreeMap;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `GET key`
    Get,
    /// `STRLEN key`
    Strlen,
    /// `EXISTS key`
    Exists,
    /// `SET key value`
    Set(Bytes),
    /// `SET key value GET`: the old value comes back.
    GetSet(Bytes),
    /// `SET key value NX`
    SetNx(Bytes),
    /// `SET key value NX GET`: writes only if absent, and says what was there.
    SetNxGet(Bytes),
    /// `DEL key`
    Del,
    /// `GETDEL key`
    GetDel,
    /// `INCRBY key n`
    IncrBy(i64),
    /// `APPEND key value`; the value is neither empty nor all digits.
    Append(Bytes),
    /// `GETSET key value`: as [`Op::GetSet`], by its old name.
    OldGetSet(Bytes),
    /// `SET key value PX ms`
    SetPx(Bytes, u64),
    /// `SET key value NX GET PX ms`
    SetNxPxGet(Bytes, u64),
    /// `GETEX key PX ms`
    GetEx(u64),
    /// `PEXPIRE key ms`
    PExpire(u64),
    /// `PTTL key`
    PTtl,
    /// `MSET key:a value key:b value`: one value in two keys of one slot.
    PairSet(Bytes),
    /// `MGET key:a key:b`
    PairGet,
    /// Of a DynamoDB table.
    Item(ItemOp),
}

impl Op {
    /// Whether the operation never changes anything, whatever it finds.
    pub fn is_read_only(&self) -> bool {
        matches!(
            self,
            Op::Get | Op::Strlen | Op::Exists | Op::PTtl | Op::PairGet | Op::Item(ItemOp::Get)
        )
    }

    /// Whether it may be sent again when nobody knows whether it was carried out.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Op::Item(op) => op.is_repeatable(),
            op => op.is_read_only(),
        }
    }

    /// The Redis command.
    pub fn arguments(&self, key: &Bytes) -> Vec<Bytes> {
        let word = Bytes::from_static;
        let number = |ms: &u64| Bytes::from(ms.to_string());
        let key = key.clone();
        match self {
            Op::Get => vec![word(b"GET"), key],
            Op::Strlen => vec![word(b"STRLEN"), key],
            Op::Exists => vec![word(b"EXISTS"), key],
            Op::Set(v) => vec![word(b"SET"), key, v.clone()],
            Op::GetSet(v) => vec![word(b"SET"), key, v.clone(), word(b"GET")],
            Op::SetNx(v) => vec![word(b"SET"), key, v.clone(), word(b"NX")],
            Op::SetNxGet(v) => vec![word(b"SET"), key, v.clone(), word(b"NX"), word(b"GET")],
            Op::Del => vec![word(b"DEL"), key],
            Op::GetDel => vec![word(b"GETDEL"), key],
            Op::IncrBy(n) => vec![word(b"INCRBY"), key, Bytes::from(n.to_string())],
            Op::Append(v) => vec![word(b"APPEND"), key, v.clone()],
            Op::OldGetSet(v) => vec![word(b"GETSET"), key, v.clone()],
            Op::SetPx(v, ms) => vec![word(b"SET"), key, v.clone(), word(b"PX"), number(ms)],
            Op::SetNxPxGet(v, ms) => vec![
                word(b"SET"),
                key,
                v.clone(),
                word(b"NX"),
                word(b"GET"),
                word(b"PX"),
                number(ms),
            ],
            Op::GetEx(ms) => vec![word(b"GETEX"), key, word(b"PX"), number(ms)],
            Op::PExpire(ms) => vec![word(b"PEXPIRE"), key, number(ms)],
            Op::PTtl => vec![word(b"PTTL"), key],
            Op::PairSet(v) => {
                let [a, b] = pair(&key);
                vec![word(b"MSET"), a, v.clone(), b, v.clone()]
            }
            Op::PairGet => {
                let [a, b] = pair(&key);
                vec![word(b"MGET"), a, b]
            }
            Op::Item(op) => unreachable!("{op:?} is no Redis command"),
        }
    }

    /// The value that it writes, if it writes one.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Op::Set(v)
            | Op::GetSet(v)
            | Op::OldGetSet(v)
            | Op::SetNx(v)
            | Op::SetNxGet(v)
            | Op::Append(v)
            | Op::SetPx(v, _)
            | Op::SetNxPxGet(v, _)
            | Op::PairSet(v) => Some(v),
            _ => None,
        }
    }
}

/// The two keys of a pair, in the order of their records.
pub fn pair(key: &Bytes) -> [Bytes; 2] {
    let with = |end: &[u8]| Bytes::from([&key[..], end].concat());
    [with(b":a"), with(b":b")]
}

/// A Redis reply, as far as these operations can get one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `+OK`
    Ok,
    /// No value.
    Nil,
    /// `:n`
    Int(i64),
    /// A bulk string.
    Bulk(Bytes),
    /// `-ERR ...`
    Error(String),
    /// An array of bulk strings and nulls.
    Array(Vec<Option<Bytes>>),
    /// There was one; what it said of this key is not known.
    Any,
}

impl Reply {
    /// Reads one RESP2 reply that fills `bytes` exactly; `None` if it is anything else.
    pub fn parse(bytes: &[u8]) -> Option<Reply> {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let (kind, line) = bytes[..end].split_first()?;
        let line = std::str::from_utf8(line).ok()?;
        let rest = &bytes[end + 2..];
        if *kind == b'*' {
            let elements = reply::array(&Bytes::copy_from_slice(bytes))?;
            let elements: Option<Vec<_>> = elements.iter().map(reply::bulk).collect();
            return elements.map(Reply::Array);
        }
        let reply = match kind {
            b'+' if line == "OK" => Reply::Ok,
            b'-' => Reply::Error(line.to_string()),
            b':' => Reply::Int(line.parse().ok()?),
            b'_' => Reply::Nil,
            b'$' if line == "-1" => Reply::Nil,
            b'$' => {
                let length: usize = line.parse().ok()?;
                if rest.len() != length + 2 || &rest[length..] != b"\r\n" {
                    return None;
                }
                return Some(Reply::Bulk(Bytes::copy_from_slice(&rest[..length])));
            }
            _ => return None,
        };
        rest.is_empty().then_some(reply)
    }
}

/// How an operation ended, as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply came at this position.
    Replied {
        /// Position of the reply.
        at: u64,
        /// The reply.
        reply: Reply,
    },
    /// No answer, or one that leaves the outcome open: it may take effect at any later
    /// moment, or never.
    Unknown,
    /// The store said that it did nothing and will do nothing.
    NotExecuted,
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who asked.
    pub client: u32,
    /// What was asked.
    pub op: Op,
    /// Position at which the request was first sent.
    pub call: u64,
    /// True time of that.
    pub called_at: Time,
    /// What came of it.
    pub outcome: Outcome,
    /// True time of the reply, if there was one.
    pub ended_at: Time,
}

/// Operations without an end, beyond which a key is left alone: each of unknown outcome may
/// take effect at any moment to come.
const OPEN_MAX: usize = 14;
/// Operations beyond which a key is left alone.
const RECORDS_MAX: usize = 4_000;

/// A handle to an operation that was begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId {
    key: Bytes,
    index: usize,
}

impl OpId {
    /// The key.
    pub fn key(&self) -> &Bytes {
        &self.key
    }
}

/// All operations, by key: linearizability is local, so keys are judged one by one.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Record>>,
    /// By key: operations that have not ended.
    open: BTreeMap<Bytes, usize>,
    /// What wall clocks may have shown: who expires when depends on it.
    pub clocks: WallBounds,
}

impl History {
    /// Notes a request that is about to be sent. Until it ends its outcome is unknown.
    pub fn begin(&mut self, client: u32, key: &Bytes, op: Op, at: u64, now: Time) -> OpId {
        *self.open.entry(key.clone()).or_default() += 1;
        let records = self.keys.entry(key.clone()).or_default();
        records.push(Record {
            client,
            op,
            call: at,
            called_at: now,
            outcome: Outcome::Unknown,
            ended_at: 0,
        });
        OpId {
            key: key.clone(),
            index: records.len() - 1,
        }
    }

    /// Notes how it ended.
    pub fn end(&mut self, id: &OpId, outcome: Outcome, now: Time) {
        let record = &mut self
            .keys
            .get_mut(&id.key)
            .expect("an operation that was begun")[id.index];
        assert_eq!(
            record.outcome,
            Outcome::Unknown,
            "an operation ended twice: {record:?}"
        );
        if let Outcome::Replied { at, .. } = &outcome {
            assert!(*at > record.call, "a reply at {at} to {record:?}");
        }
        record.outcome = outcome;
        record.ended_at = now;
        *self.open.get_mut(&id.key).expect("begun") -= 1;
    }

    /// The operation behind a handle.
    pub fn record(&self, id: &OpId) -> &Record {
        &self.keys[&id.key][id.index]
    }

    /// Whether what has been done to `key` would cost too much to judge, were there more.
    pub fn is_spent(&self, key: &Bytes) -> bool {
        let open = self.open.get(key).copied().unwrap_or(0);
        open > OPEN_MAX || self.keys.get(key).is_some_and(|r| r.len() > RECORDS_MAX)
    }

    /// Each key with its operations, in the order in which they were begun.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, &[Record])> {
        self.keys.iter().map(|(k, v)| (k, v.as_slice()))
    }

    /// Number of operations with a reply, of unknown outcome, and not executed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for record in self.keys.values().flatten() {
            match record.outcome {
                Outcome::Replied { .. } => counts.0 += 1,
                Outcome::Unknown => counts.1 += 1,
                Outcome::NotExecuted => counts.2 += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_parse_whole_or_not_at_all() {
        for (bytes, want) in [
            (&b"+OK\r\n"[..], Some(Reply::Ok)),
            (b"$-1\r\n", Some(Reply::Nil)),
            (b":-12\r\n", Some(Reply::Int(-12))),
            (b"$2\r\na\r\n\r\n", None),
            (
                b"$3\r\na\r\n\r\n",
                Some(Reply::Bulk(Bytes::from_static(b"a\r\n"))),
            ),
            (
                b"$3\r\nabc\r\n",
                Some(Reply::Bulk(Bytes::from_static(b"abc"))),
            ),
            (b"$0\r\n\r\n", Some(Reply::Bulk(Bytes::new()))),
            (b"-ERR no\r\n", Some(Reply::Error("ERR no".into()))),
            (b"+OK\r\n+OK\r\n", None),
            (b"", None),
            (b"+QUEUED\r\n", None),
            (
                b"*2\r\n$1\r\na\r\n$-1\r\n",
                Some(Reply::Array(vec![Some(Bytes::from_static(b"a")), None])),
            ),
            (b"*2\r\n$1\r\na\r\n", None),
        ] {
            assert_eq!(Reply::parse(bytes), want, "{}", bytes.escape_ascii());
        }
    }
}
