//! `rangekv pd`: a placement node, from its flags to [`Options`].
//!
//! It holds range 1 and no data. With `--peers` it makes a cluster with them, or enters theirs; with
//! `--join` it enters a running cluster, whose range 1 then moves to its placement nodes. Stores come
//! with `rangekv start --pd`.

use super::address::{self, Address};
use super::start::{entries, given, LogFormat, Start};
use super::trace::TraceArgs;
use super::Invalid;
use crate::container::User;
use crate::node::options::{FirstStart, Listen, Options};
use clap::Args;
use rangekv_pd::state::StoreRole;
use std::path::PathBuf;

const PEERS: &str = "--peers";

/// Runs a placement node: one, three or five of them hold where everything is, and no data.
#[derive(Args, Debug, Clone)]
pub struct PdArgs {
    /// Name or number of this node, unique in the cluster.
    #[arg(long, value_name = "NAME", env = "NODE_ID", hide_env_values = true)]
    pub id: String,

    /// gRPC address (Raft, admin) to listen on.
    #[arg(
        long,
        visible_alias = "address",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:50051"
    )]
    pub addr: String,

    /// gRPC address that others are told, host:port or host [default: --addr].
    #[arg(long, visible_alias = "advertise-address", value_name = "ADDRESS")]
    pub advertise_addr: Option<String>,

    /// Status addresses (--http-port) of all other placement nodes of a new cluster, or of some of
    /// a running one: http://pd2:8080,pd3:8080. Without, a cluster with this one alone is made.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub peers: Option<String>,

    /// Enter the running cluster of any of these stores, by their gRPC addresses.
    #[arg(long, value_name = "HOST:PORT,…", conflicts_with = "peers")]
    pub join: Option<String>,

    /// Port of the status page, the JSON API and the metrics, on --addr's host.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,

    /// Where everything is kept.
    #[arg(
        long,
        visible_alias = "data-dir",
        value_name = "DIR",
        env = "DATA_DIR",
        hide_env_values = true,
        default_value = "rangekv-pd"
    )]
    pub storage_dir: PathBuf,

    /// Started by root, give the directory to this user and go on as it; the image asks for
    /// 65532. Without effect for other users than root.
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

impl PdArgs {
    /// Checks everything that can be checked without touching disk or network.
    pub fn plan(&self) -> Result<Start, Invalid> {
        let grpc = address::listen("--addr", &self.addr)?;
        let told = given(&self.advertise_addr);
        let advertised = address::advertised("--advertise-addr", told, &grpc, "pd1:50051")?;
        let peers = self.peers()?;
        let join = entries(&self.join)
            .map(|entry| address::check("--join", entry))
            .collect::<Result<Vec<_>, _>>()?;
        let remote = peers.iter().chain(&join).any(|other| !other.is_own());
        if advertised.is_any() || (remote && advertised.is_own()) {
            return Err(Invalid(format!(
                "stores and other placement nodes would be told to reach this one at \
                 '{advertised}', which on each of them means itself: set --advertise-addr to an \
                 address of this machine that they can reach"
            )));
        }
        let id = self.id.trim();
        if id.is_empty() || id.contains(char::is_whitespace) {
            return Err(Invalid(format!(
                "--id '{}': expected a name or a number without spaces",
                self.id
            )));
        }
        let text = |all: Vec<Address>| all.iter().map(Address::to_string).collect();
        let options = Options {
            name: Some(id.to_owned()),
            role: StoreRole::Placement,
            data_dir: self.storage_dir.clone(),
            first_start: match join.is_empty() {
                true => FirstStart::Peers(text(peers)),
                false => FirstStart::Join(text(join)),
            },
            http: Listen {
                bind: format!("{}:{}", grpc.host, self.http_port),
                advertise: grpc.is_any().then(|| advertised.host.clone()),
            },
            http_asked_for: true,
            grpc: Listen {
                bind: grpc.to_string(),
                advertise: told.map(str::to_owned),
            },
            trace: self.trace.plan()?,
            ..Options::default()
        };
        Ok(Start {
            options,
            log_format: self.log_format,
            user: self.user,
        })
    }

    fn peers(&self) -> Result<Vec<Address>, Invalid> {
        let peer = |entry: &str| {
            let address = entry.strip_prefix("http://").unwrap_or(entry);
            address::check(PEERS, address.trim_end_matches('/')).map_err(|_| {
                Invalid(format!(
                    "{PEERS} '{entry}': expected the status address of one machine, with or \
                     without http://, for example http://pd2:8080"
                ))
            })
        };
        entries(&self.peers).map(peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Start, String> {
        let words = ["rangekv", "pd"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Pd(args) => args.plan().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// ACCEPTANCE H8.
    #[test]
    fn as_its_users_type_it() {
        let line = "--id 1 --addr 0.0.0.0:50051 --advertise-addr pd1:50051 \
                    --peers http://pd2:8080,pd3:8080/ --http-port 8080 --storage-dir /data/raft";
        let options = parse(line).unwrap().options;
        assert_eq!(options.name.as_deref(), Some("1"));
        assert_eq!(options.role, StoreRole::Placement);
        let peers = FirstStart::Peers(vec!["pd2:8080".into(), "pd3:8080".into()]);
        assert_eq!(options.first_start, peers);
        assert_eq!(options.grpc.bind, "0.0.0.0:50051");
        assert_eq!(options.grpc.advertise.as_deref(), Some("pd1:50051"));
        assert_eq!(options.http.bind, "0.0.0.0:8080");
        assert_eq!(options.http.advertise.as_deref(), Some("pd1"));
        assert_eq!(options.data_dir, PathBuf::from("/data/raft"));
        let again = parse(
            &line
                .replace("-addr ", "-address ")
                .replace("storage-dir", "data-dir"),
        );
        assert_eq!(again.unwrap().options.grpc, options.grpc);
    }

    #[test]
    fn ways_to_begin() {
        let first = |line| parse(line).unwrap().options.first_start;
        assert_eq!(first("--id pd1"), FirstStart::Peers(vec![]));
        let join = FirstStart::Join(vec!["10.0.0.11:50051".into()]);
        assert_eq!(
            first("--id pd1 --addr 10.0.0.9:50051 --join 10.0.0.11:50051"),
            join
        );
    }

    #[test]
    fn refusals_name_the_flag() {
        for (line, named) in [
            ("--addr 10.0.0.9:50051", "--id"),
            ("--id 1 --addr 0.0.0.0:50051", "--advertise-addr"),
            ("--id 1 --peers pd2:8080", "--advertise-addr"),
            (
                "--id 1 --addr pd1:1 --peers https://pd2:8080",
                "--peers 'https://pd2:8080'",
            ),
            ("--id 1 --addr pd1:1 --peers pd2", "--peers 'pd2'"),
            (
                "--id 1 --addr pd1:1 --peers pd2:8080 --join n1:50051",
                "--join",
            ),
            ("--id 1 --addr pd1", "--addr 'pd1'"),
            (
                "--id 1 --addr pd1:1 --advertise-addr http://x",
                "--advertise-addr 'http://x'",
            ),
        ] {
            let error = parse(line).map(|start| start.options).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
