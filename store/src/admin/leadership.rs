//! Proofs of leadership, and of everything before them being applied.

use crate::replica::{Ctx, Replica, Waiter};
use prost::Message as _;
use rangekv_proto::internal::AdminReply;
use rangekv_proto::RequestError;

impl Replica {
    /// Proposes an empty entry, answered when it is applied.
    pub(super) fn propose_barrier(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter) {
        match self.propose(ctx, |raw| raw.propose(Vec::new(), Vec::new())) {
            Some(index) => {
                let reply = self.admin_reply(index);
                // Losing it loses nothing: it may be asked for again.
                self.reply_at(ctx, index, waiter, reply, false);
            }
            None => waiter.complete(Err(RequestError::NotLeader {
                range: self.range,
                leader: None,
            })),
        }
    }

    /// Answers at once under a lease, else after a ReadIndex round.
    pub(super) fn verify_leader(&mut self, ctx: &Ctx<'_>, waiter: Waiter, confirmed: bool) {
        if confirmed || self.lease_valid(ctx.now) {
            waiter.complete(Ok(self.admin_reply(self.applied.index)));
        } else {
            self.read_after_round(waiter);
        }
    }

    fn admin_reply(&self, index: u64) -> bytes::Bytes {
        let term = self.raw.raft.term;
        AdminReply { index, term }.encode_to_vec().into()
    }
}
