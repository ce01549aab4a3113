//! `/raft/state`: the Raft state of one group, as a replica on this store says or, if there is
//! none here, as another store's does.

use super::answer::{Answer, Failure};
use super::snapshot::hint;
use super::snapshot::Snapshot;
use crate::ctl::hex;
use crate::ctl::server::replica_status;
use crate::node::calls::Target;
use crate::node::running::Running;
use rangekv_proto::internal::ReplicaStatus;
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaRole, StoreId};
use serde_json::{json, Value};

/// The state of group `group`.
pub async fn state(node: &Running, snapshot: &Snapshot, group: u64) -> Result<Answer, Failure> {
    let route = node.calls.route(Target::Range(RangeId(group)));
    let route = route.ok_or_else(|| {
        Failure::NotFound(format!(
            "group={group}: there is no such group; /pd/api/v1/ranges lists them"
        ))
    })?;
    let (me, leader) = (
        node.identity.store_id(),
        route.leader.map(|hint| hint.store),
    );
    let replicas = route.descriptor.replicas.iter().map(|r| r.store);
    // Nearest first: this store's own, the leader's, anyone's.
    let mut stores: Vec<StoreId> = leader.into_iter().chain(replicas).collect();
    stores.sort_by_key(|store| (*store != me, Some(*store) != leader, *store));
    stores.dedup();
    let mut failures = Vec::new();
    for store in stores {
        match replica_status(node, RangeId(group), store).await {
            Ok(status) => return Ok(Answer::json(&body(snapshot, group, store, &status))),
            Err(why) => failures.push(format!("store {store}: {why}")),
        }
    }
    let leader = leader.and_then(|store| snapshot.store(store.0)).map(hint);
    Err(Failure::Unavailable {
        why: format!("group={group}: no replica answers: {}", failures.join("; ")),
        leader,
    })
}

fn body(snapshot: &Snapshot, group: u64, store: StoreId, status: &ReplicaStatus) -> Value {
    let range = status.range.as_ref().map(RangeDescriptor::from);
    let leader = status.leader.as_ref();
    let members = range.iter().flat_map(|range| &range.replicas);
    let members = members.map(|replica| {
        let known = snapshot.store(replica.store.0);
        json!({
            "id": replica.id.0,
            "store": replica.store.0,
            "name": snapshot.name(replica.store.0),
            "address": known.map(|s| &s.grpc_address),
            "role": role(replica.role),
        })
    });
    json!({
        "success": true,
        "group": group,
        "store": store.0,
        "node": snapshot.name(store.0),
        "replica": status.replica,
        "role": status.role.to_lowercase(),
        "term": status.term,
        "leader": leader.and_then(|l| snapshot.store(l.store)).map(hint),
        "members": members.collect::<Vec<_>>(),
        "commit": status.committed,
        "applied": status.applied,
        "last_index": status.last_index,
        "log_length": status.last_index.saturating_sub(status.truncated),
        "snapshot_index": status.truncated,
        "pending_change": status.pending_conf_change,
        "lease_remaining_ms": status.lease_remaining_ms,
        "size_bytes": status.size_bytes,
        "range": range.map(|range| json!({
            "start": hex(&range.start),
            "end": hex(&range.end),
            "conf_version": range.epoch.conf_version,
            "version": range.epoch.version,
        })),
    })
}

/// As `rangekv ctl` prints it.
fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Voter => "voter",
        ReplicaRole::Learner => "learner",
        ReplicaRole::IncomingVoter => "incoming-voter",
        ReplicaRole::DemotingVoter => "demoting-voter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::snapshot::tests::example;
    use rangekv_proto::internal as pb;

    #[test]
    fn the_state_of_a_follower() {
        let status = ReplicaStatus {
            range: Some(pb::RangeDescriptor {
                id: 3,
                start: vec![0x20, 0x20, 0].into(),
                replicas: vec![pb::Replica {
                    id: 31,
                    store: 1,
                    role: pb::ReplicaRole::Learner as i32,
                }],
                ..Default::default()
            }),
            replica: 31,
            role: "Follower".into(),
            term: 7,
            leader: Some(pb::LeaderHint { store: 2, term: 7 }),
            committed: 40,
            applied: 39,
            last_index: 41,
            truncated: 11,
            pending_conf_change: true,
            ..Default::default()
        };
        let body = body(&example(), 3, StoreId(1), &status);
        for (field, value) in [
            ("role", json!("follower")),
            ("node", json!("n1")),
            ("commit", json!(40)),
            ("log_length", json!(30)),
            ("snapshot_index", json!(11)),
            ("pending_change", json!(true)),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
        assert_eq!(body["leader"]["name"], "n2");
        assert_eq!(body["members"][0]["role"], "learner");
        assert_eq!(body["members"][0]["address"], "10.0.0.1:50051");
        assert_eq!(body["range"]["start"], "202000");
    }
}
