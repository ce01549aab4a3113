//! Merges, as far as two ranges of this store, or two stores, take part; the protocol is in
//! [`crate::admin`], `merge.rs`.
//!
//! - [`drive_merges`](Worker::drive_merges): the leader of an absorbing range takes the next step,
//!   each leader of a source ends a freeze that was given up. At each round, for those few ranges.
//! - [`absorb_waiting`](Worker::absorb_waiting): between rounds, applies commits of merges. If a crash
//!   has undone what this store's replica of the source had applied, that replica goes on to the
//!   index at which it froze first: the commit says that this index is committed, and the entries
//!   are in its own log, since it has said so.
//! - [`make_way`](Worker::make_way): a snapshot that has absorbed ranges takes them with it.
//!
//! What is left of an absorbed range is one record in the state. Its log stays until that
//! record is durable, as a crash before would bring the range back; then the log gets its
//! tombstone. Whoever still speaks for the range is told that it was merged.

use super::{ctx, Worker};
use crate::bugs::{self, Bug};
use crate::engine::WriteBatch;
use crate::event::Now;
use crate::log::Tombstone;
use crate::meta::{self, MergedInto, Merging};
use crate::replica::{Ctx, Waiter};
use crate::wire::{Envelope, Payload};
use rangekv_proto::internal::admin_command::Merge;
use rangekv_proto::{Epoch, RangeDescriptor, RangeId, ReplicaId, RequestError, StoreId};
use std::collections::BTreeSet;

impl Worker {
    /// Takes the next step of each merge that this store takes part in. `tick`: also asks again
    /// what may have been lost.
    pub(super) fn drive_merges(&mut self, now: Now, tick: bool) {
        self.poked = false;
        let attending: Vec<RangeId> = self.attending.iter().copied().collect();
        for target in attending {
            let asked = match self.replicas.get_mut(&target) {
                Some(t) => std::mem::take(&mut t.merges_asked),
                None => {
                    self.attending.remove(&target);
                    continue;
                }
            };
            for (waiter, merge) in asked {
                self.begin_merge(now, target, waiter, &merge);
            }
            let t = &self.replicas[&target];
            match t.merging() {
                Some(Merging::Absorbing {
                    begun,
                    source,
                    source_epoch,
                    aborted,
                    ..
                }) => {
                    let (begun, source, epoch) = (*begun, *source, *source_epoch);
                    if *aborted {
                        self.give_up(now, target, begun, source, epoch);
                    } else {
                        self.press_on(now, target, begun, source, epoch, tick);
                    }
                }
                Some(Merging::Frozen { begun, .. }) if bugs::active(Bug::MergeDecidedTwice) => {
                    self.thaw_alone(now, target, *begun);
                }
                _ if t.unapplied().is_empty() => {
                    self.attending.remove(&target);
                }
                _ => {}
            }
        }
    }

    fn begin_merge(&mut self, now: Now, target: RangeId, waiter: Waiter, merge: &Merge) {
        let source = RangeId(merge.source);
        if let Some(m) = self.merged.get(&source) {
            if m.target == target {
                return self.replicas[&target].merged_already(waiter);
            }
        }
        let Some(s) = self.replicas.remove(&source) else {
            let error = RequestError::RangeNotFound {
                range: source,
                store: self.config.store,
            };
            return waiter.complete(Err(error));
        };
        if let Some(t) = self.replicas.get_mut(&target) {
            if t.is_leader() {
                t.propose_begin(&mut ctx!(self, now), waiter, merge, &s);
                self.dirty.insert(target);
            } else {
                waiter.complete(Err(RequestError::NotLeader {
                    range: target,
                    leader: t.leader_hint(),
                }));
            }
        }
        self.replicas.insert(source, s);
    }

    /// Whether `source` has an epoch beyond `epoch`: then it is not frozen by the merge that was
    /// begun with that one, and will never be.
    fn has_moved_on(&self, source: RangeId, epoch: Epoch) -> bool {
        match self.replicas.get(&source) {
            Some(s) if s.descriptor.is_some() => {
                let is = s.epoch();
                is.version > epoch.version || is.conf_version > epoch.conf_version
            }
            // Destroyed here: its members have changed.
            _ => self.tombstones.contains_key(&source),
        }
    }

