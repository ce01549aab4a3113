//! The vocabulary that every crate shares: ids, range descriptors, requests and
//! their errors ([`types`]), and the generated protobuf code ([`internal`]).
//!
//! Domain types convert to and from their wire form in [`convert`] and [`frame`] alone.

pub mod convert;
pub mod frame;
pub mod types;

/// Generated from `proto/internal.proto`.
#[allow(missing_docs, clippy::all)]
pub mod internal {
    tonic::include_proto!("rangekv.internal");
}

/// Generated from `proto/raft_admin.proto` and `proto/distribution.proto`, which have no package.
#[allow(missing_docs, clippy::all)]
pub mod admin {
    tonic::include_proto!("_");
}

/// Generated from `proto/etcd.proto`: what the load generator needs to measure etcd.
#[allow(missing_docs, clippy::all)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The `.proto` files of the services that a store offers, as gRPC reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use types::*;
