//! The command line of `rangekv bench`, and the checks that clap can't make.

use super::keys::Distribution;
use super::load::{Load, Mix, Op};
use super::pace::Stop;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Measures a running cluster, or anything else that speaks RESP, DynamoDB or etcd's gRPC.
#[derive(Args, Debug, Clone)]
pub struct BenchArgs {
    /// Servers to load; clients are dealt out to them in turn.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:6379"
    )]
    pub endpoints: Vec<String>,

    /// What the servers speak.
    #[arg(long, value_enum, default_value_t = Protocol::Resp)]
    pub protocol: Protocol,

    /// As clients of Redis Cluster do: each client has a connection to every node that CLUSTER NODES
    /// names, and sends each request to the owner of its key's slot.
    #[arg(long)]
    pub cluster: bool,

    /// What each request does.
    #[arg(long, value_enum, default_value_t = Command::Set)]
    pub command: Command,

    /// Share of reads, 0.0 to 1.0 [with --command mixed; default: 0.5].
    #[arg(long, value_name = "SHARE")]
    pub reads: Option<f64>,

    /// Concurrent clients, each with its own connection (etcd: see --connections).
    #[arg(long, short = 'c', default_value_t = 64)]
    pub clients: usize,

    /// Requests that a client has in flight. Closed loop: sends that many, awaits them all.
    #[arg(long, short = 'P', default_value_t = 1)]
    pub pipeline: usize,

    /// Bytes of each written value.
    #[arg(long, short = 'd', value_name = "BYTES", default_value_t = 128)]
    pub value_size: usize,

    /// Number of different keys; of elements for commands on hashes, sets, sorted sets, lists.
    #[arg(long, short = 'k', default_value_t = 100_000)]
    pub keys: u64,

    /// Number of collections that those elements lie in.
    #[arg(long, default_value_t = 1)]
    pub collections: u64,

    /// DynamoDB only: the table; it is made if it is not there.
    #[arg(long, default_value = "bench")]
    pub table: String,

    /// Text before each key's twelve digits [default: by type, such as key:, counter:, hash:].
    #[arg(long, value_name = "TEXT")]
    pub key_prefix: Option<String>,

    /// How requests spread over the keys.
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub distribution: Spread,

    /// Steepness of --distribution zipf.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.99)]
    pub zipf_exponent: f64,

    /// Share of the requests that go to the one hot key of --distribution hot.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub hot_share: f64,

    /// How long to measure.
    #[arg(long, value_parser = parse_duration, default_value = "10s", conflicts_with = "requests")]
    pub duration: Duration,

    /// Measure this many requests instead of a --duration.
    #[arg(long, short = 'n')]
    pub requests: Option<u64>,

    /// Open loop: start this many requests per second whether or not earlier ones were
    /// answered; latency then counts from the moment at which a request was due. Without it,
    /// a client sends when it has its answers (closed loop).
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,

    /// Load before the measurement begins; its results are dropped.
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub warmup: Duration,

    /// Write every key once before the warm-up, so that reads find something.
    #[arg(long)]
    pub preload: bool,

    /// Give up a request after this long, and count it as an error.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,

    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// etcd only: HTTP/2 connections that the clients share [default: one per endpoint].
    #[arg(long)]
    pub connections: Option<usize>,

    /// Same seed, same keys and values.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What the servers speak.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Redis.
    Resp,
    /// etcd v3: Put and linearizable Range.
    Etcd,
    /// DynamoDB over HTTP/1.1.
    Dynamodb,
}

/// What each request does.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// SET key value; DynamoDB: PutItem
    Set,
    /// GET key; DynamoDB: GetItem, strongly consistent
    Get,
    /// INCR key; DynamoDB: UpdateItem ADD
    Incr,
    /// GET or SET, see --reads
    Mixed,
    /// HSET key field value
    Hset,
    /// HGET key field
    Hget,
    /// SADD key member
    Sadd,
    /// SISMEMBER key member
    Sismember,
    /// ZADD key score member
    Zadd,
    /// ZSCORE key member
    Zscore,
    /// ZRANK key member
    Zrank,
    /// ZRANGEBYSCORE key score +inf LIMIT 0 10
    Zrange,
    /// LPUSH key value
    Lpush,
    /// LRANGE key 0 9
    Lrange,
    /// LINDEX key index
    Lindex,
}

impl Command {
    /// `None`: several.
    pub fn op(self) -> Option<Op> {
        Some(match self {
            Command::Mixed => return None,
            Command::Set => Op::Set,
            Command::Get => Op::Get,
            Command::Incr => Op::Incr,
            Command::Hset => Op::Hset,
            Command::Hget => Op::Hget,
            Command::Sadd => Op::Sadd,
            Command::Sismember => Op::Sismember,
            Command::Zadd => Op::Zadd,
            Command::Zscore => Op::Zscore,
            Command::Zrank => Op::Zrank,
            Command::Zrange => Op::Zrange,
            Command::Lpush => Op::Lpush,
            Command::Lrange => Op::Lrange,
            Command::Lindex => Op::Lindex,
        })
    }
}

/// How requests spread over the keys.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Every key equally often.
    Uniform,
    /// A few keys very often, see --zipf-exponent.
    Zipf,
    /// One key, see --hot-share.
    Hot,
    /// One key after the other.
    Sequential,
}

