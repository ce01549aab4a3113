//! Random operations, crashes and reopenings of the raft log, against a plain model.
//!
//! What survives must be a prefix of the operations written, and contain all that was synced.
//! `STORAGE_SEEDS=n` runs n seeds instead of the default; a failure names its seed.

mod storage_support;

use raft::eraftpb::{Entry, EntryType, HardState};
use rangekv_proto::{RangeId, ReplicaId};
use rangekv_store::log::disk::{Crash, LogDisk, SimDisk, SyncWork, Torn};
use rangekv_store::log::segmented::{LogConfig, LogError, SegmentedLog};
use rangekv_store::log::{GroupLog, RaftLog, Recovered, SyncJob, Tombstone};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use storage_support::disks::{CrashDisk, Faulty};
use storage_support::{seeds, Rng};

const GROUPS: u64 = 6;

fn config(rng: &mut Rng) -> LogConfig {
    LogConfig {
        segment_bytes: 200 + rng.below(2000),
        target_bytes: 2000 + rng.below(8000),
    }
}

/// The model, and how it looked at each record written since it was last known to be durable.
struct Model {
    now: Recovered,
    /// The state after each record, oldest first. The first is the durable one.
    records: Vec<Recovered>,
    next_replica: u64,
}

impl Model {
    fn group(&mut self, id: RangeId) -> &mut GroupLog {
        self.now.groups.entry(id).or_default()
    }
}

fn last(log: &GroupLog) -> u64 {
    log.entries
        .last()
        .map_or(log.truncated_index, |entry| entry.index)
}

fn last_term(log: &GroupLog) -> u64 {
    log.entries
        .last()
        .map_or(log.truncated_term, |entry| entry.term)
}

fn entries(rng: &mut Rng, first: u64, term: u64) -> Vec<Entry> {
    (0..1 + rng.below(5))
        .map(|i| Entry {
            index: first + i,
            term,
            entry_type: match rng.below(10) {
                0 => EntryType::EntryConfChange,
                1 => EntryType::EntryConfChangeV2,
                _ => EntryType::EntryNormal,
            },
            data: rng.bytes(60),
            context: if rng.below(8) == 0 {
                rng.bytes(4)
            } else {
                Default::default()
            },
            ..Entry::default()
        })
        .collect()
}

/// One operation on both.
fn operate<D: Faulty>(rng: &mut Rng, log: &mut SegmentedLog<D>, model: &mut Model) {
    let id = RangeId(1 + rng.below(GROUPS));
    match rng.below(20) {
        0..=8 => {
            let group = model.group(id);
            // Mostly at the end, sometimes over what is there.
            let first = match rng.below(6) {
                0 => group.truncated_index + 1 + rng.below(last(group) - group.truncated_index + 1),
                _ => last(group) + 1,
            };
            let before = first - 1;
            let term_before = match before.checked_sub(group.truncated_index + 1) {
                Some(i) => group.entries[i as usize].term,
                None => group.truncated_term,
            };
            let term = term_before.max(group.hard_state.term).max(last_term(group));
            let new = entries(rng, first, term);
            group
                .entries
                .truncate((before - group.truncated_index) as usize);
            group.entries.extend_from_slice(&new);
            log.append(id, &new);
        }
        9..=11 => {
            let hard_state = &mut model.group(id).hard_state;
            if rng.below(2) == 0 {
                hard_state.term += 1;
                hard_state.vote = rng.below(4);
            }
            hard_state.commit += rng.below(3);
            log.set_hard_state(id, hard_state);
        }
        12..=15 => {
            let Some(group) = model.now.groups.get_mut(&id) else {
                return;
            };
            if group.entries.is_empty() {
                return;
            }
            let n = 1 + rng.below(group.entries.len() as u64) as usize;
            let entry = &group.entries[n - 1];
            (group.truncated_index, group.truncated_term) = (entry.index, entry.term);
            group.entries.drain(..n);
            log.compact(id, group.truncated_index, group.truncated_term);
        }
        16 => {
            let group = model.group(id);
            let term = group.hard_state.term.max(last_term(group)) + rng.below(2);
            let index = last(group) + 1 + rng.below(20);
            let hard_state = HardState {
                term,
                vote: 0,
                commit: index,
                ..HardState::default()
            };
            if term == group.hard_state.term && group.hard_state.vote != 0 {
                return;
            }
            *group = GroupLog {
                hard_state: hard_state.clone(),
                truncated_index: index,
                truncated_term: term,
                entries: Vec::new(),
            };
            log.reset(id, index, term, &hard_state);
        }
        17 if rng.below(3) == 0 => {
            model.next_replica += 1;
            let tombstone = Tombstone {
                replica: ReplicaId(model.next_replica),
                conf_version: rng.below(100),
            };
            model.now.groups.remove(&id);
            model.now.tombstones.insert(id, tombstone);
            log.destroy(id, tombstone);
        }
        _ => {
            if rng.below(2) == 0 {
                if let Some(group) = model.now.groups.get(&id) {
                    log.rewrite(id, group);
                }
            } else {
                for id in log.pinning_groups() {
                    log.rewrite(id, &model.now.groups[&id]);
                }
            }
        }
    }
}

