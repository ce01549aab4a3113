//! Long-lived links to each other store: raft envelopes and requests go up, responses come
//! down. The other store's own envelopes and requests come on the links that it opens.
//!
//! One link is the worker's and everybody's: Raft, Pub/Sub, and the process's own requests. Each
//! thread of the Redis door has another, for the requests of its connections: it reads the
//! responses itself, and the worker of the other store answers it directly.
//!
//! A store that can't be reached costs its callers nothing: envelopes to it are dropped (and
//! the worker told), requests answered at once; a task per store keeps trying to connect.

use super::book::AddressBook;
use super::dial::Backoff;
use super::frame::Frame;
use super::greeting::Greeting;
use super::identity::Identity;
use super::lane::Lane;
use super::link::{self, Open};
use super::mailbox::Mailbox;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rangekv_proto::{Body, RequestError, StoreId};
use rangekv_router::poll::ports::Entrance;
use rangekv_router::stores::SentCall;
use rangekv_store::event::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The worker hears of a store's lost messages at most this often.
const UNREACHABLE_EVERY_NS: u64 = 200_000_000;

/// Whose link to use: the worker's, or that of a thread of the Redis door (from 1).
pub type Way = usize;
/// The worker's.
pub const MAIN: Way = 0;

/// Links to the other stores, opened when first needed.
pub struct Transport {
    me: Identity,
    book: Arc<AddressBook>,
    mailbox: Arc<Mailbox>,
    runtime: Handle,
    /// Who reads the responses, by [`Way`].
    readers: Vec<Arc<Entrance>>,
    peers: RwLock<BTreeMap<StoreId, Arc<Peer>>>,
    /// Stores that have opened a stream to this one since the start.
    callers: Mutex<BTreeSet<StoreId>>,
}

struct Peer {
    store: StoreId,
    /// By [`Way`].
    lanes: Vec<Arc<Lane>>,
    reported_ns: AtomicU64,
}

impl Transport {
    /// Connects to nobody yet. `mailbox` hears of stores that messages don't reach; `readers` are
    /// the threads that read responses, the worker first.
    pub fn new(
        me: Identity,
        book: Arc<AddressBook>,
        mailbox: Arc<Mailbox>,
        runtime: Handle,
        readers: Vec<Arc<Entrance>>,
    ) -> Arc<Self> {
        Arc::new(Transport {
            me,
            book,
            mailbox,
            runtime,
            readers,
            peers: RwLock::default(),
            callers: Mutex::default(),
        })
    }

    /// Sends encoded envelopes, or drops them: whether they are on their way.
    pub fn send_raft(self: &Arc<Self>, store: StoreId, envelopes: Bytes) -> bool {
        let Some(peer) = self.known_peer(store) else {
            // Its address comes with the next heartbeat.
            return false;
        };
        let queued = peer.lanes[MAIN].push_raft(envelopes);
        if !queued {
            self.report(&peer);
        }
        queued
    }

    /// Sends requests in order, or answers them at once. Pub/Sub messages all go one way, in the
    /// order in which they come here.
    pub fn send_calls(
        self: &Arc<Self>,
        way: Way,
        store: StoreId,
        calls: impl Iterator<Item = SentCall>,
    ) {
        match self.known_peer(store) {
            Some(peer) if way == MAIN => peer.lanes[MAIN].push_calls(calls),
            Some(peer) => {
                let mut messages = Vec::new();
                let mut calls = calls.filter_map(|call| match call.0.body {
                    Body::PubSub(_) => {
                        messages.push(call);
                        None
                    }
                    _ => Some(call),
                });
                if let Some(first) = calls.next() {
                    peer.lanes[way].push_calls(std::iter::once(first).chain(calls));
                }
                if !messages.is_empty() {
                    peer.lanes[MAIN].push_calls(messages.into_iter());
                }
            }
            None => {
                let why = format!("the address of store {store} is unknown");
                for (_, sink, token) in calls {
                    sink.complete(token, Err(RequestError::Unavailable(why.clone())));
                }
            }
        }
    }

