//! What must hold across the cluster at every moment. Each check is incremental: it looks at
//! what has just changed on one store.
//!
//! - At most one leader per range and term (election safety).
//! - The entry applied at an index of a range is the same on all replicas (state machine safety).
//! - Term, commit and applied index of a replica never go back while its process lives; term
//!   and vote not even across a crash, which follows from the next one.
//! - What a message claims is durable when the message leaves: the term in which it is sent,
//!   the vote that it grants, the entries that it acknowledges (Raft §5.1, Fig. 2).
//! - No message advertises a commit index beyond what its sender has applied (I1).
//! - A range that is frozen for a merge has no lease.
//! - At any true time at most one store may answer reads of a key without asking others.

use crate::clock::Clock;
use crate::log::{EntryHash, Mirror};
use crate::schedule::Time;
use bytes::Bytes;
use raft::eraftpb::MessageType;
use rangekv_proto::{RangeId, ReplicaId, INITIAL_INDEX, PLACEMENT_RANGE};
use rangekv_store::event::Now;
use rangekv_store::meta::Merging;
use rangekv_store::shared::StoreShared;
use rangekv_store::wire::{Envelope, Payload};
use rangekv_store::worker::GroupView;
use std::collections::BTreeMap;

/// What was seen of a replica when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    replica: ReplicaId,
    term: u64,
    committed: u64,
    applied: u64,
    is_leader: bool,
    quiesced: bool,
}

#[derive(Clone, Debug)]
struct Lease {
    until: Time,
    start: Bytes,
    end: Bytes,
    range: RangeId,
}

/// Applied entries of a range, from the first index after the initial one.
#[derive(Default)]
struct AppliedLog {
    entries: BTreeMap<u64, EntryHash>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Checks {
    leaders: BTreeMap<(RangeId, u64), ReplicaId>,
    /// The placement driver's terms, and when each was seen to begin.
    placement_terms: BTreeMap<u64, Time>,
    applied: BTreeMap<RangeId, AppliedLog>,
    seen: Vec<BTreeMap<RangeId, Seen>>,
    leases: Vec<Vec<Lease>>,
    /// Elections seen.
    pub elections: u64,
    /// Entries compared on at least two replicas.
    pub compared: u64,
    /// Leaders seen to have quiesced their groups.
    pub quiesced: u64,
    /// Replicas seen to have woken.
    pub woken: u64,
}

/// What changed on a store, for the event hash.
pub struct Changed {
    /// The range.
    pub range: RangeId,
    /// Term, commit and applied index.
    pub position: (u64, u64, u64),
    /// Whether it leads now.
    pub is_leader: bool,
}

impl Checks {
    /// One more store.
    pub fn add_node(&mut self) {
        self.seen.push(BTreeMap::new());
        self.leases.push(Vec::new());
    }

    /// The process of a store is gone, and with it its leases.
    pub fn crashed(&mut self, node: usize) {
        self.seen[node].clear();
        self.leases[node].clear();
    }

    /// Looks at a store after something happened there.
    #[allow(clippy::too_many_arguments)]
    pub fn observe(
        &mut self,
        node: usize,
        now: Time,
        groups: &[GroupView],
        mirror: &Mirror,
        clock: &Clock,
        shared: &StoreShared,
        changed: &mut Vec<Changed>,
    ) -> Result<(), String> {
        for group in groups {
            let is = Seen {
                replica: group.replica,
                term: group.term,
                committed: group.committed,
                applied: group.applied.0,
                is_leader: group.is_leader,
                quiesced: group.quiesced,
            };
            let was = self.seen[node].insert(group.range, is);
            if was == Some(is) {
                continue;
            }
            changed.push(Changed {
                range: group.range,
                position: (is.term, is.committed, is.applied),
                is_leader: is.is_leader,
            });
            let was = was.filter(|was| was.replica == is.replica);
            let was_quiesced = was.is_some_and(|was| was.quiesced);
            self.quiesced += u64::from(is.is_leader && is.quiesced && !was_quiesced);
            self.woken += u64::from(was_quiesced && !is.quiesced);
            if let Some(was) = was {
                if is.term < was.term || is.committed < was.committed || is.applied < was.applied {
                    return Err(format!(
                        "node {node} {} went back in range {}: {was:?} → {is:?}",
                        is.replica, group.range
                    ));
                }
            }
            if is.is_leader {
                self.check_leader(group)?;
                if group.range == PLACEMENT_RANGE {
                    self.placement_terms.entry(group.term).or_insert(now);
                }
            }
            // What was applied before this process began was compared then.
            let before = was.map_or(is.applied, |was| was.applied);
            self.compare_applied(node, group, mirror, before)?;
        }
        if self.seen[node].len() > groups.len() {
            self.seen[node].retain(|range, _| groups.iter().any(|g| g.range == *range));
        }
        self.check_leases(node, now, groups, clock, shared)
    }

    /// The term after `term` in which the placement driver got another leader, and when.
    pub fn succeeded(&self, range: RangeId, term: u64) -> Option<(u64, Time)> {
        assert_eq!(range, PLACEMENT_RANGE, "no other range's terms are kept");
        let mut later = self.placement_terms.range(term + 1..);
        later.next().map(|(term, at)| (*term, *at))
    }

