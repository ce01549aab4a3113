//! The leader lease, and ReadIndex for when there is none.
//!
//! A lease runs from the moment *before* messages were handed out that a quorum has since
//! acknowledged: an entry that committed, or the heartbeats of a ReadIndex round. Each follower
//! among them votes for nobody else until an election timeout after it received them.
//! See [`Config::lease_ns`](crate::config::Config::lease_ns) for its length.
//!
//! A read without a lease is evaluated when it arrives, and answered when a round shows that
//! this replica led then. Were it evaluated later, it would see writes that its own connection
//! sent after it.
//!
//! A ReadIndex round begins only after the requests that it serves arrived, and its context is
//! never used again, in any process (I13; etcd#20418).

use super::{Ctx, Held, ReadRound, Replica};
use raft::ReadState;

/// A round unanswered for this long is given up and its reads join the next one, ns.
const ROUND_RETRY_NS: u64 = 300_000_000;

impl Replica {
    /// Starts a ReadIndex round if reads wait for one, or if the lease needs renewal.
    pub fn start_read_round(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono_ns;
        let lease_ns = ctx.config.lease_ns();
        let frozen = self.is_frozen();
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        if !lead.ready {
            return;
        }
        // Rounds whose heartbeats were lost: their reads go into a new round, under a new context.
        while lead
            .rounds
            .front()
            .is_some_and(|r| r.index.is_none() && now > r.sent_ns + ROUND_RETRY_NS)
        {
            let round = lead.rounds.pop_front().expect("just seen");
            lead.reads.extend(round.reads);
        }
        let served = &self.cell.local_reads;
        let served = served.load(std::sync::atomic::Ordering::Relaxed);
        if served != lead.reads_seen {
            lead.reads_seen = served;
            lead.active_ns = now;
        }
        let until = self.cell.lease_until_ns();
        let renew = !self.quiesced
            && !lead.lease_forbidden
            && !frozen
            && lead.rounds.is_empty()
            && lead.sends.is_empty()
            && now < lead.active_ns + ctx.config.idle_ns()
            && until < now + lease_ns / 2;
        if lead.reads.is_empty() && !renew {
            return;
        }
        let mut context = Vec::with_capacity(24);
        context.extend_from_slice(&ctx.config.boot_id.to_be_bytes());
        context.extend_from_slice(&self.range.0.to_be_bytes());
        *ctx.counter += 1;
        context.extend_from_slice(&ctx.counter.to_be_bytes());
        let reads = std::mem::take(&mut lead.reads);
        let seen = reads.iter().filter_map(|held| held.answer.as_ref());
        lead.rounds.push_back(ReadRound {
            context: context.clone(),
            sent_ns: now,
            index: None,
            seen: seen.map(|(_, index)| *index).max().unwrap_or(0),
            reads,
        });
        self.raw.read_index(context);
        self.after_step(ctx.now);
    }

    /// Notes which rounds a quorum has confirmed.
    pub(super) fn confirm_rounds(&mut self, ctx: &Ctx<'_>, states: Vec<ReadState>) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let mut renewed = None;
        for state in states {
            if let Some(round) = lead
                .rounds
                .iter_mut()
                .find(|r| r.context == state.request_ctx)
            {
                round.index = Some(state.index);
                renewed = Some(round.sent_ns);
            }
        }
        if let Some(sent_ns) = renewed {
            self.renew_lease(ctx, sent_ns);
        }
    }

    /// Serves confirmed rounds whose index is applied, and what their answers saw.
    pub(super) fn serve_rounds(&mut self, ctx: &mut Ctx<'_>) {
        loop {
            let applied = self.applied.index;
            let Some(lead) = self.lead.as_mut() else {
                return;
            };
            let Some(i) = lead
                .rounds
                .iter()
                .position(|r| r.index.is_some_and(|i| i.max(r.seen) <= applied))
            else {
                return;
            };
            let round = lead.rounds.remove(i).expect("position is in bounds");
            for Held { waiter, answer } in round.reads {
                match answer {
                    Some((reply, _)) => waiter.complete(Ok(reply)),
                    None => self.admit(ctx, waiter, true),
                }
            }
        }
    }

    /// The lease lasts from `sent_ns` on.
    pub(super) fn renew_lease(&mut self, ctx: &Ctx<'_>, sent_ns: u64) {
        let Some(lead) = self.lead.as_ref() else {
            return;
        };
        assert!(
            !self.quiesced,
            "range {}: quiesced, its lease renewed",
            self.range
        );
        if lead.ready && !lead.lease_forbidden && !self.is_frozen() {
            self.cell.extend_lease(sent_ns + ctx.config.lease_ns());
        }
    }

    /// Ends the lease for the rest of the term: a MsgTimeoutNow is about to be sent.
    pub(crate) fn forbid_lease(&mut self) {
        if crate::bugs::active(crate::bugs::Bug::LeaseKeptAfterTransfer) {
            return;
        }
        if let Some(lead) = self.lead.as_mut() {
            lead.lease_forbidden = true;
        }
        self.cell.clear_lease();
    }

    /// Whether reads wait for a round, or a round for its application.
    pub fn has_reads(&self) -> bool {
        self.lead.as_ref().is_some_and(|l| !l.reads.is_empty())
    }
}
