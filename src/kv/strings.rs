//! Strings of Redis's database 0, asked of the ranges that hold them.

use crate::http::answer::Failure;
use crate::node::calls::Target;
use crate::node::running::Running;
use bytes::Bytes;
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_model::redis::{keys, paging};
use rangekv_proto::EvaluatorId;
use rangekv_router::cache::Route;
use rangekv_router::reply;
use rangekv_router::retry::DoorError;
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request has its answer within this time.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Records that a page of a list visits at most: bounds how long a worker is kept.
const PAGE_RECORDS: usize = 2_000;

/// A part of the keys that this node's replicas hold.
pub struct Page {
    /// In the order of their slots.
    pub keys: Vec<Bytes>,
    /// Where the next part begins, if there is more.
    pub next: Option<Bytes>,
}

/// Sets a string, whatever was there; returns when it is on a majority's disks.
pub async fn set(node: &Running, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
    let words = [Bytes::from_static(b"SET"), key.clone(), value.clone()];
    checked(command(node, key, false, &words).await?).map(drop)
}

/// A string, as of now.
pub async fn get(node: &Running, key: &Bytes) -> Result<Option<Bytes>, Failure> {
    let words = [Bytes::from_static(b"GET"), key.clone()];
    let found = checked(command(node, key, true, &words).await?)?;
    reply::bulk(&found).ok_or_else(strange)
}

/// Deletes a key, of whatever type; whether it was there.
pub async fn delete(node: &Running, key: &Bytes) -> Result<bool, Failure> {
    let words = [Bytes::from_static(b"DEL"), key.clone()];
    let deleted = checked(command(node, key, false, &words).await?)?;
    Ok(reply::int(&deleted).ok_or_else(strange)? > 0)
}

/// Up to `limit` keys of the ranges that this node has a replica of, from `cursor` on. Their
/// leaders are asked, so that what was set before is listed. Ends early when it has taken long.
pub async fn list(node: &Running, cursor: Option<Bytes>, limit: usize) -> Result<Page, Failure> {
    let me = node.identity.store_id();
    let end = keys::slot_start(keys::SLOTS);
    let began = Instant::now();
    let mut page = Page {
        keys: Vec::new(),
        next: None,
    };
    let mut at = cursor.unwrap_or_else(|| keys::slot_start(0));
    while !at.is_empty() && at < end {
        let late = began.elapsed() > REQUEST_TIME_MAX / 2 && !page.keys.is_empty();
        if page.keys.len() >= limit || late {
            page.next = Some(at);
            break;
        }
        if began.elapsed() > REQUEST_TIME_MAX {
            let why = format!("nothing was found within {REQUEST_TIME_MAX:?}: try again");
            return Err(Failure::unavailable(why));
        }
        let Some(route) = node.calls.route(Target::Key(&at)) else {
            return Err(Failure::unavailable(
                "this node does not know the cluster's ranges yet",
            ));
        };
        if route.descriptor.replica_on(me).is_none() {
            at = route.descriptor.end.clone();
            continue;
        }
        // A page has no more keys than it visits records.
        let visited = PAGE_RECORDS.min(limit - page.keys.len());
        let words = [
            Bytes::from_static(paging::KEYS),
            at.clone(),
            visited.to_string().into(),
            Bytes::new(),
            Bytes::from_static(b"string"),
        ];
        let found = evaluate(node, &at, true, &words, began).await?;
        // If the range has become another one meanwhile, it is not known how far this reaches.
        if !is_same(&route, node.calls.route(Target::Key(&at))) {
            continue;
        }
        let (next, keys) = parse(&checked(found)?).ok_or_else(strange)?;
        page.keys.extend(keys);
        at = match next.is_empty() {
            true => route.descriptor.end.clone(),
            false => next,
        };
    }
    Ok(page)
}

/// `[next, [key, …]]`.
fn parse(found: &Bytes) -> Option<(Bytes, Vec<Bytes>)> {
    let parts = reply::array(found)?;
    let [next, keys] = &parts[..] else {
        return None;
    };
    let keys = reply::array(keys)?;
    let keys: Option<Vec<Bytes>> = keys.iter().map(|key| reply::bulk(key)?).collect();
    Some((reply::bulk(next)??, keys?))
}

fn is_same(route: &Route, now: Option<Arc<Route>>) -> bool {
    let identity = |route: &Route| (route.descriptor.id, route.descriptor.epoch.version);
    now.is_some_and(|now| identity(&now) == identity(route))
}

async fn command(
    node: &Running,
    key: &Bytes,
    read_only: bool,
    words: &[Bytes],
) -> Result<Bytes, Failure> {
    let key = keys::record_key(0, key);
    evaluate(node, &key, read_only, words, Instant::now()).await
}

/// Asks the leader of the range that holds a record.
async fn evaluate(
    node: &Running,
    record: &Bytes,
    read_only: bool,
    words: &[Bytes],
    began: Instant,
) -> Result<Bytes, Failure> {
    let target = Target::Key(record);
    // Who does not answer is forgotten as leader; whom it was asked of is worth telling.
    let leader = leader(node, target);
    let command = encode_command(Protocol::Resp2, 0, words);
    let within = REQUEST_TIME_MAX.saturating_sub(began.elapsed());
    let asked = node
        .calls
        .evaluate(target, EvaluatorId::REDIS, read_only, command, within);
    asked.await.map_err(|error| match error {
        DoorError::Invalid(why) => Failure::BadRequest(why),
        DoorError::OutcomeUnknown(why) => Failure::Unavailable {
            why: format!("outcome unknown: {why}; the write may or may not take effect"),
            leader,
        },
        DoorError::Unavailable(why) | DoorError::Busy(why) => Failure::Unavailable { why, leader },
    })
}

/// The leader of the range, as far as it is known.
fn leader(node: &Running, target: Target<'_>) -> Option<Value> {
    let store = node.calls.route(target)?.leader?.store;
    let entry = node.book.get(store)?;
    Some(json!({
        "store": store.0,
        "name": entry.name,
        "grpc_address": entry.grpc,
        "http_address": entry.http,
    }))
}

/// A reply that is no error of Redis's.
fn checked(reply: Bytes) -> Result<Bytes, Failure> {
    match reply::is_error(&reply) {
        true => {
            let text = String::from_utf8_lossy(&reply[1..]);
            Err(Failure::BadRequest(text.trim_end().to_owned()))
        }
        false => Ok(reply),
    }
}

fn strange() -> Failure {
    Failure::unavailable("the range's leader is of another version: its answer is not understood")
}
