//! How the router reaches stores: traits that the binary wires to workers and streams,
//! and that the simulation wires to its network.

use bytes::Bytes;
use rangekv_proto::{
    EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplySink, Request, StoreId,
};
use std::sync::Arc;

/// A request, who gets its response, and their name for it.
pub type SentCall = (Request, Arc<dyn ReplySink>, u64);

/// Sends requests towards stores.
pub trait Stores: Send + Sync {
    /// This process's own store.
    fn local(&self) -> StoreId;

    /// All other stores of the cluster, as far as they are known: their nodes have doors too.
    fn others(&self) -> Vec<StoreId> {
        Vec::new()
    }

    /// Sends `request` to `store`; requests of one caller to one store arrive in order.
    /// `sink` gets exactly one response: if the connection breaks after the request may have
    /// been sent, `OutcomeUnknown` (for writes; `Unavailable` if it is read-only or was not sent).
    fn send(&self, store: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64);

    /// Sends what `batch` holds, in order, and leaves it empty. What a connection has read at
    /// once arrives here at once: one push into a mailbox, one frame of a stream.
    fn send_batch(
        &self,
        store: StoreId,
        batch: &mut Vec<(Request, u64)>,
        sink: &Arc<dyn ReplySink>,
    ) {
        for (request, token) in batch.drain(..) {
            self.send(store, request, sink, token);
        }
    }

    /// Sends requests of several callers, in order, and leaves `calls` empty.
    fn send_calls(&self, store: StoreId, calls: &mut Vec<SentCall>) {
        for (request, sink, token) in calls.drain(..) {
            self.send(store, request, &sink, token);
        }
    }

    /// Evaluates a read-only command on the calling thread if this store leads `range` at
    /// `version` under a valid lease; `None` = it can't, go through [`send`](Self::send).
    fn read_local(
        &self,
        range: RangeId,
        version: u64,
        evaluator: EvaluatorId,
        command: &Bytes,
    ) -> Option<Bytes>;

    /// Descriptors and leaders of the replicas on this store, for filling an empty cache.
    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)>;

    /// A request for `key` found no route, or only replicas that know nothing of its range.
    /// Whoever can ask the placement driver does so, and hands the answer to
    /// [`SharedCache::apply_routes`](crate::cache::SharedCache::apply_routes). Never blocks;
    /// called again with every retry, so it bounds its own rate.
    fn want_route(&self, key: &[u8]) {
        let _ = key;
    }
}
