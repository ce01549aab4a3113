//! Changes a range's members.
//!
//! Propose: `conf_version` must be the current one; no other change, split or merge is under way; the
//!   leader itself is never demoted (transfer first); a voter is never removed, it is demoted
//!   to learner first; a learner is promoted once it has caught up. One
//!   change of a voter is a simple change; more enter a joint configuration, which is left
//!   explicitly (`leave_joint`): raft's `auto_leave` may never fire across a leader change.
//! Apply: raft's configuration and the descriptor change together, in the entry's write batch.
//! After apply: a removed replica stays until a member tells it that it is gone. A replica that
//!   was elected between its demotion's proposal and application, or in the joint configuration
//!   that demotes it, hands its leadership over: raft itself would let it lead on, even removed.
//!
//! Invariant: the descriptor and raft's configuration always say the same.

use super::invalid;
use crate::meta;
use crate::replica::ready::Round;
use crate::replica::{Ctx, Replica, Waiter};
use crate::storage::conf_state;
use bytes::Bytes;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType,
};
use rangekv_proto::internal::admin_command::{ChangeKind, ChangeReplicas};
use rangekv_proto::{RangeDescriptor, ReplicaId, ReplicaRole, RequestError, StoreId};

impl Replica {
    pub(super) fn propose_conf_change(
        &mut self,
        ctx: &mut Ctx<'_>,
        waiter: Waiter,
        change: ChangeReplicas,
    ) {
        let d = self
            .descriptor
            .clone()
            .expect("only an initialised replica leads");
        if change.conf_version != d.epoch.conf_version {
            return invalid(
                waiter,
                format!(
                    "conf_version {} given, range {} is at {}",
                    change.conf_version, d.id, d.epoch.conf_version
                ),
            );
        }
        if self.raw.raft.has_pending_conf() {
            return waiter.complete(Err(RequestError::Busy {
                reason: format!("range {} is changing its members", d.id),
                retry_after_ms: 100,
            }));
        }
        if self.is_pinned() {
            return waiter.complete(Err(RequestError::Busy {
                reason: format!("range {} is part of a merge", d.id),
                retry_after_ms: 100,
            }));
        }
        if let Err(why) = self.check_change(ctx, &d, &change) {
            return invalid(waiter, why);
        }
        let after = changed(&d, &change);
        let cc = raft_change(&change);
        let context = change.encode_to_vec();
        match self.propose(ctx, |raw| raw.propose_conf_change(context, cc)) {
            Some(index) => {
                let log = &self.raw.raft.raft_log;
                let last = log.unstable_entries().last().expect("just appended");
                assert!(
                    last.index == index && last.get_entry_type() == EntryType::EntryConfChangeV2,
                    "raft replaced a configuration change by an empty entry"
                );
                self.reply_at(ctx, index, waiter, after.encode(), true);
            }
            None => waiter.complete(Err(RequestError::NotLeader {
                range: self.range,
                leader: None,
            })),
        }
    }

    fn check_change(
        &self,
        ctx: &Ctx<'_>,
        d: &RangeDescriptor,
        change: &ChangeReplicas,
    ) -> Result<(), String> {
        if change.leave_joint {
            return match (d.is_joint(), change.changes.is_empty()) {
                (true, true) if self.must_hand_over() => Err(format!(
                    "replica {} leads and is being demoted; the leadership moves first",
                    self.id
                )),
                (true, true) => Ok(()),
                (false, _) => Err(format!("range {} is in no joint configuration", d.id)),
                (_, false) => Err("leave_joint comes without changes".into()),
            };
        }
        if change.changes.is_empty() {
            return Err("a membership change without changes".into());
        }
        if d.is_joint() {
            return Err(format!(
                "range {} is in a joint configuration; leave it first",
                d.id
            ));
        }
        if change.changes.len() > 1 && !enters_joint(change) {
            // raft would enter a joint configuration for these as well, and leave it by itself.
            return Err("only promotions and demotions can be made several at once".into());
        }
        for (i, c) in change.changes.iter().enumerate() {
            let (id, store) = (ReplicaId(c.replica), StoreId(c.store));
            if change.changes[..i].iter().any(|o| o.replica == c.replica) {
                return Err(format!("replica {id} is changed twice"));
            }
            let member = d.replicas.iter().find(|r| r.id == id);
            let role = member.map(|r| r.role);
            match (c.kind(), role) {
                (ChangeKind::AddLearner, None) => {
                    if id.0 == 0 || store.0 == 0 {
                        return Err("a new replica needs an id and a store".into());
                    }
                    if let Some(there) = d.replica_on(store) {
                        return Err(format!(
                            "store {store} has replica {} of range {} already",
                            there.id, d.id
                        ));
                    }
                }
                (ChangeKind::AddLearner, Some(_)) => {
                    return Err(format!("replica {id} is a member already"))
                }
                (ChangeKind::Promote, Some(ReplicaRole::Learner)) => {
                    let last = self.raw.raft.raft_log.last_index();
                    let matched = self.raw.raft.prs().get(id.0).map_or(0, |p| p.matched);
                    if matched + ctx.config.catch_up_entries_max < last || matched == 0 {
                        return Err(format!(
                            "replica {id} has {matched} of {last} entries: it must catch up first"
                        ));
                    }
                }
                (ChangeKind::Demote, Some(ReplicaRole::Voter)) if id == self.id => {
                    return Err(format!("replica {id} leads; transfer the leadership first"));
                }
                (ChangeKind::Demote, Some(ReplicaRole::Voter)) => {
                    if d.replicas
                        .iter()
                        .filter(|r| r.role == ReplicaRole::Voter)
                        .count()
                        < 2
                    {
                        return Err(format!("replica {id} is the only voter"));
                    }
                }
                (ChangeKind::RemoveLearner, Some(ReplicaRole::Learner)) if id == self.id => {
                    return Err(format!("replica {id} leads; the leadership moves first"));
                }
                (ChangeKind::RemoveLearner, Some(ReplicaRole::Learner)) => {}
                (ChangeKind::RemoveLearner, Some(_)) => {
                    return Err(format!("replica {id} votes; demote it first"));
                }
                (kind, role) => {
                    return Err(format!("{kind:?} of replica {id}, whose role is {role:?}"))
                }
            }
        }
        Ok(())
    }

