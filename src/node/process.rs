//! One node from its start to its end.
//!
//! 1. Lock the data directory; listen, so that everyone can ask who this is.
//! 2. Without a seat: get one (bootstrap, join) or wait for it. Redis clients hear so.
//! 3. Open the data, start the worker, register, report.
//! 4. Asked to stop: leaders move away, clients get their answers, flush, exit; in 8 s.

use super::book::AddressBook;
use super::bootstrap;
use super::grpc;
use super::identity::DataDir;
use super::info::NodeInfo;
use super::join;
use super::listen::{advertised, bind, has_remote_members};
use super::options::{FirstStart, Member, Options};
use super::peers;
use super::prepare::prepare;
use super::running::Running;
use super::seat::{Addresses, Seat};
use super::service::Here;
use super::sweep;
use super::waiting;
use super::watchdog::Pulse;
use crate::dynamo;
use crate::http;
use crate::http::site::Site;
use crate::kv;
use crate::trace::RedisTracer;
use anyhow::Context;
use rangekv_pd::state::StoreRole;
use rangekv_router::server::{self, Place};
use rangekv_router::session::{self, Door};
use rangekv_store::event::Event;
use rangekv_store::worker::Worker;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tonic_health::server::HealthReporter;
use tonic_health::ServingStatus;

/// Leaders have this long to move away before the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// The last spans have this long to reach their collector.
const SPANS_MAX: Duration = Duration::from_secs(1);

