//! A store's front door: the product's own sessions, and how their requests leave the store.
//!
//! A session is driven as `router/src/server.rs` drives it: inputs, one pump, then what it wants
//! sent and what it answers. Requests to the own store go into its mailbox, those to others onto
//! the stream between the two ([`crate::streams`]).

use crate::cluster::{trace, Caller, Cluster, Event};
use crate::placement::NO_CONNECTION;
use crate::schedule::{Time, MS};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rangekv_proto::{
    EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplySink, Request, Response, StoreId,
};
use rangekv_router::cache::SharedCache;
use rangekv_router::session::{Config, Door, HangUp, Node, Session};
use rangekv_router::stores::Stores;
use rangekv_store::event::Now;
use rangekv_store::reader::LocalReader;
use rangekv_store::shared::StoreShared;
use std::sync::Arc;

/// How often a store looks for changes of routes, and whether somebody misses one.
const LOOK: Time = 50 * MS;

/// One request of a session on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoorCall {
    /// The store at whose door it was asked.
    pub node: usize,
    /// The connection, and which of its lives.
    pub connection: usize,
    pub generation: u64,
    /// The session's own name for it.
    pub token: u64,
    /// The store that was asked.
    pub at: usize,
    /// The stream that carries it; 0 = none, it was asked at home.
    pub stream: u64,
}

/// What sessions of a store reach stores through.
pub struct Gateway {
    me: StoreId,
    reader: LocalReader,
    shared: Arc<StoreShared>,
    /// What happened in one drive of a session, and when it is.
    state: Mutex<GatewayState>,
}

#[derive(Default)]
struct GatewayState {
    now: Now,
    sent: Vec<(StoreId, Request, u64)>,
    route_wanted: bool,
    local_reads: u64,
}

impl Stores for Gateway {
    fn local(&self) -> StoreId {
        self.me
    }

    fn send(&self, store: StoreId, request: Request, _: &Arc<dyn ReplySink>, token: u64) {
        self.state.lock().sent.push((store, request, token));
    }

    fn read_local(
        &self,
        range: RangeId,
        version: u64,
        evaluator: EvaluatorId,
        command: &Bytes,
    ) -> Option<Bytes> {
        let now = self.state.lock().now;
        let read = self.reader.begin(range, version, evaluator, command, now)?;
        let reply = read.validate(now)?;
        self.state.lock().local_reads += 1;
        Some(reply)
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        self.shared.routes()
    }

    fn want_route(&self, _key: &[u8]) {
        self.state.lock().route_wanted = true;
    }
}

/// Says nothing: no reply that is judged depends on it.
struct Nobody;

impl Node for Nobody {
    fn unix_micros(&self) -> u64 {
        0
    }
    fn info(&self, _: &str, _: &mut Vec<(String, String)>) {}
}

impl ReplySink for Nobody {
    fn complete(&self, _: u64, _: Response) {
        unreachable!("responses are handed to the session by the simulation");
    }
}

impl HangUp for Nobody {
    fn hang_up(&self) {}
    fn finish(&self) {}
    fn wake(&self) {}
}

/// The front door of one process.
pub struct Front {
    door: Arc<Door>,
    /// Where ranges are, as this process knows.
    pub cache: Arc<SharedCache>,
    gateway: Arc<Gateway>,
    routes_generation: Option<u64>,
}

impl Front {
    /// The door of a process that has just begun.
    pub fn new(me: StoreId, reader: LocalReader, shared: Arc<StoreShared>, config: Config) -> Self {
        let cache = Arc::new(SharedCache::new());
        Front {
            door: Arc::new(Door::new(config, cache.clone(), Arc::new(Nobody))),
            cache,
            gateway: Arc::new(Gateway {
                me,
                reader,
                shared,
                state: Mutex::default(),
            }),
            routes_generation: None,
        }
    }

    /// A session for a new connection.
    pub fn open(&self, now: Now, seed: u64) -> Session {
        let now_ms = now.mono_ns / MS;
        let clients = &self.door.clients;
        let client = clients
            .open(
                "client".into(),
                "door".into(),
                Arc::new(Nobody),
                now_ms,
                usize::MAX,
            )
            .expect("without a limit");
        Session::new(self.door.clone(), client, Arc::new(Nobody), seed)
    }
}

