//! `INFO`: what the door counts itself, and what the node adds to each section.

use super::{Door, Session};
use bytes::Bytes;
use rangekv_model::redis::reply::Reply;

/// Sections in the order in which Redis shows them.
const SECTIONS: &[&str] = &[
    "server",
    "clients",
    "memory",
    "stats",
    "replication",
    "cluster",
    "keyspace",
];

/// The version of Redis whose behaviour the door follows.
pub(super) const REDIS_VERSION: &str = "7.2.0";

impl Session {
    pub(super) fn info(&self, args: &[Bytes]) -> Bytes {
        let asked: Vec<String> = args[1..]
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase())
            .collect();
        let everything = asked.is_empty()
            || asked
                .iter()
                .any(|s| matches!(s.as_str(), "all" | "default" | "everything"));
        let mut text = String::new();
        for section in SECTIONS {
            if !everything && !asked.iter().any(|s| s == section) {
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
        let mut reply = Reply::new(self.state.protocol);
        reply.verbatim(b"txt", text.as_bytes());
        reply.finish()
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
            line("maxclients", door.config.clients_max.to_string()),
        ],
        "stats" => vec![
            line(
                "total_connections_received",
                door.clients.accepted().to_string(),
            ),
            line("total_commands_processed", door.commands().to_string()),
            line("rejected_connections", door.clients.refused().to_string()),
        ],
        // Any node answers as a master does: it takes writes, and reads are linearizable.
        "replication" => vec![line("role", "master".into())],
        "cluster" => vec![line("cluster_enabled", "0".into())],
        _ => Vec::new(),
    }
}
