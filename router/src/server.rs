//! The Redis door's shell: sockets and the clock around [`Session`](crate::session::Session)s.
//!
//! Connections are dealt out to a few threads, each with an epoll of its own (`thread`). A
//! thread takes a turn with every connection that has something to do, and only then hands
//! over what they have started, one batch per store: what many clients sent at the same time
//! costs the worker one wake-up and a stream one frame. The other way round a worker leaves the
//! responses of a round in the thread's `inbox` and wakes it once; what other stores answer it
//! reads itself, from the [`ports`](crate::poll::ports) of its [`Place`].
//!
//! Binding happens outside, so that a test can pass port 0; shutdown is a future.
#![allow(clippy::disallowed_methods)] // The shell owns the clock and threads.

mod connection;
mod inbox;
mod outgoing;
mod thread;

use crate::poll::ports::Ports;
use crate::session::Door;
use crate::stores::Stores;
use connection::Connection;
use inbox::{Inbox, Mail, Mailbox};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Name of the door's threads. They survive the panic of a connection's turn.
pub const THREADS: &str = "redis";
/// How long connections have after shutdown to answer what they have read.
const DRAIN: Duration = Duration::from_secs(3);

/// What one thread of the door works with.
pub struct Place {
    /// Its way to stores; the responses should come by its `ports`.
    pub stores: Arc<dyn Stores>,
    /// Sockets that it polls besides its clients'.
    pub ports: Ports,
}

impl Place {
    /// A place without ports.
    pub fn new(stores: Arc<dyn Stores>) -> io::Result<Self> {
        let ports = Ports::new()?;
        Ok(Place { stores, ports })
    }
}

/// Serves Redis clients with a thread for each of `places` until `shutdown`, then lets unanswered
/// commands finish for a while. At least one place is needed.
///
/// Returns an error only if the listener itself is broken, or the threads can't be had.
pub async fn run(
    listener: TcpListener,
    door: Arc<Door>,
    places: Vec<Place>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let epoch = Instant::now();
    let mut threads = Threads::start(places, epoch)?;
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most likely out of file descriptors, which some connection will give back.
                tracing::warn!(%error, "can't accept Redis connections");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Out of tokio's epoll; it stays non-blocking.
        let stream = stream.into_std()?;
        let mailbox = threads.mailbox();
        if let Some(connection) = Connection::open(stream, &door, &mailbox, epoch) {
            mailbox.inbox.send(Mail::Open(Box::new(connection)));
        }
    }
    drop(listener);
    for client in door.clients.all() {
        client.finish();
    }
    threads.inboxes.iter().for_each(|inbox| {
        inbox.send(Mail::Stop);
    });
    if tokio::time::timeout(DRAIN, threads.ended()).await.is_err() {
        tracing::warn!(
            connections = door.clients.count(),
            "Redis connections cut off at shutdown"
        );
        threads.cut_off();
        threads.ended().await;
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// The threads of a door, from outside. Dropping it ends them and all their connections.
struct Threads {
    inboxes: Vec<Arc<Inbox>>,
    /// Each is dropped when its thread ends.
    running: Vec<oneshot::Receiver<()>>,
    /// Connections so far.
    connections: u64,
}

impl Threads {
    fn start(places: Vec<Place>, epoch: Instant) -> io::Result<Self> {
        assert!(!places.is_empty(), "a door without threads");
        let mut threads = Threads {
            inboxes: Vec::new(),
            running: Vec::new(),
            connections: 0,
        };
        for place in places {
            let (ended, running) = oneshot::channel();
            threads.inboxes.push(thread::start(place, epoch, ended)?);
            threads.running.push(running);
        }
        Ok(threads)
    }

    /// A new connection's mailbox, at the thread whose turn it is.
    fn mailbox(&mut self) -> Arc<Mailbox> {
        self.connections += 1;
        let id = self.connections;
        let inbox = self.inboxes[id as usize % self.inboxes.len()].clone();
        Arc::new(Mailbox { inbox, id })
    }

    /// Returns when all threads have ended.
    async fn ended(&mut self) {
        while let Some(running) = self.running.last_mut() {
            // The sender is only ever dropped.
            let _ = running.await;
            self.running.pop();
        }
    }

    fn cut_off(&self) {
        self.inboxes.iter().for_each(|inbox| {
            inbox.send(Mail::CutOff);
        });
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.cut_off();
    }
}
