//! The cluster as all pages of one moment show it.
//!
//! A store asks the placement driver's leader as `rangekv ctl` does, and keeps the answer for a
//! moment: whoever asks meanwhile gets the same, and only one question is under way at a time.
//! Without a leader the snapshot shows what this store knows itself, and says so.

use crate::ctl::server::{answer, Failure as CtlFailure};
use crate::ctl::wire::{CtlCommand, Overview, RangeInfo, StoreInfo};
use crate::ctl::{hex, unhex};
use crate::http::answer::Failure;
use crate::node::running::Running;
use rangekv_model::redis::keys;
use rangekv_proto::PLACEMENT_RANGE;
use serde::Serialize;
use serde_json::{json, Value};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// The leader has this long to answer: a page should hear that it doesn't before its reader
/// wonders.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Younger snapshots are shared.
const AGE_MAX: Duration = Duration::from_millis(500);

/// Who answers a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answerer {
    /// Its store.
    pub store: u64,
    /// Its name.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Snapshot {
    /// Who answers.
    pub me: Answerer,
    /// When it was taken: milliseconds since the Unix epoch.
    pub taken_ms: u64,
    /// What was seen.
    pub overview: Overview,
    /// As [`events`](super::events) sends it; made once.
    page: OnceLock<Arc<str>>,
}

/// The latest snapshot, kept for a moment.
#[derive(Default)]
pub struct Snapshots {
    /// Held while a question is under way, so that others wait for its answer.
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Snapshots {
    /// A snapshot that is at most [`AGE_MAX`] old.
    pub async fn get(&self, node: &Running) -> Result<Arc<Snapshot>, Failure> {
        let mut latest = self.latest.lock().await;
        if let Some((taken, snapshot)) = &*latest {
            if taken.elapsed() <= AGE_MAX {
                return Ok(snapshot.clone());
            }
        }
        let snapshot = Arc::new(Snapshot::take(node).await?);
        *latest = Some((Instant::now(), snapshot.clone()));
        Ok(snapshot)
    }
}

impl Snapshot {
    /// Shows `overview`.
    pub fn new(me: Answerer, taken_ms: u64, overview: Overview) -> Self {
        Snapshot {
            me,
            taken_ms,
            overview,
            page: OnceLock::new(),
        }
    }

    async fn take(node: &Running) -> Result<Self, Failure> {
        let asked = tokio::time::timeout(ANSWER_TIME_MAX, ask(node, &CtlCommand::Overview)).await;
        let overview = match asked {
            Ok(Ok(overview)) => overview,
            Ok(Err(failure)) => return Err(Failure::unavailable(failure.to_string())),
            Err(_) if node.pulse.is_stuck() => {
                return Err(Failure::unavailable(
                    "this store's worker has not finished a step for seconds: its disk hangs, or \
                     the machine does",
                ));
            }
            Err(_) => {
                return Err(Failure::unavailable(format!(
                    "the placement driver's leader has not answered within {ANSWER_TIME_MAX:?}"
                )));
            }
        };
        let overview = serde_json::from_value(overview)
            .map_err(|e| Failure::unavailable(format!("the leader's answer: {e}")))?;
        Ok(Snapshot::new(me(node), unix_ms(), overview))
    }

    /// Whether the placement driver's leader was asked; if not, figures are unknown.
    pub fn is_of_leader(&self) -> bool {
        self.overview.status.placement_leader.is_some()
    }

    /// Says whose view it is; part of every answer that shows it.
    pub fn source(&self) -> Value {
        let seen_by = match self.is_of_leader() {
            true => "placement-driver",
            false => "this-store",
        };
        json!({
            "answered_by": self.me,
            "seen_by": seen_by,
            "taken_ms": self.taken_ms,
            "placement_leader": self.leader(),
        })
    }

    /// The placement driver's leader and where it is reached; null = there is none.
    pub fn leader(&self) -> Value {
        let id = self.overview.status.placement_leader;
        let store = id.and_then(|id| self.store(id));
        store.map_or(Value::Null, hint)
    }

    /// A store by its id.
    pub fn store(&self, id: u64) -> Option<&StoreInfo> {
        self.overview.status.stores.iter().find(|s| s.id == id)
    }

    /// A store's name; its number if it has none.
    pub fn name(&self, id: u64) -> String {
        match self.store(id) {
            Some(store) => store.name.clone(),
            None => format!("store {id}"),
        }
    }

    /// Stores that belong to the cluster.
    pub fn present(&self) -> impl Iterator<Item = &StoreInfo> {
        let stores = self.overview.status.stores.iter();
        stores.filter(|store| store.state != "removed")
    }

    /// The range that holds `key`.
    pub fn range_of(&self, key: &[u8]) -> Option<&RangeInfo> {
        let key = hex(key);
        let holds = |r: &&RangeInfo| r.start <= key && (r.end.is_empty() || key < r.end);
        self.overview.ranges.iter().find(holds)
    }

