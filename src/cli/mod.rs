//! The command line: definitions ([`start`] for the longest of them) and the checks that clap
//! can't make, all of them pure functions.

pub mod address;
pub mod output;
pub mod pd;
pub mod start;
pub mod trace;

use crate::bench::BenchArgs;
use crate::ctl::args::{CtlArgs, ProbeArgs};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

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
    /// Run a store; without flags, a cluster of one in ./rangekv-data
    Start(Box<start::StartArgs>),
    /// Run a placement node: of a cluster whose stores, started with --pd, hold the data
    Pd(Box<pd::PdArgs>),
    /// Run a whole cluster on this machine, and say what to type
    Demo(DemoArgs),
    /// Look at a running cluster and change it
    Ctl(CtlArgs),
    /// Ask a store who it is
    Probe(ProbeArgs),
    /// Measure a running cluster, or anything else that speaks RESP or etcd's gRPC
    Bench(Box<BenchArgs>),
    /// Print a script by which a shell completes rangekv's commands and flags
    ///
    /// bash:  source <(rangekv completions bash)
    /// zsh:   source <(rangekv completions zsh)
    /// fish:  rangekv completions fish > ~/.config/fish/completions/rangekv.fish
    #[command(verbatim_doc_comment)]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// What [`Command::Completions`] asks for.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rangekv", &mut script);
    String::from_utf8(script).expect("made of our own names and texts")
}

/// Runs a whole cluster on this machine.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Stores to run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,

    /// Where the stores keep their data, one directory each; a later demo goes on with it
    /// [default: a temporary directory, removed at the end].
    #[arg(long)]
    pub data_dir: Option<PathBuf>,

    /// Redis port of the first store; the others follow. 0: the system chooses them all.
    #[arg(long, default_value_t = 6379)]
    pub redis_port: u16,

    /// gRPC port of the first store; the others follow. 0: the system chooses them all.
    #[arg(long, default_value_t = 50051)]
    pub grpc_port: u16,

    /// HTTP port (status page) of the first store; the others follow. 0: the system chooses
    /// them all.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,

    /// DynamoDB port of the first store; the others follow. 0: the system chooses them all.
    #[arg(long, default_value_t = 8000)]
    pub dynamo_port: u16,

    /// Port for keys and values over HTTP of the first store; the others follow. 0: the system
    /// chooses them all.
    #[arg(long, default_value_t = 9080)]
    pub kv_http_port: u16,

    /// Data ranges to begin with [default: by the number of stores].
    #[arg(long, value_parser = start::ranges_parser())]
    pub initial_ranges: Option<u64>,
}

/// A command line that makes no sense; the message quotes what, and says what is expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl Cli {
    /// Parses the process's arguments, or prints why not and exits with status 2.
    pub fn from_process() -> Self {
        Self::parse_from(with_command(std::env::args_os()))
    }
}

/// `/app --address …` means `/app start --address …`: containers are given flags alone.
fn with_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let about_itself = ["--help", "-h", "--version", "-V"];
    if first.is_some_and(|first| first.starts_with('-') && !about_itself.contains(&first)) {
        arguments.insert(1, "start".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            for word in ["transfer-leader", "--endpoints", "placement", "drain"] {
                assert!(
                    script.contains(word.trim_start_matches('-')),
                    "{shell}: {word}"
                );
            }
        }
    }

    #[test]
    fn flags_alone_mean_start() {
        for (line, expected) in [
            ("/app --address a:1", "/app start --address a:1"),
            ("/app start --address a:1", "/app start --address a:1"),
            ("/app --help", "/app --help"),
            ("/app -V", "/app -V"),
            ("/app demo --nodes 3", "/app demo --nodes 3"),
            ("/app", "/app"),
        ] {
            let arguments = with_command(line.split(' ').map(OsString::from));
            let words: Vec<_> = arguments
                .iter()
                .map(|word| word.to_str().unwrap())
                .collect();
            assert_eq!(words.join(" "), expected);
        }
    }
}