impl BenchArgs {
    /// What to send. An error names the flag to change.
    pub fn load(&self) -> Result<Load, String> {
        self.check()?;
        let mix = match self.command.op() {
            Some(op) => Mix::Only(op),
            None => Mix::Mixed {
                reads: self.reads.unwrap_or(0.5),
            },
        };
        let distribution = match self.distribution {
            Spread::Uniform => Distribution::Uniform,
            Spread::Zipf => Distribution::Zipf {
                exponent: self.zipf_exponent,
            },
            Spread::Hot => Distribution::Hot {
                share: self.hot_share,
            },
            Spread::Sequential => Distribution::Sequential,
        };
        let key_prefix = self.command.op().map_or("key:", Op::key_prefix);
        Ok(Load {
            mix,
            distribution,
            keys: self.keys,
            collections: self.collections,
            key_prefix: self.key_prefix.clone().unwrap_or_else(|| key_prefix.into()),
            value_bytes: self.value_size,
            seed: self.seed,
        })
    }

    /// When to stop.
    pub fn stop(&self) -> Stop {
        match self.requests {
            Some(requests) => Stop::Requests(requests),
            None => Stop::After(self.duration),
        }
    }

    fn check(&self) -> Result<(), String> {
        let share = |flag: &str, value: f64| match value {
            v if (0.0..=1.0).contains(&v) => Ok(()),
            v => Err(format!("{flag} {v}: expected a share between 0.0 and 1.0")),
        };
        let at_least_one = |flag: &str, value: u64| match value {
            0 => Err(format!("{flag} 0: expected at least 1")),
            _ => Ok(()),
        };
        share("--hot-share", self.hot_share)?;
        if let Some(reads) = self.reads {
            share("--reads", reads)?;
            if self.command != Command::Mixed {
                return Err("--reads has a meaning with --command mixed only".into());
            }
        }
        at_least_one("--clients", self.clients as u64)?;
        at_least_one("--pipeline", self.pipeline as u64)?;
        at_least_one("--keys", self.keys)?;
        at_least_one("--collections", self.collections)?;
        at_least_one("--threads", self.threads as u64)?;
        at_least_one("--connections", self.connections.unwrap_or(1) as u64)?;
        at_least_one("--requests", self.requests.unwrap_or(1))?;
        if self.keys > super::load::KEYS_MAX {
            return Err(format!("--keys {}: twelve digits are the most", self.keys));
        }
        if self.cluster && self.protocol != Protocol::Resp {
            return Err("--cluster has a meaning with --protocol resp only".into());
        }
        if self.threads > self.clients {
            return Err(format!(
                "--threads {}: more than the {} clients that they would share",
                self.threads, self.clients
            ));
        }
        if self
            .rate
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
        {
            return Err("--rate: expected more than 0 requests per second".into());
        }
        if !(self.zipf_exponent.is_finite() && self.zipf_exponent > 0.0) {
            return Err(format!(
                "--zipf-exponent {}: expected more than 0",
                self.zipf_exponent
            ));
        }
        let has = match self.protocol {
            Protocol::Resp => true,
            Protocol::Etcd => matches!(self.command, Command::Set | Command::Get | Command::Mixed),
            Protocol::Dynamodb => matches!(
                self.command,
                Command::Set | Command::Get | Command::Mixed | Command::Incr
            ),
        };
        if !has {
            let value = |value: Option<clap::builder::PossibleValue>| {
                value.map_or_else(String::new, |value| value.get_name().to_owned())
            };
            return Err(format!(
                "--command {}: --protocol {} has no such request",
                value(self.command.to_possible_value()),
                value(self.protocol.to_possible_value())
            ));
        }
        Ok(())
    }
}

/// `10s`, `500ms`, `2m`, `1h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("'{text}': expected a duration as 10s or 500ms"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => {
            return Err(format!(
                "'{text}': unknown unit '{unit}', expected ms, s, m or h"
            ))
        }
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("'{text}': {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(flags: &str) -> Result<Load, String> {
        let words = std::iter::once("bench").chain(flags.split_whitespace());
        Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .bench
            .load()
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("10s", Some(Duration::from_secs(10))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("7", Some(Duration::from_secs(7))),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("10d", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn refusals_name_the_flag() {
        for (flags, named) in [
            ("--reads 0.5", "--command mixed"),
            ("--command mixed --reads 1.5", "--reads 1.5"),
            ("--hot-share=-1", "--hot-share"),
            ("--clients 0", "--clients"),
            ("--threads 3 --clients 2", "--threads 3"),
            ("--rate 0", "--rate"),
            ("--keys 0", "--keys"),
            ("--keys 9999999999999", "--keys"),
            ("--requests 0", "--requests"),
            ("--requests 5 --duration 1s", "--duration"),
            ("--distribution zipf --zipf-exponent 0", "--zipf-exponent"),
            ("--protocol etcd --command incr", "--command incr"),
            ("--protocol dynamodb --command zadd", "--command zadd"),
            ("--collections 0", "--collections"),
        ] {
            let error = parse(flags).map(|_| ()).unwrap_err();
            assert!(error.contains(named), "{flags}: {error}");
        }
    }

    #[test]
    fn defaults_are_valid() {
        let load = parse("").unwrap();
        assert_eq!(load.mix, Mix::Only(Op::Set));
        assert_eq!(
            parse("--command mixed").unwrap().mix,
            Mix::Mixed { reads: 0.5 }
        );
    }
}
