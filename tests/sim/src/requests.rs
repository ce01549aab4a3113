//! Requests and responses on their way, and the clients at one end of them.

use crate::client::{Ended, Step};
use crate::cluster::{trace, Caller, Cluster, Event};
use crate::history::{Op, Outcome, Reply};
use crate::random::{exponential, Fnv};
use crate::schedule::{Time, MS};
use rand::Rng;
use rangekv_proto::{Body, Request, RequestError, Response, StoreId};

/// Whether a request has no effect.
pub(crate) fn is_read_only(request: &Request) -> bool {
    matches!(
        request.body,
        Body::Command {
            read_only: true,
            ..
        } | Body::Heartbeat(_)
            | Body::PubSub(_)
    )
}

impl Cluster {
    pub(crate) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Sends a request towards a store.
    pub(crate) fn send_request(
        &mut self,
        store: StoreId,
        caller: Caller,
        token: u64,
        request: Request,
    ) {
        let Some(node) = self.node_of(store) else {
            return;
        };
        if self.rng.random_bool(self.client_loss()) {
            return;
        }
        let delay = 20_000 + exponential(&mut self.rng, 200_000);
        self.schedule.after(
            delay,
            Event::Request {
                node,
                caller,
                token,
                request,
            },
        );
    }

    pub(crate) fn client_loss(&self) -> f64 {
        if self.healed {
            0.0
        } else {
            self.faults.client_loss
        }
    }

    pub(crate) fn request(&mut self, node: usize, caller: Caller, token: u64, request: Request) {
        let clock = self.nodes[node].now(self.schedule.now());
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = self.nodes[node].process.as_mut() else {
            let response = Err(RequestError::Unavailable("connection refused".into()));
            let delay = self.rng.random_range(50_000..MS);
            self.schedule.after(
                delay,
                Event::Response {
                    caller,
                    token,
                    response,
                },
            );
            return;
        };
        let read_only = is_read_only(&request);
        self.open_requests[node].insert(token, (caller, read_only));
        if read_only && self.rng.random_bool(0.8) && process.begin_read(clock, token, &request) {
            let delay = match self.rng.random_range(0..100) {
                _ if !self.healed && self.rng.random_bool(self.faults.slow_reader) => {
                    exponential(&mut self.rng, 300 * MS)
                }
                0..10 => self.rng.random_range(100_000..20 * MS),
                _ => self.rng.random_range(500..20_000),
            };
            self.schedule.after(
                delay,
                Event::Validate {
                    node,
                    incarnation,
                    token,
                    request,
                },
            );
            return;
        }
        process.request(request, token);
        self.arm(node);
    }

    pub(crate) fn validate(&mut self, node: usize, incarnation: u64, token: u64, request: Request) {
        let clock = self.nodes[node].now(self.schedule.now());
        let Some(process) = self.running(node, incarnation) else {
            return;
        };
        match process.validate_read(clock, token) {
            Some(reply) => {
                self.counts.local_reads += 1;
                // The sink was never given this token; the response goes the same way.
                self.respond(node, token, Ok(reply))
                    .expect("the request is open");
            }
            None => {
                process.request(request, token);
                self.counts.invalid_reads += 1;
                self.arm(node);
            }
        }
    }

    /// A store's request is in a store's mailbox.
    pub(crate) fn arrive(&mut self, node: usize, caller: Caller, token: u64, request: Request) {
        let read_only = is_read_only(&request);
        self.open_requests[node].insert(token, (caller, read_only));
        if let Body::Heartbeat(heartbeat) = request.body {
            self.heartbeats_due.push((node, token, heartbeat));
            return;
        }
        self.nodes[node].process().request(request, token);
        self.arm(node);
    }

    /// A store has answered.
    pub(crate) fn respond(
        &mut self,
        node: usize,
        token: u64,
        response: Response,
    ) -> Result<(), String> {
        let Some((caller, _)) = self.open_requests[node].remove(&token) else {
            return Err(format!(
                "node {node} answered request {token} twice, or without being asked: {response:?}"
            ));
        };
        if let Caller::Order(of, incarnation) = caller {
            // It is the worker's, to another thread of its own process.
            if self.running(of, incarnation).is_some() && !self.state_read(of, token, &response)? {
                self.order_answered(of, token, response);
            }
            return Ok(());
        }
        if let Caller::Door(call) = caller {
            let delay = match call.stream {
                0 => self.rng.random_range(500..20_000),
                _ => 20_000 + exponential(&mut self.rng, 200_000),
            };
            self.schedule.after(
                delay,
                Event::Response {
                    caller,
                    token,
                    response,
                },
            );
            return Ok(());
        }
        if self.rng.random_bool(self.client_loss()) {
            return Ok(());
        }
        let delay = 20_000 + exponential(&mut self.rng, 200_000);
        self.schedule.after(
            delay,
            Event::Response {
                caller,
                token,
                response,
            },
        );
        Ok(())
    }

