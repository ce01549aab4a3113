//! How the router reaches stores: traits that the binary wires to workers and streams,
//! and that the simulation wires to its network.

use bytes::Bytes;
use rangekv_proto::{
    EvaluatorId, LeaderHint, RangeDescriptor, RangeId, ReplySink, Request, StoreId,
};
use std::sync::Arc;

/// Sends requests towards stores.
pub trait Stores: Send + Sync {
    /// This process's own store.
    fn local(&self) -> StoreId;

    /// Sends `request` to `store`; requests of one caller to one store arrive in order.
    /// `sink` gets exactly one response: if the connection breaks after the request may have
    /// been sent, `OutcomeUnknown` (for writes; `Unavailable` if it is read-only or was not sent).
    fn send(&self, store: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64);

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
}