/// Opens the log after a crash, and takes from the model what did not survive.
fn recover<D: Faulty>(
    disk: &D,
    config: LogConfig,
    model: &mut Model,
) -> Result<SegmentedLog<D>, LogError> {
    let (log, recovered) = SegmentedLog::open(disk.clone(), config)?;
    let survived = model.records.iter().rposition(|state| *state == recovered);
    let Some(survived) = survived else {
        panic!(
            "what survived is no prefix: {recovered:#?}\ndurable: {:#?}",
            model.records[0]
        );
    };
    model.now = model.records.swap_remove(survived);
    model.records = vec![model.now.clone()];
    Ok(log)
}

fn run<D: Faulty>(seed: u64, disk: D) {
    let rng = &mut Rng::new(seed);
    let config = config(rng);
    let mut model = Model {
        now: Recovered::default(),
        records: vec![Recovered::default()],
        next_replica: 0,
    };
    let mut log = recover(&disk, config, &mut model).unwrap();
    let mut full = false;
    // Syncs under way, and how many records each has to make durable.
    let mut jobs: Vec<(SyncJob, usize)> = Vec::new();
    // Records that are durable and no longer in the model.
    let mut settled = 0;
    for _ in 0..400 {
        match rng.below(46) {
            0..=19 => operate(rng, &mut log, &mut model),
            20..=29 => match log.write() {
                Ok(()) => model.records.push(model.now.clone()),
                Err(error) => {
                    assert!(full, "{error}");
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                }
            },
            30..=35 => {
                // A log with garbage to collect stages by itself: that changes no state.
                match log.write().and_then(|()| {
                    model.records.push(model.now.clone());
                    log.sync()
                }) {
                    Ok(()) => {
                        settled += model.records.len() - 1;
                        model.records = vec![model.now.clone()];
                    }
                    Err(error) => {
                        assert!(full, "{error}");
                        assert_eq!(error.kind(), ErrorKind::StorageFull);
                    }
                }
            }
            40..=42 => {
                let job = log.sync_job().unwrap();
                jobs.extend(job.map(|job| (job, settled + model.records.len() - 1)));
            }
            43..=45 => {
                // In any order.
                if let Some(at) = (rng.below(3) as usize).checked_rem(jobs.len()) {
                    let (SyncJob { sequence, work }, records) = jobs.remove(at);
                    work().unwrap();
                    if let Some(newly) = records.checked_sub(settled) {
                        model.records.drain(..newly);
                        settled = records;
                    }
                    log.synced(sequence).unwrap();
                }
            }
            36 => {
                full = !full;
                disk.set_full(full);
            }
            37 => {
                // Killed: nothing is lost that was written. What was staged is.
                drop(log);
                jobs.clear();
                settled = 0;
                disk.kill();
                let expected = model.records.last().unwrap().clone();
                log = recover(&disk, config, &mut model).unwrap();
                assert_eq!(model.now, expected);
            }
            38 => {
                drop(log);
                jobs.clear();
                settled = 0;
                let unsynced = disk.unsynced() as u64;
                let keep = rng.below(unsynced + 1) as usize;
                let torn = match rng.below(3) {
                    0 => None,
                    1 => Some(Torn::Cut(rng.below(200) as usize)),
                    _ => Some(Torn::Zero(rng.below(200) as usize)),
                };
                disk.crash(Crash { keep, torn });
                log = recover(&disk, config, &mut model).unwrap();
            }
            _ => log.check_invariants(),
        }
    }
    log.check_invariants();
}

#[test]
fn survivors_are_a_prefix() {
    for seed in seeds(300) {
        storage_support::named(seed, || run(seed, SimDisk::new()));
    }
}

#[test]
fn survivors_are_a_prefix_in_files() {
    for seed in seeds(20) {
        let dir = tempfile::tempdir().unwrap();
        storage_support::named(seed, || run(seed, CrashDisk::new(dir.path().to_owned())));
    }
}

