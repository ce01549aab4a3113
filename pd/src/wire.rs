//! Routes and orders, to protobuf and back.

use crate::operator::{Change, OperatorId, Order, Step};
use crate::routes::Route;
use prost::Message;
use rangekv_proto::internal as pb;
use rangekv_proto::internal::admin_command::{
    ChangeKind, ChangeReplicas, Kind, Merge, Split, TransferLeader,
};
use rangekv_proto::{
    Body, Epoch, Mark, RangeId, Replica, ReplicaId, ReplicaRole, Request, StoreId,
};

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        pb::Route {
            range: Some((&route.range).into()),
            leader: route.leader.map(Into::into),
        }
    }
}

impl TryFrom<&pb::Route> for Route {
    type Error = &'static str;

    fn try_from(route: &pb::Route) -> Result<Self, Self::Error> {
        let range = route.range.as_ref().ok_or("a route without a range")?;
        Ok(Route {
            range: range.into(),
            leader: route.leader.as_ref().map(Into::into),
        })
    }
}

impl From<&Order> for pb::Order {
    fn from(order: &Order) -> Self {
        use pb::order::Step as Wire;
        let step = match &order.step {
            Step::TransferLeader(to) => Wire::TransferLeader(to.0),
            Step::Change(changes) => Wire::ChangeReplicas(ChangeReplicas {
                conf_version: order.epoch.conf_version,
                changes: changes.iter().map(change_to_wire).collect(),
                leave_joint: false,
            }),
            Step::LeaveJoint => Wire::ChangeReplicas(ChangeReplicas {
                conf_version: order.epoch.conf_version,
                changes: Vec::new(),
                leave_joint: true,
            }),
            Step::Split(key) => Wire::Split(Split {
                key: key.clone(),
                ..Split::default()
            }),
            Step::Merge(right, epoch) => Wire::Merge(merge_to_wire(*right, *epoch)),
        };
        pb::Order {
            range: order.range.0,
            conf_version: order.epoch.conf_version,
            version: order.epoch.version,
            reason: order.reason.clone(),
            operator: order.operator.0,
            step: Some(step),
        }
    }
}

impl TryFrom<&pb::Order> for Order {
    type Error = &'static str;

    fn try_from(order: &pb::Order) -> Result<Self, Self::Error> {
        use pb::order::Step as Wire;
        let unknown = "an order that this version doesn't know";
        let step = match order.step.as_ref().ok_or(unknown)? {
            Wire::TransferLeader(to) => Step::TransferLeader(StoreId(*to)),
            Wire::ChangeReplicas(change) if change.leave_joint => Step::LeaveJoint,
            Wire::ChangeReplicas(change) => {
                Step::Change(change.changes.iter().map(change_from_wire).collect())
            }
            Wire::Split(split) => Step::Split(split.key.clone()),
            Wire::Merge(merge) => {
                let epoch = Epoch {
                    conf_version: merge.source_conf_version,
                    version: merge.source_version,
                };
                Step::Merge(RangeId(merge.source), epoch)
            }
        };
        Ok(Order {
            operator: OperatorId(order.operator),
            range: RangeId(order.range),
            epoch: Epoch {
                conf_version: order.conf_version,
                version: order.version,
            },
            step,
            reason: order.reason.clone(),
        })
    }
}

fn merge_to_wire(right: RangeId, epoch: Epoch) -> Merge {
    Merge {
        source: right.0,
        source_conf_version: epoch.conf_version,
        source_version: epoch.version,
    }
}

fn change_to_wire(change: &Change) -> pb::admin_command::Change {
    let (kind, replica, store) = match change {
        Change::AddLearner(store) => (ChangeKind::AddLearner, ReplicaId(0), *store),
        Change::Promote(r) => (ChangeKind::Promote, r.id, r.store),
        Change::Demote(r) => (ChangeKind::Demote, r.id, r.store),
        Change::RemoveLearner(r) => (ChangeKind::RemoveLearner, r.id, r.store),
    };
    pb::admin_command::Change {
        kind: kind as i32,
        replica: replica.0,
        store: store.0,
    }
}

fn change_from_wire(change: &pb::admin_command::Change) -> Change {
    let replica = |role| Replica {
        id: ReplicaId(change.replica),
        store: StoreId(change.store),
        role,
    };
    match change.kind() {
        ChangeKind::AddLearner => Change::AddLearner(StoreId(change.store)),
        ChangeKind::Promote => Change::Promote(replica(ReplicaRole::Learner)),
        ChangeKind::Demote => Change::Demote(replica(ReplicaRole::Voter)),
        ChangeKind::RemoveLearner => Change::RemoveLearner(replica(ReplicaRole::Learner)),
    }
}

impl Order {
    /// How many ids carrying it out takes, of a range with `replicas` replicas.
    pub fn ids_needed(&self, replicas: usize) -> u64 {
        match &self.step {
            Step::TransferLeader(_) | Step::LeaveJoint | Step::Merge(..) => 0,
            Step::Change(changes) => {
                let added = changes
                    .iter()
                    .filter(|c| matches!(c, Change::AddLearner(_)));
                added.count() as u64
            }
            Step::Split(_) => 1 + replicas as u64,
        }
    }

    /// The request by which the range's leader carries it out, with ids from `first_id` on: as
    /// many as [`ids_needed`](Self::ids_needed) says. A split without a key must be given one.
    pub fn request(&self, first_id: u64, replicas: usize) -> Request {
        let kind = match &self.step {
            Step::TransferLeader(to) => Kind::TransferLeader(TransferLeader { store: to.0 }),
            Step::Change(changes) => {
                let mut ids = first_id..;
                let mut change = |c: &Change| {
                    let mut wire = change_to_wire(c);
                    if wire.replica == 0 {
                        wire.replica = ids.next().expect("endless");
                    }
                    wire
                };
                Kind::ChangeReplicas(ChangeReplicas {
                    conf_version: self.epoch.conf_version,
                    changes: changes.iter().map(&mut change).collect(),
                    leave_joint: false,
                })
            }
            Step::LeaveJoint => Kind::ChangeReplicas(ChangeReplicas {
                conf_version: self.epoch.conf_version,
                changes: Vec::new(),
                leave_joint: true,
            }),
            Step::Split(key) => Kind::Split(Split {
                key: key.clone(),
                new_range: first_id,
                new_replicas: (first_id + 1..).take(replicas).collect(),
            }),
            Step::Merge(right, epoch) => Kind::Merge(merge_to_wire(*right, *epoch)),
        };
        let command = pb::AdminCommand { kind: Some(kind) };
        Request {
            range: self.range,
            version: self.epoch.version,
            term: 0,
            mark: Mark::NONE,
            body: Body::Admin(command.encode_to_vec().into()),
        }
    }
}
