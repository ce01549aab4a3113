//! A replica's state, for people and for the placement driver. Any replica answers for itself.

use crate::replica::{Ctx, Replica};
use bytes::Bytes;
use prost::Message as _;
use rangekv_proto::internal::{self as pb, admin_command::Kind, AdminCommand};

impl Replica {
    /// The encoded [`pb::ReplicaStatus`] if `command` asks for it.
    pub(crate) fn status_reply(&self, ctx: &Ctx<'_>, command: &Bytes) -> Option<Bytes> {
        match AdminCommand::decode(command.clone()).ok()?.kind? {
            Kind::Status(_) => Some(self.status(ctx).encode_to_vec().into()),
            _ => None,
        }
    }

    /// What this replica knows of itself.
    pub fn status(&self, ctx: &Ctx<'_>) -> pb::ReplicaStatus {
        let raft = &self.raw.raft;
        let lease = match self.lease_valid(ctx.now) {
            true => self.cell().lease_until_ns() - ctx.now.mono_ns,
            false => 0,
        };
        pb::ReplicaStatus {
            range: self.descriptor.as_ref().map(Into::into),
            replica: self.id.0,
            role: format!("{:?}", raft.state),
            term: raft.term,
            leader: self.leader_hint().map(Into::into),
            committed: raft.raft_log.committed,
            applied: self.applied.index,
            last_index: raft.raft_log.last_index(),
            truncated: self.raw.store().truncated().0,
            pending_conf_change: raft.has_pending_conf(),
            lease_remaining_ms: lease / 1_000_000,
            size_bytes: self
                .descriptor
                .as_ref()
                .map(crate::meta::data_bounds)
                .map_or(0, |(start, end)| ctx.engine.approximate_size(&start, &end)),
        }
    }
}
