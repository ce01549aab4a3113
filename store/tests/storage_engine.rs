//! Both state engines against a plain map: writes, scans, snapshots, installations, crashes.
//!
//! `STORAGE_SEEDS=n` runs n seeds instead of the default; a failure names its seed.

#![allow(clippy::disallowed_methods, reason = "real files take real time")]

mod storage_support;

use bytes::Bytes;
use rangekv_model::eval::View;
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::engine::{Snapshot, StateEngine, WriteBatch};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use storage_support::{seeds, Rng};

type Records = BTreeMap<Bytes, Bytes>;

/// An engine that can lose power.
trait Crash {
    fn engine(&self) -> &dyn StateEngine;
    fn crash(&mut self, rng: &mut Rng);
}

struct Mem(Arc<MemEngine>);

impl Crash for Mem {
    fn engine(&self) -> &dyn StateEngine {
        &*self.0
    }
    fn crash(&mut self, rng: &mut Rng) {
        self.0
            .crash(rng.below(self.0.unflushed_batches() as u64 + 1) as usize);
    }
}

fn key(rng: &mut Rng) -> Bytes {
    Bytes::from(format!("k{:03}", rng.below(200)))
}

/// A key without its first byte's neighbours, so that staged keys and puts do not mix.
fn meta_key(rng: &mut Rng) -> Bytes {
    Bytes::from(format!("a{}", rng.below(5)))
}

fn ordered(rng: &mut Rng) -> (Bytes, Bytes) {
    let (a, b) = (key(rng), key(rng));
    if a < b {
        (a, b)
    } else {
        (b, a)
    }
}

fn remove_range(records: &mut Records, start: &Bytes, end: &Bytes) {
    records.retain(|key, _| key < start || key >= end);
}

fn apply(records: &mut Records, batch: &WriteBatch) {
    for (start, end) in &batch.delete_ranges {
        remove_range(records, start, end);
    }
    for (key, value) in &batch.puts {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

fn batch(rng: &mut Rng) -> WriteBatch {
    let mut batch = WriteBatch::default();
    if rng.below(10) == 0 {
        batch.delete_ranges.push(ordered(rng));
    }
    for _ in 0..rng.below(6) {
        if rng.below(3) == 0 {
            batch.delete(key(rng));
        } else {
            batch.put(key(rng), rng.bytes(50));
        }
    }
    batch.put(meta_key(rng), rng.bytes(10));
    batch
}

fn collect(view: &dyn View, start: &[u8], end: &[u8], reverse: bool) -> Vec<(Bytes, Bytes)> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    };
    if reverse {
        view.scan_reverse(start, end, &mut visit);
        found.reverse();
    } else {
        view.scan(start, end, &mut visit);
    }
    found
}

fn check(view: &dyn View, records: &Records, rng: &mut Rng) {
    let all: Vec<_> = records
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    assert_eq!(collect(view, b"", b"", false), all);
    assert_eq!(collect(view, b"", b"", true), all);
    let (start, end) = ordered(rng);
    let part: Vec<_> = all
        .iter()
        .filter(|(k, _)| *k >= start && *k < end)
        .cloned()
        .collect();
    assert_eq!(collect(view, &start, &end, false), part);
    assert_eq!(collect(view, &start, &end, true), part);
    assert_eq!(collect(view, &end, &start, true), []);
    for _ in 0..5 {
        let key = key(rng);
        assert_eq!(view.get(&key), records.get(&key).cloned());
    }
    let mut first = None;
    view.scan(&start, b"", &mut |key, _| {
        assert!(first.is_none(), "visited after a break");
        first = Some(Bytes::copy_from_slice(key));
        ControlFlow::Break(())
    });
    assert_eq!(
        first,
        records.range(start..).next().map(|(key, _)| key.clone())
    );
}

