//! Stores by the names that operators gave them, or by their numbers; and taking them out.

use super::failure::Failure;
use super::placement_state;
use crate::node::running::Running;
use rangekv_pd::state::{store_named, StoreState};
use rangekv_proto::internal::placement_command::{Kind, ReadState};
use rangekv_proto::internal::{PlacementState, StoreRecord};
use rangekv_proto::{ReplicaRole, StoreId};

/// What people call `store`.
pub fn store_name(node: &Running, store: StoreId) -> String {
    let entry = node.book.get(store).map(|entry| entry.name);
    entry
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| store.to_string())
}

/// What a member is called, to people and in JSON.
pub fn role_name(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Voter => "voter",
        ReplicaRole::Learner => "learner",
        ReplicaRole::IncomingVoter => "incoming-voter",
        ReplicaRole::DemotingVoter => "demoting-voter",
    }
}

/// The store called `store`, or else the one with this number, be it removed.
pub fn find_store<'a>(state: &'a PlacementState, store: &str) -> Result<&'a StoreRecord, Failure> {
    let by_id = || state.stores.iter().find(|s| s.store.to_string() == store);
    store_named(state, store).or_else(by_id).ok_or_else(|| {
        Failure::NotFound(format!(
            "there is no store {store:?}; `rangekv ctl store list` lists them"
        ))
    })
}

/// The registered store called `id`, which must be reached at `address` unless that is empty.
pub async fn registered(node: &Running, id: &str, address: &str) -> Result<StoreRecord, Failure> {
    if id.is_empty() {
        return Err(Failure::Invalid("which store? Its name is missing".into()));
    }
    let state = placement_state(node, Kind::ReadState(ReadState {})).await?;
    let store = find_store(&state, id)?;
    if StoreState::of(store) == StoreState::Removed {
        return Err(Failure::NotFound(format!(
            "store {id} was removed from the cluster"
        )));
    }
    if !address.is_empty() && address != store.grpc_address {
        return Err(Failure::Invalid(format!(
            "store {} is registered at {}, not at {address}",
            store.name, store.grpc_address
        )));
    }
    Ok(store.clone())
}
