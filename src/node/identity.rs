//! A store's data directory: who it belongs to, and that it has one user.
//!
//! ```text
//! LOCK        held (flock) by the running process
//! INCARNATION drawn when the directory was made, before anyone hears of it
//! IDENTITY    cluster, store, name, incarnation; absent = empty, may be initialised
//! INITIAL     ranges to create on the first start; removed when they are durable
//! BOOTSTRAP   on the bootstrapping store: which member was initialised in which incarnation
//! STORES      addresses of the cluster's stores, as last heard
//! log/        raft log
//! state/      state engine
//! ```
//!
//! Invariant: IDENTITY is written once, before `log/` and `state/` have content, and never
//! changed. A directory with content but without identity is refused: it can't be known
//! whose votes it holds.

use super::durable::{self, DurableError};
use crate::ctl::{hex, unhex};
use rangekv_pd::state::StoreRole;
use rangekv_proto::{RangeDescriptor, StoreId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Format of the data directory that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Who a store is, for as long as its data directory lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster; never 0.
    pub cluster: u64,
    /// The store's id in it.
    pub store: u64,
    /// The operator's name for it, such as `n1`.
    pub name: String,
    /// Drawn when the directory was made: tells it from the one it replaces.
    pub incarnation: u64,
    /// It is a placement node's: it holds range 1 and no data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub placement: bool,
}

impl Identity {
    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        StoreId(self.store)
    }

    /// What the store is for.
    pub fn role(&self) -> StoreRole {
        match self.placement {
            true => StoreRole::Placement,
            false => StoreRole::Store,
        }
    }
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process runs on it.
    #[error("{0} is in use by another rangekv process: stop that one first, or give this one its own --data-dir")]
    InUse(PathBuf),
    /// Data without an identity.
    #[error("{0} holds data but no IDENTITY file, so it is unknown whose votes it remembers: restore the file, or remove the whole directory and replace the store")]
    NoIdentity(PathBuf),
    /// Initialised for someone else.
    #[error("{path} belongs to store {found:?}, but this process was started as {asked:?}: check --data-dir and the node's name")]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        found: String,
        /// Who we are told to be.
        asked: String,
    },
    /// Initialised for another role.
    #[error("{path} belongs to {found}, a {}: start it with `{command}`, or give this process another directory", .role.name())]
    OtherRole {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        found: String,
        /// What it is for.
        role: StoreRole,
        /// What starts such a one.
        command: &'static str,
    },
    /// One of its small files.
    #[error(transparent)]
    File(#[from] DurableError),
}

