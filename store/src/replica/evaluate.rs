//! Requests at the leader: admission, evaluation against applied state plus overlay, proposal.
//!
//! Rules: E1 evaluate only with an entry of the own term applied; E3 nothing is
//! refused at apply, so everything is checked here; E4 a failed proposal leaves the overlay
//! untouched; E6 a reply waits for the entries that it saw; E11 the overlay is bounded.
//!
//! About E6: a reply without writes of its own must prove that this
//! replica led *when it evaluated*. Waiting for an entry proposed earlier does not prove that:
//! its acknowledgements may have been sent before the evaluation, and another leader may have
//! been elected in between. So such a reply needs a lease at evaluation, or an entry proposed
//! after it (this round's batch), or a ReadIndex round.

use super::{Completions, Ctx, Held, Pending, Replica, Sent, Waiter};
use crate::bugs::{self, Bug};
use crate::load::FirstKey;
use crate::metrics::{ReadPath, Refusal};
use crate::payload;
use bytes::Bytes;
use rangekv_model::eval::{Context, Txn, SEED_STEP};
use rangekv_proto::{Body, EvaluatorId, RequestError};
use std::sync::atomic::Ordering;

impl Replica {
    /// Handles a request; its response goes to the waiter's sink, now or later.
    pub fn request(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter) {
        if let Body::Admin(command) = &waiter.request.body {
            if let Some(reply) = self.own_reply(ctx, command) {
                return waiter.complete(Ok(reply));
            }
        }
        self.admit(ctx, waiter, false);
    }

    /// Checks leadership, term and epoch, and evaluates or proposes, or lets the request wait.
    /// `confirmed`: a ReadIndex round that began after the request arrived has shown that this
    /// replica leads.
    pub(super) fn admit(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter, confirmed: bool) {
        let Some(descriptor) = &self.descriptor else {
            let error = RequestError::RangeNotFound {
                range: self.range,
                store: self.store,
            };
            return self.refuse(waiter, Refusal::RangeNotFound, error);
        };
        let Some(lead) = self.lead.as_mut() else {
            if self.campaigns() {
                return self.wait(ctx, waiter);
            }
            let error = self.not_leader();
            return self.refuse(waiter, Refusal::NotLeader, error);
        };
        lead.active_ns = ctx.now.mono_ns;
        if waiter.request.term != 0 && waiter.request.term != lead.term {
            let error = self.not_leader();
            return self.refuse(waiter, Refusal::NotLeader, error);
        }
        if waiter.request.version != descriptor.epoch.version && !bugs::active(Bug::StaleEpoch) {
            let error = self.epoch_error(descriptor);
            return self.refuse(waiter, Refusal::Epoch, error);
        }
        if self.blocked() || (!self.waiting.is_empty() && !confirmed) {
            if bugs::active(Bug::ReadBeforeFirstEntry)
                && matches!(
                    waiter.request.body,
                    Body::Command {
                        read_only: true,
                        ..
                    }
                )
                && self.barrier.is_none()
            {
                return self.dispatch(ctx, waiter, true);
            }
            return self.wait(ctx, waiter);
        }
        self.dispatch(ctx, waiter, confirmed);
    }

    /// Keeps a request until it can be admitted anew, or refused for good.
    fn wait(&mut self, ctx: &Ctx<'_>, waiter: Waiter) {
        if self.waiting.len() >= ctx.config.waiting_max {
            let error = RequestError::Busy {
                reason: format!(
                    "{} requests wait in range {}",
                    self.waiting.len(),
                    self.range
                ),
                retry_after_ms: 50,
            };
            return self.refuse(waiter, Refusal::Blocked, error);
        }
        self.waiting.push_back(waiter);
    }

    /// Whether a leader's requests must wait: it has yet to apply an entry of its term (E1), a
    /// split or a step of a merge is on its way (E3), the range is frozen for a merge, or leadership
    /// is being transferred.
    fn blocked(&self) -> bool {
        let ready = self.lead.as_ref().is_some_and(|l| l.ready);
        !ready
            || self.barrier.is_some()
            || self.is_frozen()
            || self.handover().is_some()
            || self.raw.raft.lead_transferee.is_some()
    }

    /// Whether requests waited for something that is over.
    pub fn has_unblocked(&self) -> bool {
        self.lead.is_some() && !self.waiting.is_empty() && !self.blocked()
    }

    /// Requests that waited, once nothing blocks them. The epoch may have changed meanwhile,
    /// so each is admitted anew.
    pub fn take_unblocked(&mut self) -> Vec<Waiter> {
        if self.has_unblocked() {
            self.waiting.drain(..).collect()
        } else {
            Vec::new()
        }
    }

