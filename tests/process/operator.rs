//! What an operator sees: `rangekv ctl --json`.

use crate::cluster::{rangekv, until, Cluster};
use rangekv_model::redis::keys;
use serde_json::Value;
use std::process::Command;

/// Index of the node whose store leads the range of the Redis key `key`, once there is one.
pub fn leader_of(cluster: &Cluster, key: &str) -> usize {
    let record: String = keys::record_key(0, key.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    until(&format!("a leader for {key}"), || {
        let ranges = ask(cluster, &["range", "list"])?;
        let stores = ask(cluster, &["store", "list"])?;
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_string();
        let holds = |range: &&Value| {
            let (start, end) = (text(range, "start"), text(range, "end"));
            start <= record && (end.is_empty() || record < end)
        };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let ranges = list(&ranges);
        let range = ranges.iter().find(holds).ok_or("no range holds it")?;
        let leader = range["leader"].as_u64().ok_or("its range has no leader")?;
        let stores = list(&stores);
        let store = stores.iter().find(|store| store["id"] == leader);
        let name = text(store.ok_or("its leader is not listed")?, "name");
        let position = cluster.nodes.iter().position(|node| node.name == name);
        position.ok_or_else(|| format!("a node called {name:?}"))
    })
}

/// What any node says to `rangekv ctl --json …`.
pub fn ask(cluster: &Cluster, words: &[&str]) -> Result<Value, String> {
    let output = command(cluster, words)
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|e| e.to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// From now on ranges and leaders stay where they are, unless a person moves them.
pub fn stop_balancing(cluster: &Cluster) {
    for switch in ["replica-balance", "leader-balance"] {
        until(switch, || ask(cluster, &["config", "set", switch, "off"]));
    }
}

/// `rangekv ctl --json …`, to be run.
pub fn command(cluster: &Cluster, words: &[&str]) -> Command {
    let endpoints: Vec<String> = cluster.nodes.iter().map(|n| n.grpc.to_string()).collect();
    let mut command = rangekv();
    command
        .args(["ctl", "--json", "--timeout", "3s"])
        .args(["--endpoints", &endpoints.join(",")])
        .args(words);
    command
}
