//! The sending end of a link: frames are written by the thread that has something to send.
//!
//! A worker that ends a round, or a thread of a door that ends a turn, writes to the socket
//! itself: no other thread is woken for it. What others add meanwhile leaves in the frame after
//! that, written by the same thread. If the socket is full, the thread that polls it goes on
//! when it takes more.
//!
//! Invariants: at most one thread writes at a time; frames leave in the order in which they
//! were taken; nothing of one connection is written to its successor.

use super::frame::Parts;
use parking_lot::{Mutex, MutexGuard};
use std::net::{Shutdown, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What frames are made of.
pub trait Source {
    /// The next frame, if there is anything to send.
    fn take(&mut self) -> Option<Parts>;
}

/// See the module's documentation.
pub struct Outlet<S> {
    // Held for a push or for taking out a frame, never while writing.
    state: Mutex<State<S>>,
}

/// An outlet, locked.
pub struct State<S> {
    source: S,
    link: Option<Arc<TcpStream>>,
    /// Grows with each connection.
    session: u64,
    /// Somebody writes, and will look for more when it has.
    writing: bool,
    /// What the full socket has not taken yet.
    rest: Option<Parts>,
    /// How often the socket has become writable.
    writable: u64,
    /// The other side is to hear something.
    sign_of_life: bool,
}

impl<S> Deref for State<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.source
    }
}

impl<S> DerefMut for State<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.source
    }
}

impl<S: Source> State<S> {
    /// Whether there is a connection.
    pub fn is_open(&self) -> bool {
        self.link.is_some()
    }

    fn next(&mut self) -> Option<Parts> {
        let sign_of_life = std::mem::take(&mut self.sign_of_life);
        let next = self.source.take();
        next.or_else(|| sign_of_life.then(Parts::sign_of_life))
    }
}

impl<S: Source + Default> Default for Outlet<S> {
    fn default() -> Self {
        Outlet {
            state: Mutex::new(State {
                source: S::default(),
                link: None,
                session: 0,
                writing: false,
                rest: None,
                writable: 0,
                sign_of_life: false,
            }),
        }
    }
}

impl<S: Source> Outlet<S> {
    /// To look at the source, or to add to it; follow with [`send`](Self::send).
    pub fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock()
    }

    /// Sends what the source has, unless somebody is about to.
    pub fn send<'a>(&'a self, mut state: MutexGuard<'a, State<S>>) {
        let Some(link) = state.link.clone() else {
            return;
        };
        if state.writing {
            return;
        }
        if let Some(parts) = state.next() {
            state.writing = true;
            self.write(state, &link, parts);
        }
    }

    /// Writes `parts` and all that follows. The caller has become the one who writes.
    fn write<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<S>>,
        link: &TcpStream,
        mut parts: Parts,
    ) {
        let session = state.session;
        loop {
            let writable = state.writable;
            drop(state);
            let written = parts.write(link);
            state = self.state.lock();
            if state.session != session {
                return;
            }
            match written {
                Ok(true) => match state.next() {
                    Some(next) => parts = next,
                    None => return state.writing = false,
                },
                // It may have become writable before we could say that we wait for it.
                Ok(false) if state.writable != writable => {}
                Ok(false) => return state.rest = Some(parts),
                Err(error) => {
                    tracing::debug!(%error, "a link broke");
                    // Whoever reads it meets its end, and nobody writes until then.
                    let _ = link.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    /// The socket of this session has become writable: goes on if it was full.
    pub fn resume(&self, session: u64) {
        let mut state = self.state.lock();
        let Some(link) = state.link.clone().filter(|_| state.session == session) else {
            return;
        };
        state.writable += 1;
        if let Some(parts) = state.rest.take() {
            self.write(state, &link, parts);
        }
    }

    /// Sends a frame, if need be one of nothing.
    pub fn show_life(&self) {
        let mut state = self.state.lock();
        state.sign_of_life = true;
        self.send(state);
    }

    /// Begins to write to a new connection, which does not block; returns the session's number.
    pub fn open(&self, link: Arc<TcpStream>) -> u64 {
        let mut state = self.state.lock();
        assert!(
            state.link.is_none(),
            "the connection before this one has not ended"
        );
        state.session += 1;
        state.link = Some(link);
        state.writing = false;
        state.rest = None;
        state.session
    }

    /// Ends the connection, if there is one, and gives access to what was not sent.
    pub fn close(&self) -> (bool, MutexGuard<'_, State<S>>) {
        let mut state = self.state.lock();
        state.session += 1;
        state.writing = false;
        state.rest = None;
        (state.link.take().is_some(), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::io::Read;
    use std::net::TcpListener;

    /// Frames of one request each.
    #[derive(Default)]
    struct Numbers(std::collections::VecDeque<Bytes>);

    impl Source for Numbers {
        fn take(&mut self) -> Option<Parts> {
            let next = self.0.pop_front()?;
            Some(Parts::new(Vec::new(), next, Bytes::new()))
        }
    }

    #[test]
    fn a_full_socket_is_resumed_and_nothing_is_lost_or_torn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let mut far = listener.accept().unwrap().0;
        let (near, outlet) = (Arc::new(near), Outlet::<Numbers>::default());
        let session = outlet.open(near.clone());
        let frame = Bytes::from(vec![3; 1 << 20]);
        for _ in 0..64 {
            let mut state = outlet.lock();
            state.0.push_back(frame.clone());
            outlet.send(state);
        }
        assert!(outlet.lock().rest.is_some(), "no socket holds 64 MiB");
        outlet.resume(session + 1);
        let reading = std::thread::spawn(move || {
            let (mut bytes, mut piece) = (0, vec![0; 1 << 20]);
            loop {
                match far.read(&mut piece).unwrap() {
                    0 => return bytes,
                    count => bytes += count,
                }
            }
        });
        while outlet.lock().writing {
            outlet.resume(session);
            std::thread::yield_now();
        }
        let (was_open, state) = outlet.close();
        assert!(was_open && state.0.is_empty());
        drop(state);
        drop(near);
        assert_eq!(reading.join().unwrap(), 64 * (12 + frame.len()));
    }
}
