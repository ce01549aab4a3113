//! What a node is told at its start. The command line (cli.rs) fills it in.

use crate::procfs;
use rangekv_pd::state::StoreRole;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Beyond it, more threads of a kind are of no use.
const THREADS_MAX: usize = 16;

/// Less would hold not even the indexes of the files in use.
pub const CACHE_BYTES_MIN: u64 = 32 << 20;
/// Who wants more than this says so.
const CACHE_BYTES_USUAL_MAX: u64 = 1 << 30;

/// Everything that [`run`](super::process::run) needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's name for this store, such as `n1`. `None` = keep the one in the data
    /// directory, or make one up.
    pub name: Option<String>,
    /// What this process is for. A placement node serves no clients: of the doors it opens
    /// `grpc` and `http` alone.
    pub role: StoreRole,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What to do if the data directory is empty. Without effect otherwise.
    pub first_start: FirstStart,
    /// Raft, admin services and forwarding.
    pub grpc: Listen,
    /// Redis.
    pub redis: Listen,
    /// Status page, JSON API and metrics.
    pub http: Listen,
    /// Somebody asked for that very address: without it the process can't start.
    pub http_asked_for: bool,
    /// DynamoDB.
    pub dynamo: Listen,
    /// Somebody asked for that very address: without it the process can't start.
    pub dynamo_asked_for: bool,
    /// Keys and values over HTTP.
    pub kv_http: Listen,
    /// Somebody asked for that very address: without it the process can't start.
    pub kv_http_asked_for: bool,
    /// Data ranges that a bootstrap makes, or the first store of a cluster of placement nodes;
    /// `None` = by the number of members.
    pub data_ranges: Option<usize>,
    /// Threads for Redis connections; `None` = as many as there are cores.
    pub redis_threads: Option<NonZeroUsize>,
    /// Memory for what was read before, bytes; `None` = by how much there is.
    pub cache_bytes: Option<u64>,
    /// A worker or an fsync that takes longer ends the process, so that leaders move.
    pub stuck_max: Duration,
    /// Writes are refused while the disk has less free.
    pub disk_reserve_bytes: u64,
    /// Snapshots sent at the same time, and received at the same time.
    pub snapshots_max: usize,
    /// Bytes per second of all snapshots sent.
    pub snapshot_bytes_per_second: u64,
    /// Where traces go, and of how many requests; `None` = nothing is traced.
    pub trace: Option<TraceOptions>,
}

/// What is traced, and for whom.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    /// The collector: `http://host:port`, OTLP over gRPC.
    pub endpoint: String,
    /// The share of requests, 0 to 1.
    pub share: f64,
}

impl Default for Options {
    /// `rangekv start` without flags: a cluster of one in `./rangekv-data`.
    fn default() -> Self {
        Options {
            name: None,
            role: StoreRole::Store,
            data_dir: "rangekv-data".into(),
            first_start: FirstStart::Single,
            grpc: Listen {
                bind: "127.0.0.1:50051".into(),
                advertise: None,
            },
            redis: Listen {
                bind: "127.0.0.1:6379".into(),
                advertise: None,
            },
            http: Listen {
                bind: "127.0.0.1:8080".into(),
                advertise: None,
            },
            http_asked_for: false,
            dynamo: Listen {
                bind: "127.0.0.1:8000".into(),
                advertise: None,
            },
            dynamo_asked_for: false,
            kv_http: Listen {
                bind: "127.0.0.1:9080".into(),
                advertise: None,
            },
            kv_http_asked_for: false,
            data_ranges: None,
            redis_threads: None,
            cache_bytes: None,
            stuck_max: Duration::from_secs(20),
            disk_reserve_bytes: 256 << 20,
            snapshots_max: 2,
            snapshot_bytes_per_second: 64 << 20,
            trace: None,
        }
    }
}

impl Options {
    /// Threads for Redis connections: one per core, for reads that no cache holds. A thread that finds
    /// much to do at once costs less than two that wake each other, so where stores share
    /// a machine each should have its share (docs/PERFORMANCE.md "What helped").
    pub fn redis_threads(&self) -> NonZeroUsize {
        self.redis_threads.unwrap_or_else(|| threads(1))
    }

