//! The placement driver's leader: soft state from heartbeats, and the answers to them.
//!
//! Lives on the store that leads range 1, and begins anew with each term: what another term
//! left behind was learned by other reports, and may be long past.
//!
//! - A store that is not registered, was removed, or runs on another data directory than the
//!   registered one is answered with an error and changes nothing.
//! - Nothing is scheduled until a quorum of the registered stores has reported every range it
//!   leads: before that, ranges would look leaderless that are not.
//! - An operator is sent once, to the store that leads its range. What is lost is found
//!   missing when the cool-down is over, and ordered again.

use crate::config::Config;
use crate::routes::{Route, Routes};
use crate::schedule::{self, ClusterView, Operator, RangeView, Reason, Step, StoreView};
use crate::state::{check_incarnation, StoreState};
use rangekv_proto::internal::{Heartbeat, HeartbeatReply, PlacementState, RangeReport};
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, ReplicaId, StoreId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Schedulers run at most this often, when a heartbeat arrives.
pub const ROUND_MS: u64 = 1_000;

/// Operators that are kept to be shown.
pub const OPERATORS_KEPT_MAX: usize = 128;

/// A store as its heartbeats show it.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// When the last heartbeat arrived, by the leader's clock.
    pub heard_ms: u64,
    /// Whether it has reported every range that it leads, in this term.
    pub complete: bool,
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
}

/// Soft state of one term.
#[derive(Debug, Default)]
pub struct Leader {
    term: u64,
    routes: Routes,
    stores: BTreeMap<StoreId, StoreStatus>,
    ranges: BTreeMap<RangeId, RangeStatus>,
    transfers: BTreeMap<RangeId, Transfer>,
    pending: BTreeMap<RangeId, Operator>,
    ordered: VecDeque<(u64, Operator)>,
    reasons: Vec<Reason>,
    round_ms: Option<u64>,
}

