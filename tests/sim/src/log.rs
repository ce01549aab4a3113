//! A raft log under observation: what was written, and what of it is durable.
//!
//! [`ObservedLog`] passes everything on to the store's own log and keeps a [`Mirror`] of it by
//! simpler means, against which [`crate::checks`] holds the messages that a store sends.
//! A disk that fails ends the process: here, by a panic with [`DiskFailure`] that the node takes
//! for a crash.

use crate::random::Fnv;
use raft::eraftpb::{Entry, HardState};
use rangekv_proto::RangeId;
use rangekv_store::log::{GroupLog, RaftLog, Recovered, SyncJob, Tombstone};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The disk said no; the process ends.
pub struct DiskFailure(pub String);

/// Term of an entry and a hash of its content.
pub type EntryHash = (u64, u64);

/// One group's log.
#[derive(Clone, Debug, Default)]
pub struct GroupMirror {
    /// Term of the hard state.
    pub term: u64,
    /// Vote of the hard state; 0 = none.
    pub vote: u64,
    /// Commit index of the hard state.
    pub commit: u64,
    /// Everything up to here is compacted.
    pub truncated: u64,
    entries: VecDeque<EntryHash>,
}

impl GroupMirror {
    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.truncated + self.entries.len() as u64
    }

    /// The entry at `index`, unless it is compacted or not there.
    pub fn entry(&self, index: u64) -> Option<EntryHash> {
        let i = index.checked_sub(self.truncated + 1)?;
        self.entries.get(i as usize).copied()
    }

    fn of(log: &GroupLog) -> GroupMirror {
        GroupMirror {
            term: log.hard_state.term,
            vote: log.hard_state.vote,
            commit: log.hard_state.commit,
            truncated: log.truncated_index,
            entries: log.entries.iter().map(hash_entry).collect(),
        }
    }
}

fn hash_entry(entry: &Entry) -> EntryHash {
    let mut hash = Fnv::default();
    hash.number(entry.get_entry_type() as u64);
    hash.write(&entry.data);
    hash.write(&entry.context);
    (entry.term, hash.value())
}

#[derive(Clone, Debug)]
enum LogOp {
    Append(RangeId, u64, Vec<EntryHash>),
    HardState(RangeId, u64, u64, u64),
    Compact(RangeId, u64),
    Reset(RangeId, u64, u64, u64, u64),
    Destroy(RangeId),
}

type Groups = BTreeMap<RangeId, GroupMirror>;

fn replay(groups: &mut Groups, op: &LogOp) {
    match op {
        LogOp::Append(range, first, entries) => {
            let group = groups.entry(*range).or_default();
            let keep = first
                .checked_sub(group.truncated + 1)
                .expect("an append above what is compacted");
            assert!(
                keep <= group.entries.len() as u64,
                "range {range}: gap before appended entry {first}"
            );
            group.entries.truncate(keep as usize);
            group.entries.extend(entries);
        }
        LogOp::HardState(range, term, vote, commit) => {
            let group = groups.entry(*range).or_default();
            (group.term, group.vote, group.commit) = (*term, *vote, *commit);
        }
        LogOp::Compact(range, index) => {
            let group = groups.entry(*range).or_default();
            let gone = index
                .saturating_sub(group.truncated)
                .min(group.entries.len() as u64);
            group.entries.drain(..gone as usize);
            group.truncated = group.truncated.max(*index);
        }
        LogOp::Reset(range, index, term, vote, commit) => {
            let fresh = GroupMirror {
                term: *term,
                vote: *vote,
                commit: *commit,
                truncated: *index,
                entries: VecDeque::new(),
            };
            groups.insert(*range, fresh);
        }
        LogOp::Destroy(range) => {
            groups.remove(range);
        }
    }
}

/// What a store's log holds.
#[derive(Debug, Default)]
pub struct Mirror {
    /// As written, durable or not.
    pub written: Groups,
    /// What a power cut now would leave at least.
    pub durable: Groups,
    staged: Vec<LogOp>,
    unsynced: VecDeque<LogOp>,
    /// Operations written so far,
    writes: u64,
    /// and how many when each job was made, by its sequence.
    jobs: BTreeMap<u64, u64>,
}

