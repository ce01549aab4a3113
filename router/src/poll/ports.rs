//! Sockets that a thread polls for others, besides its own work.
//!
//! Whoever works with what comes from a socket reads it himself: nobody else is woken to read,
//! and then wakes him. So the worker reads the links that bring it requests and Raft's messages,
//! and a thread of the Redis door those that bring its responses.
//!
//! A port enters through an [`Entrance`], from any thread, also before there is a thread that
//! polls. It leaves when its turn says so, and is dropped then.

use super::{Events, Poll, Readiness, Waker};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes that a port should read at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// Ids of ports begin here; those of the thread's own sockets are below.
const FIRST_PORT: u64 = 1 << 63;

/// A socket and what is to be done when it is ready.
pub trait Port: Send {
    /// Watched, edge-triggered, until the port is dropped.
    fn socket(&self) -> BorrowedFd<'_>;

    /// The socket has become ready for something, or the port has asked for another turn (then
    /// `ready` is empty). May read into `scratch`. Does not block, and leaves others their turn.
    fn turn(&mut self, ready: Readiness, scratch: &mut [u8]) -> Next;
}

/// What is next for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for its socket.
    Wait,
    /// Another turn, after those of others.
    Turn,
    /// Its end.
    Close,
}

/// Where ports enter.
pub struct Entrance {
    new: Mutex<Vec<Box<dyn Port>>>,
    waker: Arc<Waker>,
    looks: AtomicU64,
}

impl Entrance {
    /// Lets a port in.
    pub fn add(&self, port: Box<dyn Port>) {
        self.new.lock().push(port);
        self.waker.wake();
    }

    /// Grows whenever the thread looks at its ports: one that hangs elsewhere is no proof that
    /// nobody says anything.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

/// The ports of one thread, and its poll.
pub struct Ports {
    poll: Poll,
    entrance: Arc<Entrance>,
    ports: BTreeMap<u64, Box<dyn Port>>,
    last: u64,
    /// Ports that have asked for another turn.
    again: Vec<u64>,
    events: Events,
    scratch: Vec<u8>,
}

impl Ports {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        let (poll, waker) = Poll::new()?;
        let entrance = Arc::new(Entrance {
            new: Mutex::default(),
            waker,
            looks: AtomicU64::new(0),
        });
        Ok(Ports {
            poll,
            entrance,
            ports: BTreeMap::new(),
            last: FIRST_PORT,
            again: Vec::new(),
            events: Events::new(),
            scratch: vec![0; READ_BYTES_MAX],
        })
    }

    /// Where ports enter.
    pub fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }

    /// Ends waits.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.entrance.waker
    }

    /// Watches a socket of the thread's own.
    pub fn watch(&self, socket: impl AsFd, id: u64) -> io::Result<()> {
        debug_assert!(id < FIRST_PORT);
        self.poll.add(socket, id)
    }

    /// Waits for sockets and wake-ups, for `timeout` at most (`None` = for ever). May return
    /// early. Follow with [`turns`](Self::turns).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match self.again.is_empty() {
            true => timeout,
            false => Some(Duration::ZERO),
        };
        self.poll.wait(&mut self.events, timeout)
    }

    /// After a wait: gives ports their turn, and tells `own` of the thread's own sockets.
    pub fn turns(&mut self, mut own: impl FnMut(u64, Readiness)) {
        self.entrance.looks.fetch_add(1, Ordering::Relaxed);
        for id in std::mem::take(&mut self.again) {
            self.turn(id, Readiness::default());
        }
        let events = std::mem::take(&mut self.events);
        for &(id, ready) in &events {
            match id < FIRST_PORT {
                true => own(id, ready),
                false => self.turn(id, ready),
            }
        }
        self.events = events;
        self.let_in();
    }

    /// Watches who has entered. Its first event says that it is writable, and perhaps more.
    fn let_in(&mut self) {
        let new = std::mem::take(&mut *self.entrance.new.lock());
        for port in new {
            self.last += 1;
            match self.poll.add(port.socket(), self.last) {
                Ok(()) => drop(self.ports.insert(self.last, port)),
                Err(error) => tracing::warn!(%error, "can't watch a socket"),
            }
        }
    }

    fn turn(&mut self, id: u64, ready: Readiness) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        match port.turn(ready, &mut self.scratch) {
            Next::Wait => {}
            Next::Turn => {
                if !self.again.contains(&id) {
                    self.again.push(id);
                }
            }
            Next::Close => drop(self.ports.remove(&id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{channel, Sender, TryRecvError};

    struct Lines(UnixStream, Sender<usize>);

    impl Port for Lines {
        fn socket(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
        fn turn(&mut self, _: Readiness, scratch: &mut [u8]) -> Next {
            match self.0.read(&mut scratch[..2]) {
                Ok(0) => Next::Close,
                Ok(count) => {
                    self.1.send(count).unwrap();
                    Next::Turn
                }
                Err(_) => Next::Wait,
            }
        }
    }

    #[test]
    fn ports_enter_get_turns_until_they_are_done_and_leave() {
        let mut ports = Ports::new().unwrap();
        let entrance = ports.entrance().clone();
        let (sent, received) = channel();
        let (mut near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        near.write_all(b"12345").unwrap();
        drop(near);
        entrance.add(Box::new(Lines(far, sent)));
        let mut seen = 0;
        // Ends when the port has been dropped, and its sender with it.
        loop {
            match received.try_recv() {
                Ok(count) => seen += count,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    ports.wait(Some(Duration::from_secs(1))).unwrap();
                    ports.turns(|_, _| {});
                }
            }
        }
        assert!(ports.ports.is_empty() && ports.again.is_empty());
        assert_eq!(seen, 5);
    }

    #[test]
    fn a_wake_up_and_sockets_of_the_thread_itself_end_a_wait() {
        let mut ports = Ports::new().unwrap();
        ports.waker().wake();
        let (near, mut far) = UnixStream::pair().unwrap();
        ports.watch(&near, 7).unwrap();
        far.write_all(b"x").unwrap();
        let mut seen = Vec::new();
        ports.wait(None).unwrap();
        ports.turns(|id, ready| seen.push((id, ready.read)));
        assert_eq!(seen, [(7, true)]);
    }
}
