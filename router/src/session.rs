//! One Redis connection without its socket: commands in, replies out, in order.
//!
//! Inputs are parsed commands, responses of stores and the time; effects go through
//! `&dyn Stores` and a buffer of replies. After a batch of inputs the driver calls
//! [`pump`](Session::pump) once.
//!
//! Invariants:
//! - Each command has exactly one reply (none under `CLIENT REPLY OFF` and `SKIP`), in the
//!   order of the commands, though they are evaluated in several ranges at once.
//! - A command sees all earlier ones of its connection, also when pipelined: keys meet in a
//!   lane of the [`Dispatcher`], and a read is served on this thread only if nothing is under
//!   way in its range.
//! - Commands start in order. One that may not start yet holds back those behind it.
//! - What is unanswered is bounded: see [`accepts_more`](Session::accepts_more).

mod clients;
mod cluster;
mod config;
mod connection;
mod gather;
mod info;
mod keyspace;
mod latency;
mod pause;
mod pubsub;
mod scan;
mod slots;
mod slowlog;
mod start;
mod tally;
mod traced;
mod transaction;
mod walk;

pub use clients::{Client, Clients, HangUp};
pub use cluster::{Errand, Metaraft};
pub use slots::{node_id, ClusterView, StoreView};

use crate::cache::SharedCache;
use crate::dispatch::{Call, CallId, Dispatcher, Outcome};
use crate::metrics::DoorMetrics;
use crate::pubsub::{Hub, Limit};
use crate::resp::Limits;
use crate::retry::{DoorError, Policy};
use crate::stores::Stores;
use crate::trace::{Sampler, Tracer};
use bytes::{Bytes, BytesMut};
use clients::{ClientState, Holdings};
use config::Settings;
use gather::Gather;
use info::Since;
use latency::Latency;
use parking_lot::Mutex;
use pause::Pause;
use pubsub::{Asking, Subscriptions};
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::spec::{self, Spec};
use rangekv_model::redis::{records, reply};
use rangekv_proto::{EvaluatorId, ReplySink};
use slowlog::SlowLog;
use start::Begun;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use tally::Tally;
use transaction::{Executed, Taken, Transaction};
use walk::{Step, Walk};

/// Figures of a Redis door.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a command may go without an answer. A walk has as long for each page.
    pub deadline_ms: u64,
    /// Unanswered commands of one connection; it reads no more beyond.
    pub window_commands: usize,
    /// Bytes of the arguments of unanswered commands of one connection.
    pub window_bytes: usize,
    /// Bytes of replies that wait for a slow client before nothing more is read from it.
    pub replies_bytes: usize,
    /// Bytes of one reply of `KEYS`.
    pub keys_reply_bytes_max: usize,
    /// Connections at a time.
    pub clients_max: usize,
    /// How much may wait for a subscriber.
    pub messages_limit: Limit,
    /// How long other nodes have to answer a `PUBLISH`.
    pub others_ms: u64,
    /// What a client may send.
    pub limits: Limits,
    /// What errors mean.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            deadline_ms: 5_000,
            window_commands: 1024,
            window_bytes: 16 << 20,
            replies_bytes: 16 << 20,
            keys_reply_bytes_max: 256 << 20,
            clients_max: 10_000,
            messages_limit: Limit::default(),
            others_ms: 1_000,
            limits: Limits::default(),
            policy: Policy::default(),
        }
    }
}

/// What the door asks of the process that it is part of.
pub trait Node: Send + Sync {
    /// Microseconds since the Unix epoch, for `TIME`.
    fn unix_micros(&self) -> u64;

    /// Appends what the node knows of a section of `INFO`: `server`, `memory`, `stats`,
    /// `replication`, `cluster`, `keyspace` or one of its own. Nothing but what is true.
    fn info(&self, section: &str, lines: &mut Vec<(String, String)>);

    /// The cluster's stores, as `CLUSTER` tells of them. Never waits for anybody.
    fn cluster(&self) -> ClusterView {
        ClusterView::default()
    }

    /// Does what takes more than this door: the reply at once, or in time to `sink`, once, as
    /// the response to `token`.
    fn run(&self, errand: Errand, sink: Arc<dyn ReplySink>, token: u64) -> Option<Bytes> {
        let (_, _, _) = (errand, sink, token);
        Some(reply::error("ERR this process is no part of a cluster"))
    }
}

