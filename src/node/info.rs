//! The node, to its Redis door: what it adds to `INFO`, the clock of `TIME`, and the stores of
//! which `CLUSTER` tells.

use super::running::Running;
use crate::errands::{self, Answer};
use crate::procfs;
use bytes::Bytes;
use rangekv_proto::ReplySink;
use rangekv_router::session::{ClusterView, Errand, Node, StoreView};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

/// See the module's documentation.
pub struct NodeInfo {
    node: Arc<Running>,
    runtime: Handle,
}

impl NodeInfo {
    /// Errands run on this thread's runtime.
    pub fn new(node: Arc<Running>) -> Self {
        let runtime = Handle::current();
        NodeInfo { node, runtime }
    }
}

impl Node for NodeInfo {
    fn cluster(&self) -> ClusterView {
        cluster_view(&self.node)
    }

    fn run(&self, errand: Errand, sink: Arc<dyn ReplySink>, token: u64) -> Option<Bytes> {
        let (node, answer) = (self.node.clone(), Answer::new(sink, token));
        self.runtime
            .spawn(async move { answer.give(errands::run(node, errand).await) });
        None
    }

    fn unix_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| d.as_micros() as u64)
    }

    fn info(&self, section: &str, lines: &mut Vec<(String, String)>) {
        let node = &self.node;
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
                line("rangekv_grpc", node.seat.addresses().grpc.clone());
            }
            "memory" => {
                if let Some(bytes) = procfs::memory().map(|m| m.resident_bytes) {
                    // There is no allocator's count: what the system has given is what is used.
                    line("used_memory", bytes.to_string());
                    line("used_memory_rss", bytes.to_string());
                }
            }
            "cpu" => {
                if let Some(stat) = procfs::stat() {
                    line("used_cpu_sys", format!("{:.6}", stat.system_seconds));
                    line("used_cpu_user", format!("{:.6}", stat.user_seconds));
                }
            }
            "replication" => {
                let others = self.cluster();
                let me = others.me;
                let up = others.stores.iter().filter(|s| s.is_up && s.id != me);
                line("connected_slaves", up.count().to_string());
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

/// The stores as this one sees them.
pub fn cluster_view(node: &Running) -> ClusterView {
    let me = node.identity.store_id();
    let book = node.book.all().into_iter();
    let stores = book.filter_map(|(id, entry)| {
        let redis = match id == me {
            true => &node.seat.addresses().redis,
            false => &entry.redis,
        };
        // The address of a store that has just joined comes with the next heartbeat.
        let (host, port) = host_and_port(redis)?;
        let is_up = id == me || node.stores.transport.is_connected(id);
        Some(StoreView {
            id,
            host,
            port,
            bus_port: host_and_port(&entry.grpc).map_or(0, |(_, port)| port),
            is_up,
        })
    });
    ClusterView {
        cluster: node.identity.cluster,
        me,
        epoch: node.heartbeats.state.lock().catalog_version(),
        stores: stores.collect(),
    }
}

/// Parts of an address; the host is empty if it is no address that a client could use.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let host = match host {
        "0.0.0.0" | "::" => "",
        host => host,
    };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_that_mean_nothing_to_others_have_no_host() {
        let parts = |address| super::host_and_port(address);
        assert_eq!(parts("10.0.0.1:6379"), Some(("10.0.0.1".into(), 6379)));
        assert_eq!(parts("[::1]:6379"), Some(("::1".into(), 6379)));
        assert_eq!(parts("node1:6379"), Some(("node1".into(), 6379)));
        assert_eq!(parts("0.0.0.0:6379"), Some((String::new(), 6379)));
        assert_eq!(parts("[::]:6379"), Some((String::new(), 6379)));
        assert_eq!(parts(""), None);
    }
}
