//! Counters, gauges and histograms that one thread or several write, and any thread reads.
//!
//! Writing costs one or three relaxed atomic additions, never a lock. A reader sees each number
//! whole, and several of them at slightly different moments.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number as it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is `n` now.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// As last set.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A closed list of values for one label: what bounds the number of series.
pub trait Label: Copy + 'static {
    /// All values, each at its [`index`](Self::index).
    const ALL: &'static [Self];

    /// Its place in [`ALL`](Self::ALL).
    fn index(self) -> usize;

    /// Its text, snake case.
    fn text(self) -> &'static str;
}

/// One counter per value of a label.
#[derive(Debug)]
pub struct Counters<L>(Vec<Counter>, PhantomData<L>);

impl<L: Label> Default for Counters<L> {
    fn default() -> Self {
        Counters(
            L::ALL.iter().map(|_| Counter::default()).collect(),
            PhantomData,
        )
    }
}

impl<L: Label> Counters<L> {
    /// The counter of `label`.
    pub fn of(&self, label: L) -> &Counter {
        &self.0[label.index()]
    }

    /// The sum over all labels.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// Upper bounds of the buckets of durations, ns: 10 µs to 10 s, three per decade.
pub const DURATIONS_NS: &[u64] = &[
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of the buckets of numbers of things: powers of four.
pub const COUNTS: &[u64] = &[0, 1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// How often values fell between fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    /// Ascending; a value belongs to the first bucket whose bound is not below it.
    bounds: &'static [u64],
    /// One more than bounds: the last is for what exceeds all.
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    /// With the given upper bounds, ascending.
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(
            bounds.windows(2).all(|pair| pair[0] < pair[1]),
            "bounds ascend: {bounds:?}"
        );
        Histogram {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// One value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn read(&self) -> Distribution {
        let mut count = 0;
        let mut at_most = Vec::with_capacity(self.bounds.len());
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            at_most.push((*bound, count));
        }
        count += self.buckets[self.bounds.len()].load(Ordering::Relaxed);
        Distribution {
            at_most,
            sum: self.sum.load(Ordering::Relaxed),
            count,
        }
    }
}

/// A histogram, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds, and how many values did not exceed each. Ascending in both.
    pub at_most: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
    /// Number of all values, those above the last bound included.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it_and_one_above_all_is_counted() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, 5_000] {
            histogram.observe(value);
        }
        assert_eq!(
            histogram.read(),
            Distribution {
                at_most: vec![(10, 2), (100, 4)],
                sum: 5_222,
                count: 6,
            }
        );
    }
}
