//! A thread of the door: waits for sockets, mail and timers, and gives turns.

use super::connection::Connection;
use super::inbox::{Inbox, Mail};
use super::outgoing::Outgoing;
use super::Place;
use crate::dispatch::IdHasher;
use crate::poll::ports::{Next, Ports};
use crate::stores::Stores;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasherDefault;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most bytes of one read.
const READ_BYTES_MAX: usize = 64 << 10;

/// A thread looks at its ports this often, whatever happens: see [`Entrance::looks`].
///
/// [`Entrance::looks`]: crate::poll::ports::Entrance::looks
const LOOK: Duration = Duration::from_millis(500);

struct Thread {
    ports: Ports,
    inbox: Arc<Inbox>,
    outgoing: Outgoing,
    epoch: Instant,
    connections: HashMap<u64, Box<Connection>, BuildHasherDefault<IdHasher>>,
    /// Connections whose turn it is.
    queue: Vec<u64>,
    /// When connections have a turn though nothing happens; see [`Connection::timer_at_ms`].
    timers: BinaryHeap<Reverse<(u64, u64)>>,
    scratch: Vec<u8>,
    stopping: bool,
}

/// Starts a thread; `ended` is dropped when it has ended.
pub(super) fn start(
    place: Place,
    epoch: Instant,
    ended: oneshot::Sender<()>,
) -> io::Result<Arc<Inbox>> {
    let Place { stores, ports } = place;
    let inbox = Arc::new(Inbox::new(ports.waker().clone()));
    let thread = Thread {
        ports,
        inbox: inbox.clone(),
        outgoing: Outgoing::new(stores),
        epoch,
        connections: HashMap::default(),
        queue: Vec::new(),
        timers: BinaryHeap::new(),
        scratch: vec![0; READ_BYTES_MAX],
        stopping: false,
    };
    std::thread::Builder::new()
        .name(super::THREADS.into())
        .spawn(move || {
            // A turn's panic was caught. What is left is a bug that leaves connections hanging.
            if catch_unwind(AssertUnwindSafe(|| thread.run())).is_err() {
                std::process::abort();
            }
            drop(ended);
        })?;
    Ok(inbox)
}

impl Thread {
    fn run(mut self) {
        let (mut mail, mut turns) = (Vec::new(), Vec::new());
        loop {
            let now_us = self.epoch.elapsed().as_micros() as u64;
            let now_ms = now_us / 1000;
            self.inbox.take(&mut mail);
            for mail in mail.drain(..) {
                if matches!(mail, Mail::CutOff) {
                    return;
                }
                self.on_mail(mail, now_ms);
            }
            self.ring_timers(now_ms);
            std::mem::swap(&mut self.queue, &mut turns);
            for id in turns.drain(..) {
                self.turn(id, now_us);
            }
            self.outgoing.flush();
            if self.stopping && self.connections.is_empty() {
                return;
            }
            let timeout = match self.queue.is_empty() && self.inbox.fall_asleep() {
                true => Some(self.until_timer().map_or(LOOK, |timer| timer.min(LOOK))),
                false => Some(Duration::ZERO),
            };
            self.ports
                .wait(timeout)
                .expect("waiting on an epoll of our own");
            self.inbox.awake();
            let (connections, queue) = (&mut self.connections, &mut self.queue);
            self.ports.turns(|id, ready| {
                if let Some(connection) = connections.get_mut(&id) {
                    connection.is_ready(ready);
                    enqueue(connection, queue);
                }
            });
        }
    }

    fn on_mail(&mut self, mail: Mail, now_ms: u64) {
        let id = match &mail {
            Mail::Open(connection) => connection.id,
            Mail::Response(id, ..) | Mail::Messages(id) | Mail::HangUp(id) | Mail::Finish(id) => {
                *id
            }
            Mail::Stop | Mail::CutOff => return self.stopping = true,
        };
        if let Mail::Open(connection) = mail {
            // Its first event says that it is writable, and perhaps that it is readable.
            match self.ports.watch(connection.socket(), id) {
                Ok(()) => drop(self.connections.insert(id, connection)),
                Err(error) => tracing::warn!(%error, "can't watch a Redis connection"),
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match mail {
            Mail::Response(_, token, response) => {
                let stores: &dyn Stores = &self.outgoing;
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    connection.on_response(token, response, now_ms, stores);
                }));
                if panicked.is_err() {
                    return self.broke(id);
                }
            }
            Mail::HangUp(_) => return drop(self.connections.remove(&id)),
            Mail::Finish(_) => connection.finish(),
            Mail::Messages(_) | Mail::Open(_) | Mail::Stop | Mail::CutOff => {}
        }
        enqueue(connection, &mut self.queue);
    }

    fn turn(&mut self, id: u64, now_us: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.queued = false;
        let (scratch, epoch, stores) = (&mut self.scratch[..], self.epoch, &self.outgoing);
        // A panic is of this connection alone.
        let turn = catch_unwind(AssertUnwindSafe(|| {
            connection.turn(scratch, now_us, epoch, stores)
        }));
        match turn {
            Ok(Ok(Next::Wait)) => {}
            Ok(Ok(Next::Turn)) => return enqueue(connection, &mut self.queue),
            Ok(Ok(Next::Close)) => return drop(self.connections.remove(&id)),
            Ok(Err(error)) => {
                tracing::debug!(%error, client = id, "a Redis connection broke");
                return drop(self.connections.remove(&id));
            }
            Err(_) => return self.broke(id),
        }
        // Set only when it would go off too late: most deadlines are met, and then the timer
        // of the first serves all that come in the seconds after.
        if let Some(at_ms) = connection.next_timer() {
            if connection.timer_at_ms.is_none_or(|set_ms| at_ms < set_ms) {
                connection.timer_at_ms = Some(at_ms);
                self.timers.push(Reverse((at_ms, id)));
            }
        }
    }

    fn broke(&mut self, id: u64) {
        tracing::error!(client = id, "a Redis connection's turn panicked");
        self.connections.remove(&id);
    }

    /// Gives a turn to whose timer is due.
    fn ring_timers(&mut self, now_ms: u64) {
        while let Some(&Reverse((at_ms, id))) = self.timers.peek() {
            if at_ms > now_ms {
                return;
            }
            self.timers.pop();
            if let Some(connection) = self.connections.get_mut(&id) {
                // Otherwise an earlier one was set meanwhile.
                if connection.timer_at_ms == Some(at_ms) {
                    connection.timer_at_ms = None;
                    enqueue(connection, &mut self.queue);
                }
            }
        }
    }

    fn until_timer(&self) -> Option<Duration> {
        let Reverse((at_ms, _)) = self.timers.peek()?;
        let at = Duration::from_millis(*at_ms);
        Some(at.saturating_sub(self.epoch.elapsed()))
    }
}

fn enqueue(connection: &mut Connection, queue: &mut Vec<u64>) {
    if !std::mem::replace(&mut connection.queued, true) {
        queue.push(connection.id);
    }
}
