//! Everything that a store with a seat has: its data opened, its worker ready to run, its
//! background tasks started.

use super::book::AddressBook;
use super::bootstrap;
use super::calls::Calls;
use super::clock;
use super::disk::DiskWatch;
use super::driver::{self, Post};
use super::heartbeat::Heartbeats;
use super::join;
use super::mailbox::{mailbox, Inbox, Limits};
use super::options::Options;
use super::placement::Placement;
use super::process::forever;
use super::pubsub::Inbound;
use super::receive::SnapshotReceiver;
use super::running::Running;
use super::seat::Seat;
use super::snapshots::SnapshotSender;
use super::storage::{self, Opened};
use super::stores::NodeStores;
use super::syncers::Syncers;
use super::transport::{Transport, MAIN};
use super::watchdog::{self, Pulse};
use crate::trace::Tracer;
use anyhow::Context;
use parking_lot::Mutex;
use rangekv_pd::client::HeartbeatState;
use rangekv_pd::state::StoreRole;
use rangekv_proto::StoreId;
use rangekv_router::cache::SharedCache;
use rangekv_router::poll::ports::Ports;
use rangekv_router::pubsub::Hub;
use rangekv_router::server::Place;
use rangekv_store::event::SnapshotToSend;
use rangekv_store::metrics::{MessageDrop, Metrics};
use rangekv_store::reader::LocalReader;
use rangekv_store::trace::{Election, Traced};
use rangekv_store::wire::{self, Envelope};
use rangekv_store::worker::Worker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Drain;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, Notify};
use tokio::task::JoinSet;

/// A new store waits so long for the others before it campaigns for its first ranges.
const MEET_MAX: Duration = Duration::from_secs(1);

/// A store with everything but its worker's thread.
pub struct Prepared {
    /// What services and doors share.
    pub running: Arc<Running>,
    worker: Worker,
    inbox: Inbox,
    ports: Ports,
    syncers: Syncers,
    /// What each thread of the Redis door works with.
    pub places: Vec<Place>,
    post: StorePost,
    /// It has made its first ranges just now.
    is_new: bool,
}

impl Prepared {
    /// Starts the worker, on a new store once there is somebody to hear its first words.
    pub async fn start_worker(self) -> anyhow::Result<JoinHandle<Worker>> {
        if self.is_new {
            meet_others(&self.running).await;
        }
        let pulse = self.running.pulse.clone();
        let Prepared {
            mut worker,
            inbox,
            ports,
            syncers,
            post,
            ..
        } = self;
        worker.measure_with(Box::new(clock::mono_ns));
        let run = move || driver::run(worker, inbox, ports, post, &pulse, &syncers);
        let thread = std::thread::Builder::new().name("worker".into()).spawn(run);
        thread.context("the worker's thread")
    }
}

