//! Which stores should hold a range: what the schedulers that change members have in common.

use crate::view::{ClusterView, RangeView};
use rangekv_proto::{ReplicaRole, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Why a store isn't given a replica of a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// It has one.
    Holds,
    /// A placement node, or range 1 belongs on those.
    Role,
    /// It has not reported for a while.
    Silent,
    /// It is to be emptied.
    Draining,
    /// Its disk is too full.
    Full,
    /// It is receiving as many as it may.
    Busy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holding one already",
            Self::Role => "not for this range",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::Full => "short of disk",
            Self::Busy => "receiving as many as it may",
        })
    }
}

/// Chooses stores for replicas; knows how many each holds and receives.
#[derive(Debug)]
pub struct Chooser<'a> {
    view: &'a ClusterView,
    replicas: BTreeMap<StoreId, u64>,
    arriving: BTreeMap<StoreId, u64>,
}

impl<'a> Chooser<'a> {
    /// Over `view`.
    pub fn new(view: &'a ClusterView) -> Self {
        Chooser {
            view,
            replicas: view.replicas(),
            arriving: view.arriving(),
        }
    }

    /// What keeps `store` from being given a voter of `range` beside `taken`. A learner that is
    /// there already is no obstacle: it is made a voter.
    pub fn refusal(
        &self,
        range: &RangeView,
        taken: &BTreeSet<StoreId>,
        store: StoreId,
    ) -> Option<Refusal> {
        let s = self.view.store(store)?;
        let learner = has_learner(range, store);
        if taken.contains(&store) || (range.range.replica_on(store).is_some() && !learner) {
            return Some(Refusal::Holds);
        }
        let arriving = self.arriving.get(&store).copied().unwrap_or(0);
        match s {
            _ if !self.view.belongs(range.range.id, store) => Some(Refusal::Role),
            _ if !s.live => Some(Refusal::Silent),
            _ if s.draining => Some(Refusal::Draining),
            _ if learner => None,
            _ if s.full => Some(Refusal::Full),
            _ if arriving >= self.view.config.store_snapshots_max => Some(Refusal::Busy),
            _ => None,
        }
    }

    /// The store that should be given a voter of `range` beside `taken`: one that has a learner,
    /// else the one that holds least. The error says what is wrong with the others.
    pub fn choose(
        &self,
        range: &RangeView,
        taken: &BTreeSet<StoreId>,
    ) -> Result<StoreId, BTreeMap<StoreId, Refusal>> {
        let mut refusals = BTreeMap::new();
        let free = self.view.stores.iter().map(|s| s.id).filter(|s| {
            let refusal = self.refusal(range, taken, *s);
            if let Some(refusal) = refusal {
                refusals.insert(*s, refusal);
            }
            refusal.is_none()
        });
        let best = free.min_by_key(|s| (!has_learner(range, *s), self.replicas[s], *s));
        best.ok_or(refusals)
    }

    /// Counts a replica of `range` that is to be made on `store`.
    pub fn take(&mut self, range: &RangeView, store: StoreId) {
        *self.replicas.entry(store).or_default() += 1;
        if !has_learner(range, store) {
            *self.arriving.entry(store).or_default() += 1;
        }
    }

    /// "n1 and n2 holding one already, n4 silent".
    pub fn explain(&self, refusals: &BTreeMap<StoreId, Refusal>) -> String {
        let mut by_kind: BTreeMap<Refusal, Vec<String>> = BTreeMap::new();
        for (store, refusal) in refusals {
            let name = self.view.name(*store);
            by_kind.entry(*refusal).or_default().push(name);
        }
        let parts: Vec<String> = by_kind
            .iter()
            .map(|(refusal, names)| format!("{} {refusal}", names.join(" and ")))
            .collect();
        parts.join(", ")
    }

    /// How gladly the voter of `range` on `store` is given up; the greatest goes first.
    fn dispensable(&self, range: &RangeView, store: StoreId) -> impl Ord {
        let lost = self.view.is_lost(store);
        let draining = self.view.is_draining(store);
        let silent = !self.view.store(store).is_some_and(|s| s.live);
        let lagging = !range.is_healthy(&self.view.stores, store);
        let leads = range.expected_leader() == Some(store);
        let held = self.replicas.get(&store).copied().unwrap_or(0);
        (lost, silent, draining, lagging, !leads, held, store)
    }

    /// `voters` without those too many for `most`.
    pub fn trim(
        &self,
        range: &RangeView,
        mut voters: BTreeSet<StoreId>,
        most: usize,
    ) -> BTreeSet<StoreId> {
        while voters.len() > most.max(1) {
            let worst = voters.iter().max_by_key(|s| self.dispensable(range, **s));
            let worst = *worst.expect("more than one");
            voters.remove(&worst);
        }
        voters
    }

    /// Voters of `range` once those on `leaving` are replaced as far as there are stores for it,
    /// and what is too many is gone. The error is why nobody can be replaced.
    pub fn replace(
        &mut self,
        range: &RangeView,
        leaving: &BTreeSet<StoreId>,
    ) -> Result<BTreeSet<StoreId>, BTreeMap<StoreId, Refusal>> {
        let now: BTreeSet<StoreId> = range.voters().map(|r| r.store).collect();
        let staying: BTreeSet<StoreId> = now.difference(leaving).copied().collect();
        let target = self.view.target(range);
        let mut voters = staying.clone();
        let mut refusals = None;
        while voters.len() < target {
            let taken = &voters | leaving;
            match self.choose(range, &taken) {
                Ok(store) => {
                    self.take(range, store);
                    voters.insert(store);
                }
                Err(why) => {
                    refusals = Some(why);
                    break;
                }
            }
        }
        // Who can't be replaced stays: a place on a store that is down may come back.
        for store in leaving.intersection(&now) {
            if voters.len() < target {
                voters.insert(*store);
            }
        }
        if self.view.may_shrink_to(range, target) {
            voters = self.trim(range, voters, target);
        }
        match refusals {
            Some(why) if voters == now => Err(why),
            _ => Ok(voters),
        }
    }
}

/// Whether there is a learner of `range` on `store`.
pub fn has_learner(range: &RangeView, store: StoreId) -> bool {
    let replica = range.range.replica_on(store);
    replica.is_some_and(|r| r.role == ReplicaRole::Learner)
}

/// Whether a repair may be ordered: somebody leads, nothing more urgent is under way, nothing
/// failed just now.
pub fn is_free(range: &RangeView) -> bool {
    range.leader.is_some() && !range.backing_off && (range.goal.is_none() || range.goal_can_wait())
}
