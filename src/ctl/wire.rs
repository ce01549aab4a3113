//! What `rangekv ctl` and a store say to each other: the JSON in `CtlRequest` and `CtlReply`
//! of proto/internal.proto. Any store answers for the whole cluster.
//!
//! A refusal, which no retry would change, is `CtlReply.error`. What another store or a later
//! moment may answer is the gRPC status UNAVAILABLE: the client then asks the next endpoint.
//! Every command may be repeated.
//!
//! The replies are also what `--json` prints, so that names and units are an interface.
//! Keys are bytes, written in hex.

use serde::{Deserialize, Serialize};

/// Metadata of an UNAVAILABLE: where the placement driver's leader is.
pub const LEADER_HINT: &str = "rangekv-leader";

/// A command; each names its reply.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CtlCommand {
    /// → [`Status`]
    Status,
    /// All of the below at once, for the status page. → [`Overview`]
    Overview,
    /// → `Vec<`[`StoreInfo`]`>`, by id.
    StoreList,
    /// → [`StoreDetail`]
    StoreShow {
        /// Its id or name.
        store: String,
    },
    /// Has a store emptied, or used again. → [`Drain`]
    StoreDrain {
        /// Its id or name.
        store: String,
        /// Use it again.
        undo: bool,
    },
    /// Takes a store that is down, or holds nothing, out of the cluster for ever.
    /// → [`StoreInfo`]
    StoreRemove {
        /// Its id or name.
        store: String,
    },
    /// → `Vec<`[`RangeInfo`]`>`, in key order.
    RangeList,
    /// → [`RangeDetail`]
    RangeShow {
        /// The range's id.
        range: u64,
    },
    /// → [`SplitDone`]
    RangeSplit {
        /// The range's id; `None` = the one that holds `key`.
        range: Option<u64>,
        /// First key of the new range, in the layout of the keyspace; hex.
        key: String,
    },
    /// → [`TransferDone`], once the target leads.
    RangeTransferLeader {
        /// The range's id.
        range: u64,
        /// Id or name of the store that shall lead.
        store: String,
    },
    /// Joins a range with its right neighbour. → [`RangeInfo`]
    RangeMerge {
        /// The one on the left, which keeps its id.
        range: u64,
    },
    /// Replaces a replica. → [`Change`]
    RangeMove {
        /// The range's id.
        range: u64,
        /// Id or name of the store that has a replica.
        from: String,
        /// Id or name of the store that shall have one.
        to: String,
    },
    /// → `Vec<`[`WhyInfo`]`>`
    RangeWhy {
        /// The range's id.
        range: u64,
    },
    /// A member more of the placement driver's group. → [`Change`]
    PlacementAdd {
        /// Id or name of the store.
        store: String,
        /// Without a vote.
        learner: bool,
    },
    /// A member less. → [`Change`]
    PlacementRemove {
        /// Id or name of the store.
        store: String,
    },
    /// Has the placement driver change the members of a range. → [`OperatorInfo`], as it begins;
    /// of the change that is under way, if a person has ordered one already.
    RangeChange {
        /// The range's id.
        range: u64,
        /// How.
        change: ManualChange,
    },
    /// Under way. → `Vec<`[`OperatorInfo`]`>`
    OperatorList,
    /// Ended, the newest last. → `Vec<`[`OperatorInfo`]`>`
    OperatorHistory,
    /// Stops one. → [`OperatorInfo`]
    OperatorCancel {
        /// The operator's id.
        id: u64,
    },
    /// → `Vec<`[`SchedulerInfo`]`>`, in order of urgency.
    SchedulerList,
    /// → `Option<`[`OperatorInfo`]`>`; `None` = not known, or no longer
    OperatorShow {
        /// The operator's id.
        id: u64,
    },
    /// → `Vec<`[`Setting`]`>`, by name.
    ConfigList,
    /// → [`Setting`]
    ConfigGet {
        /// As listed by `ConfigList`.
        name: String,
    },
    /// → [`Setting`]
    ConfigSet {
        /// As listed by `ConfigList`.
        name: String,
        /// With a unit where it has one, such as `30s` or `64MiB`.
        value: String,
    },
}

impl CtlCommand {
    /// Whether it is more than a question.
    pub fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::Overview
            | Self::StoreList
            | Self::StoreShow { .. }
            | Self::RangeList
            | Self::RangeShow { .. }
            | Self::RangeWhy { .. }
            | Self::OperatorList
            | Self::OperatorHistory
            | Self::OperatorShow { .. }
            | Self::SchedulerList
            | Self::ConfigList
            | Self::ConfigGet { .. } => false,
            Self::StoreDrain { .. }
            | Self::StoreRemove { .. }
            | Self::RangeSplit { .. }
            | Self::RangeTransferLeader { .. }
            | Self::RangeMerge { .. }
            | Self::RangeMove { .. }
            | Self::RangeChange { .. }
            | Self::PlacementAdd { .. }
            | Self::PlacementRemove { .. }
            | Self::OperatorCancel { .. }
            | Self::ConfigSet { .. } => true,
        }
    }
}

