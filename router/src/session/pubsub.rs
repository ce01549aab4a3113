//! Pub/Sub commands of one connection. Replies and texts are those of Redis 7.2.
//!
//! - `SUBSCRIBE` and its like are carried out when all earlier commands of the connection are
//!   answered, and nothing more is taken in until then: their confirmations precede the messages, and
//!   a connection of RESP2 is in subscriber mode for what stands behind them.
//! - `PUBLISH` starts when what the connection asked of the data before is done: who is told that
//!   something was written can read it. It answers when the other nodes have, or after
//!   [`Config::others_ms`](super::Config::others_ms), with the subscribers of all nodes that did.
//! - `PUBSUB` answers for the whole cluster in the same way.
//! - Between `MULTI` and `EXEC` both are queued, and carried out when the transaction is executed
//!   ([`super::transaction`]).

use super::connection::{arity, help, unknown_subcommand};
use super::start::Begun;
use super::{Session, Slot, State, ASKED};
use crate::pubsub::wire::{bulk, header};
use crate::pubsub::{Answer, Ask, Hub, Outbox, Space};
use crate::stores::Stores;
use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::{Flags, Group, Spec};
use rangekv_proto::{Body, Mark, RangeId, Request, Response};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Messages are moved to the buffer of replies until it holds this much.
const MOVED_BYTES: usize = 256 << 10;
const HELP: &[&str] = &[
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Answers the channels with subscribers, or those that match a pattern.",
    "NUMPAT",
    "    Answers how many patterns have subscribers.",
    "NUMSUB [<channel> ...]",
    "    Answers how many subscribers channels have, without those of patterns.",
    "SHARDCHANNELS [<pattern>]",
    "    Answers the shard channels with subscribers, or those that match a pattern.",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Answers how many subscribers shard channels have.",
    "HELP",
    "    Prints this help.",
];

/// What a connection is subscribed to. It ends with it.
pub(super) struct Subscriptions {
    hub: Arc<Hub>,
    /// The connection.
    id: u64,
    names: [BTreeSet<Bytes>; 3],
    /// Made with the first subscription.
    outbox: Option<Arc<Outbox>>,
    /// Bytes of messages that were left in it.
    left: usize,
    /// Since when they have been above the soft limit.
    over_since_ms: Option<u64>,
    /// Questions to other nodes by command, and until when they are waited for; in order.
    asking: VecDeque<(u64, u64)>,
}

/// A question to other nodes.
pub(super) struct Asking {
    answer: Answer,
    /// Nodes that have not answered.
    missing: usize,
    /// Bytes of the question.
    bytes: usize,
    shape: Shape,
}

/// What the reply is made of an answer.
enum Shape {
    Published,
    Names,
    HowManyNames,
    /// The channels that were asked for.
    Counts(Vec<Bytes>),
}

impl Subscriptions {
    pub(super) fn new(hub: Arc<Hub>, id: u64) -> Self {
        Subscriptions {
            hub,
            id,
            names: Default::default(),
            outbox: None,
            left: 0,
            over_since_ms: None,
            asking: VecDeque::new(),
        }
    }

    /// How many there are to channels, patterns and shard channels.
    pub(super) fn counts(&self) -> [usize; 3] {
        [0, 1, 2].map(|space| self.names[space].len())
    }

    fn is_empty(&self) -> bool {
        self.names.iter().all(BTreeSet::is_empty)
    }

    /// What a confirmation counts: shard channels, or channels and patterns.
    fn count(&self, space: Space) -> usize {
        let len = |space: Space| self.names[space as usize].len();
        match space {
            Space::Shard => len(Space::Shard),
            Space::Channel | Space::Pattern => len(Space::Channel) + len(Space::Pattern),
        }
    }

    /// Ends all subscriptions; what was left for the connection stays.
    fn end(&mut self) {
        for space in Space::ALL {
            for name in std::mem::take(&mut self.names[space as usize]) {
                self.hub.unsubscribe(space, &name, self.id);
            }
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.end();
        if let Some(outbox) = &self.outbox {
            outbox.close();
        }
    }
}

impl Session {
    /// Whether messages wait that go out as soon as the buffer of replies is written.
    pub fn has_messages(&self) -> bool {
        self.pubsub.left > 0
    }

    /// Whether what was taken in last has to be carried out before more is.
    pub(super) fn holds_back(&self) -> bool {
        let slot = self.waiting.back().and_then(|number| {
            let index = number.checked_sub(self.first)?;
            self.queue.get(index as usize)
        });
        let state = slot.map(|slot| &slot.state);
        matches!(state, Some(State::Waiting { spec, .. }) if is_subscription(spec))
    }

