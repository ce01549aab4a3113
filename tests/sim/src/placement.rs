//! The placement driver in the loop: each store's heartbeats, the soft state of whoever leads
//! range 1, and the orders that come of it, as `src/node` does it around the same pure parts.
//!
//! - Range 1's state is evaluated and replicated by the same workers as everything else.
//! - A store registers, reports by heartbeats over the streams between stores, and carries out
//!   what the answers order, with ids from range 1.
//! - Two hands at once: the nemesis goes on to split, move and transfer by itself.
//!
//! Checked: an answer is never given by a leader that had been succeeded when it was asked.
//! Left out: how a joining store gets its id (real processes do that). Its place is its id.

use crate::bugs;
use crate::cluster::{trace, Caller, Cluster};
use crate::door::DoorCall;
use crate::faults::Class;
use crate::schedule::{Time, MS, SEC};
use bytes::Bytes;
use prost::Message as _;
use rand::Rng;
use rangekv_model::redis::RedisModel;
use rangekv_pd::client::{HeartbeatState, Vitals};
use rangekv_pd::leader::Leader;
use rangekv_pd::operator::{Order, Step};
use rangekv_pd::state::encode;
use rangekv_proto::internal::placement_command::{
    AllocateIds, Kind, ReadState, RegisterStore, SetConfig, SetStoreState,
};
use rangekv_proto::internal::{
    Heartbeat, HeartbeatReply, PlacementReply, PlacementState, RangeReport, ReplicaReport,
    StoreRecord,
};
use rangekv_proto::{
    Body, Epoch, EvaluatorId, Mark, RangeId, ReplicaId, Request, RequestError, Response, StoreId,
    PLACEMENT_RANGE,
};
use rangekv_router::cache::Asked;
use rangekv_store::event::Event as StoreEvent;
use rangekv_store::shared::StoreShared;
use rangekv_store::size::split_key;
use rangekv_store::wire::{self, Envelope, Payload};
use std::collections::BTreeMap;

/// Range 1 is never split.
const PLACEMENT_VERSION: u64 = 1;
/// How long after its first try a call is given up.
const CALL_TIME_MAX: Time = 5 * SEC;
/// Names a call of the store itself where a connection's number stands.
pub(crate) const NO_CONNECTION: usize = usize::MAX;
/// What this cluster is set to: as quick as the settings allow.
const SETTINGS: [(&str, &str); 7] = [
    ("heartbeat-interval", "300"),
    ("leader-transfer-cooldown", "1000"),
    ("max-store-down-time", "4000"),
    ("replication-factor", "3"),
    ("store-silent-after", "1500"),
    ("placement-replicas", "3"),
    ("range-merge-after", "1000"),
];

/// What a call is for.
#[derive(Clone, Debug)]
enum Purpose {
    Register,
    Heartbeat(u64),
    /// And how many.
    Ids(Order, u64),
    /// The administrator's.
    Command,
}

#[derive(Clone, Debug)]
struct Call {
    purpose: Purpose,
    body: Body,
    asked: Option<Asked>,
    tries: u32,
    until: Time,
    /// When its present try is taken for lost, or the next one begins.
    at: Time,
}

/// A heartbeat that waits for the replicated state.
struct Reading {
    answer_to: u64,
    term: u64,
    heartbeat: Heartbeat,
    since: Time,
}

/// One process's part.
pub struct Placement {
    heartbeats: HeartbeatState,
    /// Its soft state, should it lead range 1.
    pub leader: Leader,
    registered: bool,
    registering: bool,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    readings: BTreeMap<u64, Reading>,
    orders: BTreeMap<u64, Order>,
    /// The state that was read last; for a planted bug.
    last_state: Option<PlacementState>,
}

impl Placement {
    /// A process that has just begun.
    pub fn new(store: StoreId) -> Placement {
        Placement {
            heartbeats: HeartbeatState::new(store, incarnation(store)),
            leader: Leader::default(),
            registered: false,
            registering: false,
            calls: BTreeMap::new(),
            next_call: 0,
            readings: BTreeMap::new(),
            orders: BTreeMap::new(),
            last_state: None,
        }
    }

