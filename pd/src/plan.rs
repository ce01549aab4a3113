//! The next step from what a range is to what it should be.
//!
//! For a placement, in this order, whatever the range looks like now:
//! 1. A joint configuration is left first; nothing else can change the members meanwhile.
//! 2. Learners are added where replicas are missing, one at a time.
//! 3. When those that shall vote have caught up, and not before, voters change: all promotions
//!    and demotions in one joint configuration. The group is never of even size in
//!    between, and never without a replica that it had.
//! 4. The leader is never demoted: it hands over first, to one that stays.
//! 5. Demoted replicas are learners then, and are removed as such. A voter is never removed.
//!
//! Safety of 3: among those that vote afterwards there are as many healthy ones as among those
//! that vote now, or all; a majority of them in any case.

use crate::operator::{Change, Goal, Step};
use crate::view::{find, name, RangeView, StoreView};
use rangekv_proto::{Replica, ReplicaRole, StoreId};
use std::collections::BTreeSet;

/// What to do next about a goal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The range is what it should be.
    Done,
    /// This.
    Step(Step),
    /// Nothing, until this has changed.
    Wait(String),
    /// It can't become what it should be.
    Fail(String),
}

/// The next step of `range` towards `goal`.
pub fn next(goal: &Goal, range: &RangeView, stores: &[StoreView]) -> Next {
    if range.leader.is_none() {
        return Next::Wait("nobody leads the range".into());
    }
    match goal {
        Goal::Lead(to) => lead(*to, range, stores),
        Goal::Place { voters, learners } => place(voters, learners, range, stores),
        Goal::Split(_) | Goal::Merge(..) if range.range.is_joint() => {
            Next::Wait("a membership change is half done".into())
        }
        Goal::Split(key) => Next::Step(Step::Split(key.clone())),
        Goal::Merge(right, epoch) => Next::Step(Step::Merge(*right, *epoch)),
    }
}

fn lead(to: StoreId, range: &RangeView, stores: &[StoreView]) -> Next {
    if range.leader == Some(to) {
        return Next::Done;
    }
    match range.range.replica_on(to) {
        _ if !find(stores, to).is_some_and(|s| s.live) => {
            Next::Fail(format!("{} is silent", name(stores, to)))
        }
        Some(r) if r.role != ReplicaRole::Voter => {
            Next::Fail(format!("the replica on {} has no vote", name(stores, to)))
        }
        Some(r) if range.lagging.contains(&r.id) => {
            Next::Wait(format!("the replica on {} lags", name(stores, to)))
        }
        Some(_) => Next::Step(Step::TransferLeader(to)),
        None => Next::Fail(format!("{} has no replica of it", name(stores, to))),
    }
}

fn place(
    voters: &BTreeSet<StoreId>,
    learners: &BTreeSet<StoreId>,
    range: &RangeView,
    stores: &[StoreView],
) -> Next {
    let replicas = &range.range.replicas;
    let leader = range.leader.expect("checked by next");
    if range.range.is_joint() {
        let demoted = replicas
            .iter()
            .any(|r| r.store == leader && r.role == ReplicaRole::DemotingVoter);
        return match demoted {
            true => Next::Wait("the leader, which is being demoted, hands over".into()),
            false => Next::Step(Step::LeaveJoint),
        };
    }
    if let Some(missing) = voters
        .union(learners)
        .find(|s| range.range.replica_on(**s).is_none())
    {
        return match find(stores, *missing) {
            Some(store) if store.live => {
                Next::Step(Step::Change(vec![Change::AddLearner(*missing)]))
            }
            _ => Next::Fail(format!("{} is silent", name(stores, *missing))),
        };
    }
    let promoted: Vec<&Replica> = replicas
        .iter()
        .filter(|r| r.role == ReplicaRole::Learner && voters.contains(&r.store))
        .collect();
    for learner in &promoted {
        let there = name(stores, learner.store);
        if !find(stores, learner.store).is_some_and(|s| s.live) {
            return Next::Fail(format!("{there} fell silent before it had caught up"));
        }
        if range.lagging.contains(&learner.id) {
            return Next::Wait(format!("the replica on {there} catches up"));
        }
    }
    let demoted: Vec<&Replica> = replicas
        .iter()
        .filter(|r| r.role == ReplicaRole::Voter && !voters.contains(&r.store))
        .collect();
    if !promoted.is_empty() || !demoted.is_empty() {
        return exchange(voters, promoted, demoted, range, stores);
    }
    let extra = replicas
        .iter()
        .find(|r| !voters.contains(&r.store) && !learners.contains(&r.store));
    match extra {
        // It was demoted while it was elected; the store sees to it that it hands over.
        Some(r) if r.store == leader => Next::Wait("the leader, a learner, hands over".into()),
        Some(r) => Next::Step(Step::Change(vec![Change::RemoveLearner(*r)])),
        None => Next::Done,
    }
}

/// Steps 3 and 4.
fn exchange(
    voters: &BTreeSet<StoreId>,
    promoted: Vec<&Replica>,
    demoted: Vec<&Replica>,
    range: &RangeView,
    stores: &[StoreView],
) -> Next {
    let healthy = |s: &StoreId| range.is_healthy(stores, *s);
    let promote = || promoted.iter().map(|r| Change::Promote(**r));
    // Who is gone since it was chosen does not come back: others are to be chosen.
    let gone = voters
        .iter()
        .find(|s| find(stores, **s).is_none_or(|s| s.lost));
    let wait = |what: String| match gone {
        Some(store) => Next::Fail(format!("{} is gone", name(stores, *store))),
        None => Next::Wait(what),
    };
    if demoted.iter().any(|r| Some(r.store) == range.leader) {
        let stays = range
            .voters()
            .map(|r| r.store)
            .find(|s| voters.contains(s) && healthy(s));
        return match stays {
            Some(to) => Next::Step(Step::TransferLeader(to)),
            // Of one voter nobody stays: for a moment there are two, or more.
            None if !promoted.is_empty() => Next::Step(Step::Change(promote().collect())),
            None => wait("none of those that stay is fit to lead".into()),
        };
    }
    let after = voters.iter().filter(|s| healthy(s)).count();
    let now = range.voters().filter(|r| healthy(&r.store)).count();
    if after < now.min(voters.len()) || after * 2 <= voters.len() {
        return wait(format!(
            "only {after} of the {} that are to vote are healthy",
            voters.len()
        ));
    }
    let demote = demoted.into_iter().map(|r| Change::Demote(*r));
    Next::Step(Step::Change(promote().chain(demote).collect()))
}
