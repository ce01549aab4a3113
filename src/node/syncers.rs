//! Threads that sync the raft log, so that its worker need not wait for a slow disk.
//!
//! Where a sync takes microseconds, the worker does it itself: handing it over would cost more.
//! Where it takes milliseconds, several may be under way at a time: a write that just missed one
//! does not wait for its end, but for the next one's, which begins at once. If all threads are
//! busy, the newest job waits and stands for those before it, which it includes.
//!
//! Invariants: a job is reported when its own sync has succeeded, or one that began after it was
//! submitted; after a failed sync the process ends.

use super::clock;
use super::mailbox::Mailbox;
use super::watchdog::{Doing, Pulse};
use parking_lot::{Condvar, Mutex};
use rangekv_store::log::SyncJob;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Syncs at the same time.
const THREADS: usize = 4;
/// Syncs that take longer than this on average are worth another thread. Waking it, and being woken
/// by it, costs a tenth; but without the pause that a sync is, rounds carry less each.
const WORTH_NS: u64 = 1_000_000;
/// Of how many the average is, roughly.
const AVERAGE_OF: u64 = 16;

/// See the module's documentation. Dropping it ends the threads when they have nothing to do.
pub struct Syncers(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    submitted: Condvar,
    mean_ns: AtomicU64,
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct Queue {
    /// The newest job that no thread has taken.
    waiting: Option<SyncJob>,
    running: usize,
    closed: bool,
}

impl Syncers {
    /// Starts the threads, which report to `mailbox`; each shows by its own pulse whether it moves.
    pub fn start(mailbox: Arc<Mailbox>) -> io::Result<(Self, Vec<Arc<Pulse>>)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            submitted: Condvar::new(),
            mean_ns: AtomicU64::new(0),
            mailbox,
        });
        let syncers = Syncers(shared);
        let pulses: Vec<Arc<Pulse>> = (0..THREADS).map(|_| Arc::default()).collect();
        for pulse in &pulses {
            let (shared, pulse) = (syncers.0.clone(), pulse.clone());
            std::thread::Builder::new()
                .name("log-sync".into())
                .spawn(move || shared.run(&pulse))?;
        }
        Ok((syncers, pulses))
    }

    /// Whether the next sync should be theirs: this disk is slow, or they are at work, and what they
    /// do would be done twice.
    pub fn are_worth_it(&self) -> bool {
        self.mean_ns() > WORTH_NS || self.are_busy()
    }

    /// How long a sync takes on average.
    pub fn mean_ns(&self) -> u64 {
        self.0.mean_ns.load(Ordering::Relaxed)
    }

    /// Whether a report is to come.
    pub fn are_busy(&self) -> bool {
        let queue = self.0.queue.lock();
        queue.running > 0 || queue.waiting.is_some()
    }

    /// Hands a job over.
    pub fn submit(&self, job: SyncJob) {
        let mut queue = self.0.queue.lock();
        debug_assert!(queue
            .waiting
            .as_ref()
            .is_none_or(|w| w.sequence <= job.sequence));
        queue.waiting = Some(job);
        drop(queue);
        self.0.submitted.notify_one();
    }

    /// Somebody has synced, and it took so long.
    pub fn observe(&self, took_ns: u64) {
        self.0.observe(took_ns);
    }
}

impl Drop for Syncers {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.submitted.notify_all();
    }
}

impl Shared {
    fn observe(&self, took_ns: u64) {
        // Two at a time may lose one: it is an average.
        let mean = self.mean_ns.load(Ordering::Relaxed);
        let next = mean - mean / AVERAGE_OF + took_ns / AVERAGE_OF;
        self.mean_ns.store(next, Ordering::Relaxed);
    }

    fn run(&self, pulse: &Pulse) {
        let mut queue = self.queue.lock();
        loop {
            let Some(SyncJob { sequence, work }) = queue.waiting.take() else {
                if queue.closed {
                    return;
                }
                self.submitted.wait(&mut queue);
                continue;
            };
            queue.running += 1;
            drop(queue);
            pulse.begin(Doing::Syncing);
            let began_ns = clock::mono_ns();
            if let Err(error) = work() {
                rangekv_store::fatal("syncing the raft log", &error);
            }
            let took_ns = clock::mono_ns() - began_ns;
            pulse.rest();
            self.observe(took_ns);
            self.mailbox.synced(sequence, took_ns);
            queue = self.queue.lock();
            queue.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::{mailbox, Limits};
    use super::*;
    use rangekv_router::poll::{Events, Poll};
    use rangekv_store::event::Event;
    use std::sync::mpsc::{channel, Receiver};

    fn job(sequence: u64, until: Receiver<()>) -> SyncJob {
        let work = Box::new(move || {
            // The test lets it end, or has ended itself.
            let _ = until.recv();
            Ok(())
        });
        SyncJob { sequence, work }
    }

    #[test]
    fn jobs_run_side_by_side_and_the_newest_stands_for_those_that_found_no_thread() {
        let (poll, waker) = Poll::new().unwrap();
        let (mailbox, inbox) = mailbox(Limits::default(), Arc::default(), waker);
        let (syncers, _) = Syncers::start(mailbox).unwrap();
        assert!(!syncers.are_worth_it() && !syncers.are_busy());
        let mut ends = Vec::new();
        for sequence in 1..=THREADS as u64 + 3 {
            let (end, until) = channel();
            syncers.submit(job(sequence, until));
            ends.push(end);
            // Each of the first finds a thread.
            while sequence <= THREADS as u64 && syncers.0.queue.lock().waiting.is_some() {
                std::thread::yield_now();
            }
        }
        assert!(syncers.are_worth_it(), "they are at work");
        // The second ends first; those that were replaced never run.
        drop(ends.swap_remove(1));
        drop(ends);
        let (mut events, mut heard, mut sockets) = (Vec::new(), Vec::new(), Events::new());
        while heard.len() <= THREADS {
            if inbox.fall_asleep(true) {
                poll.wait(&mut sockets, None).unwrap();
                inbox.awake();
            }
            inbox.take(&mut events);
            heard.extend(events.drain(..).map(|event| match event {
                Event::Synced { sequence, .. } => sequence,
                _ => unreachable!("nobody sent anything else"),
            }));
        }
        heard.sort_unstable();
        assert_eq!(heard, [1, 2, 3, 4, 7]);
    }

    #[test]
    fn slow_syncs_are_worth_a_thread_and_fast_ones_are_not() {
        let (_, waker) = Poll::new().unwrap();
        let (mailbox, _inbox) = mailbox(Limits::default(), Arc::default(), waker);
        let (syncers, _) = Syncers::start(mailbox).unwrap();
        let after = |took_ns| {
            (0..4 * AVERAGE_OF).for_each(|_| syncers.observe(took_ns));
            syncers.are_worth_it()
        };
        assert!(!after(70_000));
        assert!(after(2_000_000));
        assert!(!after(70_000));
    }
}
