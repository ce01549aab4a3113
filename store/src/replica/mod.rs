//! One replica of one range: a raft group member, and, while it leads, the evaluator's overlay.
//!
//! The replica decides; the worker that owns it ([`crate::worker`]) moves its messages, log
//! writes and state writes. Files: [`evaluate`] (requests), [`reads`] (ReadIndex and lease),
//! [`apply`] (committed entries), [`ready`] (raft's Ready, step by step), [`quiesce`] (groups
//! without work), `election` (whose turn it is to campaign).
//!
//! Invariants:
//! - applied ≤ committed ≤ last index; none of them goes back while the process lives;
//! - the overlay and the pending replies are empty unless this replica leads;
//! - a pending reply's index lies in (applied, last index + 1].

pub mod apply;
mod beat;
mod election;
pub mod evaluate;
mod progress;
pub mod quiesce;
pub mod reads;
pub mod ready;

use crate::admin::merge::Drive;
use crate::config::Config;
use crate::engine::{Staged, StateEngine};
use crate::event::Now;
use crate::meta::{Applied, MergedInto, Merging};
use crate::metrics::{MessageDrop, Metrics, Refusal, Role};
use crate::overlay::Overlay;
use crate::shared::RangeCell;
use crate::storage::GroupStorage;
use crate::trace::Traces;
use crate::watch::Memory;
use crate::worker::Evaluators;
use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole};
use rangekv_proto::{
    Epoch, LeaderHint, RangeDescriptor, RangeId, ReplicaId, ReplySink, Request, RequestError,
    Response, StoreId,
};
use ready::{InReady, Unsynced};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The context of a vote request by which raft-rs says that the leader asked for it.
pub(crate) const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// A request and who waits for its response.
pub struct Waiter {
    /// What is asked.
    pub request: Request,
    /// Who asked.
    pub sink: Arc<dyn ReplySink>,
    /// Their name for it.
    pub token: u64,
}

impl Waiter {
    /// Answers.
    pub fn complete(self, response: Response) {
        self.sink.complete(self.token, response);
    }
}

/// A reply that waits for an entry to be applied.
pub struct Pending {
    index: u64,
    /// Whether the entry carries writes of this request, so that losing it leaves the outcome unknown.
    writes: bool,
    reply: Bytes,
    sink: Arc<dyn ReplySink>,
    token: u64,
}

/// Replies released by this round, to be sent once the state is written.
pub type Completions = Vec<(Arc<dyn ReplySink>, u64, Response)>;

/// A ReadIndex round on its way, or confirmed and waiting for its index to be applied.
pub struct ReadRound {
    context: Vec<u8>,
    sent_ns: u64,
    index: Option<u64>,
    /// What its answers saw must be applied up to here.
    seen: u64,
    reads: Vec<Held>,
}

/// A read that waits for a ReadIndex round.
pub(crate) struct Held {
    waiter: Waiter,
    /// The reply as evaluated when it arrived, and the newest entry that it saw; `None` = it is
    /// admitted again.
    answer: Option<(Bytes, u64)>,
}

/// An entry on its way to being applied.
struct Sent {
    index: u64,
    /// When its messages were made, monotonic ns.
    sent_ns: u64,
    /// When it was durable here, monotonic ns; `None` = not yet.
    durable_ns: Option<u64>,
}

/// What only a leader has.
pub struct Lead {
    /// The term in which this replica leads.
    pub term: u64,
    /// An entry of this term is applied: evaluation and leases may begin (E1).
    pub ready: bool,
    /// A MsgTimeoutNow may be on its way: no lease any more in this term.
    pub lease_forbidden: bool,
    /// Who is to lead as soon as all that was proposed is applied, and until when (monotonic ns)
    /// that is waited for.
    handover: Option<(ReplicaId, u64)>,
    /// Index of the newest entry proposed in this term; 0 = none.
    proposed: u64,
    /// Entries of this term that are not applied.
    sends: VecDeque<Sent>,
    /// Reads that wait for the next ReadIndex round.
    reads: Vec<Held>,
    rounds: VecDeque<ReadRound>,
    /// Last request, monotonic ns: an idle leader does not renew its lease.
    active_ns: u64,
    /// What the followers have heard.
    beat: beat::Beat,
    reads_seen: u64,
    /// A merge that this range drives.
    pub(crate) merge: Option<Drive>,
    /// Which of the watched keys were written.
    memory: Memory,
}

