//! What a session counts, added to its door's counters once per batch of inputs: a pipeline of
//! a thousand GETs costs one addition.
//!
//! A command's latency runs from the turn of the driver's loop in which it was taken in, to the
//! moment at which its reply stands in the connection's buffer. The clock is read once per
//! turn, and once more in turns that answer commands they have taken in themselves.

use crate::metrics::{DoorMetrics, RESP_ERRORS};
use rangekv_model::redis::spec::{self, Spec};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Tally {
    /// Connection whose stripe is added to.
    stripe: u64,
    /// Commands of one name that came one after the other, and how many.
    run: (usize, u64),
    /// Commands since the last [`flush`](Self::flush).
    commands: u64,
    /// Taken in and answered in this turn.
    fresh: u64,
    /// When this turn began.
    turn_us: u64,
}

impl Tally {
    pub(super) fn new(connection: u64) -> Self {
        Tally {
            stripe: connection,
            ..Tally::default()
        }
    }

    /// A turn of the driver's loop begins.
    pub(super) fn begin_turn(&mut self, now_us: u64) {
        self.turn_us = now_us;
    }

    /// When this turn began.
    pub(super) fn turn_us(&self) -> u64 {
        self.turn_us
    }

    /// A command was taken in; `None` = there is none of this name.
    pub(super) fn command(&mut self, spec: Option<&'static Spec>, metrics: &DoorMetrics) {
        self.commands += 1;
        let index = spec.map_or(usize::MAX, index);
        if self.run.0 != index {
            self.end_run(metrics);
            self.run.0 = index;
        }
        self.run.1 += 1;
    }

    /// A command that was taken in at `began_us` has its reply.
    pub(super) fn replied(&mut self, began_us: u64, reply: &[u8], metrics: &DoorMetrics) {
        if reply.first() == Some(&b'-') {
            let end = reply.iter().position(|b| matches!(b, b' ' | b'\r'));
            let kind = metrics.kind(&reply[1..end.unwrap_or(reply.len())]);
            metrics.stripe(self.stripe).error(kind);
        }
        match began_us == self.turn_us {
            true => self.fresh += 1,
            false => metrics
                .stripe(self.stripe)
                .answered(self.turn_us.saturating_sub(began_us), 1),
        }
    }

    /// Whether [`end_turn`](Self::end_turn) has something to add, and needs the time.
    pub(super) fn has_fresh(&self) -> bool {
        self.fresh > 0
    }

    /// The turn is over.
    pub(super) fn end_turn(&mut self, now_us: u64, metrics: &DoorMetrics) {
        let took = now_us.saturating_sub(self.turn_us);
        let fresh = std::mem::take(&mut self.fresh);
        metrics.stripe(self.stripe).answered(took, fresh);
    }

    /// Adds what was counted; returns the number of commands.
    pub(super) fn flush(&mut self, metrics: &DoorMetrics) -> u64 {
        self.end_run(metrics);
        std::mem::take(&mut self.commands)
    }

    fn end_run(&mut self, metrics: &DoorMetrics) {
        let count = std::mem::take(&mut self.run.1);
        if count > 0 {
            metrics.stripe(self.stripe).requests(self.run.0, count);
        }
    }
}

/// The counters of a Redis door.
pub(super) fn metrics() -> DoorMetrics {
    let names = spec::all().iter().map(|spec| spec.name);
    DoorMetrics::new(names.collect(), RESP_ERRORS)
}

/// Position in the table of commands.
fn index(spec: &'static Spec) -> usize {
    let (table, row) = (
        spec::all().as_ptr() as usize,
        std::ptr::from_ref(spec) as usize,
    );
    (row - table) / size_of::<Spec>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_knows_its_position() {
        for (at, row) in spec::all().iter().enumerate() {
            assert_eq!(index(row), at, "{}", row.name);
        }
    }

    #[test]
    fn counts_by_name_kind_and_turn() {
        let metrics = metrics();
        let mut tally = Tally::new(3);
        let (get, set) = (spec::lookup(b"GET"), spec::lookup(b"set"));
        tally.begin_turn(1_000);
        for spec in [get, get, set, None] {
            tally.command(spec, &metrics);
        }
        assert_eq!(tally.flush(&metrics), 4);
        tally.replied(1_000, b"$-1\r\n", &metrics);
        tally.replied(1_000, b"-WRONGTYPE Operation against a key\r\n", &metrics);
        assert!(tally.has_fresh());
        tally.end_turn(1_015, &metrics);
        tally.begin_turn(5_000);
        tally.replied(1_000, b"+OK\r\n", &metrics);
        assert!(!tally.has_fresh());
        let figures = metrics.figures();
        assert_eq!(figures.requests, [("get", 2), ("set", 1), ("other", 1)]);
        assert_eq!(figures.errors[1], ("WRONGTYPE", 1));
        assert_eq!(figures.latency_buckets.iter().sum::<u64>(), 3);
        assert_eq!(figures.latency_sum_us, 2 * 15 + 4_000);
    }
}