    pub(crate) fn apply_conf_change(&mut self, entry: &Entry, round: &mut Round<'_>) {
        let corrupt = |what: &str| -> ! {
            panic!(
                "range {} entry {}: {what}: the raft log is corrupt",
                self.range, entry.index
            )
        };
        let mut cc = ConfChangeV2::default();
        if cc.merge_from_bytes(&entry.data).is_err() {
            corrupt("configuration change");
        }
        let Ok(change) = ChangeReplicas::decode(Bytes::clone(&entry.context)) else {
            corrupt("change context")
        };
        let before = self
            .descriptor
            .clone()
            .expect("an uninitialised replica has no entries");
        let after = changed(&before, &change);
        let now = self
            .raw
            .apply_conf_change(&cc)
            .unwrap_or_else(|e| panic!("range {} entry {}: {e}", self.range, entry.index));
        assert!(
            same(&now, &conf_state(&after)),
            "raft says {now:?}, the descriptor says {:?}",
            conf_state(&after)
        );
        tracing::info!(group = self.range.0, members = ?after.replicas, "membership changed");
        round.batch.put(
            meta::descriptor_key(self.range),
            meta::encode_descriptor(self.id, &after),
        );
        self.set_descriptor(after);
    }
}

fn same(a: &ConfState, b: &ConfState) -> bool {
    let sorted = |v: &[u64]| {
        let mut v = v.to_vec();
        v.sort_unstable();
        v
    };
    sorted(&a.voters) == sorted(&b.voters)
        && sorted(&a.voters_outgoing) == sorted(&b.voters_outgoing)
        && sorted(&a.learners) == sorted(&b.learners)
        && sorted(&a.learners_next) == sorted(&b.learners_next)
}

/// Whether a change enters a joint configuration: it changes more than one voter.
fn enters_joint(change: &ChangeReplicas) -> bool {
    let voters = |c: &&_| matches!(kind_of(c), ChangeKind::Promote | ChangeKind::Demote);
    change.changes.iter().filter(voters).count() > 1
}

fn kind_of(c: &rangekv_proto::internal::admin_command::Change) -> ChangeKind {
    c.kind()
}

pub(crate) fn raft_change(change: &ChangeReplicas) -> ConfChangeV2 {
    let mut cc = ConfChangeV2::default();
    if change.leave_joint {
        return cc;
    }
    for c in &change.changes {
        let mut single = ConfChangeSingle {
            node_id: c.replica,
            ..Default::default()
        };
        single.set_change_type(match c.kind() {
            ChangeKind::AddLearner | ChangeKind::Demote => ConfChangeType::AddLearnerNode,
            ChangeKind::Promote => ConfChangeType::AddNode,
            ChangeKind::RemoveLearner => ConfChangeType::RemoveNode,
        });
        cc.mut_changes().push(single);
    }
    cc.set_transition(if enters_joint(change) {
        ConfChangeTransition::Explicit
    } else {
        ConfChangeTransition::Auto
    });
    cc
}

/// The descriptor after a change that was checked when it was proposed.
pub(crate) fn changed(d: &RangeDescriptor, change: &ChangeReplicas) -> RangeDescriptor {
    let mut after = d.clone();
    after.epoch.conf_version += change.changes.len().max(1) as u64;
    if change.leave_joint {
        for r in &mut after.replicas {
            r.role = match r.role {
                ReplicaRole::IncomingVoter => ReplicaRole::Voter,
                ReplicaRole::DemotingVoter => ReplicaRole::Learner,
                role => role,
            };
        }
        return after;
    }
    let joint = enters_joint(change);
    for c in &change.changes {
        let id = ReplicaId(c.replica);
        let role = match (c.kind(), joint) {
            (ChangeKind::AddLearner, _) => {
                let replica = rangekv_proto::Replica {
                    id,
                    store: StoreId(c.store),
                    role: ReplicaRole::Learner,
                };
                after.replicas.push(replica);
                continue;
            }
            (ChangeKind::RemoveLearner, _) => {
                after.replicas.retain(|r| r.id != id);
                continue;
            }
            (ChangeKind::Promote, false) => ReplicaRole::Voter,
            (ChangeKind::Promote, true) => ReplicaRole::IncomingVoter,
            (ChangeKind::Demote, false) => ReplicaRole::Learner,
            (ChangeKind::Demote, true) => ReplicaRole::DemotingVoter,
        };
        if let Some(r) = after.replicas.iter_mut().find(|r| r.id == id) {
            r.role = role;
        }
    }
    after
}
