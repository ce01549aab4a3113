//! `MULTI EXEC DISCARD WATCH UNWATCH`: what is queued, and what was watched.
//!
//! A transaction travels as one command to the range that holds all its keys
//! ([`exec`]); it starts, waits and starts over as others do. What of it concerns the connection
//! (`PING`, `SELECT`, …) is answered here when the range's reply has come, each in its place;
//! `PUBLISH` and `WAIT` then ask other nodes.
//!
//! Invariants:
//! - An `EXEC` carries the stamp of every `WATCH` before it. While a `WATCH` is unanswered nothing
//!   more is taken in ([`Session::accepts_more`]), and after one that failed `EXEC` does nothing.
//! - Commands of the connection take effect only if the transaction did, and before anything
//!   behind the `EXEC` is taken in. So is what it publishes: never if it was not executed, nor if
//!   nobody knows whether it was.
//! - What is queued is bounded.

use super::pubsub::{subcommand, Asking};
use super::{Context, Session, Slot, State};
use crate::pubsub::Hub;
use crate::reply as parse;
use crate::stores::Stores;
use bytes::Bytes;
use rangekv_model::redis::codec::{encode_command, Command, Protocol};
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::{self, Flags, Group, Route, Spec};
use rangekv_model::redis::{exec, keys, number};
use rangekv_proto::Response;

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

/// The transaction of a connection, between commands.
#[derive(Default)]
pub(super) struct Transaction {
    /// `MULTI` was called.
    open: bool,
    /// Something could not be queued.
    failed: bool,
    queued: Vec<Vec<Bytes>>,
    queued_bytes: usize,
    /// Record keys with the stamps of their `WATCH`.
    watched: Vec<(Bytes, Bytes)>,
    /// `WATCH`es that have no stamp, or not yet.
    unconfirmed: usize,
    /// Number of a command behind which nothing is taken in until it is answered.
    awaited: Option<u64>,
}

/// What becomes of a command of this family.
pub(super) enum Taken {
    Reply(Bytes),
    /// It is sent to a range, as this.
    Send(&'static Spec),
    /// As if a range had answered this.
    Answered(Bytes),
}

/// A transaction that was executed, some of whose commands wait for what other nodes say.
pub(super) struct Executed {
    protocol: Protocol,
    /// Replies, each in its place; empty where one is missing.
    places: Vec<Bytes>,
    /// What other nodes are asked, by place.
    asking: Vec<(usize, Box<Asking>)>,
    /// Places without a reply.
    missing: usize,
}

impl Executed {
    /// Bytes that are kept for it.
    pub(super) fn bytes(&self) -> usize {
        let asking = self.asking.iter().map(|(_, asking)| asking.bytes());
        self.places.iter().map(Bytes::len).chain(asking).sum()
    }

    /// Takes in another node's answer; the reply if it was the last.
    pub(super) fn heard(&mut self, place: usize, response: &Response, hub: &Hub) -> Option<Bytes> {
        let at = self
            .asking
            .binary_search_by_key(&place, |(at, _)| *at)
            .ok()?;
        let reply = self.asking[at].1.heard(response, hub, self.protocol)?;
        self.answered(place, reply)
    }

    /// Takes in the reply at a place; the whole one if it was the last.
    pub(super) fn answered(&mut self, place: usize, reply: Bytes) -> Option<Bytes> {
        let at = self.places.get_mut(place).filter(|at| at.is_empty())?;
        *at = reply;
        self.missing -= 1;
        (self.missing == 0).then(|| self.reply())
    }

    /// Goes without the nodes that have not answered; the reply if nothing else is missing.
    pub(super) fn give_up(&mut self, hub: &Hub) -> Option<Bytes> {
        let mut whole = None;
        for (place, asking) in std::mem::take(&mut self.asking) {
            if self.places[place].is_empty() {
                whole = self.answered(place, asking.give_up(hub, self.protocol));
            }
        }
        whole
    }

