//! `CLUSTER METARAFT`: the placement driver's group.

use crate::admin::failure::Failure;
use crate::admin::groups::leader_status;
use crate::admin::members::{pursue, Pursuit, Wish};
use crate::admin::stores::{registered, role_name, store_name};
use crate::node::info::cluster_view;
use crate::node::running::Running;
use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_proto::{ReplicaRole, StoreId, PLACEMENT_RANGE};
use rangekv_router::session::Metaraft;
use std::time::Duration;

/// The group's leader has this long to say how it is.
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);
/// A change of members is followed for so long; it goes on by itself.
const CHANGE_PATIENCE: Duration = Duration::from_secs(4);

/// Does `what`; the reply.
pub(super) async fn run(
    node: &Running,
    what: Metaraft,
    protocol: Protocol,
) -> Result<Bytes, Failure> {
    match what {
        Metaraft::Members => members(node, protocol).await,
        Metaraft::Status => status(node, protocol).await,
        Metaraft::AddLearner { store, address } => {
            let store = find(node, &store, &address).await?;
            change(node, Wish::Learner(store)).await
        }
        Metaraft::Promote(store) => {
            let store = find(node, &store, "").await?;
            change(node, Wish::Promoted(store)).await
        }
        Metaraft::Remove(store) => {
            let store = find(node, &store, "").await?;
            change(node, Wish::Gone(store)).await
        }
    }
}

/// A registered store by its name, number, or node id.
async fn find(node: &Running, store: &str, address: &str) -> Result<StoreId, Failure> {
    let by_node_id = cluster_view(node).find(store.as_bytes()).map(|s| s.id);
    let store = by_node_id.map_or(store.to_owned(), |id| id.to_string());
    Ok(StoreId(registered(node, &store, address).await?.store))
}

async fn change(node: &Running, wish: Wish) -> Result<Bytes, Failure> {
    match pursue(node, PLACEMENT_RANGE, wish, CHANGE_PATIENCE).await? {
        Pursuit::Met(_) => Ok(reply::ok()),
        Pursuit::UnderWay(waits_for) => Ok(reply::error(&format!(
            "TRYAGAIN the change is under way: {waits_for}"
        ))),
    }
}

async fn members(node: &Running, protocol: Protocol) -> Result<Bytes, Failure> {
    let (leader, group) = leader_status(node, PLACEMENT_RANGE, STATUS_TIME_MAX).await?;
    let view = cluster_view(node);
    let mut reply = Reply::new(protocol);
    reply.array(group.replicas.len());
    for member in &group.replicas {
        let address = node.book.grpc(member.store).unwrap_or_default();
        reply.map(6);
        reply.bulk(b"id").int(member.store.0 as i64);
        reply
            .bulk(b"node")
            .bulk(view.node_id(member.store).as_bytes());
        reply
            .bulk(b"name")
            .bulk(store_name(node, member.store).as_bytes());
        reply.bulk(b"address").bulk(address.as_bytes());
        reply.bulk(b"role").bulk(role_name(member.role).as_bytes());
        reply.bulk(b"leader").boolean(member.id.0 == leader.replica);
    }
    Ok(reply.finish())
}

async fn status(node: &Running, protocol: Protocol) -> Result<Bytes, Failure> {
    let (status, group) = leader_status(node, PLACEMENT_RANGE, STATUS_TIME_MAX).await?;
    let leader = group.replicas.iter().find(|r| r.id.0 == status.replica);
    let leader = leader.map_or(StoreId(0), |r| r.store);
    let address = node.book.grpc(leader).unwrap_or_default();
    let is_learner = |role| role == ReplicaRole::Learner;
    let learners = group.replicas.iter().filter(|r| is_learner(r.role)).count();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut reply = Reply::new(protocol);
    reply.map(10);
    reply.bulk(b"leader-id").int(number(leader.0));
    reply
        .bulk(b"leader-name")
        .bulk(store_name(node, leader).as_bytes());
    reply.bulk(b"leader-address").bulk(address.as_bytes());
    reply.bulk(b"term").int(number(status.term));
    reply.bulk(b"committed").int(number(status.committed));
    reply.bulk(b"applied").int(number(status.applied));
    reply.bulk(b"last-index").int(number(status.last_index));
    reply
        .bulk(b"voters")
        .int((group.replicas.len() - learners) as i64);
    reply.bulk(b"learners").int(learners as i64);
    reply
        .bulk(b"membership-change")
        .boolean(status.pending_conf_change || group.is_joint());
    Ok(reply.finish())
}
