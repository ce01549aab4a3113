//! A range that does what it is ordered, as the engine would; for tests of what is ordered.

use rangekv_pd::operator::{Change, Goal, Step};
use rangekv_pd::plan::{next, Next};
use rangekv_pd::view::{RangeView, StoreView};
use rangekv_proto::{Replica, ReplicaId, ReplicaRole, StoreId};
use std::collections::BTreeSet;

/// Carries out `step`, checking what the engine would refuse. `id` is for a new replica, which
/// lags until it is said to have caught up.
pub fn apply(range: &mut RangeView, step: &Step, id: u64) {
    let leader = range.leader.expect("orders go to a leader");
    let roles = |range: &RangeView, voting: fn(ReplicaRole) -> bool| {
        let voting = range.range.replicas.iter().filter(|r| voting(r.role));
        voting.count()
    };
    match step {
        Step::TransferLeader(to) => {
            let replica = range.range.replica_on(*to).expect("a replica there");
            assert_eq!(replica.role, ReplicaRole::Voter, "{range:?}");
            assert!(!range.range.is_joint());
            range.leader = Some(*to);
        }
        Step::Change(changes) => {
            assert!(!range.range.is_joint(), "{range:?}");
            range.range.epoch.conf_version += changes.len() as u64;
            let votes = |c: &&Change| matches!(c, Change::Promote(_) | Change::Demote(_));
            let joint = changes.iter().filter(votes).count() > 1;
            assert!(joint || changes.len() == 1, "raft would make it joint");
            for change in changes {
                match change {
                    Change::AddLearner(store) => {
                        assert!(range.range.replica_on(*store).is_none());
                        let id = ReplicaId(id);
                        range.range.replicas.push(Replica {
                            id,
                            store: *store,
                            role: ReplicaRole::Learner,
                        });
                        range.lagging.insert(id);
                    }
                    Change::RemoveLearner(r) => {
                        assert_eq!(role(range, r.id), ReplicaRole::Learner);
                        assert_ne!(r.store, leader, "the leader is not removed");
                        range.range.replicas.retain(|m| m.id != r.id);
                        range.lagging.remove(&r.id);
                    }
                    Change::Promote(r) => {
                        assert_eq!(role(range, r.id), ReplicaRole::Learner);
                        assert!(!range.lagging.contains(&r.id), "caught up first");
                        let to =
                            [ReplicaRole::Voter, ReplicaRole::IncomingVoter][usize::from(joint)];
                        set_role(range, r.id, to);
                    }
                    Change::Demote(r) => {
                        assert_eq!(role(range, r.id), ReplicaRole::Voter);
                        assert_ne!(r.store, leader, "the leader is not demoted");
                        let to =
                            [ReplicaRole::Learner, ReplicaRole::DemotingVoter][usize::from(joint)];
                        set_role(range, r.id, to);
                    }
                }
            }
            assert!(
                roles(range, |r| r == ReplicaRole::Voter
                    || r == ReplicaRole::IncomingVoter)
                    > 0
            );
        }
        Step::LeaveJoint => {
            assert!(range.range.is_joint());
            range.range.epoch.conf_version += 1;
            for r in &mut range.range.replicas {
                r.role = match r.role {
                    ReplicaRole::IncomingVoter => ReplicaRole::Voter,
                    ReplicaRole::DemotingVoter => ReplicaRole::Learner,
                    role => role,
                };
            }
        }
        Step::Split(_) | Step::Merge(..) => range.range.epoch.version += 1,
    }
}

/// Every learner has caught up.
pub fn catch_up(range: &mut RangeView, stores: &[StoreView]) {
    let live: BTreeSet<StoreId> = stores.iter().filter(|s| s.live).map(|s| s.id).collect();
    let learners = range.range.replicas.iter();
    let learners = learners.filter(|r| r.role == ReplicaRole::Learner && live.contains(&r.store));
    for id in learners.map(|r| r.id).collect::<Vec<_>>() {
        range.lagging.remove(&id);
    }
}

/// Carries out steps until `goal` is reached or waits for what doesn't come; returns them, and
/// why it stopped short.
#[allow(dead_code)]
pub fn pursue(
    range: &mut RangeView,
    goal: &Goal,
    stores: &[StoreView],
) -> (Vec<Step>, Option<String>) {
    let mut steps = Vec::new();
    for _ in 0..50 {
        match next(goal, range, stores) {
            Next::Done => return (steps, None),
            Next::Fail(why) => return (steps, Some(format!("failed: {why}"))),
            Next::Wait(what) => {
                let before = range.clone();
                catch_up(range, stores);
                if *range == before {
                    return (steps, Some(format!("waits: {what}")));
                }
            }
            Next::Step(step) => {
                let newest = range
                    .range
                    .replicas
                    .iter()
                    .map(|r| r.id.0)
                    .max()
                    .unwrap_or(0);
                apply(range, &step, newest + 1);
                steps.push(step);
                if matches!(goal, Goal::Split(_) | Goal::Merge(..)) {
                    return (steps, None);
                }
            }
        }
    }
    panic!("{goal} is never reached: {steps:?}");
}

fn role(range: &RangeView, id: ReplicaId) -> ReplicaRole {
    let member = range.range.replicas.iter().find(|r| r.id == id);
    member
        .unwrap_or_else(|| panic!("{id} is no member of {range:?}"))
        .role
}

fn set_role(range: &mut RangeView, id: ReplicaId, role: ReplicaRole) {
    let mut members = range.range.replicas.iter_mut();
    members.find(|r| r.id == id).expect("a member").role = role;
}