/// What all connections of a Redis door share.
pub struct Door {
    /// Figures.
    pub config: Config,
    /// Where ranges are.
    pub cache: Arc<SharedCache>,
    /// The process.
    pub node: Arc<dyn Node>,
    /// Who is connected.
    pub clients: Clients,
    /// What is counted.
    pub metrics: DoorMetrics,
    /// Who is subscribed to what. A process has one, though it were to have several doors.
    pub pubsub: Arc<Hub>,
    /// What `CONFIG SET` changes.
    pub settings: Settings,
    /// Who is told of requests that are traced; `None` = none is.
    pub tracer: Option<Arc<dyn Tracer>>,
    slow: SlowLog,
    latency: Latency,
    pause: Pause,
    since: Mutex<Since>,
    commands: AtomicU64,
}

impl Door {
    /// A door without connections.
    pub fn new(config: Config, cache: Arc<SharedCache>, node: Arc<dyn Node>) -> Self {
        Door {
            config,
            cache,
            node,
            clients: Clients::default(),
            metrics: tally::metrics(),
            pubsub: Arc::default(),
            settings: Settings::new(&config),
            tracer: None,
            slow: SlowLog::default(),
            latency: Latency::default(),
            pause: Pause::default(),
            since: Mutex::default(),
            commands: AtomicU64::new(0),
        }
    }

    /// `CONFIG RESETSTAT`: what `INFO` counts begins anew.
    fn reset_stats(&self) {
        *self.since.lock() = Since {
            commands: self.commands(),
            accepted: self.clients.accepted(),
            refused: self.clients.refused(),
            figures: self.metrics.figures(),
        };
    }

    /// Commands processed by all connections so far.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

/// A command whose reply is owed.
struct Slot {
    context: Context,
    began_us: u64,
    deadline_ms: u64,
    bytes: usize,
    state: State,
}

/// What a command was typed under.
#[derive(Clone, Copy)]
struct Context {
    db: u8,
    protocol: Protocol,
    muted: bool,
}

enum State {
    /// Not started.
    Waiting {
        spec: &'static Spec,
        args: Vec<Bytes>,
    },
    /// Sent to one range as it is.
    Single {
        spec: &'static Spec,
        args: Vec<Bytes>,
    },
    /// Sent in parts.
    Gather(Box<Gather>),
    /// Walking.
    Walk(Box<Walk>),
    /// A range has answered, and the reply is to be made of that at the front of the queue.
    Answered {
        spec: &'static Spec,
        args: Vec<Bytes>,
        reply: Bytes,
    },
    /// Waits for what other nodes say.
    Others(Box<Asking>),
    /// A transaction that was executed, and waits for what other nodes say.
    Executed(Box<Executed>),
    /// The node is doing it.
    Errand,
    /// Answered; waits for the replies before it.
    Done(Bytes),
}

/// Pages of a walk that are taken on this thread before other connections get a turn.
const PAGES_PER_TURN: u32 = 4;

/// Set in the tokens of errands.
const ERRAND: u64 = 1 << 63;
/// Set in the tokens of questions to other nodes; those of calls count from 1 and never get there.
const ASKED: u64 = 1 << 62;
/// Below its kind a token of either has the place of the command in its transaction, of which
/// there are fewer than 2^18, and the end of the number of the command, of which fewer than 2^44
/// are unanswered.
const NUMBER_BITS: u32 = 44;
const PLACE_BITS: u32 = 18;

/// See the module documentation.
pub struct Session {
    door: Arc<Door>,
    client: Arc<Client>,
    state: ClientState,
    transaction: Transaction,
    calls: Dispatcher,
    /// Where responses go.
    sink: Arc<dyn ReplySink>,
    /// A key of the last write that was started: what `WAIT` is about.
    last_write: Option<Bytes>,
    /// While it is there, somebody waits for what `WAIT` answers.
    waiter: Option<Arc<()>>,
    /// When the last command was answered, if that was at once and in this turn.
    lap_us: Option<u64>,
    queue: VecDeque<Slot>,
    /// Number of the command at the front of the queue.
    first: u64,
    /// Numbers of commands not started, in order.
    waiting: VecDeque<u64>,
    /// Number of the walk, errand or `SORT` by other keys under way: nothing else is started.
    walking: Option<u64>,
    /// The walk has a page to ask for.
    page_due: bool,
    /// A pause by which what waits is held, until then.
    held_until_ms: Option<u64>,
    /// `SORT`s that have records to ask for.
    fetching: Vec<u64>,
    held_bytes: usize,
    out: BytesMut,
    outcomes: Vec<Outcome>,
    seed: u64,
    /// What it is subscribed to, and what it asks of other nodes.
    pubsub: Subscriptions,
    tally: Tally,
    sampler: Sampler,
    closing: bool,
}

impl Session {
    /// The session of a new connection. Responses of stores go to `sink`, and come back through
    /// [`on_response`](Self::on_response); `seed` decides what `RANDOMKEY` finds.
    pub fn new(door: Arc<Door>, client: Arc<Client>, sink: Arc<dyn ReplySink>, seed: u64) -> Self {
        let calls = Dispatcher::new(door.cache.clone(), sink.clone(), door.config.policy);
        let sampler = match &door.tracer {
            Some(tracer) => Sampler::new(tracer.share(), tracer.seed()),
            None => Sampler::off(),
        };
        Session {
            pubsub: Subscriptions::new(door.pubsub.clone(), client.id),
            sink,
            last_write: None,
            waiter: None,
            lap_us: None,
            door,
            tally: Tally::new(client.id),
            sampler,
            client,
            state: ClientState::default(),
            transaction: Transaction::default(),
            calls,
            queue: VecDeque::new(),
            first: 0,
            waiting: VecDeque::new(),
            walking: None,
            page_due: false,
            held_until_ms: None,
            fetching: Vec::new(),
            held_bytes: 0,
            out: BytesMut::new(),
            outcomes: Vec::new(),
            seed: seed | 1,
            closing: false,
        }
    }