fn open_log() -> SegmentedLog<SimDisk> {
    SegmentedLog::open(SimDisk::new(), LogConfig::default())
        .unwrap()
        .0
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        ..Entry::default()
    }
}

#[test]
#[should_panic(expected = "append at 3 leaves a gap after 1")]
fn a_gap_is_refused() {
    let mut log = open_log();
    log.append(RangeId(1), &[entry(1, 1)]);
    log.append(RangeId(1), &[entry(3, 1)]);
}

#[test]
#[should_panic(expected = "append at 2 below truncation 2")]
fn an_append_below_the_truncation_is_refused() {
    let mut log = open_log();
    log.append(RangeId(1), &[entry(1, 1), entry(2, 1), entry(3, 1)]);
    log.compact(RangeId(1), 2, 1);
    log.append(RangeId(1), &[entry(2, 1)]);
}

#[test]
#[should_panic(expected = "term regression 5 → 4")]
fn a_term_that_goes_back_is_refused() {
    let mut log = open_log();
    let state = |term| HardState {
        term,
        ..HardState::default()
    };
    log.set_hard_state(RangeId(1), &state(5));
    log.set_hard_state(RangeId(1), &state(4));
}

#[test]
#[should_panic(expected = "vote changed in term 5: 1 → 2")]
fn a_second_vote_in_a_term_is_refused() {
    let mut log = open_log();
    let state = |vote| HardState {
        term: 5,
        vote,
        ..HardState::default()
    };
    log.set_hard_state(RangeId(1), &state(1));
    log.set_hard_state(RangeId(1), &state(2));
}

#[test]
#[should_panic(expected = "tombstone regression p7 → p6")]
fn a_tombstone_that_goes_back_is_refused() {
    let mut log = open_log();
    let grave = |replica| Tombstone {
        replica: ReplicaId(replica),
        conf_version: 1,
    };
    log.destroy(RangeId(1), grave(7));
    log.destroy(RangeId(1), grave(6));
}

/// A segment that someone deleted is not taken for an old one.
#[test]
fn a_missing_segment_is_noticed() {
    let mut disk = SimDisk::new();
    let config = LogConfig {
        segment_bytes: 100,
        ..LogConfig::default()
    };
    let (mut log, _) = SegmentedLog::open(disk.clone(), config).unwrap();
    for index in 1..20 {
        log.append(RangeId(1), &[entry(index, 1)]);
        log.write().unwrap();
        log.sync().unwrap();
    }
    drop(log);
    disk.remove(2).unwrap();
    let error = SegmentedLog::open(disk.clone(), config).err().unwrap();
    assert!(matches!(error, LogError::Missing(2)), "{error}");
    disk.remove(1).unwrap();
    let error = SegmentedLog::open(disk, config).err().unwrap();
    assert!(
        matches!(error, LogError::Gap { truncated: 0, .. }),
        "{error}"
    );
}

/// A disk that lies about syncs and then loses power: the log refuses, or opens with a state
/// it once had. Only if it has dropped segments meanwhile, trusting the disk, can the state be
/// one that never was.
#[test]
fn a_lying_disk_yields_an_old_state_or_a_refusal() {
    let mut refused = 0;
    for seed in seeds(100) {
        storage_support::named(seed, || {
            let rng = &mut Rng::new(seed);
            let disk = SimDisk::new();
            let config = config(rng);
            let empty = Recovered::default();
            let mut model = Model {
                now: empty.clone(),
                records: vec![empty],
                next_replica: 0,
            };
            let mut log = recover(&disk, config, &mut model).unwrap();
            let honest = rng.below(60);
            for step in 0..60 + rng.below(60) {
                disk.set_lying(step > honest);
                for _ in 0..rng.below(4) {
                    operate(rng, &mut log, &mut model);
                }
                log.write().unwrap();
                log.sync().unwrap();
                model.records.push(model.now.clone());
            }
            drop(log);
            disk.set_lying(false);
            disk.crash(Crash {
                keep: rng.below(4) as usize,
                torn: None,
            });
            match SegmentedLog::open(disk.clone(), config) {
                Err(_) => refused += 1,
                Ok((_, recovered)) => assert!(
                    model.records.contains(&recovered) || disk.list().unwrap()[0] > 1,
                    "made up: {recovered:#?}"
                ),
            }
        });
    }
    println!("refused: {refused}");
}

