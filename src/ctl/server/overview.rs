//! The cluster, its stores and ranges, as the placement driver's leader or one store sees it.

use super::{operators, Failure};
use crate::admin::groups::{leader_status, replica_status};
use crate::admin::ranges::no_range;
use crate::admin::stores::role_name;
use crate::ctl::hex;
use crate::ctl::wire::{
    Overview, RaftState, RangeDetail, RangeInfo, ReplicaDetail, ReplicaInfo, ReplicaState,
    SchedulerInfo, Status, StoreInfo,
};
use crate::node::calls::Target;
use crate::node::placement::now_ms;
use crate::node::running::Running;
use rangekv_pd::config::Config;
use rangekv_pd::leader::{Leader, RangeStatus, SchedulerStatus, StoreStatus};
use rangekv_pd::state::{StoreRole, StoreState};
use rangekv_proto::internal::{PlacementState, ReplicaStatus, StoreRecord};
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, ReplicaRole, StoreId, PLACEMENT_RANGE};
use std::time::Duration;

/// A range without a leader is shown as it was last heard of, after this long.
const LEADER_PATIENCE: Duration = Duration::from_millis(500);

/// What is known of one range.
struct Known {
    descriptor: RangeDescriptor,
    leader: Option<LeaderHint>,
    status: RangeStatus,
}

/// What is known of one store.
struct Seen {
    record: StoreRecord,
    live: bool,
    status: Option<StoreStatus>,
}

/// As the placement driver's leader sees it.
pub fn of_leader(node: &Running, leader: &Leader, state: &PlacementState) -> Overview {
    let (now, config) = (now_ms(), Config::of(state));
    let stores = state.stores.iter().map(|record| Seen {
        record: record.clone(),
        live: leader.is_live(now, StoreId(record.store), &config),
        status: leader.store(StoreId(record.store)).cloned(),
    });
    let ranges = leader.routes().iter().map(|route| {
        let status = leader.range(route.range.id).cloned().unwrap_or_default();
        Known {
            descriptor: route.range.clone(),
            leader: route.leader.filter(|_| status.led),
            status,
        }
    });
    let (stores, ranges) = (stores.collect(), ranges.collect());
    let mut overview = assemble(stores, ranges, &config);
    overview.status.cluster = format!("{:016x}", state.cluster);
    overview.status.catalog_version = state.catalog_version;
    overview.status.placement_leader = Some(node.identity.store);
    overview.settings = super::settings(state);
    overview.schedulers = schedulers(leader);
    let operators = leader.history().chain(leader.operators());
    overview.operators = operators.map(operators::info).collect();
    overview
}

/// What the schedulers said in their last round, in order of urgency.
fn schedulers(leader: &Leader) -> Vec<SchedulerInfo> {
    let info = |status: SchedulerStatus| SchedulerInfo {
        name: status.scheduler.name().into(),
        enabled: status.enabled,
        reasons: status.reasons.into_iter().map(|r| r.text).collect(),
    };
    leader.scheduler_status().into_iter().map(info).collect()
}

/// As this store sees it: what it last heard of the placement driver, and its own connections.
pub fn of_node(node: &Running) -> Overview {
    let me = node.identity.store_id();
    let heard = node.heartbeats.state.lock();
    let stores = heard.stores().iter().map(|record| {
        let store = StoreId(record.store);
        Seen {
            record: record.clone(),
            live: store == me || node.stores.transport.is_connected(store),
            status: None,
        }
    });
    let stores = stores.collect();
    let ranges = node.calls.routes().into_iter().map(|route| Known {
        descriptor: route.descriptor.clone(),
        leader: route.leader.filter(|hint| hint.term > 0),
        status: RangeStatus::default(),
    });
    let mut overview = assemble(stores, ranges.collect(), heard.config());
    overview.status.cluster = format!("{:016x}", node.identity.cluster);
    overview.status.catalog_version = heard.catalog_version();
    overview
}

fn assemble(stores: Vec<Seen>, ranges: Vec<Known>, config: &Config) -> Overview {
    let is_live = |store: StoreId| stores.iter().any(|s| s.live && s.record.store == store.0);
    let present = stores
        .iter()
        .filter(|s| StoreState::of(&s.record) != StoreState::Removed)
        .filter(|s| StoreRole::of(&s.record) == StoreRole::Store);
    let wanted = config.replication_factor.replicas(present.count());
    let under_replicated = |known: &&Known| {
        let voters = known.descriptor.replicas.iter();
        let live = voters.filter(|r| r.role == ReplicaRole::Voter && is_live(r.store));
        live.count() < wanted
    };
    let leaderless = |known: &&Known| !known.leader.is_some_and(|hint| is_live(hint.store));
    let info = |seen: &Seen| store_info(seen, &ranges);
    Overview {
        status: Status {
            cluster: String::new(),
            catalog_version: 0,
            placement_leader: None,
            ranges: ranges.len() as u64,
            ranges_without_leader: ranges.iter().filter(leaderless).count() as u64,
            ranges_under_replicated: ranges
                .iter()
                .filter(|known| known.descriptor.id != PLACEMENT_RANGE)
                .filter(under_replicated)
                .count() as u64,
            stores: stores.iter().map(info).collect(),
        },
        ranges: ranges.iter().map(Known::info).collect(),
        operators: Vec::new(),
        schedulers: Vec::new(),
        settings: Vec::new(),
    }
}

