//! The placement driver's leader: soft state from heartbeats, and the answers to them.
//!
//! Lives on the store that leads range 1, and begins anew with each term: what another term
//! left behind was learned by other reports, and may be long past.
//!
//! - A store that is not registered, was removed, or runs on another data directory than the
//!   registered one is answered with an error and changes nothing.
//! - Nothing is scheduled until a quorum of the registered stores has reported every range it
//!   leads: before that, ranges would look leaderless that are not.
//! - What a scheduler wants becomes an operator, and its steps go, one at a time, to the store
//!   that leads the range, in the answers to its heartbeats. What is lost is ordered again.
//!
//! **To drive it** (src/node/placement.rs does, and a simulation can): keep one [`Leader`] per
//! store. For each `Body::Heartbeat` that reaches the store, read the placement state through
//! range 1 *in the term in which the store believes to lead it* (the answer proves that it does),
//! call [`Leader::heartbeat`] with the monotonic time in ms, and send back what it returns. On
//! the other end, [`HeartbeatState::reply`](crate::client::HeartbeatState::reply) gives the
//! orders: ask range 1 for [`Order::ids_needed`] ids, send
//! [`Order::request`] to this store's own replica, and hand the
//! outcome to [`HeartbeatState::outcome`](crate::client::HeartbeatState::outcome). Nothing else
//! runs: no thread, no timer.

mod manual;
mod status;

pub use status::{DrainProgress, SchedulerStatus, UnderReplicated};

use crate::config::Config;
use crate::operator::{Goal, Operator, OperatorId, Order, Proposal, Scheduler};
use crate::operators::Operators;
use crate::routes::{Route, Routes};
use crate::schedule::{self, Reason};
use crate::state::{check_incarnation, StoreRole, StoreState};
use crate::view::{ClusterView, RangeView, StoreView};
use bytes::Bytes;
use rangekv_proto::internal::{
    Heartbeat, HeartbeatReply, PlacementState, RangeReport, ReplicaReport, StoreRecord,
};
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, ReplicaId, StoreId, PLACEMENT_RANGE};
use std::collections::{BTreeMap, BTreeSet};

/// Schedulers run at most this often, when a heartbeat arrives.
pub const ROUND_MS: u64 = 1_000;

/// A range that a person has moved is only repaired for so long.
pub const HELD_MS: u64 = 10 * 60_000;

/// A load must last for so long before a range is split for it.
pub const HOT_MS: u64 = 10_000;

/// Below so many free bytes a store is given nothing more.
pub const DISK_FREE_BYTES_MIN: u64 = 256 << 20;

/// A store as its heartbeats show it.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// When the last heartbeat arrived, by the leader's clock.
    pub heard_ms: u64,
    /// Bytes used in its data directory.
    pub disk_used_bytes: u64,
    /// Bytes free beside it.
    pub disk_free_bytes: u64,
    /// Since its process started.
    pub uptime_ms: u64,
}

/// A range as its leader's last report shows it.
#[derive(Clone, Debug, Default)]
pub struct RangeStatus {
    /// Whether the leader of the route still says that it leads.
    pub led: bool,
    /// Approximate size.
    pub size_bytes: u64,
    /// Approximate number of records.
    pub keys: u64,
    /// Reads per second.
    pub reads: u64,
    /// Writes per second.
    pub writes: u64,
    /// Replicas that lag or are down.
    pub lagging: BTreeSet<ReplicaId>,
    /// A key that divides the load; empty if none is known.
    pub load_key: Bytes,
    /// Since when its bounds are what they are, as far as this leader knows.
    pub reshaped_ms: u64,
    /// Since when its load has been above `range-split-qps`.
    pub hot_since_ms: Option<u64>,
}