    pub(crate) fn response(
        &mut self,
        caller: Caller,
        token: u64,
        response: Response,
    ) -> Result<(), String> {
        let now = self.schedule.now();
        if let Caller::Door(call) = caller {
            match self.comes_back(call, token) {
                Some(true) => {}
                Some(false) => return Ok(()),
                None => {
                    let again = self.rng.random_range(10 * MS..400 * MS);
                    self.schedule.after(
                        again,
                        Event::Response {
                            caller,
                            token,
                            response,
                        },
                    );
                    return Ok(());
                }
            }
        }
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
            Caller::Door(call) => self.answered(call, response),
            Caller::Order(..) => unreachable!("answered at once"),
        }
    }

    /// A client begins an operation, or goes on with one.
    pub(crate) fn client(&mut self, client: usize) -> Result<(), String> {
        let now = self.schedule.now();
        if self.clients[client].busy.is_none() {
            if self.clients_stopped {
                return Ok(());
            }
            let number = self.clients[client].number;
            let (key, op) = self.workload.next(self.clients[client].rng(), number);
            self.replace_spent(key);
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

    /// Sees to it that what has a long or doubtful history is left alone from now on.
    pub(crate) fn replace_spent(&mut self, key: usize) {
        if self.history.is_spent(&self.workload.keys[key].name) {
            let fresh = self.workload.replace(key).names();
            self.walk_names.extend(fresh);
        }
    }

    pub(crate) fn begin_operation(&mut self, client: usize, key: usize, op: Op) {
        let now = self.schedule.now();
        let key = &self.workload.keys[key];
        let (name, record) = (key.name.clone(), key.record.clone());
        let number = self.clients[client].number;
        self.position += 1;
        let id = self
            .history
            .begin(number, &name, op.clone(), self.position, now);
        trace!(
            self,
            "client {client} begins {op:?} {}",
            name.escape_ascii()
        );
        self.clients[client].start(now, id, &name, record, &op);
    }

    pub(crate) fn knows_route(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client
            .busy
            .as_ref()
            .is_some_and(|op| client.routes.lookup(&op.record).is_some())
    }

    /// A client asks a random store what it knows of routes.
    pub(crate) fn refresh_routes(&mut self, client: usize) {
        let node = self.rng.random_range(0..self.nodes.len());
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        if process.paused_until > self.schedule.now() {
            return;
        }
        for (descriptor, leader) in process.shared().routes() {
            self.clients[client].routes.apply(descriptor, leader);
        }
    }

    pub(crate) fn step(&mut self, client: usize, step: Step) -> Result<(), String> {
        match step {
            Step::Send {
                store,
                request,
                token,
                timer,
            } => {
                trace!(
                    self,
                    "client {client} asks s{store} ({token}) range {} version {}",
                    request.range,
                    request.version
                );
                self.schedule.at(timer, Event::Timer { client });
                self.send_request(store, Caller::Client(client), token, request);
            }
            Step::Wait(until) => self.wake(client, until),
            Step::End(id, ended) => {
                self.position += 1;
                trace!(
                    self,
                    "client {client} ends {:?}: {ended:?}",
                    self.history.record(&id).op
                );
                let outcome = match ended {
                    Ended::Replied(reply) => Outcome::Replied {
                        at: self.position,
                        reply,
                    },
                    Ended::Unknown => Outcome::Unknown,
                    Ended::NotExecuted => Outcome::NotExecuted,
                    Ended::Wrong(why) => {
                        return Err(format!(
                            "client {client}, {:?}: {why}",
                            self.history.record(&id).op
                        ));
                    }
                };
                if let Outcome::Replied { reply, .. } = &outcome {
                    let record = self.history.record(&id);
                    let is_item = matches!(record.op, Op::Item(_));
                    self.counts.repeated += u64::from(is_item && *reply == Reply::Any);
                    if let Some(count) = crate::items::shown(&record.op, reply) {
                        let name = id.key().clone();
                        self.workload.saw(record.client, name, count);
                    }
                }
                if outcome != Outcome::Unknown {
                    self.history.end(&id, outcome, self.schedule.now());
                }
                let pause = exponential(&mut self.rng, self.workload.think_mean);
                let next = self.schedule.now() + pause;
                let lull = if self.healed { 0 } else { self.lull_until };
                self.wake(client, next.max(lull + pause));
            }
        }
        Ok(())
    }
}