/// Opens the data and starts everything that a store with a seat has, save its worker.
pub async fn prepare(
    seat: &Arc<Seat>,
    options: &Options,
    book: &Arc<AddressBook>,
    started: Instant,
    background: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Prepared> {
    let (opening, cache_bytes) = (seat.clone(), options.cache_bytes());
    let opened =
        tokio::task::spawn_blocking(move || storage::open(&opening, cache_bytes)).await??;
    let Opened {
        worker,
        engine,
        shared,
        evaluators,
        is_new,
    } = opened;
    let identity = seat.identity().context("a store without a seat")?;
    let me = identity.store_id();
    let runtime = Handle::current();
    let tracer = match &options.trace {
        Some(trace) => Some(Tracer::start(trace, &identity)?),
        None => None,
    };
    let metrics = shared.metrics.clone();
    let ports = Ports::new().context("the worker's epoll")?;
    let (mailbox, inbox) = mailbox(Limits::default(), metrics.clone(), ports.waker().clone());
    let doors = match options.role {
        StoreRole::Store => options.redis_threads().get(),
        StoreRole::Placement => 0,
    };
    let door_ports: Vec<Ports> = (0..doors)
        .map(|_| Ports::new())
        .collect::<Result<_, _>>()
        .context("the Redis door's epolls")?;
    let entrance = |ports: &Ports| ports.entrance().clone();
    let readers = std::iter::once(&ports).chain(&door_ports).map(entrance);
    let transport = Transport::new(
        identity.clone(),
        book.clone(),
        mailbox.clone(),
        runtime.clone(),
        readers.collect(),
    );
    let placement = Placement::new(me, shared.clone(), mailbox.clone(), runtime.clone());
    let routes_wanted = Arc::new(Notify::new());
    let stores = Arc::new(NodeStores {
        me,
        way: MAIN,
        mailbox: mailbox.clone(),
        transport: transport.clone(),
        reader: LocalReader::new(shared.clone(), engine.clone(), evaluators),
        shared: shared.clone(),
        placement: placement.clone(),
        routes_wanted: routes_wanted.clone(),
    });
    let own_way = |(number, ports)| {
        let stores = NodeStores {
            way: MAIN + 1 + number,
            ..(*stores).clone()
        };
        let stores = Arc::new(stores);
        Place { stores, ports }
    };
    let places: Vec<Place> = door_ports.into_iter().enumerate().map(own_way).collect();
    let cache = Arc::new(SharedCache::new());
    let calls = Calls::new(stores.clone(), cache.clone(), book.clone(), tracer.clone());
    let disk = DiskWatch::new(seat.path()).context("the free space of the disk")?;
    let (rejected, rejections) = mpsc::channel(1);
    let heartbeats = Arc::new(Heartbeats {
        stores: stores.clone(),
        calls: calls.clone(),
        cache: cache.clone(),
        book: book.clone(),
        engine: engine.clone(),
        disk: disk.clone(),
        tracer: tracer.clone(),
        routes_wanted,
        rejected,
        registered: AtomicBool::new(false),
        state: Arc::new(Mutex::new(HeartbeatState::new(me, identity.incarnation))),
        started,
    });

    let pulse = Arc::new(Pulse::default());
    let (syncers, syncing) =
        Syncers::start(mailbox.clone()).context("the threads that sync the raft log")?;
    watchdog::spawn(pulse.clone(), syncing, options.stuck_max).context("the watchdog's thread")?;
    let post = StorePost {
        transport: transport.clone(),
        snapshots: SnapshotSender::spawn(
            options.snapshots_max,
            options.snapshot_bytes_per_second,
            identity.clone(),
            book.clone(),
            mailbox.clone(),
            metrics.clone(),
            tracer.clone(),
            runtime,
        )
        .context("the snapshot threads")?,
        metrics: metrics.clone(),
        tracer: tracer.clone(),
    };
    background.spawn(keep_registered(
        heartbeats.clone(),
        seat.clone(),
        rejections,
    ));
    background.spawn(heartbeats.clone().run());
    background.spawn(forever(
        disk.clone()
            .run(mailbox.clone(), options.disk_reserve_bytes),
    ));
    let seating = seat.clone();
    background.spawn(async move {
        bootstrap::seat_members(seating).await?;
        std::future::pending().await
    });
    let snapshots = SnapshotReceiver::new(
        engine.clone(),
        mailbox.clone(),
        metrics,
        tracer.clone(),
        options.snapshots_max,
    );
    let hub = Arc::<Hub>::default();
    let pubsub = Inbound::start(hub.clone()).context("the Pub/Sub thread")?;
    let running = Running {
        hub,
        pubsub,
        identity,
        seat: seat.clone(),
        mailbox,
        worker: ports.entrance().clone(),
        shared,
        engine,
        stores,
        cache,
        book: book.clone(),
        calls,
        placement,
        heartbeats,
        snapshots,
        pulse,
        tracer,
        started,
    };
    Ok(Prepared {
        running: Arc::new(running),
        worker,
        inbox,
        ports,
        syncers,
        places,
        post,
        is_new,
    })
}

/// Waits until streams to and from a majority are up, but not long: first elections that nobody
/// hears of, or answers, would cost an election timeout.
async fn meet_others(node: &Running) {
    let me = node.identity.store_id();
    let others: Vec<StoreId> = node.book.all().into_keys().filter(|s| *s != me).collect();
    let began = Instant::now();
    let is_met = |store: &&StoreId| node.stores.transport.has_met(**store);
    while others.iter().filter(is_met).count() < others.len().div_ceil(2)
        && began.elapsed() < MEET_MAX
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Registers, and again whenever the placement driver says that it does not know this store.
async fn keep_registered(
    heartbeats: Arc<Heartbeats>,
    seat: Arc<Seat>,
    mut rejections: mpsc::Receiver<String>,
) -> anyhow::Result<()> {
    loop {
        join::register(&heartbeats.calls, &seat)
            .await
            .map_err(|why| anyhow::anyhow!("the cluster refuses this store: {why}"))?;
        heartbeats.registered.store(true, Ordering::Relaxed);
        match rejections.recv().await {
            Some(why) => {
                tracing::warn!(why, "the placement driver rejects this store's heartbeats")
            }
            None => std::future::pending().await,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The worker's messages, to streams and snapshot threads.
struct StorePost {
    transport: Arc<Transport>,
    snapshots: SnapshotSender,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
}

impl Post for StorePost {
    fn envelopes(&self, store: StoreId, envelopes: Vec<Envelope>) {
        let sent = self.transport.send_raft(store, wire::encode(&envelopes));
        if !sent {
            let drops = &self.metrics.messages_dropped;
            let dropped = drops.of(MessageDrop::Unsendable);
            dropped.add(envelopes.len() as u64);
        }
    }

    fn snapshot(&self, snapshot: SnapshotToSend) {
        self.snapshots.send(snapshot);
    }

    fn figures(&self, traced: Drain<'_, Traced>, elections: Drain<'_, Election>) {
        if let Some(tracer) = &self.tracer {
            tracer.worker(traced, elections);
        }
    }
}
