//! Single records that are read again, in front of a state engine.
//!
//! RocksDB looks for a record in skip lists and blocks, in some microseconds that are mostly cache misses and
//! locks; here it takes a lookup in a hash table. What is not there is remembered, too. Scans and snapshots
//! go past the cache. docs/PERFORMANCE.md says what it gains: reads, and nothing for a plain SET.
//!
//! Invariants:
//! - I15: nothing is shown that the engine would not show. From before a write reaches the engine until it is
//!   visible there, its records are not in the cache: readers ask the engine, so that who has seen a new
//!   value never sees the older one again.
//! - What a reader brings from the engine enters only if no write to a record of its stripe was
//!   under way when the reader began, nor has begun since.
//! - Values are copies: a small one pins no entry of the raft log, and no frame.

use super::{Snapshot, Staged, Stager, StateEngine, WriteBatch};
use crate::bugs::{self, Bug};
use crate::metrics::{Family, Kind, Unit};
use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use rangekv_model::eval::{View, Visitor};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Longer records (key and value, bytes) stay outside.
const RECORD_BYTES_MAX: usize = 4 << 10;
/// What a record costs besides its bytes: its entry, half of one that remembers who was driven out, the hash
/// table, a counter of references, and what allocations are rounded up to.
const RECORD_OVERHEAD_BYTES: u64 = 216;
/// Of which the cache assumes records to be, on average.
const RECORD_BYTES_USUAL: u64 = 384;
/// Power of two. Readers of records of one stripe keep each other from bringing in what they have read
/// only while one of those is written.
const STRIPES: usize = 1024;

/// Whether records of a stripe are being written.
#[derive(Clone, Copy, Default)]
struct Stripe {
    /// Writes under way.
    writing: u32,
    /// Writes that have begun.
    begun: u64,
}

impl Stripe {
    /// One more; returns its number.
    fn begin(&mut self) -> u64 {
        self.writing += 1;
        self.begun += 1;
        self.begun
    }
}

/// Bytes of key and value, and what they cost besides.
#[derive(Clone)]
struct RecordBytes;

impl Weighter<Bytes, Option<Bytes>> for RecordBytes {
    fn weight(&self, key: &Bytes, value: &Option<Bytes>) -> u64 {
        (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64 + RECORD_OVERHEAD_BYTES
    }
}

type Records = Cache<Bytes, Option<Bytes>, RecordBytes, FixedState>;

/// A state engine with a cache of records; see the module's documentation.
pub struct Cached<E> {
    engine: Arc<E>,
    /// `None`: the engine has no such record.
    records: Records,
    stripes: Box<[Mutex<Stripe>]>,
    hasher: FixedState,
}

impl<E: StateEngine> Cached<E> {
    /// Keeps about `bytes` of the records of `engine`, which is written through this alone. `seed` should
    /// not be known outside: it decides which keys collide.
    pub fn new(engine: Arc<E>, bytes: u64, seed: u64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes / RECORD_BYTES_USUAL) as usize)
            .weight_capacity(bytes)
            .build()
            .expect("both capacities are given");
        let hasher = FixedState::with_seed(seed);
        let lifecycle = DefaultLifecycle::default();
        Cached {
            engine,
            records: Cache::with_options(options, RecordBytes, hasher.clone(), lifecycle),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher,
        }
    }

    fn stripe(&self, key: &[u8]) -> &Mutex<Stripe> {
        // Other bits than those by which the cache chooses.
        let hash = self.hasher.hash_one(key).rotate_left(32);
        &self.stripes[hash as usize % STRIPES]
    }

    /// A write of `key` begins. Returns its number in the stripe if the record was in the cache.
    fn begin(&self, key: &[u8]) -> Option<u64> {
        let mut stripe = self.stripe(key).lock();
        let number = stripe.begin();
        self.records.remove(key).map(|_| number)
    }

    /// The write is visible in the engine. A record that was in the cache before, by the write's
    /// `number`, stays there, unless another write of the stripe has begun since: it could be of the same.
    fn end(&self, key: &[u8], value: Option<&Bytes>, number: Option<u64>) {
        let mut stripe = self.stripe(key).lock();
        stripe.writing -= 1;
        if stripe.writing == 0 && number == Some(stripe.begun) {
            self.keep(key, value.map(|value| &value[..]));
        }
    }

    fn keep(&self, key: &[u8], value: Option<&[u8]>) {
        if key.len() + value.map_or(0, <[u8]>::len) <= RECORD_BYTES_MAX {
            let value = value.map(Bytes::copy_from_slice);
            self.records.insert(Bytes::copy_from_slice(key), value);
        }
    }

    /// Does `work`, which changes the records of `ranges` in the engine.
    fn clear_during(&self, ranges: &[(Bytes, Bytes)], work: impl FnOnce()) {
        for stripe in &self.stripes {
            stripe.lock().begin();
        }
        let inside = |key: &Bytes| ranges.iter().any(|(start, end)| start <= key && key < end);
        self.records.retain(|key, _| !inside(key));
        work();
        for stripe in &self.stripes {
            stripe.lock().writing -= 1;
        }
    }
}

