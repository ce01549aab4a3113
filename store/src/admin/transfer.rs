//! Moves a range's leadership to a voter on another store.
//!
//! All that was proposed is applied first, while requests wait. The lease ends, for the whole term, before anything is sent: a delayed MsgTimeoutNow lets
//! its receiver campaign at any later time, past the other replicas' promises.

use super::invalid;
use crate::event::Now;
use crate::replica::{Ctx, Replica, Waiter};
use bytes::Bytes;
use rangekv_proto::internal::admin_command::TransferLeader;
use rangekv_proto::{RangeDescriptor, ReplicaId, ReplicaRole, RequestError, StoreId};

impl Replica {
    pub(super) fn transfer_leader(
        &mut self,
        ctx: &mut Ctx<'_>,
        waiter: Waiter,
        transfer: TransferLeader,
    ) {
        let store = StoreId(transfer.store);
        let d = self
            .descriptor
            .as_ref()
            .expect("only an initialised replica leads");
        let Some(target) = d.replica_on(store).copied() else {
            return invalid(
                waiter,
                format!("store {store} has no replica of range {}", d.id),
            );
        };
        if target.id == self.id {
            return waiter.complete(Ok(Bytes::new()));
        }
        if target.role != ReplicaRole::Voter {
            return invalid(
                waiter,
                format!(
                    "replica {} on store {store} is a {:?}",
                    target.id, target.role
                ),
            );
        }
        if self.transfer_to(ctx, target.id) {
            waiter.complete(Ok(Bytes::new()));
        } else {
            waiter.complete(Err(RequestError::Busy {
                reason: format!(
                    "replica {} on store {store} lags, or range {} is changing",
                    target.id, self.range
                ),
                retry_after_ms: 100,
            }));
        }
    }

    /// Starts a transfer if the target is near, and nothing is pending that it would have to
    /// apply first (tikv#17363).
    pub(crate) fn transfer_to(&mut self, ctx: &mut Ctx<'_>, target: ReplicaId) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let near = raft.prs().get(target.0).is_some_and(|p| {
            p.recent_active && p.matched + ctx.config.catch_up_entries_max >= last
        });
        if !near
            || raft.has_pending_conf()
            || raft.lead_transferee.is_some()
            || self.handover().is_some()
            || self.has_barrier()
            || self.is_pinned()
        {
            return false;
        }
        self.propose_batch(ctx);
        if !self.is_leader() {
            return false;
        }
        self.hand_over_to(target, ctx.now.mono_ns + ctx.config.election_ns());
        self.continue_handover(ctx.now);
        true
    }

    /// Hands over as soon as all that was proposed is applied, or gives it up when its time is
    /// over. Requests wait meanwhile: the successor may be elected before this replica hears
    /// that their entries are committed, and their outcome would be unknown.
    pub(crate) fn continue_handover(&mut self, now: Now) {
        let Some((target, until_ns)) = self.handover() else {
            return;
        };
        if now.mono_ns >= until_ns {
            return self.end_handover();
        }
        if self.applied.index < self.raw.raft.raft_log.last_index() {
            return;
        }
        self.end_handover();
        self.forbid_lease();
        self.raw.transfer_leader(target.0);
        self.after_step(now);
    }

    /// Whether this replica leads though its configuration gives it no vote, or soon none.
    pub fn must_hand_over(&self) -> bool {
        let role =
            |d: &RangeDescriptor| d.replicas.iter().find(|r| r.id == self.id).map(|r| r.role);
        self.is_leader()
            && !matches!(
                self.descriptor.as_ref().and_then(role),
                Some(ReplicaRole::Voter | ReplicaRole::IncomingVoter)
            )
    }

    /// The voter that is best suited to take over: the one with the longest log, on a store that
    /// is not about to stop itself.
    pub fn best_successor(&self, leaving: &dyn Fn(StoreId) -> bool) -> Option<ReplicaId> {
        let d = self.descriptor.as_ref()?;
        d.replicas
            .iter()
            .filter(|r| matches!(r.role, ReplicaRole::Voter | ReplicaRole::IncomingVoter))
            .filter(|r| r.id != self.id && !leaving(r.store))
            .filter_map(|r| {
                self.raw
                    .raft
                    .prs()
                    .get(r.id.0)
                    .map(|p| (p.recent_active, p.matched, r.id))
            })
            .filter(|(active, ..)| *active)
            .max_by_key(|(_, matched, id)| (*matched, std::cmp::Reverse(*id)))
            .map(|(.., id)| id)
    }
}