fn install(engine: &dyn StateEngine, records: &mut Records, rng: &mut Rng) {
    let clear: Vec<_> = (0..rng.below(3)).map(|_| ordered(rng)).collect();
    let new: Records = (0..rng.below(30))
        .map(|_| (key(rng), rng.bytes(50)))
        .collect();
    let mut stager = engine.stage().unwrap();
    for (key, value) in &new {
        stager.add(key, value).unwrap();
    }
    let staged = stager.finish().unwrap();
    assert_eq!(staged.records(), new.len() as u64);
    let mut puts = WriteBatch::default();
    for _ in 0..rng.below(4) {
        if rng.below(3) == 0 {
            puts.delete(meta_key(rng));
        } else {
            puts.put(meta_key(rng), rng.bytes(10));
        }
    }
    engine.install(&clear, staged, &puts);
    for (start, end) in &clear {
        remove_range(records, start, end);
    }
    records.extend(new);
    apply(records, &puts);
}

fn run(subject: &mut dyn Crash, rng: &mut Rng) {
    let mut records = Records::new();
    // How it looked since what is known to be durable.
    let mut history = vec![records.clone()];
    let mut snapshots: Vec<(Snapshot, Records)> = Vec::new();
    for _ in 0..200 {
        let engine = subject.engine();
        match rng.below(30) {
            0..=17 => {
                let batch = batch(rng);
                engine.write(&batch);
                apply(&mut records, &batch);
                history.push(records.clone());
            }
            18..=19 => snapshots.push((engine.snapshot(), records.clone())),
            20 => {
                let generation = engine.durable_generation();
                engine.flush();
                if history.len() > 1 && history[0] != records {
                    assert!(history.len() == 1 || engine.durable_generation() != generation);
                }
                history = vec![records.clone()];
            }
            21 => engine.flush_in_background(),
            22..=23 => {
                let generation = engine.durable_generation();
                install(engine, &mut records, rng);
                assert_ne!(engine.durable_generation(), generation);
                history = vec![records.clone()];
            }
            24 => {
                // One answer at a time: durable state may grow between two.
                let key = key(rng);
                let durable = engine.get_durable(&key);
                assert!(history
                    .iter()
                    .any(|state| state.get(&key) == durable.as_ref()));
            }
            25 => {
                snapshots.clear();
                subject.crash(rng);
                let survived = collect(subject.engine(), b"", b"", false)
                    .into_iter()
                    .collect();
                assert!(history.contains(&survived), "what survived is no prefix");
                records = survived;
                history = vec![records.clone()];
                let key = key(rng);
                assert_eq!(
                    subject.engine().get_durable(&key),
                    records.get(&key).cloned()
                );
            }
            26 => {
                let size = engine.approximate_size(b"", b"");
                assert!(records.is_empty() || size > 0);
            }
            _ => check(engine, &records, rng),
        }
        for (snapshot, records) in &snapshots {
            if rng.below(10) == 0 {
                check(&**snapshot, records, rng);
            }
        }
        snapshots.truncate(4);
    }
    check(subject.engine(), &records, rng);
}

#[test]
fn mem_engine_is_a_map() {
    for seed in seeds(200) {
        storage_support::named(seed, || run(&mut Mem(Arc::default()), &mut Rng::new(seed)));
    }
}

#[test]
fn staged_records_ascend() {
    let engine = MemEngine::new();
    let mut stager = engine.stage().unwrap();
    stager.add(b"b", b"").unwrap();
    assert_eq!(
        stager.add(b"b", b"").unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );
    assert_eq!(
        stager.add(b"a", b"").unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );
}

#[test]
fn a_background_flush_waits_for_the_simulation() {
    let engine = MemEngine::new();
    let put = |key: &'static str| {
        let mut batch = WriteBatch::default();
        batch.put(key, "");
        engine.write(&batch);
    };
    put("a");
    put("b");
    engine.flush_in_background();
    put("c");
    assert_eq!(engine.flush_requested(), Some(2));
    assert_eq!(engine.get_durable(b"a"), None);
    engine.complete_flush(2);
    assert_eq!(engine.flush_requested(), None);
    assert!(engine.get_durable(b"b").is_some());
    assert_eq!(engine.crash(0), 1);
    assert!(engine.get(b"b").is_some());
    assert_eq!(engine.get(b"c"), None);
}

#[cfg(feature = "rocks")]
mod rocks {
    use super::*;
    use rangekv_store::engine::rocks::{OpenError, RocksConfig, RocksEngine};

