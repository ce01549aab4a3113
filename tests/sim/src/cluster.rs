//! The cluster: nodes, network, clients and trouble, driven by one schedule in one thread.
//!
//! Files: this one is the loop; [`crate::stores`] runs stores, [`crate::requests`] serves clients,
//! [`crate::snapshots`] streams snapshots, [`crate::nemesis`] makes trouble, [`crate::ending`] heals and judges.
//!
//! Invariant: everything that happens comes from the schedule and the seed, so that two runs of
//! one seed have the same event hash.

use crate::admin::{Admin, Led};
use crate::checks::{Changed, Checks};
use crate::client::Client;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::door::DoorCall;
use crate::faults::{Class, Faults};
use crate::history::History;
use crate::net::Net;
use crate::node::{Node, Tuning};
use crate::placement::NO_CONNECTION;
use crate::random::{stream, stream_of, Fnv};
use crate::schedule::{Schedule, Time, MS};
use crate::snapshots::Transfers;
use crate::streams::Streams;
use crate::workload::Workload;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_pd::bootstrap::{Bootstrap, Member, FIRST_ALLOCATED_ID};
use rangekv_pd::config::ReplicationFactor;
use rangekv_proto::{Request, Response, StoreId};
use rangekv_router::session::Config as DoorConfig;
use rangekv_store::event::Event as StoreEvent;
use rangekv_store::wire;
use std::collections::{BTreeMap, BTreeSet};

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Client(usize),
    Admin,
    Door(DoorCall),
    /// A store's own: what its placement driver ordered, or reads; with the store's incarnation.
    Order(usize, u64),
}

impl Caller {
    /// Whether it asks time and again, as long as it runs.
    pub(crate) fn is_a_store(&self) -> bool {
        match self {
            Caller::Door(call) => call.connection == NO_CONNECTION,
            Caller::Order(..) => true,
            Caller::Client(_) | Caller::Admin => false,
        }
    }
}