/// A change of a range's members that a person orders.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ManualChange {
    /// A replica where there is none.
    Add {
        /// The store.
        store: u64,
        /// It is promoted as soon as it has caught up.
        voter: bool,
    },
    /// A learner becomes a voter.
    Promote {
        /// The store.
        store: u64,
    },
    /// A voter becomes a learner.
    Demote {
        /// The store.
        store: u64,
    },
    /// A replica goes.
    Remove {
        /// The store.
        store: u64,
    },
    /// A replica is replaced by one on another store.
    Move {
        /// Has one.
        from: u64,
        /// Has none.
        to: u64,
    },
}

/// The cluster at a glance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Status {
    /// The cluster's id, in hex.
    pub cluster: String,
    /// Grows with each change of the ranges.
    pub catalog_version: u64,
    /// Store that leads the placement driver's group; `None` = it has no leader.
    pub placement_leader: Option<u64>,
    /// Number of ranges, the placement driver's own included.
    pub ranges: u64,
    /// Those of which no leader is known.
    pub ranges_without_leader: u64,
    /// Those with fewer live voters than the replication factor asks for.
    pub ranges_under_replicated: u64,
    /// By id.
    pub stores: Vec<StoreInfo>,
}

/// The whole cluster, as the placement driver's leader or, without one, a single store sees it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Overview {
    /// The cluster and its stores. Without a `placement_leader` no figure below is known: sizes,
    /// loads and ages are 0 or absent.
    pub status: Status,
    /// In key order.
    pub ranges: Vec<RangeInfo>,
    /// Under way and ended in this term of the placement driver, the newest last.
    pub operators: Vec<OperatorInfo>,
    /// In order of urgency.
    pub schedulers: Vec<SchedulerInfo>,
    /// By name.
    pub settings: Vec<Setting>,
}

/// What the placement driver does to a range.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// Unique among all terms of the placement driver.
    pub id: u64,
    /// The range.
    pub range: u64,
    /// What the range should become.
    pub goal: String,
    /// Who decided it; `manual` = a person.
    pub scheduler: String,
    /// Why.
    pub reason: String,
    /// `running`, `done`, `failed`, `timed-out` or `cancelled`.
    pub state: String,
    /// What it waits for, or why it ended without success; empty = nothing to say.
    pub detail: String,
    /// Ordered so far, the newest last.
    pub steps: Vec<OperatorStep>,
    /// Since it began.
    pub age_ms: u64,
    /// Since it ended; `None` = it runs.
    pub ended_ms_ago: Option<u64>,
}

/// A step of an operator.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OperatorStep {
    /// What was ordered of the range's leader.
    pub step: String,
    /// How often.
    pub sent: u32,
    /// Since it was ordered first.
    pub age_ms: u64,
    /// The range was seen changed by it.
    pub done: bool,
    /// What the store that tried it said last; empty = nothing, or that it was carried out.
    pub error: String,
}

/// A scheduler, and what it said in its last round.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SchedulerInfo {
    /// Its name.
    pub name: String,
    /// Whether its setting lets it work.
    pub enabled: bool,
    /// Why it did nothing, or no more.
    pub reasons: Vec<String>,
}

/// A store.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct StoreInfo {
    /// Given by the placement driver.
    pub id: u64,
    /// Given by the operator.
    pub name: String,
    /// `up`, `draining`, `removed`, or `down`: no heartbeat for a while.
    pub state: String,
    /// `store`, or `placement node`: it holds range 1 and no data.
    #[serde(default)]
    pub role: String,
    /// For Raft, admin services and forwarding.
    pub grpc_address: String,
    /// For Redis clients.
    pub redis_address: String,
    /// For status and metrics; empty = none.
    pub http_address: String,
    /// Ranges that it leads.
    pub leaders: u64,
    /// Ranges of which it holds a replica.
    pub replicas: u64,
    /// Of its data directory.
    pub disk_used_bytes: u64,
    /// Of the file system that holds it.
    pub disk_free_bytes: u64,
    /// Since its process started; 0 = unknown.
    pub uptime_ms: u64,
    /// Since its last heartbeat reached the placement driver; `None` = it never did.
    pub heartbeat_age_ms: Option<u64>,
}

/// A store, and what it holds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct StoreDetail {
    /// The store.
    pub store: StoreInfo,
    /// If it is being emptied.
    pub drain: Option<Drain>,
    /// Ranges of which it holds a replica, in key order.
    pub ranges: Vec<RangeInfo>,
}

/// What is common to the replies about what takes its time.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Underway {
    /// Nothing goes on any more.
    pub done: bool,
    /// For people.
    pub waits_for: String,
}

