//! `CLIENT PAUSE`: commands that wait until a moment, on all connections of a node.
//!
//! What concerns data or messages waits, and may take its time again from when the pause is over.
//! What concerns a connection or the door is answered also during a pause of `ALL`, unlike in
//! Redis, where not even `CLIENT UNPAUSE` gets through.

use super::Session;
use rangekv_model::redis::exec;
use rangekv_model::redis::spec::{Flags, Group, Spec};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A pause of a door's connections, or none.
#[derive(Default)]
pub(super) struct Pause {
    /// When it is over; 0 = there is none.
    until_ms: AtomicU64,
    /// Reads wait as well.
    all: AtomicBool,
}

impl Pause {
    /// Begins a pause, or makes one that is under way longer, never shorter or less strict.
    pub fn begin(&self, until_ms: u64, all: bool, now_ms: u64) {
        let under_way = self.until_ms.fetch_max(until_ms, Ordering::Relaxed) > now_ms;
        let was_all = self.all.load(Ordering::Relaxed);
        self.all
            .store(all || (under_way && was_all), Ordering::Relaxed);
    }

    /// Ends it.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Relaxed);
    }

    /// Until when this command has to wait.
    #[inline]
    pub fn holds(&self, spec: &Spec, now_ms: u64) -> Option<u64> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 || until_ms <= now_ms {
            return None;
        }
        let writes = match spec.group {
            Group::PubSub => matches!(spec.name, "publish" | "spublish"),
            Group::Transactions => std::ptr::eq(spec, &exec::WRITES),
            _ => spec.flags.contains(Flags::WRITE),
        };
        (writes || self.all.load(Ordering::Relaxed)).then_some(until_ms)
    }
}

impl Session {
    /// Whether a command must wait; from then on nothing of what waits gives up.
    pub(super) fn is_held(&mut self, spec: &Spec, now_ms: u64) -> bool {
        let until_ms = self.door.pause.holds(spec, now_ms);
        if until_ms.is_some() {
            self.held_until_ms = until_ms;
        }
        until_ms.is_some()
    }

    /// The pause may be over, or have become another one.
    pub(super) fn after_pause(&mut self, now_ms: u64) {
        if self.held_until_ms.take().is_some() {
            self.give_time(now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_model::redis::spec::lookup;

    #[test]
    fn a_pause_only_grows() {
        let pause = Pause::default();
        let holds = |name: &str, now_ms| pause.holds(lookup(name.as_bytes()).unwrap(), now_ms);
        assert_eq!(holds("set", 5), None);
        pause.begin(100, false, 5);
        assert_eq!((holds("set", 99), holds("get", 99)), (Some(100), None));
        assert_eq!(
            (holds("publish", 6), holds("subscribe", 6)),
            (Some(100), None)
        );
        pause.begin(50, true, 6);
        assert_eq!((holds("set", 99), holds("get", 99)), (Some(100), Some(100)));
        pause.begin(60, false, 7);
        assert_eq!(holds("get", 99), Some(100));
        assert_eq!((holds("set", 100), holds("get", 100)), (None, None));
        pause.begin(300, false, 200);
        assert_eq!((holds("set", 201), holds("get", 201)), (Some(300), None));
        pause.end();
        assert_eq!(holds("set", 202), None);
    }
}
