//! Makes the survivor of a range that has lost its majority for good the range's only member.
//!
//! The majority's consent is what is lost, so this is no part of Raft: a person gives it in its
//! place, for a store that does not run. Nothing is rewritten. The log of the survivor gets the
//! entries by which the old members would have left, at its end and in a new term, and all of it
//! counts as committed. What the store then does is what any restarted store does: it applies what is
//! committed, and each step raises the range's epoch as ever.
//!
//! Invariants:
//! - The log's uncommitted tail is kept. What was acknowledged and reached the log is in it; it may
//!   also hold what was answered "outcome unknown", which takes effect now.
//! - Of several survivors the one whose log is most advanced ([`Position`]) holds every committed
//!   entry that any of them holds: by Raft's log matching and leader completeness.
//! - The others must not live on: with the lost ones, should these come back, they would be a
//!   majority of the old members. Their replicas get tombstones.
//!
//! Left out: a range that was being merged. Its fate is in two logs.

use crate::admin::conf_change::{changed, raft_change};
use crate::log::{GroupLog, RaftLog, Tombstone};
use crate::meta::Applied;
use crate::payload::{self, Payload};
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType};
use rangekv_proto::internal::admin_command::{Change, ChangeKind, ChangeReplicas};
use rangekv_proto::{RangeDescriptor, RangeId, Replica, ReplicaId, ReplicaRole, StoreId};
use rangekv_proto::{INITIAL_INDEX, INITIAL_TERM};
use std::collections::BTreeSet;

/// How advanced a log is, as Raft compares logs: by the term of the last entry, then its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// Term of the last entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A replica as a stopped store's disk has it.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The replica.
    pub id: ReplicaId,
    /// Its range as far as it has applied.
    pub descriptor: RangeDescriptor,
    /// How far that is.
    pub applied: Applied,
    /// It was part of a merge when it stopped.
    pub merging: bool,
    log: GroupLog,
    /// The log doesn't reach what is applied, as after a snapshot: it begins anew.
    anew: bool,
}

/// Why a range can't be recovered from a survivor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// See the module's page.
    #[error("range {0} was being merged with a neighbour, which its log alone can't decide")]
    Merging(RangeId),
    /// The log is damaged.
    #[error("range {range}: entry {index} of the log makes no sense: {why}")]
    Damaged {
        /// The range.
        range: RangeId,
        /// The entry.
        index: u64,
        /// What is wrong.
        why: String,
    },
    /// It is no member.
    #[error("replica {0} is no member of the range by its own log")]
    NoMember(ReplicaId),
}

impl Survivor {
    /// From what the log and the state of a store tell of a replica.
    pub fn new(
        id: ReplicaId,
        descriptor: RangeDescriptor,
        applied: Applied,
        merging: bool,
        log: Option<GroupLog>,
    ) -> Self {
        let mut log = log.unwrap_or_default();
        let at = applied.index.checked_sub(log.truncated_index + 1);
        let term = match applied.index == log.truncated_index {
            true => Some(log.truncated_term),
            false => at.and_then(|i| log.entries.get(i as usize)).map(|e| e.term),
        };
        // As the worker does when it starts over them.
        let anew = term != Some(applied.term);
        if anew {
            log.entries.clear();
            log.truncated_index = applied.index.max(INITIAL_INDEX);
            log.truncated_term = applied.term.max(INITIAL_TERM);
            log.hard_state.term = log.hard_state.term.max(log.truncated_term);
        }
        log.hard_state.commit = log.hard_state.commit.max(applied.index);
        Survivor {
            id,
            descriptor,
            applied,
            merging,
            log,
            anew,
        }
    }

    /// How advanced its log is.
    pub fn position(&self) -> Position {
        let last = self.log.entries.last();
        Position {
            term: last.map_or(self.log.truncated_term, |e| e.term),
            index: self.log.truncated_index + self.log.entries.len() as u64,
        }
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.log.hard_state.term
    }

    /// What it knows to be committed.
    pub fn commit(&self) -> u64 {
        self.log.hard_state.commit
    }

    /// Entries that it has and has not applied.
    pub fn tail(&self) -> impl Iterator<Item = &Entry> {
        let applied = self.applied.index;
        self.log.entries.iter().filter(move |e| e.index > applied)
    }

    /// Whether the range is cut in two by an entry that is not applied.
    pub fn splits(&self) -> bool {
        let split = |e: &Entry| matches!(decode(e), Ok(Some(Payload::Split(_))));
        self.tail().any(split)
    }

    /// The members once all of the log is applied.
    pub fn members(&self) -> Result<RangeDescriptor, Refusal> {
        self.members_at(u64::MAX)
    }

    /// The members by which it votes once it runs: what is committed is applied at its start, without
    /// asking anybody.
    pub fn committed_members(&self) -> Result<RangeDescriptor, Refusal> {
        self.members_at(self.commit())
    }