/// How far a store that is being emptied has come.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The store.
    pub store: u64,
    /// Its name.
    pub name: String,
    /// It is being emptied, and not used as any other.
    pub draining: bool,
    /// Ranges that it still leads.
    pub leaders: u64,
    /// Replicas that it still holds.
    pub replicas: u64,
    /// The most that it has held since it drains.
    pub replicas_at_first: u64,
    /// It is empty, or not to be.
    pub done: bool,
    /// For people; empty when done.
    pub waits_for: String,
}

/// A change of a range's members.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As it is now.
    pub range: RangeInfo,
    /// The range is as wished.
    pub done: bool,
    /// For people; empty when done.
    pub waits_for: String,
}

/// A reason why a range is where it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct WhyInfo {
    /// Who says so.
    pub scheduler: String,
    /// About this range, not about all.
    pub about_range: bool,
    /// For people.
    pub text: String,
}

/// A range, as the placement driver knows it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RangeInfo {
    /// Also its Raft group.
    pub id: u64,
    /// First key, inclusive; empty = the beginning of the keyspace.
    pub start: String,
    /// Exclusive; empty = the end of the keyspace.
    pub end: String,
    /// Grows with each membership change.
    pub conf_version: u64,
    /// Grows with each change of bounds.
    pub version: u64,
    /// The leader's store; `None` = not known.
    pub leader: Option<u64>,
    /// The leader's term; 0 = not known.
    pub term: u64,
    /// In the descriptor's order.
    pub replicas: Vec<ReplicaInfo>,
    /// Approximate.
    pub size_bytes: u64,
    /// Approximate.
    pub keys: u64,
    /// Reads per second, over the last few seconds.
    #[serde(default)]
    pub reads: u64,
    /// Writes per second, over the last few seconds.
    #[serde(default)]
    pub writes: u64,
}

/// A member of a range.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The Raft peer id.
    pub id: u64,
    /// Where it lives.
    pub store: u64,
    /// `voter`, `learner`, or in a joint configuration `incoming-voter`, `demoting-voter`.
    pub role: String,
    /// The leader says that it is down or far behind.
    pub lagging: bool,
}

/// A range, and what each of its replicas says about itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RangeDetail {
    /// The range.
    pub range: RangeInfo,
    /// In the descriptor's order.
    pub replicas: Vec<ReplicaDetail>,
}

/// The Raft state of one replica.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaDetail {
    /// The Raft peer id.
    pub id: u64,
    /// Where it lives.
    pub store: u64,
    /// Its state, or why there is none.
    #[serde(flatten)]
    pub state: ReplicaState,
}

/// See [`ReplicaDetail`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaState {
    /// It did not answer, and why.
    Error(String),
    /// What it answered.
    Raft(RaftState),
}

/// See [`ReplicaDetail`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RaftState {
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    pub role: String,
    /// Current term.
    pub term: u64,
    /// Last index known to be committed.
    pub committed: u64,
    /// Last index applied.
    pub applied: u64,
    /// Last index of the log.
    pub last_index: u64,
    /// Last index that was removed from the log.
    pub truncated: u64,
    /// Whether a membership change is under way.
    pub pending_conf_change: bool,
    /// Leader only: how long it may still serve reads by itself.
    pub lease_remaining_ms: u64,
    /// Approximate.
    pub size_bytes: u64,
}

/// Two ranges that were one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SplitDone {
    /// Keeps the id.
    pub left: RangeInfo,
    /// The new one.
    pub right: RangeInfo,
}

/// A leadership that moved.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TransferDone {
    /// The range.
    pub range: u64,
    /// The store that leads now.
    pub leader: u64,
    /// The new leader's term.
    pub term: u64,
}

/// One name of the cluster's configuration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As typed after `config set`.
    pub name: String,
    /// In force.
    pub value: String,
    /// In force unless set.
    pub default: String,
    /// For people.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_on_the_wire() {
        for (command, json) in [
            (CtlCommand::Status, r#"{"command":"status"}"#),
            (
                CtlCommand::RangeSplit {
                    range: None,
                    key: "200001".into(),
                },
                r#"{"command":"range-split","range":null,"key":"200001"}"#,
            ),
            (
                CtlCommand::RangeTransferLeader {
                    range: 7,
                    store: "n2".into(),
                },
                r#"{"command":"range-transfer-leader","range":7,"store":"n2"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&command).unwrap(), json);
            assert_eq!(serde_json::from_str::<CtlCommand>(json).unwrap(), command);
        }
    }

    #[test]
    fn a_replica_is_its_state_or_the_reason_why_there_is_none() {
        let silent = ReplicaDetail {
            id: 4,
            store: 2,
            state: ReplicaState::Error("store 2: connection refused".into()),
        };
        let json = serde_json::to_string(&silent).unwrap();
        assert_eq!(
            json,
            r#"{"id":4,"store":2,"error":"store 2: connection refused"}"#
        );
        assert_eq!(
            serde_json::from_str::<ReplicaDetail>(&json).unwrap(),
            silent
        );
    }
}
