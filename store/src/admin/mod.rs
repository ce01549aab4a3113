//! Commands that change a range itself: split, merge, membership, leader transfer.

pub(crate) mod conf_change;
mod leadership;
pub(crate) mod merge;
mod split;
mod status;
mod transfer;

use crate::replica::{Ctx, Replica, Waiter};
use bytes::Bytes;
use prost::Message as _;
use rangekv_proto::internal::{admin_command::Kind, AdminCommand};
use rangekv_proto::RequestError;

pub(crate) fn invalid(waiter: Waiter, why: impl Into<String>) {
    waiter.complete(Err(RequestError::Invalid(why.into())));
}

impl Replica {
    /// Proposes an admin command at a leader that is ready and not blocked. `confirmed`: it is
    /// certain that it led after the command had arrived.
    pub(crate) fn propose_admin(
        &mut self,
        ctx: &mut Ctx<'_>,
        waiter: Waiter,
        command: &Bytes,
        confirmed: bool,
    ) {
        // What was evaluated before keeps its place in the log.
        self.propose_batch(ctx);
        match AdminCommand::decode(command.clone()).map(|c| c.kind) {
            Ok(Some(Kind::Split(split))) => self.propose_split(ctx, waiter, split),
            Ok(Some(Kind::ChangeReplicas(change))) => self.propose_conf_change(ctx, waiter, change),
            Ok(Some(Kind::TransferLeader(transfer))) => self.transfer_leader(ctx, waiter, transfer),
            Ok(Some(Kind::Merge(merge))) => self.ask_merge(waiter, merge),
            Ok(Some(Kind::Barrier(_))) => self.propose_barrier(ctx, waiter),
            Ok(Some(Kind::VerifyLeader(_))) => self.verify_leader(ctx, waiter, confirmed),
            // Those that any replica answers do not come here.
            Ok(Some(Kind::Status(_) | Kind::Compact(_))) | Ok(None) => {
                invalid(waiter, "admin command without a kind")
            }
            Err(e) => invalid(waiter, format!("admin command does not decode: {e}")),
        }
    }
}
