//! A store that has its seat: what the services and doors of the process share.

use super::book::AddressBook;
use super::calls::Calls;
use super::heartbeat::Heartbeats;
use super::identity::Identity;
use super::mailbox::Mailbox;
use super::placement::Placement;
use super::pubsub::Inbound;
use super::receive::SnapshotReceiver;
use super::seat::Seat;
use super::stores::NodeStores;
use super::watchdog::Pulse;
use crate::trace::Tracer;
use rangekv_router::cache::SharedCache;
use rangekv_router::poll::ports::Entrance;
use rangekv_router::pubsub::Hub;
use rangekv_store::engine::StateEngine;
use rangekv_store::shared::StoreShared;
use std::sync::Arc;
use std::time::Instant;

/// See the module's documentation.
pub struct Running {
    /// Who this store is.
    pub identity: Identity,
    /// How it got its seat.
    pub seat: Arc<Seat>,
    /// The worker's mailbox.
    pub mailbox: Arc<Mailbox>,
    /// Links that the worker reads.
    pub worker: Arc<Entrance>,
    /// What the worker publishes.
    pub shared: Arc<StoreShared>,
    /// The state engine.
    pub engine: Arc<dyn StateEngine>,
    /// The way to all stores.
    pub stores: Arc<NodeStores>,
    /// The router's routes.
    pub cache: Arc<SharedCache>,
    /// Addresses of all stores.
    pub book: Arc<AddressBook>,
    /// The process's own calls.
    pub calls: Calls,
    /// The placement driver, while this store leads range 1.
    pub placement: Arc<Placement>,
    /// This store's heartbeats.
    pub heartbeats: Arc<Heartbeats>,
    /// Snapshots from other stores.
    pub snapshots: SnapshotReceiver,
    /// Who is subscribed to what here.
    pub hub: Arc<Hub>,
    /// Pub/Sub messages of other nodes.
    pub pubsub: Inbound,
    /// Whether the worker moves.
    pub pulse: Arc<Pulse>,
    /// Who makes spans, if anything is traced.
    pub tracer: Option<Arc<Tracer>>,
    /// When the process started.
    pub started: Instant,
}

impl Running {
    /// Ranges that this store leads, and how many of them another store could be handed.
    pub fn led(&self) -> (usize, usize) {
        let me = self.identity.store_id();
        let led: Vec<_> = self.shared.routes();
        let led = led
            .into_iter()
            .filter(|(_, hint)| hint.is_some_and(|h| h.store == me));
        let (mut all, mut movable) = (0, 0);
        for (descriptor, _) in led {
            all += 1;
            let takes = |store| store != me && self.shared.is_taker(store);
            movable += usize::from(descriptor.replicas.iter().any(|r| takes(r.store)));
        }
        (all, movable)
    }
}
