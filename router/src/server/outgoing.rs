//! Requests that a thread's connections have started and that leave together, per store.

use crate::stores::{SentCall, Stores};
use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_proto::{
    EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplySink, Request, StoreId,
};
use std::sync::Arc;

/// [`Stores`] for the sessions of one thread: keeps what they send until [`flush`](Self::flush).
/// Requests of one connection to one store leave in their order.
pub(super) struct Outgoing {
    stores: Arc<dyn Stores>,
    // Never contended: only the thread that owns this sends. A cluster has few stores.
    calls: Mutex<Vec<(StoreId, Vec<SentCall>)>>,
}

impl Outgoing {
    pub(super) fn new(stores: Arc<dyn Stores>) -> Self {
        Outgoing {
            stores,
            calls: Mutex::default(),
        }
    }

    /// Sends what is kept.
    pub(super) fn flush(&self) {
        for (store, calls) in &mut *self.calls.lock() {
            if !calls.is_empty() {
                self.stores.send_calls(*store, calls);
                calls.clear();
            }
        }
    }

    fn keep(&self, store: StoreId, calls: impl Iterator<Item = SentCall>) {
        let mut kept = self.calls.lock();
        match kept.iter_mut().find(|(to, _)| *to == store) {
            Some((_, kept)) => kept.extend(calls),
            None => kept.push((store, calls.collect())),
        }
    }
}

impl Stores for Outgoing {
    fn local(&self) -> StoreId {
        self.stores.local()
    }

    fn others(&self) -> Vec<StoreId> {
        self.stores.others()
    }

    fn send(&self, store: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        self.keep(store, std::iter::once((request, sink.clone(), token)));
    }

    fn send_batch(
        &self,
        store: StoreId,
        batch: &mut Vec<(Request, u64)>,
        sink: &Arc<dyn ReplySink>,
    ) {
        let call = |(request, token)| (request, sink.clone(), token);
        self.keep(store, batch.drain(..).map(call));
    }

    fn read_local(
        &self,
        range: RangeId,
        version: u64,
        evaluator: EvaluatorId,
        command: &Bytes,
    ) -> Option<Bytes> {
        self.stores.read_local(range, version, evaluator, command)
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        self.stores.local_routes()
    }

    fn want_route(&self, key: &[u8]) {
        self.stores.want_route(key);
    }
}