    /// Whether range 1 knows this store.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Something about the store's ranges is not as it was.
    pub fn changed(&mut self) {
        self.heartbeats.changed();
    }
}

/// Of a store's data directory, which it keeps all its life.
fn incarnation(store: StoreId) -> u64 {
    7_000 + store.0
}

impl Cluster {
    pub(crate) fn has_placement(&self) -> bool {
        self.has(Class::Placement)
    }

    /// Sets the cluster up. Where the other hand merges, the placement driver does so, too, as long
    /// as there is trouble: one pair after another would keep a cluster from coming to rest for long.
    pub(crate) fn begin_placement(&mut self) {
        let merges = match self.has(Class::Merge) && !self.healed {
            true => "on",
            false => "off",
        };
        for (name, value) in SETTINGS.into_iter().chain([("range-merge", merges)]) {
            let (name, value) = (name.to_string(), value.to_string());
            self.administrate(Kind::SetConfig(SetConfig { name, value }));
        }
    }

    /// What was set or asked for may have been lost on its way, or be on its way still.
    pub(crate) fn set_all_again(&mut self) {
        if !self.has_placement() {
            return;
        }
        for node in self.nodes.iter_mut().filter_map(|n| n.process.as_mut()) {
            let calls = &mut node.placement.calls;
            calls.retain(|_, call| !matches!(call.purpose, Purpose::Command));
        }
        self.begin_placement();
        for store in self.lasting_stores() {
            self.set_store_state(store, u32::from(self.draining == Some(store)));
        }
    }

    /// The administrator has a store emptied, or used again.
    fn set_store_state(&mut self, store: StoreId, state: u32) {
        let store = store.0;
        self.administrate(Kind::SetStoreState(SetStoreState { store, state }));
    }

    /// A command to range 1 from some store that runs. It may be lost.
    fn administrate(&mut self, kind: Kind) {
        let up = (0..self.nodes.len()).find(|n| self.nodes[*n].process.is_some());
        if let Some(node) = up {
            self.placement_call(node, Purpose::Command, placement_body(kind), 60 * SEC);
        }
    }

    /// What a store does about the placement driver each time that it looks.
    pub(crate) fn look_at_placement(&mut self, node: usize) {
        let now = self.schedule.now();
        let now_ms = self.nodes[node].now(now).mono_ns / MS;
        let store = self.nodes[node].store;
        let placement = &mut self.nodes[node].process().placement;
        let due: Vec<u64> = placement
            .calls
            .iter()
            .filter(|(_, call)| call.at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.call_again(node, id);
        }
        let placement = &mut self.nodes[node].process().placement;
        if !placement.registered {
            if !std::mem::replace(&mut placement.registering, true) {
                let record = StoreRecord {
                    store: store.0,
                    name: format!("n{node}"),
                    incarnation: incarnation(store),
                    grpc_address: format!("n{node}:1"),
                    ..StoreRecord::default()
                };
                let register = RegisterStore {
                    record: Some(record),
                    cluster: 1,
                    ..RegisterStore::default()
                };
                let body = placement_body(Kind::RegisterStore(register));
                self.placement_call(node, Purpose::Register, body, CALL_TIME_MAX);
            }
        } else if placement.heartbeats.due(now_ms) {
            let vitals = self.vitals(node);
            let placement = &mut self.nodes[node].process().placement;
            let (ticket, heartbeat) = placement.heartbeats.build(now_ms, vitals);
            let body = Body::Heartbeat(heartbeat.encode_to_vec().into());
            self.placement_call(node, Purpose::Heartbeat(ticket), body, 2 * SEC);
        }
    }

