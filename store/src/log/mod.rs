//! The raft log of a store: one sequence of records for all its groups, one sync per loop.
//!
//! Invariants:
//! - What survives a crash is a prefix of the operations written, and contains all that was
//!   written before the last successful [`RaftLog::sync`].
//! - Operations of one group take effect at replay in the order in which they were staged:
//!   `append` truncates what it overlaps; `reset` forgets all entries before it.
//! - Dropping old segments never changes what replay gives.
//! - A failed sync is final: the caller ends the process, never syncs again (fsync errors are
//!   reported once, and the pages are gone).

pub mod disk;
pub mod segmented;

use disk::SyncWork;
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use rangekv_proto::{RangeId, ReplicaId};
use std::collections::BTreeMap;
use std::io;

/// What replay found of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupLog {
    /// Term, vote, commit. Default = never written.
    pub hard_state: HardState,
    /// Everything up to here is compacted (or was replaced by a snapshot).
    pub truncated_index: u64,
    /// Term of `truncated_index`.
    pub truncated_term: u64,
    /// `truncated_index + 1 ..`, without gaps.
    pub entries: Vec<Entry>,
}

/// What remains of a destroyed replica, for ever: it may not come back under the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Messages to this replica of the range, or to an older one, are stale.
    pub replica: ReplicaId,
    /// `conf_version` when it was destroyed.
    pub conf_version: u64,
}

/// All that replay found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Live groups.
    pub groups: BTreeMap<RangeId, GroupLog>,
    /// Destroyed replicas by range.
    pub tombstones: BTreeMap<RangeId, Tombstone>,
}

/// A sync that any thread may carry out.
pub struct SyncJob {
    /// Names what it makes durable: all that was written when it was made. Later jobs have a
    /// higher one, and make what the earlier ones do durable, too.
    pub sequence: u64,
    /// Blocks until that is done. As with [`RaftLog::sync`], an error is final.
    pub work: SyncWork,
}

/// A store's raft log. Operations are staged in memory; [`write`](Self::write) hands them to
/// the operating system as one record; [`sync`](Self::sync) makes all written records durable.
pub trait RaftLog: Send {
    /// Appends entries (consecutive), truncating the group's log from the first one's index.
    fn append(&mut self, group: RangeId, entries: &[Entry]);
    /// Sets term, vote and commit.
    fn set_hard_state(&mut self, group: RangeId, hard_state: &HardState);
    /// Forgets entries up to `index`, which has `term`.
    fn compact(&mut self, group: RangeId, index: u64, term: u64);
    /// Replaces the group's log by an empty one that begins after (`index`, `term`), and its hard state.
    fn reset(&mut self, group: RangeId, index: u64, term: u64, hard_state: &HardState);
    /// Removes the group and leaves a tombstone.
    fn destroy(&mut self, group: RangeId, tombstone: Tombstone);
    /// Bytes that are staged.
    fn staged_bytes(&self) -> usize;
    /// Whether anything is staged.
    fn has_staged(&self) -> bool {
        self.staged_bytes() > 0
    }
    /// Writes what is staged. An error is final, as for `sync`, except `StorageFull`.
    fn write(&mut self) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// As [`sync`](Self::sync), but for another thread to do while more is staged and written;
    /// `None`: all is durable. Jobs may run side by side.
    fn sync_job(&mut self) -> io::Result<Option<SyncJob>>;
    /// The job of this sequence has succeeded. Jobs may be reported in any order.
    fn synced(&mut self, sequence: u64) -> io::Result<()>;
    /// Groups that keep the oldest segments alive although the log exceeds its target size:
    /// [`rewrite`](Self::rewrite) each (or compact it further) to free them. Empty if all is well,
    /// and also while most of the log is live: only compaction helps then.
    fn pinning_groups(&self) -> Vec<RangeId>;
    /// Stages the whole live state of a group again, at the tail.
    fn rewrite(&mut self, group: RangeId, state: &GroupLog);
    /// Bytes of live entries of a group, approximately.
    fn group_bytes(&self, group: RangeId) -> u64;
    /// Bytes of all segments.
    fn total_bytes(&self) -> u64;
}

/// Approximate size of an entry in the log, bytes.
pub fn entry_bytes(entry: &Entry) -> u64 {
    u64::from(entry.compute_size()) + 16
}
