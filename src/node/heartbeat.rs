//! This store's heartbeats: what it reports, and what comes of the answers.
//!
//! The `pd` crate decides when and what ([`HeartbeatState`]); this file gathers the figures,
//! sends, and hands on: routes to the router's cache, addresses to the book, operators to
//! this store's worker.

use super::book::{AddressBook, StoreEntry};
use super::calls::Calls;
use super::disk::DiskWatch;
use super::once::once;
use super::placement::now_ms;
use super::stores::NodeStores;
use parking_lot::Mutex;
use prost::Message;
use rangekv_pd::client::{HeartbeatState, News, Vitals};
use rangekv_pd::schedule::Operator;
use rangekv_pd::state::StoreState;
use rangekv_proto::internal::{HeartbeatReply, RangeReport, StoreRecord};
use rangekv_proto::{RangeDescriptor, RangeId, StoreId};
use rangekv_router::cache::SharedCache;
use rangekv_store::engine::StateEngine;
use rangekv_store::meta::data_bounds;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, Notify};

/// How often changes are looked for; also the resolution of all intervals.
const LOOK: Duration = Duration::from_millis(50);
/// Sizes are asked of the engine this often.
const SIZES_EVERY_MS: u64 = 10_000;
/// Load is averaged over at least this long.
const LOAD_OVER_MS: u64 = 2_000;

/// See the module's documentation.
pub struct Heartbeats {
    /// Where requests go.
    pub stores: Arc<NodeStores>,
    /// How calls are made.
    pub calls: Calls,
    /// Filled by the answers.
    pub cache: Arc<SharedCache>,
    /// Filled by the answers.
    pub book: Arc<AddressBook>,
    /// Asked for sizes.
    pub engine: Arc<dyn StateEngine>,
    /// Asked for room.
    pub disk: Arc<DiskWatch>,
    /// Woken when somebody misses a route.
    pub routes_wanted: Arc<Notify>,
    /// Nothing is reported before this store is registered.
    pub registered: AtomicBool,
    /// Told when the placement driver does not accept this store.
    pub rejected: mpsc::Sender<String>,
    /// The protocol's state.
    pub state: Mutex<HeartbeatState>,
    /// When the process started.
    pub started: Instant,
}

type AllFigures = BTreeMap<RangeId, Figures>;

/// Figures of one led range, between heartbeats.
#[derive(Clone, Copy, Default)]
struct Figures {
    size_bytes: u64,
    sized_ms: u64,
    reads: u64,
    writes: u64,
    counted_ms: u64,
    reads_per_second: u64,
    writes_per_second: u64,
}

