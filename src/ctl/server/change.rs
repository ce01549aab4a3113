//! What operators change: splits, leader transfers, stores.
//!
//! Each may be repeated: what is done already is answered as done.

use super::overview::{self, no_range, range_info, replica_status};
use super::{encode, state, Failure, NotHere, CALL_TIME_MAX};
use crate::ctl::unhex;
use crate::ctl::wire::{SplitDone, TransferDone};
use crate::node::calls::Target;
use crate::node::placement::now_ms;
use crate::node::running::Running;
use prost::Message;
use rangekv_model::redis::keys;
use rangekv_pd::state::{store_named, StoreState};
use rangekv_proto::internal::admin_command::{self, Split, TransferLeader};
use rangekv_proto::internal::placement_command::{AllocateIds, BumpCatalog, Kind, SetStoreState};
use rangekv_proto::internal::{HeartbeatReply, PlacementState, StoreRecord};
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, StoreId};
use rangekv_router::cache::Route;
use rangekv_router::retry::DoorError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a change is looked for that is under way.
const LOOK: Duration = Duration::from_millis(50);

/// Cuts the range that holds `key` (hex) in two before it.
pub async fn split(node: &Running, range: Option<u64>, key: &str) -> Result<SplitDone, Failure> {
    let key = unhex(key).ok_or_else(|| Failure::Refused(format!("{key:?} is not hex")))?;
    // The records of one user key stay together: cut before the first of them.
    let key = match keys::user_key_prefix(&key) {
        Some(prefix) => prefix.to_vec(),
        None => key,
    };
    let route = node
        .calls
        .route(Target::Key(&key))
        .ok_or_else(|| Failure::Unavailable("the range that holds the key is not known".into()))?;
    if let Some(done) = done_already(node, range, &key) {
        return Ok(done);
    }
    let parent = &route.descriptor;
    if let Some(asked) = range.filter(|asked| *asked != parent.id.0) {
        return Err(Failure::Refused(format!(
            "the key lies in range {}, not in range {asked}",
            parent.id
        )));
    }
    let count = 1 + parent.replicas.len() as u64;
    let allocate = Kind::AllocateIds(AllocateIds { count });
    let allocated = node.calls.placement(allocate, CALL_TIME_MAX).await?;
    if !allocated.error.is_empty() {
        return Err(Failure::Refused(allocated.error));
    }
    let split = admin_command::Kind::Split(Split {
        key: key.clone().into(),
        new_range: allocated.first_id,
        new_replicas: (allocated.first_id + 1..allocated.first_id + count).collect(),
    });
    let reply = node
        .calls
        .admin(Target::Key(&key), split, CALL_TIME_MAX)
        .await;
    let halves = match reply {
        Ok(reply) => HeartbeatReply::decode(reply).map_or(Vec::new(), |reply| reply.routes),
        Err(DoorError::OutcomeUnknown(why)) => return look_for(node, range, &key, why).await,
        Err(error) => return Err(error.into()),
    };
    let halves: Vec<RangeDescriptor> = halves
        .iter()
        .filter_map(|route| route.range.as_ref().map(Into::into))
        .collect();
    let [left, right] = &halves[..] else {
        return Err(Failure::Unavailable(
            "the split's answer is not understood".into(),
        ));
    };
    node.cache
        .apply_routes(halves.iter().map(|half| (half.clone(), None)));
    // Only tells those who watch it that something changed: the split itself is done.
    let bump = BumpCatalog { expected: 0 };
    if let Err(error) = state(node, Kind::BumpCatalog(bump)).await {
        tracing::warn!(?error, "the catalog version was not raised after a split");
    }
    Ok(SplitDone {
        left: range_info(left, route.leader, |_| false),
        right: range_info(right, None, |_| false),
    })
}

