//! Where leaders should be: pure functions from a view of the cluster to operators.
//!
//! Each scheduler answers with operators, and with reasons: why it did no more. They run in
//! order, the more urgent first, and each sees what those before it ordered. All go by these
//! rules:
//! - At most one operator per range, and none for a range that cools down or is joint.
//! - A leader goes only to a voter that doesn't lag, on a store that lives and isn't draining.
//! - The same view gives the same answer; ties fall to the lesser id.

pub mod balance_leaders;
pub mod evict_leaders;

use crate::config::Config;
use rangekv_proto::{Epoch, RangeDescriptor, RangeId, ReplicaId, ReplicaRole, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The cluster at one instant.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Every store that is registered and not removed.
    pub stores: Vec<StoreView>,
    /// Every range known.
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
    /// It is to be emptied.
    pub draining: bool,
}

/// A range, to a scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeView {
    /// Its descriptor.
    pub range: RangeDescriptor,
    /// Who leads it; `None` if nobody says so.
    pub leader: Option<StoreId>,
    /// Where its leader was told to move, and has not been seen yet.
    pub moving_to: Option<StoreId>,
    /// It was moved not long ago, and is to be left alone.
    pub cooling: bool,
    /// Replicas that lag or are down.
    pub lagging: BTreeSet<ReplicaId>,
}

/// An intent for the leader of a range. Valid for one epoch; carried out twice, it does no more
/// than once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    /// The range.
    pub range: RangeId,
    /// By which it was decided.
    pub epoch: Epoch,
    /// What to do.
    pub step: Step,
    /// Why, for people.
    pub reason: String,
}

/// What an operator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Leadership goes to this store.
    TransferLeader(StoreId),
}

/// Why a scheduler does nothing, or no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Its name.
    pub scheduler: &'static str,
    /// For people.
    pub text: String,
}

/// One round of all schedulers.
pub fn schedule(view: &ClusterView) -> (Vec<Operator>, Vec<Reason>) {
    let mut view = view.clone();
    let (mut operators, mut reasons) = evict_leaders::schedule(&view);
    view.assume(&operators);
    view.config.leader_transfers_max -= operators.len() as u64;
    let (more, why) = balance_leaders::schedule(&view);
    operators.extend(more);
    reasons.extend(why);
    (operators, reasons)
}

/// Why a range's leader can't go to a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Obstacle {
    /// A membership change is half done.
    Joint,
    /// Moved not long ago.
    Cooling,
    /// No voter there.
    NoVoter,
    /// The voter there lags or is down.
    Lagging,
    /// Range 1 is not moved for balance: its leader would have to learn everything anew.
    Placement,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joint => "in a membership change",
            Self::Cooling => "cooling down",
            Self::NoVoter => "without a voter there",
            Self::Lagging => "lagging there",
            Self::Placement => "the placement driver's own",
        })
    }
}

impl ClusterView {
    /// The view once `operators` are under way.
    pub fn assume(&mut self, operators: &[Operator]) {
        let moved: BTreeMap<RangeId, StoreId> = operators
            .iter()
            .map(|operator| {
                let Step::TransferLeader(to) = operator.step;
                (operator.range, to)
            })
            .collect();
        for range in &mut self.ranges {
            if let Some(&to) = moved.get(&range.range.id) {
                range.moving_to = Some(to);
                range.cooling = true;
            }
        }
    }

    /// Leaders per store, as if all that is under way had arrived. Stores that lead nothing
    /// stand at 0.
    pub fn leaders(&self) -> BTreeMap<StoreId, u64> {
        let mut leaders: BTreeMap<StoreId, u64> = self.stores.iter().map(|s| (s.id, 0)).collect();
        for range in &self.ranges {
            if let Some(count) = range.expected_leader().and_then(|s| leaders.get_mut(&s)) {
                *count += 1;
            }
        }
        leaders
    }

    /// Stores that may be given leaders.
    fn targets(&self) -> impl Iterator<Item = StoreId> + '_ {
        self.stores
            .iter()
            .filter(|s| s.live && !s.draining)
            .map(|s| s.id)
    }

    fn name(&self, store: StoreId) -> &str {
        self.stores
            .iter()
            .find(|s| s.id == store)
            .map_or("?", |s| &s.name)
    }
}

impl RangeView {
    /// Who leads it once what is under way has arrived.
    pub fn expected_leader(&self) -> Option<StoreId> {
        self.moving_to.or(self.leader)
    }

    /// What keeps the leader from going to `store`, which lives and isn't draining.
    pub fn obstacle(&self, store: StoreId) -> Option<Obstacle> {
        if self.range.is_joint() {
            return Some(Obstacle::Joint);
        }
        if self.cooling {
            return Some(Obstacle::Cooling);
        }
        match self.range.replica_on(store) {
            Some(r) if r.role != ReplicaRole::Voter => Some(Obstacle::NoVoter),
            Some(r) if self.lagging.contains(&r.id) => Some(Obstacle::Lagging),
            Some(_) => None,
            None => Some(Obstacle::NoVoter),
        }
    }

    fn transfer(&self, to: StoreId, reason: String) -> Operator {
        Operator {
            range: self.range.id,
            epoch: self.range.epoch,
            step: Step::TransferLeader(to),
            reason,
        }
    }
}

/// "3 cooling down, 1 lagging there".
fn tally(obstacles: impl Iterator<Item = Obstacle>) -> String {
    let mut counts: BTreeMap<Obstacle, usize> = BTreeMap::new();
    obstacles.for_each(|o| *counts.entry(o).or_default() += 1);
    let parts: Vec<String> = counts.iter().map(|(o, n)| format!("{n} {o}")).collect();
    parts.join(", ")
}