    /// Whether another command may be handed to [`execute`](Self::execute): if not, the driver
    /// stops reading until replies have gone out.
    pub fn accepts_more(&self) -> bool {
        let config = &self.door.config;
        self.queue.len() < config.window_commands
            && self.held_bytes < config.window_bytes
            && self.out.len() < config.replies_bytes
            && self.transaction.admits()
            && !self.closing
            && !self.holds_back()
    }

    /// Replies that are ready. The driver takes from the front what it has written.
    pub fn replies(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether the connection is to be closed once [`replies`](Self::replies) are written.
    pub fn is_finished(&self) -> bool {
        self.closing && self.queue.is_empty()
    }

    /// Whether no command is unanswered.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The stream is no RESP, or the process stops: nothing more is read.
    pub fn close(&mut self, error: Option<&str>) {
        if let Some(error) = error {
            let context = Context {
                muted: false,
                ..self.context()
            };
            self.push_reply(context, reply::error(error));
        }
        self.closing = true;
        self.waiter = None;
    }

    /// Takes in a command; `args` is not empty, and is left in no particular state.
    pub fn execute(&mut self, args: &mut Vec<Bytes>, now_ms: u64, stores: &dyn Stores) {
        if self.closing {
            return;
        }
        let context = self.context();
        self.state.skip_one = false;
        let found = spec::lookup(&args[0]);
        self.tally.command(found, &self.door.metrics);
        let mark = self.sampler.mark();
        if mark.is_some() {
            self.begin_trace(mark, found);
        }
        if let Some(reply) = self.queue(found, args) {
            return self.push_reply(context, reply);
        }
        let Some(mut spec) = found else {
            let reply = CommandError::unknown_command(args).to_reply();
            return self.push_reply(context, reply);
        };
        let began_us = self.start_lap();
        self.state.last_command = spec.name;
        self.state.last_subcommand.clear();
        if spec.flags.contains(spec::Flags::CONTAINER) {
            let sub = args.get(1).filter(|sub| is_word(sub));
            let sub = sub.map(|sub| String::from_utf8_lossy(sub).to_ascii_lowercase());
            self.state.last_subcommand = sub.unwrap_or_default();
        }
        if !spec.accepts(args.len()) {
            let error = CommandError::Arity(spec.name.to_owned());
            return self.push_reply(context, error.to_reply());
        }
        if let Some(reply) = self.in_subscriber_mode(spec, args) {
            return self.push_reply(context, reply);
        }
        if spec.group == spec::Group::Transactions {
            match self.transaction_command(spec, args, context) {
                Taken::Reply(reply) => return self.push_reply(context, reply),
                Taken::Send(sent_as) => spec = sent_as,
                Taken::Answered(reply) => {
                    let args = std::mem::take(args);
                    return self.push_slot(
                        context,
                        u64::MAX,
                        State::Answered { spec, args, reply },
                    );
                }
            }
        }
        let counts_keys = spec.name == "info" && keyspace::is_shown(args);
        if spec.route == spec::Route::Connection
            && spec.group != spec::Group::PubSub
            && !counts_keys
        {
            let reply = self.connection_command(spec, args, now_ms);
            self.end_lap(began_us, args);
            // What decides about replies decides about its own too.
            let decides = spec.name == "reset"
                || (spec.name == "client" && args[1].eq_ignore_ascii_case(b"reply"));
            let muted = match decides {
                true => self.state.muted || self.state.skip_one,
                false => context.muted,
            };
            return self.push_reply(Context { muted, ..context }, reply);
        }
        let deadline_ms = now_ms + self.door.config.deadline_ms;
        let number = self.first + self.queue.len() as u64;
        self.await_watch(spec, number);
        let begun = match self.waiting.is_empty() {
            true => self.begin(number, spec, args, context, deadline_ms, now_ms, stores),
            false => Begun::Blocked,
        };
        let state = match begun {
            Begun::Reply(reply) if transaction::is_finished_here(spec) => State::Answered {
                spec,
                args: std::mem::take(args),
                reply,
            },
            Begun::Reply(reply) => {
                self.end_lap(began_us, args);
                return self.push_reply(context, reply);
            }
            Begun::Single => State::Single {
                spec,
                args: std::mem::take(args),
            },
            Begun::Gather(gather) => State::Gather(gather),
            Begun::Walk(walk) => State::Walk(walk),
            Begun::Others(asking) => State::Others(asking),
            Begun::Errand => State::Errand,
            Begun::Blocked => {
                self.waiting.push_back(number);
                State::Waiting {
                    spec,
                    args: std::mem::take(args),
                }
            }
        };
        self.push_slot(context, deadline_ms, state);
    }

    fn push_slot(&mut self, context: Context, deadline_ms: u64, state: State) {
        let bytes = 64 + state.args_bytes();
        self.held_bytes += bytes;
        self.queue.push_back(Slot {
            context,
            began_us: self.tally.turn_us(),
            deadline_ms,
            bytes,
            state,
        });
    }

    /// Takes in a store's response.
    pub fn on_response(
        &mut self,
        token: u64,
        response: rangekv_proto::Response,
        now_ms: u64,
        stores: &dyn Stores,
    ) {
        if token & ERRAND != 0 {
            return self.on_errand(token, response);
        }
        if token & ASKED != 0 {
            return self.on_other(token, &response);
        }
        if let Some(outcome) = self.calls.on_response(token, response, now_ms, stores) {
            self.settle(outcome);
        }
    }

    /// Takes in that time has passed.
    pub fn on_timer(&mut self, now_ms: u64, stores: &dyn Stores) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.calls.on_timer(now_ms, stores, &mut outcomes);
        outcomes.drain(..).for_each(|outcome| self.settle(outcome));
        self.outcomes = outcomes;
        self.pubsub_timer(now_ms);
        // Behind a walk commands wait for as long as it gets on, in a pause for as long as it lasts.
        if self.walking.is_none() && self.held_until_ms.is_none() {
            let first = self.first;
            let queue = &mut self.queue;
            self.waiting.retain(|number| {
                let slot = &mut queue[(number - first) as usize];
                let expired = slot.deadline_ms <= now_ms;
                if expired {
                    let why = "an earlier request of this connection is still waiting";
                    slot.state = State::Done(door_error(&DoorError::Unavailable(why.into())));
                }
                !expired
            });
        }
    }

