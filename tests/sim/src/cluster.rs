//! The cluster: nodes, network, clients and trouble, driven by one schedule in one thread.
//!
//! Files: this one moves what happens from its source to its destination; [`crate::snapshots`]
//! streams snapshots, [`crate::nemesis`] makes trouble, [`crate::ending`] heals and judges.
//!
//! Invariant: everything that happens comes from the schedule and the seed, so that two runs of
//! one seed have the same event hash.

use crate::admin::{Admin, Led};
use crate::checks::{check_departure, Changed, Checks};
use crate::client::{Client, Ended, Step};
use crate::clock::Clock;
use crate::faults::{Class, Faults};
use crate::history::{History, Outcome};
use crate::net::{Fate, Net};
use crate::node::{Node, Process, Ran, Tuning};
use crate::random::{exponential, stream, stream_of, Fnv};
use crate::schedule::{Schedule, Time, MS};
use crate::snapshots::Transfers;
use crate::workload::Workload;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_pd::bootstrap::{Bootstrap, Member, FIRST_ALLOCATED_ID};
use rangekv_pd::config::ReplicationFactor;
use rangekv_proto::{Body, Request, RequestError, Response, StoreId};
use rangekv_store::event::{Event as StoreEvent, Outbox};
use rangekv_store::wire;
use std::collections::BTreeMap;

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Client(usize),
    Admin,
}

/// What can happen.
pub(crate) enum Event {
    /// A node's worker does a round.
    Round { node: usize, incarnation: u64 },
    /// A node's sync is complete.
    Synced { node: usize, incarnation: u64 },
    /// A frame arrives.
    Frame { from: usize, to: usize, bytes: Bytes },
    /// The process notices that it can't reach a store.
    Unreachable { node: usize, incarnation: u64, store: StoreId },
    /// A request arrives at a store.
    Request { node: usize, caller: Caller, token: u64, request: Request },
    /// A local read goes on.
    Validate { node: usize, incarnation: u64, token: u64, request: Request },
    /// A response arrives at whoever asked.
    Response { caller: Caller, token: u64, response: Response },
    /// A client has thought, waited, or wants to know whether its time is up.
    Client { client: usize, wake: u64 },
    /// A client's attempt may be lost.
    Timer { client: usize },
    /// A flush that a store started in the background is complete.
    Flushed { node: usize },
    /// A snapshot on its way goes on.
    Snapshot { id: u64 },
    /// Trouble.
    Trouble(crate::nemesis::Trouble),
    /// What the end needs time and again.
    Ending,
}

/// Counts of what happened, to see that a run was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Events of the schedule.
    pub events: u64,
    /// Rounds of workers.
    pub rounds: u64,
    /// Frames sent.
    pub frames: u64,
    /// Local reads that were answered without the worker.
    pub local_reads: u64,
    /// Local reads that were not valid after all.
    pub invalid_reads: u64,
    /// Crashes.
    pub crashes: u64,
    /// Log writes that a power cut lost.
    pub lost_writes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Pauses.
    pub pauses: u64,
    /// Splits that were acknowledged.
    pub splits: u64,
    /// Transfers that were acknowledged.
    pub transfers: u64,
    /// Membership changes that were acknowledged.
    pub member_changes: u64,
    /// Snapshots delivered.
    pub snapshots: u64,
}

/// See the module's documentation.
pub struct Cluster {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) checks: Checks,
    pub(crate) clients: Vec<Client>,
    pub(crate) workload: Workload,
    pub(crate) admin: Admin,
    /// Admin requests on their way, by token, and what they are.
    pub(crate) admin_open: BTreeMap<u64, crate::nemesis::Trouble>,
    pub(crate) history: History,
    pub(crate) transfers: Transfers,
    /// Requests that a node has received and not answered.
    pub(crate) open_requests: Vec<BTreeMap<u64, (Caller, bool)>>,
    pub(crate) rng: SmallRng,
    /// Faults are over.
    pub(crate) healed: bool,
    /// Clients start no more operations.
    pub(crate) clients_stopped: bool,
    pub(crate) tuning: Tuning,
    /// Counts.
    pub counts: Counts,
    position: u64,
    next_token: u64,
    hash: Fnv,
    trace: bool,
    changed: Vec<Changed>,
}

