//! Whether a worker's next round waits a little for company: requests and messages that share a
//! round share its entries, its frames, its log record and its sync (docs/PERFORMANCE.md has figures).
//!
//! It waits if by the rate of late at least one more event would come meanwhile: that one then costs
//! no round of its own. A store with less to do answers at once, however its rounds went.

use std::time::Duration;

/// Waits are short beside a sync, and long beside what a round costs.
const PAUSE: Duration = Duration::from_micros(50);
/// Where syncs are slow a longer one costs latency little.
const PAUSE_MAX: Duration = Duration::from_micros(250);
/// Part of a sync's time.
const OF_SYNC: u64 = 16;
/// What happened this long ago counts a third.
const MEMORY_NS: f64 = 1_000_000.0;

/// Events per time, of late.
#[derive(Default)]
pub struct Company {
    /// Events per nanosecond.
    rate: f64,
    noted_ns: u64,
}

impl Company {
    /// A round has handled `events`; syncs take `sync_ns` on average. Returns for how long the next
    /// round should wait.
    pub fn wait(&mut self, now_ns: u64, events: usize, sync_ns: u64) -> Option<Duration> {
        if events == 0 {
            // What comes after a silence is weighed with its length.
            return None;
        }
        let passed = now_ns.saturating_sub(self.noted_ns).max(1) as f64;
        self.noted_ns = now_ns;
        let kept = (-passed / MEMORY_NS).exp();
        self.rate = self.rate * kept + events as f64 / passed * (1.0 - kept);
        let pause = Duration::from_nanos(sync_ns / OF_SYNC).clamp(PAUSE, PAUSE_MAX);
        (self.rate * pause.as_nanos() as f64 >= 1.0).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last answer after `rounds` of `events` each, every `every_us`.
    fn after(company: &mut Company, rounds: u64, events: usize, every_us: u64) -> Option<Duration> {
        let mut last = None;
        for _ in 0..rounds {
            last = company.wait(company.noted_ns + every_us * 1000, events, 100_000);
        }
        last
    }

    #[test]
    fn waits_when_more_is_about_to_come() {
        let mut company = Company::default();
        // 10,000 events per second: half an event within a pause.
        assert_eq!(after(&mut company, 100, 1, 100), None);
        assert_eq!(after(&mut company, 100, 3, 100), Some(PAUSE));
        assert_eq!(after(&mut company, 100, 1, 30), Some(PAUSE));
        // One large batch after a silence is no stream.
        assert_eq!(after(&mut company, 1, 5, 1_000_000), None);
        assert_eq!(after(&mut company, 100, 1, 100), None);
    }

    #[test]
    fn waits_longer_where_syncs_are_slow() {
        let pause = |sync_ns| {
            let mut company = Company::default();
            (0..100).fold(None, |_, i| company.wait(i * 20_000, 2, sync_ns))
        };
        assert_eq!(pause(2_000_000), Some(Duration::from_micros(125)));
        assert_eq!(pause(50_000_000), Some(PAUSE_MAX));
    }

    #[test]
    fn rounds_without_events_do_not_count() {
        let mut company = Company::default();
        assert_eq!(after(&mut company, 100, 3, 100), Some(PAUSE));
        assert_eq!(company.wait(company.noted_ns + 10_000, 0, 0), None);
        assert_eq!(after(&mut company, 1, 3, 100), Some(PAUSE));
    }
}