    fn dispatch(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter, confirmed: bool) {
        match &waiter.request.body {
            Body::Command {
                evaluator,
                read_only,
                command,
            } => {
                let (evaluator, read_only, command) = (*evaluator, *read_only, command.clone());
                self.evaluate(ctx, waiter, evaluator, read_only, command, confirmed);
            }
            Body::Admin(command) => {
                let command = command.clone();
                self.propose_admin(ctx, waiter, &command, confirmed);
            }
            Body::Heartbeat(_) => {
                let why = "a heartbeat is for the placement driver, not for a replica";
                let error = RequestError::Invalid(why.into());
                self.refuse(waiter, Refusal::Invalid, error);
            }
            Body::PubSub(_) => {
                let why = "a Pub/Sub message is for a node's doors, not for a replica";
                let error = RequestError::Invalid(why.into());
                self.refuse(waiter, Refusal::Invalid, error);
            }
        }
    }

    /// Evaluates a command; see [`admit`](Self::admit) for `confirmed`.
    fn evaluate(
        &mut self,
        ctx: &mut Ctx<'_>,
        waiter: Waiter,
        evaluator: EvaluatorId,
        read_only: bool,
        command: Bytes,
        confirmed: bool,
    ) {
        let Some(model) = ctx.evaluators.get(evaluator) else {
            let error =
                RequestError::Invalid(format!("no evaluator {} in this version", evaluator.0));
            return self.refuse(waiter, Refusal::Invalid, error);
        };
        if !read_only {
            if ctx.disk_full {
                let error = RequestError::Busy {
                    reason: "the disk is full: free space on the leader's store".into(),
                    retry_after_ms: 1000,
                };
                return self.refuse(waiter, Refusal::DiskFull, error);
            }
            if self.overlay.bytes() > ctx.config.overlay_bytes_max {
                let error = RequestError::Busy {
                    reason: format!(
                        "{} bytes of writes in flight in range {}",
                        self.overlay.bytes(),
                        self.range
                    ),
                    retry_after_ms: 50,
                };
                return self.refuse(waiter, Refusal::Overlay, error);
            }
        }
        let descriptor = self
            .descriptor
            .as_ref()
            .expect("only an initialised replica leads");
        let now_ms = ctx.now.wall_ms.max(self.clock_ms);
        let lead = self.lead.as_mut().expect("only a leader evaluates");
        lead.memory.begin();
        let context = Context {
            now_ms,
            seed: ctx.next().wrapping_mul(SEED_STEP),
            start: crate::meta::user_start(&descriptor.start),
            end: match bugs::active(Bug::ScanNotClipped) {
                true => &[],
                false => &descriptor.end,
            },
        };
        let view = self.overlay.over(&**ctx.engine);
        let first = FirstKey::of(&view);
        let mut txn = match self.cell.is_sampled() {
            true => Txn::new(&first),
            false => Txn::new(&view),
        };
        let remembered = lead
            .memory
            .over(self.range, descriptor.epoch.version, lead.term);
        txn = txn.with_watches(&remembered);
        let reply = model.evaluate(&context, &command, &mut txn);
        *ctx.counter += u64::from(txn.seeds() - 1);
        let watched = txn.take_watched();
        let writes = txn.into_writes();
        if let Some(key) = first.into_key() {
            self.cell.samples.add(key);
        }
        ctx.metrics.commands.increment();

        if let Some(key) = writes
            .keys()
            .find(|k| !descriptor.contains(k) || !(1..0xff).contains(&k[0]))
        {
            tracing::error!(
                range = self.range.0,
                ?key,
                "an evaluation wrote outside its range; dropped"
            );
            let error = RequestError::Invalid(format!(
                "the command writes {key:?}, outside range {}",
                self.range
            ));
            return self.refuse(waiter, Refusal::Invalid, error);
        }
        lead.memory.end(&**model, &writes, watched);

        if writes.is_empty() {
            self.cell.worker_reads.fetch_add(1, Ordering::Relaxed);
        }
        let leased = confirmed || self.lease_valid(ctx.now);
        if !writes.is_empty() {
            self.cell.writes.fetch_add(1, Ordering::Relaxed);
            // The clock must not run back below a time by which something was decided (E10).
            self.clock_ms = now_ms;
            self.overlay.add(writes);
            if bugs::active(Bug::ReplyBeforeCommit) {
                return waiter.complete(Ok(reply));
            }
            self.reply_with_batch(ctx, waiter, reply, true);
            // Raft takes no proposal while its Ready is being handled.
            if self.overlay.batch_bytes() > ctx.config.entry_bytes_max && self.in_ready.is_none() {
                self.propose_batch(ctx);
            }
        } else if (leased && self.overlay.is_empty())
            || bugs::active(Bug::DirtyRefusal) && !read_only
        {
            ctx.metrics.reads.of(ReadPath::Worker).increment();
            ctx.answers.push((waiter.sink, waiter.token, Ok(reply)));
        } else if self.overlay.has_batch() {
            self.reply_with_batch(ctx, waiter, reply, false);
        } else if (leased || bugs::active(Bug::ReadBehindOldEntry)) && !self.overlay.is_empty() {
            let index = self.raw.raft.raft_log.last_index();
            let Waiter { sink, token, .. } = waiter;
            self.pending.push_back(Pending {
                index,
                writes: false,
                reply,
                sink,
                token,
            });
        } else {
            ctx.metrics.reads.of(ReadPath::ReadIndex).increment();
            let seen = match self.overlay.is_empty() {
                true => 0,
                false => self.raw.raft.raft_log.last_index(),
            };
            let answer = (!bugs::active(Bug::ReadOvertaken)).then_some((reply, seen));
            self.hold(waiter, answer);
        }
    }

