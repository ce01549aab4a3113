//! One machine: its clock, its disks, and the store that runs on it, when it runs.
//!
//! The store is the product's own [`Worker`] over the product's own log and the in-memory
//! engine. What the product's shell does around it (mailbox, sync, connections) is done here
//! in virtual time: while a sync is in progress, what arrives waits.

use crate::clock::Clock;
use crate::door::Front;
use crate::items::Items;
use crate::log::{DiskFailure, Mirror, ObservedLog, SharedMirror};
use crate::placement::Placement;
use crate::random::{stream_of, Fnv};
use crate::schedule::Time;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_model::redis::RedisModel;
use rangekv_pd::state::PlacementModel;
use rangekv_proto::{EvaluatorId, RangeId, ReplySink, Response, StoreId};
use rangekv_router::session::Config as DoorConfig;
use rangekv_store::config::Config;
use rangekv_store::engine::cached::Cached;
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::event::{Event, Now, Outbox};
use rangekv_store::log::disk::{Crash, SimDisk, Torn};
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::log::SyncJob;
use rangekv_store::reader::{LocalReader, PendingRead};
use rangekv_store::shared::StoreShared;
use rangekv_store::worker::{Evaluators, GroupView, Worker};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

/// For some dozens of records, so that some have to go.
const CACHE_BYTES: u64 = 12 << 10;

/// Sizes and times of the stores of one run.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Length of a raft tick, ms.
    pub tick_ms: u64,
    /// Least election timeout, ticks.
    pub election_ticks: usize,
    /// Time without a request after which a group may quiesce, ms.
    pub idle_ms: u64,
    /// Log kept per range, bytes.
    pub log_keep_bytes: u64,
    /// Log per range beyond which who lags gets a snapshot, bytes.
    pub log_max_bytes: u64,
    /// Size of a log segment, bytes.
    pub segment_bytes: u64,
    /// Share of the syncs that rounds do not wait for, where they need not.
    pub syncs_later: f64,
}

/// Responses that the store gave and that the simulation has not yet taken.
#[derive(Default)]
struct Responses(Mutex<Vec<(u64, Response)>>);

impl ReplySink for Responses {
    fn complete(&self, token: u64, response: Response) {
        self.0.lock().expect("one thread").push((token, response));
    }
}

/// The process.
pub struct Process {
    worker: Worker,
    reader: LocalReader,
    shared: Arc<StoreShared>,
    sink: Arc<Responses>,
    inbox: Vec<Event>,
    /// The first half of a round is done, its sync is not.
    pub syncing: bool,
    syncs_later: f64,
    /// Syncs that go on beside the rounds, by their sequence, and when they began.
    jobs: BTreeMap<u64, (SyncJob, Time)>,
    /// Until then the process is stopped, though it lives.
    pub paused_until: Time,
    /// When its next round is due.
    pub round_at: Option<Time>,
    /// Reads between their two steps.
    reads: BTreeMap<u64, PendingRead>,
    /// Where connections end.
    pub front: Front,
    /// Somebody misses a route.
    pub route_wanted: bool,
    /// Its part of the placement driver.
    pub placement: Placement,
}

/// See the module's documentation.
pub struct Node {
    /// The store on it.
    pub store: StoreId,
    /// Its clock.
    pub clock: Clock,
    /// The state engine, which outlives the process.
    pub engine: Arc<MemEngine>,
    /// The log's disk, which outlives the process.
    pub disk: SimDisk,
    /// What the log holds.
    pub mirror: SharedMirror,
    /// The process, while it runs.
    pub process: Option<Process>,
    /// Counts its processes: what was meant for one does not reach the next.
    pub incarnation: u64,
    /// Syncs take this long on average.
    pub sync_mean: Time,
    /// Lost for ever.
    pub wiped: bool,
    /// A flush in the background will be complete.
    pub flushing: bool,
    seed: u64,
    tuning: Tuning,
    door: DoorConfig,
}

/// What running a part of the store came to.
pub enum Ran<T> {
    /// It ran.
    Done(T),
    /// Its disk failed, and the process ended itself.
    Died(String),
}

fn guarded<T>(f: impl FnOnce() -> T) -> Ran<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Ran::Done(value),
        Err(cause) => match cause.downcast::<DiskFailure>() {
            Ok(failure) => Ran::Died(failure.0),
            Err(cause) => resume_unwind(cause),
        },
    }
}

impl Node {
    /// An empty machine, switched off.
    pub fn new(
        seed: u64,
        store: StoreId,
        clock: Clock,
        sync_mean: Time,
        tuning: Tuning,
        door: DoorConfig,
    ) -> Node {
        Node {
            store,
            clock,
            engine: Arc::new(MemEngine::new()),
            disk: SimDisk::new(),
            mirror: SharedMirror::default(),
            process: None,
            incarnation: 0,
            sync_mean,
            wiped: false,
            flushing: false,
            seed,
            tuning,
            door,
        }
    }

