//! Nodes are killed with SIGKILL, some or all of them, and come back.

use crate::cluster::{until, Cluster, PATIENCE};
use crate::operator::{ask, leader_of};
use crate::resp::{describe, Reply};
use crate::starting::REFUSAL_MAX;
use crate::status::metric;
use crate::writers::Writers;
use std::time::{Duration, Instant};

/// Writes go on while each node in turn is killed; and a write that the range's leader has just
/// acknowledged is there when the leader's process is not.
#[test]
fn the_leader_is_killed_right_after_its_acknowledgement() {
    let mut cluster = Cluster::serving(5);
    let writers = Writers::start("killed", 4, &cluster.doors());
    for round in 0..6 {
        writers.wait_for(50, PATIENCE);
        let key = format!("just-acknowledged-{round}");
        let leader = leader_of(&cluster, &key);
        let mut door = cluster.nodes[leader].door();
        until("the leader takes a write", || {
            match door.call(&[b"SET", key.as_bytes(), b"ok"]) {
                Ok(Reply::Simple(_)) => Ok(()),
                other => Err(describe(&other)),
            }
        });
        cluster.nodes[leader].kill();
        let killed = Instant::now();
        let mut another = cluster.nodes[(leader + 1 + round % 4) % 5].door();
        let value = until("another node reads it", || {
            match another.call(&[b"GET", key.as_bytes()]) {
                Ok(Reply::Bulk(value)) => Ok(value),
                other => Err(describe(&other)),
            }
        });
        println!("{key}: read {:?} after n{}", killed.elapsed(), leader + 1);
        assert_eq!(value.as_deref(), Some(&b"ok"[..]), "{key}");
        writers.wait_for(50, PATIENCE);
        cluster.start_all();
        cluster.wait_until_serving();
    }
    let ledger = writers.finish();
    ledger.verify(&cluster.doors());
}

/// Three of five are a quorum, whichever they are.
#[test]
fn two_of_five_are_killed_and_come_back() {
    let mut cluster = Cluster::serving(5);
    let writers = Writers::start("two", 4, &cluster.doors());
    for victims in [[0, 1], [2, 3], [4, 0], [1, 2]] {
        writers.wait_for(50, PATIENCE);
        for victim in victims {
            cluster.nodes[victim].kill();
        }
        writers.wait_for(100, PATIENCE);
        cluster.start_all();
        cluster.wait_until_serving();
    }
    let ledger = writers.finish();
    ledger.verify(&cluster.doors());
}

/// Where syncs take long other threads do them, and rounds go on: what was acknowledged is there
/// all the same.
#[test]
fn nodes_with_slow_disks_are_killed_and_come_back() {
    let mut cluster = Cluster::new(3);
    for node in &mut cluster.nodes {
        node.sync_ms = Some(8);
    }
    cluster.start_all();
    cluster.wait_until_serving();
    let writers = Writers::start("slow", 8, &cluster.doors());
    for victims in [&[0][..], &[1], &[2], &[0, 1, 2]] {
        writers.wait_for(200, PATIENCE);
        let beside = metric(
            cluster.nodes[victims[0]].http,
            "rangekv_log_syncs_beside_total",
            None,
        );
        assert!(beside > 0, "n{} has waited for each sync", victims[0] + 1);
        for victim in victims {
            cluster.nodes[*victim].kill();
        }
        cluster.start_all();
        cluster.wait_until_serving();
    }
    let ledger = writers.finish();
    ledger.verify(&cluster.doors());
}

/// And what they answer first is already all that was acknowledged.
#[test]
fn all_are_killed_and_come_back() {
    let mut cluster = Cluster::serving(5);
    let doors = cluster.doors();
    let mut ledger = crate::ledger::Ledger::default();
    for round in 0..3 {
        let writers = Writers::start(&format!("all{round}-"), 4, &doors);
        writers.wait_for(100, PATIENCE);
        for node in &mut cluster.nodes {
            node.pause();
        }
        for node in &mut cluster.nodes {
            node.kill();
        }
        let stopped = std::thread::spawn(|| writers.finish());
        cluster.start_all();
        ledger.merge(stopped.join().expect("a writer failed"));
        ledger.verify(&doors);
    }
    cluster.wait_until_serving();
}