/// A flipped bit is noticed, or costs no more than the records at the very end that nothing
/// durable vouches for.
#[test]
fn flipped_bits_are_noticed() {
    for seed in seeds(100) {
        storage_support::named(seed, || {
            let rng = &mut Rng::new(seed);
            let disk = SimDisk::new();
            let config = config(rng);
            let empty = Recovered::default();
            let mut model = Model {
                now: empty.clone(),
                records: vec![empty],
                next_replica: 0,
            };
            let mut log = recover(&disk, config, &mut model).unwrap();
            for _ in 0..60 {
                for _ in 0..1 + rng.below(4) {
                    operate(rng, &mut log, &mut model);
                }
                if log.has_staged() {
                    model.records.push(model.now.clone());
                }
                log.write().unwrap();
                log.sync().unwrap();
            }
            drop(log);
            let mut handle = disk.clone();
            let ids = handle.list().unwrap();
            for _ in 0..50 {
                let id = ids[rng.below(ids.len() as u64) as usize];
                let len = handle.read(id).unwrap().len() as u64;
                let (offset, mask) = (rng.below(len), 1 << rng.below(8));
                disk.flip(id, offset, mask);
                // A copy, as opening may erase.
                match SegmentedLog::open(disk.fork(), config) {
                    Err(LogError::Corrupt { .. } | LogError::Format { .. }) => {}
                    Err(error) => panic!("segment {id} byte {offset}: {error}"),
                    Ok((_, recovered)) => {
                        let newest = model.records.len() - 2;
                        assert!(
                            model.records[newest..].contains(&recovered) || recovered == model.now,
                            "segment {id} byte {offset}: more than the last record is lost"
                        );
                    }
                }
                disk.flip(id, offset, mask);
            }
        });
    }
}

/// A disk that breaks when it is to remove a segment, now and then.
#[derive(Clone)]
struct Stubborn {
    disk: SimDisk,
    removals: Arc<AtomicU64>,
}

impl LogDisk for Stubborn {
    fn list(&self) -> io::Result<Vec<u64>> {
        self.disk.list()
    }
    fn create(&mut self, id: u64, capacity: u64) -> io::Result<()> {
        self.disk.create(id, capacity)
    }
    fn write_at(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(id, offset, bytes)
    }
    fn sync(&mut self, id: u64) -> io::Result<()> {
        self.disk.sync(id)
    }
    fn sync_work(&mut self, id: u64) -> io::Result<SyncWork> {
        self.disk.sync_work(id)
    }
    fn read(&mut self, id: u64) -> io::Result<Vec<u8>> {
        self.disk.read(id)
    }
    fn erase_from(&mut self, id: u64, offset: u64) -> io::Result<()> {
        self.disk.erase_from(id, offset)
    }
    fn remove(&mut self, id: u64) -> io::Result<()> {
        if self.removals.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            return Err(io::Error::other("simulated disk failure"));
        }
        self.disk.remove(id)
    }
}

impl Faulty for Stubborn {
    fn unsynced(&self) -> usize {
        self.disk.unsynced()
    }
    fn crash(&self, crash: Crash) {
        self.disk.crash(crash);
    }
    fn kill(&self) {}
    fn set_failing(&self, failing: bool) {
        self.disk.set_failing(failing);
    }
    fn set_full(&self, full: bool) {
        self.disk.set_full(full);
    }
    fn flip(&self, _: u64, _: u64, _: u8) {}
}

/// Garbage collection may end between any two removals.
#[test]
fn half_done_garbage_collection_loses_nothing() {
    let mut interrupted = 0;
    for seed in seeds(100) {
        storage_support::named(seed, || {
            let rng = &mut Rng::new(seed);
            let disk = Stubborn {
                disk: SimDisk::new(),
                removals: Arc::default(),
            };
            let config = config(rng);
            let empty = Recovered::default();
            let mut model = Model {
                now: empty.clone(),
                records: vec![empty],
                next_replica: 0,
            };
            let mut log = recover(&disk, config, &mut model).unwrap();
            for _ in 0..300 {
                for _ in 0..rng.below(4) {
                    operate(rng, &mut log, &mut model);
                }
                log.write().unwrap();
                model.records = vec![model.now.clone()];
                if log.sync().is_err() {
                    interrupted += 1;
                    assert!(log.write().is_err(), "poisoned");
                    drop(log);
                    disk.crash(Crash::default());
                    log = recover(&disk, config, &mut model).unwrap();
                }
            }
        });
    }
    assert!(interrupted > 100, "{interrupted}");
}
