//! Raft's Ready, in numbered steps, on the synchronous path.
//!
//! A worker round handles the Ready of all its groups together:
//!
//! 1. take the Ready; until step 8 raft is not stepped, ticked or proposed to;
//! 2. install its snapshot: the state must be there before the log forgets what led to it;
//! 3. note confirmed ReadIndex rounds;
//! 4. apply its committed entries, which earlier rounds made durable, into the round's one batch;
//! 5. write the batch; applied state is now visible, and the replies that waited for it leave;
//! 6. send the leader's messages: followers write while we sync. Applied first, so that no
//!    commit index is advertised that we have not applied ourselves (I1). If the term or vote
//!    changed they wait for the sync (a single voter elects itself in one step), and so
//!    they do after an admin entry, whose commit must be durable first;
//! 7. stage entries and hard state in the log; the hard state always carries the commit, also
//!    when nothing else changed, so that the order of log records keeps a second membership change from being durable without the commit of the first.
//!    Then the worker writes and syncs once for all groups;
//! 8. `advance_append`: what is durable may now be acknowledged and counted;
//! 9. send the messages that had to wait for the sync;
//! 10. apply what has become committed meanwhile, as in 4 and 5, then send its messages;
//! 11. tell raft how far we have applied.
//!
//! Where syncs are slow the driver lets another thread do them, and the round ends without:
//! steps 8 to 10 of a plain Ready ([`Replica::is_plain`]) come when its sync has succeeded
//! ([`Replica::persisted`]), and later ones are handled meanwhile. Then
//!
//! - nothing of step 9 leaves before its own Ready and all before it are durable: they are
//!   released in their order, and one that needs no sync queues behind those that do;
//! - raft applies only what is durable here, and a leader may know of a commit before: what it
//!   advertises is capped at what it has applied (I1, `emit`);
//! - a Ready that is not plain waits for the disk as above, and all that is under way with it:
//!   terms, votes, roles, snapshots and admin entries never overtake a sync.

use super::{Completions, Ctx, Replica, Sent};
use crate::bugs::{self, Bug};
use crate::engine::WriteBatch;
use crate::event::{Now, Outbox, SnapshotToSend};
use crate::log::{RaftLog, Tombstone};
use crate::meta::{self, Applied};
use crate::metrics::{MessageDrop, SnapshotEvent};
use crate::storage::SnapshotData;
use crate::wire::{Envelope, Payload};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{LightReady, Ready};
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaId};
use std::collections::BTreeMap;

/// What a replica remembers between the halves of a round.
pub struct InReady {
    ready: Option<Ready>,
    light: Option<LightReady>,
    hold: bool,
    plain: bool,
    must_sync: bool,
}

/// A Ready that is handled but for the sync that it waits for.
pub(super) struct Unsynced {
    /// Of the log's job that makes it durable.
    sequence: u64,
    /// The Ready's.
    number: u64,
    /// Last index of its entries; 0 = it has none.
    last_index: u64,
    /// To be sent then.
    messages: Vec<Message>,
}

/// What one round collects from all groups.
pub struct Round<'a> {
    /// State writes, applied indexes included.
    pub batch: WriteBatch,
    /// Replies to send after the batch is written.
    pub completions: Completions,
    /// The log that the round writes to.
    pub log: &'a mut dyn RaftLog,
    /// Messages.
    pub out: &'a mut Outbox,
    /// Whether the log must be synced.
    pub must_sync: bool,
    /// Ranges split off in this round: their replicas start when the round is over.
    pub born: Vec<RangeDescriptor>,
    /// Ranges whose part in a merge has changed, or whose next entry is the commit of one.
    pub noted: Vec<RangeId>,
    /// Destroyed replicas of this store.
    pub tombstones: &'a BTreeMap<RangeId, Tombstone>,
}

impl Replica {
    /// Whether a round has something to do for this replica.
    pub fn has_work(&self) -> bool {
        self.raw.has_ready()
            || !self.held.is_empty()
            || !self.unheld.is_empty()
            || self.overlay.has_batch()
            || self.has_reads()
            || self.has_unblocked()
            || self.sync_first
            || self.can_apply()
    }

    /// The worker has applied an admin entry between rounds, and its batch is written.
    pub(crate) fn applied_between_rounds(&mut self) {
        self.state_written();
        self.sync_first = true;
        self.raw.advance_apply_to(self.applied.index);
        // The messages that told of this commit left before it was applied, and did not say so (I1).
        self.raw.ping();
    }