    fn vitals(&self, node: usize) -> Vitals {
        let me = self.nodes[node].store;
        let shared = self.nodes[node].process.as_ref().expect("it runs").shared();
        let (mut led, mut followed) = (Vec::new(), Vec::new());
        for (descriptor, hint) in shared.routes() {
            match (hint, descriptor.replica_on(me)) {
                (Some(hint), _) if hint.store == me => led.push(RangeReport {
                    range: Some((&descriptor).into()),
                    leader_store: me.0,
                    term: hint.term,
                    lagging: lagging(shared, &descriptor, me),
                    ..RangeReport::default()
                }),
                (_, Some(replica)) => followed.push(ReplicaReport {
                    range: descriptor.id.0,
                    replica: replica.id.0,
                    conf_version: descriptor.epoch.conf_version,
                }),
                _ => {}
            }
        }
        Vitals {
            led,
            followed,
            disk_used_bytes: 1 << 30,
            disk_free_bytes: 1 << 40,
            uptime_ms: 1,
        }
    }

    // ---- calls -------------------------------------------------------------------------

    fn placement_call(&mut self, node: usize, purpose: Purpose, body: Body, within: Time) {
        let now = self.schedule.now();
        let placement = &mut self.nodes[node].process().placement;
        placement.next_call += 1;
        let id = placement.next_call;
        let call = Call {
            purpose,
            body,
            asked: None,
            tries: 0,
            until: now + within,
            at: now,
        };
        placement.calls.insert(id, call);
        self.call_again(node, id);
    }

    /// Sends a call, again if need be, to whom the cache names or to everybody in turn.
    fn call_again(&mut self, node: usize, id: u64) {
        let now = self.schedule.now();
        let stores = self.nodes.len() as u64;
        let generation = self.nodes[node].incarnation;
        let process = self.nodes[node].process();
        let routes = process.front.cache.snapshot().cache;
        let route = routes
            .routes()
            .iter()
            .find(|r| r.descriptor.id == PLACEMENT_RANGE);
        let Some(call) = process.placement.calls.get_mut(&id) else {
            return;
        };
        if now >= call.until {
            return self.call_ended(node, id, Err("no answer in time".into()));
        }
        call.tries += 1;
        let leader = route.and_then(|r| r.leader);
        let (store, term) = match (leader, route) {
            (Some(hint), _) => (hint.store, hint.term),
            (None, Some(route)) => {
                let members = &route.descriptor.replicas;
                (members[call.tries as usize % members.len()].store, 0)
            }
            (None, None) => (StoreId(u64::from(call.tries) % stores + 1), 0),
        };
        call.asked = Some(Asked {
            range: PLACEMENT_RANGE,
            version: PLACEMENT_VERSION,
            store,
            term,
        });
        // A try without an answer is followed by another one.
        call.at = now + 700 * MS;
        let request = Request {
            range: PLACEMENT_RANGE,
            version: PLACEMENT_VERSION,
            term: 0,
            mark: Mark::NONE,
            body: call.body.clone(),
        };
        let call = DoorCall {
            node,
            connection: NO_CONNECTION,
            generation,
            token: id,
            at: node,
            stream: 0,
        };
        self.send_from(call, store, request);
    }

    /// The answer to a call of the store itself.
    pub(crate) fn placement_hears(
        &mut self,
        call: DoorCall,
        response: Response,
    ) -> Result<(), String> {
        let now = self.schedule.now();
        let (node, id) = (call.node, call.token);
        let Some(process) = self.running(node, call.generation) else {
            return Ok(());
        };
        let Some(open) = process.placement.calls.get_mut(&id) else {
            return Ok(());
        };
        match response {
            Ok(reply) => self.call_ended(node, id, Ok(reply)),
            Err(error) => {
                let asked = open.asked.expect("it was sent");
                let named = matches!(
                    error,
                    RequestError::NotLeader {
                        leader: Some(_),
                        ..
                    }
                );
                // Two stores that name each other must not spin.
                let wait = if named && open.tries < 4 {
                    MS
                } else {
                    100 * MS
                };
                open.at = now + wait;
                process.front.cache.on_error(&asked, &error);
                trace!(self, "n{node}: call {id} to range 1: {error}");
            }
        }
        Ok(())
    }

