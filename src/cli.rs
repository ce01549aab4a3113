//! The command line.

use crate::bench::BenchArgs;
use clap::{Parser, Subcommand};

/// A Multi-Raft sharded key-value store that speaks Redis.
#[derive(Parser, Debug)]
#[command(name = "rangekv", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Measure a running cluster, or anything else that speaks RESP or etcd's gRPC.
    Bench(Box<BenchArgs>),
    /// Print the version.
    Version,
}
