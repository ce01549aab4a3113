//! Times of a round's stages, and what else a worker counts beside its work.
//!
//! Nothing in here decides anything: a worker without a stopwatch does the same.

use super::{Stopwatch, Worker};
use crate::event::Now;
use crate::metrics::{Histogram, MessageDrop, SnapshotEvent};

impl Worker {
    /// From now on durations are measured by `stopwatch`, on the time scale of
    /// [`Now::mono_ns`](crate::event::Now::mono_ns). It is asked up to six times per round.
    pub fn measure_with(&mut self, stopwatch: Stopwatch) {
        self.stopwatch = Some(stopwatch);
    }

    /// A round begins: what it begins with has been handled.
    pub(super) fn begin_measuring(&mut self) -> Option<u64> {
        let began_ns = lap(&mut self.stopwatch);
        let taken = std::mem::take(&mut self.taken);
        let metrics = &self.shared.metrics;
        if taken.events > 0 {
            metrics.round_events.observe(taken.events);
        }
        if taken.requests > 0 {
            observe(&metrics.write.evaluate, Some(taken.began_ns), began_ns);
            self.traces.evaluated(began_ns);
        }
        began_ns
    }

    /// Writes what is staged in the log.
    pub(super) fn write_log(&mut self) {
        let bytes = self.log.staged_bytes() as u64;
        self.shared.metrics.log_bytes.add(bytes);
        self.log
            .write()
            .unwrap_or_else(|e| crate::fatal("writing the raft log", &e));
    }

    /// Makes what was written durable.
    pub(super) fn sync_log(&mut self) {
        let began_ns = lap(&mut self.stopwatch);
        self.log
            .sync()
            .unwrap_or_else(|e| crate::fatal("syncing the raft log", &e));
        let ended_ns = lap(&mut self.stopwatch);
        let metrics = &self.shared.metrics;
        metrics.syncs.increment();
        observe(&metrics.fsync, began_ns, ended_ns);
        observe(&metrics.write.log, self.staged_ns.take(), ended_ns);
        self.traces.durable(None, ended_ns);
    }

    /// Another thread has synced.
    pub(super) fn measure_job(&mut self, now: Now, sequence: u64, took_ns: u64) {
        let metrics = &self.shared.metrics;
        metrics.syncs.increment();
        metrics.syncs_beside.increment();
        metrics.fsync.observe(took_ns);
        while let Some(&(_, staged_ns)) = self
            .staged_before
            .front()
            .filter(|(job, _)| *job <= sequence)
        {
            observe(&metrics.write.log, staged_ns, Some(now.mono_ns));
            self.staged_before.pop_front();
        }
        self.traces.durable(Some(sequence), Some(now.mono_ns));
    }

    pub(super) fn drop_message(&self, reason: MessageDrop) {
        let metrics = &self.shared.metrics;
        metrics.messages_dropped.of(reason).increment();
    }

    pub(super) fn count_snapshot(&self, event: SnapshotEvent) {
        self.shared.metrics.snapshots.of(event).increment();
    }

    /// Sets the gauges.
    pub(super) fn count_replicas(&self) {
        let metrics = &self.shared.metrics;
        metrics.replicas.set(self.replicas.len() as u64);
        let quiesced = self.replicas.len().saturating_sub(self.awake.len());
        metrics.quiesced.set(quiesced as u64);
        metrics.leaders.set(self.leader_count() as u64);
    }
}

/// The time, if there is a stopwatch.
pub(super) fn lap(stopwatch: &mut Option<Stopwatch>) -> Option<u64> {
    stopwatch.as_mut().map(|now_ns| now_ns())
}

/// One duration, if both ends are known.
pub(super) fn observe(histogram: &Histogram, began_ns: Option<u64>, ended_ns: Option<u64>) {
    if let (Some(began), Some(ended)) = (began_ns, ended_ns) {
        histogram.observe(ended.saturating_sub(began));
    }
}
