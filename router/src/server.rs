//! The Redis door's shell: sockets and the clock around [`Session`]s.
//!
//! A connection is one task and one loop: take in responses, read, parse and execute what is
//! there, send what that started, write the replies that are ready in one write. Responses
//! come back through one queue per connection, filled by whoever has them.
//!
//! Binding happens outside, so that a test can pass port 0; shutdown is a future.
#![allow(clippy::disallowed_methods)] // The shell owns the clock.

use crate::resp::Parser;
use crate::session::{Client, Door, HangUp, Session};
use crate::stores::Stores;
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use rangekv_proto::{ReplySink, Response};
use std::future::{poll_fn, Future};
use std::io;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

/// How long connections have after shutdown to answer what they have read.
const DRAIN: Duration = Duration::from_secs(3);
/// After how long without a byte the kernel asks whether a client is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// Bytes that a connection reads at once: at first, and if it keeps its buffer full.
const READ_BYTES: (usize, usize) = (4 << 10, 256 << 10);
/// Turns of the loop before other tasks of the thread get theirs.
const TURNS: u32 = 16;
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// Serves Redis clients until `shutdown`, then lets unanswered commands finish for a while.
///
/// Returns an error only if the listener itself is broken.
pub async fn run(
    listener: TcpListener,
    door: Arc<Door>,
    stores: Arc<dyn Stores>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let epoch = Instant::now();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
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
        if let Some(connection) = Connection::open(stream, &door, &stores, epoch) {
            connections.spawn(connection.run());
        }
    }
    drop(listener);
    for client in door.clients.all() {
        client.finish();
    }
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "Redis connections cut off at shutdown"
        );
        connections.shutdown().await;
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a Redis connection's task failed");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What reaches a connection's task from other threads.
#[derive(Default)]
struct Inbox {
    // Held for a push or a swap of vectors. A connection has at most a window of responses.
    state: Mutex<InboxState>,
}

#[derive(Default)]
struct InboxState {
    responses: Vec<(u64, Response)>,
    finish: bool,
    hang_up: bool,
    /// Set while the task sleeps; so a batch of responses wakes it once.
    waker: Option<Waker>,
}

impl Inbox {
    fn change(&self, change: impl FnOnce(&mut InboxState)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ReplySink for Inbox {
    fn complete(&self, token: u64, response: Response) {
        self.change(|state| state.responses.push((token, response)));
    }
}

impl HangUp for Inbox {
    fn hang_up(&self) {
        self.change(|state| state.hang_up = true);
    }
    fn finish(&self) {
        self.change(|state| state.finish = true);
    }
}

struct Connection {
    stream: TcpStream,
    door: Arc<Door>,
    client: Arc<Client>,
    stores: Arc<dyn Stores>,
    inbox: Arc<Inbox>,
    session: Session,
    parser: Parser,
    buffer: BytesMut,
    read_bytes: usize,
    args: Vec<Bytes>,
    responses: Vec<(u64, Response)>,
    epoch: Instant,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off; later than needed never, earlier at times.
    timer_at_ms: Option<u64>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.door.clients.close(self.client.id);
    }
}

impl Connection {
    /// `None` if there are too many, or the client is gone already.
    fn open(
        stream: TcpStream,
        door: &Arc<Door>,
        stores: &Arc<dyn Stores>,
        epoch: Instant,
    ) -> Option<Self> {
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            return None;
        };
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        let tuned = stream
            .set_nodelay(true)
            .and_then(|()| socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        if let Err(error) = tuned {
            tracing::debug!(%error, %peer, "can't set options of a Redis connection");
        }
        let inbox = Arc::new(Inbox::default());
        let now_ms = epoch.elapsed().as_millis() as u64;
        let clients_max = door.config.clients_max;
        let (peer, local) = (peer.to_string(), local.to_string());
        let hang_up: Arc<dyn HangUp> = inbox.clone();
        let Some(client) = door.clients.open(peer, local, hang_up, now_ms, clients_max) else {
            if let Err(error) = stream.try_write(TOO_MANY) {
                tracing::debug!(%error, "a refused Redis client was not told why");
            }
            return None;
        };
        let sink: Arc<dyn ReplySink> = inbox.clone();
        let seed = door.node.unix_micros() ^ client.id.rotate_left(32);
        Some(Connection {
            stream,
            session: Session::new(door.clone(), client.clone(), sink, seed),
            door: door.clone(),
            client,
            stores: stores.clone(),
            inbox,
            parser: Parser::new(door.config.limits),
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES.0,
            args: Vec::new(),
            responses: Vec::new(),
            epoch,
            timer: Box::pin(tokio::time::sleep_until(epoch)),
            timer_at_ms: None,
        })
    }

