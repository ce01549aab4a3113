//! `INFO`: what the door counts itself, and what the node adds to each section.

use super::{keyspace, Door, Session};
use crate::metrics::{DoorFigures, OTHER};
use bytes::Bytes;

/// Sections in the order in which Redis shows them. [`keyspace`] is the last: its figures are counted when
/// the others are written.
const SECTIONS: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "commandstats",
    "errorstats",
    "cluster",
    "keyspace",
];

/// Sections that are shown only by name, or with everything.
const ASKED_FOR: &[&str] = &["commandstats"];

/// What was counted when the counters were last reset.
#[derive(Default)]
pub(super) struct Since {
    pub commands: u64,
    pub accepted: u64,
    pub refused: u64,
    pub figures: DoorFigures,
}

/// The version of Redis whose behaviour the door follows.
pub(super) const REDIS_VERSION: &str = "7.2.0";

impl Session {
    /// `INFO` as far as this node knows it: all but what the databases hold.
    pub(super) fn info(&self, args: &[Bytes]) -> Bytes {
        keyspace::text(&self.info_text(args), self.state.protocol)
    }

    /// The lines of the sections that are asked for.
    pub(super) fn info_text(&self, args: &[Bytes]) -> String {
        let asked: Vec<String> = args[1..]
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase())
            .collect();
        let is_asked = |names: &[&str]| asked.iter().any(|s| names.contains(&s.as_str()));
        let everything = is_asked(&["all", "everything"]);
        let usual = everything || asked.is_empty() || is_asked(&["default"]);
        let mut text = String::new();
        for section in SECTIONS {
            let is_usual = everything || (usual && !ASKED_FOR.contains(section));
            if !is_usual && !is_asked(&[section]) {
                continue;
            }
            let mut lines = own_lines(&self.door, section);
            self.door.node.info(section, &mut lines);
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let (first, rest) = section.split_at(1);
            text.push_str(&format!("# {}{rest}\r\n", first.to_ascii_uppercase()));
            for (name, value) in lines {
                text.push_str(&format!("{name}:{value}\r\n"));
            }
        }
        text
    }
}

fn own_lines(door: &Door, section: &str) -> Vec<(String, String)> {
    let line = |name: &str, value: String| (name.to_owned(), value);
    match section {
        "server" => vec![
            line("redis_version", REDIS_VERSION.into()),
            line("rangekv_version", env!("CARGO_PKG_VERSION").into()),
            line("redis_mode", "standalone".into()),
            line("arch_bits", usize::BITS.to_string()),
            line("process_id", std::process::id().to_string()),
        ],
        "clients" => vec![
            line("connected_clients", door.clients.count().to_string()),
            line("maxclients", door.settings.clients_max().to_string()),
            line(
                "pubsub_clients",
                door.pubsub.figures().subscribers.to_string(),
            ),
        ],
        "memory" => vec![
            line("maxmemory", "0".into()),
            line("maxmemory_policy", "noeviction".into()),
        ],
        // A write is synced on a majority before it is answered; a node that answers has loaded.
        "persistence" => vec![line("loading", "0".into()), line("aof_enabled", "1".into())],
        "stats" => {
            let (since, figures) = (door.since.lock(), door.metrics.figures());
            let bytes_in = figures.bytes_in - since.figures.bytes_in;
            let bytes_out = figures.bytes_out - since.figures.bytes_out;
            let errors = errors(&figures, &since.figures).map(|(_, count)| count);
            let [channels, patterns, shard_channels] = door.pubsub.figures().names;
            [
                (
                    "total_connections_received",
                    door.clients.accepted() - since.accepted,
                ),
                ("total_commands_processed", door.commands() - since.commands),
                ("total_net_input_bytes", bytes_in),
                ("total_net_output_bytes", bytes_out),
                (
                    "rejected_connections",
                    door.clients.refused() - since.refused,
                ),
                ("total_error_replies", errors.sum()),
                ("pubsub_channels", channels),
                ("pubsub_patterns", patterns),
                ("pubsubshard_channels", shard_channels),
            ]
            .map(|(name, count)| line(name, count.to_string()))
            .into()
        }
        // Only how often: a command's time is spent on several stores, for many commands at once.
        "commandstats" => {
            let (since, figures) = (door.since.lock(), door.metrics.figures());
            let before = |name: &str| {
                let found = since.figures.requests.iter().find(|(n, _)| *n == name);
                found.map_or(0, |(_, count)| *count)
            };
            let calls = figures.requests.iter();
            calls
                .map(|(name, count)| (name, count - before(name)))
                .filter(|(name, count)| *count > 0 && **name != OTHER)
                .map(|(name, count)| line(&format!("cmdstat_{name}"), format!("calls={count}")))
                .collect()
        }
        "errorstats" => {
            let (since, figures) = (door.since.lock(), door.metrics.figures());
            errors(&figures, &since.figures)
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| line(&format!("errorstat_{kind}"), format!("count={count}")))
                .collect()
        }
        // Any node answers as a master does: it takes writes, and reads are linearizable.
        "replication" => vec![line("role", "master".into())],
        // CLUSTER is answered in full. `redis_mode` says what a client may do that does not ask
        // for it: use any node, and all databases.
        "cluster" => vec![line("cluster_enabled", "1".into())],
        _ => Vec::new(),
    }
}

/// Error replies by kind since `since`.
fn errors<'a>(
    figures: &'a DoorFigures,
    since: &'a DoorFigures,
) -> impl Iterator<Item = (&'static str, u64)> + 'a {
    let before = |i: usize| since.errors.get(i).map_or(0, |(_, count)| *count);
    let all = figures.errors.iter().enumerate();
    all.map(move |(i, (kind, count))| (*kind, count - before(i)))
}
