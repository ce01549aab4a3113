//! The placement driver: where ranges are, and where they should be.
//!
//! Pure code throughout: time is an argument in milliseconds, the caller owns sockets, clocks
//! and threads. In reading order:
//! - [`bootstrap`]: the first descriptors of a new cluster.
//! - [`state`]: what is replicated in range 1, laid out by [`keys`]; [`config`] is its table
//!   of names.
//! - [`leader`]: the soft state beside it, on the store that leads range 1: heartbeats in,
//!   [`routes`] and operators out.
//! - [`schedule`]: which operators, and why not more.
//! - [`client`]: the other end of the heartbeat, on every store.
//!
//! **Architecture invariant:** the placement driver never touches user data, and nothing that
//! serves a request waits for it.

pub mod bootstrap;
pub mod client;
pub mod config;
pub mod keys;
pub mod leader;
pub mod routes;
pub mod schedule;
pub mod state;
mod wire;
