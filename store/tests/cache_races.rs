//! The cache of records under threads that read while others write.

use bytes::Bytes;
use rangekv_model::eval::{View, Visitor};
use rangekv_store::engine::cached::Cached;
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::engine::{Snapshot, Staged, Stager, StateEngine, WriteBatch};
use rangekv_store::metrics::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// Lets other threads in between what the engine does and what the cache does.
struct Halting(MemEngine);

impl View for Halting {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let value = self.0.get(key);
        std::thread::yield_now();
        value
    }
    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.0.scan(start, end, visit);
    }
    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.0.scan_reverse(start, end, visit);
    }
}

impl StateEngine for Halting {
    fn write(&self, batch: &WriteBatch) {
        std::thread::yield_now();
        self.0.write(batch);
        std::thread::yield_now();
    }
    fn get_durable(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get_durable(key)
    }
    fn durable_generation(&self) -> u64 {
        self.0.durable_generation()
    }
    fn flush(&self) {
        self.0.flush();
    }
    fn flush_in_background(&self) {
        self.0.flush_in_background();
    }
    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }
    fn stage(&self) -> std::io::Result<Box<dyn Stager>> {
        self.0.stage()
    }
    fn install(&self, clear: &[(Bytes, Bytes)], staged: Box<dyn Staged>, puts: &WriteBatch) {
        self.0.install(clear, staged, puts);
    }
    fn approximate_size(&self, start: &[u8], end: &[u8]) -> u64 {
        self.0.approximate_size(start, end)
    }
}

/// Two writers, of keys of their own, and readers: nobody sees a value older than one that was
/// written before he asked, or that anybody has seen before.
#[test]
fn nobody_sees_an_older_value_again() {
    const KEYS: u8 = 4;
    const WRITES: u64 = 3_000;
    let cached = Cached::new(Arc::new(Halting(MemEngine::new())), 1 << 10, 7);
    let seen: BTreeMap<u8, AtomicU64> = (1..=KEYS).map(|key| (key, 0.into())).collect();
    let over = AtomicBool::new(false);
    let look = |key: u8| {
        let least = seen[&key].load(Ordering::SeqCst);
        let value = cached.get(&[key]);
        let value = value.map_or(0, |v| u64::from_be_bytes(v[..].try_into().unwrap()));
        assert!(value >= least, "key {key}: {value} after {least}");
        seen[&key].fetch_max(value, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    (1..=KEYS).for_each(look);
                }
            });
        }
        let writers = [0, 1].map(|odd| {
            let (cached, seen) = (&cached, &seen);
            scope.spawn(move || {
                for value in 1..=WRITES {
                    let mine = || (1..=KEYS).filter(|key| key % 2 == odd);
                    let mut batch = WriteBatch::default();
                    mine().for_each(|key| batch.put(vec![key], value.to_be_bytes().to_vec()));
                    cached.write(&batch);
                    for key in mine() {
                        seen[&key].fetch_max(value, Ordering::SeqCst);
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    (1..=KEYS).for_each(look);
    let met = |name| {
        let families = cached.families();
        let family = families.iter().find(|family| family.name == name);
        family.is_some_and(|family| family.samples[0].value != Value::Number(0))
    };
    assert!(met("rangekv_record_cache_hits_total") && met("rangekv_record_cache_misses_total"));
}
