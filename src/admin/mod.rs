//! What operators ask of a cluster, whichever door they come by: `rangekv ctl`
//! ([`crate::ctl::server`]) or gRPC ([`crate::grpc`]).
//!
//! In reading order: why something was not done ([`failure`]); which store is meant ([`stores`]);
//! what replicas say of themselves ([`groups`]); changes of a range's bounds and leader
//! ([`ranges`]) and of its members ([`members`]); the table of all ranges and its version
//! ([`catalog`]).

pub mod failure;

pub mod stores;

pub mod groups;

pub mod ranges;

pub mod members;

pub mod catalog;

use crate::node::calls::Target;
use crate::node::running::Running;
use failure::Failure;
use rangekv_proto::internal::placement_command::Kind;
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{RequestError, StoreId};
use std::time::Duration;

/// A call to a range's leader takes no longer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// How often a change is looked for that is under way.
pub const LOOK: Duration = Duration::from_millis(50);

/// The placement state after `kind`.
pub async fn placement_state(node: &Running, kind: Kind) -> Result<PlacementState, Failure> {
    let reply = node.calls.placement(kind, CALL_TIME_MAX).await?;
    match reply.state {
        Some(state) if reply.error.is_empty() => Ok(state),
        _ => Err(Failure::Refused(reply.error)),
    }
}

/// Why this store has no answer to what only the placement driver's leader knows.
#[derive(Debug)]
pub enum NotHere {
    /// This store does not lead range 1.
    Leads(RequestError),
    /// It does, and the answer is no.
    Failed(Failure),
}

impl From<Failure> for NotHere {
    fn from(failure: Failure) -> Self {
        NotHere::Failed(failure)
    }
}

/// Who to ask instead of this store, which does not lead range 1 because of `why`.
pub fn placement_leader(node: &Running, why: &RequestError) -> Option<StoreId> {
    let hint = match why {
        RequestError::NotLeader { leader, .. } => *leader,
        _ => None,
    };
    let hint = hint.or_else(|| node.calls.route(Target::Placement)?.leader);
    hint.map(|hint| hint.store)
        .filter(|leader| *leader != node.identity.store_id())
}
