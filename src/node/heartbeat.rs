//! This store's heartbeats: what it reports, and what comes of the answers.
//!
//! The `pd` crate decides when and what ([`HeartbeatState`]); this file gathers the figures,
//! sends, and hands on: routes to the router's cache, addresses to the book, orders to
//! those who carry them out.

use super::book::{AddressBook, StoreEntry};
use super::calls::Calls;
use super::disk::DiskWatch;
use super::orders::Hands;
use super::placement::now_ms;
use super::stores::NodeStores;
use crate::trace::{Tracer, Work};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rangekv_model::redis::RedisModel;
use rangekv_pd::client::{HeartbeatState, News, Vitals};
use rangekv_pd::operator::{Order, Step};
use rangekv_pd::state::StoreState;
use rangekv_proto::internal::{HeartbeatReply, RangeReport, ReplicaReport, StoreRecord};
use rangekv_proto::{Epoch, Mark, RangeDescriptor, RangeId, ReplicaId, StoreId};
use rangekv_router::cache::SharedCache;
use rangekv_store::engine::StateEngine;
use rangekv_store::meta::data_bounds;
use rangekv_store::size::approximate_keys;
use rangekv_store::wire::{self, Envelope, Payload};
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
    /// Told of orders that are carried out.
    pub tracer: Option<Arc<Tracer>>,
    /// Woken when somebody misses a route.
    pub routes_wanted: Arc<Notify>,
    /// Nothing is reported before this store is registered.
    pub registered: AtomicBool,
    /// Told when the placement driver does not accept this store.
    pub rejected: mpsc::Sender<String>,
    /// The protocol's state.
    pub state: Arc<Mutex<HeartbeatState>>,
    /// When the process started.
    pub started: Instant,
}

type AllFigures = BTreeMap<RangeId, Figures>;

/// Figures of one led range, between heartbeats.
#[derive(Clone, Copy, Default)]
struct Figures {
    size_bytes: u64,
    keys: u64,
    /// Of the bounds that were measured.
    version: u64,
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
        news.orders
            .into_iter()
            .for_each(|order| self.carry_out(order));
        news.gone.iter().for_each(|gone| self.remove_replica(gone));
    }

    fn carry_out(&self, order: Order) {
        let hands = Hands {
            stores: self.stores.clone(),
            calls: self.calls.clone(),
            cache: self.cache.clone(),
            engine: self.engine.clone(),
        };
        let work = self.tracer.as_ref().map(|tracer| {
            let work = tracer.begin(name(&order.step));
            work.with("rangekv.range", order.range.0 as i64)
                .with("rangekv.operator", order.operator.to_string())
                .with("rangekv.step", order.step.to_string())
                .with("rangekv.reason", order.reason.clone())
        });
        let state = self.state.clone();
        tokio::spawn(async move {
            let (operator, group) = (order.operator, order.range.0);
            let (step, reason) = (order.step.to_string(), order.reason.clone());
            let mark = work.as_ref().map_or(Mark::NONE, Work::mark);
            let done = hands.carry_out(order, mark).await;
            if let Some(work) = work {
                work.end(done.clone().err());
            }
            match &done {
                Ok(()) => tracing::info!(group, %operator, step, reason, "order carried out"),
                // The placement driver decides anew by what it is told.
                Err(error) => {
                    tracing::info!(group, %operator, step, error, "order not carried out")
                }
            }
            state
                .lock()
                .outcome(operator, done.err().unwrap_or_default());
        });
    }

    /// A newer configuration of the range doesn't have this store's replica.
    fn remove_replica(&self, gone: &ReplicaReport) {
        let envelope = Envelope {
            range: RangeId(gone.range),
            from: ReplicaId(0),
            to: ReplicaId(gone.replica),
            epoch: Epoch {
                conf_version: gone.conf_version,
                version: 0,
            },
            bounds: None,
            payload: Payload::Gone,
        };
        let envelopes = wire::encode([&envelope]);
        self.stores.mailbox.push_raft(self.stores.me, envelopes);
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
        let (mut led, mut followed) = (Vec::new(), Vec::new());
        for (descriptor, hint) in self.stores.shared.routes() {
            match (hint, descriptor.replica_on(me)) {
                (Some(hint), _) if hint.store == me => led.push((descriptor, hint.term)),
                (_, Some(replica)) => followed.push(ReplicaReport {
                    range: descriptor.id.0,
                    replica: replica.id.0,
                    conf_version: descriptor.epoch.conf_version,
                }),
                // It has applied its own removal, and members answer for that.
                _ => {}
            }
        }
        figures.retain(|id, _| led.iter().any(|(d, _)| d.id == *id));
        let report = |(d, term): (RangeDescriptor, u64)| {
            let figures = figures.entry(d.id).or_default();
            self.measure(&d, figures);
            RangeReport {
                range: Some((&d).into()),
                leader_store: me.0,
                term,
                size_bytes: figures.size_bytes,
                keys: figures.keys,
                reads: figures.reads_per_second,
                writes: figures.writes_per_second,
                lagging: self.lagging(&d),
                load_key: self.load_key(&d, figures),
            }
        };
        Vitals {
            led: led.into_iter().map(report).collect(),
            followed,
            disk_used_bytes: self.disk.used_bytes(),
            disk_free_bytes: self.disk.free_bytes(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
        }
    }

    /// A key that divides the load, if there is enough of it to ask.
    fn load_key(&self, d: &RangeDescriptor, figures: &Figures) -> Bytes {
        let qps = figures.reads_per_second + figures.writes_per_second;
        let cell = self.stores.shared.cell(d.id);
        let cell = cell.filter(|_| qps >= self.state.lock().config().range_split_qps);
        let key = cell.and_then(|cell| cell.samples.dividing_key(d, &RedisModel));
        key.unwrap_or_default()
    }

    /// Members of which the leader, which is here, doesn't know that they keep up.
    fn lagging(&self, d: &RangeDescriptor) -> Vec<u64> {
        let cell = self.stores.shared.cell(d.id);
        let current = cell.map_or(Vec::new(), |cell| cell.keeping_up());
        let others = d.replicas.iter().filter(|r| r.store != self.stores.me);
        let lagging = others.filter(|r| !current.contains(&r.id));
        lagging.map(|r| r.id.0).collect()
    }

    fn measure(&self, d: &RangeDescriptor, figures: &mut Figures) {
        let now = now_ms();
        let reshaped = figures.version != d.epoch.version;
        if reshaped || now >= figures.sized_ms + SIZES_EVERY_MS {
            let (start, end) = data_bounds(d);
            figures.size_bytes = self.engine.approximate_size(&start, &end);
            figures.keys = approximate_keys(&*self.engine, d);
            (figures.version, figures.sized_ms) = (d.epoch.version, now);
        }
        let Some(cell) = self.stores.shared.cell(d.id) else {
            return;
        };
        let (reads, writes) = (cell.reads(), cell.writes.load(Ordering::Relaxed));
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

/// Of the span of an order.
fn name(step: &Step) -> &'static str {
    match step {
        Step::TransferLeader(_) => "transfer leader",
        Step::Change(_) => "change members",
        Step::LeaveJoint => "leave joint configuration",
        Step::Split(_) => "split",
        Step::Merge(..) => "merge",
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
