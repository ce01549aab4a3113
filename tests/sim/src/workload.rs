//! What clients ask for: a few contended keys, each of one kind, with unique values.

use crate::history::{pair, Op};
use crate::items::{self, ItemOp};
use crate::random::{log_uniform, stream};
use crate::schedule::{Time, MS};
use crate::walks::KEPT;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_model::redis::keys::record_key;
use std::collections::BTreeMap;

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Written and read.
    Register,
    /// Written if absent, removed, exchanged.
    Cas,
    /// Counted up.
    Counter,
    /// Appended to.
    Append,
    /// Exchanged, taken away, and appended to.
    Chain,
    /// Written for a time.
    Expiring,
    /// Two keys of one slot, always written and read together.
    Pair,
    /// An item of a DynamoDB table that counts; only in runs of items.
    Item,
}

const KINDS: [Kind; 7] = [
    Kind::Register,
    Kind::Cas,
    Kind::Counter,
    Kind::Append,
    Kind::Chain,
    Kind::Expiring,
    Kind::Pair,
];

/// A key of the workload.
#[derive(Clone, Debug)]
pub struct Key {
    /// As a client names it.
    pub name: Bytes,
    /// Its record, which decides the range.
    pub record: Bytes,
    /// What is done to it.
    pub kind: Kind,
}

impl Key {
    fn new(kind: Kind, number: &str) -> Key {
        let name = Bytes::from(match kind {
            Kind::Pair => format!("{{pair-{number}}}"),
            Kind::Item => format!("item-{number}"),
            _ => format!("key-{number}"),
        });
        let mut key = Key {
            record: Bytes::new(),
            name,
            kind,
        };
        key.record = match kind {
            Kind::Item => items::record(&key.name),
            _ => record_key(0, &key.names()[0]),
        };
        key
    }

    /// The keys of the keyspace that it stands for.
    pub fn names(&self) -> Vec<Bytes> {
        match self.kind {
            Kind::Pair => pair(&self.name).to_vec(),
            _ => vec![self.name.clone()],
        }
    }

    /// What reads it.
    pub fn read(&self) -> Op {
        match self.kind {
            Kind::Pair => Op::PairGet,
            Kind::Item => Op::Item(ItemOp::Get),
            _ => Op::Get,
        }
    }
}

/// A count that a client saw; `None` = no item.
type Seen = Option<i64>;

/// See the module's documentation.
pub struct Workload {
    /// All keys.
    pub keys: Vec<Key>,
    /// Those in use: the others have a history that is hard to judge, and are left as they are.
    current: Vec<usize>,
    /// Keys that connections write once and leave for ever, with their records.
    pub keeps: Vec<(Bytes, Bytes)>,
    /// Number of clients that speak to stores themselves.
    pub clients: usize,
    /// Number of clients that go through front doors.
    pub connections: usize,
    /// Mean pause of a client between two operations.
    pub think_mean: Time,
    read_share: f64,
    /// Share of operations that go to the first key.
    hot_share: f64,
    written: u64,
    /// By client and item: the count when it was last seen.
    seen: BTreeMap<(u32, Bytes), Seen>,
}

