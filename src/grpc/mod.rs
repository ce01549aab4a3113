//! The services for operators on the gRPC port: [`raft_admin`], one Raft group at a time, and
//! [`distribution`], the table of all ranges. proto/proto/{raft_admin,distribution}.proto say what
//! each call means; here it is converted, and sent to where it can be answered.

pub mod distribution;
pub mod raft_admin;

mod group;
mod operations;

use crate::admin::failure::Failure;
use tonic::Status;

/// A failure in gRPC's words.
fn status(failure: Failure) -> Status {
    let message = failure.message().to_owned();
    match failure {
        Failure::Invalid(_) => Status::invalid_argument(message),
        Failure::NotFound(_) => Status::not_found(message),
        Failure::Stale(_) => Status::aborted(message),
        Failure::Refused(_) => Status::failed_precondition(message),
        Failure::Unavailable(_) => Status::unavailable(message),
        Failure::Unknown(_) => Status::unknown(message),
    }
}
