//! The placement driver: where ranges are, and where they should be.
//!
//! Pure code throughout: time is an argument in milliseconds, the caller owns sockets, clocks
//! and threads. In reading order:
//! - [`bootstrap`]: the first descriptors of a new cluster.
//! - [`state`]: what is replicated in range 1, laid out by [`keys`]; [`config`] is its table
//!   of names.
//! - [`leader`]: the soft state beside it, on the store that leads range 1: heartbeats in,
//!   [`routes`] and operators out.
//! - [`view`]: the cluster at one instant; [`schedule`]: what should be done about it, and why
//!   not more.
//! - [`operator`]: what is being done; [`plan`]: the next step of it; [`operators`]: all of them.
//! - [`client`]: the other end of the heartbeat, on every store.
//!
//! **Architecture invariant:** the placement driver never touches user data, and nothing that
//! serves a request waits for it.

pub mod bootstrap;
pub mod client;
pub mod config;
pub mod keys;
pub mod leader;
pub mod operator;
pub mod operators;
pub mod plan;
pub mod routes;
pub mod schedule;
pub mod state;
pub mod view;

mod data_founding;
mod tables;
mod wire;
