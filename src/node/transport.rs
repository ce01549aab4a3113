//! One long-lived link to each other store: raft envelopes and requests go up, responses
//! come down. The other store's own envelopes and requests come on the link that it opens.
//!
//! A store that can't be reached costs its callers nothing: envelopes to it are dropped (and
//! the worker told), requests answered at once; a task per store keeps trying to connect.

use super::book::AddressBook;
use super::dial::Backoff;
use super::frame::{Frame, Reader};
use super::greeting::Greeting;
use super::identity::Identity;
use super::lane::Lane;
use super::link;
use super::mailbox::Mailbox;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rangekv_proto::{RequestError, StoreId};
use rangekv_router::stores::SentCall;
use rangekv_store::event::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The worker hears of a store's lost messages at most this often.
const UNREACHABLE_EVERY_NS: u64 = 200_000_000;

/// Streams to the other stores, opened when first needed.
pub struct Transport {
    me: Identity,
    book: Arc<AddressBook>,
    mailbox: Arc<Mailbox>,
    runtime: Handle,
    peers: RwLock<BTreeMap<StoreId, Arc<Peer>>>,
    /// Stores that have opened a stream to this one since the start.
    callers: Mutex<BTreeSet<StoreId>>,
}

struct Peer {
    store: StoreId,
    lane: Arc<Lane>,
    reported_ns: AtomicU64,
}

impl Transport {
    /// Connects to nobody yet. `mailbox` hears of stores that messages don't reach.
    pub fn new(
        me: Identity,
        book: Arc<AddressBook>,
        mailbox: Arc<Mailbox>,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Transport {
            me,
            book,
            mailbox,
            runtime,
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
        let queued = peer.lane.push_raft(envelopes);
        if !queued {
            self.report(&peer);
        }
        queued
    }

    /// Sends requests in order, or answers them at once.
    pub fn send_calls(self: &Arc<Self>, store: StoreId, calls: impl Iterator<Item = SentCall>) {
        match self.known_peer(store) {
            Some(peer) => peer.lane.push_calls(calls),
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

    /// Opens streams to all stores of the address book, so that none waits for the first use.
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

    /// Whether the stream to `store` is up.
    pub fn is_connected(&self, store: StoreId) -> bool {
        self.peers
            .read()
            .get(&store)
            .is_some_and(|p| p.lane.is_open())
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
            let lane = Arc::new(Lane::default());
            let peer = Arc::new(Peer {
                store,
                lane,
                reported_ns: AtomicU64::new(0),
            });
            self.runtime
                .spawn(self.clone().keep_connected(peer.clone()));
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
    async fn keep_connected(self: Arc<Self>, peer: Arc<Peer>) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut last_error = String::new();
        loop {
            let ended = self.converse(&peer).await;
            if peer.lane.close() {
                backoff.reset();
                last_error.clear();
                self.report(&peer);
            }
            let error = ended.err().unwrap_or("closed by the other side".into());
            if error != last_error {
                tracing::info!(store = %peer.store, error, "no link to store");
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

    /// One link, from its opening to its end.
    async fn converse(&self, peer: &Peer) -> Result<(), String> {
        let address = self.book.grpc(peer.store).ok_or("its address is unknown")?;
        let registered = self.book.get(peer.store).map_or(0, |e| e.incarnation);
        let greeting = Greeting::new(&self.me, peer.store, registered);
        let (reader, writer) = link::open(&address, &greeting).await?.into_split();
        let writer = Arc::new(writer);
        peer.lane.open(writer.clone());
        tracing::info!(store = %peer.store, address, "link to store is up");
        let lane = &peer.lane;
        let take = |frame: Frame| {
            lane.complete(frame.responses);
            false
        };
        link::run(Reader::new(reader), &writer, lane.outlet(), take, || false)
            .await
            .map_err(|e| e.to_string())
    }
}
