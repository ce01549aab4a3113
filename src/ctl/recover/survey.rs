//! What the data directory of a stopped store holds.

use crate::ctl::hex;
use crate::node::book::AddressBook;
use crate::node::identity::{DataDir, Identity};
use anyhow::Context;
use rangekv_model::eval::View;
use rangekv_pd::keys;
use rangekv_proto::internal::StoreRecord;
use rangekv_proto::{RangeDescriptor, RangeId, StoreId};
use rangekv_store::engine::rocks::{RocksConfig, RocksEngine};
use rangekv_store::log::disk::FileDisk;
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::log::Tombstone;
use rangekv_store::meta;
use rangekv_store::recover::Survivor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Format of surveys and plans.
pub const FORMAT: u32 = 1;

/// A stopped store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// [`FORMAT`].
    pub format: u32,
    /// In hex.
    pub cluster: String,
    /// Its number.
    pub store: u64,
    /// Its name.
    pub name: String,
    /// Of its data directory, in hex.
    pub incarnation: String,
    /// Stores that it knows, by number, itself among them.
    pub stores: BTreeMap<u64, String>,
    /// The greatest number of a range, replica or store that it has met.
    pub highest_id: u64,
    /// Its replicas, by range.
    pub replicas: Vec<ReplicaFound>,
}

/// A replica of a stopped store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFound {
    /// The range.
    pub range: u64,
    /// The replica.
    pub replica: u64,
    /// Its range, with the members by which it votes: protobuf, in hex. Bounds are as applied.
    pub committed_range: String,
    /// Its range once all of its log is applied: protobuf, in hex. Bounds are as applied.
    pub final_range: String,
    /// Its term.
    pub term: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Index up to which it knows entries to be committed.
    pub committed: u64,
    /// Index of the last entry.
    pub last: u64,
    /// Term of the last entry.
    pub last_term: u64,
    /// The log cuts the range in two, which is not applied yet.
    pub splits: bool,
    /// Why nothing can be recovered from it; empty = it can.
    pub refused: String,
}

/// The opened data of a stopped store.
pub struct Stopped {
    /// Locked while this lives.
    pub data: DataDir,
    /// Who it is.
    pub identity: Identity,
    /// Its state.
    pub engine: RocksEngine,
    /// Its log.
    pub log: SegmentedLog<FileDisk>,
    /// Its replicas.
    pub survivors: BTreeMap<RangeId, Survivor>,
    /// What it has held.
    pub tombstones: BTreeMap<RangeId, Tombstone>,
}