    /// What a connection of RESP2 that has subscriptions is told instead of what it asked for.
    pub(super) fn in_subscriber_mode(&self, spec: &Spec, args: &[Bytes]) -> Option<Bytes> {
        if self.state.protocol == Protocol::Resp3 || self.pubsub.is_empty() {
            return None;
        }
        if spec.name == "ping" && args.len() <= 2 {
            let mut reply = Reply::new(Protocol::Resp2);
            let text = args.get(1).map_or(&b""[..], |text| text);
            reply.array(2).bulk(b"pong").bulk(text);
            return Some(reply.finish());
        }
        if is_subscription(spec) || matches!(spec.name, "ping" | "quit" | "reset") {
            return None;
        }
        if spec.name == "pubsub" {
            // A subcommand that is none is said to be none before it is refused.
            if let Err(error) = subcommand(args) {
                return Some(error);
            }
        }
        let mut name = spec.name.to_owned();
        if let (true, Some(sub)) = (spec.flags.contains(Flags::CONTAINER), args.get(1)) {
            name.push('|');
            name.push_str(&String::from_utf8_lossy(sub).to_ascii_lowercase());
        }
        let said = match name.as_str() {
            "exec" => "EXECABORT Transaction discarded because of:",
            _ => "ERR",
        };
        Some(reply::error(&format!(
            "{said} Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        )))
    }

    /// Starts a command of Pub/Sub; none before it is held back.
    pub(super) fn begin_pubsub(
        &mut self,
        number: u64,
        spec: &'static Spec,
        args: &[Bytes],
        now_ms: u64,
        stores: &dyn Stores,
    ) -> Begun {
        if is_subscription(spec) {
            if number != self.first {
                return Begun::Blocked;
            }
            let space = match spec.name {
                "psubscribe" | "punsubscribe" => Space::Pattern,
                "ssubscribe" | "sunsubscribe" => Space::Shard,
                _ => Space::Channel,
            };
            match spec.name.ends_with("unsubscribe") {
                true => self.unsubscribe(spec.name, space, &args[1..]),
                false => self.subscribe(spec.name, space, &args[1..]),
            }
            // The confirmations are no replies: they are written whatever CLIENT REPLY says.
            return Begun::Reply(Bytes::new());
        }
        if !self.calls.is_idle() {
            return Begun::Blocked;
        }
        match self.ask(number, 0, spec, args, stores) {
            Ok(reply) => Begun::Reply(reply),
            Err(asking) => {
                self.asked(number, now_ms);
                Begun::Others(asking)
            }
        }
    }

    /// Carries out `PUBLISH`, `SPUBLISH` or `PUBSUB`: the reply, or what is asked of other nodes.
    pub(super) fn ask(
        &mut self,
        number: u64,
        place: usize,
        spec: &Spec,
        args: &[Bytes],
        stores: &dyn Stores,
    ) -> Result<Bytes, Box<Asking>> {
        let protocol = self.state.protocol;
        let hub = &self.pubsub.hub;
        let (ask, shape) = match spec.name {
            "publish" | "spublish" => {
                let shard = spec.name == "spublish";
                let (channel, payload) = (args[1].clone(), args[2].clone());
                let ask = Ask::Publish {
                    shard,
                    channel,
                    payload,
                };
                (ask, Shape::Published)
            }
            _ => match introspection(args, protocol) {
                Ok(asked) => asked,
                Err(reply) => return Ok(reply),
            },
        };
        let others = stores.others();
        let answer = match &ask {
            Ask::Publish {
                shard,
                channel,
                payload,
            } => Answer::Count(hub.publish(*shard, channel, payload)),
            ask => hub.answer(ask),
        };
        if others.is_empty() {
            return Ok(shape.reply(&answer, protocol));
        }
        let ask = ask.encode();
        let asking = Asking {
            answer,
            missing: others.len(),
            bytes: ask.len(),
            shape,
        };
        for store in others {
            let request = Request {
                range: RangeId(0),
                version: 0,
                term: 0,
                mark: Mark::NONE,
                body: Body::PubSub(ask.clone()),
            };
            let token = Self::token(ASKED, number, place);
            stores.send(store, request, &self.sink, token);
        }
        Err(Box::new(asking))
    }

    /// Other nodes are asked for the command `number`: they have until then.
    pub(super) fn asked(&mut self, number: u64, now_ms: u64) {
        let until_ms = now_ms + self.door.config.others_ms;
        self.pubsub.asking.push_back((number, until_ms));
    }

    /// Takes in another node's answer.
    pub(super) fn on_other(&mut self, token: u64, response: &Response) {
        let hub = self.pubsub.hub.clone();
        let Some((slot, place)) = self.of_token(token) else {
            return;
        };
        let done = match &mut slot.state {
            State::Others(asking) => asking.heard(response, &hub, slot.context.protocol),
            State::Executed(executed) => executed.heard(place, response, &hub),
            _ => None,
        };
        if let Some(reply) = done {
            slot.state = State::Done(reply);
        }
        while let Some(&(number, _)) = self.pubsub.asking.front() {
            let index = number.checked_sub(self.first);
            let slot = index.and_then(|index| self.queue.get(index as usize));
            let is_open = |slot: &Slot| matches!(slot.state, State::Others(_) | State::Executed(_));
            if slot.is_some_and(is_open) {
                break;
            }
            self.pubsub.asking.pop_front();
        }
    }

    /// Takes in that time has passed: answers without the nodes that have not answered.
    pub(super) fn pubsub_timer(&mut self, now_ms: u64) {
        while let Some(&(number, until_ms)) = self.pubsub.asking.front() {
            if until_ms > now_ms {
                break;
            }
            self.pubsub.asking.pop_front();
            let index = number.checked_sub(self.first);
            let slot = index.and_then(|index| self.queue.get_mut(index as usize));
            let Some(slot) = slot else {
                continue;
            };
            let hub = &self.pubsub.hub;
            let done = match &mut slot.state {
                State::Others(asking) => Some(asking.give_up(hub, slot.context.protocol)),
                State::Executed(executed) => executed.give_up(hub),
                _ => None,
            };
            if let Some(reply) = done {
                slot.state = State::Done(reply);
            }
        }
        let Some(outbox) = &self.pubsub.outbox else {
            return;
        };
        if self
            .pubsub
            .over_since_ms
            .is_some_and(|since| now_ms - since >= outbox.soft_ms())
        {
            self.pubsub.over_since_ms = None;
            outbox.cut_off();
        }
    }

    /// When [`pubsub_timer`](Self::pubsub_timer) is to be called at the latest.
    pub(super) fn next_pubsub_timer(&self) -> Option<u64> {
        let asking = self.pubsub.asking.front().map(|(_, until_ms)| *until_ms);
        let outbox = self.pubsub.outbox.as_ref();
        let over = outbox.and_then(|outbox| Some(self.pubsub.over_since_ms? + outbox.soft_ms()));
        asking.into_iter().chain(over).min()
    }

    /// Moves messages to the buffer of replies, as far as it is not full.
    pub(super) fn take_messages(&mut self, now_ms: u64) {
        let pubsub = &mut self.pubsub;
        let Some(outbox) = &pubsub.outbox else {
            return;
        };
        pubsub.left = outbox.take(&mut self.out, MOVED_BYTES, self.state.protocol);
        pubsub.over_since_ms = match outbox.is_over_soft(pubsub.left) {
            true => pubsub.over_since_ms.or(Some(now_ms)),
            false => None,
        };
        if self.closing {
            self.end_subscriptions();
        }
    }

    /// Ends all subscriptions; the messages so far are in the buffer.
    pub(super) fn end_subscriptions(&mut self) {
        self.pubsub.end();
        self.take_all();
    }

    fn take_all(&mut self) {
        if let Some(outbox) = &self.pubsub.outbox {
            self.pubsub.left = outbox.take(&mut self.out, usize::MAX, self.state.protocol);
            self.pubsub.over_since_ms = None;
        }
    }

    fn subscribe(&mut self, kind: &str, space: Space, names: &[Bytes]) {
        let Session {
            pubsub,
            client,
            door,
            ..
        } = self;
        let outbox = pubsub.outbox.get_or_insert_with(|| {
            pubsub
                .hub
                .outbox(client.thread(), door.config.messages_limit)
        });
        let outbox = outbox.clone();
        client.has_outbox(&outbox);
        for name in names {
            let known = &mut self.pubsub.names[space as usize];
            let new = !known.contains(name);
            if new {
                known.insert(Bytes::copy_from_slice(name));
            }
            self.confirm(kind, Some(name), space);
            if new {
                let Subscriptions { hub, id, .. } = &self.pubsub;
                hub.subscribe(space, name, *id, &outbox);
            }
        }
    }

    fn unsubscribe(&mut self, kind: &str, space: Space, names: &[Bytes]) {
        let all: Vec<Bytes>;
        let names = match names {
            [] => {
                all = self.pubsub.names[space as usize].iter().cloned().collect();
                &all
            }
            names => names,
        };
        if names.is_empty() {
            self.confirm(kind, None, space);
        }
        for name in names {
            if self.pubsub.names[space as usize].remove(name) {
                let Subscriptions { hub, id, .. } = &self.pubsub;
                hub.unsubscribe(space, name, *id);
                self.take_all();
            }
            self.confirm(kind, Some(name), space);
        }
    }

    /// Writes the confirmation of a subscription's beginning or end.
    fn confirm(&mut self, kind: &str, name: Option<&Bytes>, space: Space) {
        let protocol = self.state.protocol;
        let (out, first) = (&mut self.out, push_byte(protocol));
        header(out, first, 3);
        bulk(out, kind.as_bytes());
        match name {
            Some(name) => bulk(out, name),
            None => out.extend_from_slice(&reply::nil(protocol)),
        }
        header(out, b':', self.pubsub.count(space));
    }
}

impl Asking {
    /// Bytes that are kept for it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a node's answer; the reply if it was the last.
    pub(super) fn heard(
        &mut self,
        response: &Response,
        hub: &Hub,
        protocol: Protocol,
    ) -> Option<Bytes> {
        let answer = response.as_ref().ok().and_then(Answer::decode);
        if !answer.is_some_and(|answer| self.answer.add(answer)) {
            self.unheard(1, hub);
        }
        self.missing -= 1;
        (self.missing == 0).then(|| self.reply(protocol))
    }

    /// The reply without those that have not answered.
    pub(super) fn give_up(&self, hub: &Hub, protocol: Protocol) -> Bytes {
        self.unheard(self.missing, hub);
        self.reply(protocol)
    }

    /// So many nodes do not answer.
    fn unheard(&self, nodes: usize, hub: &Hub) {
        if matches!(self.shape, Shape::Published) {
            (0..nodes).for_each(|_| hub.unreached());
        }
    }

    fn reply(&self, protocol: Protocol) -> Bytes {
        self.shape.reply(&self.answer, protocol)
    }
}

impl Shape {
    fn reply(&self, answer: &Answer, protocol: Protocol) -> Bytes {
        let mut out = Reply::new(protocol);
        match (self, answer) {
            (Shape::Published, Answer::Count(count)) => return reply::int(*count as i64),
            (Shape::HowManyNames, Answer::Names(names)) => return reply::int(names.len() as i64),
            (Shape::Names, Answer::Names(names)) => {
                out.array(names.len());
                for name in names {
                    out.bulk(name);
                }
            }
            (Shape::Counts(channels), Answer::Counts(counts)) => {
                out.array(channels.len() * 2);
                for (channel, count) in channels.iter().zip(counts) {
                    out.bulk(channel).int(*count as i64);
                }
            }
            // A node's own answer fits its question, and only such are added to it.
            _ => return reply::error("ERR a node's answer does not fit its question"),
        }
        out.finish()
    }
}

/// The subcommand of a `PUBSUB …`, in lower case, or what is wrong with it.
pub(super) fn subcommand(args: &[Bytes]) -> Result<Vec<u8>, Bytes> {
    let lower = args[1].to_ascii_lowercase();
    match (&lower[..], args.len()) {
        (b"channels" | b"shardchannels" | b"numsub" | b"shardnumsub", _) => Ok(lower),
        (b"numpat" | b"help", 2) => Ok(lower),
        (b"numpat", _) => Err(arity("pubsub|numpat")),
        (b"help", _) => Err(arity("pubsub|help")),
        _ => Err(unknown_subcommand("PUBSUB", &args[1])),
    }
}

/// What a `PUBSUB …` asks, or its reply if it asks nobody.
fn introspection(args: &[Bytes], protocol: Protocol) -> Result<(Ask, Shape), Bytes> {
    let lower = subcommand(args)?;
    let shard = lower.starts_with(b"shard");
    match (&lower[..], &args[2..]) {
        (b"channels" | b"shardchannels", [] | [_]) => {
            let pattern = args.get(2).cloned();
            Ok((Ask::Channels { shard, pattern }, Shape::Names))
        }
        (b"channels" | b"shardchannels", _) => Err(reply::error(&format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
            String::from_utf8_lossy(&args[1])
        ))),
        (b"numsub" | b"shardnumsub", channels) => {
            let channels = channels.to_vec();
            let shape = Shape::Counts(channels.clone());
            Ok((Ask::Subscribers { shard, channels }, shape))
        }
        (b"numpat", _) => Ok((Ask::Patterns, Shape::HowManyNames)),
        _ => Err(help(HELP, protocol)),
    }
}

/// `SUBSCRIBE` and its like, which begin or end subscriptions.
fn is_subscription(spec: &Spec) -> bool {
    spec.group == Group::PubSub && spec.name.ends_with("subscribe")
}

fn push_byte(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => b'>',
    }
}