    /// `target` has decided not to absorb `source`.
    fn give_up(&mut self, now: Now, target: RangeId, begun: u64, source: RangeId, epoch: Epoch) {
        let careless = bugs::active(Bug::AbortOfAnotherMerge);
        let frozen = self.replicas.get(&source).is_some_and(|s| s.is_frozen());
        // Its own epoch stays while it is pinned: somebody has seen the source move on.
        let was_released = self
            .replicas
            .get(&target)
            .is_some_and(|t| t.has_changed_since_merge());
        if (was_released || self.has_moved_on(source, epoch)) && !(careless && frozen) {
            if let Some(t) = self.replicas.get_mut(&target) {
                t.release_merge();
            }
            if !careless {
                self.attending.remove(&target);
            }
            return;
        }
        let Some(s) = self.replicas.get_mut(&source) else {
            return;
        };
        if (s.epoch() == epoch || careless && frozen) && s.may_propose_admin() {
            s.propose_unfreeze(&mut ctx!(self, now), target, begun);
            self.dirty.insert(source);
        }
    }

    /// `target` is to absorb `source`: freezes it, asks who has frozen, decides.
    fn press_on(
        &mut self,
        now: Now,
        target: RangeId,
        begun: u64,
        source: RangeId,
        epoch: Epoch,
        tick: bool,
    ) {
        let moved_on = self.has_moved_on(source, epoch);
        let Some(t) = self.replicas.get_mut(&target) else {
            return;
        };
        if !t.may_propose_admin() {
            return;
        }
        let members: BTreeSet<StoreId> = t.descriptor.as_ref().map_or_else(BTreeSet::new, |d| {
            d.replicas.iter().map(|r| r.store).collect()
        });
        let everyone_knows = t.all_know(begun);
        let others = t.others();
        let (me, t_epoch) = (t.id, t.epoch());
        let drive = t.drive(now, self.config.merge_timeout_ns());
        let late = now.mono_ns >= drive.until_ns;
        let frozen = drive.frozen.clone();
        if moved_on || late {
            t.propose_abort(&mut ctx!(self, now), begun);
            self.dirty.insert(target);
            return;
        }
        let s = self.replicas.get(&source);
        let seen = s.and_then(|s| s.frozen_on_all(target, begun));
        let mut all = seen.is_some() || members.iter().all(|store| frozen.contains_key(store));
        if bugs::active(Bug::AbsorbBeforeAllFrozen) {
            all = frozen.contains_key(&self.config.store);
        }
        let index = seen.or(frozen.values().next().copied());
        if let (true, true, Some(index)) = (all, everyone_knows, index) {
            assert!(
                frozen.values().all(|i| *i == index),
                "range {source} froze for one merge at several indexes: {frozen:?}"
            );
            if let Some(s) = self.replicas.remove(&source) {
                if let Some(t) = self.replicas.get_mut(&target) {
                    t.propose_commit(&mut ctx!(self, now), begun, &s, index);
                    self.dirty.insert(target);
                }
                self.replicas.insert(source, s);
            }
            return;
        }
        if let Some(s) = self.replicas.get_mut(&source) {
            if s.epoch() == epoch && !s.is_pinned() && s.may_propose_admin() {
                s.propose_freeze(&mut ctx!(self, now), target, begun);
                self.dirty.insert(source);
            }
        }
        if !tick {
            return;
        }
        if !frozen.contains_key(&self.config.store) {
            self.report_frozen(source, target, begun, (self.config.store, me), me);
        }
        for (to, store) in others {
            if !frozen.contains_key(&store) {
                let ask = Envelope {
                    range: target,
                    from: me,
                    to,
                    epoch: t_epoch,
                    bounds: None,
                    payload: Payload::AskFrozen { source, begun },
                };
                self.outbox.push((store, ask));
            }
        }
    }