    /// Steps 1 to 4. Returns whether this replica takes part in the round.
    pub fn begin_ready(&mut self, ctx: &mut Ctx<'_>, round: &mut Round<'_>) -> bool {
        let sync_first = std::mem::take(&mut self.sync_first);
        if !self.raw.has_ready() && self.held.is_empty() && !sync_first && !self.can_apply() {
            return false;
        }
        // 1.
        let mut ready = self.raw.ready();
        let mut hold = !self.held.is_empty() || sync_first;
        self.raw.mut_store().snapshots_allowed = false;
        // 2.
        if !ready.snapshot().is_empty() {
            self.install_snapshot(ctx, &ready, round);
            hold = true;
        }
        // 3.
        self.confirm_rounds(ctx, ready.take_read_states());
        // 4.
        let committed = ready.take_committed_entries();
        if self.apply(ctx, committed, round) {
            hold = true;
        }
        let stored = self.raw.store().hard_state();
        if ready
            .hs()
            .is_some_and(|hs| hs.term != stored.term || hs.vote != stored.vote)
        {
            hold = true;
        }
        self.in_ready = Some(InReady {
            light: None,
            hold,
            plain: !hold && ready.ss().is_none(),
            must_sync: ready.must_sync(),
            ready: Some(ready),
        });
        true
    }

    /// Whether what is in the round does without a sync that the round waits for: nothing but entries,
    /// acknowledgements, and a commit index.
    pub fn is_plain(&self) -> bool {
        self.in_ready.as_ref().is_none_or(|r| r.plain)
    }

    /// Whether Readys before this round's wait for a sync.
    pub fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Instead of step 8, if this round's Ready has to wait for a sync that the round does not
    /// wait for: that of `sequence`, or, if it needs none itself, the one that the Ready before it
    /// waits for. Returns whether this is so.
    pub fn defer(
        &mut self,
        ctx: &mut Ctx<'_>,
        round: &mut Round<'_>,
        sequence: Option<u64>,
    ) -> bool {
        let Some(in_ready) = self.in_ready.as_mut() else {
            return false;
        };
        let before = self.unsynced.back().map(|unsynced| unsynced.sequence);
        let wanted = match in_ready.must_sync {
            true => sequence,
            false => before,
        };
        let Some(sequence) = wanted else {
            return false;
        };
        assert!(
            in_ready.plain && before.is_none_or(|before| before <= sequence),
            "range {}: a Ready overtakes a sync",
            self.range
        );
        let mut ready = in_ready.ready.take().expect("begin_ready put it there");
        let mut messages = ready.take_persisted_messages();
        if bugs::active(Bug::AckBeforeSync) {
            self.emit(std::mem::take(&mut messages), round.out);
        }
        self.unsynced.push_back(Unsynced {
            sequence,
            number: ready.number(),
            last_index: self.raw.store().last(),
            messages,
        });
        self.raw.mut_store().snapshots_allowed = true;
        self.raw.advance_append_async(ready);
        self.in_ready = None;
        // 11.
        self.raw.advance_apply_to(self.applied.index);
        self.serve_rounds(ctx);
        true
    }

