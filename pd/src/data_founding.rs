//! The data ranges of a cluster that placement nodes have made.
//!
//! Placement nodes hold range 1 and no data, so when they make a cluster there is nobody yet to
//! hold the data ranges. The first store that joins is given all of them, as a cluster of one would
//! have them; the schedulers add replicas as more stores come.
//!
//! Invariants:
//! - The data ranges are laid out once. What was given to a store is in the record before the store
//!   hears of it, and whoever asks again with the same directory is given the same.
//! - They are laid out anew only if that store was removed before it had a seat: then no client
//!   can have been served by it. Once it has its seat its data is the cluster's, and if it is
//!   lost, it is lost: nothing is made up in its place.
//! - A cluster whose members are stores has no such record, and no ranges are laid out in it.

use crate::bootstrap::{data_ranges_on, default_data_ranges, DATA_RANGES_MAX};
use crate::keys;
use crate::state::{allocate_ids, read_state, refuse, Refused, StoreRole, StoreState};
use prost::Message;
use rangekv_model::eval::{Txn, View};
use rangekv_proto::internal::{self as pb, DataFounding, PlacementState, StoreRecord};
use rangekv_proto::StoreId;

/// The first store of the cluster has named it. If that is a placement node, data ranges are
/// wanted.
pub fn named(by: &StoreRecord, txn: &mut Txn<'_>) {
    if StoreRole::of(by) == StoreRole::Placement {
        write(&DataFounding::default(), txn);
    }
}

/// Refuses a number of data ranges that can't be laid out; what can be refused is, before
/// anything is written.
pub fn check(wanted: u64, view: &dyn View) -> Result<(), Refused> {
    read(view)?;
    match wanted <= DATA_RANGES_MAX as u64 {
        true => Ok(()),
        false => refuse(format!(
            "{wanted} initial data ranges; expected 1 to {DATA_RANGES_MAX}"
        )),
    }
}

/// The ranges that `store`, which is registered, begins with: `wanted` of them, 0 = as many as
/// are usual. It has its seat if `seated`.
pub fn ranges_of(
    state: &PlacementState,
    store: &StoreRecord,
    seated: bool,
    wanted: u64,
    txn: &mut Txn<'_>,
) -> Result<Vec<pb::RangeDescriptor>, Refused> {
    let Some(mut founding) = read(txn)? else {
        return Ok(Vec::new());
    };
    if StoreRole::of(store) == StoreRole::Placement || state.cluster == 0 {
        return Ok(Vec::new());
    }
    if founding.store == store.store {
        if seated && !founding.seated {
            founding.seated = true;
            write(&founding, txn);
        }
        return Ok(founding.ranges);
    }
    let given_away = state.stores.iter().any(|s| {
        s.store == founding.store && (founding.seated || StoreState::of(s) != StoreState::Removed)
    });
    if given_away || seated {
        return Ok(Vec::new());
    }
    let count = match wanted {
        0 => default_data_ranges(1),
        count => count as usize,
    };
    // Read again: registering the store may have taken an id.
    let first_id = allocate_ids(&read_state(txn)?, 2 * count as u64, txn)?;
    let ranges = data_ranges_on(StoreId(store.store), count, first_id);
    founding = DataFounding {
        store: store.store,
        ranges: ranges.iter().map(Into::into).collect(),
        seated: false,
    };
    write(&founding, txn);
    Ok(founding.ranges)
}

fn read(view: &dyn View) -> Result<Option<DataFounding>, String> {
    let Some(value) = view.get(keys::DATA_FOUNDING) else {
        return Ok(None);
    };
    DataFounding::decode(value)
        .map(Some)
        .map_err(|e| format!("the record of who laid out the data ranges is unreadable: {e}"))
}

fn write(founding: &DataFounding, txn: &mut Txn<'_>) {
    txn.put(keys::DATA_FOUNDING, founding.encode_to_vec());
}
