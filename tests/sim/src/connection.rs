//! A client at the end of a Redis connection: it pipelines commands over all shapes that the
//! front door knows, and notes what the replies say.
//!
//! - Bytes arrive cut anywhere; replies come in the order of the commands.
//! - Each command is answered within its deadline, with an error if need be: only commands
//!   behind a walk may take longer, and those of a store that is stopped. What is sent behind a
//!   `WATCH` is taken in when that is answered, and has its time from then on.
//! - `MGET`, `DEL` and `EXISTS` of several keys are one operation on each key: they promise no
//!   more across ranges. Pairs lie in one range and are one object.
//! - A connection that ends leaves what was unanswered open; the client connects elsewhere.

use crate::cluster::{trace, Cluster, Event};
use crate::history::{Op, OpId, Outcome, Reply};
use crate::random::exponential;
use crate::schedule::{Time, MS, SEC};
use crate::transactions::{Swap, Transaction};
use crate::walks::{Walk, Walking};
use crate::workload::Kind;
use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::Rng;
use rangekv_router::reply;
use rangekv_router::resp::{Limits, Parser};
use rangekv_router::session::Session;
use std::collections::VecDeque;

/// A command that is owed a reply.
#[derive(Debug)]
struct Owed {
    what: Expected,
    sent_at: Time,
    /// When the reply is late.
    late_at: Time,
    /// The door takes nothing in behind it until it is answered.
    holds_back: bool,
}

/// What a reply is taken for.
#[derive(Debug)]
pub enum Expected {
    /// One operation.
    One(OpId),
    /// These words, or an error.
    Word(&'static str),
    /// What a watched counter is.
    Seen(OpId),
    /// The reply to an `EXEC`.
    Transaction(Transaction),
    /// `MGET`: an element per key.
    Each(Vec<OpId>),
    /// `DEL` and `EXISTS`: the number of keys that were there.
    Sum(Vec<OpId>),
    /// A key that is written once and stays.
    Keep(usize),
    /// `SCAN`, `KEYS`, `DBSIZE`, `RANDOMKEY`.
    Walk(Walk),
}

/// See the module's documentation.
pub struct Connection {
    /// Number in the history.
    pub number: u32,
    /// The store at whose door it is, if there is a session.
    pub node: usize,
    /// Counts its sessions.
    pub generation: u64,
    /// The other end.
    pub session: Option<Session>,
    /// When the session's timer goes off.
    pub timer_at: Option<Time>,
    /// Which call on it is the valid one.
    pub wake: u64,
    parser: Parser,
    /// Bytes that the store has received and not executed.
    received: BytesMut,
    /// Bytes that the client has sent and the store has not received.
    sent: BytesMut,
    /// Replies, or parts of one.
    heard: BytesMut,
    owed: VecDeque<Owed>,
    depth: usize,
    walking: Walking,
    /// A compare and set that has begun.
    pub(crate) swap: Option<Swap>,
    /// What it does is drawn from this.
    pub(crate) rng: SmallRng,
}

impl Connection {
    /// A client that is not connected yet.
    pub fn new(number: u32, mut rng: SmallRng) -> Connection {
        Connection {
            number,
            node: 0,
            generation: 0,
            session: None,
            timer_at: None,
            wake: 0,
            parser: Parser::new(Limits::default()),
            received: BytesMut::new(),
            sent: BytesMut::new(),
            heard: BytesMut::new(),
            owed: VecDeque::new(),
            depth: rng.random_range(1..=6),
            walking: Walking::default(),
            swap: None,
            rng,
        }
    }

    /// Whether a command is unanswered.
    pub fn is_waiting(&self) -> bool {
        !self.owed.is_empty()
    }

    /// It sends so many commands at once from now on, at most.
    pub fn pipeline(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Whether a command is unanswered that was sent before `time`.
    pub fn is_waiting_since(&self, time: Time) -> bool {
        self.owed.front().is_some_and(|owed| owed.sent_at < time)
    }

    /// What it waits for, for a report.
    pub fn show(&self) -> String {
        format!(
            "connection {} to n{} waits: {:?}",
            self.number, self.node, self.owed
        )
    }

    /// The store that it is connected to stops until then.
    pub fn is_held_up(&mut self, until: Time) {
        for owed in &mut self.owed {
            owed.late_at = owed.late_at.max(until.saturating_add(8 * SEC));
        }
    }

    fn send(&mut self, args: &[Bytes]) {
        self.sent
            .extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            self.sent
                .extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            self.sent.extend_from_slice(arg);
            self.sent.extend_from_slice(b"\r\n");
        }
    }

