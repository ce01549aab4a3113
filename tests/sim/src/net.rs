//! The network between stores: each direction of each pair is a link of its own.
//!
//! A link loses, delays, duplicates and reorders; it can be cut (one way or both) and clogged:
//! then what is sent waits, and comes in any order when the link is freed. Without the reorder
//! fault a link keeps order, as a gRPC stream does.

use crate::faults::Faults;
use crate::random::{exponential, stream};
use crate::schedule::Time;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::Rng;

#[derive(Clone, Debug, Default)]
struct Link {
    /// Number of partitions that cut it.
    cuts: u32,
    clogged: bool,
    waiting: Vec<Bytes>,
    /// When what was sent last arrives, for keeping order.
    last_arrival: Time,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at these times (twice, if it was duplicated).
    Arrives(Vec<Time>),
    /// It waits until the link is freed.
    Waits,
    /// It is lost; the sender notices if the link is cut.
    Lost {
        /// Whether there is no connection at all.
        cut: bool,
    },
}

/// See the module's documentation.
pub struct Net {
    links: Vec<Vec<Link>>,
    loss: f64,
    duplicate: f64,
    delay_mean: Time,
    tail: f64,
    reorder: bool,
    rng: SmallRng,
}

impl Net {
    /// A network of `nodes` nodes with the faults of `faults`.
    pub fn new(seed: u64, nodes: usize, faults: &Faults) -> Net {
        let mut net = Net {
            links: Vec::new(),
            loss: faults.loss,
            duplicate: faults.duplicate,
            delay_mean: faults.delay_mean,
            tail: faults.delay_tail,
            reorder: faults.reorder,
            rng: stream(seed, "net"),
        };
        for _ in 0..nodes {
            net.add_node();
        }
        net
    }

    /// One more node, connected to all.
    pub fn add_node(&mut self) {
        for row in &mut self.links {
            row.push(Link::default());
        }
        let nodes = self.links.len() + 1;
        self.links.push(vec![Link::default(); nodes]);
    }

