//! How full the disk is. Below a reserve no writes are accepted: the raft log and the state
//! engine need room to go on, and a store that runs out altogether must stop.

use super::mailbox::Mailbox;
use rangekv_store::event::Event;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(1);
/// The directory's own size is counted every so many looks.
const COUNT_EVERY: u32 = 10;

/// The latest figures.
pub struct DiskWatch {
    path: PathBuf,
    free_bytes: AtomicU64,
    used_bytes: AtomicU64,
    full: AtomicBool,
}

impl DiskWatch {
    /// Looks once.
    pub fn new(path: &Path) -> std::io::Result<Arc<Self>> {
        let watch = DiskWatch {
            path: path.to_path_buf(),
            free_bytes: AtomicU64::new(free_bytes(path)?),
            used_bytes: AtomicU64::new(directory_bytes(path)),
            full: AtomicBool::new(false),
        };
        Ok(Arc::new(watch))
    }

    /// Bytes that this process may still write.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Bytes in the data directory.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether so little is free that writes are refused.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Looks every second, and tells the worker when the free space passes `reserve`.
    pub async fn run(self: Arc<Self>, mailbox: Arc<Mailbox>, reserve: u64) {
        let mut was_full = false;
        for look in 0u32.. {
            match free_bytes(&self.path) {
                Ok(free) => self.free_bytes.store(free, Ordering::Relaxed),
                Err(error) => tracing::error!(%error, "the free space of the disk is unknown"),
            }
            if look % COUNT_EVERY == 0 {
                let this = self.clone();
                let count = move || {
                    let used = directory_bytes(&this.path);
                    this.used_bytes.store(used, Ordering::Relaxed);
                };
                if let Err(error) = tokio::task::spawn_blocking(count).await {
                    tracing::error!(%error, "counting the data directory");
                }
            }
            let full = is_full(self.free_bytes(), reserve, was_full);
            if full != was_full {
                was_full = full;
                self.full.store(full, Ordering::Relaxed);
                mailbox.push(Event::DiskFull(full));
                let free = self.free_bytes();
                match full {
                    true => tracing::error!(
                        free,
                        reserve,
                        "the disk is almost full: writes to ranges that this store leads are refused"
                    ),
                    false => tracing::info!(free, "the disk has room again"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Full below the reserve, and until there is a quarter more: no flapping at the edge.
fn is_full(free: u64, reserve: u64, was_full: bool) -> bool {
    match was_full {
        true => free < reserve + reserve / 4,
        false => free < reserve,
    }
}

fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Files come and go while they are counted: what can't be read counts nothing.
fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_begins_at_the_reserve_and_ends_a_quarter_above() {
        assert!(!is_full(100, 100, false));
        assert!(is_full(99, 100, false));
        assert!(is_full(124, 100, true));
        assert!(!is_full(125, 100, true));
    }

    #[test]
    fn counts_files_of_all_levels() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        std::fs::write(dir.path().join("log/1"), [0; 1000]).unwrap();
        std::fs::write(dir.path().join("IDENTITY"), [0; 10]).unwrap();
        assert_eq!(directory_bytes(dir.path()), 1010);
        assert!(DiskWatch::new(dir.path()).unwrap().free_bytes() > 0);
    }
}
