//! The command line of `rangekv ctl` and `rangekv probe`.

use super::recover::RecoverCommand;
use super::wire::CtlCommand;
use crate::bench::args::parse_duration;
use crate::cli::Invalid;
use clap::{ArgGroup, Args, Subcommand};
use rangekv_model::redis::keys;
use rangekv_proto::PLACEMENT_RANGE;
use std::time::Duration;

/// Looks at a running cluster and changes it.
///
/// Any store answers for the whole cluster: it asks the placement driver's leader, or the leader of
/// the range concerned. A store is named by its name or its number. Every command may be repeated:
/// what is done already is answered as done.
#[derive(Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct CtlArgs {
    /// gRPC addresses of any of the cluster's stores; the next one is asked if one is away, and
    /// all again after 100 ms, then at growing intervals up to 2 s.
    #[arg(
        long,
        env = "RANGEKV_ENDPOINTS",
        hide_env_values = true,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:50051",
        global = true
    )]
    pub endpoints: Vec<String>,

    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,

    /// Give up on an answer after this long.
    #[arg(long, value_parser = parse_duration, default_value = "10s", global = true)]
    pub timeout: Duration,

    /// What to do.
    #[command(subcommand)]
    pub command: CtlSubcommand,
}

/// Exit statuses of `rangekv ctl`, as its help explains them; 2 is a wrong command line.
pub struct Exits {
    /// The cluster refused, or failed.
    pub refused: u8,
    /// Nobody answered; nothing was changed.
    pub unavailable: u8,
    /// It may or may not have been done.
    pub unknown: u8,
    /// It is under way.
    pub underway: u8,
}

/// See [`Exits`].
pub const CTL_EXIT: Exits = Exits {
    refused: 1,
    unavailable: 3,
    unknown: 4,
    underway: 5,
};

/// Ends `rangekv ctl --help`.
const AFTER_HELP: &str = "\
Examples:
  rangekv ctl --endpoints 10.0.0.11:50051,10.0.0.12:50051 status
  rangekv ctl store drain n3 --wait && rangekv ctl store remove n3
  rangekv ctl range move 7 n1 n4
  rangekv ctl why 7
  rangekv ctl placement members add n4
  rangekv ctl config set max-store-down-time 2m
  rangekv ctl --json range list | jq '.[] | select(.leader == null).id'

Exit status:
  0  done
  1  refused, or failed; nothing goes on
  2  the command line makes no sense
  3  no store answered within --timeout; nothing was changed
  4  it may or may not have been done: no answer came to a command that was sent
  5  ordered, and not done within --wait; it goes on";

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
    /// The placement driver's own Raft group
    #[command(subcommand)]
    Placement(PlacementCommand),
    /// Settings that the placement driver replicates
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What the placement driver does to ranges
    #[command(subcommand)]
    Operators(OperatorsCommand),
    /// What each scheduler does, and why it does no more
    Schedulers,
    /// Why a range is where it is, and is not moving
    Why {
        /// The range
        range: u64,
    },
    /// Serve ranges again whose majority is gone for good; works on stopped stores, and may lose
    /// acknowledged writes
    #[command(subcommand)]
    Recover(RecoverCommand),
}

/// See [`CtlSubcommand::Store`].
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Addresses, state, leaderships and disk of each store
    List,
    /// One store, and the ranges that it holds
    Show {
        /// Its name or number
        store: String,
    },
    /// Empty a store: its leaderships and replicas go to others, nothing new is given to it
    Drain(DrainArgs),
    /// Take a store that is down, or holds nothing, out of the cluster for ever
    Remove {
        /// Its name or number
        store: String,
    },
}

/// See [`StoreCommand::Drain`].
#[derive(Args, Debug)]
pub struct DrainArgs {
    /// Its name or number
    pub store: String,
    /// Use the store again
    #[arg(long, conflicts_with = "wait")]
    pub undo: bool,
    /// Return when it is empty, or after this long
    #[arg(long, value_parser = parse_duration, num_args = 0..=1, require_equals = true,
          default_missing_value = "1h", value_name = "DURATION")]
    pub wait: Option<Duration>,
}

/// How long to wait for what takes its time.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Return when it is done, or after this long; 0s = as soon as it is ordered
    #[arg(long, value_parser = parse_duration, default_value = "5m", value_name = "DURATION")]
    pub wait: Duration,
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
    /// Join a range with its right neighbour, which must lie on the same stores
    Merge {
        /// The range on the left, which keeps its id
        id: u64,
    },
    /// Replace the replica on one store by one on another
    Move {
        /// The range
        id: u64,
        /// The store that has a replica: its name or number
        from: String,
        /// The store that shall have one
        to: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make another store the leader of a range
    TransferLeader {
        /// The range
        id: u64,
        /// The store that shall lead it: its name or number
        store: String,
    },
}

/// See [`CtlSubcommand::Placement`].
#[derive(Subcommand, Debug)]
pub enum PlacementCommand {
    /// Its members
    #[command(subcommand)]
    Members(MembersCommand),
}

