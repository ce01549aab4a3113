//! Snapshots on their way: read from the sender's state piece by piece while it goes on
//! writing, lost with the connection, delivered whole or not at all.

use crate::cluster::{trace, Cluster, Event};
use crate::schedule::MS;
use bytes::Bytes;
use rand::Rng;
use rangekv_store::engine::StateEngine;
use rangekv_store::event::{Event as StoreEvent, SnapshotToSend};
use rangekv_store::meta;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

struct Transfer {
    from: usize,
    from_incarnation: u64,
    to: usize,
    to_incarnation: u64,
    snapshot: SnapshotToSend,
    /// Where the next piece begins.
    next: Bytes,
    end: Bytes,
    records: Vec<(Bytes, Bytes)>,
    piece: usize,
}

/// All snapshots on their way.
#[derive(Default)]
pub struct Transfers {
    open: BTreeMap<u64, Transfer>,
    next_id: u64,
}

impl Cluster {
    pub(crate) fn start_snapshot(&mut self, from: usize, snapshot: SnapshotToSend) {
        let Some(to) = self.node_of(snapshot.to) else {
            return;
        };
        let (next, end) = meta::data_bounds(&snapshot.range);
        self.transfers.next_id += 1;
        let id = self.transfers.next_id;
        trace!(
            self,
            "n{from} streams a snapshot of range {} to n{to}",
            snapshot.range.id
        );
        let transfer = Transfer {
            from,
            from_incarnation: self.nodes[from].incarnation,
            to,
            to_incarnation: self.nodes[to].incarnation,
            snapshot,
            next,
            end,
            records: Vec::new(),
            piece: self.rng.random_range(1..20),
        };
        self.transfers.open.insert(id, transfer);
        self.next_piece(id);
    }

    fn next_piece(&mut self, id: u64) {
        let delay = self.rng.random_range(100_000..20 * MS);
        self.schedule.after(delay, Event::Snapshot { id });
    }

    /// One more piece arrives, the whole is delivered, or the stream breaks.
    pub(crate) fn snapshot(&mut self, id: u64) -> Result<(), String> {
        let Some(mut transfer) = self.transfers.open.remove(&id) else {
            return Ok(());
        };
        let now = self.schedule.now();
        let (from, to) = (transfer.from, transfer.to);
        if self.nodes[from].incarnation != transfer.from_incarnation
            || self.nodes[from].process.is_none()
        {
            return Ok(());
        }
        let paused = [from, to]
            .iter()
            .filter_map(|n| self.nodes[*n].process.as_ref())
            .map(|p| p.paused_until)
            .max()
            .filter(|until| *until > now);
        if let Some(until) = paused {
            self.transfers.open.insert(id, transfer);
            self.schedule.at(until, Event::Snapshot { id });
            return Ok(());
        }
        let alive = self.nodes[to].process.is_some()
            && self.nodes[to].incarnation == transfer.to_incarnation
            && self.net.is_open(from, to);
        let broken = !alive || !self.healed && self.rng.random_bool(self.faults.loss / 4.0);
        if broken {
            self.snapshot_ends(transfer, false);
            return Ok(());
        }
        if !transfer.next_pieces() {
            self.transfers.open.insert(id, transfer);
            self.next_piece(id);
            return Ok(());
        }
        let engine = self.nodes[to].engine.clone();
        let staged = engine.stage().and_then(|mut stager| {
            for (key, value) in &transfer.records {
                stager.add(key, value)?;
            }
            stager.finish()
        });
        let ok = match staged {
            Ok(staged) => {
                self.counts.snapshots += 1;
                trace!(
                    self,
                    "n{to} has a snapshot of range {}, {} records",
                    transfer.snapshot.range.id,
                    staged.records()
                );
                self.note(8, to, staged.records());
                let envelope = transfer.snapshot.envelope.clone();
                self.deliver(to, StoreEvent::SnapshotReceived { envelope, staged });
                true
            }
            Err(_) => false,
        };
        // The acknowledgement may be lost with the connection.
        let heard = self.net.is_open(to, from);
        self.snapshot_ends(transfer, ok && heard);
        Ok(())
    }

    fn snapshot_ends(&mut self, transfer: Transfer, ok: bool) {
        let range = transfer.snapshot.range.id;
        let receiver = transfer.snapshot.envelope.to;
        self.deliver(
            transfer.from,
            StoreEvent::SnapshotSent {
                range,
                to: receiver,
                ok,
            },
        );
    }
}

impl Transfer {
    /// Reads one piece; whether it was the last.
    fn next_pieces(&mut self) -> bool {
        let mut left = self.piece;
        let (records, state) = (&mut self.records, &self.snapshot.state);
        let mut more = None;
        state.scan(&self.next, &self.end, &mut |key, value| {
            if left == 0 {
                more = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            left -= 1;
            records.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        });
        match more {
            Some(next) => {
                self.next = next;
                false
            }
            None => true,
        }
    }
}
