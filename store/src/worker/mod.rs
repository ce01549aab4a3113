//! The owner of a store's replicas: one loop, a closed list of events, no clock and no socket.
//!
//! A driver calls [`Worker::handle`] for each event that has arrived, then one round:
//! [`begin_round`](Worker::begin_round), [`sync`](Worker::sync) if it says so, and
//! [`finish_round`](Worker::finish_round). All groups share the round's log write and sync;
//! what arrives meanwhile waits for the next round, and that is the group commit. Instead of a sync
//! the round may get [`sync_later`](Worker::sync_later): then other threads sync, and rounds go on.
//! The steps of a round are those of [`crate::replica::ready`].
//!
//! Files: [`lifecycle`](self) messages, creation and destruction of replicas; merges; recovery; log
//! collection; measuring; quiescence of groups, and liveness of stores.
//!
//! Invariants: at most one replica per range id, ever (I14); initialised ranges are disjoint
//! (I2); a range runs only if its descriptor is in the state engine (I6).

mod collect;
mod lifecycle;
mod measure;
mod merge;
mod quiesce;
mod recovery;

pub use recovery::StartError;

use self::measure::{lap, observe};
use self::quiesce::Neighbours;
use crate::bugs::{self, Bug};
use crate::config::{Config, DrawElectionTicks};
use crate::engine::{StateEngine, WriteBatch};
use crate::event::{Event, Now, Outbox};
use crate::log::{GroupLog, RaftLog, SyncJob, Tombstone};
use crate::meta::{MergedInto, Merging};
use crate::metrics::{MessageDrop, Refusal, SnapshotEvent, Wake};
use crate::replica::ready::Round;
use crate::replica::{Completions, Ctx, Replica, Waiter};
use crate::shared::StoreShared;
use crate::trace::Traces;
use crate::wire::Envelope;
use rangekv_model::eval::Evaluator;
use rangekv_proto::{
    EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplicaId, ReplySink, Request, RequestError,
    StoreId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The data models, by [`EvaluatorId`].
#[derive(Clone, Default)]
pub struct Evaluators(Arc<BTreeMap<u8, Arc<dyn Evaluator>>>);

impl Evaluators {
    /// Models and their ids.
    pub fn new(models: impl IntoIterator<Item = (EvaluatorId, Arc<dyn Evaluator>)>) -> Self {
        Evaluators(Arc::new(
            models.into_iter().map(|(id, e)| (id.0, e)).collect(),
        ))
    }

    /// The model with this id.
    pub fn get(&self, id: EvaluatorId) -> Option<&Arc<dyn Evaluator>> {
        self.0.get(&id.0)
    }
}

/// What a driver may see of one replica.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// The range.
    pub range: RangeId,
    /// This store's replica.
    pub replica: ReplicaId,
    /// `None` while uninitialised.
    pub descriptor: Option<RangeDescriptor>,
    /// Whether it leads.
    pub is_leader: bool,
    /// Raft term.
    pub term: u64,
    /// Raft commit index.
    pub committed: u64,
    /// Applied index, and the term of its entry.
    pub applied: (u64, u64),
    /// Last log index.
    pub last_index: u64,
    /// Log is compacted up to here.
    pub truncated: u64,
    /// Who leads.
    pub leader: Option<LeaderHint>,
    /// Whether a local read at the given time would be answered.
    pub leased: bool,
    /// Part in a merge.
    pub merging: Option<Merging>,
    /// Whether a merge keeps bounds and members as they are.
    pub pinned: bool,
    /// Whether it is quiesced.
    pub quiesced: bool,
}

/// Ticks between two looks of a leader at how far its replicas are.
const PROGRESS_TICKS: u64 = 5;

