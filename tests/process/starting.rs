//! Nodes come up, stay passive, stop, and come back.

use crate::cluster::{rangekv, until, Cluster, PATIENCE, STOP_MAX};
use crate::process::{children, Process};
use crate::resp::{describe, Door, Reply};
use crate::writers::Writers;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Twice the longest election timeout, and more.
const ALONE: Duration = Duration::from_secs(5);

/// ACCEPTANCE E11: a command without a quorum has failed by then. 5 s and a busy machine.
pub const REFUSAL_MAX: Duration = Duration::from_secs(8);

/// ACCEPTANCE E3.
#[test]
fn malformed_flags_are_refused_and_quoted() {
    let root = tempfile::tempdir().unwrap();
    let base = "start --id n1 --address 127.0.0.1:1 --redis-address 127.0.0.1:2 --data-dir";
    for (flags, quoted, expected) in [
        (
            "--bootstrap --bootstrap-members n1=127.0.0.1:1,n2",
            "'n2'",
            "host:port",
        ),
        (
            "--bootstrap --bootstrap-members n1=127.0.0.1:1,n2=127.0.0.1:port",
            "'n2=127.0.0.1:port'",
            "host:port",
        ),
        (
            "--bootstrap --bootstrap-members n1=127.0.0.1:1,n1=127.0.0.1:3",
            "'n1=127.0.0.1:3'",
            "once",
        ),
        (
            "--bootstrap --bootstrap-members n2=127.0.0.1:3,n3=127.0.0.1:4",
            "'n2=127.0.0.1:3,n3=127.0.0.1:4'",
            "'n1=127.0.0.1:1'",
        ),
        (
            "--bootstrap --bootstrap-members n1=127.0.0.1:9,n2=127.0.0.1:3",
            "'n1=127.0.0.1:9'",
            "'n1=127.0.0.1:1'",
        ),
        (
            "--raftRedisMap 127.0.0.1:1=127.0.0.1:2,nonsense",
            "'nonsense'",
            "gRPC address=Redis address",
        ),
        ("--join nowhere", "'nowhere'", "host:port"),
        (
            "--otlp-endpoint collector:4317",
            "'collector:4317'",
            "http://host:port",
        ),
        (
            "--otlp-endpoint http://127.0.0.1:9 --trace-sample 2",
            "'2'",
            "from 0 to 1",
        ),
        ("--trace-sample 0.5", "'0.5'", "--otlp-endpoint"),
        (
            "--bootstrap --bootstrap-members n1=127.0.0.1:1,n2=10.0.0.12:50051",
            "'127.0.0.1:1'",
            "--advertise-address",
        ),
        ("--no-such-flag", "--no-such-flag", "unexpected"),
    ] {
        let data_dir = root.path().join("data");
        let log = root.path().join("log");
        let mut command = rangekv();
        command
            .args(base.split(' '))
            .arg(&data_dir)
            .args(flags.split(' '));
        let mut process = Process::spawn("rangekv", &mut command, &log);
        let status = process.wait(PATIENCE);
        let output = process.output();
        let status = status.unwrap_or_else(|| panic!("{flags} is accepted: {output}"));
        assert!(!status.success(), "{flags}: {output}");
        assert!(output.contains(quoted), "{flags}: {output}");
        assert!(output.contains(expected), "{flags}: {output}");
        assert!(!data_dir.exists(), "{flags} made a data directory");
        std::fs::remove_file(log).unwrap();
    }
}

