//! Where leaders and replicas should be: pure functions from a view of the cluster to proposals.
//!
//! One file per scheduler. Each answers with proposals, and with reasons: why it did no more.
//! They run in order of urgency, and each sees what those before it proposed as done.
//! All go by these rules:
//! - At most one operator per range. A repair takes the place of one that only evens out.
//! - A leader goes only to a voter that doesn't lag, on a store that lives and isn't draining.
//! - A replica goes only to a store that lives, isn't draining, has room, and isn't receiving
//!   as many as it may already.
//! - While something is to be repaired, nothing is moved to even out.
//! - The same view gives the same answer; ties fall to the lesser id.

pub mod members;

pub mod add_missing;
pub mod finish_joint;
pub mod remove_extra;
pub mod replace_lost;

pub mod drain_replicas;
pub mod evict_leaders;

pub mod merge_ranges;
pub mod split_ranges;

pub mod balance_leaders;
pub mod balance_replicas;
pub mod spread_hot_leaders;

use crate::operator::{Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{RangeId, ReplicaRole, StoreId};
use std::collections::BTreeMap;
use std::fmt;

/// Reasons about single ranges that one scheduler gives in one round, at most.
pub const RANGE_REASONS_MAX: usize = 64;

/// Why a scheduler does nothing, or no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Who.
    pub scheduler: Scheduler,
    /// About one range, if so.
    pub range: Option<RangeId>,
    /// For people.
    pub text: String,
}

/// What one scheduler came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// What it wants done.
    pub proposals: Vec<Proposal>,
    /// Why no more.
    pub reasons: Vec<Reason>,
}

/// One round of all schedulers, in order of urgency.
pub fn schedule(view: &ClusterView) -> Vec<(Scheduler, Verdict)> {
    let mut view = view.clone();
    let mut round = Vec::new();
    for scheduler in Scheduler::ALL {
        let verdict = match scheduler.setting() {
            Some(setting) if !view.config.is_on(setting) => {
                Verdict::quiet(scheduler, format!("switched off by {setting}"))
            }
            _ => run(scheduler, &view),
        };
        view.assume(&verdict.proposals);
        round.push((scheduler, verdict));
    }
    round
}

fn run(scheduler: Scheduler, view: &ClusterView) -> Verdict {
    match scheduler {
        // People decide outside of rounds.
        Scheduler::Manual => Verdict::default(),
        Scheduler::FinishJoint => finish_joint::schedule(view),
        Scheduler::ReplaceLost => replace_lost::schedule(view),
        Scheduler::AddMissing => add_missing::schedule(view),
        Scheduler::RemoveExtra => remove_extra::schedule(view),
        Scheduler::EvictLeaders => evict_leaders::schedule(view),
        Scheduler::DrainReplicas => drain_replicas::schedule(view),
        Scheduler::SplitRanges => split_ranges::schedule(view),
        Scheduler::MergeRanges => merge_ranges::schedule(view),
        Scheduler::BalanceLeaders => balance_leaders::schedule(view),
        Scheduler::BalanceReplicas => balance_replicas::schedule(view),
        Scheduler::SpreadHotLeaders => spread_hot_leaders::schedule(view),
    }
}

impl Verdict {
    /// Nothing, because of `text`.
    pub fn quiet(scheduler: Scheduler, text: impl Into<String>) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.because(scheduler, text);
        verdict
    }

    fn because(&mut self, scheduler: Scheduler, text: impl Into<String>) {
        self.reasons.push(Reason {
            scheduler,
            range: None,
            text: text.into(),
        });
    }

    fn because_of(&mut self, scheduler: Scheduler, range: RangeId, text: impl Into<String>) {
        if self.reasons.len() < RANGE_REASONS_MAX {
            self.reasons.push(Reason {
                scheduler,
                range: Some(range),
                text: text.into(),
            });
        }
    }
}

/// Why a range's leader can't go to a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Obstacle {
    /// A membership change is half done.
    Joint,
    /// An operator is under way.
    UnderWay,
    /// Moved, or failed to, not long ago.
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
            Self::UnderWay => "under way",
            Self::Cooling => "cooling down",
            Self::NoVoter => "without a voter there",
            Self::Lagging => "lagging there",
            Self::Placement => "the placement driver's own",
        })
    }
}

impl RangeView {
    /// What keeps the leader from going to `store`, which lives and isn't draining.
    pub fn obstacle(&self, store: StoreId) -> Option<Obstacle> {
        if self.range.is_joint() {
            return Some(Obstacle::Joint);
        }
        if self.goal.is_some() {
            return Some(Obstacle::UnderWay);
        }
        if self.cooling || self.backing_off || self.held {
            return Some(Obstacle::Cooling);
        }
        match self.range.replica_on(store) {
            Some(r) if r.role != ReplicaRole::Voter => Some(Obstacle::NoVoter),
            Some(r) if self.lagging.contains(&r.id) => Some(Obstacle::Lagging),
            Some(_) => None,
            None => Some(Obstacle::NoVoter),
        }
    }
}

/// "3 cooling down, 1 lagging there".
fn tally<T: Ord + fmt::Display>(obstacles: impl Iterator<Item = T>) -> String {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    obstacles.for_each(|o| *counts.entry(o).or_default() += 1);
    let parts: Vec<String> = counts.iter().map(|(o, n)| format!("{n} {o}")).collect();
    parts.join(", ")
}
