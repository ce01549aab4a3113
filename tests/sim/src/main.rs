//! `rangekv-sim`: simulates a cluster from seeds.
//!
//! - `rangekv-sim --seeds 5000` runs seeds 1 to 5000, two at a time;
//! - `rangekv-sim --seed 1234 --trace` does one seed again, and prints all that happens;
//! - `rangekv-sim --seed 1234 --reduce` looks for less trouble that still makes it fail;
//! - `rangekv-sim --failover --seeds 1000` measures how soon a leader that dies is replaced;
//! - `rangekv-sim --reshape --seeds 100` how long clients wait while a range is reshaped.
//!
//! Exit status 1: a seed failed.

// How long a run took is for people alone.
#![allow(clippy::disallowed_methods)]

use clap::Parser;
use rangekv_sim::bugs::plant;
use rangekv_sim::failover::failover;
use rangekv_sim::faults::Class;
use rangekv_sim::reshape::{reshape, Change};
use rangekv_sim::run::{reduce, run, Report, Run};
use rangekv_sim::schedule::MS;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Instant;

#[derive(Parser)]
#[command(
    version,
    about = "Simulates a whole cluster, with faults, from one seed per run"
)]
struct Args {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds to run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print everything that happens (with --seed).
    #[arg(long)]
    trace: bool,
    /// Look for a smaller run that fails (with --seed).
    #[arg(long)]
    reduce: bool,
    /// Clients count in items of a DynamoDB table, instead of what the seed has them do.
    #[arg(long)]
    items: bool,
    /// Switch a class of faults off; may be repeated.
    #[arg(long)]
    without: Vec<Class>,
    /// End faults after so many simulated milliseconds.
    #[arg(long)]
    millis: Option<u64>,
    /// Measure how soon a leader that dies is replaced, in quiesced and in awake groups.
    #[arg(long)]
    failover: bool,
    /// Measure the slowest request while a leadership moves, a range splits, merges, a replica moves.
    #[arg(long)]
    reshape: bool,
    /// Go on after a failing seed.
    #[arg(long)]
    keep_going: bool,
    /// Switch a planted bug on (builds with the feature `planted-bugs` only).
    #[arg(long)]
    bug: Option<String>,
}

impl Args {
    fn run(&self, seed: u64) -> Run {
        Run {
            seed,
            items: self.items,
            without: self.without.clone(),
            duration: self.millis.map(|ms| ms * 1_000_000),
            trace: self.trace,
        }
    }
}

fn describe(run: &Run, report: &Report) -> String {
    let classes: Vec<&str> = run.faults().classes.iter().map(|c| c.name()).collect();
    format!(
        "seed {} ({} stores, {:.1} s of {}): {}\n  again: {} --trace\n  {:?}\n  operations: {:?}, elections: {}",
        run.seed,
        run.faults().stores,
        run.faults().duration as f64 / 1e9,
        if classes.is_empty() { "no faults".to_string() } else { classes.join(", ") },
        report.failure.as_deref().unwrap_or("clean"),
        run.command(),
        report.counts,
        report.operations,
        report.elections.0,
    )
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = plant(args.bug.as_deref()) {
        eprintln!("{why}");
        return ExitCode::from(2);
    }
    if args.failover {
        return failovers(&args);
    }
    if args.reshape {
        return reshapes(&args);
    }
    match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    }
}

fn one(args: &Args, seed: u64) -> ExitCode {
    let what = args.run(seed);
    let report = run(&what);
    println!(
        "{}\n  event hash {:016x}",
        describe(&what, &report),
        report.event_hash
    );
    if report.failure.is_none() {
        return ExitCode::SUCCESS;
    }
    if args.reduce {
        let (smaller, report) = reduce(&what, |run, report| {
            let classes = run.faults().classes.len();
            let what = report.failure.as_deref().unwrap_or_default();
            println!(
                "{classes} classes, {:.1} s: {}",
                run.faults().duration as f64 / 1e9,
                first_line(what)
            );
        });
        println!("{}", describe(&smaller, &report));
    }
    ExitCode::FAILURE
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn seeds(args: &Args) -> std::ops::Range<u64> {
    match args.seed {
        Some(seed) => seed..seed + 1,
        None => args.start..args.start + args.seeds,
    }
}

fn reshapes(args: &Args) -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for change in Change::ALL {
        let (mut before, mut with) = (Vec::new(), Vec::new());
        for seed in seeds(args) {
            match reshape(seed, change) {
                Ok(longest) => {
                    before.push(longest.before / MS);
                    with.push(longest.with / MS);
                }
                Err(what) => {
                    println!("seed {seed}, {change}: {what}");
                    exit = ExitCode::FAILURE;
                }
            }
        }
        let at = |times: &mut Vec<u64>, share: usize| {
            times.sort_unstable();
            times
                .get(times.len().saturating_sub(1) * share / 100)
                .copied()
        };
        println!(
            "{change:8} {} times, slowest before: median {:?} ms, longest {:?} ms; \
             with: median {:?} ms, p90 {:?} ms, longest {:?} ms",
            with.len(),
            at(&mut before, 50),
            at(&mut before, 100),
            at(&mut with, 50),
            at(&mut with, 90),
            at(&mut with, 100)
        );
    }
    exit
}

fn failovers(args: &Args) -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    let seeds = seeds(args);
    for quiesced in [true, false] {
        let mut times = Vec::new();
        for seed in seeds.clone() {
            match failover(seed, quiesced) {
                Ok(time) => times.push(time / MS),
                Err(what) => {
                    println!("seed {seed}, quiesced {quiesced}: {what}");
                    exit = ExitCode::FAILURE;
                }
            }
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100);
        println!(
            "quiesced {quiesced}: {} times, median {:?} ms, p99 {:?} ms, longest {:?} ms",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
    }
    exit
}

fn many(args: &Args) -> ExitCode {
    let next = AtomicU64::new(args.start);
    let stop = AtomicBool::new(false);
    let failed = AtomicU64::new(0);
    let totals = Mutex::new((0u64, 0u64, (0usize, 0usize, 0usize), 0u64, (0u64, 0u64)));
    let end = args.start + args.seeds;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                plant(args.bug.as_deref()).expect("checked at the start");
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let what = args.run(seed);
                    let report = run(&what);
                    let mut totals = totals.lock().expect("no thread panics with it");
                    totals.0 += 1;
                    totals.1 += report.counts.events;
                    totals.2 .0 += report.operations.0;
                    totals.2 .1 += report.operations.1;
                    totals.2 .2 += report.operations.2;
                    totals.3 += report.elections.0;
                    totals.4 .0 += report.counts.quiesced;
                    totals.4 .1 += report.counts.woken;
                    if report.failure.is_some() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{}", describe(&what, &report));
                        stop.fetch_or(!args.keep_going, Ordering::Relaxed);
                    }
                    if totals.0.is_multiple_of(500) {
                        eprintln!(
                            "{} seeds, {:.0} s",
                            totals.0,
                            started.elapsed().as_secs_f64()
                        );
                    }
                }
            });
        }
    });
    let (seeds, events, operations, elections, (quiesced, woken)) =
        totals.into_inner().expect("no thread panics with it");
    let failed = failed.into_inner();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {failed} failed, {:.3} s each; {events} events, {elections} elections, \
         {quiesced} groups quiesced, {woken} replicas woken, operations: {} replied, {} unknown, {} not executed",
        seconds * args.jobs.max(1) as f64 / seeds.max(1) as f64,
        operations.0,
        operations.1,
        operations.2
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
