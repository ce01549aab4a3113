//! Who holds a range: the placement driver is given the wish, and sees to it step by step.
//!
//! An operator is lost when the placement driver's leader moves, which removing a member of its
//! own group may bring about. So the wish is what lasts: it is given again until the range's
//! leader says that the range is so.

use super::failure::Failure;
use super::groups::leader_status;
use super::{CALL_TIME_MAX, LOOK};
use crate::ctl::server::ask;
use crate::ctl::wire::{CtlCommand, ManualChange, OperatorInfo};
use crate::node::running::Running;
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaRole, StoreId};
use std::time::{Duration, Instant};

/// An operator that failed may have been given up for a reason that is past, but not often.
const TRIES_MAX: u32 = 3;

/// What somebody wants of a range's members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// A voter there, which is a learner until it has caught up.
    Voter(StoreId),
    /// A learner there, where there is nothing yet.
    Learner(StoreId),
    /// The learner there becomes a voter.
    Promoted(StoreId),
    /// The voter there becomes a learner.
    Demoted(StoreId),
    /// Nothing there.
    Gone(StoreId),
    /// The replica on the first store is replaced by one on the second.
    Moved(StoreId, StoreId),
}

/// How a wish stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// The range is so.
    Met,
    /// It is neither so nor not: a membership change is half done.
    Between,
    /// The placement driver must be given this.
    Order(ManualChange),
    /// It can't be; why.
    Vain(String),
}

impl Wish {
    /// How it stands with `range` as it is.
    pub fn outlook(self, range: &RangeDescriptor) -> Outlook {
        use Outlook::{Between, Met, Order, Vain};
        let id = range.id;
        let role = |store| range.replica_on(store).map(|r| r.role);
        let is_learner = |role: ReplicaRole| role == ReplicaRole::Learner;
        let nothing = |store: StoreId| Vain(format!("store {store} has no replica of range {id}"));
        let voter_there = |store: StoreId| {
            Vain(format!(
                "store {store} has a voter of range {id}; demote it if it shall be a learner"
            ))
        };
        let add = |store: StoreId, voter| {
            let store = store.0;
            Order(ManualChange::Add { store, voter })
        };
        match (self, range.is_joint()) {
            (_, true) => Between,
            (Self::Voter(store), _) => match role(store).map(is_learner) {
                None => add(store, true),
                Some(true) => Order(ManualChange::Promote { store: store.0 }),
                Some(false) => Met,
            },
            (Self::Learner(store), _) => match role(store).map(is_learner) {
                None => add(store, false),
                Some(true) => Met,
                Some(false) => voter_there(store),
            },
            (Self::Promoted(store), _) => match role(store).map(is_learner) {
                None => nothing(store),
                Some(true) => Order(ManualChange::Promote { store: store.0 }),
                Some(false) => Met,
            },
            (Self::Demoted(store), _) => match role(store).map(is_learner) {
                None => nothing(store),
                Some(true) => Met,
                Some(false) => Order(ManualChange::Demote { store: store.0 }),
            },
            (Self::Gone(store), _) => match role(store) {
                None => Met,
                Some(_) => Order(ManualChange::Remove { store: store.0 }),
            },
            (Self::Moved(from, to), _) => match (role(from), role(to)) {
                (None, Some(_)) => Met,
                (None, None) => nothing(from),
                (Some(_), _) => {
                    let (from, to) = (from.0, to.0);
                    Order(ManualChange::Move { from, to })
                }
            },
        }
    }
}

/// How far a wish has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pursuit {
    /// The range is so.
    Met(RangeDescriptor),
    /// It goes on; what it waits for.
    UnderWay(String),
}