/// See the module's documentation.
pub struct Worker {
    config: Config,
    draw: DrawElectionTicks,
    engine: Arc<dyn StateEngine>,
    log: Box<dyn RaftLog>,
    shared: Arc<StoreShared>,
    evaluators: Evaluators,
    replicas: BTreeMap<RangeId, Replica>,
    tombstones: BTreeMap<RangeId, Tombstone>,
    /// Groups found in the log whose range has no descriptor yet.
    dormant: BTreeMap<RangeId, GroupLog>,
    /// First votes for ranges that a split is about to create here, by range.
    parked: BTreeMap<RangeId, (StoreId, Envelope)>,
    dirty: BTreeSet<RangeId>,
    /// Replicas that are not quiesced, and so are ticked.
    awake: BTreeSet<RangeId>,
    neighbours: Neighbours,
    outbox: Vec<(StoreId, Envelope)>,
    /// Ranges born in this round.
    born: Vec<RangeDescriptor>,
    /// Ranges whose part in a merge has changed in this round.
    noted: Vec<RangeId>,
    /// Ranges that take part in a merge now, or may soon: looked at in each round.
    attending: BTreeSet<RangeId>,
    /// Ranges whose snapshot the next round installs.
    installing: BTreeSet<RangeId>,
    /// A merge can go on.
    poked: bool,
    /// Messages that wait for the next sync.
    after_sync: Vec<(StoreId, Envelope)>,
    /// Ranges that were merged into others on this store.
    merged: BTreeMap<RangeId, MergedInto>,
    /// Those of them whose log is kept, as a crash may bring them back.
    unburied: BTreeSet<RangeId>,
    in_round: bool,
    /// What the round's second half may rely on.
    durable: Durable,
    /// Ranges with Readys that wait for a sync which no round waits for.
    unsynced: BTreeSet<RangeId>,
    next_tick_ns: u64,
    ticks: u64,
    vote_ban_until_ns: u64,
    disk_full: bool,
    draining: bool,
    durable_generation: Option<u64>,
    counter: u64,
    /// Replies that wait for nothing but the others of this round.
    answers: Completions,
    /// Asked for durations, which decide nothing.
    stopwatch: Option<Stopwatch>,
    /// What the next round begins with.
    taken: Taken,
    /// When this round's entries were staged.
    staged_ns: Option<u64>,
    /// When those were that another thread syncs, by the job's sequence.
    staged_before: VecDeque<(u64, Option<u64>)>,
    /// Traced requests under way.
    traces: Traces,
}

/// How far the log of a round is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Durable {
    /// All that has to be.
    Yes,
    /// Not at all: [`Worker::sync`] or [`Worker::sync_later`] comes next.
    Wanted,
    /// When the job of this sequence has succeeded.
    Later(u64),
}

/// Gives monotonic nanoseconds.
pub type Stopwatch = Box<dyn FnMut() -> u64 + Send>;

/// Events since the last round.
#[derive(Default)]
struct Taken {
    events: u64,
    requests: u64,
    began_ns: u64,
}

macro_rules! ctx {
    ($self:ident, $now:expr) => {
        Ctx {
            now: $now,
            config: &$self.config,
            engine: &$self.engine,
            evaluators: &$self.evaluators,
            metrics: &$self.shared.metrics,
            disk_full: $self.disk_full,
            counter: &mut $self.counter,
            answers: &mut $self.answers,
            traces: &mut $self.traces,
        }
    };
}
use ctx;

