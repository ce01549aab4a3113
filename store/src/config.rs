//! Settings of a store's worker, with the bounds that safety puts on them.

use raft::Config as RaftConfig;
use rangekv_proto::{RangeId, ReplicaId, StoreId};

/// Draws an election timeout in ticks, in `[election_ticks, 2 × election_ticks)`, for a group
/// of this store: how long a replica waits that has just begun, and what later waits are drawn
/// from.
pub type DrawElectionTicks = Box<dyn FnMut(RangeId) -> usize + Send>;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Config {
    /// This store.
    pub store: StoreId,
    /// Differs at every start of the process; part of every ReadIndex context (I13).
    pub boot_id: u64,
    /// Length of a raft tick, ms.
    pub tick_ms: u64,
    /// Least election timeout, ticks.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Time without a request after which a leader lets its lease run out, and its group
    /// quiesces, ms.
    pub idle_ms: u64,
    /// Time between two signs of life to each store that this one shares a range with, ms. Well
    /// below the least election timeout.
    pub keepalive_ms: u64,
    /// Overlay memory per range beyond which writes are refused, bytes.
    pub overlay_bytes_max: usize,
    /// Requests that may wait in one range behind a split or a starting leader.
    pub waiting_max: usize,
    /// Batch size at which a round proposes an entry early, bytes.
    pub entry_bytes_max: usize,
    /// Log of one range that is kept for lagging replicas, bytes.
    pub log_keep_bytes: u64,
    /// Log of one range beyond which a lagging replica gets a snapshot instead, bytes.
    pub log_max_bytes: u64,
    /// Log of the whole store beyond which it is collected down to what a crash needs, bytes.
    pub log_total_bytes_max: u64,
    /// How far behind the leader a replica may be to be promoted or to take over, entries.
    pub catch_up_entries_max: u64,
}

impl Config {
    /// The settings of a real store.
    pub fn new(store: StoreId, boot_id: u64) -> Self {
        Config {
            store,
            boot_id,
            tick_ms: 50,
            election_ticks: 20,
            heartbeat_ticks: 2,
            idle_ms: 3_000,
            keepalive_ms: 300,
            overlay_bytes_max: 64 << 20,
            waiting_max: 8192,
            entry_bytes_max: 1 << 20,
            log_keep_bytes: 2 << 20,
            log_max_bytes: 32 << 20,
            log_total_bytes_max: 128 << 20,
            catch_up_entries_max: 1000,
        }
    }

    /// [`idle_ms`](Self::idle_ms), ns.
    pub fn idle_ns(&self) -> u64 {
        self.idle_ms * 1_000_000
    }

    /// Least election timeout, ns.
    pub fn election_ns(&self) -> u64 {
        self.election_ticks as u64 * self.tick_ms * 1_000_000
    }

    /// For how long a replica that has heard a leader votes for no other, ns: T − 1 tick,
    /// where T is the least election timeout.
    pub fn promise_ns(&self) -> u64 {
        self.election_ns() - self.tick_ms * 1_000_000
    }

    /// Length of a leader lease, ns: 0.8 × (T − 1 tick), where T is the least election timeout.
    ///
    /// A follower votes no sooner than T − 1 tick of *its* clock after the message by which the
    /// lease was renewed (a tick may fall right after the message). The factor covers clocks
    /// whose rates differ by up to 25 %.
    pub fn lease_ns(&self) -> u64 {
        if crate::bugs::active(crate::bugs::Bug::LeaseTooLong) {
            return self.election_ns() * 4;
        }
        (self.election_ns() - self.tick_ms * 1_000_000) * 8 / 10
    }

    /// For how long the leader of a range that absorbs another waits for all replicas of that one
    /// to be frozen before it gives the merge up, ns. It serves nobody meanwhile.
    pub fn merge_timeout_ns(&self) -> u64 {
        self.election_ns()
    }

    /// raft-rs settings.
    pub fn raft(&self, id: ReplicaId, applied: u64) -> RaftConfig {
        let config = RaftConfig {
            id: id.0,
            applied,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            // Never reached: the replica says when it campaigns ([`crate::replica`], `election`).
            // One value: raft-rs would draw it from the thread's generator.
            min_election_tick: 2 * self.election_ticks,
            max_election_tick: 2 * self.election_ticks + 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 128,
            check_quorum: true,
            pre_vote: true,
            // Proposals are bounded by the overlay, before they are evaluated (E11).
            max_uncommitted_size: raft::NO_LIMIT,
            max_committed_size_per_ready: 4 << 20,
            ..RaftConfig::default()
        };
        config.validate().expect("the raft configuration is valid");
        config
    }
}
