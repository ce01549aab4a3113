//! Epoll, edge-triggered, and an eventfd by which other threads end a wait.
//!
//! Edge-triggered: a socket is added once and never changed. Whoever gets an event reads (or
//! writes) until the socket says that it would block, or remembers that it has not.
//!
//! [`ports`] are sockets that a thread polls for others, besides its own work.

pub mod ports;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{eventfd, EventfdFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

/// Most events that one wait returns.
const EVENTS_MAX: usize = 128;
/// The name of the eventfd's own events.
const WAKE: u64 = u64::MAX;

/// Ends waits, also those that have yet to begin.
pub struct Waker(OwnedFd);

impl Waker {
    /// Ends the wait that is under way, or else the next.
    pub fn wake(&self) {
        // Full only after 2^64 wake-ups: nobody reads it, each write is an edge.
        if let Err(error) = rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "can't wake a thread that polls");
        }
    }
}

/// See the module's documentation.
pub struct Poll(OwnedFd);

/// Ids of sockets, and what they have become ready for.
pub type Events = Vec<(u64, Readiness)>;

/// What a socket has become ready for. A broken one is ready for both, to meet its error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// The other side has sent its last byte, or is gone: there will be no further event.
    pub ended: bool,
}

impl Readiness {
    /// An event has come.
    pub fn note(&mut self, event: Readiness) {
        self.read |= event.read;
        self.write |= event.write;
        self.ended |= event.ended;
    }

    /// One read, and whether another one may bring more: how many bytes it brought, 0 at the end;
    /// `None` if there was nothing to be read.
    pub fn read(&mut self, mut from: impl Read, into: &mut [u8]) -> io::Result<Option<usize>> {
        match from.read(into) {
            Ok(count) => {
                // Less than asked for: there was no more. But the end may stand behind it.
                self.read = count > 0 && (count == into.len() || self.ended);
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.read = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Poll {
    /// Watches nothing yet.
    pub fn new() -> io::Result<(Self, Arc<Waker>)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), flags)?;
        Ok((Poll(epoll), Arc::new(Waker(wake))))
    }

    /// Watches `socket` under `id` until it is closed.
    pub fn add(&self, socket: impl AsFd, id: u64) -> io::Result<()> {
        debug_assert_ne!(id, WAKE);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.0, socket, EventData::new_u64(id), flags)?)
    }

    /// Waits for events, for `timeout` at most (`None` = for ever), and replaces those in
    /// `events`. May return early.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        events.clear();
        let mut space = [MaybeUninit::uninit(); EVENTS_MAX];
        match epoll::wait(&self.0, &mut space, timeout.as_ref()) {
            Ok((brought, _)) => {
                let own = brought.iter().filter(|event| event.data.u64() != WAKE);
                events.extend(own.map(|event| (event.data.u64(), readiness(event.flags))));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn readiness(flags: EventFlags) -> Readiness {
    let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
    Readiness {
        read: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
        write: broken || flags.contains(EventFlags::OUT),
        ended: broken || flags.contains(EventFlags::RDHUP),
    }
}
