//! The placement driver: where ranges are, and where they should be.
//!
//! Pure code throughout: time is an argument in milliseconds, the caller owns sockets, clocks
//! and threads. In reading order:
//! - [`bootstrap`]: the first descriptors of a new cluster.
//! - [`state`]: what is replicated in range 1, laid out by [`keys`]; [`config`] is its table
//!   of names.

pub mod bootstrap;
pub mod config;
pub mod keys;
pub mod state;