/// Prints a line if tracing is on.
macro_rules! trace {
    ($cluster:expr, $($arg:tt)*) => {
        if $cluster.is_traced() {
            $cluster.print(format!($($arg)*));
        }
    };
}
pub(crate) use trace;

impl Cluster {
    /// The cluster of `seed` under `faults`, about to start.
    pub fn new(seed: u64, faults: Faults, trace: bool) -> Result<Cluster, String> {
        let mut rng = stream(seed, "cluster");
        let small = faults.small_logs;
        let tuning = Tuning {
            tick_ms: 100,
            election_ticks: 10,
            log_keep_bytes: if small { 1 << 10 } else { 64 << 10 },
            log_max_bytes: if small { 4 << 10 } else { 1 << 20 },
            segment_bytes: if small { 8 << 10 } else { 256 << 10 },
        };
        let workload = Workload::draw(seed);
        let clients = (0..workload.clients)
            .map(|n| Client::new(n as u32, stream_of(seed, "client", n as u64)))
            .collect();
        let mut cluster = Cluster {
            seed,
            schedule: Schedule::default(),
            nodes: Vec::new(),
            net: Net::new(seed, 0, &faults),
            checks: Checks::default(),
            clients,
            workload,
            admin: Admin::new(stream(seed, "admin"), FIRST_ALLOCATED_ID),
            admin_open: BTreeMap::new(),
            history: History::default(),
            transfers: Transfers::default(),
            open_requests: Vec::new(),
            healed: false,
            clients_stopped: false,
            tuning,
            counts: Counts::default(),
            position: 0,
            next_token: 0,
            hash: Fnv::default(),
            trace,
            changed: Vec::new(),
            rng: stream(seed, "happenings"),
            faults,
        };
        for _ in 0..cluster.faults.stores {
            cluster.add_node();
        }
        cluster.bootstrap(&mut rng)?;
        cluster.begin_trouble();
        for client in 0..cluster.clients.len() {
            let pause = rng.random_range(0..500 * MS);
            cluster.wake(client, pause);
        }
        Ok(cluster)
    }

    /// An empty machine joins; its store's id is its place in `nodes`, counted from 1.
    pub(crate) fn add_node(&mut self) -> usize {
        let n = self.nodes.len();
        let mut rng = stream_of(self.seed, "machine", n as u64);
        let spread = self.faults.clock_rate;
        let rate = 1_000 + rng.random_range(0..=2 * spread) - spread;
        let jump = self.faults.wall_jump_ms;
        let offset = rng.random_range(-jump..=jump);
        let mut clock = Clock::new(rate, offset);
        clock.reboot(self.schedule.now(), rng.random_range(0..1_000_000_000_000));
        let store = StoreId(n as u64 + 1);
        self.nodes.push(Node::new(self.seed, store, clock, self.faults.sync_mean, self.tuning));
        self.net.add_node();
        self.checks.add_node();
        self.open_requests.push(BTreeMap::new());
        n
    }

    /// Starts all stores and gives them their first ranges.
    fn bootstrap(&mut self, rng: &mut SmallRng) -> Result<(), String> {
        let members: Vec<Member> = (0..self.nodes.len())
            .map(|n| Member { name: format!("n{n}"), grpc_address: format!("n{n}:1") })
            .collect();
        let factor = if self.nodes.len() == 5 && rng.random_bool(0.4) { 5 } else { 3 };
        let plan = Bootstrap::plan(&members, rng.random_range(1..6), ReplicationFactor::Fixed(factor))
            .map_err(|e| e.to_string())?;
        for n in 0..self.nodes.len() {
            self.start_node(n)?;
            self.deliver(n, StoreEvent::Initialise(plan.ranges.clone()));
        }
        Ok(())
    }