    /// Forgets what it was told and what it waits for.
    fn hang_up(&mut self) {
        self.session = None;
        self.generation += 1;
        self.timer_at = None;
        self.parser = Parser::new(Limits::default());
        self.received.clear();
        self.sent.clear();
        self.heard.clear();
        self.swap = None;
        if self
            .owed
            .drain(..)
            .any(|o| matches!(o.what, Expected::Walk(_)))
        {
            self.walking.lost();
        }
    }
}

/// How an error reply ends an operation; `None` if it is a reply like any other.
fn ended_by(reply: &[u8]) -> Option<Outcome> {
    let begins = |word: &[u8]| reply.starts_with(word);
    if begins(b"-CLUSTERDOWN ") || begins(b"-TRYAGAIN ") {
        Some(Outcome::NotExecuted)
    } else if begins(b"-UNKNOWN ") {
        Some(Outcome::Unknown)
    } else {
        None
    }
}

impl Cluster {
    /// A client with a connection has thought or waited.
    pub(crate) fn connection(&mut self, c: usize) -> Result<(), String> {
        if self.connections[c].session.is_none() {
            if self.clients_stopped || !self.connect(c) {
                if !self.clients_stopped {
                    let again = self.schedule.now() + 100 * MS;
                    self.wake_connection(c, again);
                }
                return Ok(());
            }
        } else if !self.healed && self.connections[c].rng.random_bool(0.003) {
            trace!(self, "connection {c} hangs up");
            self.connections[c].hang_up();
        } else if !self.clients_stopped {
            let depth = self.connections[c].depth;
            let count = self.connections[c].rng.random_range(1..=depth);
            for _ in 0..count {
                if self.connections[c].owed.len() < 2 * depth {
                    self.command(c);
                }
            }
        }
        self.receive(c)?;
        let connection = &self.connections[c];
        let unread = connection.session.is_some()
            && !(connection.sent.is_empty() && connection.received.is_empty());
        if !self.clients_stopped || unread {
            let count = self.connections[c].depth as u64;
            let mean = match unread {
                true => MS,
                // Long histories of one key cost more than they show, where they are judged.
                false if self.waits.is_some() => self.workload.think_mean * count,
                false => self.workload.think_mean * count * (1 + self.position / 8_000),
            };
            let pause = exponential(&mut self.rng, mean);
            let next = self.schedule.now() + pause;
            self.wake_connection(c, next);
        }
        Ok(())
    }

    pub(crate) fn wake_connection(&mut self, c: usize, time: Time) {
        self.connections[c].wake += 1;
        let wake = self.connections[c].wake;
        self.schedule.at(
            time,
            Event::Connection {
                connection: c,
                wake,
            },
        );
    }

    /// Opens a session at some store that runs.
    fn connect(&mut self, c: usize) -> bool {
        let node = self.rng.random_range(0..self.nodes.len());
        self.connect_to(c, node)
    }

    fn connect_to(&mut self, c: usize, node: usize) -> bool {
        let now = self.schedule.now();
        let clock = self.nodes[node].now(now);
        let seed = self.rng.random();
        let Some(process) = self.nodes[node].process.as_ref() else {
            return false;
        };
        if process.paused_until > now {
            return false;
        }
        let session = process.front.open(clock, seed);
        trace!(self, "connection {c} is made to n{node}");
        let connection = &mut self.connections[c];
        connection.session = Some(session);
        connection.node = node;
        true
    }

    /// A store's process is gone, and with it the connections to it.
    pub(crate) fn end_connections(&mut self, node: usize) {
        for c in 0..self.connections.len() {
            if self.connections[c].session.is_some() && self.connections[c].node == node {
                self.connections[c].hang_up();
                let again = self.schedule.now() + self.rng.random_range(MS..200 * MS);
                self.wake_connection(c, again);
            }
        }
    }

