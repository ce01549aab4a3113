//! Which replicas are awake, and the stores whose silence wakes the others.
//!
//! Per store that this one shares a range with: how many ticks ago anything was heard of it. Any
//! frame counts; so that there is one, an empty keepalive goes to each of them at an interval
//! ([`Config::keepalive_ms`](crate::config::Config::keepalive_ms)). After an election timeout's
//! worth of ticks the store counts as silent. Ticks never come in bursts, so a process that was
//! stopped does not take everybody for dead when it goes on.
//!
//! Why the followers that then wake with expired election clocks break no promise: a promise lasts
//! one tick less than an election timeout after a *heard* message, and the silence began no sooner
//! than that message. (It is asserted all the same, by time, in `Replica::tick`.)
//!
//! See [`crate::replica::quiesce`] for what a replica does.

use super::Worker;
use crate::bugs::{self, Bug};
use crate::event::Now;
use crate::metrics::Wake;
use crate::replica::quiesce::QuietAt;
use crate::replica::Replica;
use crate::wire::{Envelope, Payload};
use raft::eraftpb::{Message, MessageType};
use rangekv_proto::{RangeId, StoreId};
use std::collections::{BTreeMap, BTreeSet};

/// A quiesced follower asks its leader's store this seldom whether it is still a member,
/// in looks of [`Worker::ask_whether_members`].
pub(super) const ASK_EVERY_LOOKS: u64 = 15;

/// What is known of another store.
#[derive(Default)]
pub(super) struct Neighbour {
    /// Ticks since anything was heard of it.
    silent_ticks: usize,
    /// When that was, monotonic ns.
    heard_ns: u64,
    /// Heard within an election timeout.
    live: bool,
    /// The process that it was.
    boot_id: Option<u64>,
    /// That process is about to stop.
    leaving: bool,
}

pub(super) type Neighbours = BTreeMap<StoreId, Neighbour>;

fn is_live(neighbours: &Neighbours, store: StoreId) -> bool {
    neighbours.get(&store).is_some_and(|n| n.live)
}

/// Whether the store has said that it is about to stop.
pub(super) fn is_leaving(neighbours: &Neighbours, store: StoreId) -> bool {
    neighbours.get(&store).is_some_and(|n| n.leaving)
}

impl Worker {
    /// Anything arrived from `store`.
    pub(super) fn heard(&mut self, now: Now, store: StoreId) {
        let neighbour = self.neighbours.entry(store).or_default();
        neighbour.silent_ticks = 0;
        neighbour.heard_ns = now.mono_ns;
        if !std::mem::replace(&mut neighbour.live, true) {
            self.publish_takers();
            self.store_is_back(now, store);
        }
    }

    /// A sign of life. A new process leads nothing, whatever the old one led, and its replicas
    /// know no leader.
    ///
    /// Who sends one shares a range with this store. If none is known here, a replica is still to be
    /// made: then an answer is all by which its leader, which may be quiesced, learns that it can be.
    /// The answer is no keepalive itself: two stores that share nothing must not go on for ever.
    pub(super) fn keepalive_from(&mut self, now: Now, store: StoreId, boot_id: u64, leaving: bool) {
        let shares = |r: &Replica| r.others().iter().any(|(_, s)| *s == store);
        if !self.replicas.values().any(shares) {
            let answer = Envelope {
                payload: Payload::Wake,
                ..Envelope::keepalive(0, false)
            };
            self.outbox.push((store, answer));
        }
        let neighbour = self.neighbours.entry(store).or_default();
        let known = neighbour.boot_id.replace(boot_id);
        if std::mem::replace(&mut neighbour.leaving, leaving) != leaving {
            self.publish_takers();
        }
        if known.is_some_and(|known| known != boot_id) {
            self.store_is_silent(now, store);
            self.store_is_back(now, store);
        }
    }

    /// One tick for all stores; and keepalives, when they are due.
    pub(super) fn tick_neighbours(&mut self, now: Now) {
        let timeout = self.config.election_ticks;
        let mut silent = Vec::new();
        for (store, n) in &mut self.neighbours {
            n.silent_ticks += 1;
            if n.live && n.silent_ticks >= timeout {
                n.live = false;
                silent.push(*store);
            }
        }
        if !silent.is_empty() {
            self.publish_takers();
        }
        for store in silent {
            tracing::info!(
                store = store.0,
                node = self.config.store.0,
                "nothing was heard of a store for an election timeout"
            );
            self.store_is_silent(now, store);
        }
        let every = (self.config.keepalive_ms / self.config.tick_ms).max(1);
        if self.ticks % every == 1 % every {
            self.send_keepalives();
            self.count_replicas();
        }
    }

