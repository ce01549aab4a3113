//! `/health`, `/health/detailed` and `/ready`: what supervisors and load balancers ask.
//!
//! Healthy is a process that can do its work: its worker moves and its disk takes writes.
//! Ready is one that clients can be sent to, which a healthy store that waits for its place in
//! a cluster, or is stopping, is not.

use super::answer::Answer;
use super::snapshot::{hint, Snapshot};
use crate::ctl::server::replica_status;
use crate::node::running::Running;
use axum::http::StatusCode;
use futures::future::join_all;
use rangekv_proto::internal::ReplicaStatus;
use rangekv_proto::{RangeId, PLACEMENT_RANGE};
use serde_json::{json, Value};
use std::sync::atomic::Ordering;

/// Groups whose replicas are asked for their state, at most: each question is work for the
/// worker. The first ones by id; how many there are is said beside them.
const GROUPS_MAX: usize = 256;

/// What decides about health.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Its name.
    pub node: String,
    /// Its store id; `None` = it has no place in a cluster yet.
    pub store: Option<u64>,
    /// Since the process started.
    pub uptime_ms: u64,
    /// The worker has not finished a step for seconds.
    pub stuck: bool,
    /// The disk has less free than the reserve.
    pub disk_full: bool,
    /// Bytes free.
    pub disk_free_bytes: u64,
    /// The cluster has accepted this store since the process started.
    pub registered: bool,
    /// Ranges that it can route to.
    pub ranges_known: usize,
    /// It was asked to stop.
    pub stopping: bool,
    /// Why it waits, if somebody has said so.
    pub notice: Option<String>,
}

impl Vitals {
    /// Of a store that has its place.
    pub fn of(node: &Running, stopping: bool) -> Vitals {
        let disk = &node.heartbeats.disk;
        Vitals {
            node: node.identity.name.clone(),
            store: Some(node.identity.store),
            uptime_ms: node.started.elapsed().as_millis() as u64,
            stuck: node.pulse.is_stuck(),
            disk_full: disk.is_full(),
            disk_free_bytes: disk.free_bytes(),
            registered: node.heartbeats.registered.load(Ordering::Relaxed),
            ranges_known: node.cache.snapshot().cache.routes().len(),
            stopping,
            notice: None,
        }
    }

    /// Why it can't do its work; empty = healthy.
    fn ailments(&self) -> Vec<String> {
        let mut ailments = Vec::new();
        if self.stuck {
            ailments.push("the worker has not finished a step for two seconds".to_owned());
        }
        if self.disk_full {
            let free = self.disk_free_bytes;
            ailments.push(format!("the disk is almost full: {free} bytes are free"));
        }
        ailments
    }

    /// Why no client should be sent to it; empty = ready.
    fn obstacles(&self) -> Vec<String> {
        let mut obstacles = self.ailments();
        match self.store {
            None => {
                let notice = self.notice.clone();
                let notice = notice.map(|n| format!(": {n}")).unwrap_or_default();
                obstacles.push(format!("waits for its place in a cluster{notice}"));
            }
            Some(_) if !self.registered => {
                obstacles.push("the placement driver has not heard of it since its start".into());
            }
            Some(_) if self.ranges_known == 0 => obstacles.push("it knows no ranges".into()),
            Some(_) => {}
        }
        if self.stopping {
            obstacles.push("it is stopping".into());
        }
        obstacles
    }

