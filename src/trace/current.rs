//! The trace that a task works for: a door's calls find it here, so that nothing between the door and
//! [`Calls`](crate::node::calls::Calls) needs to know of traces.

use parking_lot::Mutex;
use rangekv_proto::{Mark, RangeId, StoreId};
use rangekv_router::trace::Asked;
use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static CURRENT: Current;
}

/// A traced request under way.
#[derive(Clone)]
pub struct Current {
    /// Its trace.
    pub mark: Mark,
    asked: Arc<Mutex<Asked>>,
}

impl Current {
    /// A request that begins.
    pub fn new(mark: Mark) -> Self {
        Current {
            mark,
            asked: Arc::default(),
        }
    }

    /// Runs `work` for this request. Tasks that it spawns do not belong to it.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.clone(), work).await
    }

    /// What was asked for it.
    pub fn asked(&self) -> Asked {
        self.asked.lock().clone()
    }
}

/// `store` is asked for `range`: under which mark.
pub fn note(range: RangeId, store: StoreId) -> Mark {
    let noted = CURRENT.try_with(|current| {
        current.asked.lock().note(range, store);
        current.mark
    });
    // Outside of any: nobody traces it.
    noted.unwrap_or(Mark::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_runs_for_a_request_is_noted() {
        assert_eq!(note(RangeId(1), StoreId(1)), Mark::NONE);
        let current = Current::new(Mark(5));
        let mark = current.run(async { note(RangeId(2), StoreId(3)) }).await;
        assert_eq!(mark, Mark(5));
        let asked = current.asked();
        assert_eq!(
            (asked.ranges, asked.store),
            (vec![RangeId(2)], Some(StoreId(3)))
        );
        assert_eq!(note(RangeId(1), StoreId(1)), Mark::NONE);
    }
}
