//! `CONFIG`: the settings of this node's Redis door, and facts that clients look up here.
//!
//! Settings hold for this node until it ends; those of the cluster are `rangekv ctl config`'s.
//! Errors are those of Redis 7.2.

use super::connection::{arity, help, unknown_subcommand};
use super::{Config, Session};
use bytes::Bytes;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::{glob, keys, number};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

const HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern> [<pattern> ...]",
    "    Answers the parameters that match, and their values.",
    "SET <parameter> <value> [<parameter> <value> ...]",
    "    Sets parameters of this node until it ends.",
    "RESETSTAT",
    "    Sets the counters of INFO to 0.",
    "REWRITE",
    "    Refused: there is no configuration file.",
    "HELP",
    "    Prints this help.",
];

/// What `CONFIG SET` changes.
pub struct Settings {
    values: [AtomicI64; SETTINGS.len()],
}

/// A parameter that can be set: its name and bounds.
struct Setting {
    name: &'static str,
    min: i64,
    max: i64,
}

const LATENCY: usize = 0;
const MAX_CLIENTS: usize = 1;
const SLOWER_THAN: usize = 2;
const SLOW_MAX_LEN: usize = 3;

/// By name.
const SETTINGS: [Setting; 4] = [
    Setting {
        name: "latency-monitor-threshold",
        min: 0,
        max: i64::MAX,
    },
    Setting {
        name: "maxclients",
        min: 1,
        max: u32::MAX as i64,
    },
    Setting {
        name: "slowlog-log-slower-than",
        min: -1,
        max: i64::MAX,
    },
    Setting {
        name: "slowlog-max-len",
        min: 0,
        // Each entry takes a few kilobytes at most.
        max: 100_000,
    },
];

impl Settings {
    /// As the process was started; the others as Redis begins.
    pub(super) fn new(config: &Config) -> Self {
        let clients_max = i64::try_from(config.clients_max).unwrap_or(i64::MAX);
        Settings {
            values: [0, clients_max, 10_000, 128].map(AtomicI64::new),
        }
    }

    /// Connections at a time.
    pub fn clients_max(&self) -> usize {
        self.get(MAX_CLIENTS) as usize
    }

    /// Whether it matters how long commands take.
    pub(super) fn logs_slow(&self) -> bool {
        self.get(SLOWER_THAN) >= 0 || self.get(LATENCY) > 0
    }

    /// Whether a command that took so long is a latency event.
    pub(super) fn is_latency(&self, took_us: u64) -> bool {
        let least = self.get(LATENCY).max(0) as u64;
        least > 0 && took_us / 1000 >= least
    }

    /// Whether a command that took so long is to be logged.
    pub(super) fn is_slow(&self, took_us: u64) -> bool {
        u64::try_from(self.get(SLOWER_THAN)).is_ok_and(|least| took_us >= least)
    }

    /// Entries of the slow log.
    pub(super) fn slow_max_len(&self) -> usize {
        self.get(SLOW_MAX_LEN) as usize
    }

    fn get(&self, index: usize) -> i64 {
        self.values[index].load(Ordering::Relaxed)
    }
}

impl Session {
    pub(super) fn config_command(&self, args: &[Bytes]) -> Result<Bytes, Bytes> {
        let sub = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        match (sub.as_str(), &args[2..]) {
            ("get", patterns @ [_, ..]) => Ok(self.config_get(patterns)),
            ("set", pairs @ [_, _, ..]) if pairs.len().is_multiple_of(2) => self.config_set(pairs),
            ("resetstat", []) => {
                self.door.reset_stats();
                Ok(reply::ok())
            }
            ("rewrite", []) => {
                let text = "ERR The server is running without a config file";
                Err(reply::error(text))
            }
            ("help", []) => Ok(help(HELP, self.state.protocol)),
            (name @ ("get" | "set" | "resetstat" | "rewrite" | "help"), _) => {
                Err(arity(&format!("config|{name}")))
            }
            _ => Err(unknown_subcommand("CONFIG", &args[1])),
        }
    }

    /// All parameters by name, with their values.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let bulk_max = self.door.config.limits.bulk_bytes_max;
        let mut all = vec![
            // A write is synced on a majority before it is answered.
            ("appendfsync", "always".to_owned()),
            ("appendonly", "yes".to_owned()),
            ("databases", keys::DATABASES.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("proto-max-bulk-len", bulk_max.to_string()),
            ("save", String::new()),
            ("timeout", "0".to_owned()),
        ];
        let settings = &self.door.settings;
        let set = SETTINGS.iter().enumerate();
        all.extend(set.map(|(i, setting)| (setting.name, settings.get(i).to_string())));
        all.sort_unstable();
        all
    }

    fn config_get(&self, patterns: &[Bytes]) -> Bytes {
        let asked = |name: &str| {
            let matches = |p: &Bytes| glob::matches(&p.to_ascii_lowercase(), name.as_bytes());
            patterns.iter().any(matches)
        };
        let mut found = self.parameters();
        found.retain(|(name, _)| asked(name));
        let mut reply = Reply::new(self.state.protocol);
        reply.map(found.len());
        for (name, value) in found {
            reply.bulk(name.as_bytes()).bulk(value.as_bytes());
        }
        reply.finish()
    }

    /// All parameters are set, or none.
    fn config_set(&self, pairs: &[Bytes]) -> Result<Bytes, Bytes> {
        let facts = self.parameters();
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        for pair in pairs.chunks_exact(2) {
            let typed = String::from_utf8_lossy(&pair[0]).into_owned();
            let name = typed.to_ascii_lowercase();
            let Some((_, current)) = facts.iter().find(|(fact, _)| *fact == name) else {
                return Err(reply::error(&format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{typed}'"
                )));
            };
            let failed = |why: &str| {
                reply::error(&format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
                ))
            };
            if !seen.insert(name.clone()) {
                return Err(failed("duplicate parameter"));
            }
            let Some(index) = SETTINGS.iter().position(|s| s.name == name) else {
                // To set what is so changes nothing.
                match pair[1].eq_ignore_ascii_case(current.as_bytes()) {
                    true => continue,
                    false => return Err(failed("can't set immutable config")),
                }
            };
            let Setting { min, max, .. } = SETTINGS[index];
            match number::parse_int(&pair[1]) {
                None => return Err(failed("argument couldn't be parsed into an integer")),
                Some(value) if !(min..=max).contains(&value) => {
                    let why = format!("argument must be between {min} and {max} inclusive");
                    return Err(failed(&why));
                }
                Some(value) => changes.push((index, value)),
            }
        }
        for (index, value) in changes {
            self.door.settings.values[index].store(value, Ordering::Relaxed);
        }
        self.door.slow.trim(self.door.settings.slow_max_len());
        Ok(reply::ok())
    }
}
