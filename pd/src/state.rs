//! The replicated placement state: a data model over range 1's keyspace.
//!
//! Holds what must outlive every leader: the registry of stores, the window of ids, the
//! configuration, the catalog version. Where ranges are and who leads them is soft state,
//! rebuilt from heartbeats (routes.rs).
//!
//! Invariants:
//! - A refused command changes nothing; the reply's `error` says why, and what to do.
//! - No id is handed out twice, and none below [`FIRST_ALLOCATED_ID`].
//! - Names and gRPC addresses are unique among the stores that are not removed.
//! - A store id belongs to one data directory (incarnation) for ever; a removed store never
//!   returns. A store that lost its directory would otherwise vote as if it remembered.
//! - A store is a store, or a placement node, for ever: what it may hold depends on it.
//! - The catalog version only grows.
//!
//! Left out on purpose: whether a store may be removed while it still holds replicas. That
//! takes the soft state; see [`Leader::check_removal`](crate::leader::Leader::check_removal).

use crate::bootstrap::FIRST_ALLOCATED_ID;
use crate::{config, data_founding, keys, tables};
use bytes::Bytes;
use prost::Message;
use rangekv_model::eval::{Context, Evaluator, Txn, View};
use rangekv_proto::internal::placement_command::{self as command, Kind};
use rangekv_proto::internal::{
    PlacementCommand, PlacementReply, PlacementState, RangeDescriptor, StoreRecord,
};
use rangekv_proto::StoreId;
use std::ops::ControlFlow;

/// Ids that one `AllocateIds` hands out at most.
pub const ALLOCATE_IDS_MAX: u64 = 1 << 20;

/// Bytes of a store's name, and of each of its addresses, at most.
pub const NAME_BYTES_MAX: usize = 255;

/// A store's place in the registry; the values of `StoreRecord::state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreState {
    /// In use.
    Up = 0,
    /// To be emptied: it is given nothing new.
    Draining = 1,
    /// Gone for good. Its name and address are free, its id is not.
    Removed = 2,
}

impl StoreState {
    /// The state of `record`; a value of a later version counts as draining, which is safe:
    /// nothing new is given to the store.
    pub fn of(record: &StoreRecord) -> StoreState {
        match record.state {
            0 => StoreState::Up,
            2 => StoreState::Removed,
            _ => StoreState::Draining,
        }
    }
}

/// What a store is for; the values of `StoreRecord::role`. It never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StoreRole {
    /// Holds data; and range 1, where there are no placement nodes.
    #[default]
    Store = 0,
    /// Holds range 1, and no data.
    Placement = 1,
}

impl StoreRole {
    /// The role of `record`. Records of versions that knew no roles are of stores.
    pub fn of(record: &StoreRecord) -> StoreRole {
        match record.role {
            1 => StoreRole::Placement,
            _ => StoreRole::Store,
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Placement => "placement node",
        }
    }
}

/// The placement state as an [`Evaluator`]: commands are `PlacementCommand`, replies
/// `PlacementReply`, both in protobuf. An accepted command's reply carries the state after it,
/// save for `AllocateIds`, whose reply carries `first_id` alone, and the commands of tables.rs.
#[derive(Clone, Copy, Default, Debug)]
pub struct PlacementModel;

impl Evaluator for PlacementModel {
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        let reply = match PlacementCommand::decode(&command[..]) {
            _ if context.start >= keys::PLACEMENT_END => {
                refused("placement commands are for range 1 alone")
            }
            Ok(PlacementCommand { kind: Some(kind) }) => {
                execute(kind, txn).unwrap_or_else(|Refused(why)| refused(why))
            }
            Ok(PlacementCommand { kind: None }) => {
                refused("a placement command that this version doesn't know")
            }
            Err(e) => refused(format!("not a placement command: {e}")),
        };
        reply.encode_to_vec().into()
    }

    /// Range 1 is never split: its commands read all of it.
    fn split_key(&self, _: &[u8], _: &[u8], _: &[u8]) -> Option<Bytes> {
        None
    }
}

/// A `PlacementCommand` of `kind`, encoded.
pub fn encode(kind: Kind) -> Bytes {
    PlacementCommand { kind: Some(kind) }.encode_to_vec().into()
}

/// The whole state. The error names a record that this version can't read.
pub fn read_state(view: &dyn View) -> Result<PlacementState, String> {
    let mut stores = Vec::new();
    let mut unreadable = None;
    view.scan(
        keys::STORES,
        keys::STORES_END,
        &mut |key, value| match StoreRecord::decode(value) {
            Ok(record) if keys::decode_store(key) == Some(StoreId(record.store)) => {
                stores.push(record);
                ControlFlow::Continue(())
            }
            _ => {
                unreadable = Some(format!("the placement record {key:02x?} is unreadable"));
                ControlFlow::Break(())
            }
        },
    );
    if let Some(why) = unreadable {
        return Err(why);
    }
    let mut settings = Vec::new();
    view.scan(keys::CONFIG, keys::CONFIG_END, &mut |key, value| {
        // A name or value that is not text was never written by a command.
        if let (Some(name), Ok(value)) = (keys::decode_config(key), std::str::from_utf8(value)) {
            settings.push((name.to_owned(), value.to_owned()));
        }
        ControlFlow::Continue(())
    });
    Ok(PlacementState {
        cluster: read_counter(view, keys::CLUSTER, 0)?,
        catalog_version: read_counter(view, keys::CATALOG_VERSION, 1)?,
        next_id: read_counter(view, keys::NEXT_ID, FIRST_ALLOCATED_ID)?,
        stores,
        config: settings.into_iter().collect(),
    })
}