    /// When [`on_timer`](Self::on_timer) and [`pump`](Self::pump) are to be called at the latest.
    pub fn next_timer(&self) -> Option<u64> {
        if self.page_due || !self.fetching.is_empty() {
            return Some(0);
        }
        let waiting = match (self.walking, self.waiting.front()) {
            (None, Some(_)) if self.held_until_ms.is_some() => self.held_until_ms,
            (None, Some(number)) => Some(self.queue[(number - self.first) as usize].deadline_ms),
            _ => None,
        };
        let others = self.calls.next_timer();
        let timers = others.into_iter().chain(self.next_pubsub_timer());
        waiting.into_iter().chain(timers).min()
    }

    /// Starts what can be started, sends it, and moves finished replies to
    /// [`replies`](Self::replies). Called once after each batch of inputs.
    pub fn pump(&mut self, now_ms: u64, stores: &dyn Stores) {
        self.lap_us = None;
        let commands = self.tally.flush(&self.door.metrics);
        if commands > 0 {
            self.door.commands.fetch_add(commands, Ordering::Relaxed);
            self.client.update(&self.state, self.holdings(), now_ms);
        }
        if !self.queue.is_empty() {
            self.after_pause(now_ms);
            self.restart(now_ms, stores);
            if self.page_due {
                self.walk(now_ms, stores);
            }
            self.drain(now_ms, stores);
            while self.start_waiting(now_ms, stores) {
                self.drain(now_ms, stores);
            }
        }
        self.take_messages(now_ms);
        self.calls.flush(stores);
        if cfg!(debug_assertions) {
            self.calls.check_invariants();
        }
    }