    fn check_leader(&mut self, group: &GroupView) -> Result<(), String> {
        let first = self
            .leaders
            .entry((group.range, group.term))
            .or_insert_with(|| {
                self.elections += 1;
                group.replica
            });
        if *first != group.replica {
            return Err(format!(
                "two leaders of range {} in term {}: replicas {first} and {}",
                group.range, group.term, group.replica
            ));
        }
        Ok(())
    }

    fn compare_applied(
        &mut self,
        node: usize,
        group: &GroupView,
        mirror: &Mirror,
        before: u64,
    ) -> Result<(), String> {
        let Some(log) = mirror.written.get(&group.range) else {
            return Ok(());
        };
        let applied = self.applied.entry(group.range).or_default();
        for index in before.max(INITIAL_INDEX) + 1..=group.applied.0 {
            let Some(entry) = log.entry(index) else {
                continue;
            };
            match applied.entries.get(&index) {
                None => {
                    applied.entries.insert(index, entry);
                }
                Some(other) if *other == entry => self.compared += 1,
                Some(other) => {
                    return Err(format!(
                        "node {node} applied another entry {index} of range {} than others: \
                         (term, hash) {entry:x?} instead of {other:x?}",
                        group.range
                    ));
                }
            }
        }
        Ok(())
    }

    /// A lease that begins or is extended must not overlap, in true time and in keys, with
    /// one of another store.
    fn check_leases(
        &mut self,
        node: usize,
        now: Time,
        groups: &[GroupView],
        clock: &Clock,
        shared: &StoreShared,
    ) -> Result<(), String> {
        self.leases[node].clear();
        for group in groups.iter().filter(|g| g.descriptor.is_some()) {
            let Some(cell) = shared.cell(group.range) else {
                continue;
            };
            let until = cell.lease_until_ns();
            if until == 0 || clock.when(until) <= now {
                continue;
            }
            if let Some(Merging::Frozen { .. }) = group.merging {
                return Err(format!(
                    "node {node} has a lease on range {}, which is frozen",
                    group.range
                ));
            }
            let descriptor = group.descriptor.as_ref().expect("filtered");
            let lease = Lease {
                until: clock.when(until),
                start: descriptor.start.clone(),
                end: descriptor.end.clone(),
                range: group.range,
            };
            for (other, leases) in self
                .leases
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != node)
            {
                let overlap = leases.iter().find(|l| {
                    l.until > now
                        && (l.end.is_empty() || lease.start < l.end)
                        && (lease.end.is_empty() || l.start < lease.end)
                });
                if let Some(l) = overlap {
                    return Err(format!(
                        "two leases at once: node {node} on range {} until {} ns, node {other} on range {} \
                         until {} ns",
                        lease.range, lease.until, l.range, l.until
                    ));
                }
            }
            self.leases[node].push(lease);
        }
        Ok(())
    }
}

/// Checks that what a message claims is durable, as it leaves its store.
pub fn check_departure(
    envelope: &Envelope,
    mirror: &Mirror,
    applied: Option<u64>,
) -> Result<(), String> {
    let Payload::Raft(message) = &envelope.payload else {
        return Ok(());
    };
    let kind = message.get_msg_type();
    if matches!(
        kind,
        MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse
    ) {
        // Promises nothing; carries a term that nobody has.
        return Ok(());
    }
    let range = envelope.range;
    let nothing = Default::default();
    let log = mirror.durable.get(&range).unwrap_or(&nothing);
    let complain = |what: String| {
        Err(format!(
            "range {range}: {kind:?} of replica {} to {} in term {} leaves, but {what}",
            envelope.from, envelope.to, message.term
        ))
    };
    // A message that only refuses may carry term 0.
    if log.term < message.term {
        return complain(format!("the term on disk is {}", log.term));
    }
    match kind {
        MessageType::MsgRequestVote if log.term == message.term && log.vote != envelope.from.0 => {
            complain(format!("the vote on disk is for {}", log.vote))
        }
        MessageType::MsgRequestVoteResponse
            if !message.reject && log.term == message.term && log.vote != envelope.to.0 =>
        {
            complain(format!("the vote on disk is for {}", log.vote))
        }
        // What a range begins with comes from the log of the range that it was split off.
        MessageType::MsgAppendResponse
            if !message.reject
                && log.term == message.term
                && log.last().max(INITIAL_INDEX) < message.index =>
        {
            complain(format!(
                "the log on disk ends at {} before {}",
                log.last(),
                message.index
            ))
        }
        MessageType::MsgAppend | MessageType::MsgHeartbeat => match applied {
            Some(applied) if message.commit > applied => complain(format!(
                "advertises commit {} beyond applied {applied} (I1)",
                message.commit
            )),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The time on a machine, for messages.
pub fn show(now: Now) -> String {
    format!(
        "{}.{:03} s",
        now.mono_ns / 1_000_000_000,
        now.mono_ns / 1_000_000 % 1_000
    )
}
