//! Merges a range T with its right neighbour S: freeze, wait for all, absorb.
//!
//! Propose (at the leader of T, which leads S as well): both lie on the same stores, all voters,
//!   nobody lags, nothing else is under way. Then, entry by entry:
//!   1. `Begin` in T's log: T is to absorb S, which must still have the epoch that is named.
//!      The index of this entry, `begun`, names the merge for ever.
//!   2. `Freeze` in S's log: from its apply on S serves nothing: no reads, writes, splits,
//!      membership changes or transfers. Its lease ends before anybody else hears of the commit (I1, I8).
//!   3. All replicas of S have that entry *durably* in their logs, and it is committed. The leader of
//!      T knows it at once from S's own replication, as long as its store leads S, too; else each
//!      store tells it, once its replica of S has durably applied the entry.
//!   4. `Commit` in T's log, when all have; or `Abort`, at any time before, also by a later leader.
//!   5. After an applied `Abort`: `Unfreeze` in S's log.
//!
//! Apply of `Commit`: T takes over S's bounds, in one batch with its applied index and with what
//!   remains of S, a record that S was merged into T. No data moves: the store's replica of S has
//!   put it there. A crash may have undone that, and nobody may lead S any more; so that replica is
//!   first brought to the frozen index from its own log ([`crate::worker`], `merge.rs`).
//!
//! Invariants:
//! - Only T's log decides. S unfreezes by an applied `Abort` of *this* `begun`, and nothing else.
//! - `Commit` names T's version, S's epoch and the index of `Freeze`; `Freeze` and `Unfreeze` name
//!   `begun`: no step ever matches another merge. S's epoch stays while it is frozen, and
//!   `Unfreeze` raises it. So a `Freeze` that comes late finds another epoch than `Begin` named, or
//!   is followed by `Unfreeze`.
//! - While T absorbs, and after an `Abort` until S's epoch has moved on, T does not split,
//!   freeze or change its members: each leader of S finds T's decision on its own store.
//! - The union's version is above those of both: along each key, versions only grow.
//! - Nothing is refused at apply (I9): what is proposed is checked against applied state, behind
//!   the barrier of a split (E3).
//!
//! Left out: bringing the replicas and leaders together, which is the placement driver's.

use super::invalid;
use crate::bugs::{self, Bug};
use crate::engine::WriteBatch;
use crate::event::Now;
use crate::meta::{self, Merging};
use crate::payload;
use crate::replica::ready::Round;
use crate::replica::{Completions, Ctx, Replica, Waiter};
use bytes::Bytes;
use prost::Message as _;
use rangekv_proto::internal::{self as pb, merge_entry as step, merge_entry::Step};
use rangekv_proto::{
    Epoch, RangeDescriptor, RangeId, ReplicaRole, RequestError, StoreId, INITIAL_INDEX,
    PLACEMENT_RANGE,
};
use std::collections::{BTreeMap, BTreeSet};

/// What only the leader of an absorbing range has.
pub struct Drive {
    waiter: Option<Waiter>,
    /// Monotonic ns at which the merge is given up.
    pub(crate) until_ns: u64,
    /// Stores whose replica of the source is frozen, and the index at which it is.
    pub(crate) frozen: BTreeMap<StoreId, u64>,
}

/// The reply to a merge that is done.
fn done(union: &RangeDescriptor) -> Bytes {
    let reply = pb::HeartbeatReply {
        routes: vec![pb::Route {
            range: Some(union.into()),
            leader: None,
        }],
        ..Default::default()
    };
    reply.encode_to_vec().into()
}

fn busy(waiter: Waiter, reason: String) {
    waiter.complete(Err(RequestError::Busy {
        reason,
        retry_after_ms: 100,
    }));
}

fn stores(d: &RangeDescriptor) -> BTreeSet<StoreId> {
    d.replicas.iter().map(|r| r.store).collect()
}

impl Replica {
    /// Its part in a merge, as applied.
    pub fn merging(&self) -> Option<&Merging> {
        self.merging.as_ref()
    }

    /// Whether the range serves nothing, since its left neighbour may absorb it any time.
    pub fn is_frozen(&self) -> bool {
        matches!(self.merging, Some(Merging::Frozen { .. }))
    }