/// What can happen.
pub(crate) enum Event {
    /// A node's worker does a round.
    Round { node: usize, incarnation: u64 },
    /// A node's sync is complete.
    Synced { node: usize, incarnation: u64 },
    /// A sync is complete that no round waited for.
    SyncedLater {
        node: usize,
        incarnation: u64,
        sequence: u64,
    },
    /// A frame arrives.
    Frame {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// The process notices that it can't reach a store.
    Unreachable {
        node: usize,
        incarnation: u64,
        store: StoreId,
    },
    /// A request arrives at a store.
    Request {
        node: usize,
        caller: Caller,
        token: u64,
        request: Request,
    },
    /// A local read goes on.
    Validate {
        node: usize,
        incarnation: u64,
        token: u64,
        request: Request,
    },
    /// A response arrives at whoever asked.
    Response {
        caller: Caller,
        token: u64,
        response: Response,
    },
    /// A client has thought, waited, or wants to know whether its time is up.
    Client { client: usize, wake: u64 },
    /// A client's attempt may be lost.
    Timer { client: usize },
    /// A client with a connection has thought or waited.
    Connection { connection: usize, wake: u64 },
    /// A session's timer goes off.
    Doorbell {
        node: usize,
        connection: usize,
        generation: u64,
    },
    /// Requests on a stream between stores arrive.
    Stream { from: usize, to: usize, stream: u64 },
    /// A store looks at what has changed.
    Look { node: usize, incarnation: u64 },
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
    /// Syncs that no round waited for.
    pub syncs_later: u64,
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
    /// Merges that were acknowledged.
    pub merges: u64,
    /// Ranges absorbed, counted on each store.
    pub absorbed: u64,
    /// Transfers that were acknowledged.
    pub transfers: u64,
    /// Membership changes that were acknowledged.
    pub member_changes: u64,
    /// Snapshots delivered.
    pub snapshots: u64,
    /// Leaders that quiesced their groups.
    pub quiesced: u64,
    /// Quiesced replicas that woke.
    pub woken: u64,
    /// Walks over all ranges that were completed.
    pub walks: u64,
    /// Transactions that were executed.
    pub transactions: u64,
    /// Transactions with a token that were sent again, and were known.
    pub repeated: u64,
    /// Heartbeats answered by the placement driver.
    pub heartbeats: u64,
    /// Its orders, as they were given to replicas.
    pub orders: u64,
}

/// See the module's documentation.
pub struct Cluster {
    pub(crate) seed: u64,
    /// Whether connections use transactions.
    pub(crate) transacts: bool,
    pub(crate) faults: Faults,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) checks: Checks,
    pub(crate) clients: Vec<Client>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) streams: Streams,
    pub(crate) door_config: DoorConfig,
    /// How many of the keys that stay were asked for, and since which position they are there.
    pub(crate) kept: usize,
    pub(crate) kept_at: BTreeMap<Bytes, u64>,
    /// Keys that may exist.
    pub(crate) walk_names: BTreeSet<Bytes>,
    pub(crate) workload: Workload,
    pub(crate) admin: Admin,
    /// Ids that range 1 has given out.
    pub(crate) ids_given: BTreeSet<u64>,
    /// The store that is to be emptied.
    pub(crate) draining: Option<StoreId>,
    /// Admin requests on their way, by token, and what they are.
    pub(crate) admin_open: BTreeMap<u64, crate::nemesis::Trouble>,
    pub(crate) history: History,
    pub(crate) transfers: Transfers,
    /// Requests that a node has received and not answered.
    pub(crate) open_requests: Vec<BTreeMap<u64, (Caller, bool)>>,
    pub(crate) rng: SmallRng,
    /// Faults are over.
    pub(crate) healed: bool,
    /// Clients begin no operation before, unless all is healed.
    pub(crate) lull_until: Time,
    /// Clients start no more operations.
    pub(crate) clients_stopped: bool,
    pub(crate) tuning: Tuning,
    /// When commands through front doors were answered, and how long they had taken, if that is
    /// measured; then none may fail.
    pub(crate) waits: Option<Vec<(Time, Time)>>,
    /// Counts.
    pub counts: Counts,
    pub(crate) position: u64,
    pub(crate) next_token: u64,
    hash: Fnv,
    trace: bool,
    pub(crate) changed: Vec<Changed>,
    /// Heartbeats that have arrived and are to be answered: node, token, and what it says.
    pub(crate) heartbeats_due: Vec<(usize, u64, Bytes)>,
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
        Cluster::with_workload(seed, faults, Workload::draw(seed), trace)
    }

    /// The same with other clients than the seed draws.
    pub fn with_workload(
        seed: u64,
        faults: Faults,
        workload: Workload,
        trace: bool,
    ) -> Result<Cluster, String> {
        let mut rng = stream(seed, "cluster");
        let small = faults.small_logs;
        let tuning = Tuning {
            tick_ms: 100,
            election_ticks: 10,
            idle_ms: faults.idle / MS,
            log_keep_bytes: if small { 1 << 10 } else { 64 << 10 },
            log_max_bytes: if small { 4 << 10 } else { 1 << 20 },
            syncs_later: [0.0, 0.7, 1.0][rng.random_range(0..3)],
            segment_bytes: if small { 8 << 10 } else { 256 << 10 },
        };
        let clients = (0..workload.clients)
            .map(|n| Client::new(n as u32, stream_of(seed, "client", n as u64)))
            .collect();
        let connections = (0..workload.connections)
            .map(|n| {
                let number = workload.clients + n;
                Connection::new(number as u32, stream_of(seed, "connection", n as u64))
            })
            .collect();
        let walk_names = workload.keys.iter().flat_map(|key| key.names());
        let door_config = DoorConfig {
            deadline_ms: rng.random_range(700..4_000),
            ..DoorConfig::default()
        };
        let mut cluster = Cluster {
            seed,
            transacts: crate::transactions::used(seed),
            walk_names: walk_names.collect(),
            kept: 0,
            kept_at: BTreeMap::new(),
            connections,
            streams: Streams::default(),
            door_config,
            schedule: Schedule::default(),
            nodes: Vec::new(),
            net: Net::new(seed, 0, &faults),
            checks: Checks::default(),
            clients,
            workload,
            admin: Admin::new(stream(seed, "admin"), FIRST_ALLOCATED_ID),
            ids_given: BTreeSet::new(),
            draining: None,
            admin_open: BTreeMap::new(),
            history: History::default(),
            transfers: Transfers::default(),
            open_requests: Vec::new(),
            healed: false,
            lull_until: 0,
            clients_stopped: false,
            tuning,
            waits: None,
            counts: Counts::default(),
            position: 0,
            next_token: 0,
            hash: Fnv::default(),
            trace,
            changed: Vec::new(),
            heartbeats_due: Vec::new(),
            rng: stream(seed, "happenings"),
            faults,
        };
        for _ in 0..cluster.faults.stores {
            cluster.add_node();
        }
        cluster.bootstrap(&mut rng)?;
        if cluster.has_placement() {
            cluster.begin_placement();
        }
        cluster.begin_trouble();
        for client in 0..cluster.clients.len() {
            let pause = rng.random_range(0..500 * MS);
            cluster.wake(client, pause);
        }
        for connection in 0..cluster.connections.len() {
            let pause = rng.random_range(0..500 * MS);
            cluster.wake_connection(connection, pause);
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
        self.nodes.push(Node::new(
            self.seed,
            store,
            clock,
            self.faults.sync_mean,
            self.tuning,
            self.door_config,
        ));
        self.note_clocks();
        self.net.add_node();
        self.checks.add_node();
        self.open_requests.push(BTreeMap::new());
        n
    }

    /// Wall clocks are no longer as they were.
    pub(crate) fn note_clocks(&mut self) {
        let offsets = self.nodes.iter().map(|n| n.clock.wall_offset_ms());
        self.history.clocks.note(self.schedule.now(), offsets);
    }

    /// Starts all stores and gives them their first ranges.
    fn bootstrap(&mut self, rng: &mut SmallRng) -> Result<(), String> {
        let members: Vec<Member> = (0..self.nodes.len())
            .map(|n| Member {
                name: format!("n{n}"),
                grpc_address: format!("n{n}:1"),
            })
            .collect();
        let factor = if self.nodes.len() == 5 && rng.random_bool(0.4) {
            5
        } else {
            3
        };
        let plan = Bootstrap::plan(
            &members,
            rng.random_range(1..6),
            ReplicationFactor::Fixed(factor),
        )
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
            for (node, token, heartbeat) in std::mem::take(&mut self.heartbeats_due) {
                if self.nodes[node].process.is_some() {
                    self.heartbeat(node, token, heartbeat)?;
                }
            }
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
            Event::SyncedLater {
                node,
                incarnation,
                sequence,
            } => self.synced_later(node, incarnation, sequence),
            Event::Frame { from, to, bytes } => {
                let store = self.nodes[from].store;
                self.note(2, to, bytes.len() as u64);
                if self.is_traced() {
                    self.trace_frame(from, to, &bytes);
                }
                self.deliver(
                    to,
                    StoreEvent::Raft {
                        from: store,
                        envelopes: bytes,
                    },
                );
                Ok(())
            }
            Event::Unreachable {
                node,
                incarnation,
                store,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.deliver(node, StoreEvent::Unreachable(store));
                }
                Ok(())
            }
            Event::Request {
                node,
                caller,
                token,
                request,
            } => {
                self.request(node, caller, token, request);
                Ok(())
            }
            Event::Validate {
                node,
                incarnation,
                token,
                request,
            } => {
                self.validate(node, incarnation, token, request);
                Ok(())
            }
            Event::Response {
                caller,
                token,
                response,
            } => self.response(caller, token, response),
            Event::Client { client, wake } if self.clients[client].wake == wake => {
                self.client(client)
            }
            Event::Client { .. } => Ok(()),
            Event::Connection { connection, wake } if self.connections[connection].wake == wake => {
                self.connection(connection)
            }
            Event::Connection { .. } => Ok(()),
            Event::Doorbell {
                connection,
                generation,
                ..
            } => self.doorbell(connection, generation),
            Event::Stream { from, to, stream } => {
                self.turn(from, to, stream);
                Ok(())
            }
            Event::Look { node, incarnation } => {
                self.look(node, incarnation);
                Ok(())
            }
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
            self.print(format!(
                "  n{from} → n{to} r{} {}→{} {what}",
                e.range, e.from, e.to
            ));
        }
    }

    /// Ranges and leaders, as those stores say that take themselves for leaders.
    pub(crate) fn led(&self) -> Vec<Led> {
        let mut led: BTreeMap<rangekv_proto::RangeId, Led> = BTreeMap::new();
        for node in &self.nodes {
            let Some(process) = &node.process else {
                continue;
            };
            for (descriptor, leader) in process.shared().routes() {
                let Some(hint) = leader.filter(|hint| hint.store == node.store) else {
                    continue;
                };
                let entry = led
                    .entry(descriptor.id)
                    .or_insert_with(|| (descriptor.clone(), hint));
                if hint.term > entry.1.term {
                    *entry = (descriptor, hint);
                }
            }
        }
        led.into_values().collect()
    }

    /// Stores that are not lost for ever.
    pub(crate) fn lasting_stores(&self) -> Vec<StoreId> {
        self.nodes
            .iter()
            .filter(|n| !n.wiped)
            .map(|n| n.store)
            .collect()
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
        | Event::SyncedLater { node, .. }
        | Event::Unreachable { node, .. }
        | Event::Request { node, .. }
        | Event::Validate { node, .. }
        | Event::Doorbell { node, .. }
        | Event::Look { node, .. } => Some(*node),
        Event::Response {
            caller: Caller::Door(call),
            ..
        } => Some(call.node),
        Event::Frame { to, .. } | Event::Stream { to, .. } => Some(*to),
        _ => None,
    }
}