    fn call_ended(&mut self, node: usize, id: u64, outcome: Result<Bytes, String>) {
        let now = self.schedule.now();
        let now_ms = self.nodes[node].now(now).mono_ns / MS;
        let healed = self.healed;
        let placement = &mut self.nodes[node].process().placement;
        let Some(mut call) = placement.calls.remove(&id) else {
            return;
        };
        let refused = |reply: &Bytes| {
            PlacementReply::decode(reply.clone()).is_ok_and(|reply| !reply.error.is_empty())
        };
        let is_command = matches!(call.purpose, Purpose::Command);
        if healed && is_command && outcome.as_ref().is_ok_and(refused) {
            // A store that has yet to register can't be told to be emptied.
            call.at = now + SEC;
            placement.calls.insert(id, call);
            return;
        }
        match (call.purpose, outcome) {
            (Purpose::Command, _) => {}
            (Purpose::Register, Ok(reply)) => {
                let reply = PlacementReply::decode(reply).unwrap_or_default();
                placement.registering = false;
                placement.registered = reply.error.is_empty() && reply.state.is_some();
            }
            (Purpose::Register, Err(_)) => placement.registering = false,
            (Purpose::Heartbeat(ticket), Err(_)) => placement.heartbeats.failed(ticket),
            (Purpose::Heartbeat(ticket), Ok(reply)) => {
                let reply = HeartbeatReply::decode(reply).unwrap_or_default();
                match placement.heartbeats.reply(now_ms, ticket, &reply) {
                    Ok(news) => {
                        let routes = news.routes.into_iter().map(|r| (r.range, r.leader));
                        self.nodes[node].process().front.cache.apply_routes(routes);
                        for order in news.orders {
                            self.carry_out(node, order);
                        }
                        for gone in news.gone {
                            self.remove_replica(node, &gone);
                        }
                    }
                    Err(_) => placement.registered = false,
                }
            }
            (Purpose::Ids(order, count), Ok(reply)) => {
                let reply = PlacementReply::decode(reply).unwrap_or_default();
                if !reply.error.is_empty() {
                    return placement.heartbeats.outcome(order.operator, reply.error);
                }
                for id in reply.first_id..reply.first_id + count {
                    assert!(self.ids_given.insert(id), "range 1 gave out id {id} twice");
                }
                // A store takes a replica for an old one if its id is less than one that it had.
                // So there is one source of ids, which the other hand shares.
                let first_id = self.admin.allocate_many(count);
                self.give_order(node, order, first_id);
            }
            (Purpose::Ids(order, _), Err(why)) => {
                placement.heartbeats.outcome(order.operator, why);
            }
        }
    }

    // ---- orders ------------------------------------------------------------------------

    fn carry_out(&mut self, node: usize, mut order: Order) {
        trace!(self, "n{node} is ordered {order:?}");
        let engine = self.nodes[node].engine.clone();
        let process = self.nodes[node].process();
        let route = process
            .shared()
            .cell(order.range)
            .and_then(|cell| cell.route());
        let refuse = |placement: &mut Placement, why: &str| {
            placement
                .heartbeats
                .outcome(order.operator, why.to_string());
        };
        let Some(route) = route else {
            return refuse(&mut process.placement, "no replica of the range");
        };
        if let Step::Split(key) = &mut order.step {
            if key.is_empty() {
                match split_key(&*engine, &route.0, &RedisModel, 0) {
                    Some(found) => *key = found,
                    None => return refuse(&mut process.placement, "no key divides the range"),
                }
            }
        }
        match order.ids_needed(route.0.replicas.len()) {
            0 => self.give_order(node, order, 0),
            count => {
                let body = placement_body(Kind::AllocateIds(AllocateIds { count }));
                self.placement_call(node, Purpose::Ids(order, count), body, CALL_TIME_MAX);
            }
        }
    }

