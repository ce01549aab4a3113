//! What can go wrong in a run. Each seed draws which classes are on and how strong each is
//! ("swarm testing": a run with everything on finds other bugs than one with two things on).
//!
//! All values are drawn whether or not their class is on, so that switching a class off
//! changes nothing else.

use crate::random::{log_uniform, stream};
use crate::schedule::{Time, MS, SEC};
use rand::Rng;
use std::fmt;
use std::str::FromStr;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A class of faults or of events that disturb.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum Class { $($(#[$doc])* $name,)* }

        impl Class {
            /// All of them.
            pub const ALL: &[Class] = &[$(Class::$name,)*];

            /// As it is printed, and given to `--without`.
            pub fn name(self) -> &'static str {
                match self { $(Class::$name => $text,)* }
            }
        }
    };
}

classes! {
    /// Messages get lost.
    Loss = "loss",
    /// Messages arrive twice.
    Duplicate = "duplicate",
    /// Messages take long, some very long.
    Delay = "delay",
    /// Messages overtake each other.
    Reorder = "reorder",
    /// Groups of stores can't reach each other.
    Partition = "partition",
    /// Stores can be heard but not hear, or the reverse.
    OneWay = "one-way",
    /// Links stop and go on later.
    Clog = "clog",
    /// Single stores crash and restart.
    Crash = "crash",
    /// All stores crash at once.
    CrashAll = "crash-all",
    /// A crash is a power cut: unsynced log writes are lost or torn, clocks begin anew.
    PowerCut = "power-cut",
    /// Stores stop for a while and go on as if nothing had been.
    Pause = "pause",
    /// Leaders become deaf and stop, and hear old answers when they go on.
    Deafen = "deafen",
    /// A voter forgets by a restart that it has heard a leader, while another one campaigns.
    Amnesia = "amnesia",
    /// Clocks run at different rates; wall clocks differ and jump.
    Clock = "clock",
    /// Syncs take long.
    SlowDisk = "slow-disk",
    /// Disks have no room for a while.
    DiskFull = "disk-full",
    /// State is flushed at random times (otherwise only when the store asks).
    Flush = "flush",
    /// Reading threads are held up between reading and validating.
    SlowReader = "slow-reader",
    /// Requests and responses of clients get lost.
    ClientLoss = "client-loss",
    /// Ranges split.
    Split = "split",
    /// Leaderships move.
    Transfer = "transfer",
    /// Replicas are added, promoted, demoted, removed.
    Membership = "membership",
    /// Logs are kept short, so that who lags needs a snapshot.
    SmallLogs = "small-logs",
    /// A store loses its disk for ever; a new one takes its place.
    Wipe = "wipe",
    /// The placement driver is at work.
    Placement = "placement",
    /// It is told to empty a store, and to use it again.
    Drain = "drain",
    /// Neighbouring ranges merge.
    Merge = "merge",
    /// All clients pause for a while, and groups are soon idle enough to quiesce.
    Lull = "lull",
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Class::ALL
            .iter()
            .copied()
            .find(|c| c.name() == s)
            .ok_or_else(|| {
                let names: Vec<&str> = Class::ALL.iter().map(|c| c.name()).collect();
                format!("no fault class {s:?}; there are {}", names.join(", "))
            })
    }
}

