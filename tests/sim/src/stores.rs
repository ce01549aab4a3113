//! Stores at work: rounds, syncs, frames between them, their starts and ends.

use crate::checks::check_departure;
use crate::cluster::{trace, Caller, Cluster, Event};
use crate::nemesis::Trouble;
use crate::net::Fate;
use crate::node::{Process, Ran};
use crate::random::exponential;
use crate::schedule::MS;
use bytes::Bytes;
use rand::Rng;
use rangekv_proto::{RequestError, StoreId};
use rangekv_store::event::{Event as StoreEvent, Outbox};
use rangekv_store::wire;
use std::collections::BTreeMap;

impl Cluster {
    /// Starts a store that is down.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<(), String> {
        let now = self.schedule.now();
        self.nodes[node].start(now)?;
        trace!(
            self,
            "n{node} starts, incarnation {}",
            self.nodes[node].incarnation
        );
        let incarnation = self.nodes[node].incarnation;
        self.note(3, node, incarnation);
        self.arm(node);
        self.look(node, incarnation);
        Ok(())
    }

    /// Puts an event into a store's mailbox, if it runs.
    pub(crate) fn deliver(&mut self, node: usize, event: StoreEvent) {
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.deliver(event);
            self.arm(node);
        }
    }

    /// Sees to it that a round happens when one is due.
    pub(crate) fn arm(&mut self, node: usize) {
        let now = self.schedule.now();
        let next_tick = self.nodes[node].next_tick();
        let incarnation = self.nodes[node].incarnation;
        let wakes_in = self.rng.random_range(2_000..40_000);
        let process = self.nodes[node].process();
        if process.syncing {
            return;
        }
        let due = if process.has_work() {
            now + wakes_in
        } else {
            next_tick
        };
        if process.round_at.is_none_or(|at| due < at) {
            process.round_at = Some(due);
            self.schedule.at(due, Event::Round { node, incarnation });
        }
    }

    pub(crate) fn running(&mut self, node: usize, incarnation: u64) -> Option<&mut Process> {
        let node = &mut self.nodes[node];
        if node.incarnation != incarnation {
            return None;
        }
        node.process.as_mut()
    }

    pub(crate) fn round(&mut self, node: usize, incarnation: u64) -> Result<(), String> {
        let now = self.schedule.now();
        let clock = self.nodes[node].now(now);
        let Some(process) = self.running(node, incarnation) else {
            return Ok(());
        };
        if process.syncing || process.round_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        process.round_at = None;
        let mut out = Outbox::default();
        let must_sync = match process.begin(clock, &mut out) {
            Ran::Done(must_sync) => must_sync,
            Ran::Died(why) => return self.died(node, &why),
        };
        self.counts.rounds += 1;
        self.after(node, out)?;
        if !must_sync {
            return self.finish(node);
        }
        let mean = self.nodes[node].sync_mean;
        let latency = 20_000 + exponential(&mut self.rng, mean);
        let later = self.nodes[node].process().syncs_later();
        if later > 0.0 && self.rng.random_bool(later) {
            match self.nodes[node].process().sync_later(now) {
                Ran::Done(None) => {}
                Ran::Done(Some(sequence)) => {
                    self.counts.syncs_later += 1;
                    let synced = Event::SyncedLater {
                        node,
                        incarnation,
                        sequence,
                    };
                    self.schedule.after(latency, synced);
                    return self.finish(node);
                }
                Ran::Died(why) => return self.died(node, &why),
            }
        }
        self.schedule
            .after(latency, Event::Synced { node, incarnation });
        Ok(())
    }

    pub(crate) fn synced_later(
        &mut self,
        node: usize,
        incarnation: u64,
        sequence: u64,
    ) -> Result<(), String> {
        let now = self.schedule.now();
        let Some(process) = self.running(node, incarnation) else {
            return Ok(());
        };
        match process.end_job(now, sequence) {
            Ran::Done(()) => {
                self.arm(node);
                Ok(())
            }
            Ran::Died(why) => self.died(node, &why),
        }
    }

    pub(crate) fn synced(&mut self, node: usize, incarnation: u64) -> Result<(), String> {
        let clock = self.nodes[node].now(self.schedule.now());
        let Some(process) = self.running(node, incarnation) else {
            return Ok(());
        };
        match process.sync(clock) {
            Ran::Done(()) => self.finish(node),
            Ran::Died(why) => self.died(node, &why),
        }
    }

    pub(crate) fn finish(&mut self, node: usize) -> Result<(), String> {
        let clock = self.nodes[node].now(self.schedule.now());
        let mut out = Outbox::default();
        match self.nodes[node].process().finish(clock, &mut out) {
            Ran::Done(()) => {}
            Ran::Died(why) => return self.died(node, &why),
        }
        self.after(node, out)?;
        self.arm(node);
        if !self.nodes[node].flushing && self.nodes[node].engine.flush_requested().is_some() {
            self.nodes[node].flushing = true;
            let time = self.rng.random_range(MS..300 * MS);
            self.schedule.after(time, Event::Flushed { node });
        }
        Ok(())
    }

    /// The store ended itself.
    pub(crate) fn died(&mut self, node: usize, why: &str) -> Result<(), String> {
        trace!(self, "n{node} ends itself: {why}");
        self.crash_node(node, false);
        let down = self.rng.random_range(10 * MS..500 * MS);
        self.schedule
            .after(down, Event::Trouble(Trouble::Restart(node)));
        Ok(())
    }

    /// After either half of a round: looks at the store, sends what it wants sent.
    pub(crate) fn after(&mut self, node: usize, out: Outbox) -> Result<(), String> {
        let now = self.schedule.now();
        let n = &self.nodes[node];
        let process = n.process.as_ref().expect("it has just run");
        let groups = process.groups(n.now(now));
        {
            let mirror = n.mirror.lock().expect("one thread");
            let changed = &mut self.changed;
            self.checks.observe(
                node,
                now,
                &groups,
                &mirror,
                &n.clock,
                process.shared(),
                changed,
            )?;
            for (_, envelope) in &out.envelopes {
                let applied = groups
                    .iter()
                    .find(|g| g.range == envelope.range)
                    .map(|g| g.applied.0);
                check_departure(envelope, &mirror, applied)?;
            }
            for snapshot in &out.snapshots {
                check_departure(&snapshot.envelope, &mirror, None)?;
            }
        }
        for change in std::mem::take(&mut self.changed) {
            let (term, committed, applied) = change.position;
            self.note(4, node, change.range.0);
            self.note(5, node, term << 40 | committed << 20 | applied);
            if self.is_traced() {
                let role = if change.is_leader { " leads" } else { "" };
                self.print(format!(
                    "n{node} r{}{role} term {term} commit {committed} applied {applied}",
                    change.range
                ));
            }
        }
        self.send_frames(node, out.envelopes);
        for snapshot in out.snapshots {
            self.start_snapshot(node, snapshot);
        }
        for (token, response) in self.nodes[node].process().take_responses() {
            self.respond(node, token, response)?;
        }
        Ok(())
    }

    /// One frame per store, in the order of the envelopes.
    pub(crate) fn send_frames(&mut self, node: usize, envelopes: Vec<(StoreId, wire::Envelope)>) {
        let mut frames: BTreeMap<StoreId, Vec<u8>> = BTreeMap::new();
        for (store, envelope) in &envelopes {
            wire::encode_one(frames.entry(*store).or_default(), envelope);
        }
        for (store, bytes) in frames {
            let Some(to) = self.node_of(store) else {
                continue;
            };
            self.send_frame(node, to, bytes.into());
        }
    }

    pub(crate) fn node_of(&self, store: StoreId) -> Option<usize> {
        let n = store.0.checked_sub(1)? as usize;
        (n < self.nodes.len()).then_some(n)
    }

    pub(crate) fn send_frame(&mut self, from: usize, to: usize, bytes: Bytes) {
        let now = self.schedule.now();
        self.counts.frames += 1;
        match self.net.send(now, from, to, &bytes) {
            Fate::Arrives(times) => {
                for time in times {
                    self.schedule.at(
                        time,
                        Event::Frame {
                            from,
                            to,
                            bytes: bytes.clone(),
                        },
                    );
                }
            }
            Fate::Waits => {}
            Fate::Lost { cut } => {
                // A broken connection is noticed; a frame lost by a full queue is not.
                if cut && self.rng.random_bool(0.3) {
                    let incarnation = self.nodes[from].incarnation;
                    let store = self.nodes[to].store;
                    let delay = self.rng.random_range(MS..200 * MS);
                    self.schedule.after(
                        delay,
                        Event::Unreachable {
                            node: from,
                            incarnation,
                            store,
                        },
                    );
                }
            }
        }
    }

    /// Ends a store's process. Its callers hear of it at once, later, or never.
    pub(crate) fn crash_node(&mut self, node: usize, power_cut: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        let now = self.schedule.now();
        self.counts.absorbed += self.nodes[node].process().absorbed();
        let lost = self.nodes[node].crash(now, &mut self.rng, power_cut);
        self.counts.crashes += 1;
        self.counts.lost_writes += lost.1 as u64;
        trace!(
            self,
            "n{node} crashes (power cut: {power_cut}), lost {} state batches, {} log writes",
            lost.0,
            lost.1
        );
        self.note(6, node, (lost.0 as u64) << 32 | lost.1 as u64);
        self.checks.crashed(node);
        self.end_connections(node);
        self.break_streams_of(node);
        for (token, (caller, read_only)) in std::mem::take(&mut self.open_requests[node]) {
            // Its stream broke, or it was the process's own.
            if matches!(caller, Caller::Door(_) | Caller::Order(..)) {
                continue;
            }
            if self.rng.random_bool(0.7) {
                let why = "the connection broke".to_string();
                let error = match read_only {
                    true => RequestError::Unavailable(why),
                    false => RequestError::OutcomeUnknown(why),
                };
                let delay = self.rng.random_range(100_000..50 * MS);
                self.schedule.after(
                    delay,
                    Event::Response {
                        caller,
                        token,
                        response: Err(error),
                    },
                );
            }
        }
    }
}