    fn give_order(&mut self, node: usize, order: Order, first_id: u64) {
        let incarnation = self.nodes[node].incarnation;
        let token = self.token();
        let process = self.nodes[node].process();
        let cell = process.shared().cell(order.range);
        let Some(route) = cell.and_then(|cell| cell.route()) else {
            let why = "no replica of the range".to_string();
            return process.placement.heartbeats.outcome(order.operator, why);
        };
        let request = order.request(first_id, route.0.replicas.len());
        self.counts.orders += 1;
        process.placement.orders.insert(token, order);
        process.request(request, token);
        self.open_requests[node].insert(token, (Caller::Order(node, incarnation), false));
        self.arm(node);
    }

    /// This store's worker has carried an order out, or refused.
    pub(crate) fn order_answered(&mut self, node: usize, token: u64, response: Response) {
        let placement = &mut self.nodes[node].process().placement;
        if let Some(order) = placement.orders.remove(&token) {
            let error = response.err().map_or(String::new(), |e| e.to_string());
            trace!(self, "n{node}: {order:?}: {error}");
            let placement = &mut self.nodes[node].process().placement;
            placement.heartbeats.outcome(order.operator, error);
        }
    }

    fn remove_replica(&mut self, node: usize, gone: &ReplicaReport) {
        let envelope = Envelope {
            range: RangeId(gone.range),
            from: ReplicaId(0),
            to: ReplicaId(gone.replica),
            epoch: Epoch {
                conf_version: gone.conf_version,
                version: 0,
            },
            bounds: None,
            payload: Payload::Gone,
        };
        let from = self.nodes[node].store;
        let envelopes = wire::encode([&envelope]);
        self.deliver(node, StoreEvent::Raft { from, envelopes });
    }

    // ---- the other end -----------------------------------------------------------------

    /// A heartbeat reaches a store: it answers by the replicated state, which it reads in the
    /// term in which it believes to lead range 1, or says who leads.
    pub(crate) fn heartbeat(
        &mut self,
        node: usize,
        token: u64,
        heartbeat: Bytes,
    ) -> Result<(), String> {
        let (range, since) = (PLACEMENT_RANGE, self.schedule.now());
        let store = self.nodes[node].store;
        let incarnation = self.nodes[node].incarnation;
        let process = self.nodes[node].process();
        let cell = process.shared().cell(range);
        let term = match cell.and_then(|cell| cell.route()).map(|r| r.1) {
            None => Err(RequestError::RangeNotFound { range, store }),
            Some(Some(hint)) if hint.store == store => Ok(hint.term),
            Some(leader) => Err(RequestError::NotLeader { range, leader }),
        };
        let (term, heartbeat) = match (term, Heartbeat::decode(heartbeat)) {
            (Ok(term), Ok(heartbeat)) => (term, heartbeat),
            (Err(error), _) => return self.respond(node, token, Err(error)),
            (_, Err(error)) => return Err(format!("a heartbeat that can't be read: {error}")),
        };
        let reading = Reading {
            answer_to: token,
            term,
            heartbeat,
            since,
        };
        if let (true, Some(state)) = (
            bugs::is_planted("deposed_placement_leader"),
            process.placement.last_state.clone(),
        ) {
            return self.answer_heartbeat(node, reading, &state);
        }
        let request = Request {
            range,
            version: PLACEMENT_VERSION,
            term,
            mark: Mark::NONE,
            body: placement_body(Kind::ReadState(ReadState {})),
        };
        let read = self.token();
        let process = self.nodes[node].process();
        process.placement.readings.insert(read, reading);
        process.request(request, read);
        self.open_requests[node].insert(read, (Caller::Order(node, incarnation), true));
        self.arm(node);
        Ok(())
    }