    fn config(&self) -> Config {
        let mut boot = Fnv::default();
        boot.number(self.store.0);
        boot.number(self.incarnation);
        Config {
            tick_ms: self.tuning.tick_ms,
            election_ticks: self.tuning.election_ticks,
            idle_ms: self.tuning.idle_ms,
            overlay_bytes_max: 64 << 10,
            waiting_max: 64,
            entry_bytes_max: 4 << 10,
            log_keep_bytes: self.tuning.log_keep_bytes,
            log_max_bytes: self.tuning.log_max_bytes,
            log_total_bytes_max: self.tuning.log_max_bytes * 64,
            catch_up_entries_max: 100,
            ..Config::new(self.store, boot.value())
        }
    }

    /// Starts the process over what is on the disks. The error is a finding.
    pub fn start(&mut self, now: Time) -> Result<(), String> {
        assert!(
            self.process.is_none() && !self.wiped,
            "store {} runs",
            self.store
        );
        self.incarnation += 1;
        let sizes = LogConfig {
            segment_bytes: self.tuning.segment_bytes,
            target_bytes: self.tuning.segment_bytes * 4,
        };
        let (log, recovered) = SegmentedLog::open(self.disk.clone(), sizes)
            .map_err(|e| format!("store {} can't open its log: {e}", self.store))?;
        self.check_recovered(&recovered)?;
        self.mirror = Arc::new(Mutex::new(Mirror::recovered(&recovered)));
        let log = Box::new(ObservedLog::new(log, self.mirror.clone()));
        let shared = Arc::new(StoreShared::default());
        let evaluators = Evaluators::new([
            (EvaluatorId::PLACEMENT, Arc::new(PlacementModel) as _),
            (EvaluatorId::REDIS, Arc::new(RedisModel) as _),
            (
                EvaluatorId::DYNAMO,
                Arc::new(Items(self.engine.clone())) as _,
            ),
        ]);
        let seed = self.seed ^ self.incarnation;
        let engine = Arc::new(Cached::new(self.engine.clone(), CACHE_BYTES, seed));
        let mut draws = stream_of(self.seed, "election", self.store.0 << 32 | self.incarnation);
        let least = self.tuning.election_ticks;
        let draw = Box::new(move |_: RangeId| draws.random_range(least..2 * least));
        let worker = Worker::recover(
            self.config(),
            draw,
            engine.clone(),
            log,
            recovered,
            shared.clone(),
            evaluators.clone(),
            self.clock.read(now),
        )
        .map_err(|e| format!("store {} can't start: {e}", self.store))?;
        let reader = LocalReader::new(shared.clone(), engine, evaluators);
        let front = Front::new(self.store, reader.clone(), shared.clone(), self.door);
        self.process = Some(Process {
            worker,
            reader,
            shared,
            sink: Arc::default(),
            inbox: Vec::new(),
            syncing: false,
            syncs_later: self.tuning.syncs_later,
            jobs: BTreeMap::new(),
            paused_until: 0,
            round_at: None,
            reads: BTreeMap::new(),
            front,
            route_wanted: false,
            placement: Placement::new(self.store),
        });
        Ok(())
    }

    /// What was durable must have been found again.
    fn check_recovered(&self, found: &rangekv_store::log::Recovered) -> Result<(), String> {
        let mirror = self.mirror.lock().expect("one thread");
        for (range, durable) in &mirror.durable {
            let Some(group) = found.groups.get(range) else {
                let buried = found.tombstones.contains_key(range);
                if durable.term > 0 && !buried {
                    return Err(format!("store {}: the log lost range {range}", self.store));
                }
                continue;
            };
            let hs = &group.hard_state;
            let forgotten = durable.vote != 0 && hs.vote != durable.vote;
            if hs.term < durable.term || hs.term == durable.term && forgotten {
                return Err(format!(
                    "store {}: range {range} had term {} and vote {} on disk, now {} and {}",
                    self.store, durable.term, durable.vote, hs.term, hs.vote
                ));
            }
        }
        Ok(())
    }

    /// Ends the process. What was not synced survives or not, as `rng` and the kind of crash
    /// will have it. Returns what was lost: state batches and log writes.
    pub fn crash(&mut self, now: Time, rng: &mut SmallRng, power_cut: bool) -> (usize, usize) {
        let Some(mut process) = self.process.take() else {
            return (0, 0);
        };
        if process.syncing && rng.random_bool(0.5) {
            // The sync was complete, but nobody has heard of it.
            let clock = self.clock.read(now);
            let _ = guarded(|| process.worker.sync(clock));
        }
        for (_, (job, _)) in std::mem::take(&mut process.jobs) {
            if rng.random_bool(0.3) {
                let _ = (job.work)();
            }
        }
        drop(process);
        let unflushed = self.engine.unflushed_batches();
        let keep = if rng.random_bool(0.5) {
            0
        } else {
            rng.random_range(0..=unflushed)
        };
        let batches = self.engine.crash(keep);
        if !power_cut {
            return (batches, 0);
        }
        let unsynced = self.disk.unsynced_writes();
        let keep = rng.random_range(0..=unsynced);
        let bytes = self.disk.last_unsynced_bytes();
        let torn = (keep == unsynced && bytes > 0 && rng.random_bool(0.8)).then(|| {
            let at = rng.random_range(0..bytes);
            if rng.random_bool(0.5) {
                Torn::Cut(at)
            } else {
                Torn::Zero(at)
            }
        });
        self.disk.crash(Crash { keep, torn });
        self.clock.reboot(now, rng.random_range(0..10_000_000_000));
        (batches, unsynced - keep)
    }