    /// The planted bug: the source decides as well.
    fn thaw_alone(&mut self, now: Now, source: RangeId, begun: u64) {
        let Some(s) = self.replicas.get_mut(&source) else {
            return;
        };
        if let (true, Some(Merging::Frozen { target, .. })) =
            (s.may_propose_admin(), s.merging().cloned())
        {
            let until = s.drive(now, self.config.merge_timeout_ns()).until_ns;
            if now.mono_ns >= until {
                s.propose_unfreeze(&mut ctx!(self, now), target, begun);
                self.dirty.insert(source);
            }
        }
    }

    /// Goes through what replicas have noted about merges in a round.
    pub(super) fn attend(&mut self, noted: Vec<RangeId>) {
        for range in noted {
            let Some(r) = self.replicas.get(&range) else {
                continue;
            };
            self.poked = true;
            match r.merging().cloned() {
                Some(Merging::Frozen { target, begun, .. }) => {
                    if bugs::active(Bug::MergeDecidedTwice) {
                        self.attending.insert(range);
                    }
                    let leader = self.replicas.get(&target).and_then(|t| {
                        let leader = ReplicaId(t.raw.raft.leader_id);
                        Some((t.leader_hint()?.store, leader, t.id))
                    });
                    // If nobody leads the other range now, its next leader will ask.
                    if let Some((store, leader, me)) = leader {
                        self.report_frozen(range, target, begun, (store, leader), me);
                    }
                }
                _ => {
                    self.attending.insert(range);
                }
            }
        }
    }

    /// Tells the leader of `target` that `source` is frozen here, if it is; after the next sync, so
    /// that a restart finds that commit again.
    fn report_frozen(
        &mut self,
        source: RangeId,
        target: RangeId,
        begun: u64,
        (store, to): (StoreId, ReplicaId),
        from: ReplicaId,
    ) {
        let Some(s) = self.replicas.get(&source) else {
            return;
        };
        let Some(Merging::Frozen {
            target: t,
            begun: b,
            index,
        }) = s.merging()
        else {
            return;
        };
        if (*t, *b) != (target, begun) {
            return;
        }
        let report = Envelope {
            range: target,
            from,
            to,
            epoch: Epoch::default(),
            bounds: None,
            payload: Payload::Frozen {
                begun,
                index: *index,
            },
        };
        self.after_sync.push((store, report));
    }

    /// Messages about merges.
    pub(super) fn merge_message(&mut self, now: Now, from_store: StoreId, e: &Envelope) {
        match e.payload {
            Payload::AskFrozen { source, begun } => {
                self.report_frozen(source, e.range, begun, (from_store, e.from), e.to);
            }
            Payload::Frozen { begun, index } => self.frozen_at(now, from_store, e, begun, index),
            Payload::Merged { target, member } => self.was_merged(now, e, target, member),
            _ => {}
        }
    }

    fn frozen_at(&mut self, now: Now, from: StoreId, e: &Envelope, begun: u64, index: u64) {
        let timeout = self.config.merge_timeout_ns();
        let Some(t) = self.replicas.get_mut(&e.range) else {
            return;
        };
        let current = matches!(t.merging(), Some(Merging::Absorbing { begun: b, aborted: false, .. })
            if *b == begun);
        if current && t.id == e.to && t.is_leader() {
            t.drive(now, timeout).frozen.insert(from, index);
            self.poked = true;
        }
    }

    /// This store's replica of a range is told that the range was merged into `target`. If it was a
    /// member, it is still needed by this store's replica of `target`, unless that was removed.
    ///
    /// A member has the freeze of that merge in its log, since the merge waited for that, and nothing
    /// but it may tell the replica that this entry is committed: who led it is no more.
    fn was_merged(&mut self, now: Now, e: &Envelope, target: RangeId, member: bool) {
        let Some(r) = self.replicas.get_mut(&e.range) else {
            return;
        };
        if r.id != e.to {
            return;
        }
        let frozen_at = r.unapplied_freeze(target).filter(|_| member);
        if let Some(index) = frozen_at {
            r.raw.raft.raft_log.commit_to(index);
            self.dirty.insert(e.range);
            return;
        }
        let needless = match r.merging().cloned() {
            Some(Merging::Frozen {
                target: t, begun, ..
            }) => t == target && !self.will_absorb(target, begun),
            _ => !member,
        };
        if needless {
            self.destroy(now, e.range);
        }
    }

