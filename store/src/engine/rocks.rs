//! The state engine on RocksDB: one database, one column family, no write-ahead log.
//!
//! One column family means one sequence of memtables, flushed in the order in which they were
//! filled: each flush extends a consistent cut across all ranges. The raft log replays what a
//! crash takes from the memtables, so these are small enough to replay in about two seconds.
//!
//! Dropping the engine and its last snapshot flushes it, so that a graceful stop is followed by
//! a fast start.

mod figures;
mod install;
mod open;
mod view;

pub use figures::{RocksStats, WritePressure};
pub use open::{OpenError, RocksConfig};

use super::{Snapshot, Staged, Stager, StateEngine, WriteBatch};
use crate::fatal;
use crate::metrics::Family;
use bytes::Bytes;
use parking_lot::RwLock;
use rangekv_model::eval::View;
use rocksdb::{properties, FlushOptions, Range, ReadOptions, ReadTier, WriteOptions, DB};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::Arc;

/// Above every key that is in use; RocksDB has no "to the end" for sizes.
const KEYSPACE_END: [u8; 32] = [0xff; 32];

/// Records of the memtables that [`StateEngine::approximate_size`] looks at, at most.
const SIZE_RECORDS_MAX: usize = 50_000;

/// A state engine on RocksDB.
pub struct RocksEngine {
    db: Arc<DB>,
    /// Received snapshots, before they are installed.
    staging: PathBuf,
    next_staged: AtomicU64,
    /// Writers share it; an installation excludes them, because it is durable at once and
    /// must not overtake a batch that is not. The rank is last: nothing else is locked inside.
    install_lock: RwLock<()>,
    write_options: WriteOptions,
    read_options: ReadOptions,
    durable_options: ReadOptions,
}

impl RocksEngine {
    /// Opens the engine in `dir`, or makes it. Received snapshots that were not installed are
    /// discarded.
    pub fn open(dir: &Path, config: &RocksConfig) -> Result<Self, OpenError> {
        let (db, staging) = open::open(dir, config)?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let mut durable_options = ReadOptions::default();
        durable_options.set_read_tier(ReadTier::Persisted);
        Ok(RocksEngine {
            db: Arc::new(db),
            staging,
            next_staged: AtomicU64::new(0),
            install_lock: RwLock::new(()),
            write_options,
            read_options: ReadOptions::default(),
            durable_options,
        })
    }

    /// Compacts what lies in `[start, end)` (empty = unbounded) down to the last level, so that
    /// what was deleted gives its space back and slows no scan down. Takes as long as copying
    /// the records: not for a worker's thread. Worth it after a replica was destroyed.
    pub fn compact_range(&self, start: &[u8], end: &[u8]) {
        self.db.compact_range(
            (!start.is_empty()).then_some(start),
            (!end.is_empty()).then_some(end),
        );
    }

    fn property(&self, name: impl rocksdb::CStrLike + Copy + std::fmt::Debug) -> u64 {
        match self.db.property_int_value(name) {
            Ok(Some(value)) => value,
            Ok(None) => panic!("RocksDB has no property {name:?}"),
            Err(error) => fatal("reading a property of the state engine", &error),
        }
    }

    fn flush_and_wait(&self) {
        if let Err(error) = self.db.flush() {
            fatal("flushing the state engine", &error);
        }
    }

    /// Bytes of what the memtables hold of a range. RocksDB counts only its files, and its C
    /// interface for more is not in the crate.
    fn memtable_bytes(&self, start: &[u8], end: &[u8]) -> u64 {
        let mut options = view::scan_options(start, end);
        options.set_read_tier(ReadTier::Memtable);
        let (mut bytes, mut records) = (0, 0);
        view::scan(&self.db, options, &mut |key, value| {
            bytes += (key.len() + value.len()) as u64;
            records += 1;
            if records < SIZE_RECORDS_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        bytes
    }
}

impl View for RocksEngine {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        view::get(&self.db, key, &self.read_options)
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        if view::is_empty(start, end) {
            return;
        }
        view::scan(&self.db, view::scan_options(start, end), visit);
    }

    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        if view::is_empty(start, end) {
            return;
        }
        view::scan_reverse(&self.db, view::scan_options(start, end), visit);
    }
}

