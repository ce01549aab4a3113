//! Splits ranges that have grown too large. Each leader looks after its own ranges.
//!
//! The placement driver gives out the ids, and says what too large is (`range-split-size`).

use super::running::Running;
use crate::ctl::hex;
use crate::ctl::server::change;
use rangekv_model::redis::RedisModel;
use rangekv_proto::RangeDescriptor;
use rangekv_store::size::split_key;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at all ranges of this store.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks, and splits, for as long as the process lives.
pub async fn run(node: Arc<Running>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let me = node.identity.store_id();
        for (range, leader) in node.shared.routes() {
            if leader.is_some_and(|hint| hint.store == me) {
                look_at(&node, range).await;
            }
        }
    }
}

async fn look_at(node: &Arc<Running>, range: RangeDescriptor) {
    let id = range.id.0;
    let bytes_max = node.heartbeats.state.lock().config().range_split_bytes;
    let engine = node.engine.clone();
    // Estimates look into the memtable, and the key is found by reading: not on this thread.
    let find = move || split_key(&*engine, &range, &RedisModel, bytes_max);
    let key = match tokio::task::spawn_blocking(find).await {
        Ok(Some(key)) => key,
        Ok(None) => return,
        Err(error) => return tracing::error!(group = id, %error, "looking for a key to split at"),
    };
    tracing::info!(group = id, bytes_max, key = ?key, "the range has grown too large: splitting it");
    if let Err(error) = change::split(node, Some(id), &hex(&key)).await {
        // It is still too large at the next look.
        tracing::warn!(group = id, ?error, "the range could not be split");
    }
}
