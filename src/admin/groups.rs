//! What replicas say of themselves.

use super::failure::Failure;
use super::stores::store_name;
use super::LOOK;
use crate::node::calls::Target;
use crate::node::running::Running;
use prost::Message;
use rangekv_proto::internal::{admin_command, AdminCommand, ReplicaStatus};
use rangekv_proto::{
    Body, LeaderHint, Mark, RangeDescriptor, RangeId, Request, RequestError, StoreId,
    PLACEMENT_RANGE,
};
use std::time::{Duration, Instant};

/// What the replica on `store` says of itself.
pub async fn replica_status(
    node: &Running,
    range: RangeId,
    store: StoreId,
) -> Result<ReplicaStatus, RequestError> {
    let status = admin_command::Kind::Status(true);
    let reply = ask(node, range, 0, store, status).await?;
    ReplicaStatus::decode(reply).map_err(|e| RequestError::Unavailable(e.to_string()))
}

/// Asks one replica, once. `version` is that of the range's epoch, for what is the leader's.
pub async fn ask(
    node: &Running,
    range: RangeId,
    version: u64,
    store: StoreId,
    kind: admin_command::Kind,
) -> Result<bytes::Bytes, RequestError> {
    let command = AdminCommand { kind: Some(kind) };
    let request = Request {
        range,
        version,
        term: 0,
        mark: Mark::NONE,
        body: Body::Admin(command.encode_to_vec().into()),
    };
    node.calls.ask(store, request).await
}

/// What this store's own replica says of itself, with its descriptor.
pub async fn own_status(
    node: &Running,
    range: RangeId,
) -> Result<(ReplicaStatus, RangeDescriptor), Failure> {
    let me = node.identity.store_id();
    match replica_status(node, range, me).await {
        Ok(mut status) => match status.range.take() {
            Some(descriptor) => Ok((status, (&descriptor).into())),
            // It has heard of the range, and waits for a snapshot of it.
            None => Err(not_here(node, range)),
        },
        Err(RequestError::RangeNotFound { .. }) => Err(not_here(node, range)),
        Err(error) => Err(error.into()),
    }
}

/// Whether this store has a replica of `range`.
pub fn is_here(node: &Running, range: RangeId) -> bool {
    let cell = node.shared.cell(range);
    cell.and_then(|cell| cell.route()).is_some()
}

/// Says where a range is that has no replica on this store.
pub fn not_here(node: &Running, range: RangeId) -> Failure {
    Failure::NotFound(match node.calls.route(Target::Range(range)) {
        Some(route) => {
            let holders = route.descriptor.replicas.iter();
            let holders: Vec<String> = holders.map(|r| store_name(node, r.store)).collect();
            format!(
                "group {range} has no replica on {}; it is held by {}",
                node.identity.name,
                holders.join(", ")
            )
        }
        None => format!("there is no group {range}"),
    })
}

/// What the leader of `range` says of itself, and its descriptor. Asks around until one
/// replica says that it leads, or the time is up.
pub async fn leader_status(
    node: &Running,
    range: RangeId,
    within: Duration,
) -> Result<(ReplicaStatus, RangeDescriptor), Failure> {
    let until = Instant::now() + within;
    let mut told: Option<StoreId> = None;
    let mut problem = "nobody was asked".to_string();
    for turn in 0.. {
        let Some(store) = told.take().or_else(|| whom_to_ask(node, range, turn)) else {
            return Err(Failure::NotFound(format!("there is no range {range}")));
        };
        match replica_status(node, range, store).await {
            Ok(mut status) if status.role == "Leader" => {
                if let Some(descriptor) = status.range.take() {
                    return Ok((status, (&descriptor).into()));
                }
            }
            Ok(status) => {
                let hint = status.leader.map(|hint| StoreId(hint.store));
                told = hint.filter(|leader| *leader != store);
                problem = format!("{} does not lead it", store_name(node, store));
            }
            Err(error) => problem = format!("{}: {error}", store_name(node, store)),
        }
        if Instant::now() >= until {
            break;
        }
        if told.is_none() || turn > 4 {
            tokio::time::sleep(LOOK).await;
        }
    }
    Err(Failure::Unavailable(format!(
        "no leader of range {range} answers: {problem}"
    )))
}

/// The leader as last heard of, then all members in turn; for the placement driver's range, of
/// which also a store must find the members that knows of no range yet, then everybody.
fn whom_to_ask(node: &Running, range: RangeId, turn: usize) -> Option<StoreId> {
    let route = node.calls.route(Target::Range(range));
    let mut all: Vec<StoreId> = Vec::new();
    if let Some(route) = &route {
        all.extend(known_leader(node, range).map(|hint| hint.store));
        all.extend(route.descriptor.replicas.iter().map(|r| r.store));
    }
    if range == PLACEMENT_RANGE {
        all.extend(node.book.all().into_keys());
    }
    all.get(turn % all.len().max(1)).copied()
}

/// Who leads `range`, as far as this store's replica or else its route cache knows.
pub fn known_leader(node: &Running, range: RangeId) -> Option<LeaderHint> {
    match node.shared.cell(range).and_then(|cell| cell.route()) {
        Some(route) => route.1,
        None => node.calls.route(Target::Range(range))?.leader,
    }
}

/// Where the leader of `range` is reached. A store without a replica of it asks the one that it
/// takes for the leader.
pub async fn leader_address(node: &Running, range: RangeId) -> Result<Option<String>, Failure> {
    if is_here(node, range) {
        let leader = known_leader(node, range);
        return Ok(leader.and_then(|hint| node.book.grpc(hint.store)));
    }
    if range != PLACEMENT_RANGE {
        return Err(not_here(node, range));
    }
    match leader_status(node, range, Duration::from_secs(1)).await {
        Ok((status, _)) => Ok(status
            .leader
            .and_then(|hint| node.book.grpc(StoreId(hint.store)))),
        Err(Failure::Unavailable(_) | Failure::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What to tell somebody who asked a replica for what only the leader can do.
pub fn not_leader(node: &Running, range: RangeId, leader: Option<LeaderHint>) -> Failure {
    let me = &node.identity.name;
    match leader.filter(|hint| hint.store != node.identity.store_id()) {
        Some(hint) => {
            let address = node.book.grpc(hint.store).unwrap_or_default();
            Failure::Refused(format!(
                "{me} does not lead group {range}; the leader is {} at {address}",
                store_name(node, hint.store)
            ))
        }
        None => Failure::Unavailable(format!(
            "{me} does not lead group {range}, and no leader is known"
        )),
    }
}