    fn open(dir: &std::path::Path) -> RocksEngine {
        let config = RocksConfig {
            flush_on_close: false,
            ..RocksConfig::default()
        };
        RocksEngine::open(dir, &config).unwrap()
    }

    struct Rocks {
        dir: tempfile::TempDir,
        engine: Option<RocksEngine>,
    }

    impl Rocks {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let engine = Some(open(dir.path()));
            Rocks { dir, engine }
        }
    }

    impl Crash for Rocks {
        fn engine(&self) -> &dyn StateEngine {
            self.engine.as_ref().unwrap()
        }
        fn crash(&mut self, _rng: &mut Rng) {
            // Dropping does not flush, and there is no log.
            self.engine = None;
            self.engine = Some(open(self.dir.path()));
        }
    }

    #[test]
    fn rocks_engine_is_a_map() {
        for seed in seeds(8) {
            storage_support::named(seed, || run(&mut Rocks::new(), &mut Rng::new(seed)));
        }
    }

    fn put_all(engine: &RocksEngine, keys: std::ops::Range<u32>, value: &str) {
        let mut batch = WriteBatch::default();
        for key in keys {
            batch.put(format!("k{key:04}"), value.to_owned());
        }
        engine.write(&batch);
    }

    /// The order of files within one ingestion decides which of them hides which.
    #[test]
    fn an_installation_replaces_old_records_at_every_level() {
        for (in_memtable, in_level0, in_bottom) in [
            (true, false, false),
            (false, true, false),
            (false, false, true),
            (true, true, true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let engine = open(dir.path());
            let mut outside = WriteBatch::default();
            outside.put("a", "old");
            outside.put("z", "old");
            engine.write(&outside);
            if in_bottom {
                put_all(&engine, 0..1000, "bottom");
                engine.flush();
                engine.compact_range(b"", b"");
            }
            if in_level0 {
                put_all(&engine, 0..500, "level 0");
                engine.flush();
                put_all(&engine, 250..750, "level 0 again");
                engine.flush();
            }
            if in_memtable {
                put_all(&engine, 100..900, "memtable");
            }
            let before = engine.snapshot();
            let old = collect(&*before, b"", b"", false);
            let mut stager = engine.stage().unwrap();
            for key in (0..1000).step_by(10) {
                stager.add(format!("k{key:04}").as_bytes(), b"new").unwrap();
            }
            let mut puts = WriteBatch::default();
            puts.put("z", "new");
            // Inside what is cleared, outside of what is staged.
            puts.put("k9999", "new");
            puts.delete("a");
            let clear = [("k".into(), "l".into())];
            engine.install(&clear, stager.finish().unwrap(), &puts);

            let expected: Vec<(Bytes, Bytes)> = (0..1000)
                .step_by(10)
                .map(|key| format!("k{key:04}"))
                .chain(["k9999".into(), "z".into()])
                .map(|key| (key.into(), "new".into()))
                .collect();
            let check = |engine: &RocksEngine| {
                assert_eq!(collect(engine, b"", b"", false), expected);
                assert_eq!(collect(engine, b"", b"", true), expected);
                assert_eq!(engine.get(b"k0001"), None);
                assert_eq!(engine.get(b"a"), None);
                assert_eq!(engine.get(b"k0010").as_deref(), Some(&b"new"[..]));
                assert_eq!(engine.get_durable(b"k9999").as_deref(), Some(&b"new"[..]));
            };
            check(&engine);
            assert_eq!(
                collect(&*before, b"", b"", false),
                old,
                "snapshots do not change"
            );
            drop(before);
            // Again, over what was just installed.
            put_all(&engine, 0..20, "between");
            let mut stager = engine.stage().unwrap();
            for key in (0..1000).step_by(10) {
                stager.add(format!("k{key:04}").as_bytes(), b"new").unwrap();
            }
            engine.install(&clear, stager.finish().unwrap(), &puts);
            check(&engine);
            engine.compact_range(b"", b"");
            check(&engine);
            drop(engine);
            check(&open(dir.path()));
        }
    }

    /// Which of RocksDB's figures tells that something became durable.
    #[test]
    fn the_generation_changes_when_a_flush_completes() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        put_all(&engine, 0..10, "one");
        let before = engine.durable_generation();
        put_all(&engine, 0..10, "two");
        assert_eq!(
            engine.durable_generation(),
            before,
            "writing makes nothing durable"
        );
        assert_eq!(engine.get_durable(b"k0000"), None);
        let snapshot = engine.snapshot();
        engine.flush_in_background();
        let mut seen = before;
        let started = std::time::Instant::now();
        // Polled as the worker does: ask again only when the generation has changed.
        let durable = loop {
            let generation = engine.durable_generation();
            if generation != seen {
                seen = generation;
                if let Some(value) = engine.get_durable(b"k0000") {
                    break value;
                }
            }
            assert!(
                started.elapsed().as_secs() < 60,
                "the generation does not follow the flush"
            );
            std::thread::yield_now();
        };
        assert_eq!(durable, "two");
        drop(engine);
        // A snapshot keeps the database open by itself.
        assert_eq!(snapshot.get(b"k0000").as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn sizes_count_memtables_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let mut rng = Rng::new(1);
        let mut batch = WriteBatch::default();
        for key in 0..1000 {
            let value: Bytes = (0..1000).map(|_| rng.next() as u8).collect();
            batch.put(format!("k{key:04}"), value);
        }
        engine.write(&batch);
        let near = |size: u64, expected: u64| size > expected * 9 / 10 && size < expected * 11 / 10;
        for _ in 0..2 {
            let all = engine.approximate_size(b"", b"");
            assert!(near(all, 1_005_000), "{all}");
            let half = engine.approximate_size(b"k0250", b"k0750");
            assert!(near(half, 502_500), "{half}");
            assert_eq!(engine.approximate_size(b"l", b""), 0);
            engine.flush();
        }
        let stats = engine.stats();
        assert_eq!(stats.level0_files, 1);
        assert_eq!(stats.background_errors, 0);
        assert!(!engine.write_pressure().stopped);
    }

    #[test]
    fn opening_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let error = RocksEngine::open(dir.path(), &RocksConfig::default())
            .err()
            .unwrap();
        assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
        assert!(
            error.to_string().contains("in use by another process"),
            "{error}"
        );
        drop(first);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = RocksEngine::open(&file, &RocksConfig::default())
            .err()
            .unwrap();
        assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
        std::fs::write(dir.path().join("db/CURRENT"), "nonsense").unwrap();
        let error = RocksEngine::open(dir.path(), &RocksConfig::default())
            .err()
            .unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    }

    #[test]
    fn a_graceful_stop_flushes() {
        let dir = tempfile::tempdir().unwrap();
        for keeps in [true, false] {
            let config = RocksConfig {
                flush_on_close: keeps,
                ..RocksConfig::default()
            };
            let engine = RocksEngine::open(dir.path(), &config).unwrap();
            put_all(&engine, 0..1, if keeps { "kept" } else { "lost" });
        }
        assert_eq!(
            open(dir.path()).get(b"k0000").as_deref(),
            Some(&b"kept"[..])
        );
    }

    /// Staged files that were not installed go away: at once, or at the next start.
    #[test]
    fn abandoned_snapshots_leave_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let staged = || {
            std::fs::read_dir(dir.path().join("staging"))
                .unwrap()
                .count()
        };
        let mut stager = engine.stage().unwrap();
        stager.add(b"a", b"b").unwrap();
        assert_eq!(staged(), 1);
        drop(stager);
        assert_eq!(staged(), 0);
        let mut stager = engine.stage().unwrap();
        stager.add(b"a", b"b").unwrap();
        drop(stager.finish().unwrap());
        assert_eq!(staged(), 0);
        let mut stager = engine.stage().unwrap();
        stager.add(b"a", b"b").unwrap();
        engine.install(&[], stager.finish().unwrap(), &WriteBatch::default());
        assert_eq!(staged(), 0);
        std::fs::write(dir.path().join("staging/left"), "").unwrap();
        drop(engine);
        drop(open(dir.path()));
        assert_eq!(staged(), 0);
    }
}