fn store_info(seen: &Seen, ranges: &[Known]) -> StoreInfo {
    let Seen {
        record,
        live,
        status,
    } = seen;
    let id = StoreId(record.store);
    let state = match (StoreState::of(record), live) {
        (StoreState::Removed, _) => "removed",
        (_, false) => "down",
        (StoreState::Draining, true) => "draining",
        (StoreState::Up, true) => "up",
    };
    let leads = |known: &&Known| known.leader.is_some_and(|hint| hint.store == id);
    let holds = |known: &&Known| known.descriptor.replica_on(id).is_some();
    let figures = status.clone().unwrap_or_default();
    StoreInfo {
        id: id.0,
        name: record.name.clone(),
        state: state.into(),
        role: StoreRole::of(record).name().into(),
        grpc_address: record.grpc_address.clone(),
        redis_address: record.redis_address.clone(),
        http_address: record.http_address.clone(),
        leaders: ranges.iter().filter(leads).count() as u64,
        replicas: ranges.iter().filter(holds).count() as u64,
        disk_used_bytes: figures.disk_used_bytes,
        disk_free_bytes: figures.disk_free_bytes,
        uptime_ms: figures.uptime_ms,
        heartbeat_age_ms: status.as_ref().map(|s| now_ms().saturating_sub(s.heard_ms)),
    }
}

impl Known {
    fn info(&self) -> RangeInfo {
        RangeInfo {
            size_bytes: self.status.size_bytes,
            keys: self.status.keys,
            reads: self.status.reads,
            writes: self.status.writes,
            ..range_info(&self.descriptor, self.leader, |replica| {
                self.status.lagging.contains(&replica.id)
            })
        }
    }
}

/// A range without figures.
pub fn range_info(
    descriptor: &RangeDescriptor,
    leader: Option<LeaderHint>,
    lagging: impl Fn(&rangekv_proto::Replica) -> bool,
) -> RangeInfo {
    let replica = |r: &rangekv_proto::Replica| ReplicaInfo {
        id: r.id.0,
        store: r.store.0,
        role: role_name(r.role).into(),
        lagging: lagging(r),
    };
    RangeInfo {
        id: descriptor.id.0,
        start: hex(&descriptor.start),
        end: hex(&descriptor.end),
        conf_version: descriptor.epoch.conf_version,
        version: descriptor.epoch.version,
        leader: leader.map(|hint| hint.store.0),
        term: leader.map_or(0, |hint| hint.term),
        replicas: descriptor.replicas.iter().map(replica).collect(),
        size_bytes: 0,
        keys: 0,
        reads: 0,
        writes: 0,
    }
}

/// A range, with what each of its replicas says of itself.
pub async fn range(node: &Running, range: u64) -> Result<RangeDetail, Failure> {
    let route = node
        .calls
        .route(Target::Range(RangeId(range)))
        .ok_or_else(|| no_range(range))?;
    // What the leader says is newer than what was last heard.
    let descriptor = match leader_status(node, RangeId(range), LEADER_PATIENCE).await {
        Ok((_, descriptor)) => descriptor,
        Err(_) => route.descriptor.clone(),
    };
    let ask = |replica: &rangekv_proto::Replica| {
        let (id, store) = (replica.id.0, replica.store);
        async move {
            let state = match replica_status(node, RangeId(range), store).await {
                Ok(status) => ReplicaState::Raft(raft_state(&status)),
                Err(error) => ReplicaState::Error(error.to_string()),
            };
            ReplicaDetail {
                id,
                store: store.0,
                state,
            }
        }
    };
    let replicas = futures::future::join_all(descriptor.replicas.iter().map(ask)).await;
    let mut info = range_info(&descriptor, route.leader, |_| false);
    let led = replicas.iter().find_map(|r| match &r.state {
        ReplicaState::Raft(raft) if raft.role == "leader" => Some((r.store, raft)),
        _ => None,
    });
    if let Some((store, raft)) = led {
        (info.leader, info.term, info.size_bytes) = (Some(store), raft.term, raft.size_bytes);
    }
    Ok(RangeDetail {
        range: info,
        replicas,
    })
}

fn raft_state(status: &ReplicaStatus) -> RaftState {
    RaftState {
        role: match status.role.as_str() {
            "Leader" => "leader",
            "Follower" => "follower",
            "Candidate" => "candidate",
            "PreCandidate" => "pre-candidate",
            other => other,
        }
        .into(),
        term: status.term,
        committed: status.committed,
        applied: status.applied,
        last_index: status.last_index,
        truncated: status.truncated,
        pending_conf_change: status.pending_conf_change,
        lease_remaining_ms: status.lease_remaining_ms,
        size_bytes: status.size_bytes,
    }
}