/// What a replica needs from its worker while it handles something.
pub struct Ctx<'a> {
    /// The time.
    pub now: Now,
    /// Settings.
    pub config: &'a Config,
    /// The state engine.
    pub engine: &'a Arc<dyn StateEngine>,
    /// The data models.
    pub evaluators: &'a Evaluators,
    /// Counters.
    pub metrics: &'a Metrics,
    /// No room for writes.
    pub disk_full: bool,
    /// Source of unique numbers: read contexts, seeds.
    pub counter: &'a mut u64,
    /// Replies that may leave at once.
    pub answers: &'a mut Completions,
    /// Traced requests.
    pub traces: &'a mut Traces,
}

impl Ctx<'_> {
    fn next(&mut self) -> u64 {
        *self.counter += 1;
        *self.counter
    }
}

/// See the module's documentation.
pub struct Replica {
    /// The range.
    pub range: RangeId,
    /// The raft peer id.
    pub id: ReplicaId,
    store: StoreId,
    /// The raft state machine.
    pub raw: RawNode<GroupStorage>,
    /// `None` while uninitialised: created by a message, waiting for a snapshot or a split.
    pub descriptor: Option<RangeDescriptor>,
    /// Including entries whose batch this round has yet to write.
    pub applied: Applied,
    /// What survives a crash, as last seen.
    pub durable_applied: u64,
    /// Somebody asked for the log to be collected, however short it is.
    pub compact_wanted: bool,
    /// Hybrid clock: never below a time by which this range has decided something (E10).
    clock_ms: u64,
    in_ready: Option<InReady>,
    cell: Arc<RangeCell>,
    metrics: Arc<Metrics>,
    overlay: Overlay,
    pending: VecDeque<Pending>,
    waiting: VecDeque<Waiter>,
    /// Index of a proposed split: nothing is proposed until it is applied (E3).
    barrier: Option<u64>,
    lead: Option<Lead>,
    /// Stores of replicas, from the descriptor and from messages received.
    peers: BTreeMap<ReplicaId, StoreId>,
    /// Messages that wait for the next sync.
    held: Vec<Message>,
    /// Readys that wait for a sync which no round waits for, oldest first.
    unsynced: VecDeque<Unsynced>,
    /// Messages that no longer wait for a sync. They go with the replica.
    unheld: Vec<Message>,
    staged: Option<(u64, Box<dyn Staged>)>,
    /// Ranges that were split off most recently, for those who still route by the old bounds.
    split_off: VecDeque<RangeDescriptor>,
    /// Committed entries behind the commit of a merge that waits for the other range.
    unapplied: VecDeque<Entry>,
    /// This range's part in a merge, as applied.
    pub(crate) merging: Option<Merging>,
    /// The merge that `merging` tells of is over for the other range as well.
    pub(crate) released: bool,
    /// Merges that were asked for, for the worker to begin.
    pub(crate) merges_asked: Vec<(Waiter, rangekv_proto::internal::admin_command::Merge)>,
    /// Ranges that the snapshot which raft holds has absorbed: this store's replicas of them are
    /// gone when it is installed.
    pub(crate) absorbed_by_snapshot: Vec<MergedInto>,
    /// An admin entry was applied between rounds: its commit must be durable before it is advertised.
    sync_first: bool,
    known: (StateRole, u64, u64),
    last_contact_ns: u64,
    promised_until_ns: u64,
    promise_ns: u64,
    /// In which term this replica voted for whom because the leader had asked that one to campaign:
    /// who leads next, in all likelihood.
    successor: Option<(u64, ReplicaId)>,
    /// It was told to campaign, and has not tried again of its own accord.
    first_campaign: bool,
    /// When it first campaigned since it last followed somebody, monotonic ns; `None` = not since.
    campaigned_ns: Option<u64>,
    /// When it campaigns next; see [`election`].
    turn: election::Turn,
    /// While uninitialised: the newest `conf_version` of which a member has said that this
    /// replica is one, too.
    member_at: u64,
    /// Not ticked; see [`quiesce`].
    quiesced: bool,
    /// Ticks since it was last quiesced, or made.
    awake_ticks: usize,
}