impl Worker {
    /// Takes one event. May evaluate, step raft and queue messages; nothing leaves before the
    /// next round, except responses that need none.
    pub fn handle(&mut self, now: Now, event: Event) {
        assert!(!self.in_round, "no event between the halves of a round");
        if self.taken.events == 0 {
            self.taken.began_ns = now.mono_ns;
        }
        self.taken.events += 1;
        match event {
            Event::Request {
                request,
                sink,
                token,
                arrived_ns,
            } => {
                if request.mark.is_some() {
                    let taken_ns = self.taken.began_ns;
                    self.traces
                        .begin(request.mark, request.range, arrived_ns, taken_ns);
                }
                self.request(now, request, sink, token);
            }
            Event::Raft { from, envelopes } => {
                self.heard(now, from);
                match crate::wire::decode(envelopes) {
                    Ok(envelopes) => {
                        for e in envelopes {
                            self.envelope(now, from, e, None);
                        }
                    }
                    Err(e) => {
                        self.drop_message(MessageDrop::Malformed);
                        tracing::error!(from = from.0, %e, "dropped a frame");
                    }
                }
            }
            Event::SnapshotReceived { envelope, staged } => {
                self.count_snapshot(SnapshotEvent::Received);
                let from = StoreId(0);
                self.envelope(now, from, envelope, Some(staged));
            }
            Event::SnapshotSent { range, to, ok } => {
                self.count_snapshot(if ok {
                    SnapshotEvent::Sent
                } else {
                    SnapshotEvent::SendFailed
                });
                if let Some(r) = self.replicas.get_mut(&range) {
                    let status = if ok {
                        raft::SnapshotStatus::Finish
                    } else {
                        raft::SnapshotStatus::Failure
                    };
                    r.raw.store().snapshot_done(to);
                    r.raw.report_snapshot(to.0, status);
                    r.after_step(now);
                    self.dirty.insert(range);
                }
            }
            Event::Unreachable(store) => {
                for (range, r) in &mut self.replicas {
                    let peer = r
                        .descriptor
                        .as_ref()
                        .and_then(|d| d.replica_on(store))
                        .map(|p| p.id);
                    // A quiesced leader finds out when it wakes.
                    let leads = r.is_leader() && !r.is_quiesced();
                    if let (true, Some(peer)) = (leads, peer) {
                        r.raw.report_unreachable(peer.0);
                        self.dirty.insert(*range);
                    }
                }
            }
            Event::Initialise(descriptors) => self.initialise(now, descriptors),
            Event::DiskFull(full) => self.disk_full = full,
            Event::Synced { sequence, took_ns } => self.synced(now, sequence, took_ns),
            Event::Drain => self.leave(now),
        }
    }

    fn request(&mut self, now: Now, request: Request, sink: Arc<dyn ReplySink>, token: u64) {
        let range = request.range;
        self.taken.requests += 1;
        self.note_contact(range);
        let Some(replica) = self.replicas.get_mut(&range) else {
            let error = self.not_here(range);
            let reason = match &error {
                RequestError::EpochNotMatch { .. } => Refusal::Epoch,
                _ => Refusal::RangeNotFound,
            };
            self.shared.metrics.refused.of(reason).increment();
            return sink.complete(token, Err(error));
        };
        let mut ctx = ctx!(self, now);
        replica.request(
            &mut ctx,
            Waiter {
                request,
                sink,
                token,
            },
        );
        if !replica.merges_asked.is_empty() {
            self.attending.insert(range);
        }
        self.wake_if_disturbed(now, range, Wake::Request);
        self.dirty.insert(range);
    }