/// Soft state of one term.
#[derive(Debug, Default)]
pub struct Leader {
    term: u64,
    /// Since when silence counts.
    began_ms: u64,
    /// When any heartbeat last arrived.
    heard_ms: Option<u64>,
    routes: Routes,
    stores: BTreeMap<StoreId, StoreStatus>,
    /// Stores that have reported every range that they lead. From then on each tells what changes,
    /// also after a silence: to be heard again is enough.
    complete: BTreeSet<StoreId>,
    ranges: BTreeMap<RangeId, RangeStatus>,
    operators: Operators,
    /// Until when ranges are left where a person put them.
    held: BTreeMap<RangeId, u64>,
    /// Two ranges that a person wants merged, and until when.
    merge_wanted: Option<(RangeId, RangeId, u64)>,
    /// Most replicas seen on a store since it drains.
    drains: BTreeMap<StoreId, u64>,
    rounds: BTreeMap<Scheduler, status::Round>,
    reasons: Vec<Reason>,
    round_ms: Option<u64>,
}

impl Leader {
    /// Takes in a heartbeat, and answers it. `term` is range 1's term in which this store
    /// leads it, `state` the replicated state as this leader has it applied.
    pub fn heartbeat(
        &mut self,
        now_ms: u64,
        term: u64,
        heartbeat: &Heartbeat,
        state: &PlacementState,
    ) -> HeartbeatReply {
        self.enter(now_ms, term);
        if term < self.term {
            let why = format!("the placement driver's term is {}, not {term}", self.term);
            return HeartbeatReply {
                error: why,
                ..HeartbeatReply::default()
            };
        }
        if let Err(error) = check_sender(heartbeat, state) {
            return HeartbeatReply {
                error,
                routes_term: term,
                ..HeartbeatReply::default()
            };
        }
        let config = Config::of(state);
        let silent_ms = now_ms.saturating_sub(self.heard_ms.unwrap_or(now_ms));
        if silent_ms >= config.store_silent_after_ms {
            // Not even this process's own store was heard: it was this process that stood still.
            self.began_ms = now_ms;
            self.stores.clear();
        }
        self.heard_ms = Some(now_ms);
        self.receive(now_ms, heartbeat, &config);
        if self
            .round_ms
            .is_none_or(|last| now_ms.saturating_sub(last) >= ROUND_MS)
        {
            self.round_ms = Some(now_ms);
            self.schedule(now_ms, state, &config);
        }
        self.reply(now_ms, heartbeat, state, &config)
    }

    /// This store leads range 1 in `term`. What another term left is forgotten.
    pub fn enter(&mut self, now_ms: u64, term: u64) {
        if term > self.term {
            *self = Leader {
                term,
                began_ms: now_ms,
                // So that no two terms give out the same id.
                operators: Operators::above(term << 32),
                ..Leader::default()
            };
        }
    }

    /// The term of which this is the soft state; 0 = none yet.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Where the ranges are.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What `store` last reported.
    pub fn store(&self, store: StoreId) -> Option<&StoreStatus> {
        self.stores.get(&store)
    }

    /// What the leader of `range` last reported.
    pub fn range(&self, range: RangeId) -> Option<&RangeStatus> {
        self.ranges.get(&range)
    }