impl Mirror {
    /// A log that was just opened, and made durable by that.
    pub fn recovered(found: &Recovered) -> Mirror {
        let groups: Groups = found
            .groups
            .iter()
            .map(|(range, log)| (*range, GroupMirror::of(log)))
            .collect();
        Mirror {
            written: groups.clone(),
            durable: groups,
            ..Mirror::default()
        }
    }

    fn write(&mut self) {
        for op in self.staged.drain(..) {
            replay(&mut self.written, &op);
            self.unsynced.push_back(op);
            self.writes += 1;
        }
    }

    fn sync(&mut self) {
        self.sync_to(self.writes);
    }

    /// The first `count` operations are durable.
    fn sync_to(&mut self, count: u64) {
        while self.writes - (self.unsynced.len() as u64) < count {
            let op = self.unsynced.pop_front().expect("written before");
            replay(&mut self.durable, &op);
        }
    }
}

/// A mirror that the simulation and the log share.
pub type SharedMirror = Arc<Mutex<Mirror>>;

/// See the module's documentation.
pub struct ObservedLog<L> {
    log: L,
    mirror: SharedMirror,
}

impl<L: RaftLog> ObservedLog<L> {
    /// Observes `log`; `mirror` already shows what is in it.
    pub fn new(log: L, mirror: SharedMirror) -> Self {
        ObservedLog { log, mirror }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().expect("one thread")
    }

    fn stage(&self, op: LogOp) {
        self.mirror().staged.push(op);
    }
}

impl<L: RaftLog> RaftLog for ObservedLog<L> {
    fn append(&mut self, group: RangeId, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.stage(LogOp::Append(
                group,
                first.index,
                entries.iter().map(hash_entry).collect(),
            ));
        }
        self.log.append(group, entries);
    }

    fn set_hard_state(&mut self, group: RangeId, hs: &HardState) {
        self.stage(LogOp::HardState(group, hs.term, hs.vote, hs.commit));
        self.log.set_hard_state(group, hs);
    }

    fn compact(&mut self, group: RangeId, index: u64, term: u64) {
        self.stage(LogOp::Compact(group, index));
        self.log.compact(group, index, term);
    }

    fn reset(&mut self, group: RangeId, index: u64, term: u64, hs: &HardState) {
        self.stage(LogOp::Reset(group, index, hs.term, hs.vote, hs.commit));
        self.log.reset(group, index, term, hs);
    }

    fn destroy(&mut self, group: RangeId, tombstone: Tombstone) {
        self.stage(LogOp::Destroy(group));
        self.log.destroy(group, tombstone);
    }

    fn staged_bytes(&self) -> usize {
        self.log.staged_bytes()
    }

    fn write(&mut self) -> io::Result<()> {
        if let Err(error) = self.log.write() {
            std::panic::panic_any(DiskFailure(error.to_string()));
        }
        self.mirror().write();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Err(error) = self.log.sync() {
            std::panic::panic_any(DiskFailure(error.to_string()));
        }
        self.mirror().sync();
        Ok(())
    }

    fn sync_job(&mut self) -> io::Result<Option<SyncJob>> {
        let job = match self.log.sync_job() {
            Ok(job) => job,
            Err(error) => std::panic::panic_any(DiskFailure(error.to_string())),
        };
        if let Some(job) = &job {
            let mut mirror = self.mirror();
            let writes = mirror.writes;
            mirror.jobs.insert(job.sequence, writes);
        }
        Ok(job)
    }

    fn synced(&mut self, sequence: u64) -> io::Result<()> {
        if let Err(error) = self.log.synced(sequence) {
            std::panic::panic_any(DiskFailure(error.to_string()));
        }
        let mut mirror = self.mirror();
        let later = mirror.jobs.split_off(&(sequence + 1));
        if let Some((_, count)) = std::mem::replace(&mut mirror.jobs, later).pop_last() {
            mirror.sync_to(count);
        }
        Ok(())
    }

    fn pinning_groups(&self) -> Vec<RangeId> {
        self.log.pinning_groups()
    }

    fn rewrite(&mut self, group: RangeId, state: &GroupLog) {
        self.log.rewrite(group, state);
    }

    fn group_bytes(&self, group: RangeId) -> u64 {
        self.log.group_bytes(group)
    }

    fn total_bytes(&self) -> u64 {
        self.log.total_bytes()
    }
}