    /// The first half of a round, up to the log write. Messages in `out` may leave at once.
    /// Returns whether [`sync`](Self::sync) must come before [`finish_round`](Self::finish_round).
    pub fn begin_round(&mut self, now: Now, out: &mut Outbox) -> bool {
        assert!(!self.in_round, "a round within a round");
        self.in_round = true;
        complete(&mut self.answers);
        let ticked = self.tick(now);
        let began_ns = self.begin_measuring();
        self.drive_merges(now, ticked);
        self.make_way();
        self.wake_all_disturbed(now);
        out.envelopes.append(&mut self.outbox);

        let dirty: Vec<RangeId> = std::mem::take(&mut self.dirty).into_iter().collect();
        let mut ctx = ctx!(self, now);
        let mut round = Round {
            batch: WriteBatch::default(),
            completions: Vec::new(),
            log: &mut *self.log,
            out,
            must_sync: !self.after_sync.is_empty(),
            born: Vec::new(),
            noted: Vec::new(),
            tombstones: &self.tombstones,
        };
        let mut taking_part = Vec::with_capacity(dirty.len());
        for range in dirty {
            let Some(r) = self.replicas.get_mut(&range) else {
                continue;
            };
            r.send_unheld(round.out);
            for waiter in r.take_unblocked() {
                r.request(&mut ctx, waiter);
            }
            if !r.merges_asked.is_empty() {
                round.noted.push(range);
            }
            if r.is_leader() {
                r.propose_batch(&mut ctx);
                r.start_read_round(&mut ctx);
            }
            if r.begin_ready(&mut ctx, &mut round) {
                taking_part.push(range);
            }
        }
        let wrote = write_batch(&mut ctx, &mut round);
        self.staged_ns = lap(&mut self.stopwatch);
        ctx.traces.visible(began_ns, self.staged_ns);
        ctx.traces.staged(self.staged_ns);
        if wrote {
            observe(&ctx.metrics.write.apply, began_ns, self.staged_ns);
        }
        for range in &taking_part {
            let r = self
                .replicas
                .get_mut(range)
                .expect("no replica goes within a round");
            r.send_and_log(&mut ctx, &mut round);
        }
        let mut must_sync = round.must_sync;
        self.born = round.born;
        self.noted = round.noted;
        if !self.unsynced.is_empty() && !self.is_plain(&taking_part) {
            // All that is under way comes first.
            must_sync = true;
        }
        self.durable = match must_sync {
            true => Durable::Wanted,
            false => Durable::Yes,
        };
        if !taking_part.is_empty() {
            let groups = taking_part.len() as u64;
            self.shared.metrics.round_groups.observe(groups);
        }
        // Taking part again is cheap, and catches what the second half leaves behind.
        self.dirty.extend(taking_part);
        if self.log.has_staged() {
            self.write_log();
        }
        must_sync
    }

    /// Makes the round's log write durable, and all that other threads have not yet. Blocks. A
    /// failure ends the process: the pages are gone, and a second sync would lie.
    pub fn sync(&mut self, now: Now) {
        assert!(self.in_round, "sync outside a round");
        if !bugs::active(Bug::ReplyBeforeSync) {
            self.sync_log();
        }
        self.durable = Durable::Yes;
        for range in std::mem::take(&mut self.unsynced) {
            if let Some(r) = self.replicas.get_mut(&range) {
                r.persisted_in_round(now);
                self.dirty.insert(range);
            }
        }
    }

    /// Instead of [`sync`](Self::sync): a job for another thread, to be followed by
    /// [`Event::Synced`] when it has succeeded, and by the end of the process when it has not.
    /// `None` if this round must wait for the disk.
    pub fn sync_later(&mut self) -> Option<SyncJob> {
        assert_eq!(
            self.durable,
            Durable::Wanted,
            "a sync that nobody waits for"
        );
        if !self.after_sync.is_empty() || !self.is_plain(&self.dirty) {
            return None;
        }
        let job = self.log.sync_job();
        let job = job.unwrap_or_else(|e| crate::fatal("syncing the raft log", &e))?;
        self.durable = Durable::Later(job.sequence);
        let staged_ns = self.staged_ns.take();
        self.staged_before.push_back((job.sequence, staged_ns));
        self.traces.syncs(job.sequence);
        Some(job)
    }