    /// Step 8 of the Readys that waited for the sync of `sequence`. The rest of them comes in the
    /// next round.
    pub fn persisted(&mut self, now: Now, sequence: u64) {
        let (number, messages) = self.take_persisted(now, sequence);
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
            self.unheld.extend(messages);
        }
    }

    /// As [`persisted`](Self::persisted) in a round that has waited for the disk, before step 8
    /// of its own Ready, which says the same of all Readys before it.
    pub fn persisted_in_round(&mut self, now: Now) {
        if self.in_ready.is_none() {
            return self.persisted(now, u64::MAX);
        }
        let (_, messages) = self.take_persisted(now, u64::MAX);
        self.held.splice(0..0, messages);
    }

    /// Step 9 of the Readys that were persisted.
    pub fn send_unheld(&mut self, out: &mut Outbox) {
        let unheld = std::mem::take(&mut self.unheld);
        self.emit(unheld, out);
    }

    /// The number of the last Ready for which the sync of `sequence` is enough, and the messages
    /// that waited.
    fn take_persisted(&mut self, now: Now, sequence: u64) -> (Option<u64>, Vec<Message>) {
        let (mut number, mut messages) = (None, Vec::new());
        let enough = |unsynced: &Unsynced| unsynced.sequence <= sequence;
        while self.unsynced.front().is_some_and(enough) {
            let unsynced = self.unsynced.pop_front().expect("just seen");
            number = Some(unsynced.number);
            messages.extend(unsynced.messages);
            let sends = self.lead.iter_mut().flat_map(|lead| &mut lead.sends);
            sends
                .take_while(|sent| sent.index <= unsynced.last_index)
                .filter(|sent| sent.durable_ns.is_none())
                .for_each(|sent| sent.durable_ns = Some(now.mono_ns));
        }
        (number, messages)
    }

    /// Steps 6 and 7, after the worker has written the round's batch.
    pub fn send_and_log(&mut self, ctx: &mut Ctx<'_>, round: &mut Round<'_>) {
        self.state_written();
        let Some(mut in_ready) = self.in_ready.take() else {
            return;
        };
        let ready = in_ready.ready.as_mut().expect("begin_ready put it there");
        // 6.
        let messages = ready.take_messages();
        if in_ready.hold {
            self.held.extend(messages);
            round.must_sync = true;
        } else {
            self.emit(messages, round.out);
        }
        // 7.
        let entries = ready.take_entries();
        if !entries.is_empty() {
            ctx.metrics.log_entries.add(entries.len() as u64);
            round.log.append(self.range, &entries);
            self.raw.mut_store().append(&entries);
        }
        if let Some(hs) = ready.hs().cloned() {
            let stored = self.raw.store().hard_state();
            let vote_changed = hs.vote != stored.vote || hs.term != stored.term;
            if !(bugs::active(Bug::VoteNotSynced) && vote_changed) {
                round.log.set_hard_state(self.range, &hs);
            }
            self.raw.mut_store().set_hard_state(hs);
        }
        round.must_sync |= ready.must_sync();
        self.in_ready = Some(in_ready);
        self.serve_rounds(ctx);
    }

    /// Steps 8 to 10 up to the batch, after the worker has synced the log.
    pub fn advance(&mut self, ctx: &mut Ctx<'_>, round: &mut Round<'_>) {
        let Some(in_ready) = self.in_ready.as_mut() else {
            return;
        };
        assert!(
            self.unsynced.is_empty(),
            "range {}: step 8 while Readys before it wait for a sync",
            self.range
        );
        let mut ready = in_ready.ready.take().expect("begin_ready put it there");
        if let Some(lead) = self.lead.as_mut() {
            let fresh = |sent: &&mut Sent| sent.durable_ns.is_none();
            for sent in lead.sends.iter_mut().rev().take_while(fresh) {
                sent.durable_ns = Some(ctx.now.mono_ns);
            }
        }
        // 8.
        let persisted = ready.take_persisted_messages();
        self.raw.mut_store().snapshots_allowed = true;
        let mut light = self.raw.advance_append(ready);
        self.raw.mut_store().snapshots_allowed = false;
        // 9.
        let held = std::mem::take(&mut self.held);
        self.emit(held, round.out);
        self.emit(persisted, round.out);
        // 10.
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
            let hs = self.raw.store().hard_state().clone();
            round.log.set_hard_state(self.range, &hs);
        }
        let committed = light.take_committed_entries();
        let hold = self.apply(ctx, committed, round);
        let in_ready = self.in_ready.as_mut().expect("seen above");
        in_ready.hold = hold;
        in_ready.light = Some(light);
    }

    /// The rest of step 10, and step 11, after the worker has written the second batch.
    pub fn finish_ready(&mut self, ctx: &mut Ctx<'_>, round: &mut Round<'_>) {
        self.state_written();
        let Some(mut in_ready) = self.in_ready.take() else {
            return;
        };
        let mut light = in_ready.light.take().expect("advance put it there");
        let messages = light.take_messages();
        if in_ready.hold {
            // The next round syncs the commit index first, and then sends these.
            self.held.extend(messages);
        } else {
            self.emit(messages, round.out);
        }
        // 11.
        self.raw.advance_apply_to(self.applied.index);
        self.serve_rounds(ctx);
    }

    fn state_written(&mut self) {
        let store = self.raw.mut_store();
        store.applied = self.applied;
        store.snapshots_allowed = true;
    }

    fn install_snapshot(&mut self, ctx: &mut Ctx<'_>, ready: &Ready, round: &mut Round<'_>) {
        let snapshot = ready.snapshot();
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        let SnapshotData {
            clock_ms,
            merging,
            descriptor,
        } = SnapshotData::decode(&snapshot.data).expect("checked when the message was admitted");
        assert!(
            self.unapplied.is_empty(),
            "range {}: a snapshot while committed entries wait",
            self.range
        );
        let (staged_index, staged) = self
            .staged
            .take()
            .expect("a snapshot message is stepped with its records");
        assert_eq!(staged_index, index, "records of another snapshot");
        // No reader may validate against what is about to change (I12).
        self.cell.clear_lease();
        let mut clear = vec![meta::data_bounds(&descriptor)];
        if let Some(old) = &self.descriptor {
            clear.push(meta::data_bounds(old));
        }
        let applied = Applied {
            index,
            term,
            clock_ms: clock_ms.max(self.clock_ms),
        };
        let mut puts = WriteBatch::default();
        puts.put(meta::applied_key(self.range), applied.encode());
        puts.put(
            meta::descriptor_key(self.range),
            meta::encode_descriptor(self.id, &descriptor),
        );
        match &merging {
            Some(m) => puts.put(meta::merging_key(self.range), m.encode()),
            None => puts.delete(meta::merging_key(self.range)),
        }
        // What this range has absorbed goes in the same step in which its state comes.
        for merged in self.absorbed_by_snapshot.drain(..) {
            clear.push(meta::data_bounds(&merged.source));
            merged.bury(&mut puts);
        }
        ctx.engine.install(&clear, staged, &puts);
        let snapshots = &ctx.metrics.snapshots;
        snapshots.of(SnapshotEvent::Installed).increment();
        tracing::info!(
            group = self.range.0,
            index,
            node = self.store.0,
            "installed a snapshot"
        );
        self.applied = applied;
        self.clock_ms = applied.clock_ms;
        self.durable_applied = index;
        let hs = ready.hs().unwrap_or(self.raw.store().hard_state()).clone();
        round.log.reset(self.range, index, term, &hs);
        let store = self.raw.mut_store();
        store.applied = applied;
        store.reset(index, term);
        self.set_merging(merging);
        round.noted.push(self.range);
        self.set_descriptor(descriptor);
    }

    /// Wraps raft messages in envelopes.
    pub(super) fn emit(&mut self, messages: Vec<Message>, out: &mut Outbox) {
        for mut m in messages {
            let to = ReplicaId(m.to);
            let Some(store) = self.peers.get(&to).copied() else {
                let drops = &self.metrics.messages_dropped;
                drops.of(MessageDrop::Unsendable).increment();
                tracing::debug!(
                    range = self.range.0,
                    to = to.0,
                    "no store known for a replica"
                );
                continue;
            };
            let kind = m.get_msg_type();
            // Safety net for I1; apply-before-send leaves nothing to clamp but a bounded
            // `max_committed_size_per_ready` may.
            if m.commit > self.applied.index {
                m.commit = self.applied.index;
                if m.commit_term != 0 {
                    m.commit = 0;
                    m.commit_term = 0;
                }
            }
            let vote = matches!(
                kind,
                MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
            );
            let newcomer = self.is_leader()
                && self
                    .raw
                    .raft
                    .prs()
                    .get(m.to)
                    .is_some_and(|p| p.matched == 0);
            let bounds = match &self.descriptor {
                Some(d) if vote || newcomer => Some((d.start.clone(), d.end.clone())),
                _ => None,
            };
            let prepared = match kind {
                MessageType::MsgSnapshot => {
                    let index = m.get_snapshot().get_metadata().index;
                    match self.raw.store().take_prepared(to, index) {
                        Some(state) => Some(state),
                        None => {
                            self.raw
                                .report_snapshot(m.to, raft::SnapshotStatus::Failure);
                            continue;
                        }
                    }
                }
                _ => None,
            };
            // The bounds as the prepared state has them: a split or a merge may have been applied since.
            let range = prepared.is_some().then(|| {
                let data = SnapshotData::decode(&m.get_snapshot().data);
                data.expect("this replica made it").descriptor
            });
            let envelope = Envelope {
                range: self.range,
                from: self.id,
                to,
                epoch: self.epoch(),
                bounds,
                payload: Payload::Raft(m),
            };
            match prepared.zip(range) {
                Some((state, range)) => {
                    out.snapshots.push(SnapshotToSend {
                        to: store,
                        envelope,
                        range,
                        state,
                    });
                }
                None => out.envelopes.push((store, envelope)),
            }
        }
    }
}

/// Bytes of a raft message, for bounding what is kept.
pub fn message_bytes(m: &Message) -> usize {
    m.compute_size() as usize
}