impl Cluster {
    /// Hands an input to a session, and does what comes of it.
    pub(crate) fn drive(
        &mut self,
        connection: usize,
        input: impl FnOnce(&mut Session, u64, &dyn Stores),
    ) -> Result<(), String> {
        let now = self.schedule.now();
        let c = &mut self.connections[connection];
        let (node, generation) = (c.node, c.generation);
        let Some(session) = c.session.as_mut() else {
            return Ok(());
        };
        let clock = self.nodes[node].now(now);
        let gateway = self.nodes[node].process().front.gateway.clone();
        let now_ms = clock.mono_ns / MS;
        gateway.state.lock().now = clock;
        input(session, now_ms, &*gateway);
        session.pump(now_ms, &*gateway);
        let replies = session.replies().split().freeze();
        let timer = session.next_timer();
        let state = std::mem::take(&mut *gateway.state.lock());
        self.counts.local_reads += state.local_reads;
        if state.route_wanted {
            self.nodes[node].process().route_wanted = true;
        }
        if let Some(at_ms) = timer {
            // The timer may go off early, never late; what is due at once has its turn soon.
            let due = self.nodes[node].clock.when(at_ms * MS);
            let at = due.max(now + self.rng.random_range(1_000..20_000));
            let c = &mut self.connections[connection];
            if c.timer_at.is_none_or(|armed| at < armed) {
                c.timer_at = Some(at);
                self.schedule.at(
                    at,
                    Event::Doorbell {
                        node,
                        connection,
                        generation,
                    },
                );
            }
        }
        for (store, request, token) in state.sent {
            self.send_for_session(connection, store, request, token);
        }
        self.hear(connection, &replies)
    }

    /// A session's timer went off.
    pub(crate) fn doorbell(&mut self, connection: usize, generation: u64) -> Result<(), String> {
        let now = self.schedule.now();
        let c = &mut self.connections[connection];
        if c.generation != generation || c.timer_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        c.timer_at = None;
        self.drive(connection, |session, now_ms, stores| {
            session.on_timer(now_ms, stores);
        })
    }

    fn send_for_session(&mut self, connection: usize, store: StoreId, request: Request, own: u64) {
        let c = &self.connections[connection];
        let call = DoorCall {
            node: c.node,
            connection,
            generation: c.generation,
            token: own,
            at: c.node,
            stream: 0,
        };
        trace!(
            self,
            "connection {connection} at n{} asks s{store} ({own}) range {} version {} term {}",
            call.node,
            request.range,
            request.version,
            request.term
        );
        self.send_from(call, store, request);
    }

    /// Sends a store's request to a store: into its own mailbox, or onto a stream.
    pub(crate) fn send_from(&mut self, mut call: DoorCall, store: StoreId, request: Request) {
        if store == self.nodes[call.node].store {
            let token = self.token();
            return self.arrive(call.node, Caller::Door(call), token, request);
        }
        match self.node_of(store) {
            Some(at) => {
                call.at = at;
                self.send_on_stream(call, request);
            }
            None => self.answer_soon(
                call,
                Err(rangekv_proto::RequestError::Unavailable(format!(
                    "the address of store {store} is unknown"
                ))),
            ),
        }
    }

    /// The answer to a session's request that no store gave.
    pub(crate) fn answer_soon(&mut self, mut call: DoorCall, response: Response) {
        call.stream = 0;
        let delay = self.rng.random_range(1_000..MS);
        self.schedule.after(
            delay,
            Event::Response {
                caller: Caller::Door(call),
                token: 0,
                response,
            },
        );
    }

    /// A session hears an answer.
    pub(crate) fn answered(&mut self, call: DoorCall, response: Response) -> Result<(), String> {
        if call.connection == NO_CONNECTION {
            return self.placement_hears(call, response);
        }
        let c = &self.connections[call.connection];
        if c.generation != call.generation {
            return Ok(());
        }
        trace!(
            self,
            "connection {} hears ({}) {response:?}",
            call.connection,
            call.token
        );
        self.drive(call.connection, |session, now_ms, stores| {
            session.on_response(call.token, response, now_ms, stores);
        })
    }

    /// A store looks at what has changed: its own routes, and those that somebody misses.
    pub(crate) fn look(&mut self, node: usize, incarnation: u64) {
        let Some(process) = self.running(node, incarnation) else {
            return;
        };
        let front = &mut process.front;
        let generation = front.gateway.shared.routes_generation();
        let changed = front.routes_generation != Some(generation);
        if changed {
            front.routes_generation = Some(generation);
            front.cache.apply_routes(front.gateway.shared.routes());
        }
        let wanted = std::mem::take(&mut process.route_wanted);
        if self.has_placement() {
            if wanted || changed {
                self.nodes[node].process().placement.changed();
            }
            self.look_at_placement(node);
        } else if wanted {
            self.fetch_routes(node);
        }
        self.schedule.after(LOOK, Event::Look { node, incarnation });
    }

    /// Asks the stores that can be reached what they know.
    fn fetch_routes(&mut self, node: usize) {
        let now = self.schedule.now();
        for other in 0..self.nodes.len() {
            let reached = self.net.is_open(node, other) && self.net.is_open(other, node);
            let routes = match &self.nodes[other].process {
                Some(process) if reached && process.paused_until <= now => {
                    process.shared().routes()
                }
                _ => continue,
            };
            self.nodes[node].process().front.cache.apply_routes(routes);
        }
    }
}
