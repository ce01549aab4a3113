//! The services for operators, asked by a client that knows them from reflection alone, as grpcurl
//! does: tests/grpc, in Python with `grpcio-reflection`, which `./x setup` installs.

use crate::cluster::Cluster;
use crate::operator::stop_balancing;
use std::path::PathBuf;
use std::process::Command;

/// Every call, to each of four nodes.
#[test]
fn operators_steer_a_cluster_by_grpc() {
    let mut cluster = Cluster::serving(3);
    // What the script finds somewhere is still there when it asks for more.
    stop_balancing(&cluster);
    cluster.add_joining().start();
    let nodes = cluster.nodes.iter();
    let nodes = nodes.map(|node| format!("{}={}", node.name, node.grpc));
    check("cluster.py", &nodes.collect::<Vec<_>>());
}

/// The port answers before the node has a place in a cluster.
#[test]
fn a_waiting_node_offers_its_services() {
    let mut cluster = Cluster::new(3);
    cluster.nodes[1].start();
    check("waiting.py", &[cluster.nodes[1].grpc.to_string()]);
}

/// Runs a script of tests/grpc, which fails by its exit status.
fn check(script: &str, arguments: &[String]) {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/grpc");
    let output = Command::new(python())
        .arg("-B")
        .arg(scripts.join(script))
        .args(arguments)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {}\n{errors}",
        output.status
    );
}

/// The Python that `./x setup` keeps beside the build products.
pub fn python() -> PathBuf {
    let products = PathBuf::from(env!("CARGO_BIN_EXE_rangekv"));
    let target = products.ancestors().nth(2).expect("target/release/rangekv");
    let python = target.join("python/bin/python3");
    assert!(
        python.exists(),
        "{} is missing: `./x setup` installs it",
        python.display()
    );
    python
}
