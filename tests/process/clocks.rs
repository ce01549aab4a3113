//! Wall clocks that jump. Leases are measured by the monotonic clock, so that no jump may make
//! a read old.

use crate::cluster::{Cluster, PATIENCE};
use crate::resp::{describe, Reply};
use crate::stale::Probe;
use std::path::Path;

/// libfaketime for programs with threads; package `faketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// To each register.
const WRITES_PER_JUMP: usize = 50;

#[test]
fn wall_clocks_jump_and_reads_stay_linearizable() {
    if !Path::new(FAKETIME).exists() {
        println!("skipped: {FAKETIME} is not installed");
        return;
    }
    let mut cluster = Cluster::new(3);
    let clock = cluster.root().join("clock-of-n1");
    let set = |offset: &str| std::fs::write(&clock, offset).unwrap();
    set("+0");
    cluster.nodes[0].environment = vec![
        ("LD_PRELOAD", FAKETIME.into()),
        ("FAKETIME_TIMESTAMP_FILE", clock.clone().into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    cluster.start_all();
    cluster.wait_until_serving();
    let probe = Probe::start("clock", 6, 2, &cluster.doors());
    let mut door = cluster.nodes[0].door();
    for offset in [3600, -60, 1, 60, -3600, 0] {
        set(&format!("{offset:+}"));
        let clock = match door.call(&[b"TIME"]) {
            Ok(Reply::Array(Some(parts))) => match &parts[0] {
                Reply::Bulk(Some(digits)) => String::from_utf8_lossy(digits).parse::<i64>(),
                other => panic!("{other:?}"),
            },
            other => panic!("{}", describe(&other)),
        };
        let ahead = clock.unwrap() - now();
        println!("n1's clock is {ahead} s ahead of ours");
        assert!((ahead - offset).abs() < 10, "{ahead} s ahead, not {offset}");
        for _ in 0..WRITES_PER_JUMP {
            probe.wait_for_writes(PATIENCE);
        }
    }
    probe.finish();
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}
