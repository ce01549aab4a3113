//! The multi-Raft engine: replicas, workers, raft log, state engine. It knows nothing of Redis
//! or DynamoDB; what a command means is an [`Evaluator`](rangekv_model::eval::Evaluator)'s.
//!
//! In reading order: [`event`] says what can happen to a worker, [`worker`] is the loop,
//! [`replica`] one range's part in it, [`admin`] what changes ranges, [`reader`] how other
//! threads read; [`log`] and [`engine`] keep things.

pub mod admin;
pub mod bugs;
pub mod codec;
pub mod config;
pub mod engine;
pub mod event;
pub mod load;
pub mod log;
pub mod meta;
pub mod metrics;
pub mod overlay;
pub mod payload;
pub mod reader;
pub mod recover;
pub mod replica;
pub mod shared;
pub mod size;
pub mod storage;
pub mod trace;
pub mod watch;
pub mod wire;
pub mod worker;

/// Ends the process: a storage fault is this store's own, and another replica takes over.
pub fn fatal(doing: &str, error: &dyn std::fmt::Display) -> ! {
    tracing::error!(%error, "{doing} failed; this store stops");
    eprintln!("fatal: {doing}: {error}");
    std::process::abort();
}