    fn is_plain<'a>(&self, taking_part: impl IntoIterator<Item = &'a RangeId>) -> bool {
        let mut replicas = taking_part
            .into_iter()
            .filter_map(|range| self.replicas.get(range));
        replicas.all(Replica::is_plain)
    }

    /// A job of [`sync_later`](Self::sync_later) has succeeded.
    fn synced(&mut self, now: Now, sequence: u64, took_ns: u64) {
        self.log
            .synced(sequence)
            .unwrap_or_else(|e| crate::fatal("collecting the raft log", &e));
        self.measure_job(now, sequence, took_ns);
        let replicas = &mut self.replicas;
        let dirty = &mut self.dirty;
        self.unsynced.retain(|range| {
            let Some(r) = replicas.get_mut(range) else {
                return false;
            };
            r.persisted(now, sequence);
            dirty.insert(*range);
            r.has_unsynced()
        });
    }

    /// The second half: acknowledges what is durable, applies what that commits.
    pub fn finish_round(&mut self, now: Now, out: &mut Outbox) {
        assert!(self.in_round, "finish_round without begin_round");
        let durable = std::mem::replace(&mut self.durable, Durable::Yes);
        assert_ne!(durable, Durable::Wanted, "finish_round without sync");
        let later = match durable {
            Durable::Later(sequence) => Some(sequence),
            _ => None,
        };
        let mut ctx = ctx!(self, now);
        let mut round = Round {
            batch: WriteBatch::default(),
            completions: Vec::new(),
            log: &mut *self.log,
            out,
            must_sync: false,
            born: std::mem::take(&mut self.born),
            noted: std::mem::take(&mut self.noted),
            tombstones: &self.tombstones,
        };
        let taking_part: Vec<RangeId> = self.dirty.iter().copied().collect();
        let began_ns = lap(&mut self.stopwatch);
        for range in &taking_part {
            if let Some(r) = self.replicas.get_mut(range) {
                match r.defer(&mut ctx, &mut round, later) {
                    true => drop(self.unsynced.insert(*range)),
                    false => r.advance(&mut ctx, &mut round),
                }
            }
        }
        if write_batch(&mut ctx, &mut round) {
            let now_ns = lap(&mut self.stopwatch);
            observe(&ctx.metrics.write.apply, began_ns, now_ns);
            ctx.traces.visible(began_ns, now_ns);
        }
        for range in &taking_part {
            if let Some(r) = self.replicas.get_mut(range) {
                r.finish_ready(&mut ctx, &mut round);
                r.after_step(now);
                r.continue_handover(now);
            }
        }
        let (born, noted) = (round.born, round.noted);
        complete(&mut self.answers);
        self.in_round = false;
        for descriptor in born {
            self.start_split_off(now, descriptor);
        }
        self.send_synced(now, out);
        self.traces.take_done(out);
        self.attend(noted);
        self.absorb_waiting(now);
        let replicas = &self.replicas;
        self.dirty
            .retain(|r| replicas.get(r).is_some_and(|r| r.has_work()));
    }

    /// Whether a round would do something now, besides ticking.
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty()
            || !self.outbox.is_empty()
            || !self.after_sync.is_empty()
            || self.poked
    }

    /// Sends what waited for this round's sync.
    fn send_synced(&mut self, now: Now, out: &mut Outbox) {
        for (to, envelope) in std::mem::take(&mut self.after_sync) {
            if to == self.config.store {
                self.envelope(now, to, envelope, None);
            } else {
                out.envelopes.push((to, envelope));
            }
        }
    }

    /// Monotonic ns at which a round is due even if nothing happens.
    pub fn next_tick(&self) -> u64 {
        self.next_tick_ns
    }

    /// Ticks never come in bursts: after a stall the next one is a whole interval away.
    fn tick(&mut self, now: Now) -> bool {
        if now.mono_ns < self.next_tick_ns {
            return false;
        }
        self.next_tick_ns = now.mono_ns + self.config.tick_ms * 1_000_000;
        self.ticks += 1;
        self.traces.tick(now.mono_ns);
        self.tick_neighbours(now);
        self.quiesce_idle(now);
        let mut ctx = ctx!(self, now);
        for range in &self.awake {
            let Some(r) = self.replicas.get_mut(range) else {
                continue;
            };
            r.tick(now, &mut || (self.draw)(*range));
            if r.is_leader() && (self.draining || r.must_hand_over()) {
                let leaving = |store| quiesce::is_leaving(&self.neighbours, store);
                if let Some(to) = r.best_successor(&leaving) {
                    r.transfer_to(&mut ctx, to);
                }
            }
            // A leader that is asked something renews its lease in time.
            if r.is_leader() || r.has_work() {
                self.dirty.insert(*range);
            }
        }
        if self.ticks.is_multiple_of(PROGRESS_TICKS) {
            self.publish_progress();
        }
        if self.ticks.is_multiple_of(20) {
            self.collect_log();
            self.ask_whether_members(now);
        }
        true
    }

    /// This store.
    pub fn store(&self) -> StoreId {
        self.config.store
    }

    /// What other threads read.
    pub fn shared(&self) -> &Arc<StoreShared> {
        &self.shared
    }

    /// All replicas, by range id.
    pub fn groups(&self, now: Now) -> Vec<GroupView> {
        self.replicas
            .values()
            .map(|r| GroupView {
                range: r.range,
                replica: r.id,
                descriptor: r.descriptor.clone(),
                is_leader: r.is_leader(),
                term: r.raw.raft.term,
                committed: r.raw.raft.raft_log.committed,
                applied: (r.applied.index, r.applied.term),
                last_index: r.raw.raft.raft_log.last_index(),
                truncated: r.raw.store().truncated().0,
                leader: r.leader_hint(),
                leased: r.lease_valid(now),
                merging: r.merging().cloned(),
                pinned: r.is_pinned(),
                quiesced: r.is_quiesced(),
            })
            .collect()
    }

    /// Number of ranges led.
    pub fn leader_count(&self) -> usize {
        self.replicas.values().filter(|r| r.is_leader()).count()
    }

    /// A hash over a range's bounds, applied index and records: equal on replicas that have
    /// applied the same. `None` if this store has no initialised replica.
    pub fn state_hash(&self, range: RangeId) -> Option<u64> {
        let r = self.replicas.get(&range)?;
        let d = r.descriptor.as_ref()?;
        let mut hash = crc32fast::Hasher::new();
        hash.update(&d.encode());
        hash.update(&r.merging().map(Merging::encode).unwrap_or_default());
        let mut low = 0xcbf2_9ce4_8422_2325u64 ^ r.applied.index;
        let (start, end) = crate::meta::data_bounds(d);
        self.engine.scan(&start, &end, &mut |k, v| {
            for part in [k, v] {
                hash.update(&(part.len() as u64).to_be_bytes());
                hash.update(part);
                low = (low ^ part.len() as u64).wrapping_mul(0x100_0000_01b3);
            }
            std::ops::ControlFlow::Continue(())
        });
        Some(u64::from(hash.finalize()) << 32 | low & 0xffff_ffff)
    }

    /// Asserts the invariants of the worker and of each replica.
    pub fn check_invariants(&self) {
        let mut bounds: Vec<&RangeDescriptor> = Vec::new();
        for (range, r) in &self.replicas {
            assert!(
                !r.has_unsynced() || self.unsynced.contains(range),
                "range {range}: nobody tells it of its syncs"
            );
            assert_eq!(*range, r.range);
            r.check_invariants();
            bounds.extend(r.descriptor.as_ref());
            if let Some(t) = self.tombstones.get(range) {
                let planted = bugs::active(Bug::RemovedReplicaVotes);
                assert!(
                    planted || t.replica < r.id,
                    "range {range}: replica {} lives below its tombstone {}",
                    r.id,
                    t.replica
                );
            }
        }
        self.check_quiescence();
        bounds.sort_by(|a, b| a.start.cmp(&b.start));
        for pair in bounds.windows(2) {
            assert!(
                !pair[0].overlaps(pair[1]),
                "ranges overlap on a store: {:?} and {:?}",
                pair[0],
                pair[1]
            );
        }
    }
}

/// Step 5: makes applied state visible, then releases the replies that waited for it. Returns
/// whether there was something to make visible.
fn write_batch(ctx: &mut Ctx<'_>, round: &mut Round<'_>) -> bool {
    let wrote = !round.batch.is_empty();
    if wrote {
        ctx.engine.write(&round.batch);
        round.batch = WriteBatch::default();
    }
    complete(&mut round.completions);
    wrote
}

/// Answers, and then wakes those who wait: each once, not for every answer.
fn complete(completions: &mut Completions) {
    let mut sinks = Vec::with_capacity(completions.len());
    for (sink, token, response) in completions.drain(..) {
        sink.deposit(token, response);
        sinks.push(sink);
    }
    sinks.iter().for_each(|sink| sink.nudge());
}