    /// Memory for records and blocks that were read before, bytes: an eighth of what there is, as other
    /// things run on the machine, too, within bounds that suit a laptop. A placement node reads next to nothing.
    pub fn cache_bytes(&self) -> u64 {
        match self.role {
            StoreRole::Store => self.cache_bytes.unwrap_or_else(default_cache_bytes),
            StoreRole::Placement => CACHE_BYTES_MIN,
        }
    }

    /// Threads of the runtime: gRPC, HTTP. Half the cores, for that reason.
    pub fn runtime_threads(&self) -> usize {
        threads(2).get()
    }
}

/// See [`Options::cache_bytes`].
pub fn default_cache_bytes() -> u64 {
    let eighth = procfs::usable_memory().map_or(0, |bytes| bytes / 8);
    eighth.clamp(CACHE_BYTES_MIN, CACHE_BYTES_USUAL_MAX)
}

/// One thread for so many cores.
fn threads(cores: usize) -> NonZeroUsize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    NonZeroUsize::new(all.div_ceil(cores).min(THREADS_MAX)).expect("at least one")
}

/// How an empty store finds its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// Makes a cluster of one.
    Single,
    /// Makes a cluster of these members, this store among them.
    Bootstrap(Vec<Member>),
    /// Waits until the bootstrapping member, or a joining operator, gives it its place.
    Wait,
    /// Asks these stores (`host:port`) for a place in their cluster.
    Join(Vec<String>),
    /// Makes a cluster of placement nodes with those whose status HTTP is at these addresses
    /// (`host:port`), or enters theirs.
    Peers(Vec<String>),
}

/// A member of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique name, such as `n1`.
    pub name: String,
    /// gRPC address, `host:port`, as others reach it.
    pub address: String,
}

/// An address to listen on, and the one to tell others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `host:port`; port 0 = the system chooses.
    pub bind: String,
    /// `host:port`, or `host` with the port of `bind`; `None` = `bind`.
    pub advertise: Option<String>,
}

/// An address that others could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "other stores and their clients would be sent to {:?}, which means their own machine: \
             set --advertise-address to an address of this machine that they can reach",
            self.0
        )
    }
}

impl std::error::Error for Unreachable {}

impl Listen {
    /// The address to tell others, once `port` is bound. With `remote` members it must mean
    /// the same on every machine.
    pub fn advertised(&self, port: u16, remote: bool) -> Result<String, Unreachable> {
        let address = self.advertise.as_ref().unwrap_or(&self.bind);
        let (host, port) = match split(address) {
            Some((host, 0)) => (host, port),
            Some(both) => both,
            None => (address.as_str(), port),
        };
        let any = matches!(host, "" | "0.0.0.0" | "[::]" | "::");
        let own = any
            || host == "localhost"
            || host.starts_with("127.")
            || matches!(host, "[::1]" | "::1");
        match (own, any) {
            (true, _) if remote => Err(Unreachable(format!("{host}:{port}"))),
            (_, true) => Ok(format!("127.0.0.1:{port}")),
            _ => Ok(format!("{host}:{port}")),
        }
    }
}

/// Host and port of `host:port`; an IPv6 host keeps its brackets.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    (!host.contains(':') || host.starts_with('[')).then_some(())?;
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertises_what_others_can_use() {
        let listen = |bind: &str, advertise: Option<&str>| Listen {
            bind: bind.into(),
            advertise: advertise.map(Into::into),
        };
        for (bind, advertise, remote, want) in [
            ("127.0.0.1:6379", None, false, Some("127.0.0.1:6379")),
            ("127.0.0.1:6379", None, true, None),
            ("0.0.0.0:6379", None, false, Some("127.0.0.1:6379")),
            ("0.0.0.0:6379", None, true, None),
            (
                "0.0.0.0:6379",
                Some("10.0.0.11"),
                true,
                Some("10.0.0.11:6379"),
            ),
            ("0.0.0.0:6379", Some("node1:7000"), true, Some("node1:7000")),
            ("10.0.0.11:0", None, true, Some("10.0.0.11:6379")),
            ("[::1]:6379", None, true, None),
            ("[fd00::1]:6379", None, true, Some("[fd00::1]:6379")),
            ("node1:50051", None, true, Some("node1:50051")),
        ] {
            let got = listen(bind, advertise).advertised(6379, remote);
            assert_eq!(
                got.ok().as_deref(),
                want,
                "{bind} {advertise:?} remote={remote}"
            );
        }
    }
}
