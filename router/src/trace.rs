//! Which requests of a door are traced, and what is told of them: figures, for a [`Tracer`] of the
//! process.
//!
//! A request that is not traced costs its door one subtraction. What is told is noted while the
//! request is under way, by the [`Dispatcher`](crate::dispatch::Dispatcher) that sends its calls.

use rangekv_proto::{Mark, RangeId, StoreId};

/// Who is told of requests that are traced.
pub trait Tracer: Send + Sync {
    /// The share of requests to be traced, 0 to 1.
    fn share(&self) -> f64;

    /// A random number for one door's connection.
    fn seed(&self) -> u64;

    /// Nanoseconds since the Unix epoch.
    fn unix_ns(&self) -> u64;

    /// A traced request has its answer. Never blocks.
    fn answered(&self, request: Answered);
}

/// A traced request that has its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Which one.
    pub mark: Mark,
    /// The command.
    pub name: &'static str,
    /// When it was read, Unix ns.
    pub began_ns: u64,
    /// When its reply stood in the connection's buffer, Unix ns.
    pub ended_ns: u64,
    /// What it asked of ranges.
    pub asked: Asked,
    /// The first word of an error reply.
    pub error: Option<String>,
}

/// What a request asked of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The ranges, each once; of very many the first.
    pub ranges: Vec<RangeId>,
    /// The store asked last.
    pub store: Option<StoreId>,
    /// How many questions there were, those that were refused and asked again among them.
    pub questions: u64,
}

/// Ranges of one request that are named.
const RANGES_MAX: usize = 16;

impl Asked {
    /// `store` is asked for `range`.
    pub fn note(&mut self, range: RangeId, store: StoreId) {
        self.questions += 1;
        self.store = Some(store);
        if self.ranges.len() < RANGES_MAX && !self.ranges.contains(&range) {
            self.ranges.push(range);
        }
    }
}

/// A traced command under way.
#[derive(Debug)]
pub struct Open {
    /// Its number on its connection.
    pub command: u64,
    /// Which one.
    pub mark: Mark,
    /// Its name.
    pub name: &'static str,
    /// When it was read, Unix ns.
    pub began_ns: u64,
    /// What it has asked so far.
    pub asked: Asked,
}

/// Draws requests, each with the same probability, whatever came before it.
#[derive(Debug)]
pub struct Sampler {
    share: f64,
    state: u64,
    /// Requests up to the next one that is drawn, itself included.
    left: u64,
}

impl Sampler {
    /// Draws none.
    pub fn off() -> Self {
        Sampler {
            share: 0.0,
            state: 0,
            left: u64::MAX,
        }
    }

    /// Draws `share` of all, by the random `seed`.
    pub fn new(share: f64, seed: u64) -> Self {
        let mut sampler = Sampler {
            share,
            state: seed,
            left: u64::MAX,
        };
        sampler.draw();
        sampler
    }

    /// One request more: whether it is traced, and then its mark.
    #[inline]
    pub fn mark(&mut self) -> Mark {
        self.left -= 1;
        match self.left {
            0 => {
                self.draw();
                Mark(self.random().max(1))
            }
            _ => Mark::NONE,
        }
    }

    /// How many requests up to the next: geometrically distributed.
    fn draw(&mut self) {
        // In (0, 1]: the logarithm of 0 is none.
        let unit = ((self.random() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        self.left = match self.share {
            share if share >= 1.0 => 1,
            share if share > 0.0 => {
                let gap = unit.ln() / (-share).ln_1p();
                1 + gap.min(1e18) as u64
            }
            _ => u64::MAX,
        };
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

/// The finalizer of SplitMix64: other bits for each number, and 0 for 0 alone.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_share_that_it_is_told() {
        for (share, least, most) in [
            (1.0, 100_000, 100_000),
            (0.0, 0, 0),
            (0.1, 9_000, 11_000),
            (0.001, 50, 150),
        ] {
            let mut sampler = Sampler::new(share, 42);
            let drawn = (0..100_000).filter(|_| sampler.mark().is_some()).count();
            assert!((least..=most).contains(&drawn), "{share}: {drawn}");
        }
        let mut off = Sampler::off();
        assert!((0..1000).all(|_| !off.mark().is_some()));
    }

    #[test]
    fn first_requests_are_drawn_as_often_as_others() {
        let first =
            (0..10_000u64).filter(|seed| Sampler::new(0.1, mix(*seed + 1)).mark().is_some());
        assert!((800..1200).contains(&first.count()));
    }

    #[test]
    fn what_was_asked_is_bounded() {
        let mut asked = Asked::default();
        for n in 0..100 {
            asked.note(RangeId(n / 2), StoreId(n));
        }
        assert_eq!((asked.ranges.len(), asked.questions), (RANGES_MAX, 100));
        assert_eq!(asked.store, Some(StoreId(99)));
    }
}
