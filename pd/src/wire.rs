//! Routes and operators, to protobuf and back.

use crate::routes::Route;
use crate::schedule::{Operator, Step};
use prost::Message;
use rangekv_proto::internal as pb;
use rangekv_proto::{Body, Epoch, RangeId, Request, StoreId};

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

impl From<&Operator> for pb::Operator {
    fn from(operator: &Operator) -> Self {
        let Step::TransferLeader(to) = operator.step;
        pb::Operator {
            range: operator.range.0,
            conf_version: operator.epoch.conf_version,
            version: operator.epoch.version,
            reason: operator.reason.clone(),
            step: Some(pb::operator::Step::TransferLeader(to.0)),
        }
    }
}

impl TryFrom<&pb::Operator> for Operator {
    type Error = &'static str;

    fn try_from(operator: &pb::Operator) -> Result<Self, Self::Error> {
        let step = match operator
            .step
            .ok_or("an operator that this version doesn't know")?
        {
            pb::operator::Step::TransferLeader(to) => Step::TransferLeader(StoreId(to)),
        };
        Ok(Operator {
            range: RangeId(operator.range),
            epoch: Epoch {
                conf_version: operator.conf_version,
                version: operator.version,
            },
            step,
            reason: operator.reason.clone(),
        })
    }
}

impl Operator {
    /// The request by which the range's leader carries it out.
    pub fn request(&self) -> Request {
        let Step::TransferLeader(to) = self.step;
        let kind = pb::admin_command::Kind::TransferLeader(pb::admin_command::TransferLeader {
            store: to.0,
        });
        let command = pb::AdminCommand { kind: Some(kind) };
        Request {
            range: self.range,
            version: self.epoch.version,
            term: 0,
            body: Body::Admin(command.encode_to_vec().into()),
        }
    }
}
