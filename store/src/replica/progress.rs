//! What a leader knows of how far its replicas are.

use super::Replica;
use crate::config::Config;
use raft::ProgressState;
use rangekv_proto::{ReplicaId, StoreId};

impl Replica {
    /// Other replicas that could take a vote or the lead now: their stores are heard of, they
    /// answer, and are not far behind. Empty unless this replica leads.
    pub fn keeping_up(&self, config: &Config, is_live: &dyn Fn(StoreId) -> bool) -> Vec<ReplicaId> {
        if !self.is_leader() {
            return Vec::new();
        }
        let last = self.raw.raft.raft_log.last_index();
        let near = |matched: u64| matched > 0 && matched + config.catch_up_entries_max >= last;
        let all = self.raw.raft.prs().iter();
        let current = all.filter(|(_, p)| match p.state {
            ProgressState::Replicate => near(p.matched),
            // After a lost message raft probes with the next entry. In an idle range there is none;
            // and in a quiesced one nobody answers, so that only its store shows that it lives.
            ProgressState::Probe => p.matched == last && (p.recent_active || self.quiesced),
            ProgressState::Snapshot => false,
        });
        let others = current
            .map(|(id, _)| ReplicaId(*id))
            .filter(|id| *id != self.id && self.peers.get(id).is_some_and(|s| is_live(*s)));
        let mut others: Vec<ReplicaId> = others.collect();
        others.sort_unstable();
        others
    }

    /// Publishes it.
    pub fn publish_progress(&self, config: &Config, is_live: &dyn Fn(StoreId) -> bool) {
        self.cell().set_keeping_up(self.keeping_up(config, is_live));
    }
}
