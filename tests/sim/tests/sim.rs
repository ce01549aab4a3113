//! What each CI run simulates. More, by hand: `cargo run --release -p rangekv-sim -- --seeds 5000`.
//!
//! A seed that fails prints the command that does it again.

use rangekv_sim::failover::failover;
use rangekv_sim::run::{run, Report, Run};
use rangekv_sim::schedule::MS;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

/// Runs `seeds` on all cores; the reports, by seed.
fn run_all(seeds: std::ops::Range<u64>, one: impl Fn(u64) -> Report + Sync) -> Vec<(u64, Report)> {
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let report = one(seed);
                reports.lock().unwrap().push((seed, report));
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|(seed, _)| *seed);
    reports
}

/// Fails with the commands that run again what failed, a run `of` a seed each.
fn none_failed(reports: &[(u64, Report)], of: fn(u64) -> Run) {
    let failed = |(seed, r): &(u64, Report)| {
        let command = of(*seed).command();
        Some(format!("{command}: {}", r.failure.as_ref()?))
    };
    let failed: Vec<String> = reports.iter().filter_map(failed).collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// A run in which nothing happens proves nothing: what, how often, and how often at least.
fn at_least(happened: &[(&str, u64, u64)]) {
    for (what, count, least) in happened {
        println!("{count:9} {what}");
        assert!(count >= least, "{count} {what}, expected at least {least}");
    }
}

#[test]
fn three_hundred_seeds() {
    let reports = run_all(1..301, |seed| run(&Run::of(seed)));
    none_failed(&reports, Run::of);
    let sum = |f: fn(&Report) -> u64| reports.iter().map(|(_, r)| f(r)).sum::<u64>();
    at_least(&[
        (
            "operations with a reply",
            sum(|r| r.operations.0 as u64),
            100_000,
        ),
        (
            "operations of unknown outcome",
            sum(|r| r.operations.1 as u64),
            500,
        ),
        ("elections", sum(|r| r.elections.0), 2_000),
        (
            "entries compared between replicas",
            sum(|r| r.elections.1),
            50_000,
        ),
        (
            "reads without the worker",
            sum(|r| r.counts.local_reads),
            10_000,
        ),
        (
            "reads that were not valid after all",
            sum(|r| r.counts.invalid_reads),
            50,
        ),
        ("crashes", sum(|r| r.counts.crashes), 400),
        (
            "log writes lost in power cuts",
            sum(|r| r.counts.lost_writes),
            10,
        ),
        (
            "syncs that no round waited for",
            sum(|r| r.counts.syncs_later),
            100_000,
        ),
        ("partitions", sum(|r| r.counts.partitions), 200),
        ("pauses", sum(|r| r.counts.pauses), 400),
        ("splits", sum(|r| r.counts.splits), 100),
        ("merges", sum(|r| r.counts.merges), 100),
        ("transfers", sum(|r| r.counts.transfers), 500),
        ("membership changes", sum(|r| r.counts.member_changes), 500),
        ("snapshots", sum(|r| r.counts.snapshots), 200),
        ("groups quiesced", sum(|r| r.counts.quiesced), 500),
        ("replicas woken", sum(|r| r.counts.woken), 500),
        ("walks over all ranges", sum(|r| r.counts.walks), 2_000),
        ("transactions", sum(|r| r.counts.transactions), 500),
        (
            "heartbeats that the placement driver answered",
            sum(|r| r.counts.heartbeats),
            30_000,
        ),
        ("its orders", sum(|r| r.counts.orders), 1_000),
    ]);
}

/// Counters in items: no increment is lost, none counts twice.
#[test]
fn a_hundred_seeds_of_items() {
    let reports = run_all(1..101, |seed| run(&Run::of_items(seed)));
    none_failed(&reports, Run::of_items);
    let sum = |f: fn(&Report) -> u64| reports.iter().map(|(_, r)| f(r)).sum::<u64>();
    at_least(&[
        (
            "operations with a reply",
            sum(|r| r.operations.0 as u64),
            30_000,
        ),
        (
            "operations of unknown outcome",
            sum(|r| r.operations.1 as u64),
            50,
        ),
        ("elections", sum(|r| r.elections.0), 500),
        ("splits", sum(|r| r.counts.splits), 30),
        ("merges", sum(|r| r.counts.merges), 30),
        (
            "transactions sent again that were known",
            sum(|r| r.counts.repeated),
            20,
        ),
    ]);
}

#[test]
fn a_seed_does_the_same_each_time() {
    let once = |seed: u64| match seed {
        // Some with items.
        9.. => run(&Run::of_items(seed)),
        _ => run(&Run::of(seed)),
    };
    let (first, second) = (run_all(1..13, once), run_all(1..13, once));
    for ((seed, a), (_, b)) in first.iter().zip(&second) {
        assert_eq!(a.event_hash, b.event_hash, "seed {seed}");
        assert_eq!(a.counts.events, b.counts.events, "seed {seed}");
    }
    assert_ne!(
        first[0].1.event_hash, first[1].1.event_hash,
        "the hash says nothing"
    );
}

/// Quiesced and awake: two runs of each seed.
#[test]
fn a_leader_that_dies_is_replaced_in_time() {
    for quiesced in [true, false] {
        let mut times: Vec<u64> = (1..151)
            .map(|seed| match failover(seed, quiesced) {
                Ok(time) => time / MS,
                Err(what) => panic!("failover({seed}, {quiesced}): {what}"),
            })
            .collect();
        times.sort_unstable();
        println!(
            "quiesced {quiesced}: median {} ms, longest {} ms",
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use rangekv_sim::bugs::{names, plant, OF_ITEMS};

    /// The first of 1,000 seeds that finds `bug`.
    fn found_by(bug: &'static str, of: fn(u64) -> Run) -> Option<(u64, String)> {
        let found = AtomicU64::new(u64::MAX);
        let reports = run_all(1..1_001, |seed| {
            if found.load(Ordering::Relaxed) < seed {
                return Report::default();
            }
            plant(Some(bug)).unwrap();
            let report = run(&of(seed));
            plant(None).unwrap();
            if report.failure.is_some() {
                found.fetch_min(seed, Ordering::Relaxed);
            }
            report
        });
        reports
            .into_iter()
            .find_map(|(seed, r)| Some((seed, r.failure?)))
    }

    #[test]
    fn each_is_found_within_a_thousand_seeds() {
        let mut missed = Vec::new();
        for bug in names() {
            match found_by(bug, Run::of) {
                Some((seed, how)) => {
                    println!(
                        "{:28} seed {seed:4}: {}",
                        bug,
                        how.lines().next().unwrap_or_default()
                    );
                }
                None => missed.push(bug),
            }
        }
        assert!(missed.is_empty(), "not found: {}", missed.join(", "));
    }

    #[test]
    fn bugs_of_items_are_found() {
        for bug in OF_ITEMS {
            let (seed, how) = found_by(bug, Run::of_items).expect(bug);
            println!(
                "{bug:28} seed {seed:4}: {}",
                how.lines().next().unwrap_or_default()
            );
        }
    }
}