/// An opened, locked data directory.
pub struct DataDir {
    path: PathBuf,
    identity: Option<Identity>,
    incarnation: u64,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct InitialRange {
    /// Protobuf, in hex.
    descriptor: String,
}

impl DataDir {
    /// Opens `path`, creating it if need be, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io_error = |e| DurableError::from_io(path, e);
        fs::create_dir_all(path).map_err(io_error)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(io_error)?;
        if !try_lock(&lock).map_err(io_error)? {
            return Err(DataDirError::InUse(path.to_path_buf()));
        }
        let identity: Option<Identity> = durable::read(&path.join("IDENTITY"), "identity", FORMAT)?;
        let incarnation = match &identity {
            Some(identity) => identity.incarnation,
            None => {
                for sub in ["log", "state"] {
                    if !is_empty(&path.join(sub)).map_err(io_error)? {
                        return Err(DataDirError::NoIdentity(path.to_path_buf()));
                    }
                }
                draw_incarnation(&path.join("INCARNATION"))?
            }
        };
        Ok(DataDir {
            path: path.to_path_buf(),
            identity,
            incarnation,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The raft log's directory.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The state engine's directory.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Who it belongs to; `None` = nobody yet.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The number that tells this directory from any that had or will have its place.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Checks that the directory's owner has the name that the operator gave this process.
    pub fn check_name(&self, asked: &str) -> Result<(), DataDirError> {
        match &self.identity {
            Some(identity) if identity.name != asked => Err(DataDirError::OtherName {
                path: self.path.clone(),
                found: identity.name.clone(),
                asked: asked.into(),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that the directory's owner is what this process was started as.
    pub fn check_role(&self, asked: StoreRole) -> Result<(), DataDirError> {
        match &self.identity {
            Some(identity) if identity.role() != asked => Err(DataDirError::OtherRole {
                path: self.path.clone(),
                found: identity.name.clone(),
                role: identity.role(),
                command: match identity.role() {
                    StoreRole::Store => "rangekv start",
                    StoreRole::Placement => "rangekv pd",
                },
            }),
            _ => Ok(()),
        }
    }

    /// Gives the empty directory its identity. `ranges` are what the store holds from the
    /// beginning; [`initial_ranges`](Self::initial_ranges) returns them until
    /// [`forget_initial_ranges`](Self::forget_initial_ranges).
    pub fn initialise(
        &mut self,
        identity: Identity,
        ranges: &[RangeDescriptor],
    ) -> Result<(), DataDirError> {
        assert!(
            self.identity.is_none(),
            "{:?} already has an identity",
            self.path
        );
        assert!(identity.cluster != 0 && identity.store != 0, "{identity:?}");
        let hex = |d: &RangeDescriptor| InitialRange {
            descriptor: hex(&d.encode()),
        };
        let initial: Vec<InitialRange> = ranges.iter().map(hex).collect();
        // Before the identity: a directory with an identity misses nothing.
        if !initial.is_empty() {
            durable::write(&self.path.join("INITIAL"), "initial", FORMAT, &initial)?;
        }
        durable::write(&self.path.join("IDENTITY"), "identity", FORMAT, &identity)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Ranges to create, if they are not known to be durable yet.
    pub fn initial_ranges(&self) -> Result<Vec<RangeDescriptor>, DataDirError> {
        let path = self.path.join("INITIAL");
        let initial: Vec<InitialRange> =
            durable::read(&path, "initial", FORMAT)?.unwrap_or_default();
        let decode = |range: InitialRange| {
            let damaged = |why: String| DurableError::Damaged {
                path: path.clone(),
                why,
            };
            let bytes = unhex(&range.descriptor).ok_or_else(|| damaged("not hex".into()))?;
            RangeDescriptor::decode(&bytes).map_err(|e| damaged(e.to_string()))
        };
        Ok(initial.into_iter().map(decode).collect::<Result<_, _>>()?)
    }

    /// The initial ranges are durable in `log/` and `state/`.
    pub fn forget_initial_ranges(&self) -> Result<(), DataDirError> {
        Ok(durable::remove(&self.path.join("INITIAL"))?)
    }
}

/// The number kept in `path`, drawn now if there is none. Kept, so that an empty store may be
/// restarted while it waits: only another directory has another number.
fn draw_incarnation(path: &Path) -> Result<u64, DurableError> {
    if let Some(kept) = durable::read(path, "incarnation", FORMAT)? {
        return Ok(kept);
    }
    let drawn = rand::random_range(1..=u64::MAX);
    durable::write(path, "incarnation", FORMAT, &drawn)?;
    Ok(drawn)
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    use rustix::fs::{flock, FlockOperation};
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rangekv_proto::{Epoch, RangeId};

    fn identity(incarnation: u64) -> Identity {
        Identity {
            cluster: 7,
            store: 2,
            name: "n2".into(),
            incarnation,
            placement: false,
        }
    }

    fn range() -> RangeDescriptor {
        RangeDescriptor {
            id: RangeId(2),
            start: Bytes::from_static(b"\xff\x00"),
            end: Bytes::new(),
            epoch: Epoch {
                conf_version: 1,
                version: 1,
            },
            replicas: vec![],
        }
    }

    #[test]
    fn keeps_its_identity_and_initial_ranges_until_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        assert!(dir.identity().is_none());
        let incarnation = dir.incarnation();
        drop(dir);
        let mut dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.incarnation(), incarnation, "a restart changes nothing");
        let identity = identity(incarnation);
        dir.initialise(identity.clone(), &[range()]).unwrap();
        drop(dir);
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.identity(), Some(&identity));
        assert_eq!(dir.incarnation(), incarnation);
        let wiped = DataDir::open(&root.path().join("wiped")).unwrap();
        assert_ne!(wiped.incarnation(), incarnation);
        assert_eq!(dir.initial_ranges().unwrap(), [range()]);
        dir.forget_initial_ranges().unwrap();
        assert!(dir.initial_ranges().unwrap().is_empty());
    }

    #[test]
    fn has_one_user_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("in use by another rangekv process"),
            "{error}"
        );
        drop(first);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn refuses_data_without_an_identity_and_other_names() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("log")).unwrap();
        let mut dir = DataDir::open(root.path()).unwrap();
        dir.initialise(identity(dir.incarnation()), &[]).unwrap();
        dir.check_name("n2").unwrap();
        assert!(dir
            .check_name("n3")
            .unwrap_err()
            .to_string()
            .contains("belongs to store \"n2\""));
        dir.check_role(StoreRole::Store).unwrap();
        assert!(dir
            .check_role(StoreRole::Placement)
            .unwrap_err()
            .to_string()
            .contains("belongs to n2, a store: start it with `rangekv start`"));
        drop(dir);
        fs::write(root.path().join("log/1"), "x").unwrap();
        fs::remove_file(root.path().join("IDENTITY")).unwrap();
        let error = DataDir::open(root.path()).err().unwrap();
        assert!(matches!(error, DataDirError::NoIdentity(_)), "{error}");
    }

    #[test]
    fn says_what_to_do_about_an_unwritable_directory() {
        let error = DataDir::open(Path::new("/proc/rangekv-data"))
            .err()
            .unwrap();
        assert!(error.to_string().contains("/proc/rangekv-data"), "{error}");
    }
}