/// ACCEPTANCE E11.
#[test]
fn without_a_quorum_commands_fail_and_a_third_node_brings_it_back() {
    let mut cluster = Cluster::serving(5);
    let mut door = cluster.nodes[0].door();
    let set = door.call(&[b"SET", b"kept", b"yes"]);
    assert!(matches!(set, Ok(Reply::Simple(_))), "{}", describe(&set));
    for victim in 1..5 {
        cluster.nodes[victim].kill();
    }
    // A leader believes in its lease for a moment, and a write that it has taken before it
    // knows better has no outcome.
    let lonely = Instant::now();
    let mut refused = 0;
    while refused < 4 {
        for command in [&[&b"SET"[..], b"lost", b"x"][..], &[b"GET", b"kept"]] {
            let asked = Instant::now();
            let reply = door.call(command);
            println!("{:?}: {}", asked.elapsed(), describe(&reply));
            assert!(asked.elapsed() < REFUSAL_MAX, "{}", describe(&reply));
            match &reply {
                Ok(Reply::Error(e)) if e.starts_with("CLUSTERDOWN") => refused += 1,
                Ok(Reply::Error(e)) if e.starts_with("UNKNOWN") => {}
                Ok(Reply::Bulk(Some(_))) if lonely.elapsed() < REFUSAL_MAX => {}
                _ => panic!("{} without a quorum", describe(&reply)),
            }
        }
    }

    cluster.nodes[1].start();
    std::thread::sleep(Duration::from_secs(2));
    let set = door.call(&[b"SET", b"two", b"x"]);
    assert!(
        matches!(&set, Ok(Reply::Error(_))),
        "{} by two of five",
        describe(&set)
    );

    cluster.nodes[2].start();
    let third = Instant::now();
    cluster.wait_until_serving();
    println!(
        "serving {:?} after the third node was started",
        third.elapsed()
    );
    let get = cluster.nodes[2].door().call(&[b"GET", b"kept"]);
    assert!(
        matches!(&get, Ok(Reply::Bulk(Some(value))) if value == b"yes"),
        "{}",
        describe(&get)
    );
}

/// ACCEPTANCE E13: a node that has lost its directory has lost its votes, and says so instead
/// of voting again; removed and joined anew, it is welcome.
#[test]
fn a_wiped_node_is_refused_until_it_is_replaced() {
    let mut cluster = Cluster::serving(5);
    let writers = Writers::start("wiped", 3, &cluster.doors());
    writers.wait_for(50, PATIENCE);
    cluster.nodes[4].stop();
    std::fs::remove_dir_all(&cluster.nodes[4].data_dir).unwrap();
    let before = cluster.nodes[4].output().len();
    cluster.nodes[4].start();
    let mut process = cluster.nodes[4].take_process();
    let mut door = cluster.nodes[4].door();
    let why = until("n5 says why it is refused", || {
        let output = cluster.nodes[4].output().split_off(before);
        if output.contains("wiped") && process.wait(Duration::ZERO).is_some() {
            return Ok(output);
        }
        match door.call(&[b"GET", b"k"]) {
            Ok(Reply::Error(e)) if e.contains("wiped") => Ok(e),
            other => Err(describe(&other)),
        }
    });
    println!("{why}");
    for remedy in ["remove", "--join"] {
        assert!(why.contains(remedy), "{remedy} is not in {why:?}");
    }

    // Two others down: with the vote of the wiped one there would be a quorum.
    writers.wait_for(50, PATIENCE);
    let ledger = writers.finish();
    cluster.nodes[2].kill();
    cluster.nodes[3].kill();
    let mut door = cluster.nodes[0].door();
    let lonely = Instant::now();
    while lonely.elapsed() < Duration::from_secs(6) {
        let set = door.call(&[b"SET", b"two-and-a-wiped-one", b"x"]);
        assert!(
            matches!(&set, Ok(Reply::Error(_))),
            "{} by two of five and a wiped one",
            describe(&set)
        );
    }
    for node in [2, 3] {
        cluster.nodes[node].start();
    }
    for node in 0..4 {
        cluster.nodes[node].wait_until_serving();
    }
    ledger.verify(&cluster.doors()[..4]);

    // What the message says to do.
    drop(process);
    until("n5 is removed", || {
        ask(&cluster, &["store", "remove", "n5"])
    });
    let others: Vec<String> = cluster.nodes[..4]
        .iter()
        .map(|node| node.grpc.to_string())
        .collect();
    cluster.nodes[4].flags = vec!["--join".into(), others.join(",")];
    cluster.nodes[4].start();
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors());
}
