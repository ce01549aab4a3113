//! A store's end of the heartbeat: what to report and when, and what the answers taught.
//!
//! The owner asks [`due`](HeartbeatState::due) as often as it likes, sends what
//! [`build`](HeartbeatState::build) gives to range 1's leader, and hands the outcome to
//! [`reply`](HeartbeatState::reply) or [`failed`](HeartbeatState::failed).
//!
//! - A range is reported when it is not as it was when last reported *and answered*: a
//!   heartbeat that is lost is made up for by the next one.
//! - All ranges are reported to a new leader of the placement driver, which knows nothing, and
//!   when one is led no longer, which only a full report can say.
//! - Changes of leader or descriptor don't wait for the interval: the owner calls
//!   [`changed`](HeartbeatState::changed). Load and size do wait.

use crate::config::Config;
use crate::operator::{OperatorId, Order};
use crate::routes::{Route, Routes};
use rangekv_proto::internal::{
    Heartbeat, HeartbeatReply, OrderOutcome, RangeReport, ReplicaReport, StoreRecord,
};
use rangekv_proto::StoreId;
use std::collections::BTreeMap;

/// Heartbeats are at least this far apart, also when much changes.
pub const GAP_MS: u64 = 50;
/// A heartbeat that failed is followed by another one after so long.
pub const RETRY_MS: u64 = 200;
/// A heartbeat without an answer for so long is taken for lost.
pub const LOST_MS: u64 = 2_000;
/// All ranges are reported at least this often, to heal what no rule foresaw.
pub const FULL_MS: u64 = 60_000;

/// What a store tells of itself in each heartbeat.
#[derive(Clone, Default, Debug)]
pub struct Vitals {
    /// Every range that the store leads, as it is now.
    pub led: Vec<RangeReport>,
    /// Every other replica that it holds.
    pub followed: Vec<ReplicaReport>,
    /// Bytes used in the data directory.
    pub disk_used_bytes: u64,
    /// Bytes free beside it.
    pub disk_free_bytes: u64,
    /// Since the process started.
    pub uptime_ms: u64,
}

/// What an answer brought.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct News {
    /// Routes that are not as they were; for the router's cache.
    pub routes: Vec<Route>,
    /// For this store to carry out; what became of each goes to
    /// [`outcome`](HeartbeatState::outcome).
    pub orders: Vec<Order>,
    /// Replicas of this store that are members no longer, and must go.
    pub gone: Vec<ReplicaReport>,
}

/// The state of one store's heartbeats.
#[derive(Debug)]
pub struct HeartbeatState {
    store: StoreId,
    incarnation: u64,
    /// By range, as the placement driver of `placement_term` last acknowledged it.
    acknowledged: BTreeMap<u64, RangeReport>,
    placement_term: u64,
    routes_seen: u64,
    sent: Option<Sent>,
    sent_ms: Option<u64>,
    full_ms: Option<u64>,
    urgent: bool,
    failed: bool,
    full_wanted: bool,
    ticket: u64,
    outcomes: Vec<OrderOutcome>,
    routes: Routes,
    stores: Vec<StoreRecord>,
    catalog_version: u64,
    config: Config,
}

/// The heartbeat that is under way.
#[derive(Debug)]
struct Sent {
    ticket: u64,
    at_ms: u64,
    full: bool,
    ranges: BTreeMap<u64, RangeReport>,
}

impl HeartbeatState {
    /// A store that has not reported yet.
    pub fn new(store: StoreId, incarnation: u64) -> Self {
        HeartbeatState {
            store,
            incarnation,
            acknowledged: BTreeMap::new(),
            placement_term: 0,
            routes_seen: 0,
            sent: None,
            sent_ms: None,
            full_ms: None,
            urgent: false,
            failed: false,
            full_wanted: true,
            ticket: 0,
            outcomes: Vec::new(),
            routes: Routes::default(),
            stores: Vec::new(),
            catalog_version: 0,
            config: Config::default(),
        }
    }

    /// This store came to lead a range, lost one, or applied a change of a descriptor.
    pub fn changed(&mut self) {
        self.urgent = true;
    }

    /// What became of an order: nothing against it, or why it was not carried out.
    pub fn outcome(&mut self, operator: OperatorId, error: String) {
        self.urgent = true;
        self.outcomes.push(OrderOutcome {
            operator: operator.0,
            error,
        });
    }

    /// Whether to send a heartbeat now.
    pub fn due(&self, now_ms: u64) -> bool {
        let waiting = self
            .sent
            .as_ref()
            .is_some_and(|s| now_ms.saturating_sub(s.at_ms) < LOST_MS);
        let Some(sent_ms) = self.sent_ms.filter(|_| !waiting) else {
            return !waiting;
        };
        let since = now_ms.saturating_sub(sent_ms);
        let wait = match (self.failed, self.urgent || self.full_wanted) {
            (true, _) => RETRY_MS,
            (false, true) => GAP_MS,
            (false, false) => self.config.heartbeat_interval_ms,
        };
        since >= wait.min(self.config.heartbeat_interval_ms)
    }

