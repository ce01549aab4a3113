//! Redis's clients and tools against real clusters: tests/redis, in Python with redis-py, which
//! `./x setup` installs. What a script wants done to its cluster it says in a line, and waits.

use crate::cluster::{rangekv, until, Cluster};
use crate::grpc::python;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Plain, asyncio and cluster clients; a failover and splits under the latter; redis-cli and
/// redis-benchmark.
#[test]
fn redis_clients_and_tools() {
    let mut cluster = Cluster::serving(3);
    let nodes: Vec<String> = cluster.doors().iter().map(ToString::to_string).collect();
    run("client.py", &nodes, &mut cluster);
}

/// `CLUSTER MEET`, `FORGET`, `FAILOVER` and `METARAFT`.
#[test]
fn operators_steer_a_cluster_by_redis() {
    let mut cluster = Cluster::serving(3);
    // Nobody tells it whom to join.
    let waiting = cluster.add_joining();
    waiting.flags.clear();
    waiting.start();
    let mut arguments: Vec<String> = cluster.doors().iter().map(ToString::to_string).collect();
    arguments.push(cluster.nodes[3].grpc.to_string());
    run("operators.py", &arguments, &mut cluster);
}

/// Runs a script of tests/redis, which fails by its exit status.
fn run(script: &str, arguments: &[String], cluster: &mut Cluster) {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/redis");
    let mut client = Command::new(python())
        .arg("-B")
        .arg(scripts.join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python that `./x setup` installs");
    let mut answers = client.stdin.take().expect("piped");
    let said = BufReader::new(client.stdout.take().expect("piped"));
    for line in said.lines() {
        let line = line.expect("text");
        println!("{line}");
        let words: Vec<&str> = line.split(' ').collect();
        let node = |n: &str| n.parse::<usize>().expect("the number of a node");
        match words[..] {
            ["DO", "KILL", n] => cluster.nodes[node(n)].kill(),
            ["DO", "START", n] => cluster.nodes[node(n)].start(),
            ["DO", "SPLIT", slot] => ctl(cluster, &["range", "split", "--slot", slot]),
            ["DO", "MANUAL"] => {
                ctl(cluster, &["config", "set", "placement-replicas", "manual"]);
            }
            _ => continue,
        }
        writeln!(answers, "done").expect("it waits for that");
    }
    let status = client.wait().expect("a child");
    assert!(status.success(), "{script}: {status}");
}

fn ctl(cluster: &Cluster, command: &[&str]) {
    let endpoints: Vec<String> = cluster.nodes.iter().map(|n| n.grpc.to_string()).collect();
    until(&command.join(" "), || {
        let output = rangekv()
            .args(["ctl", "--endpoints", &endpoints.join(",")])
            .args(command)
            .output()
            .expect("ctl");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
}