/// The store of `state` that is called `name` and not removed.
pub fn store_named<'a>(state: &'a PlacementState, name: &str) -> Option<&'a StoreRecord> {
    state
        .stores
        .iter()
        .find(|s| s.name == name && StoreState::of(s) != StoreState::Removed)
}

/// Why a command changes nothing.
pub(crate) struct Refused(pub String);

pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Refused(why)
    }
}

fn refused(why: impl Into<String>) -> PlacementReply {
    PlacementReply {
        error: why.into(),
        ..Default::default()
    }
}

/// Each arm checks everything before it writes anything.
fn execute(kind: Kind, txn: &mut Txn<'_>) -> Result<PlacementReply, Refused> {
    let state = read_state(txn)?;
    let (mut first_id, mut ranges) = (0, Vec::new());
    match kind {
        Kind::ReadState(_) => {}
        Kind::AllocateIds(c) => {
            return Ok(PlacementReply {
                first_id: allocate_ids(&state, c.count, txn)?,
                ..Default::default()
            })
        }
        Kind::RegisterStore(c) => (first_id, ranges) = register_store(&state, c, txn)?,
        Kind::SetStoreState(c) => set_store_state(&state, c, txn)?,
        Kind::CreateTable(_)
        | Kind::UpdateTable(_)
        | Kind::RemoveTable(_)
        | Kind::ReadTables(_) => {
            return Ok(PlacementReply {
                tables: tables::execute(&state, kind, txn)?,
                ..Default::default()
            })
        }
        Kind::SetConfig(c) => set_config(c, txn)?,
        Kind::BumpCatalog(c) => {
            if c.expected != 0 && c.expected != state.catalog_version {
                return refuse(format!(
                    "catalog version is {}, not {} as expected; read it and try again",
                    state.catalog_version, c.expected
                ));
            }
            write_counter(txn, keys::CATALOG_VERSION, state.catalog_version + 1);
        }
    }
    Ok(PlacementReply {
        first_id,
        ranges,
        state: Some(read_state(txn)?),
        ..Default::default()
    })
}

pub(crate) fn allocate_ids(
    state: &PlacementState,
    count: u64,
    txn: &mut Txn<'_>,
) -> Result<u64, Refused> {
    if !(1..=ALLOCATE_IDS_MAX).contains(&count) {
        return refuse(format!(
            "{count} ids at once; expected 1 to {ALLOCATE_IDS_MAX}"
        ));
    }
    let Some(next) = state.next_id.checked_add(count) else {
        return refuse(format!("the ids are used up at {}", state.next_id));
    };
    write_counter(txn, keys::NEXT_ID, next);
    Ok(state.next_id)
}

fn set_config(c: command::SetConfig, txn: &mut Txn<'_>) -> Result<(), Refused> {
    // "default" drops the record, so that a later version's default takes effect.
    if c.value == "default" && config::find(&c.name).is_some() {
        txn.delete(keys::config(&c.name));
    } else {
        let value = config::check(&c.name, &c.value)?;
        txn.put(keys::config(&c.name), value);
    }
    Ok(())
}

fn set_store_state(
    state: &PlacementState,
    c: command::SetStoreState,
    txn: &mut Txn<'_>,
) -> Result<(), Refused> {
    let Some(record) = state.stores.iter().find(|s| s.store == c.store) else {
        return refuse(format!("there is no store {}", c.store));
    };
    if c.state > StoreState::Removed as u32 {
        return refuse(format!("{} is no store state; expected 0, 1 or 2", c.state));
    }
    if StoreState::of(record) == StoreState::Removed && c.state != StoreState::Removed as u32 {
        return refuse(was_removed(record));
    }
    if record.state != c.state {
        put_store(
            txn,
            &StoreRecord {
                state: c.state,
                ..record.clone()
            },
        );
    }
    Ok(())
}

