//! A directory of segment files, written in place.
//!
//! Files are filled with zeros (and synced) before their first use, and recycled after their
//! last: a sync of an overwrite then has no metadata to journal. Measured with 4 KiB records,
//! each synced, 2,000 of each kind interleaved, on ext4: append 41 µs, `fallocate` 40 µs,
//! overwrite of zeros 29 µs, overwrite of recycled data 29 µs (medians).
//!
//! The directory is not locked: the state engine of the same store locks its own, and is
//! opened first.

#![allow(
    clippy::disallowed_methods,
    reason = "the shell: owns files and a thread that prepares them"
)]

use super::{LogDisk, SyncWork};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Spare files that are kept for recycling.
const SPARES_MAX: usize = 2;

/// Segments as files of one directory.
pub struct FileDisk {
    dir: PathBuf,
    /// Files in use, opened.
    open: HashMap<u64, File>,
    /// Files ready to become segments, all written and synced.
    spares: Vec<PathBuf>,
    /// Makes one spare, so that rolling to a new segment does not wait for it.
    filling: Option<JoinHandle<io::Result<PathBuf>>>,
    next_spare: u64,
}

impl FileDisk {
    /// Opens the directory, and makes it if there is none.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let context = |what: &str, error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("{what} log directory {}: {error}", dir.display()),
            )
        };
        fs::create_dir_all(dir).map_err(|error| context("cannot make", error))?;
        let mut spares = Vec::new();
        let mut next_spare = 0;
        for item in fs::read_dir(dir).map_err(|error| context("cannot read", error))? {
            let path = item?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.ends_with(".tmp") {
                fs::remove_file(&path).map_err(|error| context("cannot write in", error))?;
            } else if let Some(n) = name
                .strip_prefix("spare-")
                .and_then(|n| n.parse::<u64>().ok())
            {
                next_spare = next_spare.max(n + 1);
                spares.push(path);
            }
        }
        spares.sort();
        Ok(FileDisk {
            dir: dir.to_owned(),
            open: HashMap::new(),
            spares,
            filling: None,
            next_spare,
        })
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:016x}.log"))
    }

    /// Makes renames and removals durable.
    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn file(&mut self, id: u64) -> io::Result<&File> {
        if !self.open.contains_key(&id) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path(id))?;
            self.open.insert(id, file);
        }
        Ok(&self.open[&id])
    }

    fn spare_path(&mut self) -> PathBuf {
        self.next_spare += 1;
        self.dir.join(format!("spare-{:08}", self.next_spare - 1))
    }

    /// A file of at least `capacity` bytes.
    fn take_spare(&mut self, capacity: u64) -> io::Result<PathBuf> {
        if let Some(filling) = self.filling.take() {
            match filling.join().expect("filling a file does not panic") {
                Ok(path) => self.spares.push(path),
                // Whatever it was, filling one in the foreground meets it again, and reports it.
                Err(error) => tracing::warn!(%error, "no spare log segment could be prepared"),
            }
        }
        while let Some(path) = self.spares.pop() {
            if fs::metadata(&path)?.len() >= capacity {
                return Ok(path);
            }
            fs::remove_file(&path)?;
        }
        let path = self.spare_path();
        fill(path, capacity, Waiting::Yes)
    }
}

/// Who waits for a file to be filled.
#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    /// The log does.
    Yes,
    /// Nobody does; meanwhile the log's own syncs should not wait behind a heap of zeros.
    /// Measured: the 99.9th percentile of syncs while rolling falls from 5–17 ms to 3–11 ms.
    No,
}

/// Writes a file of zeros, durably (but for its name).
fn fill(path: PathBuf, capacity: u64, waiting: Waiting) -> io::Result<PathBuf> {
    let temporary = path.with_extension("tmp");
    let written = (|| {
        let file = File::create(&temporary)?;
        let zeros = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < capacity {
            let n = zeros.len().min((capacity - offset) as usize);
            file.write_all_at(&zeros[..n], offset)?;
            offset += n as u64;
            if waiting == Waiting::No {
                file.sync_data()?;
            }
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            // A full disk gets its space back. If even that fails, opening removes the file.
            if let Err(error) = fs::remove_file(&temporary) {
                tracing::warn!(%error, path = %temporary.display(), "cannot remove");
            }
            Err(error)
        }
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.filling.take().and_then(|filling| filling.join().ok()) {
            tracing::warn!(%error, "no spare log segment could be prepared");
        }
    }
}

impl LogDisk for FileDisk {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for item in fs::read_dir(&self.dir)? {
            let name = item?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
            if let Some(id) = id.and_then(|id| u64::from_str_radix(id, 16).ok()) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn create(&mut self, id: u64, capacity: u64) -> io::Result<()> {
        let path = self.path(id);
        assert!(!path.exists(), "segment {id} exists");
        let spare = self.take_spare(capacity)?;
        fs::rename(spare, path)?;
        self.sync_dir()?;
        self.file(id)?;
        if self.spares.is_empty() {
            let spare = self.spare_path();
            let thread = std::thread::Builder::new().name("log-spare".into());
            match thread.spawn(move || fill(spare, capacity, Waiting::No)) {
                Ok(filling) => self.filling = Some(filling),
                Err(error) => tracing::warn!(%error, "no thread to prepare a log segment"),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(id)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        self.file(id)?.sync_data()
    }

    fn sync_work(&mut self, id: u64) -> io::Result<SyncWork> {
        // A file description of its own: the kernel tells each of them once of a failed write, so
        // that of two syncs at the same time neither takes the other's error away.
        let file = File::open(self.path(id))?;
        Ok(Box::new(move || file.sync_data()))
    }

    fn read(&mut self, id: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(id))
    }

    fn erase_from(&mut self, id: u64, offset: u64) -> io::Result<()> {
        let file = self.file(id)?;
        let len = file.metadata()?.len();
        // Zeros keep the space reserved, which cutting the file would give back.
        let zeros = vec![0; len.saturating_sub(offset) as usize];
        file.write_all_at(&zeros, offset)?;
        file.sync_all()
    }

    fn remove(&mut self, id: u64) -> io::Result<()> {
        self.open.remove(&id);
        let path = self.path(id);
        if self.spares.len() < SPARES_MAX {
            let spare = self.spare_path();
            fs::rename(path, &spare)?;
            self.spares.push(spare);
        } else {
            fs::remove_file(path)?;
        }
        self.sync_dir()
    }
}
