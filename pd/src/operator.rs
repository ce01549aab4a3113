//! What the placement driver does: goals, the operators that pursue them, and their steps.
//!
//! An operator is *declarative*: it holds what a range should become, not how. Its next step is
//! computed from the range as it is now ([`plan`](crate::plan)), is valid for one epoch, and does
//! no more when it is carried out twice. So it doesn't matter which steps, or which answers, are
//! lost, who else changes the range meanwhile, or that a new leader of the placement driver knows
//! no operators: it finds what is unfinished, and orders it again.

use bytes::Bytes;
use rangekv_proto::{Epoch, RangeId, Replica, StoreId};
use std::collections::BTreeSet;
use std::fmt;

/// Names an operator; unique among all terms of the placement driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct OperatorId(pub u64);

/// What a range should become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Led by this store.
    Lead(StoreId),
    /// Held by these stores and no others.
    Place {
        /// At least one.
        voters: BTreeSet<StoreId>,
        /// No store of `voters`.
        learners: BTreeSet<StoreId>,
    },
    /// Two ranges that meet at this key; empty = at one that divides the bytes.
    Split(Bytes),
    /// One with its right neighbour, which was decided when that was at this epoch.
    Merge(RangeId, Epoch),
}

/// One step towards a goal, for the leader of the range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Leadership goes to this store.
    TransferLeader(StoreId),
    /// One membership change; more than one promotion or demotion enters a joint configuration.
    Change(Vec<Change>),
    /// The joint configuration is left.
    LeaveJoint,
    /// The range is cut; empty = at a key that divides the bytes.
    Split(Bytes),
    /// The range absorbs its right neighbour, if that is at this epoch.
    Merge(RangeId, Epoch),
}

/// One member's part in a membership change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A learner there; who carries it out asks for its id.
    AddLearner(StoreId),
    /// A learner becomes a voter.
    Promote(Replica),
    /// A voter becomes a learner.
    Demote(Replica),
    /// A learner goes.
    RemoveLearner(Replica),
}

/// A step on its way to the leader of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Whose step it is.
    pub operator: OperatorId,
    /// The range.
    pub range: RangeId,
    /// By which it was decided.
    pub epoch: Epoch,
    /// What to do.
    pub step: Step,
    /// Why, for people.
    pub reason: String,
}

/// Who decides; in order of urgency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Scheduler {
    /// A person.
    Manual,
    /// Leaves joint configurations that were left behind.
    FinishJoint,
    /// Replaces replicas on stores that are gone.
    ReplaceLost,
    /// Makes up missing replicas.
    AddMissing,
    /// Removes replicas beyond the target, and orphaned learners.
    RemoveExtra,
    /// Moves leaders off draining stores.
    EvictLeaders,
    /// Moves replicas off draining stores.
    DrainReplicas,
    /// Cuts ranges that are too large or too busy.
    SplitRanges,
    /// Joins small cold neighbours.
    MergeRanges,
    /// Evens out leaders.
    BalanceLeaders,
    /// Evens out replicas.
    BalanceReplicas,
    /// Spreads the busiest leaders.
    SpreadHotLeaders,
}

impl Scheduler {
    /// Every scheduler, in order of urgency.
    pub const ALL: [Scheduler; 11] = [
        Self::FinishJoint,
        Self::ReplaceLost,
        Self::AddMissing,
        Self::RemoveExtra,
        Self::EvictLeaders,
        Self::DrainReplicas,
        Self::SplitRanges,
        Self::MergeRanges,
        Self::BalanceLeaders,
        Self::BalanceReplicas,
        Self::SpreadHotLeaders,
    ];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::FinishJoint => "finish-joint",
            Self::ReplaceLost => "replace-lost",
            Self::AddMissing => "add-missing",
            Self::RemoveExtra => "remove-extra",
            Self::EvictLeaders => "evict-leaders",
            Self::DrainReplicas => "drain-replicas",
            Self::SplitRanges => "split-ranges",
            Self::BalanceLeaders => "balance-leaders",
            Self::BalanceReplicas => "balance-replicas",
            Self::SpreadHotLeaders => "spread-hot-leaders",
            Self::MergeRanges => "merge-ranges",
        }
    }

    /// The setting that switches it off.
    pub fn setting(self) -> Option<&'static str> {
        Some(match self {
            Self::Manual => return None,
            Self::FinishJoint | Self::ReplaceLost | Self::AddMissing | Self::RemoveExtra => {
                "replica-repair"
            }
            Self::EvictLeaders | Self::DrainReplicas => "store-drain",
            Self::SplitRanges => "range-split",
            Self::BalanceLeaders => "leader-balance",
            Self::BalanceReplicas => "replica-balance",
            Self::SpreadHotLeaders => "hot-leader-spread",
            Self::MergeRanges => "range-merge",
        })
    }

    /// Whether it only evens out, or may wait for other reasons: what makes up for a fault, or
    /// empties a store, stops such an operator.
    pub fn can_wait(self) -> bool {
        matches!(
            self,
            Self::Manual
                | Self::BalanceLeaders
                | Self::BalanceReplicas
                | Self::SpreadHotLeaders
                | Self::MergeRanges
        )
    }
}

