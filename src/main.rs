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

use cli::{Cli, Command};
use std::process::ExitCode;

/// The load generator and the servers' doors allocate many small buffers on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::from_process().command {
        Command::Start(args) => match args.plan() {
            Ok(start) => match start.settle() {
                Ok(()) => node::start(start.options, start.log_format),
                Err(why) => {
                    eprintln!("rangekv: {why}");
                    ExitCode::FAILURE
                }
            },
            Err(invalid) => invalid.exit(),
        },
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
