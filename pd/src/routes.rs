//! What is known of the ranges: descriptors and leaders, merged from whoever tells of them.
//!
//! The placement driver's leader fills one from heartbeats; every store fills one from the
//! replies. Both merge by the same rules, and whatever the order in which old and new reports
//! arrive, once every range's latest has arrived exactly those are left:
//! - Of two descriptors of one range the one with the greater epoch stays. Greater means that
//!   neither part is less: a split raises `version` while a membership change raises
//!   `conf_version`, and a mixture of the two is never true.
//! - Of two ranges that overlap the one with the greater `version` stays, then the one with the
//!   greater `conf_version`. A split and a merge give what they make a greater version than
//!   what they replace, so this removes parents and merged neighbours.
//! - Of two leaders of one range the one with the greater term stays, whatever the descriptors:
//!   a new leader may not have applied yet what the old one reported.
//!
//! Invariants ([`Routes::check_invariants`]): the ranges are disjoint; each carries its own sequence
//! number, at most [`Routes::seq`], which grows with every change. Gaps between ranges are
//! possible, until those who lead there have reported.

use bytes::Bytes;
use rangekv_proto::{Epoch, LeaderHint, RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// A range, and who leads it as far as is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The range.
    pub range: RangeDescriptor,
    /// The leader of the greatest term heard of.
    pub leader: Option<LeaderHint>,
}

/// Disjoint ranges by id, start key, and order of change.
#[derive(Clone, Default, Debug)]
pub struct Routes {
    ranges: BTreeMap<RangeId, (u64, Route)>,
    by_start: BTreeMap<Bytes, RangeId>,
    by_seq: BTreeMap<u64, RangeId>,
    seq: u64,
}

/// What came of [`Routes::merge`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// The route of the range is another one now.
    pub changed: bool,
    /// Overlapping ranges that it removed.
    pub superseded: Vec<RangeId>,
    /// Why a descriptor was not taken; `None` if it was, or was known.
    pub stale: Option<Stale>,
}

/// Why a descriptor tells of the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// It holds no key.
    Empty,
    /// A part of its epoch is less than the known one of the same range.
    Epoch(Epoch),
    /// This range overlaps it, and has the greater epoch.
    Overlap(RangeId),
}

impl Routes {
    /// Takes in `range` and `leader` as far as they are news.
    pub fn merge(&mut self, range: &RangeDescriptor, leader: Option<LeaderHint>) -> Merged {
        let mut merged = Merged::default();
        let known = self.ranges.get(&range.id).map(|(_, route)| route);
        let mut route = match (known, self.staleness(range)) {
            // Of a stale descriptor at least the leader may be news.
            (Some(known), Some(stale)) => {
                merged.stale = Some(stale);
                known.clone()
            }
            (None, Some(stale)) => {
                return Merged {
                    stale: Some(stale),
                    ..merged
                }
            }
            // An epoch stands for one descriptor: there is nothing to compare.
            (Some(known), None) if known.range.epoch == range.epoch => known.clone(),
            (Some(known), None) => Route {
                range: range.clone(),
                leader: known.leader,
            },
            (None, None) => Route {
                range: range.clone(),
                leader: None,
            },
        };
        if leader.map_or(0, |l| l.term) > route.leader.map_or(0, |l| l.term) {
            route.leader = leader;
        }
        if known == Some(&route) {
            return merged;
        }
        for id in self.overlapping(&route.range) {
            if id != range.id {
                merged.superseded.push(id);
            }
            self.remove(id);
        }
        // Also when the new bounds don't overlap the old ones.
        self.remove(range.id);
        self.seq += 1;
        self.by_seq.insert(self.seq, range.id);
        self.by_start.insert(route.range.start.clone(), range.id);
        self.ranges.insert(range.id, (self.seq, route));
        merged.changed = true;
        if cfg!(debug_assertions) && self.ranges.len() < 64 {
            self.check_invariants();
        }
        merged
    }

    /// The route of the range that holds `key`.
    pub fn lookup(&self, key: &[u8]) -> Option<&Route> {
        let (_, id) = self
            .by_start
            .range::<[u8], _>((Unbounded, Included(key)))
            .next_back()?;
        self.get(*id).filter(|route| route.range.contains(key))
    }

    /// The route of range `id`.
    pub fn get(&self, id: RangeId) -> Option<&Route> {
        self.ranges.get(&id).map(|(_, route)| route)
    }

    /// All routes, in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.by_start.values().map(|id| &self.ranges[id].1)
    }

    /// Routes that changed after `seq`, the oldest change first; 0 = all.
    pub fn changed_since(&self, seq: u64) -> impl Iterator<Item = &Route> {
        self.by_seq
            .range((Excluded(seq), Unbounded))
            .map(|(_, id)| &self.ranges[id].1)
    }

    /// Number of changes so far.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether no range is known.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Asserts what the module's page promises.
    pub fn check_invariants(&self) {
        assert_eq!(self.by_start.len(), self.ranges.len());
        assert_eq!(self.by_seq.len(), self.ranges.len());
        for (id, (seq, route)) in &self.ranges {
            assert_eq!(*id, route.range.id);
            assert_eq!(self.by_start.get(&route.range.start), Some(id));
            assert_eq!(self.by_seq.get(seq), Some(id));
            assert!(
                *seq <= self.seq,
                "route of range {id} has seq {seq} > {}",
                self.seq
            );
        }
        let routes: Vec<_> = self.iter().collect();
        for pair in routes.windows(2) {
            let (left, right) = (&pair[0].range, &pair[1].range);
            assert!(!left.overlaps(right), "{left:?} overlaps {right:?}");
        }
    }

    fn staleness(&self, range: &RangeDescriptor) -> Option<Stale> {
        if !range.end.is_empty() && range.start >= range.end {
            return Some(Stale::Empty);
        }
        if let Some(known) = self.get(range.id) {
            let (known, new) = (known.range.epoch, range.epoch);
            if new.version < known.version || new.conf_version < known.conf_version {
                return Some(Stale::Epoch(known));
            }
            if new == known {
                return None;
            }
        }
        let rank = |d: &RangeDescriptor| (d.epoch.version, d.epoch.conf_version);
        self.overlapping(range)
            .into_iter()
            .find(|id| *id != range.id && rank(&self.ranges[id].1.range) >= rank(range))
            .map(Stale::Overlap)
    }

    fn overlapping(&self, range: &RangeDescriptor) -> Vec<RangeId> {
        let start = &range.start[..];
        let before = self
            .by_start
            .range::<[u8], _>((Unbounded, Excluded(start)))
            .next_back();
        let from = self.by_start.range::<[u8], _>((Included(start), Unbounded));
        before
            .into_iter()
            .chain(from.take_while(|(start, _)| range.end.is_empty() || *start < &range.end))
            .map(|(_, id)| *id)
            .filter(|id| self.ranges[id].1.range.overlaps(range))
            .collect()
    }

    fn remove(&mut self, id: RangeId) {
        if let Some((seq, route)) = self.ranges.remove(&id) {
            self.by_seq.remove(&seq);
            self.by_start.remove(&route.range.start);
        }
    }
}

#[cfg(test)]
#[path = "routes_test.rs"]
mod tests;