impl StateEngine for RocksEngine {
    fn write(&self, batch: &WriteBatch) {
        if batch.is_empty() {
            return;
        }
        let bytes: usize = batch
            .puts
            .iter()
            .map(|(key, value)| 16 + key.len() + value.as_ref().map_or(0, Bytes::len))
            .sum();
        let mut writes = rocksdb::WriteBatch::with_capacity_bytes(64 + bytes);
        for (start, end) in &batch.delete_ranges {
            assert!(
                !end.is_empty(),
                "a range to delete needs an end (start {start:?})"
            );
            if start < end {
                writes.delete_range(start, end);
            }
        }
        for (key, value) in &batch.puts {
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        let _no_install = self.install_lock.read();
        if let Err(error) = self.db.write_opt(writes, &self.write_options) {
            fatal("writing to the state engine", &error);
        }
    }

    fn get_durable(&self, key: &[u8]) -> Option<Bytes> {
        view::get(&self.db, key, &self.durable_options)
    }

    /// The number of the database's version: it changes with each flush that completes, each
    /// installation, and for reasons of no interest here (a compaction, a memtable that is
    /// full). The number of flushed memtables, which sounds better, falls back to zero at once.
    fn durable_generation(&self) -> u64 {
        self.property(properties::CURRENT_SUPER_VERSION_NUMBER)
    }

    fn flush(&self) {
        self.flush_and_wait();
    }

    fn flush_in_background(&self) {
        // A second flush behind one that has not begun could wait for it.
        if self.property(properties::NUM_IMMUTABLE_MEM_TABLE) > 0 {
            return;
        }
        let mut options = FlushOptions::default();
        options.set_wait(false);
        if let Err(error) = self.db.flush_opt(&options) {
            fatal("flushing the state engine", &error);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Arc::new(view::RocksSnapshot::new(self.db.clone()))
    }

    fn stage(&self) -> io::Result<Box<dyn Stager>> {
        Ok(Box::new(self.new_stager()))
    }

    fn install(&self, clear: &[(Bytes, Bytes)], staged: Box<dyn Staged>, puts: &WriteBatch) {
        let staged = staged
            .as_any()
            .downcast()
            .expect("staged by another engine");
        self.install_staged(clear, *staged, puts);
    }

    fn families(&self) -> Vec<Family> {
        self.stats().families(self.write_pressure())
    }

    fn approximate_size(&self, start: &[u8], end: &[u8]) -> u64 {
        if view::is_empty(start, end) {
            return 0;
        }
        let upper = if end.is_empty() {
            &KEYSPACE_END[..]
        } else {
            end
        };
        let in_files = self.db.get_approximate_sizes(&[Range::new(start, upper)])[0];
        in_files + self.memtable_bytes(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why `durable_generation` reads the property that it reads.
    #[test]
    fn which_properties_tell_of_a_flush() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = RocksEngine::open(dir.path(), &RocksConfig::default()).expect("it opens");
        let read = |engine: &RocksEngine| {
            (
                engine.property(properties::CURRENT_SUPER_VERSION_NUMBER),
                engine.property(properties::NUM_IMMUTABLE_MEM_TABLE_FLUSHED),
            )
        };
        let mut seen = vec![read(&engine)];
        for i in 0..3_u8 {
            let mut batch = WriteBatch::default();
            batch.put(vec![i], vec![i]);
            engine.write(&batch);
            engine.flush();
            seen.push(read(&engine));
        }
        assert!(
            seen.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{seen:?}"
        );
        assert!(seen.iter().all(|&(_, flushed)| flushed == 0), "{seen:?}");
    }
}
