//! The sending end of a link: frames are written by the thread that has something to send.
//!
//! A worker that ends a round, or a thread of a door that ends a turn, writes to the socket
//! itself: no other thread is woken for it. What others add meanwhile leaves in the frame after
//! that, written by the same thread. If the socket is full, a task of the link takes over.
//!
//! Invariants: at most one thread writes at a time; frames leave in the order in which they
//! were taken; nothing of one connection is written to its successor.

use super::frame::Parts;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

/// What frames are made of.
pub trait Source {
    /// The next frame, if there is anything to send.
    fn take(&mut self) -> Option<Parts>;
}

/// See the module's documentation.
pub struct Outlet<S> {
    // Held for a push or for taking out a frame, never while writing.
    state: Mutex<State<S>>,
    /// The socket was full: the task has to go on.
    full: Notify,
}

/// An outlet, locked.
pub struct State<S> {
    source: S,
    link: Option<Arc<OwnedWriteHalf>>,
    /// Grows with each connection.
    session: u64,
    /// Somebody writes, and will look for more when it has.
    writing: bool,
    /// What the full socket has not taken yet.
    rest: Option<Parts>,
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
                sign_of_life: false,
            }),
            full: Notify::new(),
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
        let session = state.session;
        while let Some(mut parts) = state.next() {
            state.writing = true;
            drop(state);
            let written = parts.try_write(&link);
            state = self.state.lock();
            if state.session != session {
                return;
            }
            if !matches!(written, Ok(true)) {
                // An error is met again by the task, which ends the connection.
                state.rest = Some(parts);
                drop(state);
                return self.full.notify_one();
            }
        }
        state.writing = false;
    }

    /// Sends a frame, if need be one of nothing.
    pub fn show_life(&self) {
        let mut state = self.state.lock();
        state.sign_of_life = true;
        self.send(state);
    }

    /// Begins to write to a new connection.
    pub fn open(&self, link: Arc<OwnedWriteHalf>) {
        let mut state = self.state.lock();
        assert!(
            state.link.is_none(),
            "the connection before this one has not ended"
        );
        state.session += 1;
        state.link = Some(link);
        state.writing = false;
        state.rest = None;
    }

    /// Ends the connection, if there is one, and gives access to what was not sent.
    pub fn close(&self) -> (bool, MutexGuard<'_, State<S>>) {
        let mut state = self.state.lock();
        state.session += 1;
        state.writing = false;
        state.rest = None;
        (state.link.take().is_some(), state)
    }

    /// Writes what a full socket did not take, again and again. Ends with the connection's error.
    pub async fn keep_writing(&self, link: &OwnedWriteHalf) -> io::Error {
        loop {
            self.full.notified().await;
            // Without a rest it was about a connection before this one, and others may write.
            let Some(mut parts) = self.state.lock().rest.take() else {
                continue;
            };
            loop {
                if let Err(error) = parts.write(link).await {
                    return error;
                }
                let mut state = self.state.lock();
                match state.next() {
                    Some(next) => parts = next,
                    None => {
                        state.writing = false;
                        break;
                    }
                }
            }
        }
    }
}
