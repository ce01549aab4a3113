//! Which key the next request is for.
//!
//! Each chooser is a pure function of its seed: the same seed gives the same sequence.

use rand::rngs::SmallRng;
use rand::Rng;

/// How requests spread over the keys `0..keys`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Every key equally often.
    Uniform,
    /// Key `k` in proportion to `1 / (k + 1)^exponent`: key 0 is the hottest.
    Zipf {
        /// YCSB uses 0.99.
        exponent: f64,
    },
    /// Key 0 takes this share of the requests, the rest is uniform.
    Hot {
        /// 0.0 to 1.0.
        share: f64,
    },
    /// 0, 1, 2, … and again from 0.
    Sequential,
}

/// Draws keys.
pub struct KeyChooser {
    keys: u64,
    kind: Kind,
}

enum Kind {
    Uniform,
    Zipf(Zipf),
    Hot(f64),
    Sequential(u64),
}

impl KeyChooser {
    /// `keys` ≥ 1. A sequential chooser begins at `first`, so that several of them share the
    /// keyspace instead of walking it in step.
    pub fn new(distribution: Distribution, keys: u64, first: u64) -> Self {
        assert!(keys >= 1, "a load needs at least one key");
        let kind = match distribution {
            Distribution::Uniform => Kind::Uniform,
            Distribution::Zipf { exponent } => Kind::Zipf(Zipf::new(keys, exponent)),
            Distribution::Hot { share } => Kind::Hot(share),
            Distribution::Sequential => Kind::Sequential(first % keys),
        };
        Self { keys, kind }
    }

    /// The next key, in `0..keys`.
    pub fn next(&mut self, rng: &mut SmallRng) -> u64 {
        match &mut self.kind {
            Kind::Uniform => rng.random_range(0..self.keys),
            Kind::Zipf(zipf) => zipf.sample(rng) - 1,
            Kind::Hot(share) => {
                if rng.random::<f64>() < *share {
                    0
                } else {
                    rng.random_range(0..self.keys)
                }
            }
            Kind::Sequential(next) => {
                let key = *next;
                *next = if key + 1 == self.keys { 0 } else { key + 1 };
                key
            }
        }
    }
}

/// Zipf's law over `1..=n` in constant time and memory, for any exponent > 0.
///
/// Rejection-inversion: W. Hörmann and G. Derflinger, "Rejection-inversion to generate
/// variates from monotone discrete distributions", ACM TOMACS 6(3), 1996. Names of the
/// functions follow the paper: H is the integral of the density h(x) = x^-exponent.
struct Zipf {
    n: f64,
    exponent: f64,
    h_first: f64,
    h_last: f64,
    accept: f64,
}

impl Zipf {
    fn new(n: u64, exponent: f64) -> Self {
        let mut zipf = Self {
            n: n as f64,
            exponent,
            h_first: 0.0,
            h_last: 0.0,
            accept: 0.0,
        };
        zipf.h_first = zipf.integral(1.5) - 1.0;
        zipf.h_last = zipf.integral(zipf.n + 0.5);
        zipf.accept = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn sample(&self, rng: &mut SmallRng) -> u64 {
        loop {
            let u = self.h_last + rng.random::<f64>() * (self.h_first - self.h_last);
            let x = self.integral_inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.accept || u >= self.integral(k + 0.5) - self.density(k) {
                return k as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let y = (1.0 - self.exponent) * log;
        // (e^y − 1) / y tends to 1: at exponent 1 the integral is the logarithm.
        let ratio = if y.abs() > 1e-8 {
            y.exp_m1() / y
        } else {
            1.0 + y / 2.0
        };
        ratio * log
    }

    fn integral_inverse(&self, h: f64) -> f64 {
        // Rounding may carry the argument past the pole at −1.
        let y = (h * (1.0 - self.exponent)).max(-1.0);
        let ratio = if y.abs() > 1e-8 {
            y.ln_1p() / y
        } else {
            1.0 - y / 2.0
        };
        (ratio * h).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn counts(distribution: Distribution, keys: u64, draws: u64) -> Vec<u64> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut chooser = KeyChooser::new(distribution, keys, 0);
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[chooser.next(&mut rng) as usize] += 1;
        }
        counts
    }

    fn assert_near(actual: u64, expected: f64, tolerance: f64, what: &str) {
        let ratio = actual as f64 / expected;
        assert!(
            (ratio - 1.0).abs() < tolerance,
            "{what}: drew {actual}, expected {expected:.0}"
        );
    }

    #[test]
    fn uniform_reaches_every_key_equally() {
        for (key, count) in counts(Distribution::Uniform, 10, 100_000)
            .into_iter()
            .enumerate()
        {
            assert_near(count, 10_000.0, 0.05, &format!("key {key}"));
        }
    }

    #[test]
    fn zipf_follows_its_law_on_both_sides_of_exponent_one() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let (keys, draws) = (1_000, 400_000);
            let counts = counts(Distribution::Zipf { exponent }, keys, draws);
            let total: f64 = (1..=keys).map(|k| (k as f64).powf(-exponent)).sum();
            for rank in [1_u64, 2, 3, 10] {
                let expected = draws as f64 * (rank as f64).powf(-exponent) / total;
                let what = format!("rank {rank} at exponent {exponent}");
                assert_near(counts[rank as usize - 1], expected, 0.08, &what);
            }
            assert_eq!(counts.iter().sum::<u64>(), draws, "every draw is a key");
        }
    }

    #[test]
    fn zipf_of_one_key_is_that_key() {
        assert_eq!(counts(Distribution::Zipf { exponent: 0.99 }, 1, 100), [100]);
    }

    #[test]
    fn hot_key_takes_its_share() {
        let counts = counts(Distribution::Hot { share: 0.9 }, 100, 100_000);
        assert_near(counts[0], 90_100.0, 0.02, "the hot key");
        let all = self::counts(Distribution::Hot { share: 1.0 }, 100, 1_000);
        assert_eq!(all[0], 1_000);
    }

    #[test]
    fn sequential_wraps_around() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut chooser = KeyChooser::new(Distribution::Sequential, 3, 2);
        let keys: Vec<u64> = (0..5).map(|_| chooser.next(&mut rng)).collect();
        assert_eq!(keys, [2, 0, 1, 2, 0]);
    }

    #[test]
    fn same_seed_same_keys() {
        let zipf = Distribution::Zipf { exponent: 0.99 };
        assert_eq!(counts(zipf, 50, 1_000), counts(zipf, 50, 1_000));
    }
}