    // ---- the loop ----------------------------------------------------------------------

    /// Lets everything up to `until` happen. The error is a finding.
    pub fn run_until(&mut self, until: Time) -> Result<(), String> {
        while let Some(event) = self.schedule.next(until) {
            self.counts.events += 1;
            self.position += 1;
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let now = self.schedule.now();
        // A stopped process finds everything when it goes on.
        if let Some(node) = event_node(&event) {
            if let Some(process) = &self.nodes[node].process {
                if process.paused_until > now {
                    let resume = process.paused_until;
                    self.schedule.at(resume, event);
                    return Ok(());
                }
            }
        }
        match event {
            Event::Round { node, incarnation } => self.round(node, incarnation),
            Event::Synced { node, incarnation } => self.synced(node, incarnation),
            Event::Frame { from, to, bytes } => {
                let store = self.nodes[from].store;
                self.note(2, to, bytes.len() as u64);
                if self.is_traced() {
                    self.trace_frame(from, to, &bytes);
                }
                self.deliver(to, StoreEvent::Raft { from: store, envelopes: bytes });
                Ok(())
            }
            Event::Unreachable { node, incarnation, store } => {
                if self.nodes[node].incarnation == incarnation {
                    self.deliver(node, StoreEvent::Unreachable(store));
                }
                Ok(())
            }
            Event::Request { node, caller, token, request } => {
                self.request(node, caller, token, request);
                Ok(())
            }
            Event::Validate { node, incarnation, token, request } => {
                self.validate(node, incarnation, token, request);
                Ok(())
            }
            Event::Response { caller, token, response } => self.response(caller, token, response),
            Event::Client { client, wake } if self.clients[client].wake == wake => self.client(client),
            Event::Client { .. } => Ok(()),
            Event::Timer { client } => {
                if let Some(step) = self.clients[client].on_timer(now) {
                    self.step(client, step)?;
                }
                Ok(())
            }
            Event::Flushed { node } => {
                let engine = &self.nodes[node].engine;
                engine.complete_flush(engine.flush_requested().unwrap_or(0));
                self.nodes[node].flushing = false;
                Ok(())
            }
            Event::Snapshot { id } => self.snapshot(id),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Ending => {
                self.repair();
                Ok(())
            }
        }
    }

    /// The order of everything, and what happened, as one number.
    pub fn event_hash(&self) -> u64 {
        self.hash.value()
    }

    pub(crate) fn note(&mut self, kind: u64, node: usize, what: u64) {
        self.hash.number(self.schedule.now());
        self.hash.number(kind << 32 | node as u64);
        self.hash.number(what);
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.trace
    }

    pub(crate) fn print(&self, line: String) {
        println!("{:>12.6} {line}", self.schedule.now() as f64 / 1e9);
    }

    fn trace_frame(&self, from: usize, to: usize, bytes: &Bytes) {
        for e in wire::decode(bytes.clone()).unwrap_or_default() {
            let what = match &e.payload {
                wire::Payload::Raft(m) => format!(
                    "{:?} term {} index {} ({}) entries {} commit {} reject {}",
                    m.get_msg_type(),
                    m.term,
                    m.index,
                    m.log_term,
                    m.entries.len(),
                    m.commit,
                    m.reject
                ),
                other => format!("{other:?}"),
            };
            self.print(format!("  n{from} → n{to} r{} {}→{} {what}", e.range, e.from, e.to));
        }
    }

    // ---- stores ------------------------------------------------------------------------

    /// Starts a store that is down.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<(), String> {
        let now = self.schedule.now();
        self.nodes[node].start(now)?;
        trace!(self, "n{node} starts, incarnation {}", self.nodes[node].incarnation);
        self.note(3, node, self.nodes[node].incarnation);
        self.arm(node);
        Ok(())
    }

