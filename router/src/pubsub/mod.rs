//! Pub/Sub: who is subscribed on this node, and how a message reaches them, here and on the
//! other nodes of the cluster.
//!
//! A [`Hub`] has the subscriptions of one node's connections ([`registry`]). A message is
//! encoded once and left in the [`outbox`] of each subscriber, whose own thread writes it. Other
//! nodes get it as an [`Ask`], are asked in the same way who listens there, and answer with
//! an [`Answer`] ([`wire`]).
//!
//! Delivery is at most once, as in Redis: nothing is kept for who is not connected, and a message
//! that finds no room on its way is lost. Invariant: what one connection publishes arrives in its
//! order, save for what is lost.

pub mod outbox;
pub mod registry;
pub mod wire;

pub use outbox::{Limit, Outbox};
pub use registry::Space;
pub use wire::{Answer, Ask};

use crate::session::HangUp;
use bytes::Bytes;
use parking_lot::RwLock;
use rangekv_model::redis::glob;
use rangekv_proto::{RequestError, Response};
use registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// The subscriptions of one node's connections.
#[derive(Default)]
pub struct Hub {
    // Read while a message is handed out, written when a connection subscribes.
    registry: RwLock<Registry<Arc<Outbox>>>,
    counters: Arc<Counters>,
}

/// What a hub counts; all but the figures of [`Hub::figures`] only grow.
#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    cut_off: AtomicU64,
    unreached: AtomicU64,
}

/// A hub at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections with a subscription.
    pub subscribers: u64,
    /// Subscriptions to channels, to patterns, and to shard channels.
    pub subscriptions: [u64; 3],
    /// Channels, patterns and shard channels that have subscribers.
    pub names: [u64; 3],
    /// Messages that clients of this node have published.
    pub published: u64,
    /// Messages left for subscribers of this node, once for each subscription.
    pub delivered: u64,
    /// Of those, the ones whose connection ended before they were written.
    pub dropped: u64,
    /// Connections closed because they did not read.
    pub cut_off: u64,
    /// Messages that another node did not answer for: it may not have got them.
    pub unreached: u64,
}

impl Hub {
    /// Subscribes the connection `id`; whether it was not subscribed to that before.
    pub fn subscribe(&self, space: Space, name: &[u8], id: u64, outbox: &Arc<Outbox>) -> bool {
        let mut registry = self.registry.write();
        registry.subscribe(space, name, id, outbox.clone())
    }

    /// Ends a subscription; whether there was one. Afterwards nothing of it reaches the outbox.
    pub fn unsubscribe(&self, space: Space, name: &[u8], id: u64) -> bool {
        self.registry.write().unsubscribe(space, name, id)
    }

    /// An outbox that this hub counts for.
    pub fn outbox(&self, thread: Arc<dyn HangUp>, limit: Limit) -> Arc<Outbox> {
        Arc::new(Outbox::new(thread, limit, self.counters.clone()))
    }

    /// A client of this node publishes: leaves the message with the subscribers of this node and
    /// returns how many got it.
    pub fn publish(&self, shard: bool, channel: &[u8], payload: &[u8]) -> u64 {
        self.counters.published.fetch_add(1, Ordering::Relaxed);
        self.deliver(shard, channel, payload)
    }

    /// A message was not answered for by another node.
    pub fn unreached(&self) {
        self.counters.unreached.fetch_add(1, Ordering::Relaxed);
    }

    /// As [`publish`](Self::publish), for a message from anywhere.
    fn deliver(&self, shard: bool, channel: &[u8], payload: &[u8]) -> u64 {
        let registry = self.registry.read();
        let mut taken = 0;
        let named = registry.subscribers(channel_space(shard), channel);
        if let Some(named) = named {
            let kind: &[u8] = if shard { b"smessage" } else { b"message" };
            let message = wire::push(&[kind, channel, payload]);
            taken += leave(named.values(), &message);
        }
        if !shard {
            for (pattern, subscribers) in registry.names(Space::Pattern) {
                if glob::matches(pattern, channel) {
                    let message = wire::push(&[b"pmessage", pattern, channel, payload]);
                    taken += leave(subscribers.values(), &message);
                }
            }
        }
        self.counters.delivered.fetch_add(taken, Ordering::Relaxed);
        taken
    }

    /// What this node answers.
    pub fn answer(&self, ask: &Ask) -> Answer {
        let registry = self.registry.read();
        match ask {
            Ask::Publish {
                shard,
                channel,
                payload,
            } => {
                drop(registry);
                Answer::Count(self.deliver(*shard, channel, payload))
            }
            Ask::Channels { shard, pattern } => {
                let asked = |name: &&Bytes| pattern.as_ref().is_none_or(|p| glob::matches(p, name));
                let names = registry.names(channel_space(*shard)).map(|(name, _)| name);
                Answer::Names(names.filter(asked).cloned().collect())
            }
            Ask::Patterns => {
                let names = registry.names(Space::Pattern);
                Answer::Names(names.map(|(name, _)| name.clone()).collect())
            }
            Ask::Subscribers { shard, channels } => {
                let count = |name: &Bytes| {
                    let found = registry.subscribers(channel_space(*shard), name);
                    found.map_or(0, |subscribers| subscribers.len() as u64)
                };
                Answer::Counts(channels.iter().map(count).collect())
            }
        }
    }

    /// Answers another node. An error says what is wrong with its question.
    pub fn answer_encoded(&self, ask: &Bytes) -> Response {
        match Ask::decode(ask) {
            Some(ask) => Ok(self.answer(&ask).encode()),
            None => Err(RequestError::Invalid(
                "a Pub/Sub message of another version".into(),
            )),
        }
    }

    /// What is counted, now.
    pub fn figures(&self) -> Figures {
        let registry = self.registry.read();
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            subscribers: registry.subscriber_count() as u64,
            subscriptions: Space::ALL.map(|space| registry.count(space) as u64),
            names: Space::ALL.map(|space| registry.name_count(space) as u64),
            published: now(&self.counters.published),
            delivered: now(&self.counters.delivered),
            dropped: now(&self.counters.dropped),
            cut_off: now(&self.counters.cut_off),
            unreached: now(&self.counters.unreached),
        }
    }
}

fn channel_space(shard: bool) -> Space {
    match shard {
        true => Space::Shard,
        false => Space::Channel,
    }
}

/// Leaves a message with each; returns how many took it.
fn leave<'a>(outboxes: impl Iterator<Item = &'a Arc<Outbox>>, message: &Bytes) -> u64 {
    outboxes.filter(|outbox| outbox.push(message)).count() as u64
}