    fn reply(&self) -> Bytes {
        let mut whole = Reply::new(self.protocol);
        whole.array(self.places.len());
        for place in &self.places {
            whole.raw(place);
        }
        whole.finish()
    }
}

impl Transaction {
    /// Whether the next command may be taken in.
    pub fn admits(&self) -> bool {
        self.awaited.is_none()
    }

    /// Commands queued since `MULTI`, and their bytes.
    pub fn queued(&self) -> Option<(usize, usize)> {
        self.open.then_some((self.queued.len(), self.queued_bytes))
    }

    /// Keys that are watched.
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// Forgets all, save for what must be awaited.
    pub fn reset(&mut self) {
        *self = Transaction {
            awaited: self.awaited,
            ..Transaction::default()
        };
    }

    /// The command with this number is answered.
    pub fn answered(&mut self, number: u64) {
        if self.awaited == Some(number) {
            self.awaited = None;
        }
    }
}

/// Whether the reply to a command that was sent goes through
/// [`finish_front`](Session::finish_front).
pub(super) fn is_finished_here(spec: &Spec) -> bool {
    spec.group == Group::Transactions
}

impl Session {
    /// What a command is answered between `MULTI` and `EXEC`; `None` if it takes its usual way.
    pub(super) fn queue(
        &mut self,
        found: Option<&'static Spec>,
        args: &mut Vec<Bytes>,
    ) -> Option<Bytes> {
        // Also where there is no transaction.
        if found.is_some_and(|spec| spec.name == "exec" && !spec.accepts(args.len())) {
            self.transaction.reset();
            let why = "wrong number of arguments for 'exec' command";
            let text = format!("EXECABORT Transaction discarded because of: {why}");
            return Some(reply::error(&text));
        }
        if !self.transaction.open {
            return None;
        }
        let refusal = match found {
            None => Some(CommandError::unknown_command(args).to_reply()),
            Some(spec) if !spec.accepts(args.len()) => {
                Some(CommandError::Arity(spec.name.to_owned()).to_reply())
            }
            Some(spec) if is_never_queued(spec) => return None,
            Some(spec) => refusal(spec, args),
        };
        let transaction = &mut self.transaction;
        let bytes: usize = args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum();
        let bytes_max = self.door.config.limits.request_bytes_max;
        let refusal = refusal.or_else(|| {
            let many = transaction.queued.len() >= exec::COMMANDS_MAX;
            let large = transaction.queued_bytes + bytes > bytes_max;
            (many || large).then(|| {
                reply::error(&format!(
                    "ERR a transaction has at most {} commands and {bytes_max} bytes",
                    exec::COMMANDS_MAX
                ))
            })
        });
        if refusal.is_some() {
            transaction.failed = true;
            return refusal;
        }
        transaction.queued_bytes += bytes;
        transaction.queued.push(std::mem::take(args));
        Some(reply::simple("QUEUED"))
    }

    /// Takes in a command of this family, whose arity is right.
    pub(super) fn transaction_command(
        &mut self,
        spec: &'static Spec,
        args: &mut Vec<Bytes>,
        context: Context,
    ) -> Taken {
        let transaction = &mut self.transaction;
        Taken::Reply(match (spec.name, transaction.open) {
            ("multi", true) => reply::error("ERR MULTI calls can not be nested"),
            ("multi", false) => {
                transaction.open = true;
                reply::ok()
            }
            ("watch", true) => reply::error("ERR WATCH inside MULTI is not allowed"),
            ("watch", false) => {
                transaction.unconfirmed += 1;
                return Taken::Send(spec);
            }
            ("unwatch", _) => {
                transaction.reset();
                reply::ok()
            }
            ("discard" | "exec", false) => {
                let name = spec.name.to_ascii_uppercase();
                reply::error(&format!("ERR {name} without MULTI"))
            }
            ("discard", true) => {
                transaction.reset();
                reply::ok()
            }
            ("exec", true) => return self.exec(args, context),
            (other, _) => reply::error(&format!("ERR '{other}' is no part of a transaction")),
        })
    }

