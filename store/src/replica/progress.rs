//! What a leader knows of how far its replicas are.

use super::Replica;
use crate::config::Config;
use raft::ProgressState;
use rangekv_proto::ReplicaId;

impl Replica {
    /// Replicas that could not take a vote or the lead now: far behind, receiving a snapshot,
    /// or not answering. Empty unless this replica leads.
    pub fn lagging(&self, config: &Config) -> Vec<ReplicaId> {
        if !self.is_leader() {
            return Vec::new();
        }
        let last = self.raw.raft.raft_log.last_index();
        let others = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != self.id.0);
        let mut lagging: Vec<ReplicaId> = others
            .filter(|(_, p)| {
                p.state != ProgressState::Replicate
                    || p.matched == 0
                    || p.matched + config.catch_up_entries_max < last
            })
            .map(|(id, _)| ReplicaId(*id))
            .collect();
        lagging.sort_unstable();
        lagging
    }

    /// Publishes it.
    pub fn publish_progress(&self, config: &Config) {
        self.cell().set_lagging(self.lagging(config));
    }
}
