//! `/cluster` and `/partitions`: the members of the cluster and the ranges that they hold, in
//! the words of those who call a range a partition and a store a node.
//!
//! `/cluster` holds nothing that moves by itself (no ages, no loads): its ETag, which begins
//! with the placement revision, changes when a node comes, goes, dies or gains a leader.

use super::answer::{Answer, Failure};
use super::query::Query;
use super::snapshot::{hint, range, Snapshot};
use crate::ctl::wire::{RangeInfo, StoreInfo};
use crate::ctl::{hex, unhex};
use rangekv_model::redis::keys;
use rangekv_proto::PLACEMENT_RANGE;
use serde_json::{json, Value};

/// Nodes and what they are.
pub fn cluster(snapshot: &Snapshot) -> Answer {
    let status = &snapshot.overview.status;
    let nodes: Vec<Value> = snapshot.present().map(|s| node(snapshot, s)).collect();
    let active = snapshot.present().filter(|s| s.state == "up").count();
    let body = json!({
        "success": true,
        "cluster": {
            "id": status.cluster,
            "revision": status.catalog_version,
            "leader": snapshot.leader(),
            "seen_by": snapshot.source()["seen_by"],
            "size": nodes.len(),
            "active": active,
            "partitions": status.ranges,
            "partitions_without_leader": status.ranges_without_leader,
            "partitions_under_replicated": status.ranges_under_replicated,
            "nodes": nodes,
        },
        "nodes": nodes,
    });
    Answer::revised(status.catalog_version, &body)
}

fn node(snapshot: &Snapshot, store: &StoreInfo) -> Value {
    let ranges = snapshot.overview.ranges.iter();
    let placement = ranges
        .filter(|r| r.id == PLACEMENT_RANGE.0)
        .flat_map(|r| &r.replicas)
        .any(|r| r.store == store.id);
    json!({
        "id": store.id,
        "name": store.name,
        "role": store.role,
        "status": activity(store),
        "address": store.grpc_address,
        "redis_address": store.redis_address,
        "http_address": store.http_address,
        "is_leader": snapshot.overview.status.placement_leader == Some(store.id),
        "is_placement_member": placement,
        "leaders": store.leaders,
        "replicas": store.replicas,
    })
}

/// `active`, `draining`, `down`.
fn activity(store: &StoreInfo) -> &str {
    match store.state.as_str() {
        "up" => "active",
        other => other,
    }
}

/// All ranges, in key order.
pub fn partitions(snapshot: &Snapshot) -> Answer {
    let all = snapshot.overview.ranges.iter();
    let partitions: Vec<Value> = all.map(|r| partition(snapshot, r)).collect();
    Answer::json(&json!({
        "success": true,
        "source": snapshot.source(),
        "count": partitions.len(),
        "partitions": partitions,
    }))
}

fn partition(snapshot: &Snapshot, info: &RangeInfo) -> Value {
    let replicas: Vec<Value> = info
        .replicas
        .iter()
        .map(|replica| {
            let store = snapshot.store(replica.store);
            json!({
                "id": replica.id,
                "node": replica.store,
                "name": snapshot.name(replica.store),
                "role": replica.role,
                "status": store.map_or("unknown", activity),
                "lagging": replica.lagging,
            })
        })
        .collect();
    json!({
        "id": info.id,
        "start_key": info.start,
        "end_key": info.end,
        "slots": range(info)["slots"],
        "leader": info.leader.and_then(|id| snapshot.store(id)).map(hint),
        "term": info.term,
        "epoch": { "conf_version": info.conf_version, "version": info.version },
        "replicas": replicas,
        "size_bytes": info.size_bytes,
        "reads_per_second": info.reads,
        "writes_per_second": info.writes,
    })
}

/// Sums per node, and what is not as it should be.
pub fn stats(snapshot: &Snapshot) -> Answer {
    let ranges = &snapshot.overview.ranges;
    let nodes: Vec<Value> = snapshot
        .present()
        .map(|store| {
            let led = || ranges.iter().filter(|r| r.leader == Some(store.id));
            let held = || {
                let holds = |r: &&RangeInfo| r.replicas.iter().any(|p| p.store == store.id);
                ranges.iter().filter(holds)
            };
            let sum = |figure: fn(&RangeInfo) -> u64| led().map(figure).sum::<u64>();
            json!({
                "id": store.id,
                "name": store.name,
                "status": activity(store),
                "partitions": held().count(),
                "leaders": led().count(),
                "size_bytes": held().map(|r| r.size_bytes).sum::<u64>(),
                "reads_per_second": sum(|r| r.reads),
                "writes_per_second": sum(|r| r.writes),
                "disk_used_bytes": store.disk_used_bytes,
                "disk_free_bytes": store.disk_free_bytes,
            })
        })
        .collect();
    let status = &snapshot.overview.status;
    let operators = snapshot.overview.operators.iter();
    let moves = snapshot
        .is_of_leader()
        .then(|| operators.filter(|o| o.state == "running").count());
    Answer::json(&json!({
        "success": true,
        "source": snapshot.source(),
        "partitions": ranges.len(),
        "without_leader": status.ranges_without_leader,
        "under_replicated": status.ranges_under_replicated,
        "pending_moves": moves,
        "size_bytes": ranges.iter().map(|r| r.size_bytes).sum::<u64>(),
        "reads_per_second": ranges.iter().map(|r| r.reads).sum::<u64>(),
        "writes_per_second": ranges.iter().map(|r| r.writes).sum::<u64>(),
        "nodes": nodes,
    }))
}

