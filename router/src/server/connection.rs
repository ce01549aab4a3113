//! One connection: its socket, its parser and its session, and what one turn of it is.

use super::inbox::Mailbox;
use crate::poll::ports::Next;
use crate::poll::Readiness;
use crate::resp::Parser;
use crate::session::{Client, Door, HangUp, Session};
use crate::stores::Stores;
use bytes::{Buf, Bytes, BytesMut};
use rangekv_proto::{ReplySink, Response};
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After how long without a byte the kernel asks whether a client is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// A single huge reply should not keep more memory than this.
const REPLIES_KEPT_BYTES: usize = 1 << 20;
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// See the module's documentation.
pub(super) struct Connection {
    pub(super) id: u64,
    stream: TcpStream,
    door: Arc<Door>,
    client: Arc<Client>,
    session: Session,
    parser: Parser,
    /// Received and not yet understood.
    buffer: BytesMut,
    args: Vec<Bytes>,
    ready: Readiness,
    /// It stands in its thread's queue.
    pub(super) queued: bool,
    /// When its thread's timer for it goes off: never later than needed, at times earlier.
    pub(super) timer_at_ms: Option<u64>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.door.clients.close(self.client.id);
    }
}

impl Connection {
    /// `None` if there are too many, or the client is gone already.
    pub(super) fn open(
        stream: TcpStream,
        door: &Arc<Door>,
        mailbox: &Arc<Mailbox>,
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
        let now_ms = epoch.elapsed().as_millis() as u64;
        let clients_max = door.settings.clients_max();
        let (peer, local) = (peer.to_string(), local.to_string());
        let hang_up: Arc<dyn HangUp> = mailbox.clone();
        let Some(client) = door.clients.open(peer, local, hang_up, now_ms, clients_max) else {
            if let Err(error) = (&stream).write(TOO_MANY) {
                tracing::debug!(%error, "a refused Redis client was not told why");
            }
            return None;
        };
        let sink: Arc<dyn ReplySink> = mailbox.clone();
        let seed = door.node.unix_micros() ^ client.id.rotate_left(32);
        Some(Connection {
            id: mailbox.id,
            stream,
            session: Session::new(door.clone(), client.clone(), sink, seed),
            door: door.clone(),
            client,
            parser: Parser::new(door.config.limits),
            buffer: BytesMut::new(),
            args: Vec::new(),
            ready: Readiness {
                read: false,
                write: true,
                ended: false,
            },
            queued: false,
            timer_at_ms: None,
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket has become ready.
    pub(super) fn is_ready(&mut self, ready: Readiness) {
        self.ready.note(ready);
    }

    pub(super) fn on_response(
        &mut self,
        token: u64,
        response: Response,
        now_ms: u64,
        stores: &dyn Stores,
    ) {
        self.session.on_response(token, response, now_ms, stores);
    }

    /// Answer what was read, then end.
    pub(super) fn finish(&mut self) {
        self.session.close(None);
    }

    /// Executes what is there and what one read brings, starts what can be started, writes the
    /// replies that are ready. `scratch` is what the thread reads into; times count from `epoch`.
    pub(super) fn turn(
        &mut self,
        scratch: &mut [u8],
        now_us: u64,
        epoch: Instant,
        stores: &dyn Stores,
    ) -> io::Result<Next> {
        let now_ms = now_us / 1000;
        self.session.begin_turn(now_us);
        let mut executed = self.execute_buffered(now_ms, stores);
        if executed && self.ready.read && self.read(scratch)? {
            executed = self.execute_buffered(now_ms, stores);
        }
        if self.is_due(now_ms) {
            self.session.on_timer(now_ms, stores);
        }
        self.session.pump(now_ms, stores);
        self.session.end_turn(|| epoch.elapsed().as_micros() as u64);
        self.write()?;
        let unsent = self.session.replies().len();
        self.client.buffers(self.buffer.len(), unsent);
        if self.session.is_finished() && self.session.replies().is_empty() {
            return Ok(Next::Close);
        }
        // What was held back until replies have gone: they may just have.
        let more = self.session.accepts_more() && (self.ready.read || !executed)
            || self.session.has_messages() && self.session.replies().is_empty();
        Ok(match more || self.is_due(now_ms) {
            true => Next::Turn,
            false => Next::Wait,
        })
    }

    /// When the next turn is due, whatever happens.
    pub(super) fn next_timer(&self) -> Option<u64> {
        self.session.next_timer()
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.next_timer().is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// Executes complete commands; whether the session would take more.
    fn execute_buffered(&mut self, now_ms: u64, stores: &dyn Stores) -> bool {
        while self.session.accepts_more() {
            match self.parser.next(&mut self.buffer, &mut self.args) {
                Ok(true) => self.session.execute(&mut self.args, now_ms, stores),
                Ok(false) => return true,
                Err(error) => self.session.close(Some(&error.to_string())),
            }
        }
        false
    }

    /// One read; whether it brought anything.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        match self.ready.read(&self.stream, scratch)? {
            Some(0) => {
                // What was read before the client closed its side is still answered.
                self.session.close(None);
                Ok(false)
            }
            Some(count) => {
                self.buffer.extend_from_slice(&scratch[..count]);
                self.door.metrics.stripe(self.client.id).received(count);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Writes as many replies as the socket takes.
    fn write(&mut self) -> io::Result<()> {
        let replies = self.session.replies();
        while self.ready.write && !replies.is_empty() {
            match self.stream.write(replies) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.door.metrics.stripe(self.client.id).sent(written);
                    replies.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.write = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if replies.is_empty() && replies.capacity() > REPLIES_KEPT_BYTES {
            *replies = BytesMut::new();
        }
        Ok(())
    }
}
