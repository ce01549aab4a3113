//! Virtual time: what happens next, in one total order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds since the simulation began.
pub type Time = u64;

/// One millisecond.
pub const MS: Time = 1_000_000;
/// One second.
pub const SEC: Time = 1_000 * MS;

struct Item<E> {
    time: Time,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.sequence) == (other.time, other.sequence)
    }
}
impl<E> Eq for Item<E> {}
impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

/// Events to come. Those at the same time happen in the order in which they were added.
pub struct Schedule<E> {
    heap: BinaryHeap<Reverse<Item<E>>>,
    now: Time,
    sequence: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Schedule {
            heap: BinaryHeap::new(),
            now: 0,
            sequence: 0,
        }
    }
}

impl<E> Schedule<E> {
    /// The time of the event that was taken last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Adds an event; one in the past happens now.
    pub fn at(&mut self, time: Time, event: E) {
        self.sequence += 1;
        self.heap.push(Reverse(Item {
            time: time.max(self.now),
            sequence: self.sequence,
            event,
        }));
    }

    /// Adds an event that happens `delay` from now.
    pub fn after(&mut self, delay: Time, event: E) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event and moves time to it; `None` when there is none up to `until`.
    pub fn next(&mut self, until: Time) -> Option<E> {
        if self
            .heap
            .peek()
            .is_none_or(|Reverse(item)| item.time > until)
        {
            self.now = self.now.max(until);
            return None;
        }
        let Reverse(item) = self.heap.pop().expect("peeked");
        self.now = item.time;
        Some(item.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_arrival() {
        let mut schedule = Schedule::default();
        schedule.at(5, "c");
        schedule.at(3, "a");
        schedule.at(5, "d");
        schedule.at(4, "b");
        let mut seen = Vec::new();
        while let Some(event) = schedule.next(5) {
            seen.push((schedule.now(), event));
            if event == "a" {
                schedule.at(1, "late");
            }
        }
        assert_eq!(seen, [(3, "a"), (3, "late"), (4, "b"), (5, "c"), (5, "d")]);
        assert_eq!(schedule.next(9), None);
        assert_eq!(schedule.now(), 9);
    }
}
