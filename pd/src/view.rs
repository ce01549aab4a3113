//! The cluster at one instant, as the schedulers and the planner see it.
//!
//! Everything that is under way counts as arrived: a range with an operator has the leader and
//! the replicas that the operator aims at. What is decided next then never doubles it.

use crate::config::{Config, ReplicationFactor};
use crate::operator::{Goal, Proposal, Scheduler};
use bytes::Bytes;
use rangekv_proto::PLACEMENT_RANGE;
use rangekv_proto::{RangeDescriptor, RangeId, Replica, ReplicaId, ReplicaRole, StoreId};
use std::collections::{BTreeMap, BTreeSet};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Every store that is registered and not removed, and those that hold replicas and have
    /// not registered yet.
    pub stores: Vec<StoreView>,
    /// Every range known, in key order.
    pub ranges: Vec<RangeView>,
    /// Limits and tolerances.
    pub config: Config,
}

/// A store, to a scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreView {
    /// The store.
    pub id: StoreId,
    /// For the reasons.
    pub name: String,
    /// It reported not long ago.
    pub live: bool,
    /// It has been silent for so long that its replicas are given up.
    pub lost: bool,
    /// It is to be emptied.
    pub draining: bool,
    /// Its disk is too full to take more.
    pub full: bool,
    /// It is a placement node: it may hold range 1, and nothing else.
    pub placement: bool,
}

/// A range, to a scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeView {
    /// Its descriptor.
    pub range: RangeDescriptor,
    /// Who leads it; `None` if nobody says so.
    pub leader: Option<StoreId>,
    /// What the operator that is under way aims at.
    pub goal: Option<Goal>,
    /// Who decided that operator.
    pub goal_of: Option<Scheduler>,
    /// Its leader was moved not long ago: leave it, unless there is need.
    pub cooling: bool,
    /// An operator failed on it not long ago: leave it.
    pub backing_off: bool,
    /// A person moved it not long ago: only repair it.
    pub held: bool,
    /// Its bounds changed not long ago.
    pub reshaped: bool,
    /// Replicas that lag or are down, as its leader says.
    pub lagging: BTreeSet<ReplicaId>,
    /// Approximate bytes.
    pub size_bytes: u64,
    /// Reads per second, averaged.
    pub reads: u64,
    /// Writes per second, averaged.
    pub writes: u64,
    /// A key that divides its load; empty if there is none.
    pub load_key: Bytes,
    /// Its load has been above `range-split-qps` for long.
    pub hot: bool,
}

impl ClusterView {
    /// The view once `proposals` are under way.
    pub fn assume(&mut self, proposals: &[Proposal]) {
        for proposal in proposals {
            let mut ranges = self.ranges.iter_mut();
            if let Some(range) = ranges.find(|r| r.range.id == proposal.range) {
                range.goal = Some(proposal.goal.clone());
                range.goal_of = Some(proposal.scheduler);
            }
        }
    }

    /// A store that was not removed.
    pub fn store(&self, id: StoreId) -> Option<&StoreView> {
        find(&self.stores, id)
    }

    /// A range by its id.
    pub fn range(&self, id: RangeId) -> Option<&RangeView> {
        self.ranges.iter().find(|r| r.range.id == id)
    }

    /// What people call a store.
    pub fn name(&self, id: StoreId) -> String {
        name(&self.stores, id)
    }

    /// Whether what `store` holds must be made anew elsewhere.
    pub fn is_lost(&self, store: StoreId) -> bool {
        self.store(store).is_none_or(|s| s.lost)
    }

    /// Whether `store` is to be emptied.
    pub fn is_draining(&self, store: StoreId) -> bool {
        self.store(store).is_some_and(|s| s.draining)
    }