    /// Whether bounds and members must stay as they are, for a merge.
    pub fn is_pinned(&self) -> bool {
        match &self.merging {
            None => false,
            Some(Merging::Absorbing { aborted: true, .. }) => !self.released,
            Some(_) => true,
        }
    }

    /// Whether bounds or members have changed since a merge was begun that was aborted later.
    pub(crate) fn has_changed_since_merge(&self) -> bool {
        match self.merging {
            Some(Merging::Absorbing { own_epoch, .. }) => self.epoch() != own_epoch,
            _ => false,
        }
    }

    /// The source of an aborted merge has moved on: nobody needs to know of it any more.
    pub(crate) fn release_merge(&mut self) {
        self.released = true;
    }

    /// Whether an admin entry may be proposed now.
    pub(crate) fn may_propose_admin(&self) -> bool {
        let raft = &self.raw.raft;
        self.lead().is_some_and(|l| l.ready)
            && !self.has_barrier()
            && !raft.has_pending_conf()
            && raft.lead_transferee.is_none()
    }

    /// Notes a merge that was asked for: the worker has both ranges, and goes on with it.
    pub(super) fn ask_merge(&mut self, waiter: Waiter, merge: pb::admin_command::Merge) {
        self.merges_asked.push((waiter, merge));
    }

    /// Why this range can't be merged now, if it can't. The bool: waiting may help.
    fn merge_obstacle(&self, ctx: &Ctx<'_>) -> Option<(bool, String)> {
        let d = self.descriptor.as_ref()?;
        let range = self.range;
        if d.id == PLACEMENT_RANGE {
            return Some((
                false,
                "range 1 is the placement driver's own and is never merged".into(),
            ));
        }
        if let Some(r) = d.replicas.iter().find(|r| r.role != ReplicaRole::Voter) {
            return Some((
                false,
                format!(
                    "replica {} of range {range} is a {:?}: all must be voters",
                    r.id, r.role
                ),
            ));
        }
        if self.is_pinned() {
            return Some((true, format!("range {range} is part of another merge")));
        }
        if !self.may_propose_admin() {
            return Some((true, format!("range {range} is changing")));
        }
        let last = self.raw.raft.raft_log.last_index();
        let lags = |p: &raft::Progress| {
            let near = p.matched + ctx.config.catch_up_entries_max >= last;
            !p.recent_active || !near || p.matched < INITIAL_INDEX
        };
        let prs = self.raw.raft.prs();
        let lagging = prs.iter().find(|(id, p)| **id != self.id.0 && lags(p));
        lagging.map(|(id, _)| (true, format!("replica p{id} of range {range} lags")))
    }

    /// Proposes to absorb `source`, which is led by the same store.
    pub(crate) fn propose_begin(
        &mut self,
        ctx: &mut Ctx<'_>,
        waiter: Waiter,
        asked: &pb::admin_command::Merge,
        source: &Replica,
    ) {
        let (Some(t), Some(s)) = (&self.descriptor, &source.descriptor) else {
            return invalid(waiter, "a range without bounds can't be merged");
        };
        let wanted = Epoch {
            conf_version: asked.source_conf_version,
            version: asked.source_version,
        };
        if s.epoch != wanted && !bugs::active(Bug::StaleEpoch) {
            let current = vec![s.clone(), t.clone()];
            return waiter.complete(Err(RequestError::EpochNotMatch { current }));
        }
        if t.end.is_empty() || t.end != s.start {
            return invalid(
                waiter,
                format!(
                    "range {} [{:?}, {:?}) is not the right neighbour of range {}, which ends at {:?}",
                    s.id, s.start, s.end, t.id, t.end
                ),
            );
        }
        if stores(t) != stores(s) {
            return invalid(
                waiter,
                format!(
                    "range {} lies on stores {:?} and range {} on {:?}: move replicas first",
                    t.id,
                    stores(t),
                    s.id,
                    stores(s)
                ),
            );
        }
        if !source.is_leader() {
            let leader = source
                .leader_hint()
                .map_or("nobody".into(), |h| format!("store {}", h.store));
            return invalid(
                waiter,
                format!(
                    "range {} is led by {leader}: transfer its leadership to the leader of range {} first",
                    s.id, t.id
                ),
            );
        }
        let obstacle = self
            .merge_obstacle(ctx)
            .or_else(|| source.merge_obstacle(ctx));
        match obstacle {
            Some((true, why)) => return busy(waiter, why),
            Some((false, why)) => return invalid(waiter, why),
            None => {}
        }
        let begin = Step::Begin(step::Begin {
            source: s.id.0,
            source_conf_version: s.epoch.conf_version,
            source_version: s.epoch.version,
        });
        if self.propose_step(ctx, begin) {
            self.drive(ctx.now, ctx.config.merge_timeout_ns()).waiter = Some(waiter);
        } else {
            waiter.complete(Err(RequestError::NotLeader {
                range: self.range,
                leader: None,
            }));
        }
    }