    fn send_keepalives(&mut self) {
        let all = self.replicas.values().flat_map(Replica::others);
        let stores: BTreeSet<StoreId> = all.map(|(_, store)| store).collect();
        for store in stores {
            let envelope = Envelope::keepalive(self.config.boot_id, self.draining);
            self.outbox.push((store, envelope));
        }
    }

    /// This store is about to stop: the others are told, so that they don't hand it what they lead.
    pub(super) fn leave(&mut self, now: Now) {
        self.draining = true;
        self.send_keepalives();
        self.wake_leaders(now);
    }

    /// Tells who asks which stores may be handed a leadership.
    fn publish_takers(&self) {
        let takers = self.neighbours.iter().filter(|(_, n)| n.live && !n.leaving);
        self.shared
            .set_takers(takers.map(|(store, _)| *store).collect());
    }

    /// Wakes the followers of leaders on `store`, and leaders that hear no quorum any more.
    fn store_is_silent(&mut self, now: Now, store: StoreId) {
        let neighbours = &self.neighbours;
        let concerned = |r: &&Replica| match r.leader_store() {
            Some(leader) => leader == store && !bugs::active(Bug::DeafQuiescence),
            None => !r.has_live_quorum(&|s| is_live(neighbours, s)),
        };
        let wake: Vec<RangeId> = self.quiesced().filter(concerned).map(|r| r.range).collect();
        for range in wake {
            self.wake_after(now, range, Wake::StoreSilent, usize::MAX);
        }
        // Those that sleep on don't look by themselves.
        let neighbours = &self.neighbours;
        for r in self.quiesced().filter(|r| r.is_leader()) {
            r.publish_progress(&self.config, &|s| is_live(neighbours, s));
        }
    }

    /// Publishes how far the replicas of awake leaders are.
    pub(super) fn publish_progress(&self) {
        let awake = self.awake.iter().filter_map(|r| self.replicas.get(r));
        for r in awake.filter(|r| r.is_leader()) {
            r.publish_progress(&self.config, &|s| is_live(&self.neighbours, s));
        }
    }

    /// Wakes the leaders that have a replica on `store`: it may lag, or know no leader.
    fn store_is_back(&mut self, now: Now, store: StoreId) {
        let has_replica = |r: &&Replica| r.others().iter().any(|(_, s)| *s == store);
        let wake: Vec<RangeId> = self
            .quiesced()
            .filter(|r| r.is_leader())
            .filter(has_replica)
            .map(|r| r.range)
            .collect();
        for range in wake {
            self.wake(now, range, Wake::StoreBack);
        }
    }

    /// All leaders are needed.
    pub(super) fn wake_leaders(&mut self, now: Now) {
        let leaders = self.quiesced().filter(|r| r.is_leader());
        let wake: Vec<RangeId> = leaders.map(|r| r.range).collect();
        for range in wake {
            self.wake(now, range, Wake::Operator);
        }
    }

    fn quiesced(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(|r| r.is_quiesced())
    }

    /// Wakes a replica, if it is quiesced; its clock shows the silence of its leader's store.
    pub(super) fn wake(&mut self, now: Now, range: RangeId, why: Wake) {
        let leader = self.replicas.get(&range).and_then(Replica::leader_store);
        let neighbour = leader.and_then(|store| self.neighbours.get(&store));
        let silent = neighbour.map_or(0, |n| n.silent_ticks);
        self.wake_after(now, range, why, silent);
    }

    fn wake_after(&mut self, now: Now, range: RangeId, why: Wake, elapsed_ticks: usize) {
        let Some(r) = self.replicas.get_mut(&range) else {
            return;
        };
        if !r.is_quiesced() {
            return;
        }
        r.wake(now, elapsed_ticks);
        self.awake.insert(range);
        self.dirty.insert(range);
        self.shared.metrics.woken.of(why).increment();
    }