    /// A turn of the driver's loop begins: inputs until [`end_turn`](Self::end_turn) are counted
    /// as of `now_us`, by any clock that does not go back.
    pub fn begin_turn(&mut self, now_us: u64) {
        self.tally.begin_turn(now_us);
        // What was published before a command was read precedes its reply.
        self.take_messages(now_us / 1000);
    }

    /// The turn is over: what it has answered is in [`replies`](Self::replies). The clock is
    /// asked only if something was.
    pub fn end_turn(&mut self, now_us: impl FnOnce() -> u64) {
        if self.tally.has_fresh() {
            self.tally.end_turn(now_us(), &self.door.metrics);
        }
    }

    /// Starts the first of the waiting commands; whether it did.
    fn start_waiting(&mut self, now_ms: u64, stores: &dyn Stores) -> bool {
        let Some(&number) = self.waiting.front() else {
            return false;
        };
        let slot = &mut self.queue[(number - self.first) as usize];
        let (context, deadline_ms) = (slot.context, slot.deadline_ms);
        let state = std::mem::replace(&mut slot.state, State::Done(Bytes::new()));
        let State::Waiting { spec, mut args } = state else {
            slot.state = state;
            self.waiting.pop_front();
            return true;
        };
        let begun = self.begin(
            number,
            spec,
            &mut args,
            context,
            deadline_ms,
            now_ms,
            stores,
        );
        let blocked = matches!(begun, Begun::Blocked);
        let state = match begun {
            Begun::Reply(reply) if transaction::is_finished_here(spec) => {
                State::Answered { spec, args, reply }
            }
            Begun::Reply(reply) => State::Done(reply),
            Begun::Single => State::Single { spec, args },
            Begun::Gather(gather) => State::Gather(gather),
            Begun::Walk(walk) => State::Walk(walk),
            Begun::Others(asking) => State::Others(asking),
            Begun::Errand => State::Errand,
            Begun::Blocked => State::Waiting { spec, args },
        };
        self.queue[(number - self.first) as usize].state = state;
        if !blocked {
            self.waiting.pop_front();
        }
        if self.walking == Some(number) {
            self.walk(now_ms, stores);
        }
        !blocked
    }

