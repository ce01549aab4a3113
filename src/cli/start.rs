//! `rangekv start`: from flags and environment to [`Options`].
//!
//! How an empty data directory finds its cluster, in this order: `--bootstrap` makes one,
//! `--join` asks a running one, a bare `--id` (or a Redis map) waits to be given its place by
//! the member that bootstraps, and without any of these it becomes a cluster of one. On a data
//! directory that has its place already, all of this is checked but changes nothing, so that
//! a restart with the same command line is fine.

use super::address::{self, Address};
use super::trace::TraceArgs;
use super::Invalid;
use crate::container::{self, User};
use crate::node::options::{FirstStart, Listen, Member, Options, CACHE_BYTES_MIN};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use rangekv_pd::config;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

const GRPC_PORT: u16 = 50051;
const REDIS_PORT: u16 = 6379;
const HTTP_PORT: u16 = 8080;
const DYNAMO_PORT: u16 = 8000;
const KV_HTTP_PORT: u16 = 9080;
const CACHE_BYTES_MAX: u64 = 1 << 40;
/// Redis Cluster slots: as many data ranges as a bootstrap can cut.
const RANGES_MAX: u64 = 16_384;

/// Runs a store; without flags, a cluster of one in ./rangekv-data.
///
/// The environment variables are read where the flag is absent. The flags may also be spelled
/// --redisAddress, --dynamoAddress, --kvHttpAddress, --raftId, --raftDataDir, --raftRedisMap,
/// --raftBootstrapMembers, --raftBootstrap, --otlpEndpoint and --traceSample.
#[derive(Args, Debug, Clone, Default)]
pub struct StartArgs {
    /// Name of this store, unique in the cluster [env: NODE_ID, else NODE_NAME].
    #[arg(
        long,
        alias = "raftId",
        value_name = "NAME",
        env = "NODE_ID",
        hide_env = true
    )]
    pub id: Option<String>,

    #[arg(long, hide = true, env = "NODE_NAME")]
    node_name: Option<String>,

    /// gRPC address (Raft, admin) to listen on [default: 127.0.0.1:50051].
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "RAFT_ADDR",
        hide_env_values = true
    )]
    pub address: Option<String>,

    /// gRPC address that other stores and clients are told, host:port or host
    /// [default: --address]. Its host is told for Redis, too, if that listens on 0.0.0.0.
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<String>,

    /// Redis address to listen on [default: port 6379 of --address's host].
    #[arg(long, alias = "redisAddress", value_name = "HOST:PORT")]
    pub redis_address: Option<String>,

    /// DynamoDB address to listen on [default: port 8000 of --address's host, and nowhere if
    /// another process has that].
    #[arg(long, alias = "dynamoAddress", value_name = "HOST:PORT")]
    pub dynamo_address: Option<String>,

    /// Address for keys and values over HTTP (/kv/get and so on) [default: port 9080 of
    /// --address's host, and nowhere if another process has that].
    #[arg(long, alias = "kvHttpAddress", value_name = "HOST:PORT")]
    pub kv_http_address: Option<String>,

    /// Address of the status page, the JSON API and the metrics [default: port 8080 of
    /// --address's host, and nowhere if another process has that].
    #[arg(
        long,
        alias = "httpAddress",
        value_name = "HOST:PORT",
        env = "HTTP_ADDR",
        hide_env_values = true
    )]
    pub http_address: Option<String>,

    /// Where everything is kept [default: rangekv-data].
    #[arg(
        long,
        alias = "raftDataDir",
        value_name = "DIR",
        env = "DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,

    /// Make a new cluster of the --bootstrap-members. On one of them only.
    #[arg(
        long,
        alias = "raftBootstrap",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub bootstrap: bool,

    /// All members of a new cluster, this store among them: n1=10.0.0.11:50051,…
    #[arg(long, alias = "raftBootstrapMembers", value_name = "NAME=HOST:PORT,…")]
    pub bootstrap_members: Option<String>,

    /// Join the running cluster of any of these stores, or placement nodes.
    #[arg(
        long,
        visible_alias = "pd",
        value_name = "HOST:PORT,…",
        env = "JOIN_ADDR",
        hide_env_values = true
    )]
    pub join: Option<String>,

    /// Redis address by gRPC address, of this store at least: 10.0.0.11:50051=10.0.0.11:6379,…
    /// Only this store's own entry is used; the others are known from the stores themselves.
    #[arg(long, alias = "raftRedisMap", value_name = "GRPC=REDIS,…")]
    pub redis_map: Option<String>,

    /// Data ranges of a new cluster, 1 to 16384 [default: by the number of members]. In a cluster
    /// of placement nodes the first store that joins says how many.
    #[arg(long, value_name = "N", value_parser = ranges_parser())]
    pub initial_ranges: Option<u64>,

    /// Threads for Redis connections, 1 to 64 [default: as many as there are cores, 16 at most]. More
    /// serve more reads at a time; fewer cost less where several stores share a machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub redis_threads: Option<u64>,

    /// Memory for what was read before, such as 4GiB, at least 32MiB [default: an eighth of what
    /// this process may use, 1GiB at most]. Everything else takes 100 to 300 MiB.
    #[arg(long, value_name = "SIZE", value_parser = cache_bytes)]
    pub cache: Option<u64>,

    /// Started by root, give the data directory to this user and go on as it; the image asks
    /// for 65532. Without effect for other users than root.
    #[arg(
        long,
        value_name = "UID[:GID]",
        env = "RANGEKV_USER",
        hide_env_values = true
    )]
    pub user: Option<User>,

    /// What is traced.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// How to write the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How to write the log.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Start {
    /// What the node is told.
    pub options: Options,
    /// How to write the log.
    pub log_format: LogFormat,
    /// Whom root shall become.
    pub user: Option<User>,
}