    fn exec(&mut self, args: &mut Vec<Bytes>, context: Context) -> Taken {
        let transaction = std::mem::take(&mut self.transaction);
        self.transaction.awaited = transaction.awaited;
        if transaction.failed || transaction.unconfirmed > 0 {
            return Taken::Reply(reply::error(ABORTED));
        }
        let mut db = context.db;
        let mut to_range = !transaction.watched.is_empty();
        let mut to_door = false;
        let mut sent_as = &exec::READS;
        let mut commands = Vec::with_capacity(transaction.queued.len());
        for queued in &transaction.queued {
            commands.push(encode_command(context.protocol, db, queued));
            match spec::lookup(&queued[0]).filter(|_| !exec::is_answered_by_router(queued)) {
                None => {
                    to_door = true;
                    // The commands behind it are on another database.
                    db = selected(queued).unwrap_or(db);
                }
                Some(spec) => {
                    to_range = true;
                    if !spec.is_readonly() {
                        sent_as = &exec::WRITES;
                    }
                }
            }
        }
        *args = exec::arguments(&transaction.watched, commands);
        if to_door {
            self.transaction.awaited = Some(self.first + self.queue.len() as u64);
        }
        if to_range {
            return Taken::Send(sent_as);
        }
        let mut places = Reply::new(context.protocol);
        places.array(transaction.queued.len());
        for _ in &transaction.queued {
            places.nil();
        }
        Taken::Answered(places.finish())
    }

    /// A command of this family is queued under a number: whether it must be awaited.
    pub(super) fn await_watch(&mut self, spec: &Spec, number: u64) {
        if spec.name == "watch" {
            self.transaction.awaited = Some(number);
        }
    }

    /// Makes the reply to a transaction or a `WATCH` at the front of the queue of what a range
    /// has answered: all earlier replies have gone out.
    pub(super) fn finish_front(&mut self, now_ms: u64, stores: &dyn Stores) {
        let Some(Slot { state, context, .. }) = self.queue.front_mut() else {
            return;
        };
        if !matches!(state, State::Answered { .. }) {
            return;
        }
        let context = *context;
        let State::Answered { spec, args, reply } =
            std::mem::replace(state, State::Done(Bytes::new()))
        else {
            return;
        };
        let state = match spec.name {
            "watch" => State::Done(self.watched(&args, reply, context)),
            _ => self.executed(&args, reply, context, now_ms, stores),
        };
        if let Some(slot) = self.queue.front_mut() {
            slot.state = state;
        }
    }

    fn watched(&mut self, args: &[Bytes], reply: Bytes, context: Context) -> Bytes {
        let Some(Some(stamp)) = parse::bulk(&reply) else {
            return reply;
        };
        let transaction = &mut self.transaction;
        transaction.unconfirmed = transaction.unconfirmed.saturating_sub(1);
        for key in &args[1..] {
            let key = keys::record_key(context.db, key);
            // Watched since the first time.
            if transaction.watched.iter().all(|(known, _)| *known != key) {
                transaction.watched.push((key, stamp.clone()));
            }
        }
        reply::ok()
    }

