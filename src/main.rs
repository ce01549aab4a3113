//! The `rangekv` binary: reads the command line and hands over.

#![allow(
    clippy::disallowed_methods,
    reason = "the shell: owns sockets, disks, threads and clocks, see clippy.toml"
)]

mod cli;

mod admin;
mod bench;
mod container;
mod ctl;
mod demo;
mod dynamo;
mod errands;
mod grpc;
mod http;
mod kv;
mod node;
mod procfs;
mod trace;

use cli::start::Start;
use cli::{Cli, Command, Invalid};
use std::process::ExitCode;

/// The load generator and the servers' doors allocate many small buffers on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::from_process().command {
        Command::Start(args) => start(args.plan()),
        Command::Pd(args) => start(args.plan()),
        Command::Demo(args) => demo::demo(&args),
        Command::Ctl(args) => ctl::ctl(&args),
        Command::Probe(args) => ctl::probe(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Completions { shell } => match cli::output::print(cli::completions(shell)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("rangekv: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Version => {
            println!("rangekv {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// Runs a node, if its command line makes sense.
fn start(plan: Result<Start, Invalid>) -> ExitCode {
    let start = match plan {
        Ok(start) => start,
        Err(invalid) => return invalid.exit(),
    };
    match start.settle() {
        Ok(()) => node::start(start.options, start.log_format),
        Err(why) => {
            eprintln!("rangekv: {why}");
            ExitCode::FAILURE
        }
    }
}
