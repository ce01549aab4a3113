//! Domain types to protobuf and back. Decoding rejects what the domain type can't hold.

use crate::internal as pb;
use crate::types::*;
use bytes::Bytes;
use prost::Message;

impl From<&RangeDescriptor> for pb::RangeDescriptor {
    fn from(d: &RangeDescriptor) -> Self {
        pb::RangeDescriptor {
            id: d.id.0,
            start: d.start.clone(),
            end: d.end.clone(),
            conf_version: d.epoch.conf_version,
            version: d.epoch.version,
            replicas: d
                .replicas
                .iter()
                .map(|r| pb::Replica {
                    id: r.id.0,
                    store: r.store.0,
                    role: match r.role {
                        ReplicaRole::Voter => pb::ReplicaRole::Voter,
                        ReplicaRole::Learner => pb::ReplicaRole::Learner,
                        ReplicaRole::IncomingVoter => pb::ReplicaRole::IncomingVoter,
                        ReplicaRole::DemotingVoter => pb::ReplicaRole::DemotingVoter,
                    } as i32,
                })
                .collect(),
        }
    }
}

impl From<&pb::RangeDescriptor> for RangeDescriptor {
    fn from(d: &pb::RangeDescriptor) -> Self {
        RangeDescriptor {
            id: RangeId(d.id),
            start: d.start.clone(),
            end: d.end.clone(),
            epoch: Epoch {
                conf_version: d.conf_version,
                version: d.version,
            },
            replicas: d
                .replicas
                .iter()
                .map(|r| Replica {
                    id: ReplicaId(r.id),
                    store: StoreId(r.store),
                    role: match r.role() {
                        pb::ReplicaRole::Voter => ReplicaRole::Voter,
                        pb::ReplicaRole::Learner => ReplicaRole::Learner,
                        pb::ReplicaRole::IncomingVoter => ReplicaRole::IncomingVoter,
                        pb::ReplicaRole::DemotingVoter => ReplicaRole::DemotingVoter,
                    },
                })
                .collect(),
        }
    }
}

impl RangeDescriptor {
    /// Protobuf bytes, as stored and sent.
    pub fn encode(&self) -> Bytes {
        pb::RangeDescriptor::from(self).encode_to_vec().into()
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(Self::from(&pb::RangeDescriptor::decode(bytes)?))
    }
}

impl From<LeaderHint> for pb::LeaderHint {
    fn from(h: LeaderHint) -> Self {
        pb::LeaderHint {
            store: h.store.0,
            term: h.term,
        }
    }
}

impl From<&pb::LeaderHint> for LeaderHint {
    fn from(h: &pb::LeaderHint) -> Self {
        LeaderHint {
            store: StoreId(h.store),
            term: h.term,
        }
    }
}

impl From<&RequestError> for pb::Error {
    fn from(error: &RequestError) -> Self {
        use pb::error::Kind;
        pb::Error {
            kind: Some(match error {
                RequestError::NotLeader { range, leader } => {
                    Kind::NotLeader(pb::error::NotLeader {
                        range: range.0,
                        leader: (*leader).map(Into::into),
                    })
                }
                RequestError::EpochNotMatch { current } => {
                    Kind::EpochNotMatch(pb::error::EpochNotMatch {
                        current: current.iter().map(Into::into).collect(),
                    })
                }
                RequestError::RangeNotFound { range, store } => {
                    Kind::RangeNotFound(pb::error::RangeNotFound {
                        range: range.0,
                        store: store.0,
                    })
                }
                RequestError::Busy {
                    reason,
                    retry_after_ms,
                } => Kind::Busy(pb::error::Busy {
                    reason: reason.clone(),
                    retry_after_ms: *retry_after_ms,
                }),
                RequestError::OutcomeUnknown(why) => Kind::OutcomeUnknown(why.clone()),
                RequestError::Unavailable(why) => Kind::Unavailable(why.clone()),
                RequestError::Invalid(why) => Kind::Invalid(why.clone()),
            }),
        }
    }
}

/// An error that makes no sense leaves the outcome unknown.
impl From<pb::Error> for RequestError {
    fn from(error: pb::Error) -> Self {
        use pb::error::Kind;
        let Some(kind) = error.kind else {
            return RequestError::OutcomeUnknown("an error of an unknown kind".into());
        };
        match kind {
            Kind::NotLeader(e) => RequestError::NotLeader {
                range: RangeId(e.range),
                leader: e.leader.as_ref().map(Into::into),
            },
            Kind::EpochNotMatch(e) => RequestError::EpochNotMatch {
                current: e.current.iter().map(Into::into).collect(),
            },
            Kind::RangeNotFound(e) => RequestError::RangeNotFound {
                range: RangeId(e.range),
                store: StoreId(e.store),
            },
            Kind::Busy(e) => RequestError::Busy {
                reason: e.reason,
                retry_after_ms: e.retry_after_ms,
            },
            Kind::OutcomeUnknown(why) => RequestError::OutcomeUnknown(why),
            Kind::Unavailable(why) => RequestError::Unavailable(why),
            Kind::Invalid(why) => RequestError::Invalid(why),
        }
    }
}