    /// Answers what of a transaction is for the door, each in its place.
    fn executed(
        &mut self,
        args: &[Bytes],
        reply: Bytes,
        context: Context,
        now_ms: u64,
        stores: &dyn Stores,
    ) -> State {
        let commands: Vec<Command> = exec::commands(args).unwrap_or_default();
        let is_for_door = |command: &Command| exec::is_answered_by_router(&command.args);
        let places = match parse::array(&reply) {
            Some(places) if commands.iter().any(is_for_door) => places,
            _ => return State::Done(reply),
        };
        if commands.len() != places.len() {
            let text = "ERR a range answered with another number of replies";
            return State::Done(reply::error(text));
        }
        let mut executed = Executed {
            protocol: context.protocol,
            places,
            asking: Vec::new(),
            missing: 0,
        };
        // The transaction is at the front of the queue.
        let number = self.first;
        for (place, command) in commands.iter().enumerate().filter(|(_, c)| is_for_door(c)) {
            let args = &command.args;
            let reply = match spec::lookup(&args[0]) {
                Some(spec) if spec.name == "unwatch" => Some(reply::ok()),
                Some(spec) if spec.group == Group::PubSub => {
                    match self.ask(number, place, spec, args, stores) {
                        Ok(reply) => Some(reply),
                        Err(asking) => {
                            executed.asking.push((place, asking));
                            None
                        }
                    }
                }
                Some(spec) if spec.route == Route::Node => {
                    self.count_replicas(number, place, args, context.protocol)
                }
                Some(spec) => Some(self.connection_command(spec, args, now_ms)),
                None => Some(CommandError::unknown_command(args).to_reply()),
            };
            executed.missing += usize::from(reply.is_none());
            executed.places[place] = reply.unwrap_or_default();
        }
        if executed.missing == 0 {
            return State::Done(executed.reply());
        }
        if !executed.asking.is_empty() {
            self.asked(number, now_ms);
        }
        State::Executed(Box::new(executed))
    }
}

/// What takes its usual way also between `MULTI` and `EXEC`.
fn is_never_queued(spec: &Spec) -> bool {
    match spec.group {
        Group::Transactions => spec.name != "unwatch",
        _ => matches!(spec.name, "reset" | "quit"),
    }
}

/// Why a command that exists cannot be part of a transaction.
fn refusal(spec: &Spec, args: &[Bytes]) -> Option<Bytes> {
    let replies = |subcommand: &Bytes| subcommand.eq_ignore_ascii_case(b"reply");
    match spec.name {
        // They change how the replies are written, of which the transaction's is one.
        "hello" => Some(not_allowed()),
        "client" if args.get(1).is_some_and(replies) => Some(not_allowed()),
        _ if spec.flags.contains(Flags::NO_MULTI) => Some(not_allowed()),
        // They ask other nodes when the transaction has been executed.
        "publish" | "spublish" | "wait" | "waitaof" => None,
        "pubsub" => subcommand(args).err(),
        // What they do is not undone, and their confirmations are no replies.
        name if spec.group == Group::PubSub || spec.route == Route::Node => Some(reply::error(
            &format!("ERR '{name}' can't be part of a transaction"),
        )),
        name if spec.route == Route::Keyspace => Some(reply::error(&format!(
            "ERR '{name}' walks all ranges, and can't be part of a transaction"
        ))),
        "object" => misses_subcommand(args),
        _ => None,
    }
}

fn not_allowed() -> Bytes {
    reply::error("ERR Command not allowed inside a transaction")
}

/// Redis looks at subcommands, and how many arguments they take, before it queues.
fn misses_subcommand(args: &[Bytes]) -> Option<Bytes> {
    let name = args[1].to_ascii_lowercase();
    match (&name[..], args.len()) {
        (b"encoding" | b"freq" | b"idletime" | b"refcount", 3) | (b"help", 2) => None,
        (b"encoding" | b"freq" | b"idletime" | b"refcount" | b"help", _) => {
            let name = format!("object|{}", String::from_utf8_lossy(&name));
            Some(CommandError::Arity(name).to_reply())
        }
        _ => {
            let subcommand = String::from_utf8_lossy(&args[1][..args[1].len().min(128)]);
            let error = CommandError::UnknownSubcommand {
                command: "OBJECT",
                subcommand: subcommand.into_owned(),
            };
            Some(error.to_reply())
        }
    }
}

/// The database that a `SELECT` chooses.
fn selected(args: &[Bytes]) -> Option<u8> {
    if !args[0].eq_ignore_ascii_case(b"select") {
        return None;
    }
    let db = u8::try_from(number::parse_int(args.get(1)?)?).ok()?;
    (db < keys::DATABASES).then_some(db)
}