    /// Writes down a command and sends it.
    fn command(&mut self, c: usize) {
        if self.transacts && self.transact(c) {
            return;
        }
        let connection = &mut self.connections[c];
        let behind_walk = connection
            .owed
            .iter()
            .any(|o| matches!(o.what, Expected::Walk(_)));
        let may_walk = !behind_walk && !self.workload.keeps.is_empty();
        match connection.rng.random_range(0..100) {
            0..=2 if may_walk => self.begin_walk(c),
            3..=8 if self.kept < self.workload.keeps.len() => {
                let keep = self.kept;
                self.kept += 1;
                let name = self.workload.keeps[keep].0.clone();
                self.walk_names.insert(name.clone());
                let args = ["SET".into(), name, Bytes::from_static(b"kept")];
                self.owe(c, Expected::Keep(keep), &args);
            }
            9..=16 => {
                let number = connection.rng.random_range(2..5);
                let keys = self.some_keys(c, number, |kind| kind != Kind::Pair);
                self.many(c, "MGET", &keys, Op::Get);
            }
            n @ 17..=22 => {
                // Where the checker counts on values, nothing may say merely whether there is one.
                let keys = self.some_keys(c, 3, |kind| matches!(kind, Kind::Cas | Kind::Expiring));
                match n {
                    17..=19 => self.many(c, "EXISTS", &keys, Op::Exists),
                    _ => self.many(c, "DEL", &keys, Op::Del),
                }
            }
            _ => {
                let number = connection.number;
                let (key, op) = self.workload.next(&mut connection.rng, number);
                self.replace_spent(key);
                let key = &self.workload.keys[key];
                let name = key.name.clone();
                let args = op.arguments(&name);
                let id = self.note_begin(c, &name, op);
                self.owe(c, Expected::One(id), &args);
            }
        }
    }

    fn some_keys(&mut self, c: usize, most: usize, of: impl Fn(Kind) -> bool) -> Vec<Bytes> {
        let keys = self.workload.current().filter(|k| of(k.kind));
        let names = keys.map(|k| k.name.clone());
        names.choose_multiple(&mut self.connections[c].rng, most)
    }

    /// One command over several keys.
    fn many(&mut self, c: usize, name: &'static str, keys: &[Bytes], op: Op) {
        if keys.is_empty() {
            return;
        }
        let ids = keys
            .iter()
            .map(|key| self.note_begin(c, key, op.clone()))
            .collect();
        let mut args = vec![Bytes::from_static(name.as_bytes())];
        args.extend_from_slice(keys);
        let what = match op {
            Op::Get => Expected::Each(ids),
            _ => Expected::Sum(ids),
        };
        self.owe(c, what, &args);
    }

    fn begin_walk(&mut self, c: usize) {
        let position = self.position;
        let connection = &mut self.connections[c];
        let (walk, args) = connection.walking.next(&mut connection.rng, position);
        self.owe(c, Expected::Walk(walk), &args);
    }

    pub(crate) fn note_begin(&mut self, c: usize, name: &Bytes, op: Op) -> OpId {
        self.position += 1;
        let (number, at, now) = (
            self.connections[c].number,
            self.position,
            self.schedule.now(),
        );
        self.history.begin(number, name, op, at, now)
    }

    pub(crate) fn owe(&mut self, c: usize, what: Expected, args: &[Bytes]) {
        trace!(
            self,
            "connection {c} sends {}",
            args.join(&b' ').escape_ascii()
        );
        let deadline = self.answer_time_max();
        let connection = &mut self.connections[c];
        let walks = matches!(what, Expected::Walk(_))
            || connection
                .owed
                .iter()
                .any(|o| matches!(o.what, Expected::Walk(_)));
        // A store that is stopped reads it when it goes on.
        let process = self.nodes[connection.node].process.as_ref();
        let goes_on = process.map_or(0, |p| p.paused_until);
        let late_at = match walks {
            true => Time::MAX,
            false => self.schedule.now().max(goes_on) + deadline,
        };
        let sent_at = self.schedule.now();
        connection.owed.push_back(Owed {
            what,
            sent_at,
            late_at,
            holds_back: args[0][..] == *b"WATCH",
        });
        connection.send(args);
    }