    /// A message is about to be stepped into a replica: wakes it, and has it wake its leader if
    /// the message is not the leader's.
    pub(super) fn wake_for(&mut self, now: Now, range: RangeId, message: &Message) {
        let Some(r) = self.replicas.get(&range) else {
            return;
        };
        if !r.is_quiesced() || !r.is_woken_by(message) {
            return;
        }
        let vote = matches!(
            message.get_msg_type(),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        let why = if vote { Wake::Vote } else { Wake::Message };
        let leader = r.raw.raft.leader_id;
        if r.is_leader() || leader != message.from {
            self.ask_leader_to_wake(range);
            self.wake(now, range, why);
        } else if vote {
            // Who asks for votes doesn't lead.
            self.wake_after(now, range, why, usize::MAX);
        } else {
            self.wake(now, range, why);
        }
    }

    /// After a request or a message: a quiesced leader that has something to do now wakes.
    pub(super) fn wake_if_disturbed(&mut self, now: Now, range: RangeId, why: Wake) {
        let disturbed = |r: &Replica| r.is_disturbed(now);
        if self.replicas.get(&range).is_some_and(disturbed) {
            self.wake(now, range, why);
        }
    }

    /// The same for all replicas that take part in the round that begins: a merge of another
    /// range may have proposed something, for instance.
    pub(super) fn wake_all_disturbed(&mut self, now: Now) {
        let disturbed = |range: &&RangeId| {
            let replica = self.replicas.get(range);
            replica.is_some_and(|r| r.is_disturbed(now))
        };
        let wake: Vec<RangeId> = self.dirty.iter().filter(disturbed).copied().collect();
        for range in wake {
            self.wake(now, range, Wake::Operator);
        }
    }

    fn ask_leader_to_wake(&mut self, range: RangeId) {
        let Some(r) = self.replicas.get(&range) else {
            return;
        };
        if let Some(store) = r.leader_store().filter(|s| is_live(&self.neighbours, *s)) {
            let leader = rangekv_proto::ReplicaId(r.raw.raft.leader_id);
            self.outbox.push((store, r.say(leader, Payload::Wake)));
        }
    }

    /// Another replica of the group asks this one to wake.
    pub(super) fn asked_to_wake(&mut self, now: Now, e: &Envelope) {
        let addressed = |r: &Replica| r.id == e.to && r.is_quiesced();
        if self.replicas.get(&e.range).is_some_and(addressed) {
            self.ask_leader_to_wake(e.range);
            self.wake(now, e.range, Wake::Asked);
        }
    }

    /// A leader has quiesced its group.
    pub(super) fn told_to_quiesce(&mut self, now: Now, e: &Envelope, at: QuietAt) {
        let Some(r) = self.replicas.get_mut(&e.range) else {
            return;
        };
        if r.id == e.to && r.quiesce_as_told(now, e.from, at) {
            self.awake.remove(&e.range);
            // What it has just committed is applied.
            self.dirty.insert(e.range);
        }
    }

    /// Quiesces the groups that may be.
    pub(super) fn quiesce_idle(&mut self, now: Now) {
        let neighbours = &self.neighbours;
        let is_live = |store: StoreId| is_live(neighbours, store);
        let mut quiesced = Vec::new();
        for range in &self.awake {
            let Some(r) = self.replicas.get_mut(range) else {
                continue;
            };
            if r.may_quiesce(now, &self.config, &is_live) {
                self.outbox.extend(r.quiesce(&is_live));
                quiesced.push(*range);
            }
        }
        for range in quiesced {
            self.awake.remove(&range);
            self.shared.metrics.quiesced_groups.increment();
            // What was published last may be from before a new member had caught up.
            if let Some(r) = self.replicas.get(&range) {
                r.publish_progress(&self.config, &is_live);
            }
        }
        if bugs::active(Bug::LeaseWhileQuiesced) {
            for r in self.replicas.values_mut() {
                r.pretend_lease(now, &self.config);
            }
        }
    }

    /// Before a status is given: a quiesced follower hears its leader through the store.
    pub(super) fn note_contact(&mut self, range: RangeId) {
        let Some(r) = self.replicas.get_mut(&range) else {
            return;
        };
        let leader = r.is_quiesced().then(|| r.leader_store()).flatten();
        if let Some(n) = leader.and_then(|store| self.neighbours.get(&store)) {
            r.heard_leader(n.heard_ns);
        }
    }

    /// A quiesced follower's leader is on a store that is heard; a quiesced leader hears a quorum.
    pub(super) fn check_quiescence(&self) {
        for (range, r) in &self.replicas {
            assert_eq!(
                r.is_quiesced(),
                !self.awake.contains(range),
                "range {range}: awake, and quiesced"
            );
            if !r.is_quiesced() || bugs::active(Bug::DeafQuiescence) {
                continue;
            }
            match r.leader_store() {
                Some(store) => assert!(
                    is_live(&self.neighbours, store),
                    "range {range}: quiesced behind a leader on store {store}, which is silent"
                ),
                None => assert!(
                    r.has_live_quorum(&|s| is_live(&self.neighbours, s)),
                    "range {range}: a quiesced leader that hears no quorum"
                ),
            }
        }
    }
}