/// Sees to it that `wish` is met, for as long as `patience` lasts. May be asked for again.
pub async fn pursue(
    node: &Running,
    range: RangeId,
    wish: Wish,
    patience: Duration,
) -> Result<Pursuit, Failure> {
    let until = Instant::now() + patience;
    let mut following: Option<OperatorInfo> = None;
    let mut given = 0;
    loop {
        let problem = match leader_status(node, range, CALL_TIME_MAX.min(patience)).await {
            Ok((_, descriptor)) => match (wish.outlook(&descriptor), &following) {
                (Outlook::Met, _) => return Ok(Pursuit::Met(descriptor)),
                (Outlook::Vain(why), _) => return Err(Failure::Refused(why)),
                (Outlook::Between, _) => "a membership change is half done".into(),
                (Outlook::Order(change), None) => {
                    if given == TRIES_MAX {
                        let why = format!("range {range} is not as wished after {given} operators");
                        return Err(Failure::Refused(why));
                    }
                    given += 1;
                    match ask(
                        node,
                        &CtlCommand::RangeChange {
                            range: range.0,
                            change,
                        },
                    )
                    .await
                    {
                        Ok(operator) => {
                            following = Some(operator);
                            String::new()
                        }
                        Err(Failure::Unavailable(why) | Failure::Unknown(why)) => {
                            given -= 1;
                            why
                        }
                        Err(refused) => return Err(refused),
                    }
                }
                (Outlook::Order(_), Some(operator)) => {
                    let show = CtlCommand::OperatorShow { id: operator.id };
                    match ask::<Option<OperatorInfo>>(node, &show).await {
                        Ok(Some(now)) if now.state == "running" => now.detail,
                        Ok(Some(now)) if now.state == "failed" => {
                            return Err(Failure::Refused(format!(
                                "operator {} ({}) failed: {}",
                                now.id, now.goal, now.detail
                            )));
                        }
                        // It has ended, or its leader has: look at the range once more.
                        Ok(_) => {
                            following = None;
                            "its operator has ended".into()
                        }
                        Err(failure) => failure.to_string(),
                    }
                }
            },
            Err(Failure::Unavailable(why)) => why,
            Err(failure) => return Err(failure),
        };
        if Instant::now() >= until {
            return Ok(Pursuit::UnderWay(problem));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::{Epoch, Replica, ReplicaId};

    #[test]
    fn outlooks() {
        use ReplicaRole::{DemotingVoter, Learner, Voter};
        let range = |roles: &[ReplicaRole]| RangeDescriptor {
            id: RangeId(7),
            start: bytes::Bytes::new(),
            end: bytes::Bytes::new(),
            epoch: Epoch::default(),
            replicas: (1..)
                .zip(roles)
                .map(|(n, role)| Replica {
                    id: ReplicaId(10 + n),
                    store: StoreId(n),
                    role: *role,
                })
                .collect(),
        };
        let two = range(&[Voter, Learner]);
        let joint = range(&[Voter, DemotingVoter]);
        let s = StoreId;
        let order = Outlook::Order;
        for (range, wish, outlook) in [
            (&two, Wish::Voter(s(1)), Outlook::Met),
            (
                &two,
                Wish::Voter(s(2)),
                order(ManualChange::Promote { store: 2 }),
            ),
            (
                &two,
                Wish::Voter(s(3)),
                order(ManualChange::Add {
                    store: 3,
                    voter: true,
                }),
            ),
            (&two, Wish::Learner(s(2)), Outlook::Met),
            (
                &two,
                Wish::Learner(s(3)),
                order(ManualChange::Add {
                    store: 3,
                    voter: false,
                }),
            ),
            (&two, Wish::Promoted(s(1)), Outlook::Met),
            (
                &two,
                Wish::Demoted(s(1)),
                order(ManualChange::Demote { store: 1 }),
            ),
            (&two, Wish::Demoted(s(2)), Outlook::Met),
            (
                &two,
                Wish::Gone(s(1)),
                order(ManualChange::Remove { store: 1 }),
            ),
            (&two, Wish::Gone(s(3)), Outlook::Met),
            (
                &two,
                Wish::Moved(s(1), s(3)),
                order(ManualChange::Move { from: 1, to: 3 }),
            ),
            (&two, Wish::Moved(s(3), s(1)), Outlook::Met),
            (&joint, Wish::Gone(s(3)), Outlook::Between),
        ] {
            assert_eq!(wish.outlook(range), outlook, "{wish:?}");
        }
        for wish in [
            Wish::Learner(s(1)),
            Wish::Promoted(s(3)),
            Wish::Demoted(s(3)),
            Wish::Moved(s(3), s(4)),
        ] {
            assert!(matches!(wish.outlook(&two), Outlook::Vain(_)), "{wish:?}");
        }
    }
}