/// A transfer that was ordered not long ago.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    from: StoreId,
    to: StoreId,
    cooling_until_ms: u64,
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
        if term > self.term {
            *self = Leader {
                term,
                ..Leader::default()
            };
        }
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
        self.receive(now_ms, heartbeat);
        if self
            .round_ms
            .is_none_or(|last| now_ms.saturating_sub(last) >= ROUND_MS)
        {
            self.round_ms = Some(now_ms);
            self.schedule(now_ms, state);
        }
        self.reply(heartbeat, state)
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

    /// What was ordered in this term, and when; the newest last.
    pub fn operators(&self) -> impl Iterator<Item = &(u64, Operator)> {
        self.ordered.iter()
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
                "store {store} is up and holds {holds} replicas; stop it first"
            ));
        }
        Ok(())
    }

    /// The cluster as the schedulers see it.
    pub fn view(&self, now_ms: u64, state: &PlacementState) -> ClusterView {
        let config = Config::of(state);
        let present = state
            .stores
            .iter()
            .filter(|s| StoreState::of(s) != StoreState::Removed);
        let stores = present.map(|s| StoreView {
            id: StoreId(s.store),
            name: s.name.clone(),
            live: self.is_live(now_ms, StoreId(s.store), &config),
            draining: StoreState::of(s) == StoreState::Draining,
        });
        ClusterView {
            stores: stores.collect(),
            ranges: self
                .routes
                .iter()
                .map(|route| self.range_view(now_ms, route))
                .collect(),
            config,
        }
    }

    fn range_view(&self, now_ms: u64, route: &Route) -> RangeView {
        let id = route.range.id;
        let status = self.ranges.get(&id);
        let leader = route
            .leader
            .filter(|_| status.is_some_and(|s| s.led))
            .map(|l| l.store);
        let transfer = self
            .transfers
            .get(&id)
            .filter(|t| now_ms < t.cooling_until_ms);
        RangeView {
            range: route.range.clone(),
            leader,
            moving_to: transfer.filter(|t| leader == Some(t.from)).map(|t| t.to),
            cooling: transfer.is_some(),
            lagging: status.map(|s| s.lagging.clone()).unwrap_or_default(),
        }
    }

    fn receive(&mut self, now_ms: u64, heartbeat: &Heartbeat) {
        let store = StoreId(heartbeat.store);
        let status = self.stores.entry(store).or_default();
        *status = StoreStatus {
            heard_ms: now_ms,
            complete: status.complete || heartbeat.full,
            disk_used_bytes: heartbeat.disk_used_bytes,
            disk_free_bytes: heartbeat.disk_free_bytes,
            uptime_ms: heartbeat.uptime_ms,
        };
        for report in &heartbeat.ranges {
            self.receive_report(store, report);
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

    fn receive_report(&mut self, store: StoreId, report: &RangeReport) {
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
        let merged = self.routes.merge(&range, Some(hint));
        for gone in merged.superseded {
            self.ranges.remove(&gone);
            self.transfers.remove(&gone);
            self.pending.remove(&gone);
        }
        // What an overtaken leader says of load and lag is of no use either.
        if self
            .routes
            .get(range.id)
            .is_some_and(|route| route.leader == Some(hint))
        {
            let status = RangeStatus {
                led: true,
                size_bytes: report.size_bytes,
                keys: report.keys,
                reads: report.reads,
                writes: report.writes,
                lagging: report.lagging.iter().copied().map(ReplicaId).collect(),
            };
            self.ranges.insert(range.id, status);
        }
    }

    fn schedule(&mut self, now_ms: u64, state: &PlacementState) {
        self.transfers.retain(|_, t| now_ms < t.cooling_until_ms);
        // Nobody came for the others in time.
        self.pending.retain(|id, _| self.transfers.contains_key(id));
        if !self.is_ready(state) {
            self.reasons = vec![Reason {
                scheduler: "all",
                text: self.not_ready(state),
            }];
            return;
        }
        let view = self.view(now_ms, state);
        let (operators, reasons) = schedule::schedule(&view);
        self.reasons = reasons;
        for operator in operators {
            let Step::TransferLeader(to) = operator.step;
            let led_by = self
                .routes
                .get(operator.range)
                .and_then(|route| route.leader);
            let from = led_by.expect("a range that is led").store;
            let cooling_until_ms = now_ms.saturating_add(view.config.leader_transfer_cooldown_ms);
            self.transfers.insert(
                operator.range,
                Transfer {
                    from,
                    to,
                    cooling_until_ms,
                },
            );
            if self.ordered.len() == OPERATORS_KEPT_MAX {
                self.ordered.pop_front();
            }
            self.ordered.push_back((now_ms, operator.clone()));
            self.pending.insert(operator.range, operator);
        }
    }

    fn reply(&mut self, heartbeat: &Heartbeat, state: &PlacementState) -> HeartbeatReply {
        let seen = match heartbeat.routes_term == self.term {
            true if heartbeat.routes_seen <= self.routes.seq() => heartbeat.routes_seen,
            _ => 0,
        };
        let operators = self.take_operators(StoreId(heartbeat.store));
        HeartbeatReply {
            error: String::new(),
            operators: operators.iter().map(Into::into).collect(),
            routes_term: self.term,
            routes_seq: self.routes.seq(),
            routes: self.routes.changed_since(seen).map(Into::into).collect(),
            stores: state.stores.clone(),
            catalog_version: state.catalog_version,
            config: state.config.clone(),
        }
    }

    /// What was ordered of `store` and not sent yet, if it still leads the ranges, unchanged.
    fn take_operators(&mut self, store: StoreId) -> Vec<Operator> {
        let ordered = |id: &RangeId| self.transfers.get(id).is_some_and(|t| t.from == store);
        let due: Vec<RangeId> = self.pending.keys().copied().filter(ordered).collect();
        let taken = due.iter().filter_map(|id| self.pending.remove(id));
        let valid = |operator: &Operator| {
            self.routes.get(operator.range).is_some_and(|route| {
                route.range.epoch == operator.epoch
                    && route.leader.is_some_and(|l| l.store == store)
            })
        };
        taken.filter(valid).collect()
    }

    /// Stores that have reported in full, and how many must.
    fn complete(&self, state: &PlacementState) -> (usize, usize) {
        let present = || {
            state
                .stores
                .iter()
                .filter(|s| StoreState::of(s) != StoreState::Removed)
        };
        let complete = |id| self.stores.get(&StoreId(id)).is_some_and(|s| s.complete);
        (
            present().filter(|s| complete(s.store)).count(),
            present().count() / 2 + 1,
        )
    }

    fn not_ready(&self, state: &PlacementState) -> String {
        let (complete, needed) = self.complete(state);
        format!("{complete} stores have reported in full since this leader took over; waiting for {needed}")
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
