//! DynamoDB through every node of a cluster, as boto3's users use it, while ranges split.

use crate::cluster::{until, Cluster, Node};
use crate::grpc::python;
use crate::status::metric;
use std::process::{Command, Stdio};

#[test]
fn boto3_through_every_node_while_ranges_split() {
    let cluster = Cluster::serving(3);
    let endpoints: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("http://{}", node.dynamo))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dynamo/client.py");
    let mut client = Command::new(python())
        .arg(script)
        .args(&endpoints)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the Python that `./x setup` installs");
    // Within tables: tag, the first ids that a cluster gives away, then a hash.
    let mut cuts = 0;
    while client.try_wait().expect("a child").is_none() && cuts < 6 {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        cuts += 1;
        let key = format!(
            "40{:08x}{:04x}",
            100_000 + cuts / 2,
            0x4000 + cuts % 2 * 0x4000
        );
        until("a split", || {
            let address = cluster.nodes[0].grpc.to_string();
            let split = crate::cluster::rangekv()
                .args([
                    "ctl",
                    "--endpoints",
                    &address,
                    "range",
                    "split",
                    "--raw-key",
                    &key,
                ])
                .output()
                .expect("ctl");
            match split.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&split.stderr).into_owned()),
            }
        });
    }
    let output = client.wait_with_output().expect("a child");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // Each request went through another node.
    let dynamodb = Some(("door", "dynamodb"));
    for node in &cluster.nodes {
        for name in [
            "rangekv_door_connections_accepted_total",
            "rangekv_door_request_seconds",
            "rangekv_door_received_bytes_total",
        ] {
            assert!(metric(node.http, name, dynamodb) > 0, "{name}");
        }
    }
    let invalid = Some(("kind", "ValidationException"));
    let errors = |node: &Node| metric(node.http, "rangekv_door_errors_total", invalid);
    assert!(cluster.nodes.iter().map(errors).sum::<u64>() > 0);
}
