//! DynamoDB's door: HTTP in, commands to ranges out.
//!
//! `server.rs` speaks HTTP, `ranges.rs` is the way to the cluster, `catalog.rs` keeps the tables for
//! a moment, `count.rs` counts their items, `chores.rs` removes what was deleted or has expired.

mod catalog;
mod chores;
mod count;
mod ranges;
mod server;

pub use chores::run as chores;
pub use server::{bind, counters, run};
