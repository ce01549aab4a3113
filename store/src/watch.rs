//! What a leader remembers of writes, for optimistic locks (`WATCH`): of each unit that is
//! watched, which evaluation wrote it last.
//!
//! Nothing of it is replicated. A [`Memory`] lives as long as its replica leads in one term, and a
//! stamp says of which range, bounds and term it is: there is one leader per term, which has
//! evaluated all writes of its term, and the bounds' version grows with each split and merge, so
//! that no unit can have been written elsewhere meanwhile. All other stamps are refused.
//!
//! Units are remembered by a hash: two of the same hash count as one, which can only make
//! conflicts that are none. So can forgetting, since a unit that is not found counts as written.

use crate::bugs::{self, Bug};
use crate::payload::Writes;
use bytes::Bytes;
use rangekv_model::eval::{Evaluator, Watches};
use rangekv_proto::RangeId;
use std::collections::BTreeMap;

/// Units that are remembered for certain. Twice as many may be, some 2 MiB.
const UNITS: usize = 1 << 15;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Memory {
    /// Number of the evaluation under way, or of the last one.
    evaluation: u64,
    /// Hashes of units, and the number of the evaluation that wrote each last, or began to watch.
    young: BTreeMap<u64, u64>,
    /// What was young before it was too much.
    old: BTreeMap<u64, u64>,
}

impl Memory {
    /// An evaluation begins.
    pub fn begin(&mut self) {
        self.evaluation += 1;
    }

    /// What an evaluation is told.
    pub fn over(&self, range: RangeId, version: u64, term: u64) -> Remembered<'_> {
        Remembered {
            memory: self,
            of: (range, version, term),
        }
    }

    /// Takes in what the evaluation wrote, and what it began to watch.
    pub fn end(&mut self, model: &dyn Evaluator, writes: &Writes, watched: Vec<Bytes>) {
        if !self.young.is_empty() || !self.old.is_empty() {
            for key in writes.keys() {
                let unit = hash(model.unit(key));
                for known in [&mut self.young, &mut self.old] {
                    if let Some(last) = known.get_mut(&unit) {
                        *last = self.evaluation;
                    }
                }
            }
        }
        for unit in watched {
            let unit = hash(&unit);
            let last = self.last(unit).unwrap_or(self.evaluation);
            if self.young.len() >= UNITS && !self.young.contains_key(&unit) {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(unit, last);
        }
    }

    fn last(&self, unit: u64) -> Option<u64> {
        self.young.get(&unit).or(self.old.get(&unit)).copied()
    }
}

/// A memory, and what it is of: range, version of the bounds, term.
pub struct Remembered<'a> {
    memory: &'a Memory,
    of: (RangeId, u64, u64),
}

impl Remembered<'_> {
    fn stamp_of(&self, evaluation: u64) -> [u8; 32] {
        let (range, version, term) = self.of;
        let mut stamp = [0; 32];
        for (part, number) in stamp
            .chunks_exact_mut(8)
            .zip([range.0, version, term, evaluation])
        {
            part.copy_from_slice(&number.to_be_bytes());
        }
        stamp
    }
}

impl Watches for Remembered<'_> {
    fn stamp(&self) -> Bytes {
        Bytes::copy_from_slice(&self.stamp_of(self.memory.evaluation))
    }

    fn unchanged(&self, unit: &[u8], stamp: &[u8]) -> bool {
        if bugs::active(Bug::WatchNotCompared) {
            return true;
        }
        let Some((of, Ok(number))) = stamp
            .split_last_chunk::<8>()
            .map(|(of, number)| (of, <[u8; 8]>::try_from(&number[..])))
        else {
            return false;
        };
        let same = of == &self.stamp_of(0)[..24];
        let last = self.memory.last(hash(unit));
        same && last.is_some_and(|last| last <= u64::from_be_bytes(number))
    }
}

/// FNV-1a (Fowler, Noll, Vo).
fn hash(unit: &[u8]) -> u64 {
    unit.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_model::eval::{Context, Txn};

    /// Its units are the first bytes of keys.
    struct Model;

    impl Evaluator for Model {
        fn evaluate(&self, _: &Context<'_>, _: &Bytes, _: &mut Txn<'_>) -> Bytes {
            Bytes::new()
        }
        fn split_key(&self, _: &[u8], _: &[u8], _: &[u8]) -> Option<Bytes> {
            None
        }
        fn unit<'k>(&self, record: &'k [u8]) -> &'k [u8] {
            &record[..1]
        }
    }

    struct Leader {
        memory: Memory,
        version: u64,
        term: u64,
    }

    impl Leader {
        fn evaluate(&mut self, written: &[&str], watched: &[&str]) -> Bytes {
            self.memory.begin();
            let stamp = self.remembered().stamp();
            let bytes = |text: &&str| Bytes::copy_from_slice(text.as_bytes());
            let writes = written.iter().map(|key| (bytes(key), None)).collect();
            let watched = watched.iter().map(bytes).collect();
            self.memory.end(&Model, &writes, watched);
            stamp
        }

        fn remembered(&self) -> Remembered<'_> {
            self.memory.over(RangeId(7), self.version, self.term)
        }

        fn unchanged(&self, unit: &str, stamp: &[u8]) -> bool {
            self.remembered().unchanged(unit.as_bytes(), stamp)
        }
    }

    fn leader() -> Leader {
        Leader {
            memory: Memory::default(),
            version: 3,
            term: 6,
        }
    }

    #[test]
    fn a_unit_is_unchanged_until_something_of_it_is_written() {
        let mut leader = leader();
        leader.evaluate(&["a", "b"], &[]);
        // A write of the watching evaluation itself came before the stamp.
        let first = leader.evaluate(&["a"], &["a", "b"]);
        leader.evaluate(&["c", "b/element"], &[]);
        assert!(leader.unchanged("a", &first) && !leader.unchanged("b", &first));
        assert!(!leader.unchanged("c", &first), "not watched");
        let second = leader.evaluate(&[], &["b"]);
        assert!(leader.unchanged("b", &second) && !leader.unchanged("b", &first));
        assert!(leader.unchanged("a", &second));
    }

    #[test]
    fn stamps_of_other_terms_and_bounds_are_refused() {
        let mut leader = leader();
        let stamp = leader.evaluate(&[], &["a"]);
        assert!(leader.unchanged("a", &stamp));
        assert!(!leader.unchanged("a", &stamp[1..]) && !leader.unchanged("a", b""));
        leader.version += 1;
        assert!(!leader.unchanged("a", &stamp));
        leader.version -= 1;
        leader.term += 1;
        assert!(!leader.unchanged("a", &stamp));
    }

    #[test]
    fn what_is_forgotten_counts_as_written() {
        let mut leader = leader();
        let first = leader.evaluate(&[], &["a"]);
        let watch_many = |leader: &mut Leader| {
            for n in 0..UNITS {
                leader.evaluate(&[], &[&format!("{n}/")]);
            }
        };
        watch_many(&mut leader);
        assert!(leader.unchanged("a", &first), "among the old ones");
        leader.evaluate(&["a"], &[]);
        assert!(!leader.unchanged("a", &first));
        let second = leader.evaluate(&[], &["a"]);
        leader.memory.old.clear();
        assert!(leader.unchanged("a", &second), "young again");
        leader.memory.young.clear();
        assert!(!leader.unchanged("a", &second));
        leader.evaluate(&[], &["a"]);
        assert!(!leader.unchanged("a", &second), "watched anew");
        assert!(leader.memory.young.len() <= UNITS && leader.memory.old.len() <= UNITS);
    }
}
