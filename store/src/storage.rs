//! What raft-rs reads of one group: its log in memory, hard state, configuration.
//!
//! The whole live log of a group is held in memory; the [`RaftLog`](crate::log::RaftLog) makes
//! it durable and gives it back after a restart. Log collection bounds both.
//!
//! Invariants: `entries` follow `truncated_index` without gaps; nothing above the applied index
//! is ever compacted.

use crate::codec::{get_bytes, put_bytes};
use crate::engine::{Snapshot, StateEngine};
use crate::log::{entry_bytes, GroupLog};
use crate::meta::{Applied, Merging};
use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot as RaftSnapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use rangekv_proto::{RangeDescriptor, ReplicaId, ReplicaRole};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The raft configuration that a descriptor stands for.
pub fn conf_state(d: &RangeDescriptor) -> ConfState {
    let mut cs = ConfState::default();
    let joint = d.is_joint();
    for r in &d.replicas {
        let id = r.id.0;
        match r.role {
            ReplicaRole::Voter => {
                cs.voters.push(id);
                if joint {
                    cs.voters_outgoing.push(id);
                }
            }
            ReplicaRole::Learner => cs.learners.push(id),
            ReplicaRole::IncomingVoter => cs.voters.push(id),
            ReplicaRole::DemotingVoter => {
                cs.voters_outgoing.push(id);
                cs.learners_next.push(id);
            }
        }
    }
    cs
}

/// What a raft snapshot message carries besides its index, term and configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotData {
    /// The range's hybrid clock, ms.
    pub clock_ms: u64,
    /// Its part in a merge.
    pub merging: Option<Merging>,
    /// Bounds and members.
    pub descriptor: RangeDescriptor,
}

impl SnapshotData {
    /// Clock (u64, big-endian), length and bytes of the merge record, descriptor (protobuf).
    pub fn encode(&self) -> Bytes {
        let mut b = Vec::with_capacity(64);
        b.put_u64(self.clock_ms);
        let merging = self.merging.as_ref().map(Merging::encode);
        put_bytes(&mut b, &merging.unwrap_or_default());
        b.extend_from_slice(&self.descriptor.encode());
        b.into()
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut bytes = bytes.clone();
        if bytes.len() < 8 {
            return None;
        }
        let clock_ms = bytes.get_u64();
        let merging = get_bytes(&mut bytes).ok()?;
        Some(SnapshotData {
            clock_ms,
            merging: match merging.is_empty() {
                true => None,
                false => Some(Merging::decode(merging).ok()?),
            },
            descriptor: RangeDescriptor::decode(&bytes).ok()?,
        })
    }
}

/// A snapshot that raft asked for, to be attached to its message.
pub struct PreparedSnapshot {
    /// The receiving replica.
    pub to: ReplicaId,
    /// The applied index that it shows.
    pub index: u64,
    /// The state at that index.
    pub state: Snapshot,
}

/// See the module's documentation.
pub struct GroupStorage {
    entries: VecDeque<Entry>,
    entries_bytes: u64,
    truncated_index: u64,
    truncated_term: u64,
    hard_state: HardState,
    /// What the state engine shows now, batch of the current round excluded.
    pub applied: Applied,
    /// `None` while uninitialised.
    descriptor: Option<RangeDescriptor>,
    /// The range's part in a merge.
    merging: Option<Merging>,
    engine: Arc<dyn StateEngine>,
    /// False while entries are being applied: the engine does not show `applied` then.
    pub snapshots_allowed: bool,
    prepared: RefCell<Vec<PreparedSnapshot>>,
    /// Receivers of snapshots that are on their way.
    in_flight: RefCell<BTreeSet<ReplicaId>>,
}

impl GroupStorage {
    /// A group as found in the log and the state.
    pub fn new(
        log: GroupLog,
        applied: Applied,
        descriptor: Option<RangeDescriptor>,
        engine: Arc<dyn StateEngine>,
    ) -> Self {
        let entries_bytes = log.entries.iter().map(entry_bytes).sum();
        GroupStorage {
            entries: log.entries.into(),
            entries_bytes,
            truncated_index: log.truncated_index,
            truncated_term: log.truncated_term,
            hard_state: log.hard_state,
            applied,
            descriptor,
            merging: None,
            engine,
            snapshots_allowed: true,
            prepared: RefCell::default(),
            in_flight: RefCell::default(),
        }
    }

    /// Term, vote and commit as last handed to the log.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Records what is handed to the log.
    pub fn set_hard_state(&mut self, hs: HardState) {
        assert!(
            hs.term >= self.hard_state.term,
            "term regression {} → {}",
            self.hard_state.term,
            hs.term
        );
        self.hard_state = hs;
    }

    /// Raises the commit index of the hard state.
    pub fn set_commit(&mut self, commit: u64) {
        assert!(
            commit >= self.hard_state.commit,
            "commit regression {} → {commit}",
            self.hard_state.commit
        );
        self.hard_state.commit = commit;
    }

    /// The descriptor by which raft's configuration is derived.
    pub fn set_descriptor(&mut self, d: RangeDescriptor) {
        self.descriptor = Some(d);
    }

