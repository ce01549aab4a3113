//! How replicas come and go: admission of messages, creation, initialisation, destruction.
//!
//! One creation path: a replica is made uninitialised, with whatever term and vote the log has
//! kept for its range, and is then initialised at (5, 5) by bootstrap or by a split, or by a
//! snapshot. A message never creates a replica whose bounds overlap an initialised one: that is
//! a split which has not been applied here yet.
//!
//! Destruction: the tombstone is synced in the log first, then readers are cut off, then the
//! state is deleted (I12). Only a message from a member whose applied configuration lacks the
//! replica, or one meant for its successor on this store, destroys it.

use super::quiesce::ASK_EVERY_LOOKS;
use super::{ctx, Worker};
use crate::bugs::{self, Bug};
use crate::engine::{Staged, WriteBatch};
use crate::event::Now;
use crate::log::{GroupLog, Tombstone};
use crate::meta::{self, Applied, Merging};
use crate::metrics::{MessageDrop, Wake};
use crate::replica::{Ctx, Replica, CAMPAIGN_TRANSFER};
use crate::storage::{GroupStorage, SnapshotData};
use crate::wire::{Envelope, Payload};
use raft::eraftpb::MessageType;
use rangekv_proto::{
    Epoch, RangeDescriptor, RangeId, ReplicaId, StoreId, INITIAL_INDEX, INITIAL_TERM,
};
use std::collections::{BTreeMap, BTreeSet};

/// A replica that has heard no leader for this many election timeouts asks whether it is still a member.
const ASK_AFTER_ELECTIONS: u64 = 5;

