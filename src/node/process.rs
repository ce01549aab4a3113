//! One node from its start to its end.
//!
//! 1. Lock the data directory; listen, so that everyone can ask who this is.
//! 2. Without a seat: get one (bootstrap, join) or wait for it. Redis clients hear so.
//! 3. Open the data, start the worker, register, report.
//! 4. Asked to stop: leaders move away, clients get their answers, flush, exit; in 8 s.

use super::book::AddressBook;
use super::bootstrap;
use super::calls::Calls;
use super::disk::DiskWatch;
use super::driver::{self, Post};
use super::grpc;
use super::heartbeat::Heartbeats;
use super::identity::DataDir;
use super::info::NodeInfo;
use super::join;
use super::mailbox::{mailbox, Inbox, Limits};
use super::options::{FirstStart, Listen, Member, Options};
use super::placement::Placement;
use super::receive::SnapshotReceiver;
use super::running::Running;
use super::seat::{Addresses, Seat};
use super::service::Service;
use super::snapshots::SnapshotSender;
use super::storage::{self, Opened};
use super::stores::NodeStores;
use super::transport::Transport;
use super::waiting;
use super::watchdog::{self, Pulse};
use anyhow::Context;
use rangekv_pd::client::HeartbeatState;
use rangekv_proto::StoreId;
use rangekv_router::cache::SharedCache;
use rangekv_router::server;
use rangekv_router::session::{self, Door};
use rangekv_store::event::{Event, SnapshotToSend};
use rangekv_store::reader::LocalReader;
use rangekv_store::wire::{self, Envelope};
use rangekv_store::worker::Worker;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch, Notify};
use tokio::task::JoinSet;
use tonic_health::server::HealthReporter;
use tonic_health::ServingStatus;

/// Leaders have this long to move away before the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(4);
/// A new store waits so long for the others before it campaigns for its first ranges.
const MEET_MAX: Duration = Duration::from_secs(1);

/// Whether to stop, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Run.
    No,
    /// Leaders move away first.
    Gracefully,
    /// What is acknowledged is durable anyway.
    AtOnce,
}

/// Runs a node until `stop` says so or something fails for good.
pub async fn run(options: Options, mut stop: watch::Receiver<Stop>) -> anyhow::Result<()> {
    let mut hurry = stop.clone();
    let shutdown = asked(&mut stop, |stop| stop != Stop::No);
    let started = Instant::now();
    let data = DataDir::open(&options.data_dir)?;
    if let Some(name) = &options.name {
        data.check_name(name)?;
    }
    let book = Arc::new(AddressBook::open(data.path())?);
    let grpc_listener = bind("gRPC", "--address", &options.grpc).await?;
    let redis_listener = bind("Redis", "--redis-address", &options.redis).await?;
    let remote = has_remote_members(&options, &data, &book);
    let addresses = Addresses {
        grpc: advertised(&grpc_listener, &options.grpc, remote)?,
        redis: advertised(&redis_listener, &options.redis, remote)?,
        ..Addresses::default()
    };
    let default_name = match options.first_start {
        FirstStart::Single => "n1".to_string(),
        _ => addresses.grpc.clone(),
    };
    let seat = Seat::new(
        data,
        options.name.clone(),
        default_name,
        addresses,
        book.clone(),
    );
    let running = Arc::new(OnceLock::new());
    let service = Service::new(seat.clone(), running.clone());
    let (health, grpc_server) = grpc::serve(grpc_listener, service).await?;
    let mut background: JoinSet<anyhow::Result<()>> = JoinSet::new();
    background.spawn(grpc_server);

    tokio::pin!(shutdown);
    if seat.identity().is_none() {
        tracing::info!(
            node = seat.name(),
            grpc = seat.addresses().grpc,
            redis = seat.addresses().redis,
            first_start = ?options.first_start,
            "the data directory is empty"
        );
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            seated = take_seat(&seat, &options) => seated?,
            // Returns when the seat is taken.
            () = waiting::serve(&redis_listener, &seat) => {}
            ended = background.join_next() => return Err(failed(ended)),
        }
    }

    let prepared = prepare(&seat, &options, &book, started, &mut background).await?;
    let node = prepared.running.clone();
    if running.set(node.clone()).is_err() {
        unreachable!("a store starts once");
    }
    node.stores.transport.connect_all();
    if prepared.is_new {
        meet_others(&node).await;
    }
    let worker = prepared.start_worker()?;
    let health_reports = background.spawn(report_health(health.clone(), node.pulse.clone()));
    let redis = RedisDoor::open(redis_listener, &node);
    background.spawn(forever(super::sizes::run(node.clone())));
    announce(&node);

    let outcome = tokio::select! {
        () = &mut shutdown => Ok(()),
        ended = background.join_next() => Err(failed(ended)),
    };
    if outcome.is_ok() {
        health_reports.abort();
        health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let leave = async {
            drain(&node).await;
            redis.close().await
        };
        tokio::select! {
            left = leave => left?,
            () = asked(&mut hurry, |stop| stop == Stop::AtOnce) => {}
        }
    }
    end(&node, worker).await?;
    outcome
}

