//! What came back: latencies, errors by kind, progress per second.

use super::load::Op;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Latencies are recorded in microseconds, to three significant digits, up to this.
const LATENCY_MICROS_MAX: u64 = 600_000_000;
const LATENCY_DIGITS: u8 = 3;

/// Results of one thread, or of several [merged](Tally::merge).
pub struct Tally {
    /// By [`Op`]; successful requests only.
    pub latency: [Histogram<u64>; Op::ALL.len()],
    /// Successful reads that found nothing.
    pub nulls: u64,
    /// By kind.
    pub errors: BTreeMap<String, ErrorCount>,
    /// One per second of the measurement.
    pub seconds: Vec<Second>,
    /// When the last measured request was answered, in nanoseconds since the run began.
    pub last_at: u64,
    /// When the measurement began.
    warm_at: u64,
}

/// How often an error came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// Requests (or, for `CONNECT`, attempts) that ended so.
    pub count: u64,
    /// The text of the first of them.
    pub example: String,
}

/// What happened within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that did not.
    pub failed: u64,
    /// Slowest of those that succeeded, in microseconds.
    pub max_micros: u64,
}

impl Tally {
    /// `warm_at`: when the measurement begins, in nanoseconds since the run began.
    pub fn new(warm_at: u64) -> Self {
        let histogram = || {
            Histogram::new_with_max(LATENCY_MICROS_MAX, LATENCY_DIGITS)
                .expect("bounds of the histogram are valid")
        };
        Self {
            latency: Op::ALL.map(|_| histogram()),
            nulls: 0,
            errors: BTreeMap::new(),
            seconds: Vec::new(),
            last_at: warm_at,
            warm_at,
        }
    }

    /// A request that was due at `due_at` succeeded at `now`.
    pub fn succeeded(&mut self, op: Op, due_at: u64, now: u64) {
        let micros = now.saturating_sub(due_at) / 1_000;
        self.latency[op as usize].saturating_record(micros);
        let second = self.second(now);
        second.succeeded += 1;
        second.max_micros = second.max_micros.max(micros);
    }

    /// A request failed at `now`.
    pub fn failed(&mut self, kind: &str, example: &str, now: u64) {
        self.second(now).failed += 1;
        self.error(kind, example);
    }

    /// Something went wrong that is no request.
    pub fn error(&mut self, kind: &str, example: &str) {
        if let Some(error) = self.errors.get_mut(kind) {
            error.count += 1;
        } else {
            let error = ErrorCount {
                count: 1,
                example: example.to_owned(),
            };
            self.errors.insert(kind.to_owned(), error);
        }
    }

    /// Adds the results of another thread of the same run.
    pub fn merge(&mut self, other: &Tally) {
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            mine.add(theirs)
                .expect("histograms of one run have the same bounds");
        }
        self.nulls += other.nulls;
        for (kind, error) in &other.errors {
            let mine = self.errors.entry(kind.clone()).or_default();
            mine.count += error.count;
            if mine.example.is_empty() {
                mine.example.clone_from(&error.example);
            }
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.succeeded += theirs.succeeded;
            mine.failed += theirs.failed;
            mine.max_micros = mine.max_micros.max(theirs.max_micros);
        }
        self.last_at = self.last_at.max(other.last_at);
    }

    /// Requests that succeeded.
    pub fn succeeded_total(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }

    fn second(&mut self, now: u64) -> &mut Second {
        self.last_at = self.last_at.max(now);
        let index = (now.saturating_sub(self.warm_at) / 1_000_000_000) as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn merging_equals_recording_in_one() {
        let (mut a, mut b, mut both) = (Tally::new(0), Tally::new(0), Tally::new(0));
        for i in 1..=1_000_u64 {
            let part = if i % 3 == 0 { &mut a } else { &mut b };
            for tally in [part, &mut both] {
                tally.succeeded(Op::ALL[i as usize % 2], 0, i * 3_000_000);
            }
        }
        a.failed("MOVED", "MOVED 1 a:1", 5 * SECOND);
        b.failed("MOVED", "MOVED 2 b:1", SECOND);
        b.error("CONNECT", "refused");
        both.failed("MOVED", "MOVED 1 a:1", 5 * SECOND);
        both.failed("MOVED", "MOVED 2 b:1", SECOND);
        both.error("CONNECT", "refused");

        a.merge(&b);
        assert_eq!(a.latency, both.latency);
        assert_eq!(a.errors, both.errors);
        assert_eq!(a.seconds, both.seconds);
        assert_eq!(a.last_at, both.last_at);
        assert_eq!(a.succeeded_total(), 1_000);
    }

    #[test]
    fn errors_are_no_successes() {
        let mut tally = Tally::new(SECOND);
        tally.failed("ERR", "ERR wrong", 2 * SECOND + 1);
        assert_eq!(tally.succeeded_total(), 0);
        assert_eq!(
            tally.seconds[1],
            Second {
                succeeded: 0,
                failed: 1,
                max_micros: 0
            }
        );
    }

    #[test]
    fn latency_beyond_the_bounds_is_kept_at_the_bound() {
        let mut tally = Tally::new(0);
        tally.succeeded(Op::Set, 0, 3_600 * SECOND);
        assert!(tally.latency[0].max() >= LATENCY_MICROS_MAX);
        assert_eq!(tally.succeeded_total(), 1);
    }
}