impl Worker {
    /// Admits a message, or drops it: raft recovers from any loss.
    pub(super) fn envelope(
        &mut self,
        now: Now,
        from_store: StoreId,
        e: Envelope,
        staged: Option<Box<dyn Staged>>,
    ) {
        match &e.payload {
            Payload::Gone => return self.gone(now, &e),
            Payload::AskFrozen { .. } | Payload::Frozen { .. } | Payload::Merged { .. } => {
                return self.merge_message(now, from_store, &e)
            }
            Payload::Quiesce(at) => return self.told_to_quiesce(now, &e, *at),
            Payload::Wake => return self.asked_to_wake(now, &e),
            Payload::Keepalive { boot_id, leaving } => {
                return self.keepalive_from(now, from_store, *boot_id, *leaving);
            }
            Payload::AmIMember | Payload::Raft(_) => {}
        }
        if let Some(merged) = self.merged.get(&e.range).cloned() {
            return self.reply_merged(from_store, &e, &merged);
        }
        if e.payload == Payload::AmIMember {
            return self.am_i_member(from_store, &e);
        }
        let Payload::Raft(message) = &e.payload else {
            return;
        };
        if message.from != e.from.0 || message.to != e.to.0 || e.from.0 == 0 || e.to.0 == 0 {
            self.drop_message(MessageDrop::Malformed);
            return tracing::error!(
                range = e.range.0,
                "dropped a message whose envelope differs"
            );
        }
        let kind = message.get_msg_type();
        let vote = matches!(
            kind,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        let expected = matches!(
            kind,
            MessageType::MsgAppend
                | MessageType::MsgAppendResponse
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgHeartbeat
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgTimeoutNow
        ) || vote;
        // A snapshot comes with its records, by its own way. Proposals and reads are never
        // forwarded by raft.
        if (kind == MessageType::MsgSnapshot) != staged.is_some() || !(expected || staged.is_some())
        {
            return self.drop_message(MessageDrop::Malformed);
        }
        let destroyed = self.tombstones.get(&e.range);
        if destroyed.is_some_and(|t| t.replica >= e.to) && !bugs::active(Bug::RemovedReplicaVotes) {
            return self.drop_message(MessageDrop::Stale);
        }
        // This store may have promised a leader not to vote before it restarted.
        if vote && now.mono_ns < self.vote_ban_until_ns {
            self.wake_for(now, e.range, message);
            return self.drop_message(MessageDrop::VotePromised);
        }
        // Nor may it while a leader counts on it; only a leader that gives up its lease asks a
        // follower to campaign at once.
        let transfer = message.context[..] == *CAMPAIGN_TRANSFER;
        let promised = |r: &Replica| r.has_promised(now);
        if vote && !transfer && self.replicas.get(&e.range).is_some_and(promised) {
            self.wake_for(now, e.range, message);
            return self.drop_message(MessageDrop::VotePromised);
        }
        if let Some(mine) = self.replicas.get(&e.range).map(|r| r.id) {
            if e.to < mine {
                return self.drop_message(MessageDrop::Stale);
            }
            if e.to > mine {
                // A member of this store was removed and another added since.
                return self.destroy(now, e.range);
            }
        } else if !self.create(now, from_store, &e) {
            return self.drop_message(MessageDrop::NoReplica);
        }
        if let Some(staged) = staged {
            return self.step_snapshot(now, e, staged);
        }
        let replica = self
            .replicas
            .get_mut(&e.range)
            .expect("exists or was just created");
        if let Some(d) = &replica.descriptor {
            let member = d.replicas.iter().any(|r| r.id == e.from);
            // The sender was a member at its `conf_version`, and ids are never reused.
            let known = e.epoch.conf_version > 0;
            if !member && known && e.epoch.conf_version < d.epoch.conf_version {
                let gone = reply_gone(d, replica.id, &e);
                self.outbox.push((from_store, gone));
                return self.drop_message(MessageDrop::Stale);
            }
        } else {
            replica.seen_as_member(e.epoch.conf_version);
        }
        replica.learn_peer(e.from, from_store);
        let Payload::Raft(message) = e.payload else {
            return;
        };
        self.wake_for(now, e.range, &message);
        let replica = self.replicas.get_mut(&e.range).expect("seen above");
        replica.step(now, message);
        self.wake_if_disturbed(now, e.range, Wake::Message);
        self.dirty.insert(e.range);
    }

    /// Makes an uninitialised replica for a message; false if it may not be made (yet).
    fn create(&mut self, now: Now, from_store: StoreId, e: &Envelope) -> bool {
        let Some((start, end)) = &e.bounds else {
            return false;
        };
        let wanted = RangeDescriptor {
            id: e.range,
            start: start.clone(),
            end: end.clone(),
            epoch: e.epoch,
            replicas: Vec::new(),
        };
        if !self.overlapping(&wanted).is_empty() {
            // A split on its way here will make the replica: keep its first vote, else the new
            // range waits a whole election timeout for its leader.
            self.parked.insert(e.range, (from_store, e.clone()));
            return false;
        }
        tracing::info!(
            group = e.range.0,
            replica = e.to.0,
            node = self.config.store.0,
            "replica created by message"
        );
        let log = self.dormant.remove(&e.range).unwrap_or_default();
        assert!(
            log.entries.is_empty(),
            "range {}: a log without a descriptor, and nothing overlaps",
            e.range
        );
        self.insert(now, e.range, e.to, log, Applied::default(), None);
        true
    }

    pub(super) fn insert(
        &mut self,
        now: Now,
        range: RangeId,
        id: ReplicaId,
        log: GroupLog,
        applied: Applied,
        descriptor: Option<RangeDescriptor>,
    ) {
        let initialised = descriptor.is_some();
        let storage = GroupStorage::new(log, applied, descriptor.clone(), self.engine.clone());
        let cell = self.shared.cell_or_insert(range);
        let ticks = (self.draw)(range);
        let mut replica = Replica::new(
            range,
            id,
            storage,
            descriptor,
            cell,
            self.shared.metrics.clone(),
            &self.config,
            ticks,
            now,
        );
        if let (true, Some(record)) = (initialised, self.engine.get(&meta::merging_key(range))) {
            let merging = Merging::decode(record)
                .unwrap_or_else(|e| panic!("range {range}: {e}: the state engine is damaged"));
            replica.set_merging(Some(merging));
            self.attending.insert(range);
        }
        assert!(
            self.replicas.insert(range, replica).is_none(),
            "two replicas of range {range}"
        );
        self.awake.insert(range);
        self.dirty.insert(range);
    }

    /// Initialised ranges other than `d` that share a key with it.
    pub(super) fn overlapping(&self, d: &RangeDescriptor) -> Vec<RangeId> {
        self.replicas
            .values()
            .filter(|r| r.range != d.id)
            .filter(|r| r.descriptor.as_ref().is_some_and(|other| other.overlaps(d)))
            .map(|r| r.range)
            .collect()
    }

    /// Starts a replica at the initial index: bootstrap, or the right side of a split. Its
    /// descriptor is in the state engine already. Term and vote that an uninitialised
    /// replica may have given away are kept (I7).
    pub(super) fn start_at_initial(
        &mut self,
        now: Now,
        id: ReplicaId,
        descriptor: RangeDescriptor,
        applied: Applied,
    ) {
        let range = descriptor.id;
        let mut log = match self.replicas.remove(&range) {
            Some(mut uninitialised) => {
                assert!(
                    uninitialised.descriptor.is_none(),
                    "range {range} is initialised twice"
                );
                assert!(
                    uninitialised.id <= id,
                    "range {range}: replica {id} follows {}",
                    uninitialised.id
                );
                uninitialised.abandon();
                uninitialised.raw.store().to_group_log()
            }
            None => self.dormant.remove(&range).unwrap_or_default(),
        };
        if log.truncated_index < INITIAL_INDEX {
            assert!(
                log.entries.is_empty(),
                "range {range}: entries before its beginning"
            );
            log.truncated_index = INITIAL_INDEX;
            log.truncated_term = INITIAL_TERM;
            log.hard_state.term = log.hard_state.term.max(INITIAL_TERM);
            log.hard_state.commit = INITIAL_INDEX;
            self.log
                .reset(range, INITIAL_INDEX, INITIAL_TERM, &log.hard_state);
        }
        self.insert(now, range, id, log, applied, Some(descriptor));
    }

    /// The replica of a range that a split in this round made here.
    pub(super) fn start_split_off(&mut self, now: Now, descriptor: RangeDescriptor) {
        let range = descriptor.id;
        let store = self.config.store;
        let Some(id) = descriptor.replica_on(store).map(|r| r.id) else {
            return;
        };
        assert!(
            self.replicas
                .get(&range)
                .is_none_or(|r| r.descriptor.is_none()),
            "range {range} existed before the split that makes it"
        );
        let applied = self
            .engine
            .get(&meta::applied_key(range))
            .and_then(|v| Applied::decode(&v))
            .expect("the split wrote the new range's applied state");
        let parent_leads = self.replicas.values().any(|r| {
            r.is_leader()
                && r.descriptor
                    .as_ref()
                    .is_some_and(|d| d.end == descriptor.start)
        });
        self.start_at_initial(now, id, descriptor, applied);
        if parent_leads {
            let replica = self.replicas.get_mut(&range).expect("just started");
            replica.campaign(now);
        }
        if let Some((from, vote)) = self.parked.remove(&range) {
            self.envelope(now, from, vote, None);
        }
    }

    /// Ranges of a new cluster. Durable before this returns, so that the caller may promise it.
    pub(super) fn initialise(&mut self, now: Now, descriptors: Vec<RangeDescriptor>) {
        let mut batch = WriteBatch::default();
        let applied = Applied {
            index: INITIAL_INDEX,
            term: INITIAL_TERM,
            clock_ms: 0,
        };
        let mut new = Vec::new();
        for d in descriptors {
            let Some(id) = d.replica_on(self.config.store).map(|r| r.id) else {
                continue;
            };
            if self
                .replicas
                .get(&d.id)
                .is_some_and(|r| r.descriptor.is_some())
            {
                continue;
            }
            batch.put(meta::descriptor_key(d.id), meta::encode_descriptor(id, &d));
            batch.put(meta::applied_key(d.id), applied.encode());
            new.push((id, d));
        }
        self.engine.write(&batch);
        for (id, d) in new {
            self.start_at_initial(now, id, d, applied);
        }
        self.write_and_sync();
        self.engine.flush();
    }

    fn step_snapshot(&mut self, now: Now, e: Envelope, staged: Box<dyn Staged>) {
        let Payload::Raft(message) = e.payload else {
            return;
        };
        let snapshot = message.get_snapshot();
        let Some(SnapshotData { descriptor, .. }) = SnapshotData::decode(&snapshot.data) else {
            return tracing::error!(range = e.range.0, "dropped a snapshot without a descriptor");
        };
        if descriptor.id != e.range || descriptor.replicas.iter().all(|r| r.id != e.to) {
            return tracing::error!(
                range = e.range.0,
                "dropped a snapshot that is not for this replica"
            );
        }
        let overlapping = self.overlapping(&descriptor);
        let alive = |range: &&RangeId| !self.is_absorbed_by(**range, &descriptor);
        if let Some(other) = overlapping.iter().find(alive) {
            return tracing::info!(
                range = e.range.0,
                other = other.0,
                "dropped a snapshot that overlaps another range"
            );
        }
        let index = snapshot.get_metadata().index;
        let replica = self.replicas.get_mut(&e.range).expect("admitted");
        if replica.applied.index < replica.raw.raft.raft_log.committed {
            // A crash has undone what it had applied: the splits and merges among that come first,
            // or the ranges that they made here would be lost.
            return tracing::info!(range = e.range.0, "dropped a snapshot that came too early");
        }
        if let Some(store) = descriptor.store_of(e.from) {
            replica.learn_peer(e.from, store);
        }
        if replica.raw.snap().is_some() {
            // One at a time: the one that raft holds is installed in the next round.
            return;
        }
        self.wake_for(now, e.range, &message);
        let replica = self.replicas.get_mut(&e.range).expect("admitted");
        replica.stage(index, staged);
        replica.step(now, message);
        replica.drop_unaccepted_snapshot();
        if replica.raw.snap().is_some() {
            self.installing.insert(e.range);
        }
        self.dirty.insert(e.range);
    }

    fn gone(&mut self, now: Now, e: &Envelope) {
        let Some(r) = self.replicas.get(&e.range) else {
            return;
        };
        // A replica that has applied its own removal is as new as who tells it.
        let newer = r.descriptor.as_ref().is_none_or(|d| {
            let removed = d.replicas.iter().all(|m| m.id != r.id);
            d.epoch.conf_version < e.epoch.conf_version + u64::from(removed)
        });
        if r.id == e.to && newer {
            self.destroy(now, e.range);
        }
    }

    fn am_i_member(&mut self, from_store: StoreId, e: &Envelope) {
        let Some(r) = self.replicas.get(&e.range) else {
            return;
        };
        let Some(d) = &r.descriptor else { return };
        if d.epoch.conf_version >= e.epoch.conf_version && d.replicas.iter().all(|m| m.id != e.from)
        {
            let gone = reply_gone(d, r.id, e);
            self.outbox.push((from_store, gone));
        }
    }

    /// Replicas that nobody leads for long may have been removed while they were away.
    pub(super) fn ask_whether_members(&mut self, now: Now) {
        let silent = ASK_AFTER_ELECTIONS * self.config.election_ns();
        let mut known: Option<BTreeSet<StoreId>> = None;
        let looks = self.ticks / 20;
        for r in self.replicas.values() {
            // Nobody tells a quiesced replica anything: it asks now and then, each at its time.
            let ask = match r.is_quiesced() {
                true => (looks + r.range.0).is_multiple_of(ASK_EVERY_LOOKS),
                false => now.mono_ns >= r.last_contact_ns() + silent,
            };
            if r.is_leader() || !ask {
                continue;
            }
            // Whom it knows of may have been removed as well: ask every store that is known here.
            let known = known.get_or_insert_with(|| {
                let others = self.replicas.values().flat_map(Replica::others);
                others.map(|(_, store)| store).collect()
            });
            let members: BTreeMap<StoreId, ReplicaId> = r
                .others()
                .into_iter()
                .map(|(id, store)| (store, id))
                .collect();
            for store in known.iter().copied().filter(|s| *s != self.config.store) {
                let member = members.get(&store).copied().unwrap_or_default();
                let question = Envelope {
                    range: r.range,
                    from: r.id,
                    to: member,
                    epoch: r.epoch(),
                    bounds: None,
                    payload: Payload::AmIMember,
                };
                self.outbox.push((store, question));
                // Who has no vote, and missed that its group quiesced, can't wake it by a campaign.
                if !r.is_quiesced() && member != ReplicaId::default() {
                    self.outbox.push((store, r.say(member, Payload::Wake)));
                }
            }
        }
    }

    /// Removes a replica of this store for ever.
    pub(super) fn destroy(&mut self, now: Now, range: RangeId) {
        let Some(mut replica) = self.replicas.remove(&range) else {
            return;
        };
        let conf_version = replica
            .descriptor
            .as_ref()
            .map_or(0, |d| d.epoch.conf_version);
        tracing::info!(
            group = range.0,
            replica = replica.id.0,
            node = self.config.store.0,
            at = now.mono_ns,
            "replica removed"
        );
        replica.abandon();
        self.shared.remove(range);
        // A range that this one split off here exists in no log but this one's: its descriptor
        // must survive the loss of that log.
        if replica.descriptor.is_some() {
            self.engine.flush();
        }
        self.bury(
            range,
            Tombstone {
                replica: replica.id,
                conf_version,
            },
        );
        self.write_and_sync();
        if let Some(d) = &replica.descriptor {
            self.delete_state(d);
        }
        self.dirty.remove(&range);
        self.attending.remove(&range);
        self.awake.remove(&range);
    }

    /// Stages a tombstone; the caller syncs it.
    pub(super) fn bury(&mut self, range: RangeId, tombstone: Tombstone) {
        self.log.destroy(range, tombstone);
        self.tombstones.insert(range, tombstone);
    }

    /// Deletes a buried range's records and descriptor.
    pub(super) fn delete_state(&self, d: &RangeDescriptor) {
        let mut batch = WriteBatch::default();
        batch.delete_ranges.push(meta::data_bounds(d));
        batch.delete(meta::descriptor_key(d.id));
        batch.delete(meta::applied_key(d.id));
        batch.delete(meta::merging_key(d.id));
        self.engine.write(&batch);
    }

    /// Outside of rounds, for what must be durable before the next step.
    pub(super) fn write_and_sync(&mut self) {
        self.write_log();
        self.sync_log();
    }

    /// The vote ban of a restarted store, unless nobody could have been promised anything.
    pub(super) fn ban_votes(&mut self, now: Now) {
        let promised = self
            .replicas
            .values()
            .any(|r| r.descriptor.as_ref().is_some_and(|d| d.replicas.len() > 1));
        if promised && !bugs::active(Bug::NoVoteBan) {
            self.vote_ban_until_ns = now.mono_ns + self.config.election_ns();
        }
    }

    /// A context for operations on one replica, for tests and drivers.
    pub fn with_replica<T>(
        &mut self,
        now: Now,
        range: RangeId,
        f: impl FnOnce(&mut Replica, &mut Ctx<'_>) -> T,
    ) -> Option<T> {
        self.wake(now, range, Wake::Operator);
        let mut ctx = ctx!(self, now);
        self.replicas.get_mut(&range).map(|r| f(r, &mut ctx))
    }
}

fn reply_gone(d: &RangeDescriptor, me: ReplicaId, to: &Envelope) -> Envelope {
    Envelope {
        range: d.id,
        from: me,
        to: to.from,
        epoch: Epoch {
            conf_version: d.epoch.conf_version,
            version: d.epoch.version,
        },
        bounds: None,
        payload: Payload::Gone,
    }
}
