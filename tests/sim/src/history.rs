//! What clients did and saw: the only evidence on which the store is judged.
//!
//! Invariants:
//! - Times are positions in one global order of the simulation's events, so "A returned before
//!   B was called" is exact, also between events at the same virtual nanosecond.
//! - Values written to one key are unique, so that a reply says which write it saw.
//! - An operation is [`Outcome::NotExecuted`] only if the store *promised* that nothing was
//!   proposed. A value of such an operation that shows up later is a violation.

use bytes::Bytes;
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
}

impl Op {
    /// Whether the operation never changes anything, whatever it finds.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Op::Get | Op::Strlen | Op::Exists)
    }

    /// The Redis command.
    pub fn arguments(&self, key: &Bytes) -> Vec<Bytes> {
        let word = Bytes::from_static;
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
        }
    }
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
}

impl Reply {
    /// Reads one RESP2 reply that fills `bytes` exactly; `None` if it is anything else.
    pub fn parse(bytes: &[u8]) -> Option<Reply> {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let (kind, line) = bytes[..end].split_first()?;
        let line = std::str::from_utf8(line).ok()?;
        let rest = &bytes[end + 2..];
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
    /// What came of it.
    pub outcome: Outcome,
}

/// A handle to an operation that was begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId {
    key: Bytes,
    index: usize,
}

/// All operations, by key: linearizability is local, so keys are judged one by one.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Record>>,
}

impl History {
    /// Notes a request that is about to be sent. Until it ends its outcome is unknown.
    pub fn begin(&mut self, client: u32, key: &Bytes, op: Op, at: u64) -> OpId {
        let records = self.keys.entry(key.clone()).or_default();
        records.push(Record {
            client,
            op,
            call: at,
            outcome: Outcome::Unknown,
        });
        OpId {
            key: key.clone(),
            index: records.len() - 1,
        }
    }

    /// Notes how it ended.
    pub fn end(&mut self, id: &OpId, outcome: Outcome) {
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
    }

    /// The operation behind a handle.
    pub fn record(&self, id: &OpId) -> &Record {
        &self.keys[&id.key][id.index]
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
        ] {
            assert_eq!(Reply::parse(bytes), want, "{}", bytes.escape_ascii());
        }
    }
}