    /// Proposes one step; nothing else is proposed until it is applied. False if raft dropped it.
    fn propose_step(&mut self, ctx: &mut Ctx<'_>, step: Step) -> bool {
        self.propose_batch(ctx);
        if !self.is_leader() {
            return false;
        }
        tracing::info!(group = self.range.0, ?step, "merge: proposing");
        let data = payload::encode_merge(step);
        match self.propose(ctx, |raw| raw.propose(Vec::new(), data)) {
            Some(index) => {
                self.raise_barrier(index);
                true
            }
            None => false,
        }
    }

    /// What a leader knows of the merge that it drives; a new leader begins with nothing.
    pub(crate) fn drive(&mut self, now: Now, timeout_ns: u64) -> &mut Drive {
        let lead = self.lead_mut().expect("only a leader drives a merge");
        lead.merge.get_or_insert_with(|| Drive {
            waiter: None,
            until_ns: now.mono_ns + timeout_ns,
            frozen: BTreeMap::new(),
        })
    }

    /// Freezes this range for `target`'s merge.
    pub(crate) fn propose_freeze(&mut self, ctx: &mut Ctx<'_>, target: RangeId, begun: u64) {
        assert!(!self.is_pinned(), "range {} is in a merge", self.range);
        let target = target.0;
        self.propose_step(ctx, Step::Freeze(step::Freeze { target, begun }));
    }

    /// Ends the freeze of a merge that `target`'s log has given up. Also if this range was never
    /// frozen: a `Freeze` that was proposed and never heard of again can't come after this.
    pub(crate) fn propose_unfreeze(&mut self, ctx: &mut Ctx<'_>, target: RangeId, begun: u64) {
        let target = target.0;
        self.propose_step(ctx, Step::Unfreeze(step::Unfreeze { target, begun }));
    }

    /// Gives up the merge that this range began at `begun`.
    pub(crate) fn propose_abort(&mut self, ctx: &mut Ctx<'_>, begun: u64) {
        self.propose_step(ctx, Step::Abort(step::Abort { begun }));
    }

    /// Whether all replicas have the entry that began the merge: each store knows of this range.
    pub(crate) fn all_know(&self, begun: u64) -> bool {
        let mut progress = self.raw.raft.prs().iter();
        progress.all(|(_, p)| p.matched >= begun)
    }

    /// The index at which this range froze for the merge `begun` of `target`, if this replica leads
    /// it and knows that all its replicas have that entry durably: as it is committed, none of them
    /// will ever have another one there.
    pub(crate) fn frozen_on_all(&self, target: RangeId, begun: u64) -> Option<u64> {
        let index = match self.merging {
            Some(Merging::Frozen {
                target: t,
                begun: b,
                index,
            }) if (t, b) == (target, begun) && self.is_leader() => index,
            _ => return None,
        };
        let raft = &self.raw.raft;
        let mut replicas = self.descriptor.as_ref()?.replicas.iter();
        let has = |id: u64| match id == self.id.0 {
            true => raft.raft_log.persisted >= index,
            false => raft.prs().get(id).is_some_and(|p| p.matched >= index),
        };
        replicas.all(|r| has(r.id.0)).then_some(index)
    }

