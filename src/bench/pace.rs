//! When requests are due, and which of them are measured. Pure: time is an argument, in
//! nanoseconds since the run began.

use std::time::Duration;

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This long after the warm-up.
    After(Duration),
    /// After this many measured requests.
    Requests(u64),
}

/// Admits the requests of one thread.
///
/// Closed loop: a request is due whenever a client is free. Open loop: request `i` is due at
/// `i / rate`, whether or not earlier ones were answered, and its latency counts from then:
/// a server that stalls delays the requests that were due meanwhile, and each of them says so
/// (otherwise the stall would be seen once per client; the "coordinated omission" of G. Tene).
#[derive(Clone, Debug)]
pub struct Pace {
    warm_at: u64,
    stop: Stop,
    /// Nanoseconds between two requests; `None` = closed loop.
    interval: Option<f64>,
    /// Requests admitted, including those of the warm-up.
    admitted: u64,
    measured: u64,
}

/// A request that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Latency counts from here.
    pub due_at: u64,
    /// False during the warm-up.
    pub measured: bool,
}

impl Pace {
    /// `rate` in requests per second.
    pub fn new(warmup: Duration, stop: Stop, rate: Option<f64>) -> Self {
        Self {
            warm_at: nanos(warmup),
            stop,
            interval: rate.map(|rate| 1e9 / rate),
            admitted: 0,
            measured: 0,
        }
    }

    /// The next request, if it is due at `now`.
    pub fn admit(&mut self, now: u64) -> Option<Admitted> {
        let due_at = self.next_due_at().unwrap_or(now);
        if due_at > now || self.is_over(due_at) {
            return None;
        }
        self.admitted += 1;
        let measured = due_at >= self.warm_at;
        self.measured += u64::from(measured);
        Some(Admitted { due_at, measured })
    }

    /// Whether no request that is due at `now` or later will be admitted.
    pub fn is_over(&self, now: u64) -> bool {
        match self.stop {
            Stop::After(duration) => now >= self.warm_at.saturating_add(nanos(duration)),
            Stop::Requests(requests) => self.measured >= requests,
        }
    }

    /// Open loop: when the next request is due.
    pub fn next_due_at(&self) -> Option<u64> {
        self.interval
            .map(|interval| (self.admitted as f64 * interval) as u64)
    }

    /// The moment at which [`is_over`](Self::is_over) changes by itself.
    pub fn ends_at(&self) -> Option<u64> {
        match self.stop {
            Stop::After(duration) => Some(self.warm_at.saturating_add(nanos(duration))),
            Stop::Requests(_) => None,
        }
    }

    /// When the measurement begins.
    pub fn warm_at(&self) -> u64 {
        self.warm_at
    }
}

/// Saturates after 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn admitted(pace: &mut Pace, now: u64) -> Vec<Admitted> {
        std::iter::from_fn(|| pace.admit(now)).collect()
    }

    #[test]
    fn open_loop_catches_up_with_what_was_due() {
        let mut pace = Pace::new(
            Duration::ZERO,
            Stop::After(Duration::from_secs(1)),
            Some(1_000.0),
        );
        assert_eq!(admitted(&mut pace, 0).len(), 1);
        assert_eq!(pace.next_due_at(), Some(1_000_000));
        assert_eq!(admitted(&mut pace, 999_999), []);
        // A stall of 10 ms: ten requests, each with its own due time.
        let late: Vec<u64> = admitted(&mut pace, 10_000_000)
            .iter()
            .map(|a| a.due_at)
            .collect();
        assert_eq!(late, (1..=10).map(|i| i * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn open_loop_admits_late_what_was_due_before_the_end() {
        let mut pace = Pace::new(
            Duration::ZERO,
            Stop::After(Duration::from_secs(1)),
            Some(1_000.0),
        );
        assert_eq!(admitted(&mut pace, 5 * SECOND).len(), 1_000);
        assert!(pace.is_over(SECOND));
    }

    #[test]
    fn warm_up_is_admitted_but_not_measured() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second, Stop::After(second), Some(10.0));
        let all = admitted(&mut pace, 5 * SECOND);
        assert_eq!(all.len(), 20);
        assert_eq!(all.iter().filter(|a| a.measured).count(), 10);
    }

    #[test]
    fn requests_are_counted_after_the_warm_up() {
        let mut pace = Pace::new(Duration::from_secs(1), Stop::Requests(3), None);
        for _ in 0..5 {
            assert_eq!(
                pace.admit(10),
                Some(Admitted {
                    due_at: 10,
                    measured: false
                })
            );
        }
        assert_eq!(admitted(&mut pace, SECOND).len(), 3);
        assert!(pace.is_over(SECOND));
        assert_eq!(pace.ends_at(), None);
    }

    #[test]
    fn closed_loop_ends_on_time() {
        let mut pace = Pace::new(Duration::ZERO, Stop::After(Duration::from_secs(1)), None);
        assert!(pace.admit(SECOND - 1).is_some());
        assert_eq!(pace.admit(SECOND), None);
    }
}
