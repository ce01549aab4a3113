//! A replica's state, for people and for the placement driver, and what else any replica can be
//! asked, whether it leads or not.

use crate::replica::{Ctx, Replica};
use bytes::Bytes;
use prost::Message as _;
use raft::ProgressState;
use rangekv_proto::internal::{self as pb, admin_command::Kind, AdminCommand};

impl Replica {
    /// The encoded [`pb::ReplicaStatus`] if `command` is for any replica, not for the leader.
    pub(crate) fn own_reply(&mut self, ctx: &Ctx<'_>, command: &Bytes) -> Option<Bytes> {
        match AdminCommand::decode(command.clone()).ok()?.kind? {
            Kind::Status(_) => {}
            Kind::Compact(_) => self.compact_wanted = true,
            _ => return None,
        }
        Some(self.status(ctx).encode_to_vec().into())
    }

    /// What this replica knows of itself.
    pub fn status(&self, ctx: &Ctx<'_>) -> pb::ReplicaStatus {
        let raft = &self.raw.raft;
        let lease = match self.lease_valid(ctx.now) {
            true => self.cell().lease_until_ns() - ctx.now.mono_ns,
            false => 0,
        };
        let contact_ns = match self.is_leader() {
            true => 0,
            false => ctx.now.mono_ns.saturating_sub(self.last_contact_ns()),
        };
        let (truncated, truncated_term) = self.raw.store().truncated();
        pb::ReplicaStatus {
            range: self.descriptor.as_ref().map(Into::into),
            replica: self.id.0,
            role: format!("{:?}", raft.state),
            term: raft.term,
            leader: self.leader_hint().map(Into::into),
            committed: raft.raft_log.committed,
            applied: self.applied.index,
            last_index: raft.raft_log.last_index(),
            last_log_term: raft.raft_log.last_term(),
            last_contact_ms: contact_ns / 1_000_000,
            durable_applied: self.durable_applied,
            log_bytes: self.raw.store().entries_bytes(),
            transferee: raft.lead_transferee.unwrap_or(0),
            peers: self.progress(ctx),
            truncated,
            truncated_term,
            pending_conf_change: raft.has_pending_conf(),
            lease_remaining_ms: lease / 1_000_000,
            size_bytes: self
                .descriptor
                .as_ref()
                .map(crate::meta::data_bounds)
                .map_or(0, |(start, end)| ctx.engine.approximate_size(&start, &end)),
            merging: self.merging().map_or(String::new(), |m| format!("{m:?}")),
        }
    }

    /// All members, by the order of the descriptor; empty unless this replica leads.
    fn progress(&self, ctx: &Ctx<'_>) -> Vec<pb::PeerProgress> {
        let (Some(d), true) = (&self.descriptor, self.is_leader()) else {
            return Vec::new();
        };
        let last = self.raw.raft.raft_log.last_index();
        let progress = |member: &rangekv_proto::Replica| {
            let progress = self.raw.raft.prs().get(member.id.0)?;
            let own = member.id == self.id;
            Some(pb::PeerProgress {
                replica: member.id.0,
                store: member.store.0,
                matched: progress.matched,
                next: progress.next_idx,
                state: match progress.state {
                    _ if own => "leader",
                    ProgressState::Probe => "probe",
                    ProgressState::Replicate => "replicate",
                    ProgressState::Snapshot => "snapshot",
                }
                .into(),
                active: own || progress.recent_active,
                pending_snapshot: progress.pending_snapshot,
                caught_up: progress.matched > 0
                    && progress.matched + ctx.config.catch_up_entries_max >= last,
            })
        };
        d.replicas.iter().filter_map(progress).collect()
    }
}