    /// The range's part in a merge, for its snapshots.
    pub fn set_merging(&mut self, merging: Option<Merging>) {
        self.merging = merging;
    }

    /// Appends, truncating from the first entry's index.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated_index,
            "append at {} below {}",
            first.index,
            self.truncated_index
        );
        assert!(
            first.index <= self.last() + 1,
            "gap: append at {} after {}",
            first.index,
            self.last()
        );
        assert!(
            first.index > self.applied.index,
            "append at {} would replace applied entry {}",
            first.index,
            self.applied.index
        );
        let keep = (first.index - self.truncated_index - 1) as usize;
        for dropped in self.entries.drain(keep..) {
            self.entries_bytes -= entry_bytes(&dropped);
        }
        for entry in entries {
            self.entries_bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets entries up to `index`.
    pub fn compact(&mut self, index: u64) {
        assert!(
            index <= self.applied.index,
            "compact {index} beyond applied {}",
            self.applied.index
        );
        if index <= self.truncated_index {
            return;
        }
        self.truncated_term = self.term_at(index).expect("index lies in the log");
        for _ in self.truncated_index..index {
            if let Some(e) = self.entries.pop_front() {
                self.entries_bytes -= entry_bytes(&e);
            }
        }
        self.truncated_index = index;
    }

    /// Begins anew after (`index`, `term`), as after a snapshot.
    pub fn reset(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.entries_bytes = 0;
        self.truncated_index = index;
        self.truncated_term = term;
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.truncated_index + self.entries.len() as u64
    }

    /// Index up to which the log is compacted, and its term.
    pub fn truncated(&self) -> (u64, u64) {
        (self.truncated_index, self.truncated_term)
    }

    /// Bytes of entries held.
    pub fn entries_bytes(&self) -> u64 {
        self.entries_bytes
    }

    /// The group's whole live state, for rewriting it at the log's tail.
    pub fn to_group_log(&self) -> GroupLog {
        GroupLog {
            hard_state: self.hard_state.clone(),
            truncated_index: self.truncated_index,
            truncated_term: self.truncated_term,
            entries: self.entries.iter().cloned().collect(),
        }
    }

    /// The term at `index`, if it is known.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.truncated_index {
            return Some(self.truncated_term);
        }
        let i = index.checked_sub(self.truncated_index + 1)?;
        self.entries.get(i as usize).map(|e| e.term)
    }

    /// Takes the state prepared for a MsgSnapshot.
    pub fn take_prepared(&self, to: ReplicaId, index: u64) -> Option<Snapshot> {
        let mut prepared = self.prepared.borrow_mut();
        let i = prepared
            .iter()
            .position(|p| p.to == to && p.index == index)?;
        let taken = prepared.swap_remove(i);
        self.in_flight.borrow_mut().insert(to);
        Some(taken.state)
    }

    /// Leadership is lost: whoever leads now sends its own snapshots.
    pub fn forget_snapshots(&self) {
        self.prepared.borrow_mut().clear();
        self.in_flight.borrow_mut().clear();
    }

    /// A snapshot on its way was delivered or lost.
    pub fn snapshot_done(&self, to: ReplicaId) {
        self.in_flight.borrow_mut().remove(&to);
        self.prepared.borrow_mut().retain(|p| p.to != to);
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.descriptor.as_ref().map(conf_state).unwrap_or_default(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last() + 1,
            "entries up to {high} asked, log ends at {}",
            self.last()
        );
        let max = max_size.into().unwrap_or(u64::MAX);
        let offset = self.truncated_index + 1;
        let mut size = 0u64;
        let mut out = Vec::with_capacity((high - low) as usize);
        for e in self
            .entries
            .range((low - offset) as usize..(high - offset) as usize)
        {
            size = size.saturating_add(entry_bytes(e));
            if size > max && !out.is_empty() {
                break;
            }
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index)
            .ok_or(raft::Error::Store(if index < self.truncated_index {
                StorageError::Compacted
            } else {
                StorageError::Unavailable
            }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<RaftSnapshot> {
        let to = ReplicaId(to);
        let unavailable = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        let Some(descriptor) = &self.descriptor else {
            return Err(unavailable);
        };
        if !self.snapshots_allowed
            || self.in_flight.borrow().contains(&to)
            || self.applied.index < request_index
        {
            return Err(unavailable);
        }
        let data = SnapshotData {
            clock_ms: self.applied.clock_ms,
            merging: self.merging.clone(),
            descriptor: descriptor.clone(),
        };
        let mut snapshot = RaftSnapshot {
            data: data.encode(),
            ..Default::default()
        };
        let index = if crate::bugs::active(crate::bugs::Bug::SnapshotMislabelled) {
            (self.applied.index + 1).min(self.last())
        } else {
            self.applied.index
        };
        let term = self.term_at(index).unwrap_or(self.applied.term);
        let meta = snapshot.mut_metadata();
        meta.index = index;
        meta.term = term;
        *meta.mut_conf_state() = conf_state(descriptor);
        let mut prepared = self.prepared.borrow_mut();
        prepared.retain(|p| p.to != to);
        prepared.push(PreparedSnapshot {
            to,
            index,
            state: self.engine.snapshot(),
        });
        Ok(snapshot)
    }
}
