//! The `rangekv` binary: reads the command line and hands over.

mod bench;
mod cli;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

/// The load generator and the servers' doors allocate many small buffers on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::main(&args),
        Command::Version => {
            println!("rangekv {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}
