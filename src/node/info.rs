//! What the node adds to Redis's `INFO`, and the clock of `TIME`.

use super::running::Running;
use rangekv_router::session::Node;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The node, to its Redis door.
pub struct NodeInfo(pub Arc<Running>);

impl Node for NodeInfo {
    fn unix_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| d.as_micros() as u64)
    }

    fn info(&self, section: &str, lines: &mut Vec<(String, String)>) {
        let node = &self.0;
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        match section {
            "server" => {
                let uptime = node.started.elapsed().as_secs();
                let port = node.seat.addresses().redis.rsplit(':').next();
                line("tcp_port", port.unwrap_or_default().to_owned());
                line("uptime_in_seconds", uptime.to_string());
                line("uptime_in_days", (uptime / 86_400).to_string());
                line("rangekv_cluster", format!("{:016x}", node.identity.cluster));
                line("rangekv_store", node.identity.store.to_string());
                line("rangekv_node", node.identity.name.clone());
            }
            "memory" => {
                if let Some(bytes) = resident_bytes() {
                    line("used_memory_rss", bytes.to_string());
                }
            }
            "stats" => {
                let metrics = &node.shared.metrics;
                for (name, count) in [
                    ("rangekv_rounds", metrics.round_groups.read().count),
                    ("rangekv_log_syncs", metrics.syncs.get()),
                    ("rangekv_proposals", metrics.proposals.get()),
                    ("rangekv_commands_evaluated", metrics.commands.get()),
                    ("rangekv_entries_applied", metrics.entries_applied.get()),
                    ("rangekv_local_reads", node.shared.local_reads()),
                ] {
                    line(name, count.to_string());
                }
            }
            "cluster" => {
                line(
                    "rangekv_ranges",
                    node.cache.snapshot().cache.routes().len().to_string(),
                );
                line(
                    "rangekv_replicas_here",
                    node.shared.routes().len().to_string(),
                );
                line("rangekv_leaders_here", node.led().0.to_string());
            }
            _ => {}
        }
    }
}

/// Resident memory of this process; `None` if the system does not say.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory_is_more_than_nothing() {
        assert!(super::resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
