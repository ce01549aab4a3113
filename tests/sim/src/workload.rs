//! What clients ask for: a few contended keys, each of one kind, with unique values.

use crate::history::Op;
use crate::random::{log_uniform, stream};
use crate::schedule::{Time, MS};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_model::redis::keys::record_key;

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
}

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

/// See the module's documentation.
pub struct Workload {
    /// All keys.
    pub keys: Vec<Key>,
    /// Number of clients.
    pub clients: usize,
    /// Mean pause of a client between two operations.
    pub think_mean: Time,
    read_share: f64,
    /// Share of operations that go to the first key.
    hot_share: f64,
    written: u64,
}

impl Workload {
    /// What `seed` draws.
    pub fn draw(seed: u64) -> Workload {
        let mut rng = stream(seed, "workload");
        let count = rng.random_range(2..10);
        let only = rng.random_bool(0.3).then(|| rng.random_range(0..4));
        let kinds = [Kind::Register, Kind::Cas, Kind::Counter, Kind::Append];
        let keys = (0..count)
            .map(|n| {
                let name = Bytes::from(format!("key-{n}-{}", rng.random_range(0..1000)));
                let kind = kinds[only.unwrap_or_else(|| rng.random_range(0..4))];
                Key {
                    record: record_key(0, &name),
                    name,
                    kind,
                }
            })
            .collect();
        Workload {
            keys,
            clients: rng.random_range(3..9),
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
        }
    }

    /// The next operation of a client: a key and what to do to it.
    pub fn next(&mut self, rng: &mut SmallRng, client: u32) -> (usize, Op) {
        let i = if rng.random_bool(self.hot_share) {
            0
        } else {
            rng.random_range(0..self.keys.len())
        };
        self.written += 1;
        let n = self.written;
        let kind = self.keys[i].kind;
        // An append needs its end to be told from what follows, and the checker knows of `;`.
        let value = match kind {
            Kind::Append => Bytes::from(format!("{client}.{n};")),
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
        for seed in 0..20 {
            let mut workload = Workload::draw(seed);
            let mut rng = stream(seed, "client");
            values.clear();
            for _ in 0..500 {
                let (_, op) = workload.next(&mut rng, 3);
                let text = format!("{op:?}");
                kinds.insert(text.split('(').next().unwrap_or_default().to_string());
                if let Op::Set(v) | Op::GetSet(v) | Op::SetNx(v) | Op::SetNxGet(v) | Op::Append(v) =
                    op
                {
                    assert!(values.insert(v.clone()), "{v:?} twice");
                }
            }
        }
        assert_eq!(kinds.len(), 11, "{kinds:?}");
    }
}
