//! Where the log's segments live: numbered files that are written at an offset and synced.
//!
//! [`FileDisk`] is a directory. [`SimDisk`] is memory that can lose unsynced writes and tear
//! the last one, for the simulation. Both recycle: a new segment may begin its life with the
//! bytes of an old one, so a reader must be able to tell them from its own.

mod file;
mod sim;

pub use file::FileDisk;
pub use sim::{Crash, SimDisk, Torn};

use std::io;

/// A sync, to be carried out once.
pub type SyncWork = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Numbered segments. Ids are given by the log, ascending.
///
/// A disk that is out of space answers [`io::ErrorKind::StorageFull`].
pub trait LogDisk: Send {
    /// Ids of the existing segments, ascending.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// Makes a segment, durably. Its bytes are zeros or those of a removed segment.
    /// `capacity` is how large it will become: space that a disk may reserve.
    fn create(&mut self, id: u64, capacity: u64) -> io::Result<()>;

    /// Writes `bytes` at `offset`, at most one byte past the end of what was written before.
    /// Not durable until [`sync`](Self::sync). After an error any part may be written.
    fn write_at(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all writes to a segment durable.
    fn sync(&mut self, id: u64) -> io::Result<()>;

    /// What makes all writes that were made to a segment so far durable, on any thread. An error of
    /// the device is met by every job to which the failed write matters.
    fn sync_work(&mut self, id: u64) -> io::Result<SyncWork>;

    /// The whole segment, with whatever follows the last write.
    fn read(&mut self, id: u64) -> io::Result<Vec<u8>>;

    /// Durably erases all from `offset` on, so that it reads as zeros or not at all. All
    /// before it is durable too.
    fn erase_from(&mut self, id: u64, offset: u64) -> io::Result<()>;

    /// Removes a segment, durably.
    fn remove(&mut self, id: u64) -> io::Result<()>;
}