    /// Index of the newest `Freeze` for a merge with `target` that is durable here and not applied.
    pub(crate) fn unapplied_freeze(&self, target: RangeId) -> Option<u64> {
        let log = &self.raw.raft.raft_log;
        let (from, to) = (self.applied.index + 1, log.persisted + 1);
        if from >= to {
            return None;
        }
        let context = raft::GetEntriesContext::empty(false);
        let entries = log.slice(from, to, None, context).ok()?;
        let freezes = |entry: &&raft::eraftpb::Entry| {
            let data = entry.get_entry_type() == raft::eraftpb::EntryType::EntryNormal;
            let step = payload::decode(entry.data.clone()).ok().filter(|_| data);
            matches!(step, Some(payload::Payload::Merge(Step::Freeze(f))) if f.target == target.0)
        };
        entries.iter().rev().find(freezes).map(|entry| entry.index)
    }

    /// Absorbs `source`, which all its replicas have frozen at `frozen_at`.
    pub(crate) fn propose_commit(
        &mut self,
        ctx: &mut Ctx<'_>,
        begun: u64,
        source: &Replica,
        frozen_at: u64,
    ) {
        let (Some(t), Some(s)) = (&self.descriptor, &source.descriptor) else {
            panic!("range {} merges a range without bounds", self.range);
        };
        assert!(
            source.applied.index >= frozen_at && source.is_frozen(),
            "range {} absorbs {} frozen at {frozen_at}, applied {}",
            t.id,
            s.id,
            source.applied.index
        );
        let commit = Step::Commit(step::Commit {
            begun,
            target_version: t.epoch.version,
            source: Some(s.into()),
            frozen_at,
            clock_ms: source.applied.clock_ms,
        });
        self.propose_step(ctx, commit);
    }

    /// Applies all steps but `Commit`.
    pub(crate) fn apply_merge_step(&mut self, step: &Step, index: u64, round: &mut Round<'_>) {
        tracing::info!(
            group = self.range.0,
            ?step,
            index,
            node = self.store().0,
            "merge"
        );
        match step {
            Step::Begin(b) => {
                assert!(
                    matches!(
                        self.merging,
                        None | Some(Merging::Absorbing { aborted: true, .. })
                    ),
                    "range {} begins a merge in {:?}",
                    self.range,
                    self.merging
                );
                let absorbing = Merging::Absorbing {
                    begun: index,
                    source: RangeId(b.source),
                    source_epoch: Epoch {
                        conf_version: b.source_conf_version,
                        version: b.source_version,
                    },
                    own_epoch: self.epoch(),
                    aborted: false,
                };
                self.persist_merging(Some(absorbing), round);
            }
            Step::Abort(a) => {
                let Some(Merging::Absorbing {
                    begun,
                    source,
                    source_epoch,
                    own_epoch,
                    aborted: false,
                }) = self.merging
                else {
                    panic!("range {} aborts in {:?}", self.range, self.merging);
                };
                assert_eq!(begun, a.begun, "range {} aborts another merge", self.range);
                let aborted = Merging::Absorbing {
                    begun,
                    source,
                    source_epoch,
                    own_epoch,
                    aborted: true,
                };
                self.persist_merging(Some(aborted), round);
                if let Some(waiter) = self.take_merge_waiter() {
                    let why = format!(
                        "the merge of range {source} into range {} was given up: a replica, or \
                         the leader of range {source}, was not there in time",
                        self.range
                    );
                    let error = RequestError::Busy {
                        reason: why,
                        retry_after_ms: 1000,
                    };
                    round
                        .completions
                        .push((waiter.sink, waiter.token, Err(error)));
                }
            }
            Step::Freeze(f) => {
                assert!(
                    !matches!(
                        self.merging,
                        Some(Merging::Absorbing { aborted: false, .. } | Merging::Frozen { .. })
                    ),
                    "range {} freezes in {:?}",
                    self.range,
                    self.merging
                );
                // Before any message tells that this is committed (I8).
                self.cell().clear_lease();
                let frozen = Merging::Frozen {
                    target: RangeId(f.target),
                    begun: f.begun,
                    index,
                };
                self.persist_merging(Some(frozen), round);
            }
            Step::Unfreeze(u) => {
                if let Some(Merging::Frozen { target, begun, .. }) = self.merging {
                    assert!(
                        (target.0, begun) == (u.target, u.begun)
                            || bugs::active(Bug::AbortOfAnotherMerge),
                        "range {}: frozen for {target} {begun}, unfrozen for {u:?}",
                        self.range
                    );
                    self.persist_merging(None, round);
                }
                let mut d = self.descriptor.clone().expect("entries need a descriptor");
                // It was never frozen, as it absorbs another range itself: that merge goes on, and
                // what changes here is no sign that it is over.
                if let Some(Merging::Absorbing { own_epoch, .. }) = &mut self.merging {
                    if *own_epoch == d.epoch {
                        own_epoch.version += 1;
                        self.persist_merging(self.merging.clone(), round);
                    }
                }
                d.epoch.version += 1;
                round.batch.put(
                    meta::descriptor_key(d.id),
                    meta::encode_descriptor(self.id, &d),
                );
                self.set_descriptor(d);
            }
            Step::Commit(_) => panic!("a commit is applied by the worker"),
        }
        self.lower_barrier();
        round.noted.push(self.range);
    }

