//! `/events`: the cluster as server-sent events, for the status page.
//!
//! `snapshot` carries the whole cluster, whenever it differs from what was sent before;
//! `tick` says once per turn that the store is alive, and how old what it knows is. What can't
//! be known is an event as well (`trouble`): a page that hears nothing at all knows that its
//! connection is gone.

use super::answer::Failure;
use super::site::Site;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde_json::json;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Pages that may follow one store; each further one is told to come back.
const VIEWERS_MAX: usize = 64;

/// Whoever follows, until the end.
struct Viewer {
    site: Arc<Site>,
    turn: Duration,
    first: bool,
    seen: Option<Arc<str>>,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.site.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `GET /events`
pub async fn follow(State(site): State<Arc<Site>>) -> Response {
    let viewers = site.viewers.fetch_add(1, Ordering::Relaxed);
    let viewer = Viewer {
        site,
        turn: Duration::from_secs(1),
        first: true,
        seen: None,
    };
    if viewers >= VIEWERS_MAX {
        let why = format!("{VIEWERS_MAX} pages follow this store already; try another store");
        return Failure::unavailable(why).response();
    }
    Sse::new(events(viewer)).into_response()
}

fn events(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(viewer, |mut viewer| async move {
        if !std::mem::take(&mut viewer.first) {
            tokio::time::sleep(viewer.turn).await;
        }
        let event = viewer.next().await;
        Some((Ok(event), viewer))
    })
}

impl Viewer {
    async fn next(&mut self) -> Event {
        let snapshot = match self.site.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(Failure::Unavailable { why, .. }) => {
                self.seen = None;
                let trouble = json!({ "why": why });
                return Event::default().event("trouble").data(trouble.to_string());
            }
            Err(other) => return Event::default().event("trouble").data(format!("{other:?}")),
        };
        let ranges = snapshot.overview.ranges.len();
        self.turn = turn(ranges);
        let page = snapshot.page();
        if self
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &page))
        {
            let tick = json!({ "taken_ms": snapshot.taken_ms });
            return Event::default().event("tick").data(tick.to_string());
        }
        let event = Event::default().event("snapshot").data(&*page);
        self.seen = Some(page);
        event
    }
}

/// How often a page is told: a large cluster less often, so that watching it costs each viewer
/// about as much.
fn turn(ranges: usize) -> Duration {
    Duration::from_secs(match ranges {
        0..=500 => 1,
        501..=2_000 => 2,
        _ => 5,
    })
}
