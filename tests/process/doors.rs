//! The Redis ports of all nodes, of which a client takes one at random for each command.

use crate::resp::Door;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a door that has just refused is avoided.
const AVOID: Duration = Duration::from_millis(300);

/// How many times as long as it has kept its client waiting: a client shall not spend all its
/// time on dead doors.
const AVOID_FACTOR: u32 = 3;

/// Doors, and those among them that are to be avoided for a while.
pub struct Doors {
    doors: Vec<(Door, Instant)>,
    /// For its client's other choices, too.
    pub random: SmallRng,
}

impl Doors {
    /// `timeout` bounds the wait for a reply.
    pub fn new(addresses: &[SocketAddr], timeout: Duration, seed: u64) -> Doors {
        let door = |address: &SocketAddr| (Door::new(*address, timeout), Instant::now());
        Doors {
            doors: addresses.iter().map(door).collect(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// One of them, and its number.
    pub fn pick(&mut self) -> (usize, &mut Door) {
        let now = Instant::now();
        let good = |at: &usize| self.doors[*at].1 <= now;
        let good: Vec<usize> = (0..self.doors.len()).filter(good).collect();
        let at = match good.is_empty() {
            true => self.random.random_range(0..self.doors.len()),
            false => good[self.random.random_range(0..good.len())],
        };
        (at, &mut self.doors[at].0)
    }

    /// This one has failed, after `waited`.
    pub fn avoid(&mut self, at: usize, waited: Duration) {
        self.doors[at].1 = Instant::now() + AVOID + waited * AVOID_FACTOR;
    }
}