impl Stopped {
    /// Opens a data directory that no process uses.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(path.is_dir(), "{} is no directory", path.display());
        anyhow::ensure!(
            path.join("IDENTITY").exists(),
            "{} is not the data directory of a store that had a place in a cluster",
            path.display()
        );
        let data = DataDir::open(path)?;
        let identity = data.identity().cloned().context("it has no identity")?;
        let initial = data.initial_ranges()?;
        anyhow::ensure!(
            initial.is_empty(),
            "{} has never run: its first ranges are not made yet",
            identity.name
        );
        let engine = RocksEngine::open(&data.state(), &RocksConfig::default())?;
        let (log, mut recovered) =
            SegmentedLog::open(FileDisk::open(&data.log())?, LogConfig::default())?;
        let mut survivors = BTreeMap::new();
        for (id, descriptor, applied) in meta::all_ranges(&engine).map_err(anyhow::Error::msg)? {
            let range = descriptor.id;
            let dead = recovered.tombstones.get(&range);
            if dead.is_some_and(|tombstone| tombstone.replica >= id) {
                continue;
            }
            let merging = engine.get(&meta::merging_key(range)).is_some();
            let log = recovered.groups.remove(&range);
            let survivor = Survivor::new(id, descriptor, applied, merging, log);
            survivors.insert(range, survivor);
        }
        Ok(Stopped {
            data,
            identity,
            engine,
            log,
            survivors,
            tombstones: recovered.tombstones,
        })
    }

    /// Writes down what it holds.
    pub fn survey(&self) -> anyhow::Result<Survey> {
        let mut stores: BTreeMap<u64, String> = AddressBook::open(self.data.path())?
            .all()
            .into_iter()
            .map(|(id, entry)| (id.0, entry.name))
            .collect();
        let registered = self.registered().into_iter();
        stores.extend(registered.map(|record| (record.store, record.name)));
        stores.insert(self.identity.store, self.identity.name.clone());
        Ok(Survey {
            format: FORMAT,
            cluster: format!("{:016x}", self.identity.cluster),
            store: self.identity.store,
            name: self.identity.name.clone(),
            incarnation: format!("{:016x}", self.identity.incarnation),
            highest_id: self.highest_id(&stores),
            stores,
            replicas: self.survivors.values().map(found).collect(),
        })
    }

    fn highest_id(&self, stores: &BTreeMap<u64, String>) -> u64 {
        let buried = self
            .tombstones
            .iter()
            .flat_map(|(range, t)| [range.0, t.replica.0]);
        let ranges = self.survivors.values().flat_map(|survivor| {
            let last = survivor.members().ok();
            let all = [Some(survivor.descriptor.clone()), last]
                .into_iter()
                .flatten();
            all.flat_map(|d| {
                d.replicas
                    .iter()
                    .map(|r| r.id.0)
                    .chain([d.id.0])
                    .collect::<Vec<_>>()
            })
        });
        let stores = stores.keys().copied();
        buried.chain(ranges).chain(stores).max().unwrap_or(0)
    }

    /// The registry as this store has it applied; nothing if it holds no replica of range 1.
    pub fn registered(&self) -> Vec<StoreRecord> {
        use prost::Message as _;
        let mut records = Vec::new();
        self.engine
            .scan(keys::STORES, keys::STORES_END, &mut |_, value| {
                records.extend(StoreRecord::decode(value).ok());
                ControlFlow::Continue(())
            });
        records
    }
}

fn found(survivor: &Survivor) -> ReplicaFound {
    let committed = survivor.committed_members();
    let committed = committed.unwrap_or_else(|_| survivor.descriptor.clone());
    let (members, refused) = match (survivor.members(), survivor.merging) {
        (Ok(members), false) => (members, String::new()),
        (Ok(members), true) => (members, "it was being merged with a neighbour".into()),
        (Err(why), _) => (survivor.descriptor.clone(), why.to_string()),
    };
    let position = survivor.position();
    ReplicaFound {
        range: survivor.descriptor.id.0,
        replica: survivor.id.0,
        committed_range: hex(&committed.encode()),
        final_range: hex(&members.encode()),
        term: survivor.term(),
        applied: survivor.applied.index,
        committed: survivor.commit(),
        last: position.index,
        last_term: position.term,
        splits: survivor.splits(),
        refused,
    }
}

impl ReplicaFound {
    /// Its range, with the members by which it votes.
    pub fn committed_range(&self) -> anyhow::Result<RangeDescriptor> {
        decode(&self.committed_range)
    }

    /// Its range once all of its log is applied.
    pub fn final_range(&self) -> anyhow::Result<RangeDescriptor> {
        decode(&self.final_range)
    }
}

fn decode(text: &str) -> anyhow::Result<RangeDescriptor> {
    let bytes = crate::ctl::unhex(text).context("a range in it is not hex")?;
    RangeDescriptor::decode(&bytes).map_err(|e| anyhow::anyhow!("a range in it: {e}"))
}

impl Survey {
    /// Stands for what it says of the replicas: it is another one once the store has run.
    pub fn fingerprint(&self) -> String {
        let json = serde_json::to_vec(&self.replicas).expect("our own types serialise");
        format!("{:08x}", crc32fast::hash(&json))
    }

    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        StoreId(self.store)
    }
}

/// Prints a survey.
pub fn run(data_dir: &Path) -> anyhow::Result<String> {
    let survey = Stopped::open(data_dir)?.survey()?;
    Ok(serde_json::to_string_pretty(&survey)?)
}
