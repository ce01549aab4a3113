//! Messages that wait for one connection: any thread leaves them, the connection's own takes them.
//!
//! Bounded as Redis bounds it (`client-output-buffer-limit pubsub 32mb 8mb 60`): who lets more
//! than the hard limit wait is hung up on at once, who stays above the soft one for a minute,
//! then. A subscriber that does not read costs others nothing but these bytes, and messages that
//! several subscribers wait for are there once.

use super::Counters;
use crate::session::HangUp;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rangekv_model::redis::codec::Protocol;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes beyond which the connection is closed.
    pub hard_bytes: usize,
    /// Bytes beyond which it is closed after a while.
    pub soft_bytes: usize,
    /// The while, in milliseconds.
    pub soft_ms: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Limit {
            hard_bytes: 32 << 20,
            soft_bytes: 8 << 20,
            soft_ms: 60_000,
        }
    }
}

/// What a message weighs besides its bytes.
const MESSAGE_WEIGHT: usize = 64;

/// See the module's documentation.
pub struct Outbox {
    thread: Arc<dyn HangUp>,
    limit: Limit,
    counters: Arc<Counters>,
    // Held for a push or for taking a few messages.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// The connection's thread knows that there is something, and will come back.
    told: bool,
    /// The connection ends: nothing more is taken in.
    closed: bool,
}

impl Outbox {
    pub(super) fn new(thread: Arc<dyn HangUp>, limit: Limit, counters: Arc<Counters>) -> Self {
        Outbox {
            thread,
            limit,
            counters,
            state: Mutex::default(),
        }
    }

    /// Leaves an encoded push message; whether it was taken.
    pub fn push(&self, message: &Bytes) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let before = state.bytes;
        let bytes = before + message.len() + MESSAGE_WEIGHT;
        if bytes > self.limit.hard_bytes {
            self.close_locked(&mut state);
            drop(state);
            self.counters.cut_off.fetch_add(1, Ordering::Relaxed);
            self.thread.hang_up();
            return false;
        }
        state.messages.push_back(message.clone());
        state.bytes = bytes;
        let soft = before <= self.limit.soft_bytes && bytes > self.limit.soft_bytes;
        let tell = soft || !state.told;
        state.told = true;
        drop(state);
        if tell {
            self.thread.wake();
        }
        true
    }

    /// Moves messages to `out` until it holds `until` bytes. Returns the bytes of those that
    /// still wait: whoever takes comes back for them unasked.
    pub fn take(&self, out: &mut BytesMut, until: usize, protocol: Protocol) -> usize {
        let mut state = self.state.lock();
        while out.len() < until {
            let Some(message) = state.messages.pop_front() else {
                break;
            };
            state.bytes -= message.len() + MESSAGE_WEIGHT;
            let at = out.len();
            out.extend_from_slice(&message);
            // The one byte in which the protocols differ.
            if protocol == Protocol::Resp2 {
                out[at] = b'*';
            }
        }
        state.told = state.bytes > 0;
        state.bytes
    }

    /// How many messages wait, and what they weigh.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.messages.len(), state.bytes)
    }

    /// Whether so much waits that it may not for long.
    pub fn is_over_soft(&self, bytes: usize) -> bool {
        bytes > self.limit.soft_bytes
    }

    /// How long it may.
    pub fn soft_ms(&self) -> u64 {
        self.limit.soft_ms
    }

    /// The connection was above the soft limit for too long.
    pub fn cut_off(&self) {
        let mut state = self.state.lock();
        if !state.closed {
            self.close_locked(&mut state);
            drop(state);
            self.counters.cut_off.fetch_add(1, Ordering::Relaxed);
            self.thread.hang_up();
        }
    }

    /// The connection has ended.
    pub fn close(&self) {
        self.close_locked(&mut self.state.lock());
    }

    fn close_locked(&self, state: &mut State) {
        state.closed = true;
        state.bytes = 0;
        let dropped = std::mem::take(&mut state.messages).len();
        let counter = &self.counters.dropped;
        counter.fetch_add(dropped as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct Calls {
        wakes: AtomicU64,
        hang_ups: AtomicU64,
    }
    impl HangUp for Calls {
        fn finish(&self) {}
        fn wake(&self) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
        }
        fn hang_up(&self) {
            self.hang_ups.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn outbox(hard: usize, soft: usize) -> (Outbox, Arc<Calls>, Arc<Counters>) {
        let (calls, counters) = (Arc::new(Calls::default()), Arc::new(Counters::default()));
        let limit = Limit {
            hard_bytes: hard,
            soft_bytes: soft,
            soft_ms: 9,
        };
        let outbox = Outbox::new(calls.clone(), limit, counters.clone());
        (outbox, calls, counters)
    }

    #[test]
    fn wakes_once_per_batch_and_writes_either_protocol_in_order() {
        let (outbox, calls, _) = outbox(1 << 20, 1 << 20);
        let message = |n: u8| Bytes::from(vec![b'>', n]);
        for n in 0..5 {
            assert!(outbox.push(&message(n)));
        }
        assert_eq!(calls.wakes.load(Ordering::Relaxed), 1);
        let mut out = BytesMut::new();
        assert_eq!(outbox.take(&mut out, 3, Protocol::Resp3), 3 * 66);
        assert_eq!(&out[..], b">\x00>\x01");
        assert!(outbox.push(&message(5)));
        assert_eq!(
            calls.wakes.load(Ordering::Relaxed),
            1,
            "it comes back anyway"
        );
        assert_eq!(outbox.take(&mut out, usize::MAX, Protocol::Resp2), 0);
        assert_eq!(&out[4..], b"*\x02*\x03*\x04*\x05");
        assert!(outbox.push(&message(6)));
        assert_eq!(calls.wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn who_exceeds_the_hard_limit_is_hung_up_on_once_and_gets_nothing_more() {
        let (outbox, calls, counters) = outbox(3 * 65, 65);
        let message = Bytes::from_static(b">");
        let taken = (0..6).filter(|_| outbox.push(&message)).count();
        assert_eq!(taken, 3);
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(now(&calls.hang_ups), 1);
        assert_eq!(now(&calls.wakes), 2, "the first, and the soft limit");
        assert_eq!((now(&counters.cut_off), now(&counters.dropped)), (1, 3));
        outbox.cut_off();
        outbox.close();
        assert_eq!((now(&counters.cut_off), now(&counters.dropped)), (1, 3));
    }
}
