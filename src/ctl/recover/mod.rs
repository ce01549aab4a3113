//! `rangekv ctl recover`: serves ranges again whose majority is gone for good, at the price of what
//! the survivors don't have.
//!
//! No store may run meanwhile. [`survey`] writes down what a data directory holds, [`plan`] decides
//! by the surveys of all survivors, and [`apply`] carries its part of the plan out on each of them.
//! So every survivor acts by the same decision, though no two of their disks are ever on one machine.
//!
//! Invariants:
//! - Only a range that can elect nobody is touched: see [`plan`].
//! - One survivor of a range lives on, whose log is the most advanced; its other replicas end.
//! - A plan is applied to the very state that was surveyed, and twice is as good as once.
//! - The lost stores are taken out of the registry, where the registry itself is recovered, so that
//!   they are refused if they come back.

mod apply;
mod plan;
mod survey;

use crate::cli::output;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// See the module's documentation.
#[derive(Subcommand, Debug)]
pub enum RecoverCommand {
    /// Write down what the data directory of a stopped store holds
    Survey {
        /// The store's data directory
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Say what would be recovered from whom, and what may be lost; changes nothing
    Plan(PlanArgs),
    /// Carry a plan out on the data directory of a stopped store
    Apply(ApplyArgs),
}

/// See [`RecoverCommand::Plan`].
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The surveys of all stores that are left
    #[arg(required = true, value_name = "SURVEY")]
    pub surveys: Vec<PathBuf>,
    /// Stores that are gone for good, by name or number: they are never let in again
    #[arg(long, required = true, value_delimiter = ',', value_name = "STORE,…")]
    pub lost: Vec<String>,
    /// Write the plan here, for `apply`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// See [`RecoverCommand::Apply`].
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// The store's data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// As `plan` has written it
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// Accept that acknowledged writes may be lost, without being asked
    #[arg(long)]
    pub yes_i_accept_data_loss: bool,
}

/// Runs one of the commands. Exit status 1: refused, and nothing was changed.
pub fn run(command: &RecoverCommand) -> ExitCode {
    let done = match command {
        RecoverCommand::Survey { data_dir } => survey::run(data_dir),
        RecoverCommand::Plan(args) => plan::run(args),
        RecoverCommand::Apply(args) => apply::run(args),
    };
    match done.and_then(|text| output::print(text).map_err(anyhow::Error::msg)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rangekv: {}", crate::node::entry::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// A JSON file that an earlier step has written.
fn read<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> anyhow::Result<T> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|e| anyhow::anyhow!("{shown}: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| anyhow::anyhow!("{shown} is no {what}: {e}"))
}