/// The range that holds the Redis key `key` of database `db`, or the key `raw_key` of the
/// keyspace, in hex.
pub fn of_key(snapshot: &Snapshot, query: &Query) -> Result<Answer, Failure> {
    let (record, slot) = match (query.bytes("key"), query.text("raw_key")) {
        (Some(key), None) => {
            let last = u64::from(keys::DATABASES) - 1;
            let db = query.number("db", last)?.unwrap_or(0);
            let record = keys::record_key(db as u8, key).to_vec();
            (record, Some(keys::slot(key)))
        }
        (None, Some(raw)) => match unhex(&raw) {
            Some(record) => {
                let slot = keys::slot_and_database(&record).map(|(slot, _)| slot);
                (record, slot)
            }
            None => {
                return Err(Failure::BadRequest(format!(
                    "raw_key={raw:?}: expected hex digits, two per byte"
                )))
            }
        },
        (Some(_), Some(_)) => {
            return Err(Failure::BadRequest(
                "key and raw_key: expected one of them".into(),
            ))
        }
        (None, None) => {
            return Err(Failure::BadRequest(
                "no key: expected ?key=… (a Redis key, with &db= if it is not in database 0) \
                 or ?raw_key=… (hex)"
                    .into(),
            ))
        }
    };
    let found = snapshot.range_of(&record).ok_or_else(|| {
        Failure::unavailable(format!(
            "the range that holds {} is not known yet",
            hex(&record)
        ))
    })?;
    let replicas = found.replicas.iter();
    let nodes = replicas.filter_map(|r| snapshot.store(r.store)).map(hint);
    Ok(Answer::json(&json!({
        "success": true,
        "source": snapshot.source(),
        "key": query.text("key"),
        "raw_key": hex(&record),
        "slot": slot,
        "partition": partition(snapshot, found),
        "nodes": nodes.collect::<Vec<_>>(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::snapshot::tests::example;
    use axum::http::{HeaderMap, Method};

    fn json_of(answer: Answer) -> Value {
        let body = answer.response(&Method::GET, &HeaderMap::new()).into_body();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let bytes = axum::body::to_bytes(body, usize::MAX);
        let bytes = runtime.unwrap().block_on(bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_dead_node_stays_listed_and_a_removed_one_does_not() {
        let mut snapshot = example();
        let cluster = |snapshot: &Snapshot| json_of(super::cluster(snapshot));
        let body = cluster(&snapshot);
        assert_eq!(body["nodes"], body["cluster"]["nodes"]);
        let states: Vec<&str> = body["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|n| n["status"].as_str())
            .collect();
        assert_eq!(states, ["active", "active", "down"]);
        assert_eq!(body["nodes"][1]["is_leader"], true);
        assert_eq!(body["cluster"]["active"], 2);
        snapshot.overview.status.stores[2].state = "removed".into();
        assert_eq!(cluster(&snapshot)["nodes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_etag_of_the_cluster_ignores_what_moves_by_itself() {
        let etag = |snapshot: &Snapshot| {
            let response = cluster(snapshot).response(&Method::GET, &HeaderMap::new());
            response.headers()["etag"].to_str().unwrap().to_owned()
        };
        let mut snapshot = example();
        let before = etag(&snapshot);
        assert!(before.starts_with("W/\"12-"), "{before}");
        snapshot.overview.status.stores[0].uptime_ms += 1_000;
        snapshot.overview.status.stores[0].heartbeat_age_ms = Some(900);
        snapshot.overview.ranges[1].reads += 5;
        assert_eq!(etag(&snapshot), before);
        snapshot.overview.status.stores[0].state = "down".into();
        assert_ne!(etag(&snapshot), before);
    }

    #[test]
    fn partitions_of_keys() {
        let snapshot = example();
        let ask = |text: &str| of_key(&snapshot, &Query::parse(Some(text)));
        let found = json_of(ask("key=foo").unwrap());
        assert_eq!(found["slot"], 12182);
        assert_eq!(found["partition"]["id"], 3);
        assert_eq!(found["partition"]["leader"], Value::Null);
        assert_eq!(found["nodes"][0]["http_address"], "10.0.0.1:8080");
        let raw = json_of(ask("raw_key=0101").unwrap());
        assert_eq!(raw["partition"]["leader"]["name"], "n2");
        assert!(ask("key=%ff%00").is_ok());
        for (text, said) in [
            ("", "no key"),
            ("raw_key=xyz", "\"xyz\""),
            ("key=a&db=16", "db=\"16\""),
            ("key=a&raw_key=20", "one of them"),
        ] {
            let refused = ask(text);
            assert!(
                matches!(&refused, Err(Failure::BadRequest(why)) if why.contains(said)),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn stats_add_up() {
        let body = json_of(stats(&example()));
        assert_eq!(body["pending_moves"], 0);
        assert_eq!(body["reads_per_second"], 60);
        assert_eq!(body["nodes"][0]["leaders"], 1);
        assert_eq!(body["nodes"][2]["leaders"], 0);
        assert_eq!(body["nodes"][2]["partitions"], 3);
        assert_eq!(body["nodes"][0]["size_bytes"], 12 << 20);
    }
}
