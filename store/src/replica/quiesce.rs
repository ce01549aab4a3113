//! Quiescence: a group without work costs nothing. Its leader sends no heartbeats, its
//! followers' election clocks stand still, nobody is ticked.
//!
//! A leader quiesces its group once nothing has been asked of it for a while, all of its log is
//! applied, and all replicas on stores that are heard of have all of it, a quorum among them. It
//! says so once to each ("quiesce at this term and index") and waits for no answer: a follower
//! that misses it, or is elsewhere, goes on ticking, campaigns, and by that wakes the others.
//!
//! What a quiesced follower's election clock would show is how long the *store* of its leader has
//! been silent ([`crate::worker`] counts that, in ticks). So when that store falls silent for an
//! election timeout, all followers of its leaders wake with expired clocks, and campaign in turn
//! (`election`). A replica that was down keeps nobody awake; when its store is heard
//! again, the leaders of its groups wake.
//!
//! Everything else that concerns the group wakes a replica: messages, requests, membership.
//! Acknowledgements that change nothing do not, else the last heartbeats' echo would.
//!
//! Invariants:
//! - a quiesced leader has nothing in flight, and all of its log is applied;
//! - a quiesced follower knows a leader, and all of its log is committed;
//! - no lease is renewed while quiesced: the first read after an idle time takes a ReadIndex round;
//! - nobody campaigns within its promise to a leader, however its clock was set.

use super::{Lead, Replica};
use crate::bugs::{self, Bug};
use crate::config::Config;
use crate::event::Now;
use crate::wire::{Envelope, Payload};
use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, StateRole};
use rangekv_proto::{ReplicaId, StoreId};

/// Where a leader quiesces its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietAt {
    /// The leader's term.
    pub term: u64,
    /// Last index of the log, committed and applied by the leader.
    pub index: u64,
    /// Term of that entry.
    pub log_term: u64,
}

impl Replica {
    /// Whether this replica is quiesced.
    pub fn is_quiesced(&self) -> bool {
        self.quiesced
    }