    /// What is under way, by range.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.operators.running()
    }

    /// What has ended in this term, the newest last; the last
    /// [`HISTORY_MAX`](crate::operators::HISTORY_MAX).
    pub fn history(&self) -> impl Iterator<Item = &Operator> {
        self.operators.history()
    }

    /// What the schedulers said in the last round.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Whether `store` reported not long ago.
    pub fn is_live(&self, now_ms: u64, store: StoreId, config: &Config) -> bool {
        self.stores
            .get(&store)
            .is_some_and(|s| now_ms.saturating_sub(s.heard_ms) < config.store_silent_after_ms)
    }

    /// Whether a quorum of the registered stores has reported in full.
    pub fn is_ready(&self, state: &PlacementState) -> bool {
        let (complete, needed) = self.complete(state);
        complete >= needed
    }

    /// Whether `store` may be removed from the registry: not while it serves.
    pub fn check_removal(
        &self,
        now_ms: u64,
        store: StoreId,
        state: &PlacementState,
    ) -> Result<(), String> {
        if !self.is_ready(state) {
            return Err(self.not_ready(state));
        }
        let holds = self
            .routes
            .iter()
            .filter(|r| r.range.replica_on(store).is_some())
            .count();
        if holds > 0 && self.is_live(now_ms, store, &Config::of(state)) {
            return Err(format!(
                "store {store} is up and holds {holds} replicas; drain it first, or stop it"
            ));
        }
        Ok(())
    }

    /// The cluster as the schedulers see it.
    pub fn view(&self, now_ms: u64, state: &PlacementState) -> ClusterView {
        let config = Config::of(state);
        let ranges = self.routes.iter();
        let mut view = ClusterView {
            stores: self.store_views(now_ms, state, &config),
            ranges: ranges
                .map(|route| self.range_view(now_ms, route, &config))
                .collect(),
            config,
        };
        // A range that is about to be absorbed is as busy as the one that absorbs it.
        for operator in self.operators.running() {
            if let Goal::Merge(right, _) = operator.goal {
                let mut ranges = view.ranges.iter_mut();
                if let Some(range) = ranges.find(|r| r.range.id == right && r.goal.is_none()) {
                    range.goal = Some(operator.goal.clone());
                    range.goal_of = Some(operator.scheduler);
                }
            }
        }
        view
    }

    fn store_views(&self, now_ms: u64, state: &PlacementState, config: &Config) -> Vec<StoreView> {
        let view = |s: &StoreRecord| {
            let id = StoreId(s.store);
            let status = self.stores.get(&id);
            // Who has not reported to this leader has been silent since it took over, at least.
            let heard_ms = status.map_or(self.began_ms, |s| s.heard_ms);
            let live = self.is_live(now_ms, id, config);
            StoreView {
                id,
                name: s.name.clone(),
                live,
                lost: !live && now_ms.saturating_sub(heard_ms) >= config.max_store_down_ms,
                draining: StoreState::of(s) == StoreState::Draining,
                full: status.is_some_and(StoreStatus::is_full),
                placement: StoreRole::of(s) == StoreRole::Placement,
            }
        };
        let mut views: Vec<StoreView> = present(state).map(view).collect();
        // Members of a new cluster have replicas before they have registered: they count, and who
        // does not come is given up like one that has fallen silent.
        let registered: BTreeSet<u64> = state.stores.iter().map(|s| s.store).collect();
        let replicas = self.routes.iter().flat_map(|route| &route.range.replicas);
        let seen: BTreeSet<StoreId> = replicas.map(|r| r.store).collect();
        let expected = seen.into_iter().filter(|s| !registered.contains(&s.0));
        // What they are for shows by what they hold, where there are placement nodes.
        let any_placement = views.iter().any(|s| s.placement);
        let data = self.routes.iter().filter(|r| r.range.id != PLACEMENT_RANGE);
        let data: BTreeSet<StoreId> = data
            .flat_map(|route| route.range.replicas.iter().map(|r| r.store))
            .collect();
        views.extend(expected.map(|id| StoreView {
            id,
            name: format!("store {id}"),
            live: false,
            lost: now_ms.saturating_sub(self.began_ms) >= config.max_store_down_ms,
            draining: false,
            full: false,
            placement: any_placement && !data.contains(&id),
        }));
        views
    }

    fn range_view(&self, now_ms: u64, route: &Route, config: &Config) -> RangeView {
        let id = route.range.id;
        let status = self.ranges.get(&id).cloned().unwrap_or_default();
        let operator = self.operators.of(id);
        let since = |ms: u64| now_ms.saturating_sub(ms);
        let moved_ms = self.operators.leader_moved_ms(id);
        RangeView {
            range: route.range.clone(),
            leader: route.leader.filter(|_| status.led).map(|l| l.store),
            goal: operator.map(|o| o.goal.clone()),
            goal_of: operator.map(|o| o.scheduler),
            cooling: moved_ms.is_some_and(|ms| since(ms) < config.leader_transfer_cooldown_ms),
            backing_off: self.operators.is_backing_off(now_ms, id),
            held: self.held.get(&id).is_some_and(|until| now_ms < *until),
            reshaped: since(status.reshaped_ms) < config.range_merge_after_ms,
            lagging: status.lagging,
            size_bytes: status.size_bytes,
            reads: status.reads,
            writes: status.writes,
            load_key: status.load_key,
            hot: status.hot_since_ms.is_some_and(|ms| since(ms) >= HOT_MS),
        }
    }

    fn receive(&mut self, now_ms: u64, heartbeat: &Heartbeat, config: &Config) {
        let store = StoreId(heartbeat.store);
        let status = StoreStatus {
            heard_ms: now_ms,
            disk_used_bytes: heartbeat.disk_used_bytes,
            disk_free_bytes: heartbeat.disk_free_bytes,
            uptime_ms: heartbeat.uptime_ms,
        };
        self.stores.insert(store, status);
        if heartbeat.full {
            self.complete.insert(store);
        }
        for report in &heartbeat.ranges {
            self.receive_report(now_ms, store, report, config);
        }
        for outcome in &heartbeat.outcomes {
            let id = OperatorId(outcome.operator);
            self.operators.outcome(now_ms, id, &outcome.error);
        }
        if heartbeat.full {
            let led: BTreeSet<u64> = heartbeat
                .ranges
                .iter()
                .filter_map(|r| Some(r.range.as_ref()?.id))
                .collect();
            for (id, status) in &mut self.ranges {
                let leader = self.routes.get(*id).and_then(|r| r.leader);
                if leader.is_some_and(|l| l.store == store) && !led.contains(&id.0) {
                    status.led = false;
                }
            }
        }
    }

    fn receive_report(
        &mut self,
        now_ms: u64,
        store: StoreId,
        report: &RangeReport,
        config: &Config,
    ) {
        let Some(range) = report.range.as_ref().map(RangeDescriptor::from) else {
            return;
        };
        // A store speaks for itself, and of ranges that it has a replica of.
        if StoreId(report.leader_store) != store || range.replica_on(store).is_none() {
            return;
        }
        let hint = LeaderHint {
            store,
            term: report.term,
        };
        let version = |routes: &Routes| routes.get(range.id).map(|r| r.range.epoch.version);
        let before = version(&self.routes);
        let merged = self.routes.merge(&range, Some(hint));
        for gone in merged.superseded {
            self.ranges.remove(&gone);
            self.held.remove(&gone);
            self.operators.range_gone(now_ms, gone);
        }
        // What an overtaken leader says of load and lag is of no use either.
        if self
            .routes
            .get(range.id)
            .is_some_and(|route| route.leader == Some(hint))
        {
            let known = self.ranges.get(&range.id);
            let busy = report.reads + report.writes >= config.range_split_qps;
            let hot_since_ms = known.and_then(|s| s.hot_since_ms).unwrap_or(now_ms);
            let reshaped_ms = match before == version(&self.routes) {
                true => known.map_or(now_ms, |s| s.reshaped_ms),
                false => now_ms,
            };
            let status = RangeStatus {
                led: true,
                size_bytes: report.size_bytes,
                keys: report.keys,
                reads: report.reads,
                writes: report.writes,
                lagging: report.lagging.iter().copied().map(ReplicaId).collect(),
                load_key: report.load_key.clone(),
                reshaped_ms,
                hot_since_ms: busy.then_some(hot_since_ms),
            };
            self.ranges.insert(range.id, status);
        }
    }

    fn schedule(&mut self, now_ms: u64, state: &PlacementState, config: &Config) {
        self.operators.time_out(now_ms);
        self.held.retain(|_, until| now_ms < *until);
        self.note_drains(state);
        if !self.is_ready(state) {
            self.reasons = vec![Reason {
                scheduler: Scheduler::Manual,
                range: None,
                text: self.not_ready(state),
            }];
            return;
        }
        self.continue_merge(now_ms, state);
        let view = self.view(now_ms, state);
        self.reasons.clear();
        for (scheduler, verdict) in schedule::schedule(&view) {
            let enabled = scheduler.setting().is_none_or(|s| config.is_on(s));
            let round = self.rounds.entry(scheduler).or_default();
            round.note(now_ms, enabled, &verdict);
            self.reasons.extend(verdict.reasons);
            for proposal in verdict.proposals {
                self.begin(now_ms, proposal);
            }
        }
    }

    fn begin(&mut self, now_ms: u64, proposal: Proposal) -> OperatorId {
        let route = self.routes.get(proposal.range);
        let epoch = route.expect("a range of the view").range.epoch;
        self.operators.begin(now_ms, proposal, epoch)
    }

    fn reply(
        &mut self,
        now_ms: u64,
        heartbeat: &Heartbeat,
        state: &PlacementState,
        config: &Config,
    ) -> HeartbeatReply {
        let seen = match heartbeat.routes_term == self.term {
            true if heartbeat.routes_seen <= self.routes.seq() => heartbeat.routes_seen,
            _ => 0,
        };
        let orders = self.orders_for(now_ms, StoreId(heartbeat.store), state, config);
        HeartbeatReply {
            error: String::new(),
            orders: orders.iter().map(Into::into).collect(),
            routes_term: self.term,
            routes_seq: self.routes.seq(),
            routes: self.routes.changed_since(seen).map(Into::into).collect(),
            stores: state.stores.clone(),
            catalog_version: state.catalog_version,
            config: state.config.clone(),
            gone: self.gone(&heartbeat.replicas),
        }
    }

    /// The next steps of what is under way in the ranges that `store` leads.
    fn orders_for(
        &mut self,
        now_ms: u64,
        store: StoreId,
        state: &PlacementState,
        config: &Config,
    ) -> Vec<Order> {
        let routes = self
            .operators
            .running()
            .filter_map(|o| self.routes.get(o.range));
        let ranges: Vec<RangeView> = routes
            .filter(|route| route.leader.is_some_and(|l| l.store == store))
            .map(|route| self.range_view(now_ms, route, config))
            .collect();
        if ranges.is_empty() {
            return Vec::new();
        }
        let stores = self.store_views(now_ms, state, config);
        let advance = |range: &RangeView| self.operators.advance(now_ms, range, &stores);
        ranges.iter().filter_map(advance).collect()
    }

    /// Those of `replicas` that a newer configuration of their range doesn't have.
    fn gone(&self, replicas: &[ReplicaReport]) -> Vec<ReplicaReport> {
        let newer = |r: &ReplicaReport| {
            let range = &self.routes.get(RangeId(r.range))?.range;
            let gone = range.epoch.conf_version > r.conf_version
                && range.replicas.iter().all(|m| m.id.0 != r.replica);
            gone.then_some(ReplicaReport {
                conf_version: range.epoch.conf_version,
                ..*r
            })
        };
        replicas.iter().filter_map(newer).collect()
    }

    /// Stores that are heard and have reported in full, and how many must.
    fn complete(&self, state: &PlacementState) -> (usize, usize) {
        let complete = |s: &&StoreRecord| {
            let id = StoreId(s.store);
            self.complete.contains(&id) && self.stores.contains_key(&id)
        };
        (
            present(state).filter(complete).count(),
            present(state).count() / 2 + 1,
        )
    }

    fn not_ready(&self, state: &PlacementState) -> String {
        let (complete, needed) = self.complete(state);
        format!("{complete} stores have reported in full since this leader took over; waiting for {needed}")
    }
}

/// Stores that are registered and not removed.
fn present(state: &PlacementState) -> impl Iterator<Item = &StoreRecord> {
    let stores = state.stores.iter();
    stores.filter(|s| StoreState::of(s) != StoreState::Removed)
}

impl StoreStatus {
    /// Whether its disk has little room left: it could not even be compacted in it.
    fn is_full(&self) -> bool {
        let all = self.disk_used_bytes + self.disk_free_bytes;
        all > 0 && (self.disk_free_bytes < DISK_FREE_BYTES_MIN || self.disk_free_bytes < all / 20)
    }
}

fn check_sender(heartbeat: &Heartbeat, state: &PlacementState) -> Result<(), String> {
    match state.stores.iter().find(|s| s.store == heartbeat.store) {
        Some(record) => check_incarnation(record, heartbeat.incarnation),
        None => Err(format!(
            "store {} is not registered; register it first",
            heartbeat.store
        )),
    }
}

#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;
