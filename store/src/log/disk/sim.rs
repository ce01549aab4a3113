//! A disk in memory that does to unsynced writes what a power failure may do.

use super::{LogDisk, SyncWork};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A simulated disk. Clones are handles to the same disk: the simulation keeps one while
/// workers come and go.
#[derive(Clone, Default)]
pub struct SimDisk {
    // The simulation is one thread: the mutex is for `Send` alone.
    state: Arc<Mutex<State>>,
}

/// What a power failure leaves of the writes that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// How many of them survive, oldest first.
    pub keep: usize,
    /// What happened to the last surviving one.
    pub torn: Option<Torn>,
}

/// How a write is torn. Offsets count from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Bytes from here on were never written.
    Cut(usize),
    /// Bytes from here on are zeros: the length reached the disk, the data did not.
    Zero(usize),
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Vec<u8>>,
    /// Unsynced writes, oldest first.
    unsynced: Vec<Write>,
    /// Contents of a removed segment, for the next one.
    spare: Option<Vec<u8>>,
    lying: bool,
    failing: bool,
    bytes_max: Option<u64>,
    syncs: u64,
    /// Number of writes so far.
    writes: u64,
}

/// A write that can be undone.
struct Write {
    /// Its place among all writes.
    number: u64,
    id: u64,
    offset: usize,
    new: Vec<u8>,
    /// What stood there.
    old: Vec<u8>,
    len_before: usize,
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl State {
    fn file(&mut self, id: u64) -> io::Result<&mut Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no segment {id}"));
        self.files.get_mut(&id).ok_or_else(missing)
    }

    fn check(&self) -> io::Result<()> {
        if self.failing {
            return Err(io::Error::other("simulated disk failure"));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        SimDisk::default()
    }

    /// Loses power. The worker that used the disk must be gone.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state.lock();
        let mut unsynced = std::mem::take(&mut state.unsynced);
        for write in unsynced.iter().rev() {
            let file = state
                .files
                .get_mut(&write.id)
                .expect("writes of removed files are dropped");
            put(file, write.offset, &write.old);
            file.truncate(write.len_before);
        }
        unsynced.truncate(crash.keep);
        let last = unsynced.len().saturating_sub(1);
        for (i, write) in unsynced.iter_mut().enumerate() {
            match crash.torn {
                Some(Torn::Cut(at)) if i == last => write.new.truncate(at),
                Some(Torn::Zero(at)) if i == last => {
                    write.new.iter_mut().skip(at).for_each(|byte| *byte = 0);
                }
                _ => {}
            }
            let file = state
                .files
                .get_mut(&write.id)
                .expect("writes of removed files are dropped");
            put(file, write.offset, &write.new);
        }
    }

    /// Another disk with the same content, all of it durable.
    pub fn fork(&self) -> SimDisk {
        let files = self.state.lock().files.clone();
        SimDisk {
            state: Arc::new(Mutex::new(State {
                files,
                ..State::default()
            })),
        }
    }

    /// Number of writes that a crash can lose.
    pub fn unsynced_writes(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Length in bytes of the newest unsynced write, which a crash can tear.
    pub fn last_unsynced_bytes(&self) -> usize {
        self.state
            .lock()
            .unsynced
            .last()
            .map_or(0, |write| write.new.len())
    }

    /// While lying, a sync answers success and makes nothing durable.
    pub fn set_lying(&self, lying: bool) {
        self.state.lock().lying = lying;
    }

    /// While failing, writes and syncs answer an error.
    pub fn set_failing(&self, failing: bool) {
        self.state.lock().failing = failing;
    }

    /// Bounds the bytes of all segments; `None` = no bound.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.state.lock().bytes_max = bytes_max;
    }

    /// Number of syncs that were asked for.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Flips the bits of `mask` in one byte, as bad hardware does. Returns whether the segment
    /// has that byte.
    pub fn flip(&self, id: u64, offset: u64, mask: u8) -> bool {
        let mut state = self.state.lock();
        match state
            .files
            .get_mut(&id)
            .and_then(|file| file.get_mut(offset as usize))
        {
            Some(byte) => {
                *byte ^= mask;
                true
            }
            None => false,
        }
    }
}

impl LogDisk for SimDisk {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.state.lock().files.keys().copied().collect())
    }

    fn create(&mut self, id: u64, _capacity: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        assert!(!state.files.contains_key(&id), "segment {id} exists");
        let content = state.spare.take().unwrap_or_default();
        state.files.insert(id, content);
        Ok(())
    }

    fn write_at(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let offset = offset as usize;
        let len_before = state.file(id)?.len();
        let growth = (offset + bytes.len()).saturating_sub(len_before) as u64;
        if state
            .bytes_max
            .is_some_and(|max| state.used() + growth > max)
        {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "simulated disk is full",
            ));
        }
        let file = state.file(id)?;
        let old = file[offset.min(len_before)..(offset + bytes.len()).min(len_before)].to_vec();
        put(file, offset, bytes);
        state.writes += 1;
        let number = state.writes;
        state.unsynced.push(Write {
            number,
            id,
            offset,
            new: bytes.to_vec(),
            old,
            len_before,
        });
        Ok(())
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        state.check()?;
        if !state.lying {
            state.unsynced.retain(|write| write.id != id);
        }
        Ok(())
    }

    fn sync_work(&mut self, id: u64) -> io::Result<SyncWork> {
        let (disk, last) = (self.clone(), self.state.lock().writes);
        Ok(Box::new(move || {
            let mut state = disk.state.lock();
            state.syncs += 1;
            state.check()?;
            if !state.lying {
                // No more than was promised.
                state
                    .unsynced
                    .retain(|write| write.id != id || write.number > last);
            }
            Ok(())
        }))
    }

    fn read(&mut self, id: u64) -> io::Result<Vec<u8>> {
        self.state.lock().file(id).cloned()
    }

    fn erase_from(&mut self, id: u64, offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        state.unsynced.retain(|write| write.id != id);
        state.file(id)?.truncate(offset as usize);
        Ok(())
    }

    fn remove(&mut self, id: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        state.file(id)?;
        state.unsynced.retain(|write| write.id != id);
        state.spare = state.files.remove(&id);
        Ok(())
    }
}