    /// Whether `token` is a read of the replicated state; then the heartbeat is answered.
    pub(crate) fn state_read(
        &mut self,
        node: usize,
        token: u64,
        response: &Response,
    ) -> Result<bool, String> {
        let placement = &mut self.nodes[node].process().placement;
        let Some(reading) = placement.readings.remove(&token) else {
            return Ok(false);
        };
        let state = match response {
            Ok(reply) => PlacementReply::decode(reply.clone())
                .ok()
                .and_then(|r| r.state)
                .ok_or("the placement state can't be read")?,
            Err(error) => {
                self.respond(node, reading.answer_to, Err(error.clone()))?;
                return Ok(true);
            }
        };
        placement.last_state = Some(state.clone());
        self.answer_heartbeat(node, reading, &state)?;
        Ok(true)
    }

    fn answer_heartbeat(
        &mut self,
        node: usize,
        reading: Reading,
        state: &PlacementState,
    ) -> Result<(), String> {
        if let Some((term, at)) = self.checks.succeeded(PLACEMENT_RANGE, reading.term) {
            if at < reading.since {
                return Err(format!(
                    "n{node} answers a heartbeat of {:.6} s as the placement driver of term {}, \
                     though term {term} began at {:.6} s",
                    reading.since as f64 / 1e9,
                    reading.term,
                    at as f64 / 1e9
                ));
            }
        }
        self.counts.heartbeats += 1;
        let now_ms = self.nodes[node].now(self.schedule.now()).mono_ns / MS;
        let leader = &mut self.nodes[node].process().placement.leader;
        let reply = leader.heartbeat(now_ms, reading.term, &reading.heartbeat, state);
        self.respond(node, reading.answer_to, Ok(reply.encode_to_vec().into()))
    }

    /// Why the placement driver is not at rest, if it is not.
    pub(crate) fn placement_unrest(&self) -> Option<String> {
        if !self.has_placement() {
            return None;
        }
        let led = self.led();
        let leads = led.iter().find(|(d, _)| d.id == PLACEMENT_RANGE);
        let Some(node) = leads.and_then(|(_, hint)| self.node_of(hint.store)) else {
            return Some("nobody leads range 1".into());
        };
        for (n, node) in self.nodes.iter().enumerate() {
            let process = node.process.as_ref();
            if process.is_some_and(|p| !p.placement.registered) {
                return Some(format!("n{n} is not registered"));
            }
        }
        let process = self.nodes[node].process.as_ref()?;
        let leader = &process.placement.leader;
        let running = leader.operators().next();
        running.map(|operator| format!("{operator:?} is under way"))
    }

    /// The placement driver's own words on why it does nothing.
    pub(crate) fn placement_reasons(&self) -> String {
        let leaders = self.nodes.iter().filter_map(|n| n.process.as_ref());
        let newest = leaders.max_by_key(|p| p.placement.leader.term());
        newest.map_or(String::new(), |process| {
            let reasons = process.placement.leader.reasons();
            let operators = process.placement.leader.operators();
            let operators = operators.map(|o| format!("\n  under way: {o:?}"));
            let reasons = reasons.iter().map(|r| format!("\n  {r:?}"));
            operators.chain(reasons).collect()
        })
    }

    /// Makes the placement driver's own trouble: a store is to be emptied, or used again.
    pub(crate) fn drain(&mut self) {
        let lasting = self.lasting_stores();
        if let Some(store) = self.draining.take() {
            self.set_store_state(store, 0);
        } else if lasting.len() > 3 {
            let store = lasting[self.rng.random_range(0..lasting.len())];
            self.draining = Some(store);
            self.set_store_state(store, 1);
        }
    }
}

fn placement_body(kind: Kind) -> Body {
    Body::Command {
        evaluator: EvaluatorId::PLACEMENT,
        read_only: matches!(kind, Kind::ReadState(_)),
        command: encode(kind),
    }
}

/// Members of which the leader doesn't know that they keep up.
fn lagging(shared: &StoreShared, d: &rangekv_proto::RangeDescriptor, me: StoreId) -> Vec<u64> {
    let cell = shared.cell(d.id);
    let current = cell.map_or(Vec::new(), |cell| cell.keeping_up());
    let others = d.replicas.iter().filter(|r| r.store != me);
    let lagging = others.filter(|r| !current.contains(&r.id));
    lagging.map(|r| r.id.0).collect()
}