/// Adds a store, or updates its addresses; returns its id, and the data ranges that it begins
/// with. Doing it twice changes nothing, so that a store whose answer was lost asks again.
fn register_store(
    state: &PlacementState,
    c: command::RegisterStore,
    txn: &mut Txn<'_>,
) -> Result<(u64, Vec<RangeDescriptor>), Refused> {
    let Some(mut record) = c.record else {
        return refuse("a registration without a store");
    };
    check_record(&record)?;
    data_founding::check(c.data_ranges, txn)?;
    if c.cluster != 0 && state.cluster != 0 && c.cluster != state.cluster {
        return refuse(format!(
            "store {} belongs to cluster {:016x}, this is cluster {:016x}; \
             start it with an empty data directory to join this one",
            record.name, c.cluster, state.cluster
        ));
    }
    let live = || {
        state
            .stores
            .iter()
            .filter(|s| StoreState::of(s) != StoreState::Removed)
    };
    let known = match record.store {
        0 => live().find(|s| s.name == record.name && s.incarnation == record.incarnation),
        id => state.stores.iter().find(|s| s.store == id),
    };
    match known {
        Some(known) => {
            check_incarnation(known, record.incarnation)?;
            check_role(known, &record)?;
            record.store = known.store;
            record.state = known.state;
        }
        // Bootstrap and `AllocateIds` are the only sources of ids.
        None if record.store >= state.next_id.max(FIRST_ALLOCATED_ID) => {
            return refuse(format!("store id {} was never handed out", record.store));
        }
        None => {}
    }
    if let Some(other) = live().find(|s| s.store != record.store && s.name == record.name) {
        return refuse(other_directory(other));
    }
    let same_address =
        |s: &&StoreRecord| s.store != record.store && s.grpc_address == record.grpc_address;
    if let Some(other) = live().find(same_address) {
        return refuse(format!(
            "address {} is held by store {} (id {}); give this store another --address, or, if that \
             store is gone, remove it with `rangekv ctl store remove {}` and join again",
            other.grpc_address, other.name, other.store, other.name
        ));
    }
    // Nothing is refused below this line, save that ids run out.
    if record.store == 0 {
        record.store = allocate_ids(state, 1, txn)?;
    }
    if state.cluster == 0 && c.cluster != 0 {
        write_counter(txn, keys::CLUSTER, c.cluster);
        data_founding::named(&record, txn);
    }
    if known != Some(&record) {
        put_store(txn, &record);
    }
    let ranges = data_founding::ranges_of(state, &record, c.cluster != 0, c.data_ranges, txn)?;
    Ok((record.store, ranges))
}

fn check_role(known: &StoreRecord, asking: &StoreRecord) -> Result<(), Refused> {
    let (role, asked) = (StoreRole::of(known), StoreRole::of(asking));
    if role == asked {
        return Ok(());
    }
    let command = match role {
        StoreRole::Store => "rangekv start",
        StoreRole::Placement => "rangekv pd",
    };
    refuse(format!(
        "{} (id {}) is registered as a {}, not as a {}; start it with `{command}`",
        known.name,
        known.store,
        role.name(),
        asked.name()
    ))
}

/// Whether the data directory of `incarnation` may act as the registered store `record`.
pub(crate) fn check_incarnation(record: &StoreRecord, incarnation: u64) -> Result<(), String> {
    match StoreState::of(record) {
        StoreState::Removed => Err(was_removed(record)),
        _ if record.incarnation != incarnation => Err(other_directory(record)),
        _ => Ok(()),
    }
}

fn check_record(record: &StoreRecord) -> Result<(), Refused> {
    let StoreRecord {
        name, grpc_address, ..
    } = record;
    if record.role > StoreRole::Placement as u32 {
        return refuse(format!(
            "{} is no role that this version knows; expected 0 or 1",
            record.role
        ));
    }
    let fields = [
        name,
        grpc_address,
        &record.redis_address,
        &record.dynamo_address,
        &record.http_address,
    ];
    if name.is_empty() || grpc_address.is_empty() || record.incarnation == 0 {
        return refuse("a store registers with a name, a gRPC address and an incarnation");
    }
    if let Some(long) = fields.into_iter().find(|f| f.len() > NAME_BYTES_MAX) {
        return refuse(format!("\"{long}\" is longer than {NAME_BYTES_MAX} bytes"));
    }
    if record.state != 0 {
        return refuse("a registration doesn't change the state of a store; SetStoreState does");
    }
    Ok(())
}

fn was_removed(record: &StoreRecord) -> String {
    format!(
        "store {} (id {}) was removed from the cluster and can't return; \
         start it with an empty data directory to join as a new store",
        record.name, record.store
    )
}

fn other_directory(record: &StoreRecord) -> String {
    format!(
        "store {0} (id {1}) is registered with another data directory; \
         remove it with `rangekv ctl store remove {0}` and join again",
        record.name, record.store
    )
}

fn put_store(txn: &mut Txn<'_>, record: &StoreRecord) {
    txn.put(keys::store(StoreId(record.store)), record.encode_to_vec());
}

fn read_counter(view: &dyn View, key: &[u8], absent: u64) -> Result<u64, String> {
    match view.get(key) {
        None => Ok(absent),
        Some(value) => value[..]
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| format!("the placement record {key:02x?} is unreadable")),
    }
}

pub(crate) fn write_counter(txn: &mut Txn<'_>, key: &'static [u8], value: u64) {
    txn.put(key, value.to_be_bytes().to_vec());
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
