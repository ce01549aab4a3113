//! Randomness: one seed, and a stream of its own for each purpose.
//!
//! Streams are independent, so that switching one class of faults off leaves what the others
//! do (nearly) as it was: this is what makes the reduction of a failing seed work.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// A hash map whose order is the same in each run.
pub type Hashed<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// The random stream of `seed` for `purpose`.
pub fn stream(seed: u64, purpose: &str) -> SmallRng {
    stream_of(seed, purpose, 0)
}

/// As [`stream`], for the `n`th of several of one kind.
pub fn stream_of(seed: u64, purpose: &str, n: u64) -> SmallRng {
    let mut state = Fnv::default();
    state.write(&seed.to_le_bytes());
    state.write(purpose.as_bytes());
    state.write(&n.to_le_bytes());
    SmallRng::seed_from_u64(state.0)
}

/// An exponentially distributed time with the given mean, at most 20 times the mean.
pub fn exponential(rng: &mut SmallRng, mean_ns: u64) -> u64 {
    let uniform: f64 = rng.random_range(1e-9..1.0);
    let factor = (-uniform.ln()).min(20.0);
    (factor * mean_ns as f64) as u64
}

/// A number of `[low, high]` whose logarithm is uniform: small ones are as likely as large ones.
pub fn log_uniform(rng: &mut SmallRng, low: u64, high: u64) -> u64 {
    assert!(0 < low && low <= high, "log_uniform of {low}..={high}");
    let x: f64 = rng.random_range((low as f64).ln()..=(high as f64).ln());
    (x.exp() as u64).clamp(low, high)
}

/// FNV-1a, 64 bits, with a final mix: stable across builds and platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, n: u64) {
        // One multiplication for eight bytes: this runs for every event.
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// The hash of all that was added.
    pub fn value(self) -> u64 {
        let mut x = self.0;
        x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^ (x >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_stable_and_differ() {
        let draw = |seed, purpose, n| stream_of(seed, purpose, n).random::<u64>();
        assert_eq!(draw(1, "net", 0), draw(1, "net", 0));
        assert_ne!(draw(1, "net", 0), draw(2, "net", 0));
        assert_ne!(draw(1, "net", 0), draw(1, "disk", 0));
        assert_ne!(draw(1, "net", 0), draw(1, "net", 1));
    }

    #[test]
    fn distributions_stay_in_their_bounds() {
        let mut rng = stream(1, "test");
        let mut sum = 0;
        for _ in 0..10_000 {
            sum += exponential(&mut rng, 1_000);
            assert!((5..=500).contains(&log_uniform(&mut rng, 5, 500)));
        }
        assert!((9_000_000..11_000_000).contains(&sum), "{sum}");
    }
}
