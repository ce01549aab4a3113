//! The command line of `rangekv ctl` and `rangekv probe`.

use super::wire::CtlCommand;
use crate::bench::args::parse_duration;
use crate::cli::Invalid;
use clap::{ArgGroup, Args, Subcommand};
use rangekv_model::redis::keys;
use std::time::Duration;

/// Looks at a running cluster and changes it.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// gRPC addresses of any of the cluster's stores; the next one is asked if one is away.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:50051",
        global = true
    )]
    pub endpoints: Vec<String>,

    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,

    /// Give up after this long.
    #[arg(long, value_parser = parse_duration, default_value = "10s", global = true)]
    pub timeout: Duration,

    /// What to do.
    #[command(subcommand)]
    pub command: CtlSubcommand,
}

/// See [`CtlArgs`].
#[derive(Subcommand, Debug)]
pub enum CtlSubcommand {
    /// The cluster at a glance
    Status,
    /// Stores
    #[command(subcommand)]
    Store(StoreCommand),
    /// Ranges
    #[command(subcommand)]
    Range(RangeCommand),
    /// Settings that the placement driver replicates
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// See [`CtlSubcommand::Store`].
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Addresses, state, leaderships and disk of each store
    List,
    /// Take a store that is down, or holds nothing, out of the cluster for ever
    Remove {
        /// Its id or name
        store: String,
    },
}

/// See [`CtlSubcommand::Range`].
#[derive(Subcommand, Debug)]
pub enum RangeCommand {
    /// Bounds, leader and replicas of each range, in key order
    List,
    /// Raft state of each replica of a range
    Show {
        /// The range
        id: u64,
    },
    /// Cut a range in two; reads and writes go on
    Split(SplitArgs),
    /// Make another store the leader of a range
    TransferLeader {
        /// The range
        id: u64,
        /// The store that shall lead it
        store: u64,
    },
}

/// Where to cut.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("at").required(true))]
pub struct SplitArgs {
    /// The range [default: the one that holds the key]
    pub id: Option<u64>,
    /// Cut before this Redis key, inside its slot
    #[arg(long, group = "at")]
    pub key: Option<String>,
    /// Database of --key [default: 0]
    #[arg(long)]
    pub db: Option<u8>,
    /// Cut before this Redis Cluster slot, 0 to 16383
    #[arg(long, group = "at")]
    pub slot: Option<u16>,
    /// Cut before this key of the keyspace, in hex as `range list --json` prints it
    #[arg(long, group = "at", value_name = "HEX")]
    pub raw_key: Option<String>,
}

/// See [`CtlSubcommand::Config`].
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Names, values and what they mean
    List,
    /// Change a value, at once and on every store
    Set {
        /// As listed by `config list`
        name: String,
        /// With a unit where it has one: 30s, 64MiB
        value: String,
    },
}

/// Asks a store who it is.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// gRPC address of the store.
    #[arg(value_name = "HOST:PORT")]
    pub address: String,

    /// Give up after this long.
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    pub timeout: Duration,

    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

impl CtlSubcommand {
    /// What to ask the cluster.
    pub fn command(&self) -> Result<CtlCommand, Invalid> {
        Ok(match self {
            Self::Status => CtlCommand::Status,
            Self::Store(StoreCommand::List) => CtlCommand::StoreList,
            Self::Store(StoreCommand::Remove { store }) => CtlCommand::StoreRemove {
                store: store.clone(),
            },
            Self::Range(RangeCommand::List) => CtlCommand::RangeList,
            Self::Range(RangeCommand::Show { id }) => CtlCommand::RangeShow { range: *id },
            Self::Range(RangeCommand::Split(split)) => CtlCommand::RangeSplit {
                range: split.id,
                key: split.raw_key()?,
            },
            Self::Range(RangeCommand::TransferLeader { id, store }) => {
                CtlCommand::RangeTransferLeader {
                    range: *id,
                    store: *store,
                }
            }
            Self::Config(ConfigCommand::List) => CtlCommand::ConfigList,
            Self::Config(ConfigCommand::Set { name, value }) => CtlCommand::ConfigSet {
                name: name.clone(),
                value: value.clone(),
            },
        })
    }
}

impl SplitArgs {
    fn raw_key(&self) -> Result<String, Invalid> {
        let db = self.db.unwrap_or(0);
        if self.db.is_some() && self.key.is_none() {
            return Err(Invalid("--db has a meaning with --key only".into()));
        }
        if db >= keys::DATABASES {
            let last = keys::DATABASES - 1;
            return Err(Invalid(format!("--db {db}: expected 0 to {last}")));
        }
        if let Some(key) = &self.key {
            return Ok(super::hex(&keys::record_key(db, key.as_bytes())));
        }
        if let Some(slot) = self.slot {
            if slot >= keys::SLOTS {
                return Err(Invalid(format!(
                    "--slot {slot}: expected 0 to {}",
                    keys::SLOTS - 1
                )));
            }
            return Ok(super::hex(&keys::slot_start(slot)));
        }
        let raw_key = self.raw_key.as_deref().unwrap_or_default();
        match super::unhex(raw_key) {
            Some(key) if !key.is_empty() => Ok(raw_key.to_ascii_lowercase()),
            _ => Err(Invalid(format!(
                "--raw-key '{raw_key}': expected hex digits, two per byte"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<CtlCommand, String> {
        let words = ["rangekv", "ctl"]
            .into_iter()
            .chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Ctl(args) => args.command.command().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_lines() {
        let split = |range, key: &str| CtlCommand::RangeSplit {
            range,
            key: key.into(),
        };
        for (line, expected) in [
            ("status", CtlCommand::Status),
            ("--json status --endpoints a:1,b:2", CtlCommand::Status),
            ("store list", CtlCommand::StoreList),
            (
                "store remove n5",
                CtlCommand::StoreRemove { store: "n5".into() },
            ),
            ("range list", CtlCommand::RangeList),
            ("range show 7", CtlCommand::RangeShow { range: 7 }),
            ("range split 7 --slot 8192", split(Some(7), "202000")),
            // Slot of "foo" is 12182 = 0x2f96.
            ("range split --key foo", split(None, "202f9600666f6f0001")),
            (
                "range split --key foo --db 3",
                split(None, "202f9603666f6f0001"),
            ),
            ("range split --raw-key 20FF", split(None, "20ff")),
            (
                "range transfer-leader 7 2",
                CtlCommand::RangeTransferLeader { range: 7, store: 2 },
            ),
            ("config list", CtlCommand::ConfigList),
            (
                "config set replication-factor 3",
                CtlCommand::ConfigSet {
                    name: "replication-factor".into(),
                    value: "3".into(),
                },
            ),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn refusals_name_the_flag() {
        for (line, named) in [
            ("range split 7", "--slot"),
            ("range split --key a --slot 1", "--slot"),
            ("range split --slot 16384", "--slot 16384"),
            ("range split --db 3 --slot 1", "--key"),
            ("range split --key a --db 16", "--db 16"),
            ("range split --raw-key 2", "--raw-key '2'"),
            ("range split --raw-key xy", "--raw-key 'xy'"),
            ("range show", "<ID>"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