    /// Within this time a command is answered that the store has taken in.
    fn answer_time_max(&self) -> Time {
        // The store's clock may be slow, by less than a quarter.
        self.door_config.deadline_ms * MS * 5 / 4 + SEC
    }

    /// The store receives what was sent, or a part of it, and executes what is complete.
    fn receive(&mut self, c: usize) -> Result<(), String> {
        let now = self.schedule.now();
        let connection = &mut self.connections[c];
        if connection.session.is_none() {
            return Ok(());
        }
        let all = connection.sent.len();
        let count = match connection.rng.random_bool(0.1) {
            true => connection.rng.random_range(0..=all),
            false => all,
        };
        let part = connection.sent.split_to(count);
        connection.received.extend_from_slice(&part);
        let process = self.nodes[connection.node].process.as_ref();
        if process.is_none_or(|p| p.paused_until > now) {
            return Ok(());
        }
        let mut received = std::mem::take(&mut connection.received);
        let limits = Limits::default();
        let mut parser = std::mem::replace(&mut connection.parser, Parser::new(limits));
        let mut bad = None;
        let driven = self.drive(c, |session, now_ms, stores| {
            let mut args = Vec::new();
            while session.accepts_more() {
                match parser.next(&mut received, &mut args) {
                    Ok(true) => session.execute(&mut args, now_ms, stores),
                    Ok(false) => break,
                    Err(error) => {
                        bad = Some(error.to_string());
                        break;
                    }
                }
            }
        });
        let connection = &mut self.connections[c];
        (connection.received, connection.parser) = (received, parser);
        match bad {
            Some(error) => Err(format!("a well-formed stream is refused: {error}")),
            None => driven,
        }
    }

    /// Replies arrive at the client.
    pub(crate) fn hear(&mut self, c: usize, replies: &Bytes) -> Result<(), String> {
        if replies.is_empty() {
            return Ok(());
        }
        self.connections[c].heard.extend_from_slice(replies);
        let heard = self.connections[c].heard.split().freeze();
        let Some((complete, count)) = reply::sequence(&heard) else {
            return Err(format!("not a reply: {}", heard.escape_ascii()));
        };
        self.connections[c].heard.extend_from_slice(&heard[count..]);
        for reply in complete {
            let mut hash = crate::random::Fnv::default();
            hash.write(&reply);
            self.note(10, c, hash.value());
            self.settle(c, &reply)?;
        }
        Ok(())
    }

