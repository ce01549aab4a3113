//! The same loads against etcd: Put and linearizable Range over gRPC.
//!
//! Each client, times its pipeline, is a task on a single-threaded runtime; clients share
//! HTTP/2 connections, as etcd's own clients do. Tokio's timer has a resolution of 1 ms, so
//! that an open loop may send a request up to 1 ms after it was due, and count that as latency.

use super::load::{Op, Requests};
use super::pace::{nanos, Admitted, Pace};
use super::tally::Tally;
use bytes::Bytes;
use rangekv_proto::etcd::kv_client::KvClient;
use rangekv_proto::etcd::{PutRequest, RangeRequest};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// All connections of a run must be up within this time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What one thread is to do.
pub struct Driver {
    /// One per connection: where it goes.
    pub endpoints: Vec<String>,
    /// Tasks that each have one request in flight.
    pub tasks: usize,
    /// What to send.
    pub requests: Requests,
    /// When.
    pub pace: Pace,
    /// A request is given up after this long.
    pub timeout: Duration,
}

/// Connections that are up, waiting for the start.
pub struct Connected {
    driver: Driver,
    runtime: Runtime,
    channels: Vec<Channel>,
}

impl Driver {
    /// Opens all connections, or says why it can't.
    pub fn connect(self) -> Result<Connected, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("can't start a runtime: {error}"))?;
        let mut channels = Vec::with_capacity(self.endpoints.len());
        for address in &self.endpoints {
            let failed = |error| format!("can't connect to {address}: {error}");
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
            let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE);
            channels.push(runtime.block_on(endpoint.connect()).map_err(failed)?);
        }
        Ok(Connected {
            driver: self,
            runtime,
            channels,
        })
    }
}

impl Connected {
    /// Runs the load; times count from `start`, which all threads of a run share.
    pub fn run(self, start: Instant) -> Result<Tally, String> {
        let timeout = self.driver.timeout;
        let shared = Rc::new(Shared {
            start,
            timeout,
            tally: RefCell::new(Tally::new(self.driver.pace.warm_at())),
            requests: RefCell::new(self.driver.requests),
            pace: RefCell::new(self.driver.pace),
            turn: tokio::sync::Mutex::new(()),
        });
        let local = tokio::task::LocalSet::new();
        let tasks = self.driver.tasks;
        self.runtime.block_on(local.run_until(async {
            let mut clients = JoinSet::new();
            for task in 0..tasks {
                let channel = self.channels[task % self.channels.len()].clone();
                clients.spawn_local(client(shared.clone(), KvClient::new(channel)));
            }
            while let Some(ended) = clients.join_next().await {
                ended.map_err(|error| format!("a client failed: {error}"))?;
            }
            Ok::<_, String>(())
        }))?;
        Ok(shared.tally.replace(Tally::new(0)))
    }
}

struct Shared {
    start: Instant,
    timeout: Duration,
    requests: RefCell<Requests>,
    pace: RefCell<Pace>,
    tally: RefCell<Tally>,
    /// Held by the one client that waits for the next due request.
    turn: tokio::sync::Mutex<()>,
}

async fn client(shared: Rc<Shared>, mut kv: KvClient<Channel>) {
    while let Some(request) = shared.next_admitted().await {
        let (op, key, value) = shared.requests.borrow_mut().next();
        let sending = send(&mut kv, op, key, value);
        let result = match tokio::time::timeout(shared.timeout, sending).await {
            Ok(result) => result,
            Err(_) => Err(Status::new(
                Code::DeadlineExceeded,
                "no reply within --timeout",
            )),
        };
        shared.record(op, request, &result);
    }
}

/// Returns whether a key was written or found.
async fn send(
    kv: &mut KvClient<Channel>,
    op: Op,
    key: Bytes,
    value: Bytes,
) -> Result<bool, Status> {
    match op {
        Op::Set => kv.put(PutRequest { key, value }).await.map(|_| true),
        Op::Get => kv
            .range(RangeRequest { key })
            .await
            .map(|reply| reply.get_ref().count > 0),
        Op::Incr => Err(Status::unimplemented("etcd has no INCR")),
    }
}

impl Shared {
    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Waits until a request is due; `None` = the run is over.
    async fn next_admitted(&self) -> Option<Admitted> {
        let _turn = self.turn.lock().await;
        loop {
            let now = self.now();
            if let Some(request) = self.pace.borrow_mut().admit(now) {
                return Some(request);
            }
            let due_at = self.pace.borrow().next_due_at()?;
            if self.pace.borrow().is_over(due_at) {
                return None;
            }
            tokio::time::sleep(Duration::from_nanos(due_at.saturating_sub(now))).await;
        }
    }

    fn record(&self, op: Op, request: Admitted, result: &Result<bool, Status>) {
        if !request.measured {
            return;
        }
        let now = self.now();
        let mut tally = self.tally.borrow_mut();
        match result {
            Ok(found) => {
                tally.nulls += u64::from(!found);
                tally.succeeded(op, request.due_at, now);
            }
            Err(status) => tally.failed(&format!("{:?}", status.code()), status.message(), now),
        }
    }
}
