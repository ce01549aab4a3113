//! What operators do with stores.

use super::overview;
use super::{encode, Failure};
use crate::admin::stores::find_store;
use crate::admin::{placement_state, NotHere};
use crate::ctl::wire::{Drain, Overview, StoreDetail, StoreInfo};
use crate::node::placement::now_ms;
use crate::node::running::Running;
use rangekv_pd::leader::Leader;
use rangekv_pd::state::StoreState;
use rangekv_proto::internal::placement_command::{Kind, SetStoreState};
use rangekv_proto::internal::{PlacementState, StoreRecord};
use rangekv_proto::StoreId;

/// A store, and what it holds.
pub(super) async fn show(node: &Running, store: &str) -> Result<String, NotHere> {
    let look = |leader: &mut Leader, state: &PlacementState| {
        let record = find_store(state, store)?;
        let Overview { status, ranges, .. } = overview::of_leader(node, leader, state);
        let holds = |replica: &crate::ctl::wire::ReplicaInfo| replica.store == record.store;
        let ranges = ranges.into_iter().filter(|r| r.replicas.iter().any(holds));
        let draining = StoreState::of(record) == StoreState::Draining;
        Ok(StoreDetail {
            store: of_status(status.stores, record)?,
            drain: draining.then(|| progress(leader, record, state)),
            ranges: ranges.collect(),
        })
    };
    let inspect = node
        .placement
        .inspect(|leader, _, state| look(leader, state));
    let seen: Result<StoreDetail, Failure> = inspect.await.map_err(NotHere::Leads)?;
    Ok(encode(&seen?)?)
}

/// Has `store` emptied, or used again; says how far that is.
pub(super) async fn drain(node: &Running, store: &str, undo: bool) -> Result<String, NotHere> {
    let found = node
        .placement
        .inspect(|_, _, state| find_store(state, store).cloned())
        .await
        .map_err(NotHere::Leads)?;
    let record = found?;
    let wanted = match undo {
        true => StoreState::Up,
        false => StoreState::Draining,
    };
    if StoreState::of(&record) != wanted {
        let set = SetStoreState {
            store: record.store,
            state: wanted as u32,
        };
        placement_state(node, Kind::SetStoreState(set)).await?;
    }
    let drained = node
        .placement
        .inspect(|leader, _, state| {
            let record = find_store(state, store)?;
            Ok::<_, Failure>(progress(leader, record, state))
        })
        .await
        .map_err(NotHere::Leads)?;
    Ok(encode(&drained?)?)
}

/// Takes `store` (an id or a name) out of the cluster, if that hurts nobody.
pub(super) async fn remove(node: &Running, store: &str) -> Result<String, NotHere> {
    let checked = node
        .placement
        .inspect(|leader, _, state| {
            let record = find_store(state, store)?;
            if StoreState::of(record) != StoreState::Removed {
                let check = leader.check_removal(now_ms(), StoreId(record.store), state);
                check.map_err(Failure::Refused)?;
            }
            Ok::<_, Failure>(record.clone())
        })
        .await
        .map_err(NotHere::Leads)?;
    let record = checked?;
    let set = SetStoreState {
        store: record.store,
        state: StoreState::Removed as u32,
    };
    placement_state(node, Kind::SetStoreState(set)).await?;
    let removed = node
        .placement
        .inspect(|leader, _, state| {
            let stores = overview::of_leader(node, leader, state).status.stores;
            of_status(stores, &record)
        })
        .await
        .map_err(NotHere::Leads)?;
    Ok(encode(&removed?)?)
}

fn of_status(stores: Vec<StoreInfo>, record: &StoreRecord) -> Result<StoreInfo, Failure> {
    let info = stores.into_iter().find(|info| info.id == record.store);
    info.ok_or_else(|| Failure::NotFound(format!("there is no store {}", record.store)))
}

fn progress(leader: &Leader, record: &StoreRecord, state: &PlacementState) -> Drain {
    let drains = leader.drain_progress(state);
    let drain = drains.iter().find(|d| d.store.0 == record.store);
    let (leaders, replicas, at_first, done) = drain.map_or((0, 0, 0, true), |d| {
        (d.leaders, d.replicas, d.replicas_at_first, d.done)
    });
    Drain {
        store: record.store,
        name: record.name.clone(),
        draining: drain.is_some(),
        leaders,
        replicas,
        replicas_at_first: at_first,
        done,
        waits_for: match done {
            true => String::new(),
            false => format!("{replicas} of {at_first} replicas and {leaders} leaders are left"),
        },
    }
}