    fn settle(&mut self, c: usize, reply: &Bytes) -> Result<(), String> {
        let now = self.schedule.now();
        let Some(owed) = self.connections[c].owed.pop_front() else {
            return Err(format!(
                "connection {c} hears a reply that nothing is owed for: {}",
                reply.escape_ascii()
            ));
        };
        trace!(self, "connection {c} gets {}", reply.escape_ascii());
        if now > owed.late_at {
            return Err(format!(
                "connection {c} is answered {:.3} s after the deadline: {owed:?}",
                (now - owed.late_at) as f64 / 1e9
            ));
        }
        if owed.holds_back {
            let late_at = now + self.answer_time_max();
            for behind in &mut self.connections[c].owed {
                behind.late_at = behind.late_at.max(late_at);
            }
        }
        if let Some(waits) = &mut self.waits {
            if reply.starts_with(b"-") {
                return Err(format!(
                    "connection {c}, {owed:?}: {}",
                    reply.escape_ascii()
                ));
            }
            waits.push((now, now - owed.sent_at));
        }
        self.position += 1;
        let at = self.position;
        let ended = ended_by(reply);
        let parsed = Reply::parse(reply);
        let nonsense = || {
            Err(format!(
                "connection {c}, {owed:?}: not the shape of a reply: {}",
                reply.escape_ascii()
            ))
        };
        let settle = |history: &mut crate::history::History, id: &OpId, reply| {
            let outcome = Outcome::Replied { at, reply };
            history.end(id, outcome, now);
        };
        match (&owed.what, ended, parsed) {
            (Expected::Walk(walk), _, _) => {
                let walk = walk.clone();
                let names = (&self.walk_names, &self.kept_at);
                let connection = &mut self.connections[c];
                let over = connection.walking.heard(walk, reply, names)?;
                self.counts.walks += u64::from(over);
            }
            (Expected::Word(word), _, _) => {
                if !reply.starts_with(word.as_bytes()) && !reply.starts_with(b"-") {
                    return nonsense();
                }
            }
            (Expected::Seen(id), ended, parsed) => {
                let id = id.clone();
                self.watched_is(c, &id, ended, parsed, at)?;
            }
            (Expected::Transaction(transaction), ended, _) => {
                let transaction = transaction.clone();
                self.executed(&transaction, ended, reply, at)?;
            }
            (Expected::Keep(_), Some(_), _) => {}
            (Expected::Keep(keep), None, Some(Reply::Ok)) => {
                let name = self.workload.keeps[*keep].0.clone();
                self.kept_at.insert(name, at);
            }
            (Expected::One(id), Some(Outcome::NotExecuted), _) => {
                self.history.end(id, Outcome::NotExecuted, now);
            }
            (Expected::Each(ids) | Expected::Sum(ids), Some(Outcome::NotExecuted), _) => {
                for id in ids {
                    self.history.end(id, Outcome::NotExecuted, now);
                }
            }
            (_, Some(_), _) => {}
            (Expected::One(id), None, Some(reply)) => settle(&mut self.history, id, reply),
            (Expected::Each(ids), None, Some(Reply::Array(values)))
                if values.len() == ids.len() =>
            {
                for (id, value) in ids.iter().zip(values) {
                    let reply = value.map_or(Reply::Nil, Reply::Bulk);
                    settle(&mut self.history, id, reply);
                }
            }
            (Expected::Sum(ids), None, Some(Reply::Int(n)))
                if (0..=ids.len() as i64).contains(&n) =>
            {
                for id in ids {
                    let reply = match n {
                        0 => Reply::Int(0),
                        n if n == ids.len() as i64 => Reply::Int(1),
                        // It says nothing of one key.
                        _ if self.history.record(id).op.is_read_only() => continue,
                        _ => Reply::Any,
                    };
                    settle(&mut self.history, id, reply);
                }
            }
            _ => return nonsense(),
        }
        Ok(())
    }

    /// At the end: one read of each key, and walks, through the door of each store.
    pub(crate) fn read_through_doors(&mut self, deadline: Time) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() {
                continue;
            }
            let c = self.connections.len();
            let rng = crate::random::stream_of(self.seed, "last reader", node as u64);
            let last = Connection::new(1_000 + node as u32, rng);
            self.connections.push(last);
            if !self.connect_to(c, node) {
                return Err(format!("nobody can connect to n{node}"));
            }
            for key in 0..self.workload.keys.len() {
                let key = &self.workload.keys[key];
                if key.kind == Kind::Item {
                    continue;
                }
                let (name, op) = (key.name.clone(), key.read());
                let args = op.arguments(&name);
                let id = self.note_begin(c, &name, op);
                self.owe(c, Expected::One(id), &args);
            }
            let position = self.position;
            for (walk, args) in Walking::last(position) {
                self.owe(c, Expected::Walk(walk), &args);
            }
            while self.connections[c].is_waiting() {
                self.receive(c)?;
                let next = self.schedule.now() + MS;
                self.run_until(next)?;
                if next > deadline {
                    return Err(format!(
                        "no answer through a healthy store: {}",
                        self.connections[c].show()
                    ));
                }
            }
        }
        self.last_reads_replied()
    }

    /// All that the last readers asked was answered with a reply, not an error.
    fn last_reads_replied(&self) -> Result<(), String> {
        for (key, records) in self.history.keys() {
            let failed = records
                .iter()
                .find(|r| r.client >= 1_000 && !matches!(r.outcome, Outcome::Replied { .. }));
            if let Some(failed) = failed {
                return Err(format!(
                    "a read of {} through a healthy store fails: {failed:?}",
                    key.escape_ascii()
                ));
            }
        }
        Ok(())
    }
}