/// A door that waits for its clients' last answers waits no longer.
const DOOR_CLOSE_MAX: Duration = Duration::from_secs(1);

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
    data.check_role(options.role)?;
    let serves_clients = options.role == StoreRole::Store;
    let book = Arc::new(AddressBook::open(data.path())?);
    let grpc_listener = bind("gRPC", "--address", &options.grpc).await?;
    let redis_listener = match serves_clients {
        true => Some(bind("Redis", "--redis-address", &options.redis).await?),
        false => None,
    };
    let http_listener = http::door::bind(&options.http, options.http_asked_for).await?;
    let remote = has_remote_members(&options, &data, &book);
    // Status that is served to this machine alone has no address to tell others.
    let http = http_listener
        .as_ref()
        .map(|l| advertised(l, &options.http, remote));
    let dynamo_listener = match serves_clients {
        true => dynamo::bind(&options.dynamo, options.dynamo_asked_for).await?,
        false => None,
    };
    let dynamo = dynamo_listener
        .as_ref()
        .map(|l| advertised(l, &options.dynamo, remote));
    let kv_listener = match serves_clients {
        true => kv::bind(&options.kv_http, options.kv_http_asked_for).await?,
        false => None,
    };
    let redis = redis_listener
        .as_ref()
        .map(|l| advertised(l, &options.redis, remote));
    // Nobody is told of this address but who starts the store.
    let kv_address = kv_listener.as_ref().and_then(|l| {
        let told = advertised(l, &options.kv_http, remote).ok();
        told.or_else(|| Some(l.local_addr().ok()?.to_string()))
    });
    let addresses = Addresses {
        grpc: advertised(&grpc_listener, &options.grpc, remote)?,
        redis: redis.transpose()?.unwrap_or_default(),
        dynamo: dynamo.transpose()?.unwrap_or_default(),
        http: http.and_then(Result::ok).unwrap_or_default(),
    };
    let default_name = match options.first_start {
        FirstStart::Single => "n1".to_string(),
        _ => addresses.grpc.clone(),
    };
    let seat = Seat::new(
        data,
        options.name.clone(),
        default_name,
        options.role,
        addresses,
        book.clone(),
    );
    let running = Arc::new(OnceLock::new());
    let here = Here {
        seat: seat.clone(),
        running: running.clone(),
    };
    let (health, grpc_server) = grpc::serve(grpc_listener, here, &seat.addresses().http).await?;
    let mut background: JoinSet<anyhow::Result<()>> = JoinSet::new();
    background.spawn(grpc_server);
    let site = Site::new(seat.clone(), running.clone(), started);
    if let Some(listener) = http_listener {
        background.spawn(http::door::serve(listener, site.clone()));
    }

    let mut dynamo_door = dynamo_listener.map(|listener| {
        let (seat, node) = (seat.clone(), running.clone());
        let counters = site.dynamo.clone();
        HttpDoor::open(|closing| dynamo::run(listener, seat, node, counters, closing))
    });
    let mut kv_door = kv_listener.map(|listener| {
        let (seat, node) = (seat.clone(), running.clone());
        HttpDoor::open(|closing| kv::run(listener, seat, node, closing))
    });

    tokio::pin!(shutdown);
    if seat.identity().is_none() {
        tracing::info!(
            node = seat.name(),
            grpc = seat.addresses().grpc,
            redis = seat.addresses().redis,
            role = options.role.name(),
            first_start = ?options.first_start,
            "the data directory is empty"
        );
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            seated = take_seat(&seat, &options) => seated?,
            // Returns when the seat is taken.
            () = wait(redis_listener.as_ref(), &seat) => {}
            ended = background.join_next() => return Err(failed(ended)),
        }
    }

    let mut prepared = prepare(&seat, &options, &book, started, &mut background).await?;
    let node = prepared.running.clone();
    if running.set(node.clone()).is_err() {
        unreachable!("a store starts once");
    }
    node.stores.transport.connect_all();
    let places = std::mem::take(&mut prepared.places);
    let worker = prepared.start_worker().await?;
    let health_reports = background.spawn(report_health(health.clone(), node.pulse.clone()));
    let mut redis = redis_listener.map(|listener| RedisDoor::open(listener, &node, &site, places));
    background.spawn(forever(dynamo::chores(node.clone())));
    background.spawn(forever(sweep::run(node.clone())));
    announce(&node, kv_address.as_deref());

    let outcome = tokio::select! {
        () = &mut shutdown => Ok(()),
        ended = background.join_next() => Err(failed(ended)),
        broken = RedisDoor::ended(&mut redis) => Err(broken_door(broken, "the Redis port")),
        broken = HttpDoor::ended(&mut dynamo_door) => Err(broken_door(broken, "the DynamoDB port")),
        broken = HttpDoor::ended(&mut kv_door) => Err(broken_door(broken, "the KV port")),
    };
    if outcome.is_ok() {
        site.stop();
        health_reports.abort();
        grpc::report(&health, ServingStatus::NotServing).await;
        let leave = async {
            drain(&node).await;
            for (door, which) in [(dynamo_door, "the DynamoDB port"), (kv_door, "the KV port")] {
                if let Some(door) = door {
                    door.close(which).await?;
                }
            }
            match redis {
                Some(redis) => redis.close().await,
                None => Ok(()),
            }
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

/// Waits until the seat is taken, with answers for those who come too early.
async fn wait(redis: Option<&TcpListener>, seat: &Arc<Seat>) {
    match redis {
        Some(listener) => waiting::serve(listener, seat).await,
        None => drop(seat.taken().await),
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
            join::join(seat, addresses, options.data_ranges)
                .await
                .map_err(anyhow::Error::msg)?;
        }
        FirstStart::Peers(peers) => peers::meet(seat, peers).await?,
        FirstStart::Wait => drop(seat.taken().await),
    }
    Ok(())
}

/// Tells the health service whether the worker moves.
async fn report_health(health: HealthReporter, pulse: Arc<Pulse>) -> anyhow::Result<()> {
    loop {
        let status = match pulse.is_stuck() {
            false => ServingStatus::Serving,
            true => ServingStatus::NotServing,
        };
        grpc::report(&health, status).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A task that ends when the process does.
pub async fn forever(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    std::future::pending().await
}

fn failed(ended: Option<Result<anyhow::Result<()>, JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(panicked)) => panicked.into(),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part of the process ended"),
    }
}

fn broken_door(
    ended: Result<std::io::Result<()>, JoinError>,
    which: &'static str,
) -> anyhow::Error {
    let cause = match ended {
        Ok(Ok(())) => anyhow::anyhow!("closed by itself"),
        Ok(Err(error)) => error.into(),
        Err(panicked) => panicked.into(),
    };
    cause.context(which)
}

/// Redis's door, until told to close.
struct RedisDoor {
    close: oneshot::Sender<()>,
    closed: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl RedisDoor {
    fn open(listener: TcpListener, node: &Arc<Running>, site: &Site, places: Vec<Place>) -> Self {
        let info = Arc::new(NodeInfo::new(node.clone()));
        let mut door = Door::new(session::Config::default(), node.cache.clone(), info);
        door.pubsub = node.hub.clone();
        if let Some(tracer) = &node.tracer {
            door.tracer = Some(Arc::new(RedisTracer(tracer.clone())));
        }
        let door = Arc::new(door);
        site.set_redis(door.clone());
        let (close, closing) = oneshot::channel();
        // Dropping the sender closes the door as well.
        let closing = async { drop(closing.await) };
        let run = server::run(listener, door, places, closing);
        RedisDoor {
            close,
            closed: tokio::spawn(run),
        }
    }

    /// When the door has ended by itself; never if there is none.
    async fn ended(door: &mut Option<Self>) -> Result<std::io::Result<()>, JoinError> {
        match door {
            Some(door) => (&mut door.closed).await,
            None => std::future::pending().await,
        }
    }

    /// Answers what was read, then hangs up.
    async fn close(self) -> anyhow::Result<()> {
        drop(self.close);
        self.closed.await?.context("the Redis port")
    }
}

/// A door that speaks HTTP, until told to close.
struct HttpDoor {
    close: oneshot::Sender<()>,
    closed: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Ends when a door is told to close.
type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl HttpDoor {
    /// Until the store has its seat, every request is refused with an error that clients retry.
    fn open<R>(run: impl FnOnce(Closing) -> R) -> Self
    where
        R: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let (close, closing) = oneshot::channel();
        let closing: Closing = Box::pin(async { drop(closing.await) });
        HttpDoor {
            close,
            closed: tokio::spawn(run(closing)),
        }
    }

    /// When the door has ended by itself; never if there is none.
    async fn ended(door: &mut Option<Self>) -> Result<std::io::Result<()>, JoinError> {
        match door {
            Some(door) => (&mut door.closed).await,
            None => std::future::pending().await,
        }
    }

    /// Answers what was read. A connection that is idle, yet kept open, is not waited for.
    async fn close(self, which: &'static str) -> anyhow::Result<()> {
        drop(self.close);
        match tokio::time::timeout(DOOR_CLOSE_MAX, self.closed).await {
            Ok(closed) => closed?.context(which),
            Err(_) => Ok(()),
        }
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
    let ended = tokio::task::spawn_blocking(move || worker.join().is_ok());
    let ended = ended.await?;
    let (engine, tracer) = (node.engine.clone(), node.tracer.clone());
    let flush = tokio::task::spawn_blocking(move || engine.flush());
    let close = tokio::task::spawn_blocking(move || {
        if let Some(tracer) = tracer {
            tracer.close(SPANS_MAX);
        }
    });
    flush.await?;
    close.await?;
    anyhow::ensure!(ended, "the worker's thread panicked");
    tracing::info!(node = node.identity.name, "stopped");
    Ok(())
}

fn announce(node: &Running, kv: Option<&str>) {
    let Addresses {
        grpc,
        redis,
        dynamo,
        http,
    } = node.seat.addresses();
    tracing::info!(
        node = node.identity.name,
        store = node.identity.store,
        cluster = format!("{:016x}", node.identity.cluster),
        elapsed = ?node.started.elapsed(),
        "started"
    );
    println!(
        "{} ({} {}) is up",
        node.identity.name,
        node.identity.role().name(),
        node.identity.store
    );
    if !redis.is_empty() {
        println!("  redis  {redis}");
    }
    println!("  grpc   {grpc}");
    if !http.is_empty() {
        println!("  status http://{http}/");
    }
    if !dynamo.is_empty() {
        println!("  dynamo http://{dynamo} (signatures are not verified)");
    }
    if let Some(kv) = kv {
        println!("  kv     http://{kv}/kv/");
    }
}
