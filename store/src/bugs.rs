//! Deliberate bugs, for showing that the simulation finds their kind.
//!
//! Without the feature `planted-bugs` every question is answered `false` at compile time.

/// A bug that can be switched on in a build with the feature `planted-bugs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Bug {
    /// A write is answered when it is proposed.
    ReplyBeforeCommit,
    /// Followers acknowledge entries, and the leader counts itself, before the sync, which never happens.
    ReplyBeforeSync,
    /// Term and vote are not written.
    VoteNotSynced,
    /// The lease lasts longer than an election timeout.
    LeaseTooLong,
    /// The lease is kept, and renewed, after a leader transfer began.
    LeaseKeptAfterTransfer,
    /// A restarted store votes at once.
    NoVoteBan,
    /// The applied index is written apart from the data of its entry.
    AppliedIndexApart,
    /// A failed condition that depends on the overlay is answered before what it saw has committed.
    DirtyRefusal,
    /// A new leader answers reads before it has applied an entry of its own term.
    ReadBeforeFirstEntry,
    /// A split leaves the epoch's version as it was.
    SplitWithoutEpoch,
    /// A snapshot says that it was taken later than it was.
    SnapshotMislabelled,
    /// A read that has no lease is answered with the commit of an entry proposed before it.
    ReadBehindOldEntry,
    /// A frozen range unfreezes by itself, when the merge takes long.
    MergeDecidedTwice,
    /// A range is absorbed when one of its replicas has frozen, not all.
    AbsorbBeforeAllFrozen,
    /// A range unfreezes when its neighbour has given up any merge with it.
    AbortOfAnotherMerge,
    /// Requests are accepted whatever the epoch by which they were routed.
    StaleEpoch,
    /// A replica that was removed and destroyed is made anew by a message, and votes.
    RemovedReplicaVotes,
    /// Quiesced followers sleep on when the store of their leader falls silent.
    DeafQuiescence,
    /// The lease of a quiesced leader goes on, though nobody has promised anything.
    LeaseWhileQuiesced,
    /// A read that has no lease is evaluated when leadership is shown, not when it arrives.
    ReadOvertaken,
    /// An evaluation is given no end of its range.
    ScanNotClipped,
    /// A transaction does not look whether the keys that it watches were written.
    WatchNotCompared,
    /// An acknowledgement leaves while another thread still syncs what it is about.
    AckBeforeSync,
    /// Records of before an installed snapshot stay in the cache in front of the state engine.
    CacheOutlivesSnapshot,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 24] = [
        Bug::ReplyBeforeCommit,
        Bug::ReplyBeforeSync,
        Bug::VoteNotSynced,
        Bug::LeaseTooLong,
        Bug::LeaseKeptAfterTransfer,
        Bug::NoVoteBan,
        Bug::AppliedIndexApart,
        Bug::DirtyRefusal,
        Bug::ReadBeforeFirstEntry,
        Bug::SplitWithoutEpoch,
        Bug::SnapshotMislabelled,
        Bug::ReadBehindOldEntry,
        Bug::MergeDecidedTwice,
        Bug::AbsorbBeforeAllFrozen,
        Bug::AbortOfAnotherMerge,
        Bug::StaleEpoch,
        Bug::RemovedReplicaVotes,
        Bug::DeafQuiescence,
        Bug::LeaseWhileQuiesced,
        Bug::ReadOvertaken,
        Bug::ScanNotClipped,
        Bug::WatchNotCompared,
        Bug::AckBeforeSync,
        Bug::CacheOutlivesSnapshot,
    ];

    /// Its name in snake case, as the simulation's `--bug` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Bug::ReplyBeforeCommit => "reply_before_commit",
            Bug::ReplyBeforeSync => "reply_before_sync",
            Bug::VoteNotSynced => "vote_not_synced",
            Bug::LeaseTooLong => "lease_too_long",
            Bug::LeaseKeptAfterTransfer => "lease_kept_after_transfer",
            Bug::NoVoteBan => "no_vote_ban",
            Bug::AppliedIndexApart => "applied_index_apart",
            Bug::DirtyRefusal => "dirty_refusal",
            Bug::ReadBeforeFirstEntry => "read_before_first_entry",
            Bug::SplitWithoutEpoch => "split_without_epoch",
            Bug::SnapshotMislabelled => "snapshot_mislabelled",
            Bug::ReadBehindOldEntry => "read_behind_old_entry",
            Bug::MergeDecidedTwice => "merge_decided_twice",
            Bug::AbsorbBeforeAllFrozen => "absorb_before_all_frozen",
            Bug::AbortOfAnotherMerge => "abort_of_another_merge",
            Bug::StaleEpoch => "stale_epoch",
            Bug::RemovedReplicaVotes => "removed_replica_votes",
            Bug::DeafQuiescence => "deaf_quiescence",
            Bug::LeaseWhileQuiesced => "lease_while_quiesced",
            Bug::ReadOvertaken => "read_overtaken",
            Bug::ScanNotClipped => "scan_not_clipped",
            Bug::WatchNotCompared => "watch_not_compared",
            Bug::AckBeforeSync => "ack_before_sync",
            Bug::CacheOutlivesSnapshot => "cache_outlives_snapshot",
        }
    }
}

#[cfg(feature = "planted-bugs")]
mod selector {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, or all off.
    pub fn set(bug: Option<Bug>) {
        ACTIVE.with(|a| a.set(bug));
    }

    /// Whether `bug` is on.
    pub fn active(bug: Bug) -> bool {
        ACTIVE.with(|a| a.get()) == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use selector::{active, set};

/// Always false: this build has no planted bugs.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn active(_: Bug) -> bool {
    false
}
