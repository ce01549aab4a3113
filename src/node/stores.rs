//! The way from this process's own callers to stores: the local worker, or a stream.

use super::clock;
use super::mailbox::Mailbox;
use super::placement::Placement;
use super::transport::{Transport, Way};
use bytes::Bytes;
use rangekv_proto::{
    Body, EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplySink, Request, StoreId,
};
use rangekv_router::stores::{SentCall, Stores};
use rangekv_store::reader::LocalReader;
use rangekv_store::shared::StoreShared;
use std::sync::Arc;
use tokio::sync::Notify;

/// [`Stores`] of a running store, for one thread of the Redis door, or for everybody else.
#[derive(Clone)]
pub struct NodeStores {
    /// This store.
    pub me: StoreId,
    /// By which links requests go.
    pub way: Way,
    /// Its worker.
    pub mailbox: Arc<Mailbox>,
    /// The other stores.
    pub transport: Arc<Transport>,
    /// Reads without the worker.
    pub reader: LocalReader,
    /// What the worker publishes.
    pub shared: Arc<StoreShared>,
    /// Heartbeats are answered here, not by the worker.
    pub placement: Arc<Placement>,
    /// Told when somebody misses a route.
    pub routes_wanted: Arc<Notify>,
}

impl Stores for NodeStores {
    fn local(&self) -> StoreId {
        self.me
    }

    fn others(&self) -> Vec<StoreId> {
        self.transport.others()
    }

    fn send(&self, store: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        if store == self.me {
            self.deliver(std::iter::once((request, sink.clone(), token)));
        } else {
            let call = (request, sink.clone(), token);
            self.transport
                .send_calls(self.way, store, std::iter::once(call));
        }
    }

    fn send_batch(
        &self,
        store: StoreId,
        batch: &mut Vec<(Request, u64)>,
        sink: &Arc<dyn ReplySink>,
    ) {
        let call = |(request, token)| (request, sink.clone(), token);
        let calls = batch.drain(..).map(call);
        if store == self.me {
            self.deliver(calls);
        } else {
            self.transport.send_calls(self.way, store, calls);
        }
    }

    fn send_calls(&self, store: StoreId, calls: &mut Vec<SentCall>) {
        if store == self.me {
            self.deliver(calls.drain(..));
        } else {
            self.transport.send_calls(self.way, store, calls.drain(..));
        }
    }

    fn read_local(
        &self,
        range: RangeId,
        version: u64,
        evaluator: EvaluatorId,
        command: &Bytes,
    ) -> Option<Bytes> {
        let read = self
            .reader
            .begin(range, version, evaluator, command, clock::now())?;
        // The clock is read again: the lease must cover the whole read.
        read.validate(clock::now())
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        self.shared.routes()
    }

    fn want_route(&self, _key: &[u8]) {
        self.routes_wanted.notify_one();
    }
}

impl NodeStores {
    /// Requests for this store, its own or another's, in order.
    pub fn deliver(&self, calls: impl Iterator<Item = SentCall>) {
        let for_worker = calls.filter_map(|(request, sink, token)| match request.body {
            Body::Heartbeat(heartbeat) => {
                self.placement.answer(heartbeat, sink, token);
                None
            }
            _ => Some((request, sink, token)),
        });
        self.mailbox.requests(for_worker);
    }
}