    fn members_at(&self, index: u64) -> Result<RangeDescriptor, Refusal> {
        let range = self.descriptor.id;
        let mut descriptor = self.descriptor.clone();
        for entry in self.tail().take_while(|e| e.index <= index) {
            let damaged = |why: String| Refusal::Damaged {
                range,
                index: entry.index,
                why,
            };
            if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
                let change = ChangeReplicas::decode(&entry.context[..]);
                let change = change.map_err(|e| damaged(e.to_string()))?;
                descriptor = changed(&descriptor, &change);
                continue;
            }
            match decode(entry).map_err(damaged)? {
                Some(Payload::Merge(_) | Payload::MergeCommit(_)) => {
                    return Err(Refusal::Merging(range))
                }
                Some(Payload::Data { .. } | Payload::Split(_)) | None => {}
            }
        }
        Ok(descriptor)
    }

    /// Stages the log by which this replica is the range's only member; `writes`, an encoded
    /// payload, is its last entry. Returns the members that it will then have.
    pub fn stand_alone(
        &self,
        log: &mut dyn RaftLog,
        writes: Option<Vec<u8>>,
    ) -> Result<RangeDescriptor, Refusal> {
        if self.merging {
            return Err(Refusal::Merging(self.descriptor.id));
        }
        let (changes, alone) = departures(&self.members()?, self.id)?;
        let position = self.position();
        let term = self.term().max(position.term) + 1;
        let mut entries = Vec::new();
        let mut next = |kind, data: Vec<u8>, context: Vec<u8>| {
            let mut entry = Entry {
                term,
                index: position.index + 1 + entries.len() as u64,
                data: data.into(),
                context: context.into(),
                ..Entry::default()
            };
            entry.set_entry_type(kind);
            entries.push(entry);
        };
        for change in changes {
            let raft = raft_change(&change).write_to_bytes();
            let raft = raft.expect("a message in memory is encoded");
            next(EntryType::EntryConfChangeV2, raft, change.encode_to_vec());
        }
        if let Some(writes) = writes {
            next(EntryType::EntryNormal, writes, Vec::new());
        }
        let mut hard_state = self.log.hard_state.clone();
        hard_state.term = term;
        // In this term it has voted for itself, and nobody else can win.
        hard_state.vote = self.id.0;
        hard_state.commit = position.index + entries.len() as u64;
        let range = self.descriptor.id;
        if self.anew {
            let (index, term) = (self.log.truncated_index, self.log.truncated_term);
            log.reset(range, index, term, &self.log.hard_state);
        }
        log.append(range, &entries);
        log.set_hard_state(range, &hard_state);
        Ok(alone)
    }

    /// Stages the end of this replica: another one was chosen.
    pub fn stand_down(&self, log: &mut dyn RaftLog) {
        let tombstone = Tombstone {
            replica: self.id,
            conf_version: self.descriptor.epoch.conf_version,
        };
        log.destroy(self.descriptor.id, tombstone);
    }
}

/// Whether those of `stores` can elect a leader of the range, or commit anything.
pub fn has_quorum(range: &RangeDescriptor, stores: &BTreeSet<StoreId>) -> bool {
    let joint = range.is_joint();
    let incoming = |r: &&Replica| matches!(r.role, ReplicaRole::Voter | ReplicaRole::IncomingVoter);
    let outgoing = |r: &&Replica| matches!(r.role, ReplicaRole::Voter | ReplicaRole::DemotingVoter);
    let majority = |voters: Vec<&Replica>| {
        let alive = voters.iter().filter(|r| stores.contains(&r.store));
        2 * alive.count() > voters.len()
    };
    majority(range.replicas.iter().filter(incoming).collect())
        && (!joint || majority(range.replicas.iter().filter(outgoing).collect()))
}

/// The membership changes after which `me` is the only member, and the range then.
fn departures(
    range: &RangeDescriptor,
    me: ReplicaId,
) -> Result<(Vec<ChangeReplicas>, RangeDescriptor), Refusal> {
    let (mut range, mut all) = (range.clone(), Vec::new());
    let mut step = |range: &mut RangeDescriptor, changes: Vec<Change>| {
        let change = ChangeReplicas {
            conf_version: range.epoch.conf_version,
            leave_joint: changes.is_empty(),
            changes,
        };
        *range = changed(range, &change);
        all.push(change);
    };
    let change = |kind: ChangeKind, replica: &Replica| Change {
        kind: kind as i32,
        replica: replica.id.0,
        store: replica.store.0,
    };
    if range.is_joint() {
        step(&mut range, Vec::new());
    }
    let mine = range.replicas.iter().find(|r| r.id == me);
    let mine = *mine.ok_or(Refusal::NoMember(me))?;
    let mut voters = Vec::new();
    if mine.role == ReplicaRole::Learner {
        voters.push(change(ChangeKind::Promote, &mine));
    }
    let others = range.replicas.iter().filter(|r| r.id != me);
    let others = others.filter(|r| r.role == ReplicaRole::Voter);
    voters.extend(others.map(|r| change(ChangeKind::Demote, r)));
    if !voters.is_empty() {
        step(&mut range, voters);
    }
    if range.is_joint() {
        step(&mut range, Vec::new());
    }
    let learners: Vec<Replica> = range
        .replicas
        .iter()
        .filter(|r| r.id != me)
        .copied()
        .collect();
    for learner in learners {
        step(
            &mut range,
            vec![change(ChangeKind::RemoveLearner, &learner)],
        );
    }
    assert!(
        range.replicas.len() == 1 && range.replicas[0].role == ReplicaRole::Voter,
        "{range:?} of replica {me} alone"
    );
    Ok((all, range))
}

/// What an entry that changes no members says; `None` = nothing.
fn decode(entry: &Entry) -> Result<Option<Payload>, String> {
    if entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
        return Ok(None);
    }
    let decoded = payload::decode(entry.data.clone());
    decoded.map(Some).map_err(|e| e.to_string())
}