    /// The heartbeat to send, with a ticket by which its outcome is known.
    pub fn build(&mut self, now_ms: u64, vitals: Vitals) -> (u64, Heartbeat) {
        let led: BTreeMap<u64, RangeReport> = vitals
            .led
            .into_iter()
            .filter_map(|r| Some((r.range.as_ref()?.id, r)))
            .collect();
        let full = self.full_wanted
            || self
                .full_ms
                .is_none_or(|last| now_ms.saturating_sub(last) >= FULL_MS)
            || self.acknowledged.keys().any(|id| !led.contains_key(id));
        let news = |id: &u64, report: &RangeReport| {
            self.acknowledged
                .get(id)
                .is_none_or(|known| differs(known, report))
        };
        let ranges: BTreeMap<u64, RangeReport> = led
            .into_iter()
            .filter(|(id, report)| full || news(id, report))
            .collect();
        let heartbeat = Heartbeat {
            store: self.store.0,
            incarnation: self.incarnation,
            ranges: ranges.values().cloned().collect(),
            disk_used_bytes: vitals.disk_used_bytes,
            disk_free_bytes: vitals.disk_free_bytes,
            routes_term: self.placement_term,
            routes_seen: self.routes_seen,
            uptime_ms: vitals.uptime_ms,
            full,
            replicas: match full {
                true => vitals.followed,
                false => Vec::new(),
            },
            // If they are lost, the order is given again in time.
            outcomes: std::mem::take(&mut self.outcomes),
        };
        self.ticket += 1;
        self.urgent = false;
        self.failed = false;
        self.sent_ms = Some(now_ms);
        self.sent = Some(Sent {
            ticket: self.ticket,
            at_ms: now_ms,
            full,
            ranges,
        });
        (self.ticket, heartbeat)
    }

    /// Takes in the answer to heartbeat `ticket`, also one that comes late. The error is the
    /// placement driver's: this store is not, or no longer, who the registry says.
    pub fn reply(
        &mut self,
        now_ms: u64,
        ticket: u64,
        reply: &HeartbeatReply,
    ) -> Result<News, String> {
        let sent = self.sent.take_if(|sent| sent.ticket == ticket);
        if !reply.error.is_empty() {
            return Err(reply.error.clone());
        }
        if reply.routes_term >= self.placement_term {
            self.acknowledge(now_ms, sent, reply);
            self.stores = reply.stores.clone();
            self.catalog_version = self.catalog_version.max(reply.catalog_version);
            self.config = Config::from_pairs(&reply.config);
        }
        // Routes carry their own epochs and terms: they can be merged from whomever they come.
        let told = reply
            .routes
            .iter()
            .filter_map(|route| Route::try_from(route).ok());
        let mut routes = Vec::new();
        for route in told {
            if self.routes.merge(&route.range, route.leader).changed {
                routes.extend(self.routes.get(route.range.id).cloned());
            }
        }
        // What is not understood is for a later version of this store; it is ordered again.
        let orders = reply.orders.iter().filter_map(|o| Order::try_from(o).ok());
        Ok(News {
            routes,
            orders: orders.filter(|o| self.is_current(o)).collect(),
            gone: reply.gone.clone(),
        })
    }

    /// Heartbeat `ticket` reached nobody, or a store that doesn't lead range 1.
    pub fn failed(&mut self, ticket: u64) {
        if self.sent.take_if(|sent| sent.ticket == ticket).is_some() {
            self.failed = true;
        }
    }

    /// Every route heard of.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Every store registered, with its addresses; empty before the first answer.
    pub fn stores(&self) -> &[StoreRecord] {
        &self.stores
    }

    /// The newest catalog version heard of.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn acknowledge(&mut self, now_ms: u64, sent: Option<Sent>, reply: &HeartbeatReply) {
        if reply.routes_term > self.placement_term {
            self.placement_term = reply.routes_term;
            self.routes_seen = 0;
            self.acknowledged.clear();
            self.full_wanted = true;
        }
        // A late answer holds all that changed since what was seen then, which was no more.
        self.routes_seen = self.routes_seen.max(reply.routes_seq);
        let Some(sent) = sent else {
            return;
        };
        if sent.full {
            self.full_wanted = false;
            self.full_ms = Some(now_ms);
            self.acknowledged = sent.ranges;
        } else if !self.full_wanted {
            self.acknowledged.extend(sent.ranges);
        }
    }

    /// Whether `order` was decided by what this store last reported.
    fn is_current(&self, order: &Order) -> bool {
        let range = self
            .acknowledged
            .get(&order.range.0)
            .and_then(|r| r.range.as_ref());
        range.is_some_and(|range| {
            (range.conf_version, range.version) == (order.epoch.conf_version, order.epoch.version)
        })
    }
}

/// Whether the placement driver should hear of it: anything but a small change of numbers.
fn differs(known: &RangeReport, now: &RangeReport) -> bool {
    let moved = |a: u64, b: u64, least: u64| a.abs_diff(b) > least.max(a / 8);
    known.range != now.range
        || known.leader_store != now.leader_store
        || known.term != now.term
        || known.lagging != now.lagging
        // Any key that divides the load will do: which one is no news.
        || known.load_key.is_empty() != now.load_key.is_empty()
        || moved(known.size_bytes, now.size_bytes, 1 << 20)
        || moved(known.keys, now.keys, 1_000)
        || moved(known.reads, now.reads, 10)
        || moved(known.writes, now.writes, 10)
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