impl Start {
    /// Becomes the right user, and notes where a health check finds this node.
    pub fn settle(&self) -> Result<(), String> {
        container::note_address(&self.options.grpc.bind);
        match self.user {
            Some(user) => container::become_user(user, &self.options.data_dir),
            None => Ok(()),
        }
    }
}

/// Accepts a size for the caches.
fn cache_bytes(typed: &str) -> Result<u64, String> {
    match config::bytes(typed) {
        Some(bytes) if (CACHE_BYTES_MIN..=CACHE_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err("a size from 32MiB to 1024GiB, such as 512MiB or 4GiB".into()),
    }
}

/// Accepts as many data ranges as a bootstrap can cut.
pub fn ranges_parser() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=RANGES_MAX)
}

impl StartArgs {
    /// Checks everything that can be checked without touching disk or network.
    pub fn plan(&self) -> Result<Start, Invalid> {
        let grpc = match given(&self.address) {
            Some(text) => address::listen("--address", text)?,
            None => Address {
                host: "127.0.0.1".into(),
                port: GRPC_PORT,
            },
        };
        let redis = match given(&self.redis_address) {
            Some(text) => address::listen("--redis-address", text)?,
            None => Address {
                host: grpc.host.clone(),
                port: REDIS_PORT,
            },
        };
        let http = match given(&self.http_address) {
            Some(text) => address::listen("--http-address", text)?,
            None => Address {
                host: grpc.host.clone(),
                port: HTTP_PORT,
            },
        };
        let dynamo = match given(&self.dynamo_address) {
            Some(text) => address::listen("--dynamo-address", text)?,
            None => Address {
                host: grpc.host.clone(),
                port: DYNAMO_PORT,
            },
        };
        let kv_http = match given(&self.kv_http_address) {
            Some(text) => address::listen("--kv-http-address", text)?,
            None => Address {
                host: grpc.host.clone(),
                port: KV_HTTP_PORT,
            },
        };
        let given_address = given(&self.advertise_address);
        let advertised = address::advertised(
            "--advertise-address",
            given_address,
            &grpc,
            "10.0.0.11:50051",
        )?;
        let redis_map = self.redis_map()?;
        let members = self.members()?;
        let join = self.join()?;
        let name = given(&self.id).or(given(&self.node_name));
        self.check_environment(name)?;
        self.check_self(name, &advertised, &members)?;

        let first_start = if self.bootstrap {
            if !join.is_empty() {
                return Err(Invalid(
                    "--join and --bootstrap contradict each other: expected --bootstrap on one \
                     member of a new cluster, --join to enter a running one"
                        .into(),
                ));
            }
            match members.is_empty() {
                true => FirstStart::Single,
                false => FirstStart::Bootstrap(members.clone()),
            }
        } else if !join.is_empty() {
            FirstStart::Join(join.iter().map(Address::to_string).collect())
        } else if name.is_some() || !redis_map.is_empty() {
            FirstStart::Wait
        } else {
            FirstStart::Single
        };

        let others = members
            .iter()
            .filter_map(|member| address::check("--bootstrap-members", &member.address).ok())
            .chain(join)
            .chain(
                redis_map
                    .keys()
                    .filter_map(|grpc| address::check("", grpc).ok()),
            );
        let remote = others
            .filter(|other| !other.is_own())
            .any(|other| other != advertised);
        let waits = matches!(first_start, FirstStart::Wait | FirstStart::Join(_));
        if (remote && advertised.is_own()) || (waits && advertised.is_any()) {
            let flag = match given(&self.advertise_address) {
                Some(_) => "change --advertise-address",
                None => "set --advertise-address",
            };
            return Err(Invalid(format!(
                "other stores would be told to reach this one at '{advertised}', which on each of \
                 them means itself: {flag} to an address of this machine that they can reach"
            )));
        }

        let redis_advertised = match redis_map.get(&advertised.to_string()) {
            Some(mapped) => Some(mapped.clone()),
            // The host that others reach, with the port that is listened on.
            None if redis.is_any() && !advertised.is_any() => Some(advertised.host.clone()),
            None => None,
        };
        let told = match &redis_advertised {
            None => redis.clone(),
            Some(mapped) => address::check("--redis-map", mapped).unwrap_or(advertised.clone()),
        };
        if remote && told.is_own() {
            return Err(Invalid(format!(
                "Redis clients would be told to reach this store at '{told}', which on each of \
                 their machines means itself: change --redis-address (or this store's entry in \
                 --redis-map) to an address of this machine that they can reach"
            )));
        }

        let mut options = Options::default();
        if let Some(data_dir) = self
            .data_dir
            .as_ref()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            options.data_dir.clone_from(data_dir);
        }
        options.name = name.map(str::to_owned);
        options.first_start = first_start;
        options.grpc = Listen {
            bind: grpc.to_string(),
            advertise: given_address.map(str::to_owned),
        };
        options.redis = Listen {
            bind: redis.to_string(),
            advertise: redis_advertised,
        };
        options.http = Listen {
            bind: http.to_string(),
            advertise: (http.is_any() && !advertised.is_any()).then(|| advertised.host.clone()),
        };
        options.http_asked_for = given(&self.http_address).is_some();
        options.dynamo = Listen {
            bind: dynamo.to_string(),
            advertise: (dynamo.is_any() && !advertised.is_any()).then(|| advertised.host.clone()),
        };
        options.dynamo_asked_for = given(&self.dynamo_address).is_some();
        options.kv_http = Listen {
            bind: kv_http.to_string(),
            advertise: (kv_http.is_any() && !advertised.is_any()).then(|| advertised.host.clone()),
        };
        options.kv_http_asked_for = given(&self.kv_http_address).is_some();
        options.data_ranges = self.initial_ranges.map(|ranges| ranges as usize);
        options.cache_bytes = self.cache;
        options.redis_threads = self
            .redis_threads
            .and_then(|n| NonZeroUsize::new(n as usize));
        options.trace = self.trace.plan()?;
        Ok(Start {
            options,
            log_format: self.log_format,
            user: self.user,
        })
    }

    fn members(&self) -> Result<Vec<Member>, Invalid> {
        const FLAG: &str = "--bootstrap-members";
        const EXPECTED: &str = "expected name=host:port,… as in n1=10.0.0.11:50051";
        let mut members: Vec<Member> = Vec::new();
        for entry in entries(&self.bootstrap_members) {
            let malformed = || Invalid(format!("{FLAG} '{entry}': {EXPECTED}"));
            let (name, address) = entry.split_once('=').ok_or_else(malformed)?;
            let address = address::check(FLAG, address)
                .map_err(|_| malformed())?
                .to_string();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(malformed());
            }
            for earlier in &members {
                let twice = |what, value| {
                    let earlier = format!("{}={}", earlier.name, earlier.address);
                    Invalid(format!(
                        "{FLAG} '{entry}': {what} '{value}' is also in '{earlier}'; expected \
                         each member once"
                    ))
                };
                if earlier.name == name {
                    return Err(twice("id", name));
                }
                if earlier.address == address {
                    return Err(twice("address", &address));
                }
            }
            members.push(Member {
                name: name.to_owned(),
                address,
            });
        }
        if members.is_empty() && given(&self.bootstrap_members).is_some() {
            return Err(Invalid(format!("{FLAG}: no member in it; {EXPECTED}")));
        }
        Ok(members)
    }

    fn redis_map(&self) -> Result<BTreeMap<String, String>, Invalid> {
        const FLAG: &str = "--redis-map (--raftRedisMap)";
        let mut map = BTreeMap::new();
        for entry in entries(&self.redis_map) {
            let malformed = || {
                Invalid(format!(
                    "{FLAG} '{entry}': expected gRPC address=Redis address,… as in \
                     10.0.0.11:50051=10.0.0.11:6379"
                ))
            };
            let (grpc, redis) = entry.split_once('=').ok_or_else(malformed)?;
            let grpc = address::check(FLAG, grpc)
                .map_err(|_| malformed())?
                .to_string();
            let redis = address::check(FLAG, redis)
                .map_err(|_| malformed())?
                .to_string();
            if map.insert(grpc.clone(), redis).is_some() {
                return Err(Invalid(format!(
                    "{FLAG} '{entry}': '{grpc}' stands twice; expected each gRPC address once"
                )));
            }
        }
        Ok(map)
    }

    fn join(&self) -> Result<Vec<Address>, Invalid> {
        entries(&self.join)
            .map(|entry| address::check("--join (--pd, JOIN_ADDR)", entry))
            .collect()
    }

    /// A node described by the environment must be described in full: containers whose
    /// variables are misspelled shall not come up as a cluster of their own.
    fn check_environment(&self, name: Option<&str>) -> Result<(), Invalid> {
        if given(&self.join).is_none() {
            return Ok(());
        }
        let data_dir = self
            .data_dir
            .as_ref()
            .filter(|dir| !dir.as_os_str().is_empty());
        for (missing, what) in [
            (name.is_none(), "NODE_ID (--id), the name of this store"),
            (
                given(&self.address).is_none(),
                "RAFT_ADDR (--address), its gRPC address as host:port",
            ),
            (
                data_dir.is_none(),
                "DATA_DIR (--data-dir), where it keeps its data",
            ),
        ] {
            if missing {
                return Err(Invalid(format!("to join a cluster, a store needs {what}")));
            }
        }
        Ok(())
    }

    /// The members must name this very store.
    fn check_self(
        &self,
        name: Option<&str>,
        advertised: &Address,
        members: &[Member],
    ) -> Result<(), Invalid> {
        if members.is_empty() {
            return Ok(());
        }
        let all = given(&self.bootstrap_members).unwrap_or_default();
        let Some(name) = name else {
            return Err(Invalid(format!(
                "--bootstrap-members '{all}': which of them is this store? Expected its name in \
                 --id (--raftId)"
            )));
        };
        let Some(own) = members.iter().find(|member| member.name == name) else {
            return Err(Invalid(format!(
                "--bootstrap-members '{all}': this store, '{name}', is not among them; expected \
                 an entry '{name}={advertised}'"
            )));
        };
        if advertised.is_any() {
            return Err(Invalid(format!(
                "--bootstrap-members '{name}={}': this store would tell the others '{advertised}', \
                 which on each of them means itself: set --advertise-address; expected '{}'",
                own.address, own.address
            )));
        }
        if own.address != advertised.to_string() {
            return Err(Invalid(format!(
                "--bootstrap-members '{name}={}': this store says that it is reached at \
                 '{advertised}'; expected '{name}={advertised}', or another --address or \
                 --advertise-address",
                own.address
            )));
        }
        Ok(())
    }
}

/// A variable that is set to nothing is as good as absent.
pub(super) fn given(value: &Option<String>) -> Option<&str> {
    value
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

pub(super) fn entries(list: &Option<String>) -> impl Iterator<Item = &str> {
    let list = given(list).unwrap_or_default();
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