/// ACCEPTANCE E2, and "a node started alone never leads".
#[test]
fn a_node_started_alone_waits_and_never_leads() {
    let mut cluster = Cluster::new(3);
    cluster.nodes[1].start();
    let mut door = cluster.nodes[1].door();
    until("n2 listens", || match door.call(&[b"PING"]) {
        Ok(_) => Ok(()),
        other => Err(describe(&other)),
    });
    let started = Instant::now();
    while started.elapsed() < ALONE {
        for command in [&[&b"SET"[..], b"k", b"v"][..], &[b"GET", b"k"]] {
            let asked = Instant::now();
            let reply = door.call(command);
            assert!(
                matches!(&reply, Ok(Reply::Error(e)) if e.starts_with("CLUSTERDOWN")),
                "{}",
                describe(&reply)
            );
            assert!(asked.elapsed() < REFUSAL_MAX, "{:?}", asked.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    // The bootstrapping one of three is no quorum, either.
    cluster.nodes[1].stop();
    cluster.nodes[0].start();
    let mut door = cluster.nodes[0].door();
    until("n1 listens", || match door.call(&[b"PING"]) {
        Ok(_) => Ok(()),
        other => Err(describe(&other)),
    });
    let started = Instant::now();
    while started.elapsed() < ALONE {
        let reply = door.call(&[b"SET", b"k", b"v"]);
        let refused = match &reply {
            Ok(Reply::Error(e)) => e.starts_with("CLUSTERDOWN"),
            Err(_) => true, // Its connections end when it takes its seat.
            Ok(_) => false,
        };
        assert!(refused, "{}", describe(&reply));
    }

    cluster.start_all();
    cluster.wait_until_serving();
    let reply = cluster.nodes[1].door().call(&[b"GET", b"k"]);
    assert!(
        matches!(reply, Ok(Reply::Bulk(None))),
        "{}",
        describe(&reply)
    );
}

/// Whatever step of its making each of them dies in.
#[test]
fn a_cluster_is_made_though_its_members_are_killed() {
    for seed in 0..3 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(5);
        cluster.start_all();
        for _ in 0..25 {
            std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
            let victim = &mut cluster.nodes[random.random_range(0..5)];
            victim.kill();
            victim.start();
        }
        cluster.wait_until_serving();
        let writers = Writers::start("made", 2, &cluster.doors());
        writers.wait_for(50, PATIENCE);
        writers.finish().verify(&cluster.doors());
    }
}

/// `rangekv start` for one: stopped, killed, and started again with the same command line.
#[test]
fn a_single_node_keeps_its_data() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].flags.clear();
    cluster.nodes[0].single = true;
    cluster.start_all();
    cluster.wait_until_serving();
    let doors = cluster.doors();
    let mut ledger = crate::ledger::Ledger::default();
    for round in 0..4 {
        let writers = Writers::start(&format!("single{round}-"), 3, &doors);
        writers.wait_for(100, PATIENCE);
        match round % 2 {
            0 => cluster.nodes[0].stop(),
            _ => cluster.nodes[0].kill(),
        }
        ledger.merge(writers.finish());
        cluster.start_all();
        cluster.wait_until_serving();
        ledger.verify(&doors);
    }
}

/// ACCEPTANCE E12: the others go on.
#[test]
fn a_terminated_node_hands_over_and_exits() {
    let mut cluster = Cluster::serving(5);
    let writers = Writers::start("terminated", 4, &cluster.doors());
    for victims in [[3, 4], [0, 1]] {
        writers.wait_for(50, PATIENCE);
        for victim in victims {
            cluster.nodes[victim].stop();
            writers.wait_for(50, PATIENCE);
        }
        cluster.start_all();
        cluster.wait_until_serving();
    }
    let ledger = writers.finish();
    ledger.verify(&cluster.doors());
}

/// `rangekv demo`: serves through each of its stores, and leaves nothing behind.
#[test]
fn a_demo_serves_until_interrupted() {
    // For its turn: a demo is as heavy as a cluster.
    let turn = Cluster::new(0);
    let log = turn.root().join("demo.log");
    let mut command = rangekv();
    command
        .args([
            "demo",
            "--nodes",
            "3",
            "--redis-port",
            "0",
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            "--dynamo-port",
            "0",
            "--kv-http-port",
            "0",
        ])
        .arg("--data-dir")
        .arg(turn.root().join("demo"));
    let mut demo = Process::spawn("demo", &mut command, &log);
    let doors = until("the demo prints three Redis ports", || {
        let output = demo.output();
        let doors = redis_ports(&output);
        match doors.len() {
            3 => Ok(doors),
            _ => Err(output),
        }
    });
    for (n, address) in doors.iter().enumerate() {
        let mut door = Door::new(*address, PATIENCE);
        let key = format!("demo-{n}");
        until("the demo serves", || {
            match door.call(&[b"SET", key.as_bytes(), b"x"]) {
                Ok(Reply::Simple(_)) => Ok(()),
                other => Err(describe(&other)),
            }
        });
        for other in &doors {
            let reply = Door::new(*other, PATIENCE).call(&[b"GET", key.as_bytes()]);
            assert!(
                matches!(&reply, Ok(Reply::Bulk(Some(value))) if value == b"x"),
                "{}",
                describe(&reply)
            );
        }
    }
    let stores = children(demo.pid());
    let started = Instant::now();
    demo.signal(libc::SIGINT);
    let status = demo.wait(STOP_MAX + Duration::from_secs(2));
    let status = status.unwrap_or_else(|| panic!("the demo goes on: {}", demo.output()));
    println!("the demo ended after {:?}: {status}", started.elapsed());
    assert!(status.success(), "{status}: {}", demo.output());
    for pid in stores {
        let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert!(!alive, "process {pid} of the demo goes on");
    }
    for address in doors {
        let reply = Door::new(address, PATIENCE).call(&[b"PING"]);
        assert!(reply.is_err(), "{address} answers {}", describe(&reply));
    }
}

/// From the lines "n1 redis grpc pid" of what a demo prints.
fn redis_ports(output: &str) -> Vec<SocketAddr> {
    let lines = output.lines().map(|line| line.split_whitespace());
    let redis = |mut words: std::str::SplitWhitespace| {
        words.next()?.strip_prefix('n')?.parse::<u16>().ok()?;
        words.next()?.parse().ok()
    };
    lines.filter_map(redis).collect()
}