    /// Takes in how a call ended.
    fn settle(&mut self, outcome: Outcome) {
        let Outcome {
            id,
            result,
            range_end,
        } = outcome;
        let Some(index) = id.command.checked_sub(self.first) else {
            return;
        };
        let Some(slot) = self.queue.get_mut(index as usize) else {
            return;
        };
        let reply = match (&mut slot.state, result) {
            (State::Single { spec, args }, Ok(reply))
                if spec.is_sort() && records::names_other_ranges(args, &reply) =>
            {
                return self.fetch_for_sort(id.command);
            }
            (State::Single { spec, args }, Ok(reply)) if transaction::is_finished_here(spec) => {
                let (spec, args) = (*spec, std::mem::take(args));
                slot.state = State::Answered { spec, args, reply };
                None
            }
            (State::Single { .. }, Ok(reply)) => Some(reply),
            (State::Single { .. }, Err(error)) => Some(door_error(&error)),
            (State::Gather(gather), Ok(reply)) => {
                let reply = gather.answer(id.part, reply);
                if reply.is_none() && gather.due().is_some() {
                    self.fetching.push(id.command);
                }
                reply
            }
            (State::Gather(gather), Err(error)) => {
                let unknown =
                    !gather.is_read_only() && matches!(error, DoorError::OutcomeUnknown(_));
                gather.fail(door_error(&error), unknown)
            }
            (State::Walk(walk), Ok(page)) => match walk.on_page(&page, &range_end) {
                Step::Reply(reply) => Some(reply),
                Step::Again => {
                    self.page_due = true;
                    None
                }
            },
            (State::Walk(walk), Err(error)) => Some(match walk.has_effect() {
                true => door_error(&DoorError::OutcomeUnknown(format!(
                    "some of the keys are deleted; {error}"
                ))),
                false => walk.fail(door_error(&error)),
            }),
            (
                State::Waiting { .. }
                | State::Answered { .. }
                | State::Others(_)
                | State::Executed(_)
                | State::Errand
                | State::Done(_),
                _,
            ) => None,
        };
        if let Some(reply) = reply {
            let took_us = self.tally.turn_us().saturating_sub(slot.began_us);
            let done = std::mem::replace(&mut slot.state, State::Done(reply));
            self.note(|| done.args(), took_us);
        }
    }

    /// Asks for pages of the walk until one is under way, the walk is over, or it is the turn
    /// of others.
    fn walk(&mut self, now_ms: u64, stores: &dyn Stores) {
        for _ in 0..PAGES_PER_TURN {
            let Some(number) = self.walking.filter(|_| self.page_due) else {
                return;
            };
            let Some(index) = number.checked_sub(self.first) else {
                return;
            };
            let Some(slot) = self.queue.get_mut(index as usize) else {
                return;
            };
            let State::Walk(walk) = &mut slot.state else {
                return;
            };
            self.page_due = false;
            let patience_ms = self.door.config.deadline_ms;
            let patience_ms = walk
                .patience_ms()
                .map_or(patience_ms, |ms| ms.min(patience_ms));
            let deadline_ms = now_ms + patience_ms;
            let id = CallId {
                command: number,
                part: 0,
            };
            let (key, page) = (walk.at().clone(), walk.page());
            let read_only = walk.is_read_only();
            let mut call = Call::new(id, key, EvaluatorId::REDIS, read_only, page, deadline_ms);
            call.patient = true;
            self.calls.refresh();
            let route = self.calls.lookup(&call.key);
            let range_end = route
                .as_ref()
                .map(|r| r.descriptor.end.clone())
                .unwrap_or_default();
            match self.calls.start(call, route, now_ms, stores) {
                Some(reply) => self.settle(Outcome {
                    id,
                    result: Ok(reply),
                    range_end,
                }),
                None => return,
            }
        }
    }

    /// Moves replies from the front of the queue to the buffer.
    fn drain(&mut self, now_ms: u64, stores: &dyn Stores) {
        loop {
            self.finish_front(now_ms, stores);
            let done = |slot: &Slot| matches!(slot.state, State::Done(_));
            if !self.queue.front().is_some_and(done) {
                return;
            }
            let Some(slot) = self.queue.pop_front() else {
                return;
            };
            if let State::Done(reply) = &slot.state {
                self.tally.replied(slot.began_us, reply, &self.door.metrics);
                if self.calls.is_tracing() {
                    self.end_trace(reply);
                }
                if !slot.context.muted {
                    self.out.extend_from_slice(reply);
                }
            }
            self.held_bytes -= slot.bytes;
            let walked = self.walking == Some(self.first);
            self.transaction.answered(self.first);
            self.first += 1;
            while self
                .waiting
                .front()
                .is_some_and(|number| *number < self.first)
            {
                self.waiting.pop_front();
            }
            if walked {
                self.walking = None;
                self.page_due = false;
                self.give_time(now_ms);
            }
        }
    }