    /// Sends a frame.
    pub fn send(&mut self, now: Time, from: usize, to: usize, frame: &Bytes) -> Fate {
        let link = &mut self.links[from][to];
        if link.cuts > 0 {
            return Fate::Lost { cut: true };
        }
        if self.rng.random_bool(self.loss) {
            return Fate::Lost { cut: false };
        }
        if link.clogged {
            link.waiting.push(frame.clone());
            return Fate::Waits;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.duplicate));
        let arrivals = (0..copies).map(|_| self.arrival(now, from, to)).collect();
        Fate::Arrives(arrivals)
    }

    fn arrival(&mut self, now: Time, from: usize, to: usize) -> Time {
        let mut delay = 20_000 + exponential(&mut self.rng, self.delay_mean);
        if self.rng.random_bool(self.tail) {
            delay *= 40;
        }
        let link = &mut self.links[from][to];
        let arrival = if self.reorder {
            now + delay
        } else {
            (now + delay).max(link.last_arrival)
        };
        link.last_arrival = arrival;
        arrival
    }

    /// Whether frames get through.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.links[from][to].cuts == 0
    }

    /// Whether frames wait.
    pub fn is_clogged(&self, from: usize, to: usize) -> bool {
        self.links[from][to].clogged
    }

    /// Cuts one direction. Cuts add up: each is to be undone.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.links[from][to].cuts += 1;
    }

    /// Undoes one cut.
    pub fn mend(&mut self, from: usize, to: usize) {
        let cuts = &mut self.links[from][to].cuts;
        *cuts = cuts.saturating_sub(1);
    }

    /// Stops a link without losing what is sent.
    pub fn clog(&mut self, from: usize, to: usize) {
        self.links[from][to].clogged = true;
    }

    /// Frees a clogged link. What waited arrives at the times returned, in any order.
    pub fn unclog(&mut self, now: Time, from: usize, to: usize) -> Vec<(Time, Bytes)> {
        let link = &mut self.links[from][to];
        link.clogged = false;
        let mut waiting = std::mem::take(&mut link.waiting);
        if self.reorder {
            waiting.shuffle(&mut self.rng);
        }
        waiting
            .into_iter()
            .map(|frame| (self.arrival(now, from, to), frame))
            .collect()
    }

    /// Ends all faults. What waited on clogged links is returned with its link.
    pub fn heal(&mut self, now: Time) -> Vec<(usize, usize, Time, Bytes)> {
        self.loss = 0.0;
        self.duplicate = 0.0;
        self.tail = 0.0;
        self.delay_mean = self.delay_mean.min(crate::schedule::MS);
        let nodes = self.links.len();
        let mut freed = Vec::new();
        for from in 0..nodes {
            for to in 0..nodes {
                self.links[from][to].cuts = 0;
                let frames = self.unclog(now, from, to);
                freed.extend(
                    frames
                        .into_iter()
                        .map(|(time, frame)| (from, to, time, frame)),
                );
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::MS;

    fn quiet() -> Faults {
        Faults {
            loss: 0.0,
            duplicate: 0.0,
            delay_tail: 0.0,
            reorder: false,
            delay_mean: MS,
            ..Faults::none()
        }
    }

    #[test]
    fn a_cut_is_one_way_and_cuts_add_up() {
        let mut net = Net::new(1, 3, &quiet());
        let frame = Bytes::from_static(b"x");
        net.cut(0, 1);
        net.cut(0, 1);
        assert_eq!(net.send(0, 0, 1, &frame), Fate::Lost { cut: true });
        assert!(matches!(net.send(0, 1, 0, &frame), Fate::Arrives(_)));
        net.mend(0, 1);
        assert!(!net.is_open(0, 1));
        net.mend(0, 1);
        assert!(net.is_open(0, 1));
    }

    #[test]
    fn order_is_kept_unless_reordering_is_on() {
        for reorder in [false, true] {
            let mut net = Net::new(1, 2, &Faults { reorder, ..quiet() });
            let frame = Bytes::from_static(b"x");
            let arrivals: Vec<Time> = (0..1000)
                .map(|n| match net.send(n * 1000, 0, 1, &frame) {
                    Fate::Arrives(times) => times[0],
                    fate => panic!("{fate:?}"),
                })
                .collect();
            assert_eq!(arrivals.is_sorted(), !reorder);
        }
    }

    #[test]
    fn rates_are_what_they_should_be() {
        let mut net = Net::new(
            1,
            2,
            &Faults {
                loss: 0.3,
                duplicate: 0.2,
                ..quiet()
            },
        );
        let frame = Bytes::from_static(b"x");
        let (mut lost, mut doubled) = (0, 0);
        for n in 0..10_000 {
            match net.send(n, 0, 1, &frame) {
                Fate::Lost { cut } => lost += u32::from(!cut),
                Fate::Arrives(times) => doubled += u32::from(times.len() == 2),
                Fate::Waits => panic!("not clogged"),
            }
        }
        assert!((2_800..3_200).contains(&lost), "{lost} lost");
        assert!((1_200..1_600).contains(&doubled), "{doubled} doubled");
    }

    #[test]
    fn a_clogged_link_loses_nothing() {
        let mut net = Net::new(1, 2, &quiet());
        net.clog(0, 1);
        for n in 0..10u8 {
            assert_eq!(
                net.send(0, 0, 1, &Bytes::copy_from_slice(&[n])),
                Fate::Waits
            );
        }
        let freed: Vec<u8> = net
            .unclog(5 * MS, 0, 1)
            .into_iter()
            .map(|(_, frame)| frame[0])
            .collect();
        assert_eq!(freed, (0..10).collect::<Vec<u8>>());
        assert!(net.heal(6 * MS).is_empty());
    }
}