/// The faults of one run. An interval of 0 means never.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Which classes are on.
    pub classes: Vec<Class>,
    /// Number of stores at the beginning: 3 or 5.
    pub stores: usize,
    /// How long faults go on, before all heals.
    pub duration: Time,
    /// Share of messages lost.
    pub loss: f64,
    /// Share of messages duplicated.
    pub duplicate: f64,
    /// Mean delay of a message.
    pub delay_mean: Time,
    /// Share of messages that take 40 times as long.
    pub delay_tail: f64,
    /// Whether messages overtake each other.
    pub reorder: bool,
    /// Mean time between partitions.
    pub partition_every: Time,
    /// Longest partition.
    pub partition_max: Time,
    /// Share of partitions that are one-way.
    pub one_way: f64,
    /// Mean time between clogs.
    pub clog_every: Time,
    /// Mean time between crashes.
    pub crash_every: Time,
    /// Share of crashes that hit all stores.
    pub crash_all: f64,
    /// Longest time that a crashed store is down.
    pub down_max: Time,
    /// Share of crashes that are power cuts.
    pub power_cut: f64,
    /// Mean time between pauses.
    pub pause_every: Time,
    /// Longest pause.
    pub pause_max: Time,
    /// Mean time between leaders that become deaf and stop.
    pub deafen_every: Time,
    /// Mean time between restarts that make a voter forget its leader.
    pub amnesia_every: Time,
    /// Clock rates lie in 1,000 ± this.
    pub clock_rate: u64,
    /// Wall clocks differ, and jump, by up to this.
    pub wall_jump_ms: i64,
    /// Mean time between jumps of a wall clock.
    pub wall_jump_every: Time,
    /// Mean sync latency.
    pub sync_mean: Time,
    /// Mean time between slow phases of a disk.
    pub slow_disk_every: Time,
    /// Mean sync latency then.
    pub slow_sync_mean: Time,
    /// Mean time between full disks.
    pub disk_full_every: Time,
    /// Mean time between flushes of a store's state.
    pub flush_every: Time,
    /// Share of local reads that are held up.
    pub slow_reader: f64,
    /// Share of client messages lost.
    pub client_loss: f64,
    /// Mean time between splits.
    pub split_every: Time,
    /// Mean time between steps towards a merge.
    pub merge_every: Time,
    /// Mean time between leader transfers.
    pub transfer_every: Time,
    /// Mean time between membership changes.
    pub membership_every: Time,
    /// Mean time between stores that are to be emptied, or used again.
    pub drain_every: Time,
    /// Whether logs are short.
    pub small_logs: bool,
    /// When a store is lost; 0 = never.
    pub wipe_at: Time,
    /// Mean time between lulls.
    pub lull_every: Time,
    /// Longest lull.
    pub lull_max: Time,
    /// Time without a request after which a group may quiesce.
    pub idle: Time,
}

impl Faults {
    /// No fault at all, for tests.
    pub fn none() -> Faults {
        Faults::draw(0, Class::ALL)
    }