impl Workload {
    /// What `seed` draws.
    pub fn draw(seed: u64) -> Workload {
        let mut rng = stream(seed, "workload");
        let count = rng.random_range(2..10);
        let only = rng
            .random_bool(0.3)
            .then(|| rng.random_range(0..KINDS.len()));
        let keys: Vec<Key> = (0..count)
            .map(|n| {
                let kind = KINDS[only.unwrap_or_else(|| rng.random_range(0..KINDS.len()))];
                Key::new(kind, &format!("{n}-{}", rng.random_range(0..1000)))
            })
            .collect();
        let keeps = match rng.random_range(0..3) {
            0 => 0,
            _ => log_uniform(&mut rng, 3, 120),
        };
        let keeps = (0..keeps).map(|n| {
            let name = Bytes::from(format!("{KEPT}{n}"));
            let record = record_key(0, &name);
            (name, record)
        });
        let connections = match rng.random_range(0..6) {
            0 => 0,
            _ => rng.random_range(1..6),
        };
        Workload {
            current: (0..keys.len()).collect(),
            keys,
            keeps: keeps.collect(),
            clients: rng.random_range(1..9 - connections.min(6)),
            connections,
            think_mean: log_uniform(&mut rng, MS, 40 * MS),
            read_share: match rng.random_range(0..4) {
                // Where writes are rare, what is read depends on single ones.
                0 => rng.random_range(0.9..0.99),
                _ => rng.random_range(0.1..0.7),
            },
            hot_share: if rng.random_bool(0.5) {
                rng.random_range(0.0..0.9)
            } else {
                0.0
            },
            written: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Half reads, half writes of `keys` registers, through `connections` front doors.
    pub fn even(keys: usize, connections: usize, think_mean: Time) -> Workload {
        let keys = (0..keys).map(|n| Key::new(Kind::Register, &format!("{n}-even")));
        let keys: Vec<Key> = keys.collect();
        Workload {
            current: (0..keys.len()).collect(),
            keys,
            keeps: Vec::new(),
            clients: 0,
            connections,
            think_mean,
            read_share: 0.5,
            hot_share: 0.0,
            written: 0,
            seen: BTreeMap::new(),
        }
    }

    /// What `seed` draws for a run of items: counters of one table, and nothing else.
    pub fn items(seed: u64) -> Workload {
        let mut rng = stream(seed, "items");
        let keys: Vec<Key> = (0..rng.random_range(1..6))
            .map(|n| Key::new(Kind::Item, &format!("{n}-{}", rng.random_range(0..1000))))
            .collect();
        Workload {
            current: (0..keys.len()).collect(),
            keys,
            keeps: Vec::new(),
            clients: rng.random_range(2..8),
            connections: 0,
            think_mean: log_uniform(&mut rng, MS / 4, 20 * MS),
            read_share: rng.random_range(0.1..0.5),
            hot_share: rng.random_range(0.3..0.95),
            written: 0,
            seen: BTreeMap::new(),
        }
    }

    /// A client saw what the count of an item is.
    pub fn saw(&mut self, client: u32, name: Bytes, count: Seen) {
        self.seen.insert((client, name), count);
    }

    /// The records of all keys: where ranges may be cut.
    pub fn records(&self) -> Vec<Bytes> {
        self.keys.iter().map(|key| key.record.clone()).collect()
    }

    /// Keys that operations still go to.
    pub fn current(&self) -> impl Iterator<Item = &Key> {
        self.current.iter().map(|i| &self.keys[*i])
    }

    /// Another key takes the place of `key`; it.
    pub fn replace(&mut self, key: usize) -> &Key {
        let Key { kind, name, .. } = &self.keys[key];
        let fresh = Key::new(*kind, &format!("{}-{}", self.keys.len(), name.len()));
        if let Some(place) = self.current.iter_mut().find(|i| **i == key) {
            *place = self.keys.len();
        }
        self.keys.push(fresh);
        &self.keys[self.keys.len() - 1]
    }

    /// The next operation of a client: a key and what to do to it.
    pub fn next(&mut self, rng: &mut SmallRng, client: u32) -> (usize, Op) {
        let i = self.current[if rng.random_bool(self.hot_share) {
            0
        } else {
            rng.random_range(0..self.current.len())
        }];
        self.written += 1;
        let n = self.written;
        let kind = self.keys[i].kind;
        // An append needs its end to be told from what follows, and the checker knows of `;`.
        let value = match kind {
            Kind::Append | Kind::Chain => Bytes::from(format!("{client}.{n};")),
            _ => Bytes::from(format!("{client}.{n}v")),
        };
        let read = rng.random_bool(self.read_share);
        let op = match kind {
            Kind::Register if read => Op::Get,
            Kind::Register => match rng.random_range(0..4) {
                0 => Op::GetSet(value),
                _ => Op::Set(value),
            },
            Kind::Cas if read => match rng.random_range(0..5) {
                0 => Op::Exists,
                _ => Op::Get,
            },
            Kind::Cas => match rng.random_range(0..10) {
                0 => Op::Set(value),
                1 | 2 => Op::SetNx(value),
                3..=6 => Op::SetNxGet(value),
                7 | 8 => Op::Del,
                _ => Op::GetDel,
            },
            Kind::Counter if read => Op::Get,
            Kind::Counter => Op::IncrBy(1),
            Kind::Append if read => match rng.random_range(0..3) {
                0 => Op::Strlen,
                _ => Op::Get,
            },
            Kind::Append => Op::Append(value),
            Kind::Chain if read => Op::Get,
            Kind::Chain => match rng.random_range(0..8) {
                0 => Op::GetDel,
                1 => Op::GetSet(value),
                2 => Op::OldGetSet(value),
                _ => Op::Append(value),
            },
            Kind::Expiring => {
                // As long as what happens meanwhile; elections take seconds.
                let ms = log_uniform(rng, 20, 5_000);
                match rng.random_range(0..10) {
                    _ if read => match rng.random_range(0..5) {
                        0 => Op::PTtl,
                        _ => Op::Get,
                    },
                    0..=3 => Op::SetPx(value, ms),
                    4 | 5 => Op::SetNxPxGet(value, ms),
                    6 => Op::GetEx(ms),
                    7 => Op::PExpire(ms),
                    8 => Op::Set(value),
                    _ => Op::GetDel,
                }
            }
            Kind::Pair if read => Op::PairGet,
            Kind::Pair => Op::PairSet(value),
            Kind::Item if read => Op::Item(ItemOp::Get),
            Kind::Item => Op::Item(match rng.random_range(0..10) {
                0 | 1 => ItemOp::Add(1),
                2..=4 => ItemOp::Once(1, format!("{client}.{n}")),
                _ => match self.seen.get(&(client, self.keys[i].name.clone())) {
                    None => ItemOp::Get,
                    Some(seen) => ItemOp::Swap {
                        from: *seen,
                        to: seen.unwrap_or(0) + 1,
                    },
                },
            }),
        };
        (i, op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_and_all_operations_occur() {
        let mut values = std::collections::BTreeSet::new();
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut workload = Workload::draw(seed);
            let mut rng = stream(seed, "client");
            values.clear();
            for _ in 0..500 {
                let (_, op) = workload.next(&mut rng, 3);
                let text = format!("{op:?}");
                kinds.insert(text.split('(').next().unwrap_or_default().to_string());
                if let Some(v) = op.value() {
                    assert!(values.insert(v.clone()), "{v:?} twice");
                }
            }
        }
        assert_eq!(kinds.len(), 19, "{kinds:?}");
    }
}