impl Heartbeats {
    /// Runs until the process ends.
    pub async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        let mut figures = AllFigures::new();
        let mut generation = None;
        loop {
            let now = self.stores.shared.routes_generation();
            if generation != Some(now) {
                generation = Some(now);
                self.cache.apply_routes(self.stores.shared.routes());
                self.state.lock().changed();
            }
            let registered = self.registered.load(Ordering::Relaxed);
            if registered && self.state.lock().due(now_ms()) {
                let vitals;
                (vitals, figures) = self.clone().gather(figures).await?;
                let (ticket, heartbeat) = self.state.lock().build(now_ms(), vitals);
                let heartbeat = heartbeat.encode_to_vec().into();
                let this = self.clone();
                tokio::spawn(async move { this.send(ticket, heartbeat).await });
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.routes_wanted.notified() => {
                    self.state.lock().changed();
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    async fn send(&self, ticket: u64, heartbeat: bytes::Bytes) {
        let within = Duration::from_millis(rangekv_pd::client::LOST_MS);
        let reply = match self.calls.heartbeat(heartbeat, within).await {
            Ok(bytes) => HeartbeatReply::decode(bytes).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(error, "heartbeat failed");
                return self.state.lock().failed(ticket);
            }
        };
        let news = self.state.lock().reply(now_ms(), ticket, &reply);
        match news {
            Ok(news) => self.learn(news, &reply.stores),
            // Registration finds out whether that is final; one attempt at a time is enough.
            Err(error) => drop(self.rejected.try_send(error)),
        }
    }

    fn learn(&self, news: News, stores: &[StoreRecord]) {
        if !news.routes.is_empty() {
            let routes = news.routes.into_iter().map(|r| (r.range, r.leader));
            self.cache.apply_routes(routes);
        }
        if let Err(e) = learn_stores(&self.book, stores) {
            tracing::error!(error = %e, "the addresses of the stores can't be kept");
        }
        self.stores.transport.connect_all();
        for operator in news.operators {
            self.carry_out(operator);
        }
    }

    fn carry_out(&self, operator: Operator) {
        let mailbox = self.stores.mailbox.clone();
        tokio::spawn(async move {
            let (sink, response) = once();
            mailbox.request(operator.request(), sink, 0);
            let group = operator.range.0;
            match response.await {
                Ok(_) => {
                    tracing::info!(group, step = ?operator.step, reason = operator.reason, "operator carried out")
                }
                // The placement driver sees that nothing changed, and decides anew.
                Err(error) => {
                    tracing::info!(group, step = ?operator.step, %error, "operator not carried out")
                }
            }
        });
    }

    /// Sizes are found by reading: not on a thread that serves connections.
    async fn gather(
        self: Arc<Self>,
        mut figures: AllFigures,
    ) -> anyhow::Result<(Vitals, AllFigures)> {
        let gather = move || (self.vitals(&mut figures), figures);
        Ok(tokio::task::spawn_blocking(gather).await?)
    }

    fn vitals(&self, figures: &mut AllFigures) -> Vitals {
        let me = self.stores.me;
        let led: Vec<(RangeDescriptor, u64)> = self
            .stores
            .shared
            .routes()
            .into_iter()
            .filter_map(|(d, hint)| hint.filter(|h| h.store == me).map(|h| (d, h.term)))
            .collect();
        figures.retain(|id, _| led.iter().any(|(d, _)| d.id == *id));
        let report = |(d, term): (RangeDescriptor, u64)| {
            let figures = figures.entry(d.id).or_default();
            self.measure(&d, figures);
            RangeReport {
                range: Some((&d).into()),
                leader_store: me.0,
                term,
                size_bytes: figures.size_bytes,
                keys: 0,
                reads: figures.reads_per_second,
                writes: figures.writes_per_second,
                lagging: Vec::new(),
            }
        };
        Vitals {
            led: led.into_iter().map(report).collect(),
            disk_used_bytes: self.disk.used_bytes(),
            disk_free_bytes: self.disk.free_bytes(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
        }
    }

    fn measure(&self, d: &RangeDescriptor, figures: &mut Figures) {
        let now = now_ms();
        if figures.sized_ms == 0 || now >= figures.sized_ms + SIZES_EVERY_MS {
            let (start, end) = data_bounds(d);
            figures.size_bytes = self.engine.approximate_size(&start, &end);
            figures.sized_ms = now;
        }
        let Some(cell) = self.stores.shared.cell(d.id) else {
            return;
        };
        let (reads, writes) = (
            cell.reads.load(Ordering::Relaxed),
            cell.writes.load(Ordering::Relaxed),
        );
        let elapsed = now.saturating_sub(figures.counted_ms);
        if figures.counted_ms == 0 {
            (figures.reads, figures.writes, figures.counted_ms) = (reads, writes, now);
        } else if elapsed >= LOAD_OVER_MS {
            figures.reads_per_second = reads.saturating_sub(figures.reads) * 1000 / elapsed;
            figures.writes_per_second = writes.saturating_sub(figures.writes) * 1000 / elapsed;
            (figures.reads, figures.writes, figures.counted_ms) = (reads, writes, now);
        }
    }
}

/// Takes over the registry's addresses, and forgets stores that were removed.
pub fn learn_stores(
    book: &AddressBook,
    stores: &[StoreRecord],
) -> Result<bool, super::durable::DurableError> {
    let (removed, present): (Vec<_>, Vec<_>) = stores
        .iter()
        .partition(|s| StoreState::of(s) == StoreState::Removed);
    for store in removed {
        book.remove(StoreId(store.store))?;
    }
    book.update(
        present
            .into_iter()
            .map(|s| (StoreId(s.store), StoreEntry::from(s))),
    )
}
