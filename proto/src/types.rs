//! Ids, descriptors, requests and errors, in the field's terms.

use bytes::Bytes;
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A range, which is also a Raft group. Never reused.
    RangeId, "r"
);
id!(
    /// A store: one process, one data directory. Never reused.
    StoreId, "s"
);
id!(
    /// A replica of one range on one store; the Raft peer id. Unique in the cluster, never reused.
    ReplicaId, "p"
);

/// The placement driver's own range.
pub const PLACEMENT_RANGE: RangeId = RangeId(1);

/// Log index and term at which every range begins, whether made by bootstrap or by a split.
pub const INITIAL_INDEX: u64 = 5;
/// See [`INITIAL_INDEX`].
pub const INITIAL_TERM: u64 = 5;

/// What a descriptor has lived through. Neither part ever goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Epoch {
    /// Grows with each membership change.
    pub conf_version: u64,
    /// Grows with each split and merge: with each change of bounds.
    pub version: u64,
}

/// A replica's part in the Raft configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ReplicaRole {
    /// Votes.
    Voter,
    /// Receives the log, does not vote.
    Learner,
    /// Joint: votes in the incoming configuration only.
    IncomingVoter,
    /// Joint: votes in the outgoing configuration only, and becomes a learner.
    DemotingVoter,
}

/// One member of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Replica {
    /// Raft peer id.
    pub id: ReplicaId,
    /// Where it lives.
    pub store: StoreId,
    /// Voter, learner, or between the two.
    pub role: ReplicaRole,
}

/// A range `[start, end)` and its members.
#[derive(Clone, Default, PartialEq, Eq, Debug, Hash)]
pub struct RangeDescriptor {
    /// The range.
    pub id: RangeId,
    /// First key, inclusive.
    pub start: Bytes,
    /// Exclusive; empty = the end of the keyspace.
    pub end: Bytes,
    /// Compared for equality when a request is accepted.
    pub epoch: Epoch,
    /// Members, in a fixed order (a split assigns new replica ids in this order).
    pub replicas: Vec<Replica>,
}

impl RangeDescriptor {
    /// Whether `key` lies in `[start, end)`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }

    /// Whether two ranges share a key.
    pub fn overlaps(&self, other: &RangeDescriptor) -> bool {
        (self.end.is_empty() || other.start < self.end)
            && (other.end.is_empty() || self.start < other.end)
    }

    /// The replica on `store`, if any.
    pub fn replica_on(&self, store: StoreId) -> Option<&Replica> {
        self.replicas.iter().find(|r| r.store == store)
    }

    /// The store that holds `replica`, if it is a member.
    pub fn store_of(&self, replica: ReplicaId) -> Option<StoreId> {
        self.replicas
            .iter()
            .find(|r| r.id == replica)
            .map(|r| r.store)
    }

    /// Whether a joint configuration has been entered and not left.
    pub fn is_joint(&self) -> bool {
        self.replicas.iter().any(|r| {
            matches!(
                r.role,
                ReplicaRole::IncomingVoter | ReplicaRole::DemotingVoter
            )
        })
    }
}

/// Who leads a range, and in which term, as far as someone knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct LeaderHint {
    /// The leader's store.
    pub store: StoreId,
    /// Raft term; a hint with a greater term replaces one with a lesser.
    pub term: u64,
}

/// Which [`Evaluator`](../../model/src/eval.rs) a command is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct EvaluatorId(pub u8);

impl EvaluatorId {
    /// The placement state, in range 1.
    pub const PLACEMENT: EvaluatorId = EvaluatorId(0);
    /// The Redis model.
    pub const REDIS: EvaluatorId = EvaluatorId(1);
    /// The DynamoDB model.
    pub const DYNAMO: EvaluatorId = EvaluatorId(2);
}

/// Names a request that somebody traces: drawn at random where the trace begins, and all ids of
/// the trace follow from it. 0 = nobody traces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Mark(pub u64);

impl Mark {
    /// Not traced.
    pub const NONE: Mark = Mark(0);

