//! The placement driver drives itself: stores join, are lost, replaced and removed, the number of
//! replicas changes, and all the while writers meet no error.

use crate::cluster::{until, Cluster, PATIENCE};
use crate::operator::ask;
use crate::writers::Writers;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// A writer has one request on its way: so many may be lost with a node that is killed.
const WRITERS: usize = 3;

/// ACCEPTANCE C7 and C8: 3 → 5 → 4 stores.
#[test]
fn stores_join_are_lost_and_replaced_and_leave_under_load() {
    let mut cluster = Cluster::serving(3);
    let writers = Writers::start("placed", WRITERS, &cluster.doors());
    writers.wait_for(100, PATIENCE);

    let started = Instant::now();
    cluster.join();
    cluster.join();
    all_ranges(&cluster, "five voters each", |voters| voters.len() == 5);
    println!("five stores hold all after {:?}", started.elapsed());
    writers.wait_for(100, PATIENCE);
    assert_eq!(writers.failed(), 0, "growing is nobody's business");

    // A store is lost, and no other can take its place: all stay where they are.
    ask(&cluster, &["config", "set", "max-store-down-time", "1s"]).unwrap();
    cluster.nodes[4].kill();
    until("n5 is seen to be down", || match state_of(&cluster, "n5") {
        Some(state) if state == "down" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    writers.wait_for(300, PATIENCE);
    let ranges = members(&cluster).unwrap();
    assert!(
        ranges.values().all(|voters| voters.len() == 5),
        "{ranges:?}"
    );
    let lost = writers.failed();
    assert!(
        lost <= WRITERS as u64,
        "{lost} requests failed when one node was killed"
    );

    // One joins that can.
    cluster.join();
    all_ranges(&cluster, "n6 for n5", |voters| {
        voters.len() == 5 && voters.contains(&"n6".into()) && !voters.contains(&"n5".into())
    });
    ask(&cluster, &["store", "remove", "n5"]).unwrap();
    writers.wait_for(100, PATIENCE);
    assert_eq!(writers.failed(), lost, "replacing is nobody's business");

    // One is stopped for good: four stores want three replicas.
    cluster.nodes[5].stop();
    until("n6 is removed", || {
        ask(&cluster, &["store", "remove", "n6"])
    });
    all_ranges(&cluster, "three voters of n1 to n4", |voters| {
        voters.len() == 3 && voters.iter().all(|name| name.as_str() < "n5")
    });
    writers.wait_for(100, PATIENCE);
    let left = writers.failed();
    assert!(
        left <= lost + WRITERS as u64,
        "{left} requests failed, {lost} of them with n5"
    );
    let ledger = writers.finish();
    ledger.verify(&cluster.doors()[..4]);
}

#[test]
fn one_node_becomes_three_and_the_first_is_lost() {
    let mut cluster = Cluster::serving(1);
    let writers = Writers::start("one", WRITERS, &cluster.doors());
    writers.wait_for(100, PATIENCE);
    cluster.join();
    cluster.join();
    all_ranges(&cluster, "three voters each", |voters| voters.len() == 3);
    assert_eq!(writers.failed(), 0);
    let ledger = writers.finish();
    cluster.nodes[0].kill();
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors()[1..]);
}

/// A3: the placement driver's group, and the replication factor, up and down while writers run.
#[test]
fn the_number_of_replicas_changes_while_all_runs() {
    let mut cluster = Cluster::serving(5);
    let writers = Writers::start("factor", WRITERS, &cluster.doors());
    let placement = |cluster: &Cluster, wanted: usize| {
        let what = format!("{wanted} members of the placement driver's group");
        until(&what, || {
            let voters = members(cluster)?.remove(&1).unwrap_or_default();
            match voters.len() == wanted {
                true => Ok(voters),
                false => Err(format!("{voters:?}")),
            }
        })
    };
    let set = |cluster: &Cluster, name: &str, value: &str| {
        until(name, || ask(cluster, &["config", "set", name, value]));
    };
    let data = |cluster: &Cluster, wanted: usize| {
        until(&format!("{wanted} voters"), || {
            let mut ranges = members(cluster)?;
            ranges.remove(&1);
            match ranges.values().all(|voters| voters.len() == wanted) {
                true => Ok(()),
                false => Err(format!("{ranges:?}")),
            }
        });
    };
    data(&cluster, 5);
    set(&cluster, "replication-factor", "3");
    data(&cluster, 3);
    set(&cluster, "placement-replicas", "3");
    let three = placement(&cluster, 3);
    set(&cluster, "replication-factor", "auto");
    data(&cluster, 5);

    // Its group loses one, and is replaced: by one of the two that are no members.
    set(&cluster, "max-store-down-time", "1s");
    writers.wait_for(100, PATIENCE);
    assert_eq!(writers.failed(), 0);
    let ledger = writers.finish();
    let victim = cluster
        .nodes
        .iter()
        .position(|n| n.name == three[0])
        .unwrap();
    cluster.nodes[victim].kill();
    until("another member for the lost one", || {
        let voters = members(&cluster)?.remove(&1).unwrap_or_default();
        match voters.len() == 3 && !voters.contains(&three[0]) {
            true => Ok(()),
            false => Err(format!("{voters:?}")),
        }
    });
    cluster.nodes[victim].start();
    set(&cluster, "placement-replicas", "auto");
    placement(&cluster, 5);
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors());
}