/// What a scheduler wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// The range.
    pub range: RangeId,
    /// What it should become.
    pub goal: Goal,
    /// Who wants it.
    pub scheduler: Scheduler,
    /// Why, for people.
    pub reason: String,
}

/// What a person wants of the placement driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManualOperator {
    /// The voter or learner on one store goes to another.
    MoveReplica {
        /// The range.
        range: RangeId,
        /// Has a replica.
        from: StoreId,
        /// Has none.
        to: StoreId,
    },
    /// Another store leads.
    TransferLeader {
        /// The range.
        range: RangeId,
        /// Has a voter.
        to: StoreId,
    },
    /// One more replica.
    AddReplica {
        /// The range.
        range: RangeId,
        /// Has none.
        store: StoreId,
        /// Added as a learner in any case, and promoted once it has caught up.
        voter: bool,
    },
    /// One replica less; a voter is demoted first.
    RemoveReplica {
        /// The range.
        range: RangeId,
        /// Has one.
        store: StoreId,
    },
    /// A learner becomes a voter.
    Promote {
        /// The range.
        range: RangeId,
        /// Has a learner.
        store: StoreId,
    },
    /// A voter becomes a learner.
    Demote {
        /// The range.
        range: RangeId,
        /// Has a voter.
        store: StoreId,
    },
    /// The range is cut.
    Split {
        /// The range.
        range: RangeId,
        /// Strictly inside; empty = one that divides the bytes.
        key: Bytes,
    },
    /// One range absorbs its right neighbour, once that has been moved to the same stores.
    Merge {
        /// Absorbs.
        left: RangeId,
        /// Begins where `left` ends.
        right: RangeId,
    },
}

impl ManualOperator {
    /// The range that it is for.
    pub fn range(&self) -> RangeId {
        match self {
            Self::MoveReplica { range, .. }
            | Self::TransferLeader { range, .. }
            | Self::AddReplica { range, .. }
            | Self::RemoveReplica { range, .. }
            | Self::Promote { range, .. }
            | Self::Demote { range, .. }
            | Self::Split { range, .. } => *range,
            Self::Merge { left, .. } => *left,
        }
    }
}

/// Where an operator stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Under way; what it waits for, if that is not the answer to its last step.
    Running(String),
    /// The range is what it should be.
    Done,
    /// It can't be.
    Failed(String),
    /// Nothing moved for too long; what it waited for.
    TimedOut(String),
    /// Something more urgent took its place.
    Cancelled(String),
}

/// A step that was ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepTaken {
    /// What was ordered.
    pub step: Step,
    /// Of the range, when it was.
    pub epoch: Epoch,
    /// When it was ordered first, ms of the leader's monotonic clock.
    pub ordered_ms: u64,
    /// When it was ordered last.
    pub sent_ms: u64,
    /// How often it was.
    pub sent: u32,
    /// When the range was seen changed by it.
    pub done_ms: Option<u64>,
    /// What the store that tried it said last; empty = nothing, or that it was carried out.
    pub error: String,
}

/// An operator, from its beginning to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    /// Its name.
    pub id: OperatorId,
    /// The range.
    pub range: RangeId,
    /// What it should become.
    pub goal: Goal,
    /// Who decided it.
    pub scheduler: Scheduler,
    /// Why.
    pub reason: String,
    /// Of the range when it began: a split or merge is done when it has changed.
    pub version: u64,
    /// Where it stands.
    pub progress: Progress,
    /// Ordered so far, the newest last; the last [`STEPS_KEPT_MAX`].
    pub steps: Vec<StepTaken>,
    /// When it began, ms of the leader's monotonic clock.
    pub created_ms: u64,
    /// When anything of it last changed.
    pub moved_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
}

/// Steps of one operator that are kept to be shown.
pub const STEPS_KEPT_MAX: usize = 32;

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lead(to) => write!(f, "leader to store {to}"),
            Self::Place { voters, learners } => {
                write!(f, "voters on {}", list(voters))?;
                match learners.is_empty() {
                    true => Ok(()),
                    false => write!(f, ", learners on {}", list(learners)),
                }
            }
            Self::Split(key) if key.is_empty() => f.write_str("split in halves"),
            Self::Split(key) => write!(f, "split at {}", hex(key)),
            Self::Merge(right, _) => write!(f, "absorb range {right}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TransferLeader(to) => write!(f, "transfer the leader to store {to}"),
            Self::Change(changes) => {
                let parts: Vec<String> = changes.iter().map(Change::to_string).collect();
                f.write_str(&parts.join(", "))
            }
            Self::LeaveJoint => f.write_str("leave the joint configuration"),
            Self::Split(key) if key.is_empty() => f.write_str("split in halves"),
            Self::Split(key) => write!(f, "split at {}", hex(key)),
            Self::Merge(right, _) => write!(f, "absorb range {right}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner(store) => write!(f, "add a learner on store {store}"),
            Self::Promote(r) => write!(f, "promote {} on store {}", r.id, r.store),
            Self::Demote(r) => write!(f, "demote {} on store {}", r.id, r.store),
            Self::RemoveLearner(r) => write!(f, "remove {} from store {}", r.id, r.store),
        }
    }
}

fn list(stores: &BTreeSet<StoreId>) -> String {
    let ids: Vec<String> = stores.iter().map(StoreId::to_string).collect();
    ids.join(" ")
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}