    /// Adopts the part in a merge that the state engine has.
    pub(crate) fn set_merging(&mut self, merging: Option<Merging>) {
        self.released = false;
        self.raw.mut_store().set_merging(merging.clone());
        self.merging = merging;
    }

    fn persist_merging(&mut self, merging: Option<Merging>, round: &mut Round<'_>) {
        match &merging {
            Some(m) => round.batch.put(meta::merging_key(self.range), m.encode()),
            None => round.batch.delete(meta::merging_key(self.range)),
        }
        self.set_merging(merging);
    }

    /// The commit of a merge, if it is what this range applies next.
    pub(crate) fn next_commit(&self) -> Option<step::Commit> {
        let entry = self.unapplied().front()?;
        if !payload::is_merge_commit(entry) {
            return None;
        }
        match payload::decode(entry.data.clone()) {
            Ok(payload::Payload::MergeCommit(commit)) => Some(commit),
            other => panic!(
                "range {} entry {}: {other:?}: the raft log is corrupt",
                self.range, entry.index
            ),
        }
    }

    /// Applies `commit`, which is next, into `batch`. The store's replica of the source has
    /// applied its freeze, and has no reader any more.
    pub(crate) fn absorb(
        &mut self,
        ctx: &mut Ctx<'_>,
        commit: &step::Commit,
        source: &RangeDescriptor,
        batch: &mut WriteBatch,
        completions: &mut Completions,
    ) {
        let entry = self.begin_next_entry().expect("the commit is next");
        let mut union = self.descriptor.clone().expect("entries need a descriptor");
        assert!(
            matches!(self.merging, Some(Merging::Absorbing { begun, source: s, aborted: false, .. })
                if begun == commit.begun && s == source.id),
            "range {} commits {commit:?} in {:?}",
            self.range,
            self.merging
        );
        assert_eq!(
            (union.epoch.version, &union.end),
            (commit.target_version, &source.start),
            "range {}: version and end differ from those that the merge was decided by",
            self.range
        );
        // A reader of the old bounds must not validate (I8).
        self.cell().clear_lease();
        union.end = source.end.clone();
        union.epoch.version = union.epoch.version.max(source.epoch.version) + 1;
        self.raise_clock(commit.clock_ms);
        self.set_merging(None);
        batch.delete(meta::merging_key(self.range));
        batch.put(
            meta::descriptor_key(self.range),
            meta::encode_descriptor(self.id, &union),
        );
        batch.put(meta::applied_key(self.range), self.applied.encode());
        if let Some(waiter) = self.take_merge_waiter() {
            completions.push((waiter.sink, waiter.token, Ok(done(&union))));
        }
        self.lower_barrier();
        self.set_descriptor(union);
        self.end_entry(ctx, &entry, completions);
    }

    /// The reply to one who asks again for a merge that is done.
    pub(crate) fn merged_already(&self, waiter: Waiter) {
        let d = self.descriptor.as_ref().expect("a leader is initialised");
        waiter.complete(Ok(done(d)));
    }

    fn take_merge_waiter(&mut self) -> Option<Waiter> {
        self.lead_mut()?.merge.take()?.waiter
    }
}

impl Drive {
    /// Leadership is lost: the next leader goes on, or gives the merge up.
    pub(crate) fn abandon(self, range: RangeId) {
        if let Some(waiter) = self.waiter {
            waiter.complete(Err(RequestError::OutcomeUnknown(format!(
                "range {range} lost its leader during a merge"
            ))));
        }
    }
}