    /// The leader's store, as this replica knows; `None` if it leads, or knows no leader.
    pub fn leader_store(&self) -> Option<StoreId> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        (leader != self.id)
            .then(|| self.peers.get(&leader).copied())
            .flatten()
    }

    /// Whether this leader may quiesce its group; `is_live`: whether a store is heard of.
    pub fn may_quiesce(
        &self,
        now: Now,
        config: &Config,
        is_live: &dyn Fn(StoreId) -> bool,
    ) -> bool {
        let Some(lead) = &self.lead else {
            return false;
        };
        // From wake to sleep at least one heartbeat goes out, and its echo comes back.
        let idle = now.mono_ns >= lead.active_ns + config.idle_ns()
            && self.awake_ticks > 2 * config.heartbeat_ticks;
        if self.quiesced || !idle || !lead.ready || !self.has_nothing_in_flight() {
            return false;
        }
        let Some(d) = &self.descriptor else {
            return false;
        };
        let last = self.raw.raft.raft_log.last_index();
        let mut live: Vec<u64> = vec![self.id.0];
        for (id, progress) in self.raw.raft.prs().iter() {
            let store = self.peers.get(&ReplicaId(*id)).copied();
            if *id == self.id.0 || !store.is_some_and(is_live) {
                continue;
            }
            if progress.matched != last || progress.state == ProgressState::Snapshot {
                return false;
            }
            live.push(*id);
        }
        !d.is_joint() && !self.must_hand_over() && !self.is_pinned() && self.is_quorum(&live)
    }

    /// Whether, on stores that are heard of, there is a quorum of this group's voters.
    pub fn has_live_quorum(&self, is_live: &dyn Fn(StoreId) -> bool) -> bool {
        let is_live = |id: &ReplicaId| {
            *id == self.id || self.peers.get(id).is_some_and(|store| is_live(*store))
        };
        let ids = self.peers.keys().filter(|id| is_live(id));
        self.is_quorum(&ids.map(|id| id.0).collect::<Vec<_>>())
    }

    fn is_quorum(&self, ids: &[u64]) -> bool {
        let ids = ids.iter().copied().collect();
        self.raw.raft.prs().has_quorum(&ids)
    }

    /// Everything that was asked of this leader is answered, and all of its log is applied.
    fn has_nothing_in_flight(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let last = log.last_index();
        let lead_is_idle = self
            .lead
            .as_ref()
            .is_some_and(|l| l.sends.is_empty() && l.reads.is_empty() && l.rounds.is_empty());
        lead_is_idle
            && (self.applied.index, log.committed) == (last, last)
            && self.overlay.is_empty()
            && self.pending.is_empty()
            && self.waiting.is_empty()
            && self.merges_asked.is_empty()
            && self.held.is_empty()
            && self.unsynced.is_empty()
            && self.unheld.is_empty()
            && self.barrier.is_none()
            && self.raw.raft.lead_transferee.is_none()
            && !self.raw.raft.has_pending_conf()
            && !self.raw.has_ready()
    }

    /// Quiesces the group: what to tell the other replicas, of those that are heard of.
    pub fn quiesce(&mut self, is_live: &dyn Fn(StoreId) -> bool) -> Vec<(StoreId, Envelope)> {
        let log = &self.raw.raft.raft_log;
        let at = QuietAt {
            term: self.raw.raft.term,
            index: log.last_index(),
            log_term: log.last_term(),
        };
        self.quiesced = true;
        let others = self.others().into_iter();
        others
            .filter(|(_, store)| is_live(*store))
            .map(|(to, store)| (store, self.say(to, Payload::Quiesce(at))))
            .collect()
    }

    /// The leader `from` has quiesced the group: whether this replica now has, too.
    pub fn quiesce_as_told(&mut self, now: Now, from: ReplicaId, at: QuietAt) -> bool {
        let raft = &mut self.raw.raft;
        let log = &raft.raft_log;
        let follows = raft.state == StateRole::Follower
            && (raft.term, raft.leader_id) == (at.term, from.0)
            && self.descriptor.is_some();
        // The same last entry: the whole log is the leader's (Raft §5.3).
        if !follows || (log.last_index(), log.last_term()) != (at.index, at.log_term) {
            return false;
        }
        raft.raft_log.commit_to(at.index);
        raft.election_elapsed = 0;
        self.turn = Default::default();
        self.last_contact_ns = now.mono_ns;
        self.quiesced = true;
        true
    }

    /// Whether a message wakes this quiesced replica before it is stepped. A leader is not woken by
    /// what only acknowledges; if that gives it something to do, it wakes afterwards.
    pub fn is_woken_by(&self, message: &Message) -> bool {
        let acknowledges = matches!(
            message.get_msg_type(),
            MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse
        );
        !(self.is_leader() && acknowledges)
    }

    /// Whether this quiesced replica was asked for something just now as a leader, has something
    /// to do as one, or is one no longer.
    pub fn is_disturbed(&self, now: Now) -> bool {
        let asked = |l: &Lead| l.active_ns == now.mono_ns;
        let busy = self.lead.as_ref().is_some_and(asked) || self.has_work();
        self.quiesced && (self.raw.raft.leader_id == 0 || self.is_leader() && busy)
    }

    /// Goes on ticking. A follower's election clock shows `elapsed_ticks`; a leader sends
    /// heartbeats, and has a whole election timeout to hear a quorum.
    pub fn wake(&mut self, now: Now, elapsed_ticks: usize) {
        self.quiesced = false;
        self.awake_ticks = 0;
        if self.is_leader() {
            self.raw.raft.election_elapsed = 0;
            self.heartbeat();
        } else {
            let expired = self.raw.raft.election_timeout();
            self.raw.raft.election_elapsed = elapsed_ticks.min(expired);
            self.last_contact_ns = now.mono_ns;
        }
    }

    /// The leader's store was last heard at `heard_ns`, which stands for the leader.
    pub fn heard_leader(&mut self, heard_ns: u64) {
        if self.quiesced && !self.is_leader() {
            self.last_contact_ns = self.last_contact_ns.max(heard_ns);
        }
    }

    /// An envelope to another replica of the group.
    pub(crate) fn say(&self, to: ReplicaId, payload: Payload) -> Envelope {
        Envelope {
            range: self.range,
            from: self.id,
            to,
            epoch: self.epoch(),
            bounds: None,
            payload,
        }
    }

    /// The planted bug: acknowledgements between stores, of which a leader knows nothing, count
    /// as promises of its group's replicas.
    pub fn pretend_lease(&mut self, now: Now, config: &Config) {
        let ready = self
            .lead
            .as_ref()
            .is_some_and(|l| l.ready && !l.lease_forbidden);
        if bugs::active(Bug::LeaseWhileQuiesced) && self.quiesced && ready {
            self.cell.extend_lease(now.mono_ns + config.lease_ns());
        }
    }

    /// See the invariants above.
    pub(super) fn check_quiesced(&self) {
        if !self.quiesced {
            return;
        }
        let (range, log) = (self.range, &self.raw.raft.raft_log);
        if self.is_leader() {
            assert!(
                self.has_nothing_in_flight(),
                "range {range}: a quiesced leader with work: applied {}, committed {}, last {}, \
                 lead {:?}, overlay {}, pending {}, waiting {}, held {}, ready {}",
                self.applied.index,
                log.committed,
                log.last_index(),
                self.lead
                    .as_ref()
                    .map(|l| (l.sends.len(), l.reads.len(), l.rounds.len())),
                self.overlay.is_empty(),
                self.pending.len(),
                self.waiting.len(),
                self.held.len(),
                self.raw.has_ready()
            );
        } else {
            assert!(
                self.raw.raft.state == StateRole::Follower && self.raw.raft.leader_id != 0,
                "range {range}: quiesced as {:?} of leader {}",
                self.raw.raft.state,
                self.raw.raft.leader_id
            );
            assert_eq!(
                log.committed,
                log.last_index(),
                "range {range}: quiesced below the end of the log"
            );
        }
    }
}