    /// The JSON that the status page draws.
    pub fn page(&self) -> Arc<str> {
        let draw = || {
            let ranges = self.overview.ranges.iter().map(range).collect::<Vec<_>>();
            let status = &self.overview.status;
            let page = json!({
                "source": self.source(),
                "cluster": status.cluster,
                "catalog_version": status.catalog_version,
                "ranges_without_leader": status.ranges_without_leader,
                "ranges_under_replicated": status.ranges_under_replicated,
                "stores": status.stores,
                "ranges": ranges,
                "operators": self.overview.operators,
                "schedulers": self.overview.schedulers,
                "settings": self.overview.settings,
            });
            page.to_string().into()
        };
        self.page.get_or_init(draw).clone()
    }
}

/// A range in JSON: as `ctl` prints it, with the hash slots that it covers.
pub fn range(range: &RangeInfo) -> Value {
    let mut value = serde_json::to_value(range).expect("plain data");
    value["slots"] = slots(range);
    value
}

/// The slots of which a range holds keys, first and last; null = none. Two ranges share a slot
/// that is cut inside.
fn slots(range: &RangeInfo) -> Value {
    if range.id == PLACEMENT_RANGE.0 {
        return Value::Null;
    }
    let bytes = |key: &str| unhex(key).unwrap_or_default();
    let (start, end) = (bytes(&range.start), bytes(&range.end));
    let first = keys::slot_at(&start);
    let last = match end.is_empty() {
        true => keys::SLOTS - 1,
        false => {
            let after = keys::slot_at(&end);
            match after < keys::SLOTS && end[..] > keys::slot_start(after)[..] {
                true => after,
                false => after.saturating_sub(1),
            }
        }
    };
    match first <= last && first < keys::SLOTS {
        true => json!([first, last]),
        false => Value::Null,
    }
}

/// Where a store is reached; part of errors that another store would not have.
pub fn hint(store: &StoreInfo) -> Value {
    json!({
        "store": store.id,
        "name": store.name,
        "grpc_address": store.grpc_address,
        "http_address": store.http_address,
    })
}

/// What `rangekv ctl` would get.
pub async fn ask(node: &Running, command: &CtlCommand) -> Result<Value, CtlFailure> {
    let encoded =
        serde_json::to_string(command).map_err(|e| CtlFailure::Unavailable(e.to_string()))?;
    let json = answer(node, &encoded, false).await?;
    serde_json::from_str(&json).map_err(|e| CtlFailure::Unavailable(e.to_string()))
}

/// This store, as its answers name it.
pub fn me(node: &Running) -> Answerer {
    Answerer {
        store: node.identity.store,
        name: node.identity.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::ctl::wire::{ReplicaInfo, Status};

    /// Three stores of which n3 is down, and three ranges: the placement driver's, and two that
    /// meet at slot 8192. n2 leads the placement driver.
    pub fn example() -> Snapshot {
        let store = |id: u64, state: &str| StoreInfo {
            id,
            name: format!("n{id}"),
            state: state.into(),
            role: "store".into(),
            grpc_address: format!("10.0.0.{id}:50051"),
            redis_address: format!("10.0.0.{id}:6379"),
            http_address: format!("10.0.0.{id}:8080"),
            leaders: 1,
            replicas: 3,
            disk_used_bytes: 1 << 20,
            disk_free_bytes: 1 << 30,
            uptime_ms: 60_000,
            heartbeat_age_ms: Some(200),
        };
        let range = |id: u64, start: &str, end: &str, leader: Option<u64>| RangeInfo {
            id,
            start: start.into(),
            end: end.into(),
            conf_version: 1,
            version: 2,
            leader,
            term: 7,
            replicas: (1..=3)
                .map(|store| ReplicaInfo {
                    id: id * 10 + store,
                    store,
                    role: "voter".into(),
                    lagging: store == 3,
                })
                .collect(),
            size_bytes: 4 << 20,
            keys: 1_000,
            reads: 20,
            writes: 10,
        };
        let overview = Overview {
            status: Status {
                cluster: "00000000000000ab".into(),
                catalog_version: 12,
                placement_leader: Some(2),
                ranges: 3,
                ranges_without_leader: 1,
                ranges_under_replicated: 2,
                stores: vec![store(1, "up"), store(2, "up"), store(3, "down")],
            },
            ranges: vec![
                range(1, "", "10", Some(2)),
                range(2, "10", "202000", Some(1)),
                range(3, "202000", "", None),
            ],
            operators: Vec::new(),
            schedulers: Vec::new(),
            settings: Vec::new(),
        };
        let me = Answerer {
            store: 1,
            name: "n1".into(),
            version: "0",
        };
        Snapshot::new(me, 1_000, overview)
    }

    #[test]
    fn ranges_cover_slots() {
        let snapshot = example();
        let at = |i: usize| slots(&snapshot.overview.ranges[i]);
        assert_eq!(at(0), Value::Null);
        assert_eq!(at(1), json!([0, 8191]));
        assert_eq!(at(2), json!([8192, 16383]));
        let mut inside = snapshot.overview.ranges[1].clone();
        inside.end = "20200005".into();
        assert_eq!(slots(&inside), json!([0, 8192]));
        inside.start = "2020000301".into();
        assert_eq!(slots(&inside), json!([8192, 8192]));
        inside.start = "204000".into();
        inside.end = String::new();
        assert_eq!(slots(&inside), Value::Null);
    }

    #[test]
    fn the_range_of_a_key() {
        let snapshot = example();
        let id = |key: &[u8]| snapshot.range_of(key).map(|r| r.id);
        assert_eq!(id(b"\x01\x01"), Some(1));
        assert_eq!(id(&keys::record_key(0, b"foo")), Some(3));
        assert_eq!(id(&keys::record_key(0, b"123456789")), Some(3));
        assert_eq!(id(&keys::slot_start(8191)), Some(2));
    }

    #[test]
    fn the_source_names_the_leader_or_its_absence() {
        let mut snapshot = example();
        assert_eq!(snapshot.source()["placement_leader"]["name"], "n2");
        assert_eq!(snapshot.source()["seen_by"], "placement-driver");
        snapshot.overview.status.placement_leader = None;
        assert_eq!(snapshot.source()["placement_leader"], Value::Null);
        assert_eq!(snapshot.source()["seen_by"], "this-store");
    }
}
