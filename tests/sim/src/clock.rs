//! The clocks of a machine, which are not those of the simulation.
//!
//! The monotonic clock begins anywhere at each boot and runs at its own rate, within the bound
//! that leases allow for. The wall clock is that plus an offset, and may jump.

use crate::schedule::{Time, MS};
use rangekv_store::event::Now;

/// Wall clock at the beginning of every simulation, ms since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    booted_at: Time,
    mono_at_boot: u64,
    /// Monotonic nanoseconds per 1,000 true ones.
    rate: u64,
    wall_offset_ms: i64,
}

impl Clock {
    /// A clock that ticks `rate` ns per 1,000 ns.
    pub fn new(rate: u64, wall_offset_ms: i64) -> Clock {
        Clock {
            booted_at: 0,
            mono_at_boot: 1_000 * MS,
            rate,
            wall_offset_ms,
        }
    }

    /// The machine was started again: its monotonic clock begins at `mono_ns`.
    pub fn reboot(&mut self, now: Time, mono_ns: u64) {
        self.booted_at = now;
        self.mono_at_boot = mono_ns;
    }

    /// What the machine sees at true time `now`.
    pub fn read(&self, now: Time) -> Now {
        let wall_ms = EPOCH_MS + (now / MS) as i64 + self.wall_offset_ms;
        Now {
            mono_ns: self.mono(now),
            wall_ms: wall_ms.max(0) as u64,
        }
    }

    /// The first true time at which the monotonic clock shows at least `mono_ns`.
    pub fn when(&self, mono_ns: u64) -> Time {
        let elapsed = u128::from(mono_ns.saturating_sub(self.mono_at_boot));
        self.booted_at + (elapsed * 1_000).div_ceil(u128::from(self.rate)) as u64
    }

    /// How far the wall clock is ahead of the simulation's, ms.
    pub fn wall_offset_ms(&self) -> i64 {
        self.wall_offset_ms
    }

    /// The administrator, or NTP, sets the wall clock.
    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    fn mono(&self, now: Time) -> u64 {
        let elapsed = u128::from(now - self.booted_at);
        self.mono_at_boot + (elapsed * u128::from(self.rate) / 1_000) as u64
    }
}

/// What the wall clocks of all machines together may have shown at a true time.
///
/// A range's clock is that of its leader, but never goes back below a time by which something
/// was decided: it lies between the slowest wall clock of now and the fastest that ever was.
#[derive(Clone, Debug, Default)]
pub struct WallBounds {
    /// From each time on: the least and the greatest offset of any machine.
    offsets: Vec<(Time, i64, i64)>,
}

impl WallBounds {
    /// From `now` on the machines' clocks are ahead by these, ms.
    pub fn note(&mut self, now: Time, offsets: impl Iterator<Item = i64> + Clone) {
        let least = offsets.clone().min().unwrap_or(0);
        let greatest = offsets.max().unwrap_or(0);
        self.offsets.push((now, least, greatest));
    }

    /// The least that a range's clock may have shown from `from` to `to`, ms.
    pub fn least(&self, from: Time, to: Time) -> i64 {
        let since = self.offsets.partition_point(|(at, ..)| *at <= from);
        let before = self.offsets[..since].last().map(|(_, least, _)| *least);
        let at_first = at(from) + before.unwrap_or(0);
        self.offsets[since..]
            .iter()
            .take_while(|(time, ..)| *time <= to)
            .map(|(time, least, _)| at(*time) + least)
            .fold(at_first, i64::min)
    }

    /// The greatest that a range's clock may have shown up to `to`, ms.
    pub fn greatest(&self, to: Time) -> i64 {
        let mut greatest = i64::MIN;
        for (i, (from, _, offset)) in self.offsets.iter().enumerate() {
            if *from > to {
                break;
            }
            let until = self.offsets.get(i + 1).map_or(to, |next| next.0.min(to));
            greatest = greatest.max(at(until) + offset);
        }
        greatest.max(at(to))
    }
}

fn at(time: Time) -> i64 {
    EPOCH_MS + (time / MS) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_jumps() {
        let mut bounds = WallBounds::default();
        bounds.note(0, [-5, 7].into_iter());
        bounds.note(100 * MS, [-50, 2].into_iter());
        let show = |t: i64| EPOCH_MS + t;
        assert_eq!(bounds.least(10 * MS, 20 * MS), show(5));
        assert_eq!(bounds.least(90 * MS, 99 * MS), show(85));
        assert_eq!(bounds.least(90 * MS, 300 * MS), show(50));
        assert_eq!(bounds.least(200 * MS, 300 * MS), show(150));
        assert_eq!(bounds.greatest(50 * MS), show(57));
        assert_eq!(bounds.greatest(101 * MS), show(107));
        assert_eq!(bounds.greatest(300 * MS), show(302));
    }

    #[test]
    fn when_is_the_inverse_of_read() {
        for rate in [900, 999, 1_000, 1_001, 1_100] {
            let mut clock = Clock::new(rate, -5_000);
            clock.reboot(12_345, 777);
            for mono in [777, 778, 1_000_000, 123_456_789_012] {
                let when = clock.when(mono);
                assert!(clock.read(when).mono_ns >= mono, "rate {rate}, mono {mono}");
                assert!(
                    when == 12_345 || clock.read(when - 1).mono_ns < mono,
                    "rate {rate}, mono {mono}"
                );
            }
        }
    }

    #[test]
    fn jumps_move_the_wall_clock_alone() {
        let mut clock = Clock::new(1_000, 0);
        let before = clock.read(5 * MS);
        clock.jump_wall(-60_000);
        let after = clock.read(5 * MS);
        assert_eq!(before.mono_ns, after.mono_ns);
        assert_eq!(before.wall_ms - 60_000, after.wall_ms);
    }
}