    /// Whether this store's replica of `target` has yet to apply the commit of the merge `begun`. It
    /// has not if it was removed, or is past that by a snapshot whose bounds had shrunk again.
    fn will_absorb(&self, target: RangeId, begun: u64) -> bool {
        match self.replicas.get(&target) {
            Some(t) if t.descriptor.is_some() => {
                let absorbing = matches!(t.merging(), Some(Merging::Absorbing { begun: b, .. })
                    if *b == begun);
                absorbing || t.applied.index < begun
            }
            Some(_) => true,
            None => !self.merged.contains_key(&target) && !self.tombstones.contains_key(&target),
        }
    }

    /// Tells one who speaks for a range that was merged here.
    pub(super) fn reply_merged(&mut self, to: StoreId, e: &Envelope, merged: &MergedInto) {
        if !matches!(e.payload, Payload::Raft(_) | Payload::AmIMember) || to == StoreId(0) {
            return;
        }
        let answer = Envelope {
            range: e.range,
            from: merged.replica,
            to: e.from,
            epoch: merged.source.epoch,
            bounds: None,
            payload: Payload::Merged {
                target: merged.target,
                member: merged.source.replicas.iter().any(|r| r.id == e.from),
            },
        };
        self.outbox.push((to, answer));
    }

    /// The error for a request to a range that this store has no replica of.
    pub(super) fn not_here(&self, range: RangeId) -> RequestError {
        let union = self.merged.get(&range).and_then(|m| {
            let mut here = self.replicas.values().filter_map(|r| r.descriptor.as_ref());
            here.find(|d| d.contains(&m.source.start)).cloned()
        });
        match union {
            Some(union) => RequestError::EpochNotMatch {
                current: vec![union],
            },
            None => RequestError::RangeNotFound {
                range,
                store: self.config.store,
            },
        }
    }

    /// Applies commits of merges whose source has caught up on this store.
    pub(super) fn absorb_waiting(&mut self, now: Now) {
        let attending: Vec<RangeId> = self.attending.iter().copied().collect();
        for target in attending {
            while self.absorb_next(now, target) {}
        }
    }

    /// Whether `target` has absorbed another range, as its next entry says.
    fn absorb_next(&mut self, now: Now, target: RangeId) -> bool {
        let Some(commit) = self.replicas.get(&target).and_then(|t| t.next_commit()) else {
            return false;
        };
        let source = commit.source.as_ref().map_or(RangeId(0), |s| RangeId(s.id));
        let Some(s) = self.replicas.get_mut(&source) else {
            panic!("range {target} absorbs range {source}, which has left this store before");
        };
        if s.applied.index < commit.frozen_at {
            let log = &mut s.raw.raft.raft_log;
            assert!(
                log.persisted >= commit.frozen_at,
                "range {source} is frozen at {}, but its log ends at {}",
                commit.frozen_at,
                log.persisted
            );
            log.commit_to(commit.frozen_at);
            self.dirty.insert(source);
            return false;
        }
        assert!(
            matches!(s.merging(), Some(Merging::Frozen { target: t, begun, index })
                if (*t, *begun, *index) == (target, commit.begun, commit.frozen_at)),
            "range {target} absorbs range {source} by {commit:?}, which is {:?}",
            s.merging()
        );
        let merged = self.take_out(target, source);
        let mut batch = WriteBatch::default();
        let mut completions = Vec::new();
        merged.bury(&mut batch);
        let mut ctx = ctx!(self, now);
        let t = self.replicas.get_mut(&target).expect("seen above");
        t.absorb(
            &mut ctx,
            &commit,
            &merged.source,
            &mut batch,
            &mut completions,
        );
        self.engine.write(&batch);
        t.applied_between_rounds();
        let union = t.descriptor.clone().expect("it has a descriptor");
        tracing::info!(
            group = target.0,
            source = source.0,
            node = self.config.store.0,
            "absorbed a range"
        );
        self.dirty.insert(target);
        self.shared.metrics.merges.increment();
        for (sink, token, response) in completions {
            sink.complete(token, response);
        }
        self.let_go(merged, &union);
        true
    }