/// Whether records of this kind are kept: users' alone. What the store keeps for itself is written
/// in each round, and hardly ever read.
fn is_kept(key: &[u8]) -> bool {
    crate::meta::is_user_key(key)
}

impl<E: StateEngine> View for Cached<E> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        if !is_kept(key) {
            return self.engine.get(key);
        }
        if let Some(known) = self.records.get(key) {
            return known;
        }
        let before = *self.stripe(key).lock();
        let value = self.engine.get(key);
        if before.writing == 0 {
            let stripe = self.stripe(key).lock();
            if stripe.begun == before.begun {
                self.keep(key, value.as_deref());
            }
        }
        value
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.engine.scan(start, end, visit);
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.engine.scan_reverse(start, end, visit);
    }
}

impl<E: StateEngine> StateEngine for Cached<E> {
    fn write(&self, batch: &WriteBatch) {
        if !batch.delete_ranges.is_empty() {
            // Of a replica that is destroyed: rare, and what is put besides is few.
            let mut ranges = batch.delete_ranges.clone();
            let point = |key: &Bytes| (key.clone(), [&key[..], &[0]].concat().into());
            ranges.extend(batch.puts.iter().map(|(key, _)| point(key)));
            return self.clear_during(&ranges, || self.engine.write(batch));
        }
        let kept = || batch.puts.iter().filter(|(key, _)| is_kept(key));
        let numbers: Vec<Option<u64>> = kept().map(|(key, _)| self.begin(key)).collect();
        self.engine.write(batch);
        for ((key, value), number) in kept().zip(numbers) {
            self.end(key, value.as_ref(), number);
        }
    }

    fn get_durable(&self, key: &[u8]) -> Option<Bytes> {
        self.engine.get_durable(key)
    }

    fn durable_generation(&self) -> u64 {
        self.engine.durable_generation()
    }

    fn flush(&self) {
        self.engine.flush();
    }

    fn flush_in_background(&self) {
        self.engine.flush_in_background();
    }

    fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }

    fn stage(&self) -> std::io::Result<Box<dyn Stager>> {
        self.engine.stage()
    }

    fn install(&self, clear: &[(Bytes, Bytes)], staged: Box<dyn Staged>, puts: &WriteBatch) {
        let ranges = match bugs::active(Bug::CacheOutlivesSnapshot) {
            true => &[],
            false => clear,
        };
        self.clear_during(ranges, || self.engine.install(clear, staged, puts));
    }

    fn families(&self) -> Vec<Family> {
        let records = &self.records;
        let number = |kind, unit, name, help, n| Family::number(kind, unit, name, help, n);
        let mut families = self.engine.families();
        families.extend([
            number(
                Kind::Counter,
                Unit::Count,
                "rangekv_record_cache_hits_total",
                "Records that were found in the cache in front of the state engine.",
                records.hits(),
            ),
            number(
                Kind::Counter,
                Unit::Count,
                "rangekv_record_cache_misses_total",
                "Records that were looked for in the state engine.",
                records.misses(),
            ),
            number(
                Kind::Gauge,
                Unit::Bytes,
                "rangekv_record_cache_bytes",
                "Bytes of the records in the cache, and what they cost besides.",
                records.weight(),
            ),
        ]);
        families
    }

    fn approximate_size(&self, start: &[u8], end: &[u8]) -> u64 {
        self.engine.approximate_size(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mem::MemEngine;
    use proptest::prelude::*;

    fn put(key: &[u8], value: Option<&[u8]>) -> WriteBatch {
        let mut batch = WriteBatch::default();
        let value = value.map(Bytes::copy_from_slice);
        batch.puts.push((Bytes::copy_from_slice(key), value));
        batch
    }

    fn hits(cached: &Cached<MemEngine>) -> u64 {
        cached.records.hits()
    }

    #[test]
    fn what_was_read_is_known_also_after_it_is_written() {
        let cached = Cached::new(Arc::new(MemEngine::new()), 1 << 16, 7);
        assert_eq!(cached.get(b"k"), None);
        cached.write(&put(b"k", Some(b"1")));
        assert_eq!((cached.get(b"k"), hits(&cached)), (Some("1".into()), 1));
        cached.write(&put(b"k", None));
        assert_eq!((cached.get(b"k"), hits(&cached)), (None, 2));
        // Too long for it, and what the store keeps for itself.
        cached.write(&put(b"k", Some(&[0; RECORD_BYTES_MAX])));
        cached.write(&put(&[0, 1], Some(b"applied")));
        for _ in 0..2 {
            assert_eq!(cached.get(b"k").map(|v| v.len()), Some(RECORD_BYTES_MAX));
            assert_eq!(cached.get(&[0, 1]), Some("applied".into()));
        }
        assert_eq!(hits(&cached), 2);
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let cached = Cached::new(Arc::new(MemEngine::new()), 1 << 16, 7);
        for i in 0..10_000_u32 {
            let key = [&[1], &i.to_be_bytes()[..]].concat();
            cached.write(&put(&key, Some(&[3; 100])));
            assert_eq!(cached.get(&key).map(|v| v.len()), Some(100));
        }
        assert!(cached.records.weight() <= 1 << 16);
        assert!(cached.records.len() > 50, "{}", cached.records.len());
    }

    proptest! {
        /// Whatever is done, it answers as the engine behind it does.
        #[test]
        fn it_shows_what_the_engine_shows(
            steps in prop::collection::vec((0..6_u8, 1..9_u8, any::<u8>()), 1..200)
        ) {
            let engine = Arc::new(MemEngine::new());
            let cached = Cached::new(engine.clone(), 1 << 10, 7);
            for (step, key, value) in steps {
                let bounds = || (Bytes::from(vec![key]), Bytes::from(vec![key + value % 4]));
                match step {
                    0 => cached.write(&put(&[key], None)),
                    1 | 2 => {
                        let mut batch = put(&[key], Some(&[value]));
                        batch.put(vec![key % 3 + 1], vec![value, key]);
                        cached.write(&batch);
                    }
                    3 => {
                        let mut batch = put(&[key], Some(&[value]));
                        batch.delete_ranges.push(bounds());
                        cached.write(&batch);
                    }
                    4 => {
                        let mut stager = cached.stage().unwrap();
                        let (start, end) = bounds();
                        if start < end {
                            stager.add(&start, &[value; 3]).unwrap();
                        }
                        let staged = stager.finish().unwrap();
                        let puts = put(&[0, 9], Some(&[value]));
                        cached.install(&[(start, end)], staged, &puts);
                    }
                    _ => {}
                }
                for key in 1..9_u8 {
                    if value % 2 == 0 || key % 2 == 0 {
                        prop_assert_eq!(cached.get(&[key]), engine.get(&[key]));
                    }
                }
            }
        }
    }
}