    fn body(&self, good: &str, bad: &str, why: &[String]) -> Value {
        json!({
            "success": why.is_empty(),
            "message": if why.is_empty() { good } else { bad },
            "reasons": why,
            "node": self.node,
            "store": self.store,
            "uptime_ms": self.uptime_ms,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// `/health`
pub fn health(vitals: &Vitals) -> Answer {
    let why = vitals.ailments();
    with_reasons(&why, &vitals.body("healthy", "unhealthy", &why))
}

/// `/ready`
pub fn ready(vitals: &Vitals) -> Answer {
    let why = vitals.obstacles();
    with_reasons(&why, &vitals.body("ready", "not ready", &why))
}

/// `/health/detailed` of a store that has no place yet.
pub fn detailed_without_place(vitals: &Vitals) -> Answer {
    let why = vitals.ailments();
    with_reasons(&why, &vitals.body("healthy", "unhealthy", &why))
}

/// `/health/detailed`
pub async fn detailed(node: &Running, vitals: &Vitals, snapshot: Option<&Snapshot>) -> Answer {
    let me = node.identity.store_id();
    let held: Vec<RangeId> = node.shared.routes().iter().map(|(d, _)| d.id).collect();
    let ask = |range: &RangeId| {
        let range = *range;
        async move {
            let status = replica_status(node, range, me).await;
            (range, status.map_err(|error| error.to_string()))
        }
    };
    // A stuck worker would answer none of them.
    let asked = match vitals.stuck {
        true => Vec::new(),
        false => join_all(held.iter().take(GROUPS_MAX).map(ask)).await,
    };
    let why = vitals.ailments();
    let mut body = vitals.body("healthy", "unhealthy", &why);
    let groups: Vec<Value> = asked
        .iter()
        .map(|(id, status)| group(*id, status))
        .collect();
    let placement = groups.iter().find(|g| g["group"] == PLACEMENT_RANGE.0);
    let (leaders, movable) = node.led();
    let disk = &node.heartbeats.disk;
    let stores = node.book.all();
    let others = stores.keys().filter(|store| **store != me);
    let details = json!({
        "node_id": node.identity.store,
        "cluster": format!("{:016x}", node.identity.cluster),
        "ready": vitals.obstacles().is_empty(),
        "replicas": held.len(),
        "leaders": leaders,
        "leaders_with_replicas_elsewhere": movable,
        "placement_leader": snapshot.map(Snapshot::leader),
        "raft": placement,
        "groups": groups,
        "groups_omitted": held.len() - asked.len(),
        "worker": { "stuck": vitals.stuck },
        "disk": {
            "used_bytes": disk.used_bytes(),
            "free_bytes": disk.free_bytes(),
            "full": vitals.disk_full,
        },
        "streams": others
            .map(|store| {
                json!({
                    "store": store.0,
                    "node": snapshot.map(|s| s.name(store.0)),
                    "connected": node.stores.transport.is_connected(*store),
                    "reach": snapshot.and_then(|s| s.store(store.0)).map(hint),
                })
            })
            .collect::<Vec<_>>(),
    });
    merge(&mut body, details);
    with_reasons(&why, &body)
}

fn group(id: RangeId, status: &Result<ReplicaStatus, String>) -> Value {
    match status {
        Err(error) => json!({ "group": id.0, "error": error }),
        Ok(status) => json!({
            "group": id.0,
            "role": status.role.to_lowercase(),
            "term": status.term,
            "leader": status.leader.as_ref().map(|l| l.store),
            "commit": status.committed,
            "applied": status.applied,
            "lag": status.committed.saturating_sub(status.applied),
            "last_index": status.last_index,
        }),
    }
}

fn merge(body: &mut Value, more: Value) {
    if let (Value::Object(body), Value::Object(more)) = (body, more) {
        body.extend(more);
    }
}

fn with_reasons(why: &[String], body: &Value) -> Answer {
    let status = match why.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::with_status(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, Method};

    fn status(answer: Answer) -> u16 {
        let response = answer.response(&Method::GET, &HeaderMap::new());
        response.status().as_u16()
    }

    #[test]
    fn what_makes_a_store_unhealthy_or_not_ready() {
        let well = Vitals {
            node: "n1".into(),
            store: Some(1),
            registered: true,
            ranges_known: 3,
            ..Vitals::default()
        };
        for (vitals, healthy, is_ready) in [
            (well.clone(), true, true),
            (
                Vitals {
                    stuck: true,
                    ..well.clone()
                },
                false,
                false,
            ),
            (
                Vitals {
                    disk_full: true,
                    ..well.clone()
                },
                false,
                false,
            ),
            (
                Vitals {
                    store: None,
                    ..well.clone()
                },
                true,
                false,
            ),
            (
                Vitals {
                    registered: false,
                    ..well.clone()
                },
                true,
                false,
            ),
            (
                Vitals {
                    ranges_known: 0,
                    ..well.clone()
                },
                true,
                false,
            ),
            (
                Vitals {
                    stopping: true,
                    ..well.clone()
                },
                true,
                false,
            ),
        ] {
            let code = |good| if good { 200 } else { 503 };
            assert_eq!(status(health(&vitals)), code(healthy), "{vitals:?}");
            assert_eq!(status(ready(&vitals)), code(is_ready), "{vitals:?}");
        }
    }

    #[test]
    fn the_words_of_the_answer() {
        let vitals = Vitals {
            node: "n1".into(),
            ..Vitals::default()
        };
        let body = vitals.body("healthy", "unhealthy", &[]);
        assert_eq!(
            (&body["success"], &body["message"]),
            (&json!(true), &json!("healthy"))
        );
        let waits = Vitals {
            notice: Some("wiped".into()),
            ..vitals
        }
        .obstacles();
        assert_eq!(waits, ["waits for its place in a cluster: wiped"]);
    }
}