    /// Puts an event into a store's mailbox, if it runs.
    pub(crate) fn deliver(&mut self, node: usize, event: StoreEvent) {
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.deliver(event);
            self.arm(node);
        }
    }

    /// Sees to it that a round happens when one is due.
    pub(crate) fn arm(&mut self, node: usize) {
        let now = self.schedule.now();
        let next_tick = self.nodes[node].next_tick();
        let incarnation = self.nodes[node].incarnation;
        let wakes_in = self.rng.random_range(2_000..40_000);
        let process = self.nodes[node].process();
        if process.syncing {
            return;
        }
        let due = if process.has_work() { now + wakes_in } else { next_tick };
        if process.round_at.is_none_or(|at| due < at) {
            process.round_at = Some(due);
            self.schedule.at(due, Event::Round { node, incarnation });
        }
    }

    fn running(&mut self, node: usize, incarnation: u64) -> Option<&mut Process> {
        let node = &mut self.nodes[node];
        if node.incarnation != incarnation {
            return None;
        }
        node.process.as_mut()
    }

    fn round(&mut self, node: usize, incarnation: u64) -> Result<(), String> {
        let now = self.schedule.now();
        let clock = self.nodes[node].now(now);
        let Some(process) = self.running(node, incarnation) else { return Ok(()) };
        if process.syncing || process.round_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        process.round_at = None;
        let mut out = Outbox::default();
        let must_sync = match process.begin(clock, &mut out) {
            Ran::Done(must_sync) => must_sync,
            Ran::Died(why) => return self.died(node, &why),
        };
        self.counts.rounds += 1;
        self.after(node, out)?;
        if !must_sync {
            return self.finish(node);
        }
        let mean = self.nodes[node].sync_mean;
        let latency = 20_000 + exponential(&mut self.rng, mean);
        self.schedule.after(latency, Event::Synced { node, incarnation });
        Ok(())
    }

    fn synced(&mut self, node: usize, incarnation: u64) -> Result<(), String> {
        let Some(process) = self.running(node, incarnation) else { return Ok(()) };
        match process.sync() {
            Ran::Done(()) => self.finish(node),
            Ran::Died(why) => self.died(node, &why),
        }
    }

    fn finish(&mut self, node: usize) -> Result<(), String> {
        let clock = self.nodes[node].now(self.schedule.now());
        let mut out = Outbox::default();
        match self.nodes[node].process().finish(clock, &mut out) {
            Ran::Done(()) => {}
            Ran::Died(why) => return self.died(node, &why),
        }
        self.after(node, out)?;
        self.arm(node);
        if !self.nodes[node].flushing && self.nodes[node].engine.flush_requested().is_some() {
            self.nodes[node].flushing = true;
            let time = self.rng.random_range(MS..300 * MS);
            self.schedule.after(time, Event::Flushed { node });
        }
        Ok(())
    }

    /// The store ended itself.
    fn died(&mut self, node: usize, why: &str) -> Result<(), String> {
        trace!(self, "n{node} ends itself: {why}");
        self.crash_node(node, false);
        let down = self.rng.random_range(10 * MS..500 * MS);
        self.schedule.after(down, Event::Trouble(crate::nemesis::Trouble::Restart(node)));
        Ok(())
    }

    /// After either half of a round: looks at the store, sends what it wants sent.
    fn after(&mut self, node: usize, out: Outbox) -> Result<(), String> {
        let now = self.schedule.now();
        let n = &self.nodes[node];
        let process = n.process.as_ref().expect("it has just run");
        let groups = process.groups(n.now(now));
        {
            let mirror = n.mirror.lock().expect("one thread");
            let changed = &mut self.changed;
            self.checks.observe(node, now, &groups, &mirror, &n.clock, process.shared(), changed)?;
            for (_, envelope) in &out.envelopes {
                let applied = groups.iter().find(|g| g.range == envelope.range).map(|g| g.applied.0);
                check_departure(envelope, &mirror, applied)?;
            }
            for snapshot in &out.snapshots {
                check_departure(&snapshot.envelope, &mirror, None)?;
            }
        }
        for change in std::mem::take(&mut self.changed) {
            let (term, committed, applied) = change.position;
            self.note(4, node, change.range.0);
            self.note(5, node, term << 40 | committed << 20 | applied);
            if self.is_traced() {
                let role = if change.is_leader { " leads" } else { "" };
                self.print(format!(
                    "n{node} r{}{role} term {term} commit {committed} applied {applied}",
                    change.range
                ));
            }
        }
        self.send_frames(node, out.envelopes);
        for snapshot in out.snapshots {
            self.start_snapshot(node, snapshot);
        }
        for (token, response) in self.nodes[node].process().take_responses() {
            self.respond(node, token, response)?;
        }
        Ok(())
    }

    /// One frame per store, in the order of the envelopes.
    fn send_frames(&mut self, node: usize, envelopes: Vec<(StoreId, wire::Envelope)>) {
        let mut frames: BTreeMap<StoreId, Vec<u8>> = BTreeMap::new();
        for (store, envelope) in &envelopes {
            wire::encode_one(frames.entry(*store).or_default(), envelope);
        }
        for (store, bytes) in frames {
            let Some(to) = self.node_of(store) else { continue };
            self.send_frame(node, to, bytes.into());
        }
    }

    pub(crate) fn node_of(&self, store: StoreId) -> Option<usize> {
        let n = store.0.checked_sub(1)? as usize;
        (n < self.nodes.len()).then_some(n)
    }

    fn send_frame(&mut self, from: usize, to: usize, bytes: Bytes) {
        let now = self.schedule.now();
        self.counts.frames += 1;
        match self.net.send(now, from, to, &bytes) {
            Fate::Arrives(times) => {
                for time in times {
                    self.schedule.at(time, Event::Frame { from, to, bytes: bytes.clone() });
                }
            }
            Fate::Waits => {}
            Fate::Lost { cut } => {
                // A broken connection is noticed; a frame lost by a full queue is not.
                if cut && self.rng.random_bool(0.3) {
                    let incarnation = self.nodes[from].incarnation;
                    let store = self.nodes[to].store;
                    let delay = self.rng.random_range(MS..200 * MS);
                    self.schedule.after(delay, Event::Unreachable { node: from, incarnation, store });
                }
            }
        }
    }

    /// Ends a store's process. Its callers hear of it at once, later, or never.
    pub(crate) fn crash_node(&mut self, node: usize, power_cut: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        let now = self.schedule.now();
        let lost = self.nodes[node].crash(now, &mut self.rng, power_cut);
        self.counts.crashes += 1;
        self.counts.lost_writes += lost.1 as u64;
        trace!(self, "n{node} crashes (power cut: {power_cut}), lost {} state batches, {} log writes", lost.0, lost.1);
        self.note(6, node, (lost.0 as u64) << 32 | lost.1 as u64);
        self.checks.crashed(node);
        for (token, (caller, read_only)) in std::mem::take(&mut self.open_requests[node]) {
            if self.rng.random_bool(0.7) {
                let why = "the connection broke".to_string();
                let error = match read_only {
                    true => RequestError::Unavailable(why),
                    false => RequestError::OutcomeUnknown(why),
                };
                let delay = self.rng.random_range(100_000..50 * MS);
                self.schedule.after(delay, Event::Response { caller, token, response: Err(error) });
            }
        }
    }

    // ---- requests ----------------------------------------------------------------------

    pub(crate) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Sends a request towards a store.
    pub(crate) fn send_request(&mut self, store: StoreId, caller: Caller, token: u64, request: Request) {
        let Some(node) = self.node_of(store) else { return };
        if self.rng.random_bool(self.client_loss()) {
            return;
        }
        let delay = 20_000 + exponential(&mut self.rng, 200_000);
        self.schedule.after(delay, Event::Request { node, caller, token, request });
    }

    fn client_loss(&self) -> f64 {
        if self.healed { 0.0 } else { self.faults.client_loss }
    }

    fn request(&mut self, node: usize, caller: Caller, token: u64, request: Request) {
        let clock = self.nodes[node].now(self.schedule.now());
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = self.nodes[node].process.as_mut() else {
            let response = Err(RequestError::Unavailable("connection refused".into()));
            let delay = self.rng.random_range(50_000..MS);
            self.schedule.after(delay, Event::Response { caller, token, response });
            return;
        };
        let read_only = matches!(request.body, Body::Command { read_only: true, .. });
        self.open_requests[node].insert(token, (caller, read_only));
        if read_only && self.rng.random_bool(0.8) && process.begin_read(clock, token, &request) {
            let delay = match self.rng.random_range(0..100) {
                _ if !self.healed && self.rng.random_bool(self.faults.slow_reader) => {
                    exponential(&mut self.rng, 300 * MS)
                }
                0..10 => self.rng.random_range(100_000..20 * MS),
                _ => self.rng.random_range(500..20_000),
            };
            self.schedule.after(delay, Event::Validate { node, incarnation, token, request });
            return;
        }
        process.request(request, token);
        self.arm(node);
    }

    fn validate(&mut self, node: usize, incarnation: u64, token: u64, request: Request) {
        let clock = self.nodes[node].now(self.schedule.now());
        let Some(process) = self.running(node, incarnation) else { return };
        match process.validate_read(clock, token) {
            Some(reply) => {
                self.counts.local_reads += 1;
                // The sink was never given this token; the response goes the same way.
                self.respond(node, token, Ok(reply)).expect("the request is open");
            }
            None => {
                process.request(request, token);
                self.counts.invalid_reads += 1;
                self.arm(node);
            }
        }
    }

    /// A store has answered.
    fn respond(&mut self, node: usize, token: u64, response: Response) -> Result<(), String> {
        let Some((caller, _)) = self.open_requests[node].remove(&token) else {
            return Err(format!("node {node} answered request {token} twice, or without being asked: {response:?}"));
        };
        if self.rng.random_bool(self.client_loss()) {
            return Ok(());
        }
        let delay = 20_000 + exponential(&mut self.rng, 200_000);
        self.schedule.after(delay, Event::Response { caller, token, response });
        Ok(())
    }

    fn response(&mut self, caller: Caller, token: u64, response: Response) -> Result<(), String> {
        let now = self.schedule.now();
        let mut hash = Fnv::default();
        match &response {
            Ok(reply) => hash.write(reply),
            Err(error) => hash.write(error.to_string().as_bytes()),
        }
        self.note(7, token as usize, hash.value());
        match caller {
            Caller::Client(client) => {
                trace!(self, "client {client} hears ({token}) {response:?}");
                match self.clients[client].on_response(now, token, response) {
                    Some(step) => self.step(client, step),
                    None => Ok(()),
                }
            }
            Caller::Admin => {
                trace!(self, "admin hears ({token}) {response:?}");
                self.admin_heard(token, response);
                Ok(())
            }
        }
    }

    // ---- clients -----------------------------------------------------------------------

    /// A client begins an operation, or goes on with one.
    fn client(&mut self, client: usize) -> Result<(), String> {
        let now = self.schedule.now();
        if self.clients[client].busy.is_none() {
            if self.clients_stopped {
                return Ok(());
            }
            let number = self.clients[client].number;
            let (key, op) = self.workload.next(self.clients[client].rng(), number);
            self.begin_operation(client, key, op);
        }
        if self.rng.random_bool(0.2) || !self.knows_route(client) {
            self.refresh_routes(client);
        }
        let token = self.token();
        let step = self.clients[client].send(now, token);
        self.step(client, step)
    }

    /// Calls on a client at `time`, and not sooner.
    pub(crate) fn wake(&mut self, client: usize, time: Time) {
        self.clients[client].wake += 1;
        let wake = self.clients[client].wake;
        self.schedule.at(time, Event::Client { client, wake });
    }

    pub(crate) fn begin_operation(&mut self, client: usize, key: usize, op: crate::history::Op) {
        let now = self.schedule.now();
        let key = &self.workload.keys[key];
        let (name, record) = (key.name.clone(), key.record.clone());
        let number = self.clients[client].number;
        self.position += 1;
        let id = self.history.begin(number, &name, op.clone(), self.position);
        trace!(self, "client {client} begins {op:?} {}", name.escape_ascii());
        self.clients[client].start(now, id, &name, record, &op);
    }

    fn knows_route(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client.busy.as_ref().is_some_and(|op| client.routes.lookup(&op.record).is_some())
    }

    /// A client asks a random store what it knows of routes.
    fn refresh_routes(&mut self, client: usize) {
        let node = self.rng.random_range(0..self.nodes.len());
        let Some(process) = &self.nodes[node].process else { return };
        if process.paused_until > self.schedule.now() {
            return;
        }
        for (descriptor, leader) in process.shared().routes() {
            self.clients[client].routes.apply(descriptor, leader);
        }
    }

    fn step(&mut self, client: usize, step: Step) -> Result<(), String> {
        match step {
            Step::Send { store, request, token, timer } => {
                trace!(self, "client {client} asks s{store} ({token}) range {} version {}", request.range, request.version);
                self.schedule.at(timer, Event::Timer { client });
                self.send_request(store, Caller::Client(client), token, request);
            }
            Step::Wait(until) => self.wake(client, until),
            Step::End(id, ended) => {
                self.position += 1;
                trace!(self, "client {client} ends {:?}: {ended:?}", self.history.record(&id).op);
                let outcome = match ended {
                    Ended::Replied(reply) => Outcome::Replied { at: self.position, reply },
                    Ended::Unknown => Outcome::Unknown,
                    Ended::NotExecuted => Outcome::NotExecuted,
                    Ended::Wrong(why) => {
                        return Err(format!("client {client}, {:?}: {why}", self.history.record(&id).op));
                    }
                };
                if outcome != Outcome::Unknown {
                    self.history.end(&id, outcome);
                }
                let pause = exponential(&mut self.rng, self.workload.think_mean);
                let next = self.schedule.now() + pause;
                self.wake(client, next);
            }
        }
        Ok(())
    }

    // ---- views -------------------------------------------------------------------------

    /// Ranges and leaders, as those stores say that take themselves for leaders.
    pub(crate) fn led(&self) -> Vec<Led> {
        let mut led: BTreeMap<rangekv_proto::RangeId, Led> = BTreeMap::new();
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            for (descriptor, leader) in process.shared().routes() {
                let Some(hint) = leader.filter(|hint| hint.store == node.store) else { continue };
                let entry = led.entry(descriptor.id).or_insert_with(|| (descriptor.clone(), hint));
                if hint.term > entry.1.term {
                    *entry = (descriptor, hint);
                }
            }
        }
        led.into_values().collect()
    }

    /// Stores that are not lost for ever.
    pub(crate) fn lasting_stores(&self) -> Vec<StoreId> {
        self.nodes.iter().filter(|n| !n.wiped).map(|n| n.store).collect()
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        self.faults.classes.contains(&class)
    }
}

/// The node at which an event happens, if its process has to run for it.
fn event_node(event: &Event) -> Option<usize> {
    match event {
        Event::Round { node, .. }
        | Event::Synced { node, .. }
        | Event::Unreachable { node, .. }
        | Event::Request { node, .. }
        | Event::Validate { node, .. } => Some(*node),
        Event::Frame { to, .. } => Some(*to),
        _ => None,
    }
}
