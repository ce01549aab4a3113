//! Changes of a range's bounds and leader.
//!
//! Each may be asked for again: what is done already is answered as done.

use super::failure::Failure;
use super::groups::{leader_status, replica_status};
use super::stores::store_name;
use super::{placement_state, CALL_TIME_MAX, LOOK};
use crate::node::calls::Target;
use crate::node::running::Running;
use prost::Message;
use rangekv_model::dynamo;
use rangekv_model::redis::keys;
use rangekv_proto::internal::admin_command::{self, Merge, Split, TransferLeader};
use rangekv_proto::internal::placement_command::{AllocateIds, BumpCatalog, Kind};
use rangekv_proto::internal::{HeartbeatReply, ReplicaStatus};
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, ReplicaId, StoreId};
use rangekv_router::retry::DoorError;
use std::collections::BTreeSet;
use std::time::Instant;

/// Two ranges that were one, the left one with its id.
pub type Halves = (RangeDescriptor, RangeDescriptor);

/// Where a cut is made if it is asked for at `key`: the records of one user key stay together, and
/// an item with what is known of transactions that begin with it.
pub fn cut_at(key: &[u8]) -> Vec<u8> {
    let whole = keys::user_key_prefix(key).or_else(|| dynamo::keys::beside(key));
    whole.unwrap_or(key).to_vec()
}

/// Cuts the range that holds `key` in two before it; `range`, if given, must be that range.
pub async fn split(node: &Running, range: Option<u64>, key: &[u8]) -> Result<Halves, Failure> {
    let key = cut_at(key);
    let route = node
        .calls
        .route(Target::Key(&key))
        .ok_or_else(|| Failure::Unavailable("the range that holds the key is not known".into()))?;
    if let Some(done) = done_already(node, range, &key) {
        return Ok(done);
    }
    let parent = &route.descriptor;
    if let Some(asked) = range.filter(|asked| *asked != parent.id.0) {
        return Err(Failure::Invalid(format!(
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
    let Ok([left, right]) = <[RangeDescriptor; 2]>::try_from(halves) else {
        return Err(Failure::Unknown(
            "the split's answer is not understood".into(),
        ));
    };
    node.cache
        .apply_routes([(left.clone(), None), (right.clone(), None)]);
    // Only tells those who watch it that something changed: the split itself is done.
    let bump = BumpCatalog { expected: 0 };
    if let Err(error) = placement_state(node, Kind::BumpCatalog(bump)).await {
        tracing::warn!(%error, "the catalog version was not raised after a split");
    }
    Ok((left, right))
}

/// The two ranges that meet at `key`, of which the left one is `range` if that is given.
fn done_already(node: &Running, range: Option<u64>, key: &[u8]) -> Option<Halves> {
    let routes = node.calls.routes();
    let right = routes.iter().position(|r| r.descriptor.start == key)?;
    let left = &routes.get(right.checked_sub(1)?)?.descriptor;
    let asked = range.is_none_or(|asked| asked == left.id.0);
    (asked && left.end == key).then(|| (left.clone(), routes[right].descriptor.clone()))
}

/// After an unknown outcome: whether the split shows up.
async fn look_for(
    node: &Running,
    range: Option<u64>,
    key: &[u8],
    why: String,
) -> Result<Halves, Failure> {
    let until = Instant::now() + CALL_TIME_MAX;
    while Instant::now() < until {
        if let Some(done) = done_already(node, range, key) {
            return Ok(done);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Unknown(format!(
        "whether the range was split is not known: {why}"
    )))
}

/// A range and the one to the right of it, as far as is known.
pub fn neighbours(node: &Running, left: RangeId) -> Result<Halves, Failure> {
    let routes = node.calls.routes();
    let at = routes.iter().position(|r| r.descriptor.id == left);
    let at = at.ok_or_else(|| no_range(left.0))?;
    let left = &routes[at].descriptor;
    match routes.get(at + 1) {
        Some(right) if right.descriptor.start == left.end => {
            Ok((left.clone(), right.descriptor.clone()))
        }
        None if left.end.is_empty() => Err(Failure::Invalid(format!(
            "range {} ends where the keyspace ends",
            left.id
        ))),
        _ => Err(Failure::Unavailable(format!(
            "the right neighbour of range {} is not known yet",
            left.id
        ))),
    }
}

/// Merges `right` into its left neighbour `left`, whose leader must have a replica of both and
/// leads both in the end.
pub async fn merge(
    node: &Running,
    left: &RangeDescriptor,
    right: &RangeDescriptor,
) -> Result<(), Failure> {
    let stores = |range: &RangeDescriptor| -> BTreeSet<StoreId> {
        range.replicas.iter().map(|replica| replica.store).collect()
    };
    if stores(left) != stores(right) {
        return Err(Failure::Refused(format!(
            "ranges {} and {} lie on different stores; move replicas until they lie on the same",
            left.id, right.id
        )));
    }
    let (leader, left) = leader_status(node, left.id, CALL_TIME_MAX).await?;
    let leader = store_of(&leader, &left)?;
    transfer_leader(node, right.id.0, leader).await?;
    let (_, right) = leader_status(node, right.id, CALL_TIME_MAX).await?;
    let merge = admin_command::Kind::Merge(Merge {
        source: right.id.0,
        source_conf_version: right.epoch.conf_version,
        source_version: right.epoch.version,
    });
    let target = Target::Range(left.id);
    let merged = node.calls.admin(target, merge, CALL_TIME_MAX).await;
    match merged {
        Ok(_) => Ok(()),
        Err(DoorError::OutcomeUnknown(why)) => {
            let (_, now) = leader_status(node, left.id, CALL_TIME_MAX).await?;
            match now.end == right.end {
                true => Ok(()),
                false => Err(Failure::Unknown(format!(
                    "whether the ranges were merged is not known: {why}"
                ))),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Where the replica is that a status is of.
fn store_of(status: &ReplicaStatus, range: &RangeDescriptor) -> Result<StoreId, Failure> {
    let store = range.store_of(ReplicaId(status.replica));
    store.ok_or_else(|| Failure::Unavailable(format!("range {} is changing", range.id)))
}

/// Makes `store` the leader of `range`; returns its term.
pub async fn transfer_leader(node: &Running, range: u64, store: StoreId) -> Result<u64, Failure> {
    let target = Target::Range(RangeId(range));
    let route = node.calls.route(target).ok_or_else(|| no_range(range))?;
    let name = store_name(node, store);
    if route.descriptor.replica_on(store).is_none() {
        return Err(Failure::Refused(format!(
            "store {name} has no replica of range {range}"
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
                let term = status.term;
                let hint = LeaderHint { store, term };
                node.cache
                    .apply_routes([(route.descriptor.clone(), Some(hint))]);
                return Ok(term);
            }
            Ok(_) => {}
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Unavailable(format!(
        "store {name} does not lead range {range} after {CALL_TIME_MAX:?}: {last}"
    )))
}

/// A range that this store has not heard of may be one that was split off a moment ago.
pub fn no_range(range: u64) -> Failure {
    Failure::NotFound(format!(
        "there is no range {range}; `rangekv ctl range list` lists them"
    ))
}
