//! Addresses of the cluster's stores, as last heard; kept on disk for the next start.
//!
//! Without the file a restarted store could not find anybody to ask who the others are.

use super::durable::{self, DurableError};
use parking_lot::RwLock;
use rangekv_proto::internal::StoreRecord;
use rangekv_proto::StoreId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;

/// How to reach a store. Empty addresses are unknown yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreEntry {
    /// The operator's name for it.
    pub name: String,
    /// Of the data directory that is registered under this id; 0 = none is yet.
    #[serde(default)]
    pub incarnation: u64,
    /// Where other stores reach it.
    pub grpc: String,
    /// Where Redis clients reach it.
    pub redis: String,
    /// Where DynamoDB clients reach it.
    pub dynamo: String,
    /// Its status HTTP.
    pub http: String,
}

impl From<&StoreRecord> for StoreEntry {
    fn from(r: &StoreRecord) -> Self {
        StoreEntry {
            name: r.name.clone(),
            incarnation: r.incarnation,
            grpc: r.grpc_address.clone(),
            redis: r.redis_address.clone(),
            dynamo: r.dynamo_address.clone(),
            http: r.http_address.clone(),
        }
    }
}

/// All known stores by id, this one included.
pub struct AddressBook {
    path: PathBuf,
    entries: RwLock<BTreeMap<u64, StoreEntry>>,
}

impl AddressBook {
    /// Reads what was kept in `data_dir`.
    pub fn open(data_dir: &Path) -> Result<Self, DurableError> {
        let path = data_dir.join("STORES");
        let entries = durable::read(&path, "stores", FORMAT)?.unwrap_or_default();
        Ok(AddressBook {
            path,
            entries: RwLock::new(entries),
        })
    }

    /// Where other stores reach `store`.
    pub fn grpc(&self, store: StoreId) -> Option<String> {
        let entries = self.entries.read();
        entries
            .get(&store.0)
            .map(|e| e.grpc.clone())
            .filter(|a| !a.is_empty())
    }

    /// What is known of `store`.
    pub fn get(&self, store: StoreId) -> Option<StoreEntry> {
        self.entries.read().get(&store.0).cloned()
    }

    /// Everyone.
    pub fn all(&self) -> BTreeMap<StoreId, StoreEntry> {
        self.entries
            .read()
            .iter()
            .map(|(id, e)| (StoreId(*id), e.clone()))
            .collect()
    }

    /// The ids of all stores but `me`.
    pub fn others(&self, me: StoreId) -> Vec<StoreId> {
        let entries = self.entries.read();
        let ids = entries.keys().map(|id| StoreId(*id));
        ids.filter(|id| *id != me).collect()
    }

    /// Takes over what is newer, keeps it on disk; returns whether anything changed.
    /// Empty addresses never replace known ones.
    pub fn update(
        &self,
        news: impl IntoIterator<Item = (StoreId, StoreEntry)>,
    ) -> Result<bool, DurableError> {
        let mut entries = self.entries.write();
        let mut changed = false;
        for (id, new) in news {
            let entry = entries.entry(id.0).or_default();
            let mut merged = entry.clone();
            if new.incarnation != 0 {
                merged.incarnation = new.incarnation;
            }
            for (old, new) in [
                (&mut merged.name, new.name),
                (&mut merged.grpc, new.grpc),
                (&mut merged.redis, new.redis),
                (&mut merged.dynamo, new.dynamo),
                (&mut merged.http, new.http),
            ] {
                if !new.is_empty() {
                    *old = new;
                }
            }
            changed |= *entry != merged;
            *entry = merged;
        }
        if changed {
            durable::write(&self.path, "stores", FORMAT, &*entries)?;
        }
        Ok(changed)
    }

    /// Forgets a store that was removed from the cluster.
    pub fn remove(&self, store: StoreId) -> Result<(), DurableError> {
        let mut entries = self.entries.write();
        match entries.remove(&store.0) {
            Some(_) => durable::write(&self.path, "stores", FORMAT, &*entries),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_addresses_and_lets_no_empty_one_replace_them() {
        let dir = tempfile::tempdir().unwrap();
        let book = AddressBook::open(dir.path()).unwrap();
        let entry = |grpc: &str, redis: &str| StoreEntry {
            name: "n2".into(),
            grpc: grpc.into(),
            redis: redis.into(),
            ..StoreEntry::default()
        };
        assert!(book.update([(StoreId(2), entry("b:50051", ""))]).unwrap());
        assert!(book.update([(StoreId(2), entry("", "b:6379"))]).unwrap());
        assert!(!book
            .update([(StoreId(2), entry("b:50051", "b:6379"))])
            .unwrap());
        let book = AddressBook::open(dir.path()).unwrap();
        assert_eq!(book.grpc(StoreId(2)).as_deref(), Some("b:50051"));
        assert_eq!(book.get(StoreId(2)).unwrap().redis, "b:6379");
        assert_eq!(book.grpc(StoreId(3)), None);
        book.remove(StoreId(2)).unwrap();
        assert!(AddressBook::open(dir.path()).unwrap().all().is_empty());
    }
}