    /// Stores that may be given leaders.
    pub fn can_lead(&self) -> impl Iterator<Item = StoreId> + '_ {
        let able = self.stores.iter().filter(|s| s.live && !s.draining);
        able.map(|s| s.id)
    }

    /// Stores that hold data: all but placement nodes.
    pub fn data_stores(&self) -> impl Iterator<Item = &StoreView> + '_ {
        self.stores.iter().filter(|s| !s.placement)
    }

    /// Stores that may be given leaders of data ranges.
    pub fn can_lead_data(&self) -> impl Iterator<Item = StoreId> + '_ {
        let able = self.data_stores().filter(|s| s.live && !s.draining);
        able.map(|s| s.id)
    }

    /// Whether range 1 belongs on placement nodes: there are some, and not all are to be emptied.
    /// That they are silent, or lost, changes nothing.
    pub fn has_placement_nodes(&self) -> bool {
        self.stores.iter().any(|s| s.placement && !s.draining)
    }

    /// Whether a replica of `range` belongs on `store`, as far as what the store is for goes. A
    /// placement node holds no data, and range 1 lies on placement nodes as soon as there are
    /// any.
    pub fn belongs(&self, range: RangeId, store: StoreId) -> bool {
        // What was removed is gone from everywhere alike.
        let Some(placement) = self.store(store).map(|s| s.placement) else {
            return true;
        };
        match range == PLACEMENT_RANGE {
            true => placement || !self.has_placement_nodes(),
            false => !placement,
        }
    }

    /// The stores among which `range` has its voters, as far as its size goes: those on which it
    /// belongs, and while range 1 is on its way to the placement nodes, all.
    fn homes(&self, range: &RangeView) -> impl Iterator<Item = &StoreView> + '_ {
        let id = range.range.id;
        let all = id == PLACEMENT_RANGE && !range.voters().all(|r| self.belongs(id, r.store));
        let stores = self.stores.iter();
        stores.filter(move |s| all || self.belongs(id, s.id))
    }

    /// Leaders per store, as if all that is under way had arrived. Stores that lead nothing
    /// stand at 0.
    pub fn leaders(&self) -> BTreeMap<StoreId, u64> {
        self.count(|range| range.expected_leader().into_iter().collect())
    }

    /// Replicas per store, as if all that is under way had arrived.
    pub fn replicas(&self) -> BTreeMap<StoreId, u64> {
        self.count(|range| range.expected_replicas().into_iter().collect())
    }

    /// Replicas per store that are being made there.
    pub fn arriving(&self) -> BTreeMap<StoreId, u64> {
        self.count(RangeView::arriving)
    }

    /// Transfers of leaders that may be begun, beside those under way.
    pub fn transfers_left(&self) -> u64 {
        let moving = |r: &&RangeView| matches!(r.goal, Some(Goal::Lead(_)));
        let moving = self.ranges.iter().filter(moving).count() as u64;
        self.config.leader_transfers_max.saturating_sub(moving)
    }

    fn count(&self, on: impl Fn(&RangeView) -> Vec<StoreId>) -> BTreeMap<StoreId, u64> {
        let mut counts: BTreeMap<StoreId, u64> = self.stores.iter().map(|s| (s.id, 0)).collect();
        for store in self.ranges.iter().flat_map(on) {
            if let Some(count) = counts.get_mut(&store) {
                *count += 1;
            }
        }
        counts
    }

    /// How many voters `range` should have: odd, and at most one per store.
    ///
    /// Stores that are down count, so that losing one never shrinks a range. Stores that drain
    /// don't, but by draining alone no range falls below three; nor does range 1 by moving to
    /// placement nodes. Only stores on which the range belongs count.
    pub fn target(&self, range: &RangeView) -> usize {
        let factor = match range.range.id == PLACEMENT_RANGE {
            true => match self.config.placement_replicas {
                Some(factor) => factor,
                // By hand: as many as there are.
                None => return range.voters().count().max(1),
            },
            false => self.config.replication_factor,
        };
        let id = range.range.id;
        let all = self.homes(range).count();
        let staying = self.stores.iter().filter(|s| !s.draining);
        let staying = staying.filter(|s| self.belongs(id, s.id)).count();
        let least = factor.replicas(all).min(3);
        factor.replicas(staying).max(least)
    }

    /// Whether voters of a range may be given up because there are more than its target: not
    /// down to fewer than three, unless one was asked for or there is only one store.
    pub fn may_shrink_to(&self, range: &RangeView, target: usize) -> bool {
        let one = self.config.replication_factor == ReplicationFactor::Fixed(1);
        target >= 3 || one || self.homes(range).count() == 1
    }
}

/// The store `id` of `stores`.
pub fn find(stores: &[StoreView], id: StoreId) -> Option<&StoreView> {
    stores.iter().find(|s| s.id == id)
}

/// What people call store `id`; by its number if it was removed.
pub fn name(stores: &[StoreView], id: StoreId) -> String {
    match find(stores, id) {
        Some(store) => store.name.clone(),
        None => format!("store {id} (removed)"),
    }
}

impl RangeView {
    /// Whether what is under way may be stopped for something more urgent.
    pub fn goal_can_wait(&self) -> bool {
        self.goal_of.is_some_and(Scheduler::can_wait)
    }

    /// Who leads it once what is under way has arrived.
    pub fn expected_leader(&self) -> Option<StoreId> {
        match &self.goal {
            Some(Goal::Lead(to)) => Some(*to),
            _ => self.leader,
        }
    }

    /// Who votes once what is under way has arrived.
    pub fn expected_voters(&self) -> BTreeSet<StoreId> {
        match &self.goal {
            Some(Goal::Place { voters, .. }) => voters.clone(),
            _ => self.voters().map(|r| r.store).collect(),
        }
    }

    /// Who holds a replica once what is under way has arrived.
    pub fn expected_replicas(&self) -> BTreeSet<StoreId> {
        match &self.goal {
            Some(Goal::Place { voters, learners }) => voters | learners,
            _ => self.range.replicas.iter().map(|r| r.store).collect(),
        }
    }

    /// Stores on which a replica is being made.
    pub fn arriving(&self) -> Vec<StoreId> {
        let Some(Goal::Place { voters, learners }) = &self.goal else {
            return Vec::new();
        };
        let there = |s: &StoreId| {
            let replica = self.range.replica_on(*s);
            replica.is_some_and(|r| r.role != ReplicaRole::Learner || !self.lagging.contains(&r.id))
        };
        voters
            .union(learners)
            .filter(|s| !there(s))
            .copied()
            .collect()
    }

    /// Those that vote, or will once a joint configuration is left.
    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        let votes =
            |r: &&Replica| matches!(r.role, ReplicaRole::Voter | ReplicaRole::IncomingVoter);
        self.range.replicas.iter().filter(votes)
    }

    /// Those that don't vote.
    pub fn learners(&self) -> impl Iterator<Item = &Replica> {
        let all = self.range.replicas.iter();
        all.filter(|r| r.role == ReplicaRole::Learner)
    }

    /// Whether the replica on `store` keeps up and its store lives.
    pub fn is_healthy(&self, stores: &[StoreView], store: StoreId) -> bool {
        find(stores, store).is_some_and(|s| s.live)
            && self
                .range
                .replica_on(store)
                .is_some_and(|r| !self.lagging.contains(&r.id))
    }
}
