//! Epoll, edge-triggered, and an eventfd by which other threads end a wait.
//!
//! Edge-triggered: a socket is added once and never changed. Whoever gets an event reads (or
//! writes) until the socket says that it would block, or remembers that it has not.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{eventfd, EventfdFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Most events that one wait returns.
const EVENTS_MAX: usize = 256;
/// The name of the eventfd's own events.
const WAKE: u64 = u64::MAX;

/// Ends waits, also those that have yet to begin.
pub(super) struct Waker(OwnedFd);

impl Waker {
    pub(super) fn wake(&self) {
        // Full only after 2^64 wake-ups: nobody reads it, each write is an edge.
        if let Err(error) = rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "can't wake a thread of the Redis door");
        }
    }
}

/// See the module's documentation.
pub(super) struct Poll(OwnedFd);

/// What a wait has brought. It stays in its thread.
pub(super) struct Events(Vec<Event>);

/// What a socket has become ready for. A broken one is ready for both, to meet its error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub read: bool,
    pub write: bool,
    /// The other side has sent its last byte, or is gone: there will be no further event.
    pub ended: bool,
}

impl Poll {
    pub(super) fn new() -> io::Result<(Self, Arc<Waker>)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), flags)?;
        Ok((Poll(epoll), Arc::new(Waker(wake))))
    }

    /// Watches `socket` under `id` until it is closed.
    pub(super) fn add(&self, socket: impl AsFd, id: u64) -> io::Result<()> {
        debug_assert_ne!(id, WAKE);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.0, socket, EventData::new_u64(id), flags)?)
    }

    /// Waits for events, for `timeout` at most (`None` = for ever). May return early.
    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        events.0.clear();
        match epoll::wait(&self.0, spare_capacity(&mut events.0), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Events {
    pub(super) fn new() -> Self {
        Events(Vec::with_capacity(EVENTS_MAX))
    }

    /// Ids of sockets, and what they have become ready for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Readiness)> + '_ {
        self.0
            .iter()
            .filter(|event| event.data.u64() != WAKE)
            .map(|event| {
                let flags = event.flags;
                let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                let ready = Readiness {
                    read: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                    write: broken || flags.contains(EventFlags::OUT),
                    ended: broken || flags.contains(EventFlags::RDHUP),
                };
                (event.data.u64(), ready)
            })
    }
}
