//! Disks for the log that fail on demand: the simulated one, and a directory whose unsynced
//! writes can be taken back.

use parking_lot::Mutex;
use rangekv_store::log::disk::{Crash, FileDisk, LogDisk, SimDisk, SyncWork, Torn};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A handle to a disk that fails on demand.
pub trait Faulty: LogDisk + Clone + 'static {
    fn unsynced(&self) -> usize;
    fn crash(&self, crash: Crash);
    /// The process ends, the power stays.
    fn kill(&self);
    fn set_failing(&self, failing: bool);
    fn set_full(&self, full: bool);
    fn flip(&self, id: u64, offset: u64, mask: u8);
}

impl Faulty for SimDisk {
    fn unsynced(&self) -> usize {
        self.unsynced_writes()
    }
    fn crash(&self, crash: Crash) {
        SimDisk::crash(self, crash);
    }
    fn kill(&self) {}
    fn set_failing(&self, failing: bool) {
        SimDisk::set_failing(self, failing);
    }
    fn set_full(&self, full: bool) {
        self.set_bytes_max(full.then_some(0));
    }
    fn flip(&self, id: u64, offset: u64, mask: u8) {
        assert!(SimDisk::flip(self, id, offset, mask));
    }
}

/// A directory that can lose power.
#[derive(Clone)]
pub struct CrashDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dir: PathBuf,
    /// `None` only while it is opened again.
    disk: Option<FileDisk>,
    unsynced: Vec<Write>,
    /// Number of writes so far.
    writes: u64,
    failing: bool,
    full: bool,
}

struct Write {
    /// Its place among all writes.
    number: u64,
    id: u64,
    offset: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl CrashDisk {
    pub fn new(dir: PathBuf) -> Self {
        let disk = Some(FileDisk::open(&dir).unwrap());
        let inner = Inner {
            dir,
            disk,
            unsynced: Vec::new(),
            failing: false,
            full: false,
            writes: 0,
        };
        CrashDisk {
            inner: Arc::new(Mutex::new(inner)),
        }
    }
}

impl Inner {
    fn disk(&mut self) -> &mut FileDisk {
        self.disk.as_mut().expect("an open disk")
    }

    /// The old one ends first: it may be preparing a file.
    fn reopen(&mut self) {
        self.disk = None;
        self.disk = Some(FileDisk::open(&self.dir).unwrap());
    }
    fn check(&self) -> io::Result<()> {
        if self.failing {
            return Err(io::Error::other("simulated disk failure"));
        }
        Ok(())
    }

    fn write(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut old = self.disk().read(id)?;
        old.resize(old.len().max(offset as usize + bytes.len()), 0);
        let old = old[offset as usize..][..bytes.len()].to_vec();
        self.disk().write_at(id, offset, bytes)?;
        self.writes += 1;
        let number = self.writes;
        self.unsynced.push(Write {
            number,
            id,
            offset,
            old,
            new: bytes.to_vec(),
        });
        Ok(())
    }
}

impl LogDisk for CrashDisk {
    fn list(&self) -> io::Result<Vec<u64>> {
        self.inner.lock().disk().list()
    }

    fn create(&mut self, id: u64, capacity: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.disk().create(id, capacity)
    }

    fn write_at(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check()?;
        if inner.full {
            // A full disk may have taken a part.
            inner.write(id, offset, &bytes[..bytes.len() / 2])?;
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "simulated disk is full",
            ));
        }
        inner.write(id, offset, bytes)
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.unsynced.retain(|write| write.id != id);
        inner.disk().sync(id)
    }

    fn sync_work(&mut self, id: u64) -> io::Result<SyncWork> {
        let mut inner = self.inner.lock();
        inner.check()?;
        let (disk, last) = (self.inner.clone(), inner.writes);
        let work = inner.disk().sync_work(id)?;
        Ok(Box::new(move || {
            let mut inner = disk.lock();
            inner.check()?;
            work()?;
            inner
                .unsynced
                .retain(|write| write.id != id || write.number > last);
            Ok(())
        }))
    }

    fn read(&mut self, id: u64) -> io::Result<Vec<u8>> {
        self.inner.lock().disk().read(id)
    }

    fn erase_from(&mut self, id: u64, offset: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.unsynced.retain(|write| write.id != id);
        inner.disk().erase_from(id, offset)
    }

    fn remove(&mut self, id: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.unsynced.retain(|write| write.id != id);
        inner.disk().remove(id)
    }
}

impl Faulty for CrashDisk {
    fn unsynced(&self) -> usize {
        self.inner.lock().unsynced.len()
    }

    fn crash(&self, crash: Crash) {
        let mut inner = self.inner.lock();
        let mut unsynced = std::mem::take(&mut inner.unsynced);
        for write in unsynced.iter().rev() {
            inner
                .disk()
                .write_at(write.id, write.offset, &write.old)
                .unwrap();
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
            inner
                .disk()
                .write_at(write.id, write.offset, &write.new)
                .unwrap();
        }
        inner.reopen();
    }

    fn kill(&self) {
        let mut inner = self.inner.lock();
        inner.reopen();
    }

    fn set_failing(&self, failing: bool) {
        self.inner.lock().failing = failing;
    }

    fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    fn flip(&self, id: u64, offset: u64, mask: u8) {
        let mut inner = self.inner.lock();
        let byte = inner.disk().read(id).unwrap()[offset as usize] ^ mask;
        inner.disk().write_at(id, offset, &[byte]).unwrap();
    }
}
