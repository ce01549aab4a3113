//! What happens to a worker, and what a worker wants done: the table of contents of the store.

use crate::engine::{Snapshot, Staged};
use crate::trace::{Election, Traced};
use crate::wire::Envelope;
use bytes::Bytes;
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaId, ReplySink, Request, StoreId};
use std::sync::Arc;

/// The time, as the driver sees it. The core never asks a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary moment of this process.
    pub mono_ns: u64,
    /// Wall clock, milliseconds since the Unix epoch. May jump.
    pub wall_ms: u64,
}

/// Everything that can happen to a worker.
// Requests are by far the most frequent: boxing them would cost an allocation each.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// A request for a range of this store.
    Request {
        /// What is asked.
        request: Request,
        /// Who gets the response.
        sink: Arc<dyn ReplySink>,
        /// Identifies the request to `sink`.
        token: u64,
        /// When it came to the mailbox, monotonic ns, if it is traced; 0 = nobody has looked.
        arrived_ns: u64,
    },
    /// Raft envelopes from another store, in the codec of [`crate::wire`].
    Raft {
        /// The sender.
        from: StoreId,
        /// One or more envelopes.
        envelopes: Bytes,
    },
    /// A snapshot arrived whole and verified.
    SnapshotReceived {
        /// Carries the MsgSnapshot.
        envelope: Envelope,
        /// Its records.
        staged: Box<dyn Staged>,
    },
    /// A snapshot that this worker asked to be sent was delivered, or was not.
    SnapshotSent {
        /// The range.
        range: RangeId,
        /// The receiving replica.
        to: ReplicaId,
        /// Whether the receiver accepted it.
        ok: bool,
    },
    /// Messages to this store are being lost.
    Unreachable(StoreId),
    /// Ranges that this store holds from the cluster's beginning.
    Initialise(Vec<RangeDescriptor>),
    /// The disk is (no longer) too full to accept writes.
    DiskFull(bool),
    /// Move all leaderships away, accept no more of them.
    Drain,
    /// A [`SyncJob`](crate::log::SyncJob) of the raft log has succeeded.
    Synced {
        /// The job's.
        sequence: u64,
        /// How long it took, ns.
        took_ns: u64,
    },
}

/// A snapshot to stream to another store.
pub struct SnapshotToSend {
    /// The receiving store.
    pub to: StoreId,
    /// Carries the MsgSnapshot, without its records.
    pub envelope: Envelope,
    /// Bounds whose records to send: the range's data.
    pub range: RangeDescriptor,
    /// The state at the applied index that the message names.
    pub state: Snapshot,
}

/// What a worker round wants done. The driver sends messages in order, per store.
#[derive(Default)]
pub struct Outbox {
    /// Envelopes by receiving store, to be coalesced into one frame.
    pub envelopes: Vec<(StoreId, Envelope)>,
    /// Snapshots to stream.
    pub snapshots: Vec<SnapshotToSend>,
    /// What was done for traced requests.
    pub traced: Vec<Traced>,
    /// Elections won.
    pub elections: Vec<Election>,
}
