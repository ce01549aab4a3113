//! What RocksDB tells of itself.

use super::RocksEngine;
use crate::metrics::{Family, Kind, Unit};
use rocksdb::properties;

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksStats {
    /// Bytes of memtables, those being flushed included.
    pub memtable_bytes: u64,
    /// Memtables that wait for their flush.
    pub immutable_memtables: u64,
    /// Files of level 0: many of them slow reads down, and in the end stop writes.
    pub level0_files: u64,
    /// Bytes of all table files in use.
    pub table_bytes: u64,
    /// Bytes that compactions have yet to rewrite.
    pub pending_compaction_bytes: u64,
    /// Compactions that run.
    pub running_compactions: u64,
    /// Flushes that run.
    pub running_flushes: u64,
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Bytes of table readers outside the block cache.
    pub table_reader_bytes: u64,
    /// Estimated number of records.
    pub estimated_records: u64,
    /// Snapshots that are held, by readers and senders.
    pub snapshots: u64,
    /// Errors of flushes and compactions.
    pub background_errors: u64,
}

/// Whether the engine holds writes back. A stall in here stops every range of the store, so
/// the owner delays proposals when it sees one coming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WritePressure {
    /// Writes wait until a flush or a compaction is done.
    pub stopped: bool,
    /// Writes are slowed down to this rate.
    pub delayed_bytes_per_second: Option<u64>,
}

impl RocksEngine {
    /// Figures for metrics. Cheap enough for every few seconds.
    pub fn stats(&self) -> RocksStats {
        RocksStats {
            memtable_bytes: self.property(properties::SIZE_ALL_MEM_TABLES),
            immutable_memtables: self.property(properties::NUM_IMMUTABLE_MEM_TABLE),
            level0_files: self.property(&properties::num_files_at_level(0)),
            table_bytes: self.property(properties::LIVE_SST_FILES_SIZE),
            pending_compaction_bytes: self.property(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            running_compactions: self.property(properties::NUM_RUNNING_COMPACTIONS),
            running_flushes: self.property(properties::NUM_RUNNING_FLUSHES),
            block_cache_bytes: self.property(properties::BLOCK_CACHE_USAGE),
            table_reader_bytes: self.property(properties::ESTIMATE_TABLE_READERS_MEM),
            estimated_records: self.property(properties::ESTIMATE_NUM_KEYS),
            snapshots: self.property(properties::NUM_SNAPSHOTS),
            background_errors: self.property(properties::BACKGROUND_ERRORS),
        }
    }

    /// Whether writes are stopped or slowed down. Ask about every 100 ms.
    pub fn write_pressure(&self) -> WritePressure {
        let rate = self.property(properties::ACTUAL_DELAYED_WRITE_RATE);
        WritePressure {
            stopped: self.property(properties::IS_WRITE_STOPPED) != 0,
            delayed_bytes_per_second: (rate != 0).then_some(rate),
        }
    }
}

impl RocksStats {
    /// Everything under the names by which it is exported.
    pub(super) fn families(self, pressure: WritePressure) -> Vec<Family> {
        let bytes = |name, help, n| Family::number(Kind::Gauge, Unit::Bytes, name, help, n);
        vec![
            bytes(
                "rangekv_rocksdb_memtable_bytes",
                "Bytes of memtables, those being flushed included.",
                self.memtable_bytes,
            ),
            Family::gauge(
                "rangekv_rocksdb_immutable_memtables",
                "Memtables that wait for their flush.",
                self.immutable_memtables,
            ),
            Family::gauge(
                "rangekv_rocksdb_level0_files",
                "Files of level 0: many of them slow reads down, and in the end stop writes.",
                self.level0_files,
            ),
            bytes(
                "rangekv_rocksdb_table_bytes",
                "Bytes of all table files in use.",
                self.table_bytes,
            ),
            bytes(
                "rangekv_rocksdb_pending_compaction_bytes",
                "Bytes that compactions have yet to rewrite.",
                self.pending_compaction_bytes,
            ),
            Family::gauge(
                "rangekv_rocksdb_running_compactions",
                "Compactions that run.",
                self.running_compactions,
            ),
            Family::gauge(
                "rangekv_rocksdb_running_flushes",
                "Flushes that run.",
                self.running_flushes,
            ),
            bytes(
                "rangekv_rocksdb_block_cache_bytes",
                "Bytes in the block cache.",
                self.block_cache_bytes,
            ),
            bytes(
                "rangekv_rocksdb_table_reader_bytes",
                "Bytes of table readers outside the block cache.",
                self.table_reader_bytes,
            ),
            Family::gauge(
                "rangekv_rocksdb_estimated_records",
                "Estimated number of records.",
                self.estimated_records,
            ),
            Family::gauge(
                "rangekv_rocksdb_snapshots",
                "Snapshots of the state that are held, by readers and senders.",
                self.snapshots,
            ),
            Family::gauge(
                "rangekv_rocksdb_background_errors",
                "Errors of flushes and compactions.",
                self.background_errors,
            ),
            Family::gauge(
                "rangekv_rocksdb_writes_stopped",
                "1 while writes wait until a flush or a compaction is done, else 0.",
                u64::from(pressure.stopped),
            ),
            bytes(
                "rangekv_rocksdb_delayed_write_bytes_per_second",
                "The rate to which writes are slowed down; 0 = they are not.",
                pressure.delayed_bytes_per_second.unwrap_or(0),
            ),
        ]
    }
}