    /// Whether somebody traces it.
    pub fn is_some(self) -> bool {
        self != Mark::NONE
    }
}

/// A request aimed at the leader of one range.
#[derive(Clone, Debug)]
pub struct Request {
    /// The range.
    pub range: RangeId,
    /// `epoch.version` of the descriptor by which the sender routed; must be equal.
    pub version: u64,
    /// Term of the leader by which the sender routed; 0 = any. A store refuses a request
    /// for another term, so that once a leader has refused one request of a connection it
    /// refuses all that were sent after it under the same route: their order survives a retry.
    pub term: u64,
    /// Whether it is traced. Changes nothing about what is done.
    pub mark: Mark,
    /// What is asked.
    pub body: Body,
}

/// What a [`Request`] asks.
#[derive(Clone, Debug)]
pub enum Body {
    /// Evaluate a command of a data model. Opaque to the store.
    Command {
        /// The model.
        evaluator: EvaluatorId,
        /// The command never writes (save for removing what has expired).
        read_only: bool,
        /// In the model's encoding.
        command: Bytes,
    },
    /// Split, membership, leader transfer: `internal::AdminCommand`, encoded.
    Admin(Bytes),
    /// To the placement driver's leader: `internal::Heartbeat`, encoded.
    Heartbeat(Bytes),
    /// To another node's doors, about no range: in the encoding of the router's Pub/Sub.
    PubSub(Bytes),
}

/// The reply in the model's encoding, or why there is none.
pub type Response = Result<Bytes, RequestError>;

/// Receives responses. Called from any thread, never blocks; each token exactly once.
pub trait ReplySink: Send + Sync {
    /// The response to the request that was sent with `token`.
    fn complete(&self, token: u64, response: Response);

    /// As [`complete`](Self::complete), for one of several responses: whoever waits for them
    /// need not be woken before the caller calls [`nudge`](Self::nudge), which it does soon.
    fn deposit(&self, token: u64, response: Response) {
        self.complete(token, response);
    }

    /// Wakes whoever waits for what was deposited.
    fn nudge(&self) {}
}

/// Why a request has no reply. Each variant carries its remedy.
///
/// All but `OutcomeUnknown` prove that nothing was or will be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Ask `leader` instead, or, if unknown, try again a little later.
    NotLeader {
        /// The range asked.
        range: RangeId,
        /// Who leads, if known.
        leader: Option<LeaderHint>,
    },
    /// The range changed its bounds since the sender learned them.
    EpochNotMatch {
        /// Descriptors on this store that cover what the sender meant.
        current: Vec<RangeDescriptor>,
    },
    /// This store holds no replica of the range.
    RangeNotFound {
        /// The range asked.
        range: RangeId,
        /// The store asked.
        store: StoreId,
    },
    /// Too much is in flight; nothing was proposed.
    Busy {
        /// Which limit.
        reason: String,
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The command may or may not take effect. Never retried by us.
    OutcomeUnknown(String),
    /// No leader or no connection within the deadline; nothing was proposed.
    Unavailable(String),
    /// The request itself is wrong; every replica would say so.
    Invalid(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { range, leader } => match leader {
                Some(l) => write!(
                    f,
                    "not the leader of range {range}; store {} leads in term {}",
                    l.store, l.term
                ),
                None => write!(f, "not the leader of range {range}; no leader known"),
            },
            Self::EpochNotMatch { current } => {
                write!(
                    f,
                    "range bounds changed; {} current descriptors",
                    current.len()
                )
            }
            Self::RangeNotFound { range, store } => {
                write!(f, "range {range} has no replica on store {store}")
            }
            Self::Busy {
                reason,
                retry_after_ms,
            } => {
                write!(f, "busy: {reason}; retry after {retry_after_ms} ms")
            }
            Self::OutcomeUnknown(why) => write!(f, "outcome unknown: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
            Self::Invalid(why) => write!(f, "invalid request: {why}"),
        }
    }
}

impl std::error::Error for RequestError {}
