//! The state engine: applied records of all ranges of a store, in one ordered map.
//!
//! Invariants:
//! - A write batch is atomic, and what survives a crash is a *prefix* of the batches written:
//!   a consistent cut across all ranges. There is no write-ahead log; the raft log replays
//!   what a crash loses, from the applied index found in the surviving cut.
//! - [`StateEngine::install`] is atomic and durable when it returns.
//!
//! Reads and writes never return an error: a storage fault is this store's own, and ends the
//! process with a message (another replica takes over). Only opening returns errors.

pub mod cached;
pub mod mem;
#[cfg(feature = "rocks")]
pub mod rocks;

use crate::metrics::Family;
use bytes::Bytes;
use rangekv_model::eval::View;
use std::sync::Arc;

/// Writes applied together, in order.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// `None` deletes.
    pub puts: Vec<(Bytes, Option<Bytes>)>,
    /// `[start, end)` of records to delete, before `puts`. For destroying replicas only;
    /// `end` is never empty.
    pub delete_ranges: Vec<(Bytes, Bytes)>,
}

impl WriteBatch {
    /// Sets `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.puts.push((key.into(), Some(value.into())));
    }
    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.puts.push((key.into(), None));
    }
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.delete_ranges.is_empty()
    }
}

/// A consistent view at one moment, readable from any thread.
pub type Snapshot = Arc<dyn View + Send + Sync>;

/// A received snapshot of one range, complete and verified, not yet visible.
/// Dropping it discards its files.
pub trait Staged: Send {
    /// Number of records.
    fn records(&self) -> u64;
    /// For the engine that made it.
    fn as_any(self: Box<Self>) -> Box<dyn std::any::Any>;
}

/// Collects a snapshot's records, in key order, for [`StateEngine::install`].
pub trait Stager: Send {
    /// Adds one record; keys ascend strictly. Errors (full disk) discard the snapshot.
    fn add(&mut self, key: &[u8], value: &[u8]) -> std::io::Result<()>;
    /// Completes the file.
    fn finish(self: Box<Self>) -> std::io::Result<Box<dyn Staged>>;
}

/// One store's state engine. `View` reads the newest state.
pub trait StateEngine: View + Send + Sync {
    /// Applies a batch atomically. Not durable until the next flush.
    fn write(&self, batch: &WriteBatch);

    /// The value of `key` in what would survive a crash now.
    fn get_durable(&self, key: &[u8]) -> Option<Bytes>;

    /// A number that changes whenever more has become durable (so that callers know when
    /// [`get_durable`](Self::get_durable) is worth asking).
    fn durable_generation(&self) -> u64;

    /// Makes all that was written so far durable, and waits for it.
    fn flush(&self);

    /// Starts a flush without waiting for it.
    fn flush_in_background(&self);

    /// A view of this moment.
    fn snapshot(&self) -> Snapshot;

    /// Starts collecting a received snapshot.
    fn stage(&self) -> std::io::Result<Box<dyn Stager>>;

    /// In one atomic, durable step: removes each `[start, end)` of `clear` (`end` never
    /// empty), adds the staged records, then `puts`. Keys of `puts` lie outside the staged
    /// keys' range. What was written before is durable as well when it returns.
    fn install(&self, clear: &[(Bytes, Bytes)], staged: Box<dyn Staged>, puts: &WriteBatch);

    /// The engine's own figures, for whoever exports metrics. Cheap enough for every few seconds.
    /// An engine that has none gives an empty list.
    fn families(&self) -> Vec<Family> {
        Vec::new()
    }

    /// Approximate bytes of user data in `[start, end)`.
    fn approximate_size(&self, start: &[u8], end: &[u8]) -> u64;
}

/// What every engine asserts of an installation; see [`StateEngine::install`]. `staged` is
/// the first and the last staged key.
fn assert_installable(clear: &[(Bytes, Bytes)], staged: Option<(&[u8], &[u8])>, puts: &WriteBatch) {
    for (start, end) in clear {
        assert!(
            !end.is_empty(),
            "a range to clear needs an end (start {start:?})"
        );
    }
    assert!(
        puts.delete_ranges.is_empty(),
        "an installation clears by `clear`"
    );
    if let Some((first, last)) = staged {
        for (key, _) in &puts.puts {
            let key = key.as_ref();
            assert!(
                key < first || key > last,
                "put {key:?} among the staged {first:?}..={last:?}"
            );
        }
    }
}

/// Refuses a snapshot whose keys do not ascend: the sender is at fault, not this store.
fn check_ascending(last: &[u8], key: &[u8]) -> std::io::Result<()> {
    if key > last {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        format!("snapshot records out of order: {key:?} after {last:?}"),
    ))
}
