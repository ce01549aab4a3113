//! Carries out what the placement driver orders of the ranges that this store leads.
//!
//! An order becomes an admin request to this store's own replica, with ids from range 1 where it
//! takes any. Whether it is still in place is for the replica to say: it compares epochs.

use super::calls::Calls;
use super::once::once;
use super::stores::NodeStores;
use bytes::Bytes;
use prost::Message;
use rangekv_model::redis::RedisModel;
use rangekv_pd::operator::{Order, Step};
use rangekv_proto::internal::placement_command::{AllocateIds, BumpCatalog, Kind};
use rangekv_proto::internal::HeartbeatReply;
use rangekv_proto::{Mark, RangeDescriptor, Request};
use rangekv_router::cache::SharedCache;
use rangekv_store::engine::StateEngine;
use rangekv_store::size::split_key;
use std::sync::Arc;
use std::time::Duration;

/// Range 1 has this long to give out ids.
const IDS_TIME_MAX: Duration = Duration::from_secs(5);

/// What carrying out an order takes.
#[derive(Clone)]
pub struct Hands {
    /// This store's worker.
    pub stores: Arc<NodeStores>,
    /// Ids come from range 1.
    pub calls: Calls,
    /// Told of new bounds.
    pub cache: Arc<SharedCache>,
    /// Asked where to cut.
    pub engine: Arc<dyn StateEngine>,
}

impl Hands {
    /// Under `mark` the request is traced. The error says why nothing, or perhaps nothing, was done.
    pub async fn carry_out(&self, mut order: Order, mark: Mark) -> Result<(), String> {
        let cell = self.stores.shared.cell(order.range);
        let route = cell.and_then(|cell| cell.route());
        let range = &route.ok_or("this store has no replica of the range")?.0;
        if let Step::Split(key) = &mut order.step {
            if key.is_empty() {
                *key = self.middle(range).await?;
            }
        }
        let replicas = range.replicas.len();
        let first_id = match order.ids_needed(replicas) {
            0 => 0,
            count => self.allocate(count).await?,
        };
        let (sink, response) = once();
        let request = Request {
            mark,
            ..order.request(first_id, replicas)
        };
        self.stores.mailbox.request(request, sink, 0);
        let reply = response.await.map_err(|e| e.to_string())?;
        if matches!(order.step, Step::Split(_) | Step::Merge(..)) {
            self.tell_of_bounds(reply).await;
        }
        Ok(())
    }

    /// A key that divides the range's bytes; found by reading, so not on this thread.
    async fn middle(&self, range: &RangeDescriptor) -> Result<Bytes, String> {
        let (engine, range) = (self.engine.clone(), range.clone());
        let find = move || split_key(&*engine, &range, &RedisModel, 0);
        let found = tokio::task::spawn_blocking(find).await;
        let key = found.map_err(|e| e.to_string())?;
        key.ok_or_else(|| "no key divides the range".into())
    }

    async fn allocate(&self, count: u64) -> Result<u64, String> {
        let allocate = Kind::AllocateIds(AllocateIds { count });
        let reply = self.calls.placement(allocate, IDS_TIME_MAX).await;
        match reply {
            Ok(reply) if reply.error.is_empty() => Ok(reply.first_id),
            Ok(reply) => Err(reply.error),
            Err(error) => Err(format!("no ids from the placement driver: {error}")),
        }
    }

    /// Bounds have changed: who routes by the old ones, or watches the catalog, hears of it.
    async fn tell_of_bounds(&self, reply: Bytes) {
        let routes = HeartbeatReply::decode(reply).map_or(Vec::new(), |r| r.routes);
        let ranges = routes.iter().filter_map(|route| route.range.as_ref());
        self.cache
            .apply_routes(ranges.map(|range| (range.into(), None)));
        let bump = Kind::BumpCatalog(BumpCatalog { expected: 0 });
        if let Err(error) = self.calls.placement(bump, IDS_TIME_MAX).await {
            tracing::warn!(%error, "the catalog version was not raised after a split or merge");
        }
    }
}
