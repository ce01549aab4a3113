//! A map with a clock that tests turn, in the place of a range.

use super::codec::{encode_command, Protocol};
use super::{keys, RedisModel};
use crate::eval::{Context, Evaluator, Txn, View, Visitor};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Evaluates commands on database 0 in RESP2, and applies their writes.
pub(crate) struct Keyspace {
    pub records: BTreeMap<Bytes, Bytes>,
    pub now_ms: u64,
    pub seed: u64,
    /// The range's bounds.
    pub start: Bytes,
    pub end: Bytes,
    pub db: u8,
    /// How many records the last command read by key.
    pub reads: usize,
    /// How many records the last command wrote or removed.
    pub writes: usize,
}

impl Keyspace {
    pub fn new() -> Self {
        Keyspace {
            records: BTreeMap::new(),
            now_ms: 1_000_000,
            seed: 0,
            start: keys::slot_start(0),
            end: keys::slot_start(keys::SLOTS),
            db: 0,
            reads: 0,
            writes: 0,
        }
    }

    /// Runs a command whose arguments contain no spaces; line ends in the reply are spaces.
    pub fn run(&mut self, line: &str) -> String {
        let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
        String::from_utf8_lossy(&self.run_args(&args)).replace("\r\n", " ")
    }

    pub fn run_args(&mut self, args: &[Bytes]) -> Bytes {
        let view = Counting {
            below: &self.records,
            reads: Cell::new(0),
        };
        let mut txn = Txn::new(&view);
        let context = Context {
            now_ms: self.now_ms,
            seed: self.seed,
            start: &self.start,
            end: &self.end,
        };
        let command = encode_command(Protocol::Resp2, self.db, args);
        let reply = RedisModel.evaluate(&context, &command, &mut txn);
        let writes = txn.into_writes();
        self.seed = self.seed.wrapping_add(1);
        self.reads = view.reads.get();
        self.writes = writes.len();
        for (key, record) in writes {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        reply
    }
}

struct Counting<'a> {
    below: &'a BTreeMap<Bytes, Bytes>,
    reads: Cell<usize>,
}

impl View for Counting<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.reads.set(self.reads.get() + 1);
        View::get(self.below, key)
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.below.scan(start, end, visit);
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.below.scan_reverse(start, end, visit);
    }
}
