//! `MULTI`, `EXEC` and `WATCH` at the client's end of a connection, told to the history in terms
//! of what it knows:
//!
//! - A pair that is written or read between `MULTI` and `EXEC` is one operation, as it is with
//!   `MSET` and `MGET`.
//! - A counter that is raised by compare and set (`WATCH`, `GET`, then `MULTI`, `SET` of one more,
//!   `EXEC`) is an increment if `EXEC` says that it was done, and nothing if it says nil. A
//!   conflict that `EXEC` misses sets the counter back, which no order of increments explains.
//! - An increment and a read of it in one transaction see the same.

use crate::cluster::Cluster;
use crate::connection::Expected;
use crate::history::{pair, Op, OpId, Outcome, Reply};
use crate::random::stream;
use crate::workload::Kind;
use bytes::Bytes;
use rand::Rng;
use rangekv_router::reply;

/// What a transaction answers for.
#[derive(Clone, Debug)]
pub enum Transaction {
    /// `SET SET` or `GET GET` of a pair.
    Pair(OpId),
    /// `INCRBY GET`.
    Raised(OpId),
    /// `SET` of a counter that was watched, to this.
    Swapped(OpId, i64),
}

/// A compare and set that has begun.
#[derive(Clone, Debug)]
pub enum Swap {
    /// `WATCH` and `GET` are on their way.
    Asked(Bytes),
    /// What the counter was.
    Seen(Bytes, i64),
}

/// Whether the connections of this seed use transactions: one in four.
pub fn used(seed: u64) -> bool {
    stream(seed, "transactions").random_bool(0.25)
}

/// A command to send, and what is owed for it.
type Send = (Expected, Vec<Bytes>);

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| word.to_owned().into()).collect()
}

/// What a transaction sends before its `EXEC`.
fn queue(commands: Vec<Vec<Bytes>>) -> Vec<Send> {
    let mut sends = vec![(Expected::Word("+OK"), words("MULTI"))];
    sends.extend(commands.into_iter().map(|c| (Expected::Word("+QUEUED"), c)));
    sends
}

impl Cluster {
    /// Sends a transaction, or a part of a compare and set; whether it did.
    pub(crate) fn transact(&mut self, c: usize) -> bool {
        if !self.connections[c].rng.random_bool(0.4) {
            return false;
        }
        let sends = match self.connections[c].swap.take() {
            Some(Swap::Seen(key, seen)) => {
                let next = Bytes::from((seen + 1).to_string());
                let mut sends = queue(vec![vec!["SET".into(), key.clone(), next]]);
                let id = self.note_begin(c, &key, Op::IncrBy(1));
                let swapped = Transaction::Swapped(id, seen + 1);
                sends.push((Expected::Transaction(swapped), words("EXEC")));
                sends
            }
            Some(asked) => {
                // An EXEC now would forget what is watched.
                self.connections[c].swap = Some(asked);
                return false;
            }
            None => match self.begin_transaction(c) {
                Some(sends) => sends,
                None => return false,
            },
        };
        for (what, args) in sends {
            self.owe(c, what, &args);
        }
        true
    }

    /// A transaction on some key that suits, or the beginning of a compare and set.
    fn begin_transaction(&mut self, c: usize) -> Option<Vec<Send>> {
        let connection = &mut self.connections[c];
        let (key, op) = self.workload.next(&mut connection.rng, connection.number);
        let swaps = connection.rng.random_bool(0.6);
        self.replace_spent(key);
        let key = &self.workload.keys[key];
        let (kind, name) = (key.kind, key.name.clone());
        let read: Vec<Bytes> = vec!["GET".into(), name.clone()];
        let (mut sends, transaction) = match kind {
            Kind::Counter if swaps => {
                let watch = vec!["WATCH".into(), name.clone()];
                let id = self.note_begin(c, &name, Op::Get);
                self.connections[c].swap = Some(Swap::Asked(name));
                return Some(vec![
                    (Expected::Word("+OK"), watch),
                    (Expected::Seen(id), read),
                ]);
            }
            Kind::Counter => {
                let raise = vec!["INCRBY".into(), name.clone(), "1".into()];
                let id = self.note_begin(c, &name, Op::IncrBy(1));
                (queue(vec![raise, read]), Transaction::Raised(id))
            }
            Kind::Pair => {
                let each = pair(&name).into_iter();
                let commands = match op.value() {
                    Some(value) => each
                        .map(|key| vec!["SET".into(), key, value.clone()])
                        .collect(),
                    None => each.map(|key| vec!["GET".into(), key]).collect(),
                };
                let id = self.note_begin(c, &name, op);
                (queue(commands), Transaction::Pair(id))
            }
            _ => return None,
        };
        sends.push((Expected::Transaction(transaction), words("EXEC")));
        Some(sends)
    }

