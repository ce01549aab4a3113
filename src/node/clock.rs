//! The clock that the driver hands to the sans-IO core.

use rangekv_store::event::Now;
use rustix::time::{clock_gettime, ClockId};
use std::time::{SystemTime, UNIX_EPOCH};

/// The present moment.
///
/// The monotonic part counts the time for which the machine was suspended
/// (`CLOCK_BOOTTIME`): a lease must not outlive a virtual machine's pause.
pub fn now() -> Now {
    Now {
        mono_ns: mono_ns(),
        wall_ms: wall_ms(),
    }
}

/// Monotonic nanoseconds, suspension included.
pub fn mono_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Milliseconds since the Unix epoch. A clock set before 1970 reads as 0.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn never_runs_backwards() {
        let mut last = super::mono_ns();
        for _ in 0..1000 {
            let now = super::mono_ns();
            assert!(now >= last, "{now} before {last}");
            last = now;
        }
    }
}
