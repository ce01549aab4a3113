//! Ends the process when its worker is stuck, so that others can take over.
//!
//! A worker that hangs in a disk write holds its leaderships: its peers still see its
//! connections, and its clients wait. Its leases lapse by themselves, but only the end of
//! the process makes everyone look elsewhere at once, and a supervisor start it again.
//!
//! Time is counted in the watchdog's own looks, not by the clock: after the whole machine
//! was paused, one look passes, not a minute.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(500);

/// What the worker is at; written by the worker, read by the watchdog.
#[derive(Default)]
pub struct Pulse {
    /// Grows with each step; odd while busy.
    step: AtomicU64,
    doing: AtomicU32,
    stuck: AtomicBool,
}

/// What a busy worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doing {
    /// Handling events, evaluating, applying.
    Working = 0,
    /// Waiting for the raft log's fsync.
    Syncing = 1,
}

impl Pulse {
    /// The worker starts something that must end soon.
    pub fn begin(&self, doing: Doing) {
        self.doing.store(doing as u32, Ordering::Relaxed);
        let step = self.step.load(Ordering::Relaxed);
        self.step.store((step | 1) + 2, Ordering::Release);
    }

    /// The worker has nothing to do.
    pub fn rest(&self) {
        let step = self.step.load(Ordering::Relaxed);
        self.step.store((step | 1) + 1, Ordering::Release);
    }

    /// Whether the last looks all found the worker in the same step: for health checks.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            1 => Doing::Syncing,
            _ => Doing::Working,
        }
    }
}

/// Counts looks that found the same busy step.
#[derive(Default)]
struct Watch {
    step: u64,
    looks: u32,
}

impl Watch {
    /// Consecutive looks, this one included, at the same busy step.
    fn look(&mut self, step: u64) -> u32 {
        let busy = step % 2 == 1;
        self.looks = if busy && step == self.step {
            self.looks + 1
        } else {
            0
        };
        self.step = step;
        self.looks
    }
}

/// Watches the worker, and those who write for it, until the process ends, or aborts it. Whoever
/// of them is stuck, the worker's pulse says so.
pub fn spawn(
    worker: Arc<Pulse>,
    others: Vec<Arc<Pulse>>,
    stuck_max: Duration,
) -> std::io::Result<()> {
    let looks_max = (stuck_max.as_millis() / LOOK.as_millis()).max(2) as u32;
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            let pulses = std::iter::once(worker.clone()).chain(others);
            let mut watched: Vec<(Arc<Pulse>, Watch)> =
                pulses.map(|pulse| (pulse, Watch::default())).collect();
            loop {
                std::thread::sleep(LOOK);
                let looks = watched.iter_mut().map(|(pulse, watch)| {
                    let looks = watch.look(pulse.step.load(Ordering::Acquire));
                    (looks, pulse.doing())
                });
                let (looks, doing) = looks.max_by_key(|(looks, _)| *looks).expect("the worker's");
                worker.stuck.store(looks >= 4, Ordering::Relaxed);
                if looks >= looks_max {
                    let what = match doing {
                        Doing::Syncing => "the disk has not finished a write",
                        Doing::Working => "the worker has not finished a round",
                    };
                    // Not through `tracing` alone: its writer may be what hangs.
                    eprintln!("{what} for {stuck_max:?}; aborting, so that other stores take over");
                    std::process::abort();
                }
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_at_the_same_busy_step_count() {
        let (pulse, mut watch) = (Pulse::default(), Watch::default());
        let mut look = |pulse: &Pulse| watch.look(pulse.step.load(Ordering::Acquire));
        assert_eq!(look(&pulse), 0, "not started");
        assert_eq!(look(&pulse), 0);
        pulse.begin(Doing::Working);
        assert_eq!([look(&pulse), look(&pulse), look(&pulse)], [0, 1, 2]);
        pulse.begin(Doing::Syncing);
        assert_eq!(pulse.doing(), Doing::Syncing);
        assert_eq!(
            [look(&pulse), look(&pulse)],
            [0, 1],
            "a new step begins anew"
        );
        pulse.rest();
        assert_eq!(
            [look(&pulse), look(&pulse)],
            [0, 0],
            "rest may last for ever"
        );
        pulse.begin(Doing::Working);
        assert_eq!(look(&pulse), 0);
    }
}