    /// Takes a replica that is about to be absorbed out of service. Nobody reads from it any more.
    fn take_out(&mut self, target: RangeId, source: RangeId) -> MergedInto {
        let s = self.replicas.get(&source).expect("the caller has seen it");
        let merged = MergedInto {
            target,
            replica: s.id,
            source: s.descriptor.clone().expect("a frozen range has bounds"),
        };
        self.shared.remove(source);
        merged
    }

    /// The replica is absorbed; its log is kept until that is durable.
    fn let_go(&mut self, merged: MergedInto, union: &RangeDescriptor) {
        let source = merged.source.id;
        let mut s = self.replicas.remove(&source).expect("it was taken out");
        s.refuse_waiting(&RequestError::EpochNotMatch {
            current: vec![union.clone()],
        });
        s.abandon();
        self.dirty.remove(&source);
        self.awake.remove(&source);
        self.attending.remove(&source);
        self.dormant.insert(source, s.raw.store().to_group_log());
        self.merged.insert(source, merged);
        self.unburied.insert(source);
    }

    /// Whether `snapshot` may take this store's replica of `range` with it: that range was
    /// absorbed before the snapshot was taken. It is frozen for that, so that it has done all that
    /// it had to do; a live range always contains its own first key; and versions grow along each key.
    pub(super) fn is_absorbed_by(&self, range: RangeId, snapshot: &RangeDescriptor) -> bool {
        let Some(r) = self.replicas.get(&range) else {
            return true;
        };
        let Some(d) = &r.descriptor else { return true };
        matches!(r.merging(), Some(Merging::Frozen { target, .. }) if *target == snapshot.id)
            && snapshot.contains(&d.start)
            && snapshot.epoch.version > d.epoch.version
    }

    /// Takes out what the snapshots have absorbed that this round installs.
    pub(super) fn make_way(&mut self) {
        for target in std::mem::take(&mut self.installing) {
            let snapshot = self.replicas.get(&target).and_then(|t| {
                let data = &t.raw.snap()?.data;
                crate::storage::SnapshotData::decode(data)
            });
            let Some(snapshot) = snapshot else { continue };
            for source in self.overlapping(&snapshot.descriptor) {
                assert!(
                    self.is_absorbed_by(source, &snapshot.descriptor),
                    "range {source} became an obstacle to a snapshot of range {target}"
                );
                let merged = self.take_out(target, source);
                self.let_go(merged.clone(), &snapshot.descriptor);
                let t = self.replicas.get_mut(&target).expect("seen above");
                t.absorbed_by_snapshot.push(merged);
            }
        }
    }

    /// Gives the logs of absorbed ranges their tombstones, once the absorption is durable.
    pub(super) fn bury_merged(&mut self) {
        let durable: Vec<RangeId> = self
            .unburied
            .iter()
            .copied()
            .filter(|r| self.engine.get_durable(&meta::merged_key(*r)).is_some())
            .collect();
        for range in durable {
            self.unburied.remove(&range);
            self.bury_one(range);
        }
    }

    /// After a restart: what the state has of merges is durable.
    pub(super) fn recover_merged(&mut self, merged: Vec<MergedInto>) {
        for m in merged {
            let range = m.source.id;
            self.merged.insert(range, m);
            if !self.tombstones.contains_key(&range) {
                self.bury_one(range);
            }
        }
    }

    fn bury_one(&mut self, range: RangeId) {
        let m = &self.merged[&range];
        let tombstone = Tombstone {
            replica: m.replica,
            conf_version: m.source.epoch.conf_version,
        };
        self.dormant.remove(&range);
        self.bury(range, tombstone);
    }
}