    /// The token of a question or an errand of the command `number`, or of the one at `place` of
    /// the transaction that it is.
    fn token(kind: u64, number: u64, place: usize) -> u64 {
        let place = place as u64 & ((1 << PLACE_BITS) - 1);
        kind | place << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
    }

    /// The command that a [`token`](Self::token) is of, and the place.
    fn of_token(&mut self, token: u64) -> Option<(&mut Slot, usize)> {
        let place = token >> NUMBER_BITS & ((1 << PLACE_BITS) - 1);
        let ahead = token.wrapping_sub(self.first) & ((1 << NUMBER_BITS) - 1);
        let slot = self.queue.get_mut(usize::try_from(ahead).ok()?)?;
        Some((slot, place as usize))
    }

    /// What `CLIENT LIST` tells of it.
    fn holdings(&self) -> Holdings {
        Holdings {
            subscriptions: self.pubsub.counts(),
            queued: self.transaction.queued(),
            watched: self.transaction.watched(),
            held_bytes: self.held_bytes,
        }
    }

    /// Commands that wait have their time from now on.
    fn give_time(&mut self, now_ms: u64) {
        for number in &self.waiting {
            let slot = &mut self.queue[(number - self.first) as usize];
            slot.deadline_ms = now_ms + self.door.config.deadline_ms;
        }
    }

    fn context(&self) -> Context {
        let state = &self.state;
        Context {
            db: state.db,
            protocol: state.protocol,
            muted: state.muted || state.skip_one,
        }
    }

    fn push_reply(&mut self, context: Context, reply: Bytes) {
        let began_us = self.tally.turn_us();
        if self.queue.is_empty() {
            self.tally.replied(began_us, &reply, &self.door.metrics);
            if self.calls.is_tracing() {
                self.end_trace(&reply);
            }
            if !context.muted {
                self.out.extend_from_slice(&reply);
            }
            self.first += 1;
            return;
        }
        let bytes = 64 + reply.len();
        self.held_bytes += bytes;
        self.queue.push_back(Slot {
            context,
            began_us,
            deadline_ms: u64::MAX,
            bytes,
            state: State::Done(reply),
        });
    }
}

impl State {
    /// What the client sent, as far as it is kept.
    fn args(&self) -> Vec<Bytes> {
        match self {
            State::Waiting { args, .. }
            | State::Single { args, .. }
            | State::Answered { args, .. } => args.clone(),
            State::Gather(gather) => gather.args().to_vec(),
            State::Walk(walk) => vec![Bytes::from_static(walk.name().as_bytes())],
            State::Others(_) | State::Executed(_) | State::Errand | State::Done(_) => Vec::new(),
        }
    }

    fn args_bytes(&self) -> usize {
        match self {
            State::Waiting { args, .. }
            | State::Single { args, .. }
            | State::Answered { args, .. } => {
                args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum()
            }
            State::Gather(gather) => gather.bytes(),
            State::Walk(_) | State::Errand => 0,
            State::Others(asking) => asking.bytes(),
            State::Executed(executed) => executed.bytes(),
            State::Done(reply) => reply.len(),
        }
    }
}

/// Whether it may be the name of a subcommand.
fn is_word(text: &[u8]) -> bool {
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    text.len() <= 32 && text.iter().all(in_word)
}

/// What a Redis client is told when there is no result.
///
/// - `CLUSTERDOWN …`: nothing was written; no leader could be reached in time.
/// - `UNKNOWN …`: the write may or may not take effect, even later. Redis has no such error: it
///   is what a client of Redis would have to conclude from a broken connection.
/// - `TRYAGAIN …`: nothing was written; the range has too much to do.
fn door_error(error: &DoorError) -> Bytes {
    reply::error(&match error {
        DoorError::Unavailable(why) => format!("CLUSTERDOWN The cluster is down: {why}"),
        DoorError::OutcomeUnknown(why) => {
            format!("UNKNOWN outcome unknown: {why}; the write may or may not take effect")
        }
        DoorError::Busy(why) => format!("TRYAGAIN The range is busy, nothing was written: {why}"),
        DoorError::Invalid(why) => format!("ERR {why}"),
    })
}
