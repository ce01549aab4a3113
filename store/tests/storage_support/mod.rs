//! What the storage tests share.
#![allow(dead_code, missing_docs)] // Each test binary uses its part.

use bytes::Bytes;

/// A small generator (splitmix64), so that a seed replays everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Fewer than `max` bytes.
    pub fn bytes(&mut self, max: u64) -> Bytes {
        (0..self.below(max)).map(|_| self.next() as u8).collect()
    }
}

/// `default` seeds, or as many as `STORAGE_SEEDS` says.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let n = std::env::var("STORAGE_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    0..n.unwrap_or(default)
}

/// Runs `f`, and names the seed if it panics.
pub fn named<T>(seed: u64, f: impl FnOnce() -> T) -> T {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }
    let _name = Name(seed);
    f()
}

pub mod disks;
pub mod script;