    /// What `seed` draws, less the classes in `without`.
    pub fn draw(seed: u64, without: &[Class]) -> Faults {
        let mut rng = stream(seed, "faults");
        // Some runs have a few classes and some have most of them.
        let density = [0.15, 0.4, 0.7][rng.random_range(0..3)];
        let mut classes: Vec<Class> = Class::ALL
            .iter()
            .copied()
            .filter(|class| {
                let share = match class {
                    // They overshadow the others, or end what could be found.
                    Class::CrashAll | Class::DiskFull | Class::Wipe => density / 2.5,
                    Class::Amnesia | Class::Deafen => 0.3,
                    Class::Placement => 0.5,
                    // What it can break needs many of the others.
                    Class::Merge => 0.7,
                    _ => density,
                };
                rng.random_bool(share)
            })
            .collect();
        classes.retain(|class| !without.contains(class));
        let on = |class| classes.contains(&class);
        let every = |on: bool, time: Time| if on { time } else { 0 };
        let share = |on: bool, share: f64| if on { share } else { 0.0 };
        let mut uniform = |low: f64, high: f64| rng.random_range(low..high);
        // Squared: small rates are more likely, since great ones let little else happen.
        let loss = uniform(0.0, 0.55).powi(2);
        let duplicate = uniform(0.0, 0.45).powi(2);
        let delay_tail = uniform(0.0, 0.02);
        let one_way = uniform(0.2, 1.0);
        let crash_all = uniform(0.05, 0.5);
        let power_cut = uniform(0.3, 1.0);
        let slow_reader = uniform(0.05, 0.5);
        let client_loss = uniform(0.0, 0.05);
        let stores = if rng.random_bool(0.6) { 3 } else { 5 };
        let duration = rng.random_range(6 * SEC..16 * SEC);
        let mut time = |low: Time, high: Time| log_uniform(&mut rng, low, high);
        Faults {
            stores,
            duration,
            loss: share(on(Class::Loss), loss),
            duplicate: share(on(Class::Duplicate), duplicate),
            delay_mean: match (time(MS, 40 * MS), on(Class::Delay)) {
                (mean, true) => mean,
                (_, false) => 200_000,
            },
            delay_tail: share(on(Class::Delay), delay_tail),
            reorder: on(Class::Reorder),
            partition_every: every(on(Class::Partition), time(SEC, 6 * SEC)),
            partition_max: time(200 * MS, 6 * SEC),
            one_way: share(on(Class::OneWay), one_way),
            clog_every: every(on(Class::Clog), time(500 * MS, 5 * SEC)),
            crash_every: every(on(Class::Crash), time(700 * MS, 6 * SEC)),
            crash_all: share(on(Class::CrashAll), crash_all),
            down_max: time(20 * MS, 4 * SEC),
            power_cut: share(on(Class::PowerCut), power_cut),
            pause_every: every(on(Class::Pause), time(700 * MS, 6 * SEC)),
            pause_max: time(100 * MS, 5 * SEC),
            deafen_every: every(on(Class::Deafen), time(SEC, 6 * SEC)),
            amnesia_every: every(on(Class::Amnesia), time(SEC, 6 * SEC)),
            clock_rate: if on(Class::Clock) { time(1, 100) } else { 0 },
            wall_jump_ms: if on(Class::Clock) {
                time(1, 60_000) as i64
            } else {
                0
            },
            wall_jump_every: every(on(Class::Clock), time(SEC, 8 * SEC)),
            sync_mean: time(50_000, 3 * MS),
            slow_disk_every: every(on(Class::SlowDisk), time(SEC, 8 * SEC)),
            slow_sync_mean: time(10 * MS, 500 * MS),
            disk_full_every: every(on(Class::DiskFull), time(2 * SEC, 8 * SEC)),
            flush_every: every(on(Class::Flush), time(50 * MS, 4 * SEC)),
            slow_reader: share(on(Class::SlowReader), slow_reader),
            client_loss: share(on(Class::ClientLoss), client_loss),
            split_every: every(on(Class::Split), time(400 * MS, 5 * SEC)),
            merge_every: every(on(Class::Merge), time(40 * MS, SEC)),
            transfer_every: every(on(Class::Transfer), time(200 * MS, 4 * SEC)),
            membership_every: every(on(Class::Membership), time(150 * MS, 3 * SEC)),
            small_logs: on(Class::SmallLogs),
            wipe_at: every(on(Class::Wipe), time(SEC, 5 * SEC)),
            lull_every: every(on(Class::Lull), time(SEC, 5 * SEC)),
            lull_max: time(SEC, 8 * SEC),
            idle: match on(Class::Lull) {
                true => time(100 * MS, SEC),
                false => time(100 * MS, 10 * SEC),
            },
            drain_every: every(
                on(Class::Drain) && on(Class::Placement),
                time(2 * SEC, 8 * SEC),
            ),
            classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_a_class_off_changes_nothing_else() {
        for seed in 0..200 {
            let all = Faults::draw(seed, &[]);
            let less = Faults::draw(seed, &[Class::Crash]);
            assert_eq!(less.crash_every, 0);
            assert!(!less.classes.contains(&Class::Crash));
            assert_eq!(
                (
                    all.stores,
                    all.duration,
                    all.loss,
                    all.transfer_every,
                    all.sync_mean
                ),
                (
                    less.stores,
                    less.duration,
                    less.loss,
                    less.transfer_every,
                    less.sync_mean
                )
            );
        }
    }

    #[test]
    fn each_class_is_on_in_some_seeds_and_off_in_others() {
        for class in Class::ALL {
            let on = (0..300)
                .filter(|seed| Faults::draw(*seed, &[]).classes.contains(class))
                .count();
            assert!(
                (25..250).contains(&on),
                "{class} is on in {on} of 300 seeds"
            );
            assert_eq!(class.name().parse(), Ok(*class));
        }
        assert!("meteor".parse::<Class>().is_err());
    }
}