/// The two ranges that meet at `key`, of which the left one is `range` if that is given.
fn done_already(node: &Running, range: Option<u64>, key: &[u8]) -> Option<SplitDone> {
    let routes = node.calls.routes();
    let right = routes.iter().position(|r| r.descriptor.start == key)?;
    let left = routes.get(right.checked_sub(1)?)?;
    let asked = range.is_none_or(|asked| asked == left.descriptor.id.0);
    let info = |route: &Arc<Route>| range_info(&route.descriptor, route.leader, |_| false);
    (asked && left.descriptor.end == key).then(|| SplitDone {
        left: info(left),
        right: info(&routes[right]),
    })
}

/// After an unknown outcome: whether the split shows up.
async fn look_for(
    node: &Running,
    range: Option<u64>,
    key: &[u8],
    why: String,
) -> Result<SplitDone, Failure> {
    let until = Instant::now() + CALL_TIME_MAX;
    while Instant::now() < until {
        if let Some(done) = done_already(node, range, key) {
            return Ok(done);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Unavailable(format!(
        "whether the range was split is not known: {why}"
    )))
}

/// Makes `store` the leader of `range`.
pub async fn transfer_leader(
    node: &Running,
    range: u64,
    store: StoreId,
) -> Result<TransferDone, Failure> {
    let target = Target::Range(RangeId(range));
    let route = node.calls.route(target).ok_or_else(|| no_range(range))?;
    if route.descriptor.replica_on(store).is_none() {
        return Err(Failure::Refused(format!(
            "store {store} has no replica of range {range}"
        )));
    }
    let transfer = admin_command::Kind::TransferLeader(TransferLeader { store: store.0 });
    match node.calls.admin(target, transfer, CALL_TIME_MAX).await {
        // A transfer may be asked for again: the look below says what came of it.
        Ok(_) | Err(DoorError::OutcomeUnknown(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let until = Instant::now() + CALL_TIME_MAX;
    let mut last = "it does not say so yet".to_string();
    while Instant::now() < until {
        match replica_status(node, RangeId(range), store).await {
            Ok(status) if status.role == "Leader" => {
                let hint = LeaderHint {
                    store,
                    term: status.term,
                };
                node.cache
                    .apply_routes([(route.descriptor.clone(), Some(hint))]);
                return Ok(TransferDone {
                    range,
                    leader: store.0,
                    term: status.term,
                });
            }
            Ok(_) => {}
            Err(error) => last = error,
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Unavailable(format!(
        "store {store} does not lead range {range} after {CALL_TIME_MAX:?}: {last}"
    )))
}

/// Takes `store` (an id or a name) out of the cluster, if that hurts nobody.
pub(super) async fn remove_store(node: &Running, store: &str) -> Result<String, NotHere> {
    let checked = node
        .placement
        .inspect(|leader, _, state| {
            let record = find_store(state, store)?;
            if StoreState::of(record) != StoreState::Removed {
                leader.check_removal(now_ms(), StoreId(record.store), state)?;
            }
            Ok(record.store)
        })
        .await
        .map_err(NotHere::Leads)?;
    let id = checked.map_err(Failure::Refused)?;
    let removed = StoreState::Removed as u32;
    let set = SetStoreState {
        store: id,
        state: removed,
    };
    state(node, Kind::SetStoreState(set)).await?;
    node.placement
        .inspect(|leader, _, state| {
            let overview = overview::of_leader(node, leader, state);
            let info = overview.status.stores.into_iter().find(|s| s.id == id);
            encode(&info).map_err(NotHere::Failed)
        })
        .await
        .map_err(NotHere::Leads)?
}

/// The store called `store`, or else the one with this id.
fn find_store<'a>(state: &'a PlacementState, store: &str) -> Result<&'a StoreRecord, String> {
    let by_id = || state.stores.iter().find(|s| s.store.to_string() == store);
    store_named(state, store)
        .or_else(by_id)
        .ok_or_else(|| format!("there is no store {store:?}; `rangekv ctl store list` lists them"))
}