/// See [`PlacementCommand::Members`].
#[derive(Subcommand, Debug)]
pub enum MembersCommand {
    /// Who they are, and how far each has come
    List,
    /// A store more; it votes as soon as it has caught up
    Add {
        /// Its name or number
        store: String,
        /// Let it keep up without a vote
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// A store less; a leader hands over first
    Remove {
        /// Its name or number
        store: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// See [`CtlSubcommand::Operators`].
#[derive(Subcommand, Debug)]
pub enum OperatorsCommand {
    /// Under way
    List,
    /// Ended, the newest last; of the present leader of the placement driver
    History,
    /// Stop one
    Cancel {
        /// As listed by `operators list`
        id: u64,
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
    /// One value
    Get {
        /// As listed by `config list`
        name: String,
    },
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
    /// gRPC address of the store [default: in a container that of its own node, else
    /// 127.0.0.1:50051].
    #[arg(value_name = "HOST:PORT")]
    pub address: Option<String>,

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
            Self::Store(command) => command.command(),
            Self::Range(command) => command.command()?,
            Self::Placement(PlacementCommand::Members(command)) => command.command(),
            Self::Config(command) => command.command(),
            Self::Operators(OperatorsCommand::List) => CtlCommand::OperatorList,
            Self::Operators(OperatorsCommand::History) => CtlCommand::OperatorHistory,
            Self::Operators(OperatorsCommand::Cancel { id }) => {
                CtlCommand::OperatorCancel { id: *id }
            }
            Self::Schedulers => CtlCommand::SchedulerList,
            Self::Why { range } => CtlCommand::RangeWhy { range: *range },
            Self::Recover(_) => {
                return Err(Invalid(
                    "recover works on data directories, not on a cluster".into(),
                ))
            }
        })
    }

    /// How long to wait for what was ordered; `None` = it is done when it is answered.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Store(StoreCommand::Drain(drain)) => {
                (!drain.undo).then(|| drain.wait.unwrap_or_default())
            }
            Self::Range(RangeCommand::Move { wait, .. })
            | Self::Placement(PlacementCommand::Members(
                MembersCommand::Add { wait, .. } | MembersCommand::Remove { wait, .. },
            )) => Some(wait.wait),
            _ => None,
        }
    }
}

impl StoreCommand {
    fn command(&self) -> CtlCommand {
        match self {
            Self::List => CtlCommand::StoreList,
            Self::Show { store } => CtlCommand::StoreShow {
                store: store.clone(),
            },
            Self::Drain(DrainArgs { store, undo, .. }) => CtlCommand::StoreDrain {
                store: store.clone(),
                undo: *undo,
            },
            Self::Remove { store } => CtlCommand::StoreRemove {
                store: store.clone(),
            },
        }
    }
}

impl RangeCommand {
    fn command(&self) -> Result<CtlCommand, Invalid> {
        Ok(match self {
            Self::List => CtlCommand::RangeList,
            Self::Show { id } => CtlCommand::RangeShow { range: *id },
            Self::Split(split) => CtlCommand::RangeSplit {
                range: split.id,
                key: split.raw_key()?,
            },
            Self::Merge { id } => CtlCommand::RangeMerge { range: *id },
            Self::Move { id, from, to, .. } => CtlCommand::RangeMove {
                range: *id,
                from: from.clone(),
                to: to.clone(),
            },
            Self::TransferLeader { id, store } => CtlCommand::RangeTransferLeader {
                range: *id,
                store: store.clone(),
            },
        })
    }
}

impl MembersCommand {
    fn command(&self) -> CtlCommand {
        match self {
            Self::List => CtlCommand::RangeShow {
                range: PLACEMENT_RANGE.0,
            },
            Self::Add { store, learner, .. } => CtlCommand::PlacementAdd {
                store: store.clone(),
                learner: *learner,
            },
            Self::Remove { store, .. } => CtlCommand::PlacementRemove {
                store: store.clone(),
            },
        }
    }
}

impl ConfigCommand {
    fn command(&self) -> CtlCommand {
        match self {
            Self::List => CtlCommand::ConfigList,
            Self::Get { name } => CtlCommand::ConfigGet { name: name.clone() },
            Self::Set { name, value } => CtlCommand::ConfigSet {
                name: name.clone(),
                value: value.clone(),
            },
        }
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
                "range transfer-leader 7 n2",
                CtlCommand::RangeTransferLeader {
                    range: 7,
                    store: "n2".into(),
                },
            ),
            ("range merge 7", CtlCommand::RangeMerge { range: 7 }),
            (
                "range move 7 n1 4 --wait 0s",
                CtlCommand::RangeMove {
                    range: 7,
                    from: "n1".into(),
                    to: "4".into(),
                },
            ),
            (
                "store drain n3 --wait",
                CtlCommand::StoreDrain {
                    store: "n3".into(),
                    undo: false,
                },
            ),
            (
                "store drain n3 --undo",
                CtlCommand::StoreDrain {
                    store: "n3".into(),
                    undo: true,
                },
            ),
            ("placement members list", CtlCommand::RangeShow { range: 1 }),
            (
                "placement members add n4 --learner",
                CtlCommand::PlacementAdd {
                    store: "n4".into(),
                    learner: true,
                },
            ),
            ("operators cancel 9", CtlCommand::OperatorCancel { id: 9 }),
            ("why 7", CtlCommand::RangeWhy { range: 7 }),
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
    fn waits() {
        for (line, seconds) in [
            ("status", None),
            ("store drain n3", Some(0)),
            ("store drain n3 --wait", Some(3_600)),
            ("store drain n3 --wait=90s", Some(90)),
            ("store drain n3 --undo", None),
            ("range move 7 n1 n2", Some(300)),
            ("range move 7 n1 n2 --wait 0s", Some(0)),
            ("placement members remove n2", Some(300)),
        ] {
            let words = ["rangekv", "ctl"].into_iter().chain(line.split(' '));
            let Command::Ctl(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("{line}");
            };
            let wait = args.command.wait().map(|wait| wait.as_secs());
            assert_eq!(wait, seconds, "{line}");
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
            ("store drain n3 --undo --wait", "--wait"),
            ("store drain n3 --wait=soon", "soon"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
