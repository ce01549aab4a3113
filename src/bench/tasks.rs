//! Clients as tasks on a single-threaded runtime, for protocols whose client libraries are
//! asynchronous.
//!
//! Tokio's timer has a resolution of 1 ms, so that an open loop may send a request up to 1 ms after
//! it was due, and count that as latency.

use super::load::{Op, Requests};
use super::pace::{nanos, Admitted, Pace};
use super::tally::Tally;
use super::Thread;
use bytes::Bytes;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};

/// All connections of a run must be up within this time.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A request that failed.
pub struct Failed {
    /// By which errors are counted.
    pub kind: String,
    /// What it said.
    pub message: String,
}

/// One connection, or a share in one; one request at a time.
pub trait Client: Send + 'static {
    /// Sends one request; whether a key was written or found.
    fn send(
        &mut self,
        op: Op,
        key: Bytes,
        value: Bytes,
    ) -> impl Future<Output = Result<bool, Failed>>;
}

/// What the clients of one thread are to do.
pub struct Clients {
    /// Clients, each with one request in flight.
    pub count: usize,
    /// What to send.
    pub requests: Requests,
    /// When.
    pub pace: Pace,
    /// A request is given up after this long.
    pub timeout: Duration,
}

/// Awaits `connecting`, whose connections are dealt out to the clients; they run when the returned
/// function is called with the moment that all threads' times count from.
pub fn connect<C: Client + Clone>(
    clients: Clients,
    connecting: impl Future<Output = Result<Vec<C>, String>>,
) -> Result<Thread, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start a runtime: {error}"))?;
    let connections = runtime.block_on(connecting)?;
    Ok(Box::new(move |start| {
        let shared = Rc::new(Shared {
            start,
            timeout: clients.timeout,
            tally: RefCell::new(Tally::new(clients.pace.warm_at())),
            requests: RefCell::new(clients.requests),
            pace: RefCell::new(clients.pace),
            turn: tokio::sync::Mutex::new(()),
        });
        let running = async {
            let mut tasks = JoinSet::new();
            for client in 0..clients.count {
                let connection = connections[client % connections.len()].clone();
                tasks.spawn_local(run(shared.clone(), connection));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|error| format!("a client failed: {error}"))?;
            }
            Ok::<_, String>(())
        };
        runtime.block_on(LocalSet::new().run_until(running))?;
        Ok(shared.tally.replace(Tally::new(0)))
    }))
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

async fn run(shared: Rc<Shared>, mut client: impl Client) {
    while let Some(request) = shared.next_admitted().await {
        let (op, key, value) = shared.requests.borrow_mut().next();
        let sending = client.send(op, key, value);
        let result = match tokio::time::timeout(shared.timeout, sending).await {
            Ok(result) => result,
            Err(_) => Err(Failed {
                kind: "timeout".into(),
                message: "no reply within --timeout".into(),
            }),
        };
        shared.record(op, request, &result);
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

    fn record(&self, op: Op, request: Admitted, result: &Result<bool, Failed>) {
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
            Err(failed) => tally.failed(&failed.kind, &failed.message, now),
        }
    }
}