    /// All stores of the cluster but this one.
    pub fn others(&self) -> Vec<StoreId> {
        self.book.others(self.me.store_id())
    }

    /// Opens links to all stores of the address book, so that none waits for the first use.
    pub fn connect_all(self: &Arc<Self>) {
        for store in self
            .book
            .all()
            .into_keys()
            .filter(|s| *s != self.me.store_id())
        {
            self.peer(store);
        }
    }

    /// Whether the worker's link to `store` is up.
    pub fn is_connected(&self, store: StoreId) -> bool {
        self.peers
            .read()
            .get(&store)
            .is_some_and(|p| p.lanes[MAIN].is_open())
    }

    /// A store has opened a stream to this one.
    pub fn called_by(&self, store: StoreId) {
        self.callers.lock().insert(store);
    }

    /// Whether this store reaches `store` and has been reached by it.
    pub fn has_met(&self, store: StoreId) -> bool {
        self.is_connected(store) && self.callers.lock().contains(&store)
    }

    /// The stream to a store whose address is known.
    fn known_peer(self: &Arc<Self>, store: StoreId) -> Option<Arc<Peer>> {
        if let Some(peer) = self.peers.read().get(&store) {
            return Some(peer.clone());
        }
        self.book.grpc(store).map(|_| self.peer(store))
    }

    fn peer(self: &Arc<Self>, store: StoreId) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(&store) {
            return peer.clone();
        }
        let mut peers = self.peers.write();
        let new = || {
            let lanes = self.readers.iter().map(|_| Arc::default()).collect();
            let peer = Arc::new(Peer {
                store,
                lanes,
                reported_ns: AtomicU64::new(0),
            });
            for way in 0..self.readers.len() {
                self.runtime
                    .spawn(self.clone().keep_connected(peer.clone(), way));
            }
            peer
        };
        peers.entry(store).or_insert_with(new).clone()
    }

    /// Tells the worker that messages are being lost.
    fn report(&self, peer: &Peer) {
        let now = super::clock::mono_ns();
        let last = peer.reported_ns.load(Ordering::Relaxed);
        if now >= last + UNREACHABLE_EVERY_NS
            && peer
                .reported_ns
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.mailbox.push(Event::Unreachable(peer.store));
        }
    }

    /// Connects again and again, for as long as the store belongs to the cluster.
    async fn keep_connected(self: Arc<Self>, peer: Arc<Peer>, way: Way) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut last_error = String::new();
        loop {
            let error = self.converse(&peer, way).await;
            if peer.lanes[way].close() {
                backoff.reset();
                last_error.clear();
                // Raft's messages go by the worker's alone.
                if way == MAIN {
                    self.report(&peer);
                }
            }
            if error != last_error {
                tracing::info!(store = %peer.store, way, error, "no link to store");
                last_error = error;
            }
            if self.book.get(peer.store).is_none() {
                tracing::info!(store = %peer.store, "store was removed");
                self.peers.write().remove(&peer.store);
                return;
            }
            tokio::time::sleep(backoff.step()).await;
        }
    }

    /// One link, from its opening to its end, and why it ended.
    async fn converse(&self, peer: &Peer, way: Way) -> String {
        let Some(address) = self.book.grpc(peer.store) else {
            return "its address is unknown".into();
        };
        let registered = self.book.get(peer.store).map_or(0, |e| e.incarnation);
        let greeting = Greeting::new(&self.me, peer.store, registered);
        let opened = link::open(&address, &greeting).await;
        let (stream, understood) = match opened {
            Ok(opened) => opened,
            Err(why) => return why,
        };
        let stream = match link::socket(stream) {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let lane = peer.lanes[way].clone();
        let session = lane.open(stream.clone(), understood);
        tracing::info!(store = %peer.store, way, address, "link to store is up");
        let link = Open {
            stream,
            sending: lane.clone(),
            session,
        };
        let take = move |frame: Frame| lane.complete(frame.responses);
        link::run(link, &self.readers[way], take).await.to_string()
    }
}