    /// Admits the request again once a ReadIndex round has shown that this replica leads.
    pub(crate) fn read_after_round(&mut self, waiter: Waiter) {
        self.hold(waiter, None);
    }

    fn hold(&mut self, waiter: Waiter, answer: Option<(Bytes, u64)>) {
        let lead = self.lead.as_mut().expect("only a leader evaluates");
        lead.reads.push(Held { waiter, answer });
    }

    fn reply_with_batch(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter, reply: Bytes, writes: bool) {
        let index = self.raw.raft.raft_log.last_index() + 1;
        self.reply_at(ctx, index, waiter, reply, writes);
    }

    /// Whether a local read at `now` is linearizable.
    pub fn lease_valid(&self, now: crate::event::Now) -> bool {
        self.lead
            .as_ref()
            .is_some_and(|l| l.ready && !l.lease_forbidden)
            && !self.is_frozen()
            && now.mono_ns < self.cell.lease_until_ns()
    }

    /// Proposes this round's writes as one entry.
    pub fn propose_batch(&mut self, ctx: &mut Ctx<'_>) {
        if !self.overlay.has_batch() {
            return;
        }
        let data = payload::encode_data(self.clock_ms, self.overlay.batch());
        let propose = |raw: &mut raft::RawNode<_>| {
            // Followers learn of its commit with the next entry or heartbeat: telling each of
            // them at once would double the messages of a group with few writes.
            raw.skip_bcast_commit(true);
            raw.propose(Vec::new(), data)
        };
        match self.propose(ctx, propose) {
            Some(index) => self.overlay.proposed(index),
            None => {
                self.overlay.drop_batch();
                let next = self.raw.raft.raft_log.last_index() + 1;
                let error = self.not_leader();
                while self.pending.back().is_some_and(|p| p.index == next) {
                    let p = self.pending.pop_back().expect("just seen");
                    ctx.metrics.refused.of(Refusal::Raft).increment();
                    p.sink.complete(p.token, Err(error.clone()));
                }
            }
        }
    }

    /// Appends one entry through `raft`; `None` if raft dropped it, and then nothing changed.
    pub(crate) fn propose(
        &mut self,
        ctx: &mut Ctx<'_>,
        raft: impl FnOnce(&mut raft::RawNode<crate::storage::GroupStorage>) -> raft::Result<()>,
    ) -> Option<u64> {
        assert!(
            self.is_leader() && self.lead.is_some(),
            "only a leader proposes"
        );
        let before = self.raw.raft.raft_log.last_index();
        // Splits, merges and membership changes are waited for by more than the leader.
        self.raw.skip_bcast_commit(false);
        if let Err(e) = raft(&mut self.raw) {
            tracing::debug!(range = self.range.0, %e, "proposal dropped");
            return None;
        }
        let index = self.raw.raft.raft_log.last_index();
        assert_eq!(index, before + 1, "a proposal appends exactly one entry");
        let lead = self.lead.as_mut().expect("asserted above");
        lead.sends.push_back(Sent {
            index,
            sent_ns: ctx.now.mono_ns,
            durable_ns: None,
        });
        lead.proposed = index;
        ctx.metrics.proposals.increment();
        Some(index)
    }

    /// Appends an entry's reply to the queue of those that wait. `writes`: losing the
    /// entry leaves the outcome unknown.
    pub(crate) fn reply_at(
        &mut self,
        ctx: &mut Ctx<'_>,
        index: u64,
        waiter: Waiter,
        reply: Bytes,
        writes: bool,
    ) {
        let Waiter {
            request,
            sink,
            token,
        } = waiter;
        ctx.traces
            .waits_for(request.mark, self.range, index, ctx.now.mono_ns);
        self.pending.push_back(Pending {
            index,
            writes,
            reply,
            sink,
            token,
        });
    }

    /// Blocks requests until the entry at `index` is applied.
    pub(crate) fn raise_barrier(&mut self, index: u64) {
        assert!(self.barrier.is_none(), "two barriers at once");
        self.barrier = Some(index);
    }

    /// The split, or the step of a merge, is applied.
    pub(crate) fn lower_barrier(&mut self) {
        self.barrier = None;
    }

    /// Whether a split, or a step of a merge, is on its way.
    pub(crate) fn has_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// Moves the replies that the entries up to `index` release.
    pub(super) fn release(&mut self, index: u64, out: &mut Completions) {
        while self.pending.front().is_some_and(|p| p.index <= index) {
            let p = self.pending.pop_front().expect("just seen");
            out.push((p.sink, p.token, Ok(p.reply)));
        }
    }
}
