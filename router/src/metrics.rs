//! What a door counts: requests by name, errors by kind, how long answers take, bytes.
//!
//! All counters only grow, and are read while they grow: two of them need not agree to the
//! last request. Cardinality is bounded by construction: names and kinds come from tables,
//! and what is in none of them is counted as [`OTHER`].
//!
//! Connections count into [`Stripe`]s, chosen by their number, so that threads seldom write to
//! the same cache line; whoever reads adds the stripes up.

use std::sync::atomic::{AtomicU64, Ordering};

/// A name or kind that no table has.
pub const OTHER: &str = "other";

/// Upper bounds of the buckets of [`Latencies`], in microseconds; a last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// How the errors of a RESP door begin, as far as they are told apart.
pub const RESP_ERRORS: &[&str] = &[
    "ERR",
    "WRONGTYPE",
    "CLUSTERDOWN",
    "UNKNOWN",
    "TRYAGAIN",
    "EXECABORT",
    "CROSSSLOT",
    "MOVED",
    "NOSCRIPT",
    "NOPROTO",
    "OOM",
    "WRONGPASS",
];

/// As many threads as are likely to serve connections at the same time.
const STRIPES: usize = 16;

/// The counters of one door.
pub struct DoorMetrics {
    names: Vec<&'static str>,
    kinds: &'static [&'static str],
    stripes: Vec<Stripe>,
}

/// Counters that some of a door's connections share. Aligned, so that stripes share no line.
#[repr(align(128))]
pub struct Stripe {
    /// By index into the names; the last one is [`OTHER`].
    requests: Box<[AtomicU64]>,
    /// By index into the kinds; the last one is [`OTHER`].
    errors: Box<[AtomicU64]>,
    latencies: Latencies,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A histogram of durations.
pub struct Latencies {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a door has counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoorFigures {
    /// Requests by name: the names that have been asked for, and [`OTHER`].
    pub requests: Vec<(&'static str, u64)>,
    /// Error replies by kind: all kinds, and [`OTHER`].
    pub errors: Vec<(&'static str, u64)>,
    /// Answers by bucket of [`LATENCY_BOUNDS_US`]; not cumulative.
    pub latency_buckets: Vec<u64>,
    /// Time that all answers took together.
    pub latency_sum_us: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl DoorMetrics {
    /// All at 0. `names` are what may be asked for, `kinds` what errors are told apart.
    pub fn new(names: Vec<&'static str>, kinds: &'static [&'static str]) -> Self {
        let counters = |count: usize| (0..=count).map(|_| AtomicU64::new(0)).collect();
        let stripe = || Stripe {
            requests: counters(names.len()),
            errors: counters(kinds.len()),
            latencies: Latencies::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        };
        DoorMetrics {
            stripes: (0..STRIPES).map(|_| stripe()).collect(),
            names,
            kinds,
        }
    }

    /// The counters that connection `number` adds to.
    pub fn stripe(&self, number: u64) -> &Stripe {
        &self.stripes[number as usize % STRIPES]
    }

    /// The index of `kind` for [`Stripe::error`].
    pub fn kind(&self, kind: &[u8]) -> usize {
        let found = self.kinds.iter().position(|k| k.as_bytes() == kind);
        found.unwrap_or(self.kinds.len())
    }

    /// All stripes together.
    pub fn figures(&self) -> DoorFigures {
        let sum = |counter: &dyn Fn(&Stripe) -> &AtomicU64| -> u64 {
            self.stripes
                .iter()
                .map(|stripe| counter(stripe).load(Ordering::Relaxed))
                .sum()
        };
        let names = self.names.iter().copied().chain([OTHER]).enumerate();
        let kinds = self.kinds.iter().copied().chain([OTHER]).enumerate();
        let buckets = 0..=LATENCY_BOUNDS_US.len();
        DoorFigures {
            requests: names
                .map(|(i, name)| (name, sum(&|s| &s.requests[i])))
                .filter(|(name, count)| *count > 0 || *name == OTHER)
                .collect(),
            errors: kinds
                .map(|(i, kind)| (kind, sum(&|s| &s.errors[i])))
                .collect(),
            latency_buckets: buckets.map(|i| sum(&|s| &s.latencies.buckets[i])).collect(),
            latency_sum_us: sum(&|s| &s.latencies.sum_us),
            bytes_in: sum(&|s| &s.bytes_in),
            bytes_out: sum(&|s| &s.bytes_out),
        }
    }
}

impl Stripe {
    /// `count` requests of the name with this index; an index beyond the names is [`OTHER`].
    pub fn requests(&self, index: usize, count: u64) {
        let index = index.min(self.requests.len() - 1);
        self.requests[index].fetch_add(count, Ordering::Relaxed);
    }

    /// An error of the kind with this index.
    pub fn error(&self, index: usize) {
        self.errors[index].fetch_add(1, Ordering::Relaxed);
    }

    /// `count` answers that took `micros` each.
    pub fn answered(&self, micros: u64, count: u64) {
        self.latencies.add(micros, count);
    }

    /// Bytes received.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    fn add(&self, micros: u64, count: u64) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(count, Ordering::Relaxed);
        let sum = micros.saturating_mul(count);
        self.sum_us.fetch_add(sum, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_add_up_and_unknown_names_are_other() {
        let metrics = DoorMetrics::new(vec!["get", "set"], RESP_ERRORS);
        metrics.stripe(1).requests(0, 3);
        metrics.stripe(2).requests(0, 1);
        metrics.stripe(2).requests(usize::MAX, 1);
        metrics.stripe(3).error(metrics.kind(b"WRONGTYPE"));
        metrics.stripe(3).error(metrics.kind(b"SURPRISE"));
        metrics.stripe(1).received(10);
        metrics.stripe(17).received(5);
        metrics.stripe(4).sent(7);
        let figures = metrics.figures();
        assert_eq!(figures.requests, [("get", 4), (OTHER, 1)]);
        let errors: Vec<_> = figures.errors.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(errors, [&("WRONGTYPE", 1), &(OTHER, 1)]);
        assert_eq!((figures.bytes_in, figures.bytes_out), (15, 7));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let metrics = DoorMetrics::new(Vec::new(), &[]);
        for micros in [0, 10, 11, 20, 10_000_000, 10_000_001] {
            metrics.stripe(0).answered(micros, 2);
        }
        let figures = metrics.figures();
        let filled: Vec<(usize, u64)> = figures
            .latency_buckets
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(filled, [(0, 4), (1, 4), (18, 2), (19, 2)]);
        assert_eq!(figures.latency_sum_us, 2 * (10 + 11 + 20 + 20_000_001));
    }
}
