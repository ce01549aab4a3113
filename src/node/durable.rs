//! Small files that are either whole or absent: identity, bootstrap records, addresses.
//!
//! A file is one line naming its format, one line of JSON, and one line with the CRC32 of
//! what stands before: readable with `cat`, and a damaged one is never believed. Writing
//! goes through a temporary file, fsync, rename, and fsync of the directory.

use serde::{de::DeserializeOwned, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a small file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// Written by a newer version.
    #[error("{path} has format {found}, but this version of rangekv reads formats up to {known}: start it with the version that wrote it, or a newer one")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that we read.
        known: u32,
    },
    /// Not what was written.
    #[error("{path} is damaged ({why}); restore it from a copy, or remove the whole data directory and replace the store (`rangekv ctl store remove`, then start it again with --join)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The disk has no room.
    #[error("the disk of {path} is full: free some space and start again")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// No permission, or a read-only file system.
    #[error("{path} can't be written by uid {} ({source}): check the owner and the mount of the data directory; in a container, the user that it runs as must own the volume", rustix::process::geteuid().as_raw())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DurableError {
    /// Sorts a system error by what the operator has to do.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// Writes `value` to `path`, durably and as a whole.
pub fn write(
    path: &Path,
    kind: &str,
    format: u32,
    value: &impl Serialize,
) -> Result<(), DurableError> {
    let json = serde_json::to_string(value).expect("our own types serialise");
    let body = format!("rangekv {kind} {format}\n{json}\n");
    let text = format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
    write_whole(path, text.as_bytes()).map_err(|e| DurableError::from_io(path, e))
}

/// Reads what [`write()`] wrote; `None` if there is no file.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    kind: &str,
    known: u32,
) -> Result<Option<T>, DurableError> {
    let text = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DurableError::from_io(path, e)),
    };
    let damaged = |why: &str| DurableError::Damaged {
        path: path.to_path_buf(),
        why: why.into(),
    };
    let text = String::from_utf8(text).map_err(|_| damaged("not text"))?;
    let end = text.rfind("crc32 ").ok_or_else(|| damaged("no checksum"))?;
    let (body, sum) = text.split_at(end);
    let sum = sum
        .trim_end()
        .strip_prefix("crc32 ")
        .and_then(|s| u32::from_str_radix(s, 16).ok());
    if sum != Some(crc32fast::hash(body.as_bytes())) {
        return Err(damaged("its checksum does not match"));
    }
    let (head, json) = body
        .split_once('\n')
        .ok_or_else(|| damaged("no first line"))?;
    let found = match head.split(' ').collect::<Vec<_>>()[..] {
        ["rangekv", k, format] if k == kind => format
            .parse::<u32>()
            .map_err(|_| damaged("no format number"))?,
        _ => return Err(damaged(&format!("not a {kind} file"))),
    };
    if found > known {
        return Err(DurableError::Newer {
            path: path.to_path_buf(),
            found,
            known,
        });
    }
    serde_json::from_str(json)
        .map(Some)
        .map_err(|e| damaged(&e.to_string()))
}

/// Removes a file durably. It is no error if there is none.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(|e| DurableError::from_io(path, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(DurableError::from_io(path, e)),
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().expect("a file has a directory");
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("THING");
        (dir, path)
    }

    #[test]
    fn reads_what_was_written_last() {
        let (_dir, path) = file();
        assert_eq!(read::<u64>(&path, "thing", 1).unwrap(), None);
        write(&path, "thing", 1, &41u64).unwrap();
        write(&path, "thing", 1, &42u64).unwrap();
        assert_eq!(read::<u64>(&path, "thing", 1).unwrap(), Some(42));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read::<u64>(&path, "thing", 1).unwrap(), None);
    }

    #[test]
    fn believes_no_damaged_file() {
        let (_dir, path) = file();
        write(&path, "thing", 1, &vec!["alpha", "beta"]).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            // The end of the last line carries no meaning.
            if at + 1 < whole.len() {
                let error = read::<Vec<String>>(&path, "thing", 1).unwrap_err();
                assert!(
                    matches!(error, DurableError::Damaged { .. }),
                    "byte {at}: {error}"
                );
            }
        }
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(
                read::<Vec<String>>(&path, "thing", 1).is_err(),
                "cut to {length}"
            );
        }
    }

    #[test]
    fn refuses_newer_formats_and_other_kinds() {
        let (_dir, path) = file();
        write(&path, "thing", 3, &1u64).unwrap();
        let error = read::<u64>(&path, "thing", 2).unwrap_err();
        assert!(
            matches!(
                error,
                DurableError::Newer {
                    found: 3,
                    known: 2,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("start it with the version"));
        assert!(read::<u64>(&path, "other", 3)
            .unwrap_err()
            .to_string()
            .contains("not a other file"));
    }
}