/// Ranges that were split merge again once nobody uses them, until there is one for each store.
#[test]
fn small_cold_ranges_merge() {
    let cluster = Cluster::serving(3);
    let writers = Writers::start("cold", WRITERS, &cluster.doors());
    writers.wait_for(200, PATIENCE);
    for slot in ["1000", "2000", "9000", "12000"] {
        until("a split", || {
            ask(&cluster, &["range", "split", "--slot", slot])
        });
    }
    writers.wait_for(100, PATIENCE);
    let ledger = writers.finish();
    ask(&cluster, &["config", "set", "range-merge-after", "1s"]).unwrap();
    ask(&cluster, &["config", "set", "range-merge", "on"]).unwrap();
    // Four merges, each prepared by moving a leader: one after the other.
    for _ in 0..4 {
        let before = members(&cluster).map_or(usize::MAX, |ranges| ranges.len());
        until("one range less", || match members(&cluster)?.len() {
            n if n < before || n == 4 => Ok(()),
            n => Err(format!("{n} ranges")),
        });
    }
    all_ranges(&cluster, "three voters each", |voters| voters.len() == 3);
    assert_eq!(
        members(&cluster).unwrap().len(),
        4,
        "range 1, and one for each store"
    );
    cluster.wait_until_serving();
    ledger.verify(&cluster.doors());
}

/// Names of the stores of each range's voters, by range; the error if a change is half done.
fn members(cluster: &Cluster) -> Result<BTreeMap<u64, Vec<String>>, String> {
    let stores = ask(cluster, &["store", "list"])?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<u64, String> = list(&stores)
        .iter()
        .map(|s| {
            (
                s["id"].as_u64().unwrap(),
                s["name"].as_str().unwrap().into(),
            )
        })
        .collect();
    let mut ranges = BTreeMap::new();
    for range in list(&ask(cluster, &["range", "list"])?) {
        let replicas = list(&range["replicas"]);
        if replicas.iter().any(|r| r["role"] != "voter") {
            return Err(format!("{replicas:?}"));
        }
        let name = |r: &Value| names.get(&r["store"].as_u64()?).cloned();
        let mut voters: Vec<String> = replicas.iter().filter_map(name).collect();
        voters.sort();
        ranges.insert(range["id"].as_u64().unwrap(), voters);
    }
    Ok(ranges)
}

fn all_ranges(cluster: &Cluster, what: &str, is_so: impl Fn(&Vec<String>) -> bool) {
    until(what, || {
        let ranges = members(cluster)?;
        match !ranges.is_empty() && ranges.values().all(&is_so) {
            true => Ok(()),
            false => Err(format!("{ranges:?}")),
        }
    });
}

fn state_of(cluster: &Cluster, name: &str) -> Option<String> {
    let stores = ask(cluster, &["store", "list"]).ok()?;
    let stores = stores.as_array()?.clone();
    let store = stores.iter().find(|s| s["name"] == name)?;
    Some(store["state"].as_str()?.into())
}