    /// The time on this machine.
    pub fn now(&self, now: Time) -> Now {
        self.clock.read(now)
    }

    /// The running process. Its absence is the caller's mistake.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process runs")
    }

    /// When the worker's next tick is due.
    pub fn next_tick(&self) -> Time {
        let process = self.process.as_ref().expect("the process runs");
        self.clock.when(process.worker.next_tick())
    }
}

impl Process {
    /// Ranges that it absorbed since it started.
    pub fn absorbed(&self) -> u64 {
        self.shared.metrics.merges.get()
    }

    /// Puts an event into the mailbox.
    pub fn deliver(&mut self, event: Event) {
        self.inbox.push(event);
    }

    /// A request of a client, to be answered under `token`.
    pub fn request(&mut self, request: rangekv_proto::Request, token: u64) {
        let sink: Arc<dyn ReplySink> = self.sink.clone();
        self.inbox.push(Event::Request {
            request,
            sink,
            token,
            arrived_ns: 0,
        });
    }

    /// Whether a round has something to do now.
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty() || self.worker.has_work()
    }

    /// Takes what is in the mailbox, and does the first half of a round.
    pub fn begin(&mut self, now: Now, out: &mut Outbox) -> Ran<bool> {
        let inbox = std::mem::take(&mut self.inbox);
        guarded(|| {
            for event in inbox {
                self.worker.handle(now, event);
                self.worker.check_invariants();
            }
            let must_sync = self.worker.begin_round(now, out);
            self.syncing = true;
            must_sync
        })
    }

    /// The sync of a round completes.
    pub fn sync(&mut self, now: Now) -> Ran<()> {
        guarded(|| self.worker.sync(now))
    }

    /// Lets the sync of a round go on beside the next ones, if it may: its sequence.
    pub fn sync_later(&mut self, now: Time) -> Ran<Option<u64>> {
        guarded(|| {
            let job = self.worker.sync_later()?;
            let sequence = job.sequence;
            self.jobs.insert(sequence, (job, now));
            Some(sequence)
        })
    }

    /// Such a sync completes.
    pub fn end_job(&mut self, now: Time, sequence: u64) -> Ran<()> {
        let Some((job, began)) = self.jobs.remove(&sequence) else {
            return Ran::Done(());
        };
        if let Err(error) = (job.work)() {
            return Ran::Died(error.to_string());
        }
        let took_ns = now - began;
        self.inbox.push(Event::Synced { sequence, took_ns });
        Ran::Done(())
    }

    /// Share of the syncs that rounds need not wait for that they don't.
    pub fn syncs_later(&self) -> f64 {
        self.syncs_later
    }

    /// The second half of a round.
    pub fn finish(&mut self, now: Now, out: &mut Outbox) -> Ran<()> {
        self.syncing = false;
        guarded(|| {
            self.worker.finish_round(now, out);
            self.worker.check_invariants();
        })
    }

    /// Responses given since the last call.
    pub fn take_responses(&mut self) -> Vec<(u64, Response)> {
        std::mem::take(&mut *self.sink.0.lock().expect("one thread"))
    }

    /// The first step of a local read; whether there will be a second.
    pub fn begin_read(&mut self, now: Now, token: u64, request: &rangekv_proto::Request) -> bool {
        let rangekv_proto::Body::Command {
            evaluator,
            read_only: true,
            command,
        } = &request.body
        else {
            return false;
        };
        let pending = self
            .reader
            .begin(request.range, request.version, *evaluator, command, now);
        let begun = pending.is_some();
        self.reads.extend(pending.map(|read| (token, read)));
        begun
    }

    /// The second step: the reply, if the read was linearizable.
    pub fn validate_read(&mut self, now: Now, token: u64) -> Option<bytes::Bytes> {
        self.reads
            .remove(&token)
            .and_then(|read| read.validate(now))
    }

    /// What the worker shows of its replicas.
    pub fn groups(&self, now: Now) -> Vec<GroupView> {
        self.worker.groups(now)
    }

    /// What other threads of the process see.
    pub fn shared(&self) -> &StoreShared {
        &self.shared
    }

    /// Hash of a range's applied state.
    pub fn state_hash(&self, range: RangeId) -> Option<u64> {
        self.worker.state_hash(range)
    }
}
