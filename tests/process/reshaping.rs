//! Ranges are split, their leaders move and their logs are cut, while nodes are killed.

use crate::cluster::{until, Cluster, PATIENCE};
use crate::operator::{ask, command};
use crate::process::Process;
use crate::resp::{describe, Reply};
use crate::stale::Probe;
use crate::writers::Writers;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::time::Duration;

/// Of Redis Cluster.
const SLOTS: u32 = 16_384;

/// A value that fills a range's log soon.
const LARGE: usize = 64 << 10;

/// As many of them as no log keeps for a replica that is away: 32 MiB and more.
const LARGE_KEYS: usize = 640;

/// Of a cluster that begins with one; 1 is the placement driver's.
const DATA_RANGE: &str = "2";

#[test]
fn ranges_are_split_and_led_by_others_while_nodes_are_killed() {
    let mut cluster = Cluster::serving(5);
    let mut random = SmallRng::seed_from_u64(1);
    let writers = Writers::start("split", 3, &cluster.doors());
    let probe = Probe::start("probe", 4, 1, &cluster.doors());
    let before = ranges(&cluster).len();
    for round in 0..8 {
        for _ in 0..3 {
            let slot = random.random_range(1..SLOTS).to_string();
            let split = ask(&cluster, &["range", "split", "--slot", &slot]);
            println!("split at {slot}: {:?}", split.err());
        }
        let range = random.random_range(1..=before).to_string();
        let store = random.random_range(1..=5).to_string();
        let transfer = ask(&cluster, &["range", "transfer-leader", &range, &store]);
        println!("{range} to {store}: {:?}", transfer.err());

        // One node is killed somewhere in the middle of a split.
        let slot = random.random_range(1..SLOTS).to_string();
        let mut split = command(&cluster, &["range", "split", "--slot", &slot]);
        let log = cluster.root().join("split.log");
        let mut split = Process::spawn("split", &mut split, &log);
        std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
        let victim = random.random_range(0..5);
        cluster.nodes[victim].kill();
        println!("round {round}: n{} is killed", victim + 1);
        let ended = split.wait(PATIENCE);
        assert!(ended.is_some(), "rangekv ctl waits for ever");
        writers.wait_for(100, PATIENCE);
        probe.wait_for_writes(PATIENCE);
        cluster.start_all();
    }
    let ledger = writers.finish();
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors());
    probe.finish();

    let ranges = ranges(&cluster);
    println!("{before} ranges became {}", ranges.len());
    assert!(ranges.len() > before + 8, "{} ranges", ranges.len());
    let bound = |range: &Value, field: &str| range[field].as_str().unwrap_or("?").to_string();
    let data: Vec<&Value> = ranges.iter().filter(|range| range["id"] != 1).collect();
    for pair in data.windows(2) {
        assert_eq!(bound(pair[0], "end"), bound(pair[1], "start"), "{pair:?}");
    }
    assert_eq!(bound(data[data.len() - 1], "end"), "");
}

/// ACCEPTANCE E13 and H4: a node that was away for longer than its leader's log gets a
/// snapshot, is killed while it arrives, and in the end knows everything by itself.
#[test]
fn a_node_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::new(3);
    let one_range = ["--initial-ranges".to_string(), "1".to_string()];
    cluster.nodes[0].flags.extend(one_range);
    cluster.start_all();
    cluster.wait_until_serving();
    cluster.nodes[2].kill();

    let key = |n: usize| format!("large-{n}");
    let value = |n: usize| format!("{n:08}").repeat(LARGE / 8);
    let mut door = cluster.nodes[0].door();
    for n in 0..LARGE_KEYS {
        until("a large value is written", || {
            match door.call(&[b"SET", key(n).as_bytes(), value(n).as_bytes()]) {
                Ok(Reply::Simple(_)) => Ok(()),
                other => Err(describe(&other)),
            }
        });
    }
    let written = cluster.nodes[2].output().len();
    let received = |cluster: &Cluster| {
        let output = cluster.nodes[2].output();
        output[written..].contains("snapshot received")
    };
    // Writes go on, so that what the snapshot holds must fit to the log that follows it.
    let writers = Writers::start("meanwhile", 3, &cluster.doors()[..2]);
    for pause in [100, 300, 500] {
        cluster.nodes[2].start();
        std::thread::sleep(Duration::from_millis(pause));
        cluster.nodes[2].kill();
    }
    cluster.nodes[2].start();
    until("n3 gets a snapshot", || match received(&cluster) {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    writers.wait_for(100, PATIENCE);
    let ledger = writers.finish();

    // n3 leads: what is read now, it has itself.
    until("n3 leads", || {
        ask(&cluster, &["range", "transfer-leader", DATA_RANGE, "3"])
    });
    cluster.nodes[1].kill();
    ledger.verify(&cluster.doors()[2..]);
    let mut door = cluster.nodes[2].door();
    for n in (0..LARGE_KEYS).step_by(7) {
        let got = until("a large value is read", || {
            match door.call(&[b"GET", key(n).as_bytes()]) {
                Ok(Reply::Bulk(value)) => Ok(value),
                other => Err(describe(&other)),
            }
        });
        let got = got.map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(got == Some(value(n)), "{} holds {:.40?}", key(n), got);
    }
    cluster.start_all();
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors());
}

fn ranges(cluster: &Cluster) -> Vec<Value> {
    until("all ranges have leaders", || {
        let ranges = ask(cluster, &["range", "list"])?;
        let ranges = ranges.as_array().cloned().unwrap_or_default();
        match ranges.iter().find(|range| range["leader"].is_null()) {
            None if !ranges.is_empty() => Ok(ranges),
            without => Err(format!("{without:?} has none")),
        }
    })
}
