//! Removes what nobody can see any more from the ranges that this store leads: expired keys, and
//! elements of collections that were deleted or replaced.
//!
//! A pass walks a range page by page, with pauses, so that it takes little of a core and of the
//! disk. A page is first looked at on this side, like any read under the lease; only one
//! that has garbage is sent to the worker, whose evaluation finds it anew and proposes the
//! deletions. A range in which nothing was written since the last pass, and nothing has come to
//! expire, is left alone: an idle one costs nothing.
//!
//! Nothing depends on it but space: commands see expired keys as absent, and garbage never.

use super::clock;
use super::once::once;
use super::running::Running;
use bytes::Bytes;
use rangekv_model::redis::sweep::{command, Page};
use rangekv_proto::{Body, EvaluatorId, Mark, RangeDescriptor, RangeId, Request, PLACEMENT_RANGE};
use rangekv_router::stores::Stores;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at which ranges are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two passes over one range.
const PASS_EVERY_MS: u64 = 10_000;
/// Records that a page looks at: well below a millisecond of the worker.
const PAGE_RECORDS: u32 = 500;
/// After a page without much garbage: at most 20,000 records per second.
const PAUSE: Duration = Duration::from_millis(25);
/// After a page that was full of it: at most 250,000.
const PAUSE_FULL: Duration = Duration::from_millis(2);

/// What is known about a range since its last pass.
#[derive(Clone, Copy, Debug)]
struct Swept {
    at_ms: u64,
    /// Evaluations that wrote, before the pass began.
    writes: u64,
    /// When the next key expires.
    earliest_ms: Option<u64>,
}

impl Swept {
    fn is_due(&self, writes: u64, now_ms: u64) -> bool {
        let expired = self.earliest_ms.is_some_and(|at| at <= now_ms);
        now_ms >= self.at_ms.saturating_add(PASS_EVERY_MS) && (expired || writes != self.writes)
    }
}

/// Sweeps for as long as the process lives.
pub async fn run(node: Arc<Running>) {
    let mut swept: BTreeMap<RangeId, Swept> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let me = node.identity.store_id();
        let routes = node.shared.routes();
        let led: Vec<(RangeDescriptor, u64)> = routes
            .into_iter()
            .filter_map(|(range, leader)| {
                let hint = leader.filter(|hint| hint.store == me)?;
                (range.id != PLACEMENT_RANGE).then_some((range, hint.term))
            })
            .collect();
        swept.retain(|id, _| led.iter().any(|(range, _)| range.id == *id));
        for (range, term) in led {
            let Some(cell) = node.shared.cell(range.id) else {
                continue;
            };
            let (id, at_ms) = (range.id, clock::wall_ms());
            let writes = cell.writes.load(Ordering::Relaxed);
            if swept
                .get(&id)
                .is_some_and(|last| !last.is_due(writes, at_ms))
            {
                continue;
            }
            // A pass that was stopped begins anew with the next look.
            if let Some(earliest_ms) = pass(&node, &range, term).await {
                let pass = Swept {
                    at_ms,
                    writes,
                    earliest_ms,
                };
                swept.insert(id, pass);
            }
        }
    }
}

/// Walks a whole range: when the first of its keys expires, if one does. `None` if the range was
/// split or led by another before the end.
async fn pass(node: &Arc<Running>, range: &RangeDescriptor, term: u64) -> Option<Option<u64>> {
    let mut start = Bytes::new();
    let (mut removed, mut earliest) = (0, None);
    loop {
        let page = page(node, range, term, &start).await?;
        removed += page.removed;
        earliest = [earliest, page.earliest_ms].into_iter().flatten().min();
        if page.next.is_empty() {
            if removed > 0 {
                tracing::debug!(range = range.id.0, removed, "swept");
            }
            return Some(earliest);
        }
        start = page.next;
        let full = page.removed >= u64::from(PAGE_RECORDS / 2);
        tokio::time::sleep(if full { PAUSE_FULL } else { PAUSE }).await;
    }
}

async fn page(
    node: &Arc<Running>,
    range: &RangeDescriptor,
    term: u64,
    start: &Bytes,
) -> Option<Page> {
    let (id, version, redis) = (range.id, range.epoch.version, EvaluatorId::REDIS);
    let command = command(start, PAGE_RECORDS);
    // It may wait for the disk: not on this thread.
    let (stores, read) = (node.stores.clone(), command.clone());
    let look = move || stores.read_local(id, version, redis, &read);
    if let Some(reply) = tokio::task::spawn_blocking(look).await.ok()? {
        return Page::parse(&reply);
    }
    let request = Request {
        range: id,
        version,
        term,
        mark: Mark::NONE,
        body: Body::Command {
            evaluator: redis,
            read_only: false,
            command,
        },
    };
    let (sink, response) = once();
    node.mailbox.request(request, sink, 0);
    Page::parse(&response.await.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_ranges_are_due_and_not_at_once() {
        let swept = |earliest_ms| Swept {
            at_ms: 100_000,
            writes: 7,
            earliest_ms,
        };
        for (earliest_ms, writes, now_ms, expected) in [
            (None, 7, 1_000_000, false),
            (None, 8, 1_000_000, true),
            (None, 8, 100_000 + PASS_EVERY_MS - 1, false),
            (Some(500_000), 7, 499_999, false),
            (Some(500_000), 7, 500_000, true),
            (Some(1), 7, 100_001, false),
        ] {
            let due = swept(earliest_ms).is_due(writes, now_ms);
            assert_eq!(due, expected, "{earliest_ms:?} {writes} {now_ms}");
        }
    }
}