    /// Hears what a watched counter is.
    pub(crate) fn watched_is(
        &mut self,
        c: usize,
        id: &OpId,
        ended: Option<Outcome>,
        reply: Option<Reply>,
        at: u64,
    ) -> Result<(), String> {
        let now = self.schedule.now();
        let swap = self.connections[c].swap.take();
        if let Some(ended) = ended {
            if ended == Outcome::NotExecuted {
                self.history.end(id, ended, now);
            }
            return Ok(());
        }
        let seen = match &reply {
            Some(Reply::Nil) => Some(0),
            Some(Reply::Bulk(text)) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()),
            _ => None,
        };
        let (Some(reply), Some(seen)) = (reply, seen) else {
            return Err(format!("connection {c}: a counter is no number: {id:?}"));
        };
        if let Some(Swap::Asked(key)) = swap {
            self.connections[c].swap = Some(Swap::Seen(key, seen));
        }
        self.history.end(id, Outcome::Replied { at, reply }, now);
        Ok(())
    }

    /// Hears what became of a transaction.
    pub(crate) fn executed(
        &mut self,
        transaction: &Transaction,
        ended: Option<Outcome>,
        reply: &Bytes,
        at: u64,
    ) -> Result<(), String> {
        let now = self.schedule.now();
        let (Transaction::Pair(id) | Transaction::Raised(id) | Transaction::Swapped(id, _)) =
            transaction;
        // What was watched may lie elsewhere, or its WATCH may have failed.
        let refused = [&b"-EXECABORT "[..], b"-CROSSSLOT "];
        let nil = reply[..] == b"*-1\r\n"[..];
        let outcome = match ended {
            Some(Outcome::Unknown) => return Ok(()),
            Some(ended) => ended,
            None if nil || refused.iter().any(|word| reply.starts_with(word)) => {
                Outcome::NotExecuted
            }
            None => {
                self.counts.transactions += 1;
                let reply = said(transaction, reply).ok_or_else(|| {
                    format!("{transaction:?} is answered {}", reply.escape_ascii())
                })?;
                Outcome::Replied { at, reply }
            }
        };
        self.history.end(id, outcome, now);
        Ok(())
    }
}

/// What the array that an `EXEC` answers says of its operation, as a reply to that operation.
fn said(transaction: &Transaction, reply: &Bytes) -> Option<Reply> {
    let elements = reply::array(reply)?;
    match (transaction, &elements[..]) {
        (Transaction::Pair(_), [a, b]) if a[..] == b"+OK\r\n"[..] && a == b => Some(Reply::Ok),
        (Transaction::Pair(_), [a, b]) => {
            Some(Reply::Array(vec![reply::bulk(a)?, reply::bulk(b)?]))
        }
        (Transaction::Raised(_), [raised, seen]) => {
            let raised = reply::int(raised)?;
            let seen = reply::bulk(seen)??;
            (seen == raised.to_string()).then_some(Reply::Int(raised))
        }
        (Transaction::Swapped(_, to), [done]) if done[..] == b"+OK\r\n"[..] => {
            Some(Reply::Int(*to))
        }
        _ => None,
    }
}