impl Replica {
    /// A replica over what recovery, a message, or initialisation found.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        range: RangeId,
        id: ReplicaId,
        storage: GroupStorage,
        descriptor: Option<RangeDescriptor>,
        cell: Arc<RangeCell>,
        metrics: Arc<Metrics>,
        config: &Config,
        election_ticks: usize,
        now: Now,
    ) -> Self {
        let applied = storage.applied;
        let raft_config = config.raft(id, applied.index);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw =
            RawNode::new(&raft_config, storage, &logger).expect("the raft configuration is valid");
        let known = (raw.raft.state, raw.raft.term, raw.raft.leader_id);
        let mut replica = Replica {
            range,
            id,
            store: config.store,
            raw,
            descriptor: None,
            applied,
            durable_applied: 0,
            compact_wanted: false,
            clock_ms: applied.clock_ms,
            in_ready: None,
            cell,
            metrics,
            overlay: Overlay::default(),
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            barrier: None,
            lead: None,
            peers: BTreeMap::new(),
            held: Vec::new(),
            unsynced: VecDeque::new(),
            unheld: Vec::new(),
            staged: None,
            split_off: VecDeque::new(),
            unapplied: VecDeque::new(),
            merging: None,
            released: false,
            merges_asked: Vec::new(),
            absorbed_by_snapshot: Vec::new(),
            sync_first: false,
            known,
            last_contact_ns: now.mono_ns,
            promised_until_ns: 0,
            promise_ns: config.promise_ns(),
            successor: None,
            first_campaign: false,
            campaigned_ns: None,
            turn: election::Turn::after(election_ticks),
            member_at: 0,
            quiesced: false,
            awake_ticks: 0,
        };
        if let Some(d) = descriptor {
            replica.set_descriptor(d);
        }
        replica
    }

    /// Adopts a descriptor: in memory, in raft's storage, and for local readers.
    pub fn set_descriptor(&mut self, d: RangeDescriptor) {
        if let Some(old) = &self.descriptor {
            assert!(
                d.epoch.conf_version >= old.epoch.conf_version
                    && d.epoch.version >= old.epoch.version,
                "epoch regression {:?} → {:?}",
                old.epoch,
                d.epoch
            );
        }
        for r in &d.replicas {
            self.peers.insert(r.id, r.store);
        }
        self.raw.mut_store().set_descriptor(d.clone());
        self.descriptor = Some(d);
        self.publish_route();
    }

    /// The published cell.
    pub fn cell(&self) -> &Arc<RangeCell> {
        &self.cell
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// What only a leader has.
    pub fn lead(&self) -> Option<&Lead> {
        self.lead.as_ref()
    }

    /// As [`lead`](Self::lead).
    pub(crate) fn lead_mut(&mut self) -> Option<&mut Lead> {
        self.lead.as_mut()
    }

    /// The store that this replica lives on.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Entries that are committed and wait to be applied.
    pub(crate) fn unapplied(&self) -> &VecDeque<Entry> {
        &self.unapplied
    }

    /// The hybrid clock never stands below `clock_ms` again.
    pub(crate) fn raise_clock(&mut self, clock_ms: u64) {
        self.applied.clock_ms = self.applied.clock_ms.max(clock_ms);
        self.clock_ms = self.clock_ms.max(clock_ms);
    }

    /// Answers the requests that wait with `error`: the range is no more.
    pub(crate) fn refuse_waiting(&mut self, error: &RequestError) {
        for w in self.waiting.drain(..) {
            w.complete(Err(error.clone()));
        }
    }

    /// Who leads, as far as this replica knows.
    pub fn leader_hint(&self) -> Option<LeaderHint> {
        let id = ReplicaId(self.raw.raft.leader_id);
        let store = if id == self.id {
            self.store
        } else {
            *self.peers.get(&id)?
        };
        Some(LeaderHint {
            store,
            term: self.raw.raft.term,
        })
    }

    /// The store of a replica, if known.
    pub fn store_of(&self, replica: ReplicaId) -> Option<StoreId> {
        self.peers.get(&replica).copied()
    }

    /// The epoch of the descriptor. While there is none: the newest `conf_version` at which this
    /// replica is known to have been a member, so that it can be told when it is one no longer.
    pub fn epoch(&self) -> Epoch {
        match &self.descriptor {
            Some(d) => d.epoch,
            None => Epoch {
                conf_version: self.member_at,
                version: 0,
            },
        }
    }

    /// A member at `conf_version` sent this replica a message.
    pub fn seen_as_member(&mut self, conf_version: u64) {
        self.member_at = self.member_at.max(conf_version);
    }

    /// A transfer of the leadership that waits for what was proposed; see
    /// [`continue_handover`](Self::continue_handover).
    pub(crate) fn handover(&self) -> Option<(ReplicaId, u64)> {
        self.lead.as_ref()?.handover
    }

    pub(crate) fn hand_over_to(&mut self, target: ReplicaId, until_ns: u64) {
        if let Some(lead) = self.lead.as_mut() {
            lead.handover = Some((target, until_ns));
        }
    }

    pub(crate) fn end_handover(&mut self) {
        if let Some(lead) = self.lead.as_mut() {
            lead.handover = None;
        }
    }

    /// The other members, or, while uninitialised, the replicas heard of.
    pub fn others(&self) -> Vec<(ReplicaId, StoreId)> {
        let all: Vec<(ReplicaId, StoreId)> = match &self.descriptor {
            Some(d) => d.replicas.iter().map(|r| (r.id, r.store)).collect(),
            None => self.peers.iter().map(|(id, store)| (*id, *store)).collect(),
        };
        all.into_iter().filter(|(id, _)| *id != self.id).collect()
    }

    /// Remembers where a replica lives, from a message of it.
    pub fn learn_peer(&mut self, replica: ReplicaId, store: StoreId) {
        self.peers.entry(replica).or_insert(store);
    }

    fn publish_route(&self) {
        if let Some(d) = &self.descriptor {
            self.cell.set_route(d, self.leader_hint());
        }
    }

    /// Remembers a range that was split off.
    pub(crate) fn remember_split(&mut self, right: RangeDescriptor) {
        const REMEMBERED: usize = 4;
        self.split_off.push_front(right);
        self.split_off.truncate(REMEMBERED);
    }

    fn epoch_error(&self, descriptor: &RangeDescriptor) -> RequestError {
        let current = std::iter::once(descriptor)
            .chain(&self.split_off)
            .cloned()
            .collect();
        RequestError::EpochNotMatch { current }
    }

    /// Answers that the request is not carried out.
    fn refuse(&self, waiter: Waiter, reason: Refusal, error: RequestError) {
        self.metrics.refused.of(reason).increment();
        waiter.complete(Err(error));
    }

    fn not_leader(&self) -> RequestError {
        let leader = self
            .leader_hint()
            .filter(|h| h.store != self.store || self.is_leader())
            .or_else(|| self.successor_hint());
        RequestError::NotLeader {
            range: self.range,
            leader,
        }
    }

    /// Who is about to lead because the leader has handed over, while nobody leads yet. Requests
    /// may go there at once, in its term: until its election is decided it lets them wait
    /// ([`campaigns`](Self::campaigns)).
    fn successor_hint(&self) -> Option<LeaderHint> {
        let raft = &self.raw.raft;
        let (term, id) = self.successor?;
        let current = (raft.term, raft.vote, raft.leader_id) == (term, id.0, raft::INVALID_ID);
        let store = self.store_of(id).filter(|_| current)?;
        Some(LeaderHint { store, term })
    }

    /// Whether this replica stands for election, in a term that is its own, or has just been split
    /// off by a leader and is to lead: requests wait for the outcome. Who has named it as the next
    /// leader had voted for it in that term, so that none of them comes before it stands, and none
    /// is refused that one behind it could overtake.
    fn campaigns(&self) -> bool {
        match self.raw.raft.state {
            StateRole::Candidate => true,
            StateRole::PreCandidate => self.first_campaign,
            _ => false,
        }
    }

    /// An election that requests waited for is lost, or has to be repeated.
    fn refuse_unelected(&mut self) {
        if self.lead.is_none() && !self.campaigns() && !self.waiting.is_empty() {
            let error = self.not_leader();
            let refused = self.metrics.refused.of(Refusal::NotLeader);
            refused.add(self.waiting.len() as u64);
            self.refuse_waiting(&error);
        }
    }

    /// Hands a raft message to raft. What raft refuses (an unknown peer's response) is dropped.
    pub fn step(&mut self, now: Now, message: Message) {
        let (kind, from, term) = (message.get_msg_type(), message.from, message.term);
        if kind == MessageType::MsgRequestVote && message.context[..] == *CAMPAIGN_TRANSFER {
            self.successor = Some((term, ReplicaId(from)));
        }
        if let Err(e) = self.raw.step(message) {
            let drops = &self.metrics.messages_dropped;
            drops.of(MessageDrop::Raft).increment();
            tracing::debug!(range = self.range.0, ?kind, %e, "raft dropped a message");
        }
        let campaigns = matches!(
            self.raw.raft.state,
            StateRole::Candidate | StateRole::Leader
        );
        if kind == MessageType::MsgTimeoutNow && campaigns {
            self.note_campaign(now);
        }
        if matches!(
            kind,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        ) {
            self.last_contact_ns = now.mono_ns;
            if (self.raw.raft.term, self.raw.raft.leader_id) == (term, from) {
                self.promised_until_ns = now.mono_ns + self.promise_ns;
            }
        }
        self.after_step(now);
    }

    /// Whether this replica has promised a leader not to vote for another one yet, by
    /// acknowledging what may renew its lease. raft keeps this promise only while it
    /// remembers the leader, and forgets it at any message with a higher term: a late refusal
    /// of a pre-vote will do.
    pub fn has_promised(&self, now: Now) -> bool {
        now.mono_ns < self.promised_until_ns
    }

    /// One raft tick. When a replica that has lost its leader campaigns, `draw` helps to decide
    /// (see `election`); not while it has promised to begin no election.
    pub fn tick(&mut self, now: Now, draw: &mut dyn FnMut() -> usize) {
        assert!(!self.quiesced, "range {}: quiesced, and ticked", self.range);
        self.awake_ticks += 1;
        self.continue_handover(now);
        if self.is_leader() {
            self.tick_leader();
        } else if self.hears_leader() {
            self.turn = election::Turn::default();
            self.raw.tick();
        } else {
            self.wait_for_turn(now, draw);
        }
        self.after_step(now);
    }

    /// Begins an election at once, which nobody should have a reason to lose: requests wait for it.
    pub fn campaign(&mut self, now: Now) {
        self.first_campaign = true;
        if self.raw.campaign().is_ok() {
            self.note_campaign(now);
            self.after_step(now);
        }
    }

    /// Counts an election that it has begun.
    pub fn note_campaign(&mut self, now: Now) {
        self.metrics.elections_started.increment();
        self.campaigned_ns.get_or_insert(now.mono_ns);
    }

    /// Notices a change of role, term or leader. Called after everything that may cause one,
    /// before anything else is evaluated or sent.
    pub fn after_step(&mut self, now: Now) {
        let raft = &self.raw.raft;
        let is = (raft.state, raft.term, raft.leader_id);
        if is == self.known {
            return;
        }
        let was = std::mem::replace(&mut self.known, is);
        if is.0 != was.0 {
            let role = match is.0 {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            };
            self.metrics.roles.of(role).increment();
        }
        if is.1 != was.1 && is.0 == StateRole::Follower {
            self.turn.pass();
        }
        if matches!(is.0, StateRole::Follower | StateRole::Leader) {
            self.first_campaign = false;
        }
        if is.0 == StateRole::Follower && is.2 != raft::INVALID_ID {
            self.campaigned_ns = None;
        }
        let lost = was.0 == StateRole::Leader && (is.0 != StateRole::Leader || is.1 != was.1);
        if lost {
            self.step_down();
        } else if is.0 != StateRole::Leader {
            self.refuse_unelected();
        }
        match is.0 {
            StateRole::Leader if was.0 != StateRole::Leader || lost => {
                tracing::info!(
                    group = self.range.0,
                    term = is.1,
                    node = self.store.0,
                    "becoming leader"
                );
                assert!(
                    self.overlay.is_empty() && self.pending.is_empty(),
                    "a new leader starts from nothing"
                );
                self.lead = Some(Lead {
                    term: is.1,
                    ready: false,
                    lease_forbidden: false,
                    handover: None,
                    proposed: 0,
                    sends: VecDeque::new(),
                    reads: Vec::new(),
                    rounds: VecDeque::new(),
                    active_ns: now.mono_ns,
                    beat: beat::Beat::default(),
                    reads_seen: 0,
                    merge: None,
                    memory: Memory::default(),
                });
            }
            StateRole::PreCandidate if was.0 != StateRole::PreCandidate => {
                tracing::info!(
                    group = self.range.0,
                    term = is.1,
                    node = self.store.0,
                    "starting election"
                );
            }
            _ => {}
        }
        self.publish_route();
    }

    /// Leadership is lost: the lease ends first, then everything that only a leader may hold is
    /// answered. Entries that were proposed may still commit (E5).
    fn step_down(&mut self) {
        self.cell.clear_lease();
        self.overlay.clear();
        self.barrier = None;
        self.raw.store().forget_snapshots();
        let (term, proposed) = self.lead.as_ref().map_or((0, 0), |l| (l.term, l.proposed));
        tracing::info!(
            group = self.range.0,
            term,
            node = self.store.0,
            "no longer leader"
        );
        let error = self.not_leader();
        let refused = &self.metrics.refused;
        for p in self.pending.drain(..) {
            let response = if p.writes && p.index <= proposed {
                refused.of(Refusal::OutcomeUnknown).increment();
                Err(RequestError::OutcomeUnknown(format!(
                    "range {} lost its leader while the write was being replicated",
                    self.range
                )))
            } else {
                refused.of(Refusal::LeadershipLost).increment();
                Err(error.clone())
            };
            p.sink.complete(p.token, response);
        }
        let mut waiters: Vec<Waiter> = self.waiting.drain(..).collect();
        waiters.extend(self.merges_asked.drain(..).map(|(waiter, _)| waiter));
        if let Some(mut lead) = self.lead.take() {
            if let Some(drive) = lead.merge.take() {
                drive.abandon(self.range);
            }
            let rounds = lead.rounds.into_iter().flat_map(|r| r.reads);
            waiters.extend(rounds.chain(lead.reads).map(|held| held.waiter));
        }
        let lost = refused.of(Refusal::LeadershipLost);
        lost.add(waiters.len() as u64);
        for w in waiters {
            w.complete(Err(error.clone()));
        }
    }

    /// The replica is being destroyed: nobody gets an answer from it any more.
    pub fn abandon(&mut self) {
        if self.lead.is_some() {
            self.step_down();
        }
        let range = self.range;
        for w in self.waiting.drain(..) {
            w.complete(Err(RequestError::NotLeader {
                range,
                leader: None,
            }));
        }
    }

    /// Keeps a received snapshot's records until raft accepts its message.
    pub fn stage(&mut self, index: u64, staged: Box<dyn Staged>) {
        self.staged = Some((index, staged));
    }

    /// Drops staged records that raft did not accept.
    pub fn drop_unaccepted_snapshot(&mut self) {
        if self.raw.snap().is_none() {
            self.staged = None;
        }
    }

    /// Monotonic ns of the last message from a leader.
    pub fn last_contact_ns(&self) -> u64 {
        self.last_contact_ns
    }

    /// Asserts what must hold between rounds. Cheap enough for every event of a simulation.
    pub fn check_invariants(&self) {
        let log = &self.raw.raft.raft_log;
        let (applied, committed, last) = (self.applied.index, log.committed, log.last_index());
        assert!(
            applied <= committed,
            "range {}: applied {applied} > committed {committed}",
            self.range
        );
        assert!(
            committed <= last,
            "range {}: committed {committed} > last {last}",
            self.range
        );
        assert!(
            self.raw.store().truncated().0 <= applied,
            "range {}: log compacted to {} beyond applied {applied}",
            self.range,
            self.raw.store().truncated().0
        );
        if self.lead.is_none() {
            assert!(
                self.overlay.is_empty(),
                "range {}: overlay without leadership",
                self.range
            );
            assert!(
                self.pending.is_empty(),
                "range {}: pending replies without leadership",
                self.range
            );
            assert!(
                self.waiting.is_empty() || self.campaigns(),
                "range {}: requests wait for nothing",
                self.range
            );
        }
        if let Some(p) = self.pending.front() {
            assert!(
                p.index > applied,
                "range {}: reply for applied entry {} kept",
                self.range,
                p.index
            );
        }
        if let Some(p) = self.pending.back() {
            assert!(
                p.index <= last + 1,
                "range {}: reply waits for entry {} beyond {last}",
                self.range,
                p.index
            );
        }
        if let Some(min) = self.overlay.min_index() {
            assert!(
                min > applied,
                "range {}: overlay record of applied entry {min}",
                self.range
            );
        }
        self.check_quiesced();
        if let Some(d) = &self.descriptor {
            assert!(
                self.cell.version() == d.epoch.version,
                "range {}: published version differs",
                self.range
            );
        }
    }
}
