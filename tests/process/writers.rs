//! Threads that write through random nodes for as long as a test goes on.

use crate::doors::Doors;
use crate::ledger::{Kind, Ledger, Outcome, Record};
use rand::Rng;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A reply that takes longer is given up: longer than the 5 s after which a node gives up.
const REPLY_MAX: Duration = Duration::from_secs(7);

/// Keys that a writer has in use at the same time.
const OPEN_KEYS: usize = 12;

/// Then the key is full, and another one takes its place.
const WRITES_PER_KEY_MAX: usize = 40;

/// Running writers. Dropping them stops them.
pub struct Writers {
    threads: Vec<JoinHandle<Ledger>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl Writers {
    /// Starts `threads` writers through `doors`. `name` begins their keys.
    pub fn start(name: &str, threads: usize, doors: &[SocketAddr]) -> Writers {
        let shared = Arc::new(Shared::default());
        let start = |n: usize| {
            let (shared, doors) = (shared.clone(), doors.to_vec());
            let prefix = format!("{name}{n}");
            std::thread::spawn(move || run(&prefix, n as u64, &doors, &shared))
        };
        Writers {
            threads: (0..threads).map(start).collect(),
            shared: shared.clone(),
        }
    }

    /// Waits until `more` further writes are acknowledged.
    pub fn wait_for(&self, more: u64, patience: Duration) {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let (before, started) = (acknowledged(), Instant::now());
        while acknowledged() < before + more {
            assert!(
                started.elapsed() < patience,
                "{} of {more} writes in {patience:?}",
                acknowledged() - before
            );
            assert!(
                !self.threads.iter().any(JoinHandle::is_finished),
                "a writer failed"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes so far that were answered by an error, or not at all.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Stops the writers; what they wrote.
    pub fn finish(mut self) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for thread in self.threads.drain(..) {
            all.merge(thread.join().expect("a writer failed"));
        }
        all
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn run(prefix: &str, seed: u64, doors: &[SocketAddr], shared: &Shared) -> Ledger {
    let mut doors = Doors::new(doors, REPLY_MAX, seed);
    let mut ledger = Ledger::default();
    let mut keys = 0;
    let mut new_record = || {
        keys += 1;
        let kind = [Kind::Register, Kind::Journal][keys % 2];
        Record::new(format!("{prefix}-{keys}"), kind)
    };
    let mut open: Vec<Record> = (0..OPEN_KEYS).map(|_| new_record()).collect();
    while !shared.stop.load(Ordering::Relaxed) {
        let record = &mut open[doors.random.random_range(0..OPEN_KEYS)];
        let (at, door) = doors.pick();
        let started = Instant::now();
        match record.write(door) {
            Outcome::Acknowledged => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused | Outcome::Unknown => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                doors.avoid(at, started.elapsed());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if !record.is_open() || record.writes.len() >= WRITES_PER_KEY_MAX {
            ledger.push(std::mem::replace(record, new_record()));
        }
    }
    open.into_iter().for_each(|record| ledger.push(record));
    ledger
}