    async fn run(mut self) {
        let ended = poll_fn(|context| self.poll(context)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, client = self.client.id, "a Redis connection broke");
        }
    }

    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// Ready when the connection is to be closed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            let now_us = self.now_us();
            let now_ms = now_us / 1000;
            self.session.begin_turn(now_us);
            if self.poll_inbox(context, now_ms) {
                return Poll::Ready(Ok(()));
            }
            let more = self.poll_requests(context, now_ms)?;
            self.session.pump(now_ms, &*self.stores);
            let epoch = self.epoch;
            self.session.end_turn(|| epoch.elapsed().as_micros() as u64);
            self.poll_write(context)?;
            if self.session.is_finished() && self.session.replies().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let turn_again = self.poll_timer(context, now_ms);
            if !more && !turn_again {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes in responses; whether the connection is to be cut off.
    fn poll_inbox(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let finish = {
            let mut state = self.inbox.state.lock();
            if state.hang_up {
                return true;
            }
            std::mem::swap(&mut state.responses, &mut self.responses);
            if !state
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                state.waker = Some(context.waker().clone());
            }
            std::mem::take(&mut state.finish)
        };
        if finish {
            self.session.close(None);
        }
        for (token, response) in self.responses.drain(..) {
            self.session
                .on_response(token, response, now_ms, &*self.stores);
        }
        false
    }

    /// Executes what is buffered and then what one read brings; whether there may be more.
    fn poll_requests(&mut self, context: &mut Context<'_>, now_ms: u64) -> io::Result<bool> {
        if !self.execute_buffered(now_ms) {
            return Ok(false);
        }
        match self.poll_read(context) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                // What was read before the client closed its side is still answered.
                self.session.close(None);
                Ok(false)
            }
            Poll::Ready(Ok(_)) => Ok(self.execute_buffered(now_ms)),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Executes complete commands; whether the session would take more.
    fn execute_buffered(&mut self, now_ms: u64) -> bool {
        while self.session.accepts_more() {
            match self.parser.next(&mut self.buffer, &mut self.args) {
                Ok(true) => self.session.execute(&mut self.args, now_ms, &*self.stores),
                Ok(false) => return true,
                Err(error) => self.session.close(Some(&error.to_string())),
            }
        }
        false
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 2 {
            // Grows with what was received, never with what was announced.
            self.buffer.reserve(self.read_bytes);
        }
        let read = pin!(self.stream.read_buf(&mut self.buffer));
        let count = ready!(read.poll(context))?;
        self.door.metrics.stripe(self.client.id).received(count);
        if count >= self.read_bytes / 2 {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES.1);
        } else if count < READ_BYTES.0 / 2 && self.read_bytes > READ_BYTES.0 {
            self.read_bytes /= 2;
        }
        Poll::Ready(Ok(count))
    }

    /// Writes as many replies as the socket takes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let replies = self.session.replies();
        while !replies.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, replies) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.door.metrics.stripe(self.client.id).sent(written);
                    replies.advance(written);
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        // A single huge reply should not keep its memory.
        if replies.capacity() > 4 * READ_BYTES.1 {
            *replies = BytesMut::new();
        }
        Ok(())
    }

    /// Arms the timer, and does what is due; whether the session has something to do at once.
    fn poll_timer(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let Some(at_ms) = self.session.next_timer() else {
            return false;
        };
        if at_ms <= now_ms {
            self.session.on_timer(now_ms, &*self.stores);
            return true;
        }
        // Set only when it would go off too late: most deadlines are met, and then the timer
        // of the first serves all that come in the seconds after.
        if self.timer_at_ms.is_none_or(|armed_ms| at_ms < armed_ms) {
            self.timer
                .as_mut()
                .reset(self.epoch + Duration::from_millis(at_ms));
            self.timer_at_ms = Some(at_ms);
        }
        if self.timer.as_mut().poll(context).is_ready() {
            self.timer_at_ms = None;
            return true;
        }
        false
    }
}