/// Waits for a wish. A process without anybody who could have one runs for ever.
async fn asked(stop: &mut watch::Receiver<Stop>, wish: impl Fn(Stop) -> bool) {
    if stop.wait_for(|stop| wish(*stop)).await.is_err() {
        std::future::pending().await
    }
}

/// Gets this empty store a seat, as it was told to.
async fn take_seat(seat: &Arc<Seat>, options: &Options) -> anyhow::Result<()> {
    match &options.first_start {
        FirstStart::Single => {
            let me = Member {
                name: seat.name(),
                address: seat.addresses().grpc.clone(),
            };
            bootstrap::found(seat, &[me], options.data_ranges).await?;
        }
        FirstStart::Bootstrap(members) => {
            bootstrap::found(seat, members, options.data_ranges).await?;
        }
        FirstStart::Join(addresses) => {
            join::join(seat, addresses)
                .await
                .map_err(anyhow::Error::msg)?;
        }
        FirstStart::Wait => drop(seat.taken().await),
    }
    Ok(())
}

/// A store with everything but its worker's thread.
struct Prepared {
    running: Arc<Running>,
    worker: Worker,
    inbox: Inbox,
    post: StorePost,
    /// It has made its first ranges just now.
    is_new: bool,
}

impl Prepared {
    fn start_worker(self) -> anyhow::Result<JoinHandle<Worker>> {
        let pulse = self.running.pulse.clone();
        let run = move || driver::run(self.worker, self.inbox, self.post, &pulse);
        let thread = std::thread::Builder::new().name("worker".into()).spawn(run);
        thread.context("the worker's thread")
    }
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

/// Tells the health service whether the worker moves.
async fn report_health(health: HealthReporter, pulse: Arc<Pulse>) -> anyhow::Result<()> {
    loop {
        let status = match pulse.is_stuck() {
            false => ServingStatus::Serving,
            true => ServingStatus::NotServing,
        };
        health.set_service_status("", status).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Opens the data and starts everything that a store with a seat has, save its worker.
async fn prepare(
    seat: &Arc<Seat>,
    options: &Options,
    book: &Arc<AddressBook>,
    started: Instant,
    background: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Prepared> {
    let opening = seat.clone();
    let opened = tokio::task::spawn_blocking(move || storage::open(&opening)).await??;
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
    let (mailbox, inbox) = mailbox(Limits::default());
    let transport = Transport::new(
        identity.clone(),
        book.clone(),
        mailbox.clone(),
        runtime.clone(),
    );
    let placement = Placement::new(me, shared.clone(), mailbox.clone(), runtime.clone());
    let routes_wanted = Arc::new(Notify::new());
    let stores = Arc::new(NodeStores {
        me,
        mailbox: mailbox.clone(),
        transport: transport.clone(),
        reader: LocalReader::new(shared.clone(), engine.clone(), evaluators),
        shared: shared.clone(),
        placement: placement.clone(),
        routes_wanted: routes_wanted.clone(),
    });
    let cache = Arc::new(SharedCache::new());
    let calls = Calls::new(stores.clone(), cache.clone(), book.clone());
    let disk = DiskWatch::new(seat.path()).context("the free space of the disk")?;
    let (rejected, rejections) = mpsc::channel(1);
    let heartbeats = Arc::new(Heartbeats {
        stores: stores.clone(),
        calls: calls.clone(),
        cache: cache.clone(),
        book: book.clone(),
        engine: engine.clone(),
        disk: disk.clone(),
        routes_wanted,
        rejected,
        registered: AtomicBool::new(false),
        state: HeartbeatState::new(me, identity.incarnation).into(),
        started,
    });

    let pulse = Arc::new(Pulse::default());
    watchdog::spawn(pulse.clone(), options.stuck_max).context("the watchdog's thread")?;
    let post = StorePost {
        transport: transport.clone(),
        snapshots: SnapshotSender::spawn(
            options.snapshots_max,
            options.snapshot_bytes_per_second,
            identity.clone(),
            book.clone(),
            mailbox.clone(),
            runtime,
        )
        .context("the snapshot threads")?,
    };
    background.spawn(keep_registered(
        heartbeats.clone(),
        seat.clone(),
        rejections,
    ));
    background.spawn(forever(heartbeats.clone().run()));
    background.spawn(forever(
        disk.clone()
            .run(mailbox.clone(), options.disk_reserve_bytes),
    ));
    let seating = seat.clone();
    background.spawn(async move {
        bootstrap::seat_members(seating).await?;
        std::future::pending().await
    });
    let snapshots = SnapshotReceiver::new(engine.clone(), mailbox.clone(), options.snapshots_max);
    let running = Running {
        identity,
        seat: seat.clone(),
        mailbox,
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
        started,
    };
    Ok(Prepared {
        running: Arc::new(running),
        worker,
        inbox,
        post,
        is_new,
    })
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

async fn forever(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    std::future::pending().await
}

fn failed(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(panicked)) => panicked.into(),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part of the process ended"),
    }
}

/// The worker's messages, to streams and snapshot threads.
struct StorePost {
    transport: Arc<Transport>,
    snapshots: SnapshotSender,
}

impl Post for StorePost {
    fn envelopes(&self, store: StoreId, envelopes: Vec<Envelope>) {
        self.transport.send_raft(store, wire::encode(&envelopes));
    }

    fn snapshot(&self, snapshot: SnapshotToSend) {
        self.snapshots.send(snapshot);
    }
}

/// Redis's door, until told to close.
struct RedisDoor {
    close: oneshot::Sender<()>,
    closed: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl RedisDoor {
    fn open(listener: TcpListener, node: &Arc<Running>) -> Self {
        let info = Arc::new(NodeInfo(node.clone()));
        let door = Door::new(session::Config::default(), node.cache.clone(), info);
        let (close, closing) = oneshot::channel();
        // Dropping the sender closes the door as well.
        let closing = async { drop(closing.await) };
        let run = server::run(listener, Arc::new(door), node.stores.clone(), closing);
        RedisDoor {
            close,
            closed: tokio::spawn(run),
        }
    }

    /// Answers what was read, then hangs up.
    async fn close(self) -> anyhow::Result<()> {
        drop(self.close);
        self.closed.await?.context("the Redis port")
    }
}

/// Moves leaders away, as far as there is somebody to take them.
async fn drain(node: &Running) {
    let began = Instant::now();
    node.mailbox.push(Event::Drain);
    while node.led().1 > 0 && began.elapsed() < DRAIN_MAX {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (led, movable) = node.led();
    tracing::info!(led, movable, elapsed = ?began.elapsed(), "leaders have moved away");
}

/// Ends the worker and makes everything durable.
async fn end(node: &Arc<Running>, worker: JoinHandle<Worker>) -> anyhow::Result<()> {
    node.mailbox.close();
    let engine = node.engine.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let worker = worker.join();
        engine.flush();
        worker.is_ok()
    });
    anyhow::ensure!(ended.await?, "the worker's thread panicked");
    tracing::info!(node = node.identity.name, "stopped");
    Ok(())
}

async fn bind(what: &str, flag: &str, listen: &Listen) -> anyhow::Result<TcpListener> {
    TcpListener::bind(&listen.bind).await.with_context(|| {
        format!(
            "the {what} port {} can't be listened on: is another process using it? Choose another with {flag}",
            listen.bind
        )
    })
}

fn advertised(listener: &TcpListener, listen: &Listen, remote: bool) -> anyhow::Result<String> {
    Ok(listen.advertised(listener.local_addr()?.port(), remote)?)
}

/// Whether there are members on other machines, to whom this one's loopback means nothing.
fn has_remote_members(options: &Options, data: &DataDir, book: &AddressBook) -> bool {
    let known = book.all();
    let mut addresses: Vec<&str> = known.values().map(|e| e.grpc.as_str()).collect();
    if data.identity().is_none() {
        match &options.first_start {
            FirstStart::Bootstrap(members) => {
                addresses.extend(members.iter().map(|m| m.address.as_str()));
            }
            FirstStart::Join(others) => addresses.extend(others.iter().map(String::as_str)),
            FirstStart::Single | FirstStart::Wait => {}
        }
    }
    addresses.iter().any(|a| !is_loopback(a))
}

fn is_loopback(address: &str) -> bool {
    ["127.", "localhost:", "[::1]:"]
        .iter()
        .any(|own| address.starts_with(own))
}

fn announce(node: &Running) {
    let Addresses { grpc, redis, .. } = node.seat.addresses();
    tracing::info!(
        node = node.identity.name,
        store = node.identity.store,
        cluster = format!("{:016x}", node.identity.cluster),
        elapsed = ?node.started.elapsed(),
        "started"
    );
    println!(
        "{} (store {}) is up",
        node.identity.name, node.identity.store
    );
    println!("  redis  {redis}");
    println!("  grpc   {grpc}");
}
