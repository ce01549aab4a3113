//! Opens RocksDB, with an error for a person if that fails.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, LogLevel, LruCacheOptions,
    Options, DB,
};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct RocksConfig {
    /// A memtable of this size is flushed. After a crash up to two of them are replayed from
    /// the raft log.
    pub memtable_bytes: usize,
    /// Blocks, indexes and filters kept in memory.
    pub block_cache_bytes: usize,
    /// Whether dropping the engine flushes it. Without, dropping is like a crash, for tests.
    pub flush_on_close: bool,
}

impl Default for RocksConfig {
    fn default() -> Self {
        RocksConfig {
            memtable_bytes: 32 << 20,
            block_cache_bytes: 32 << 20,
            flush_on_close: true,
        }
    }
}

/// Why the engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("{path} is not usable as a data directory ({source}): check that it is a directory that this user may write to, or choose another one")]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No space left.
    #[error("the disk of {path} is full ({source}): free some space, then start again")]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process works on it.
    #[error("{path} is in use by another process: stop that one first, or choose another data directory ({message})")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What RocksDB said.
        message: String,
    },
    /// What is in the directory is damaged, or is not ours.
    #[error("the state engine in {path} cannot be opened ({message}): if its files are damaged, replace this store by an empty one, its replicas live on elsewhere")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What RocksDB said.
        message: String,
    },
}

impl OpenError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                OpenError::Full { path, source }
            }
            _ => OpenError::Unwritable { path, source },
        }
    }

    fn rocks(path: &Path, error: &rocksdb::Error) -> Self {
        let path = path.to_owned();
        let message = error.to_string();
        let text = message.to_lowercase();
        if text.contains("no space left") || text.contains("quota exceeded") {
            return OpenError::Full {
                path,
                source: io::Error::new(io::ErrorKind::StorageFull, message),
            };
        }
        if text.contains("lock hold by current process") || text.contains("while lock file") {
            return OpenError::Locked { path, message };
        }
        if text.contains("permission denied") || text.contains("read-only file system") {
            return OpenError::Unwritable {
                path,
                source: io::Error::new(io::ErrorKind::PermissionDenied, message),
            };
        }
        OpenError::Damaged { path, message }
    }
}

/// How tables are written, by flushes and compactions as well as by received snapshots.
pub(super) fn table_options(cache: Option<&Cache>) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    // In parts of a few KiB. Whole, the filter of a file can be larger than a shard of the
    // cache, is then not cached, and each lookup reads megabytes: 600 µs instead of a few.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4096);
    table.set_pin_top_level_index_and_filter(true);
    match cache {
        Some(cache) => {
            // Indexes and filters live in the cache too, which so bounds memory.
            table.set_block_cache(cache);
            table.set_cache_index_and_filter_blocks(true);
            table.set_cache_index_and_filter_blocks_with_high_priority(true);
            table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        }
        None => table.disable_cache(),
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn options(config: &RocksConfig) -> Result<Options, rocksdb::Error> {
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(config.block_cache_bytes);
    // 16 shards. The default, 64, makes those of a small cache tiny.
    cache.set_num_shard_bits(4);
    let mut options = table_options(Some(&Cache::new_lru_cache_opts(&cache)));
    options.create_if_missing(true);
    options.set_write_buffer_size(config.memtable_bytes);
    // One is written, one is flushed, one is to spare before writes stop.
    options.set_max_write_buffer_number(3);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    // Spreads the writing back of large files, which would disturb the raft log's syncs.
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(8 << 20);
    options.set_keep_log_file_num(3);
    if config.flush_on_close {
        return Ok(options);
    }
    // Has no function of its own.
    options.get_options_from_string("avoid_flush_during_shutdown=true")
}

/// The database of `dir`, and its staging directory, empty.
pub(super) fn open(dir: &Path, config: &RocksConfig) -> Result<(DB, PathBuf), OpenError> {
    let (data, staging) = (dir.join("db"), dir.join("staging"));
    let usable = || {
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&staging)?;
        // RocksDB would say the same, in words that are harder to tell apart.
        let probe = staging.join("probe");
        let mut file = fs::File::create(&probe)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
        fs::remove_file(&probe)
    };
    usable().map_err(|error| OpenError::io(dir, error))?;
    let db = options(config)
        .and_then(|options| DB::open(&options, &data))
        .map_err(|error| OpenError::rocks(dir, &error))?;
    // Only now: until the lock is ours, the files may be another process's.
    let clean = || {
        for file in fs::read_dir(&staging)? {
            fs::remove_file(file?.path())?;
        }
        Ok(())
    };
    clean().map_err(|error| OpenError::io(dir, error))?;
    Ok((db, staging))
}
