//! `rangekv bench`: a load generator for RangeKV, Redis, etcd and what speaks DynamoDB.
//!
//! What is sent ([`load`], [`keys`]), when ([`pace`]) and what came back ([`resp`], [`tally`],
//! [`report`]) are pure; [`driver`], [`etcd`] and [`dynamodb`] own the sockets and the clock. It is cheap,
//! because it shares the machine with what it measures: see [`driver`].

pub mod args;
mod cluster;
mod driver;
mod dynamodb;
mod etcd;
mod keys;
mod load;
mod pace;
mod report;
mod resp;
mod tally;
mod tasks;

pub use args::BenchArgs;

use crate::cli::output;
use args::Protocol;
use cluster::Owners;
use keys::Distribution;
use load::{Load, Mix, Op, Requests};
use pace::{Pace, Stop};
use report::Report;
use rustix::time::{clock_gettime, ClockId};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally::Tally;

/// Requests in flight per client while keys are written before a measurement.
const PRELOAD_PIPELINE: usize = 32;

/// Runs the load and prints its figures. Fails if the load can't be run, or no request succeeded.
pub fn main(args: &BenchArgs) -> ExitCode {
    let report = match run(args) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("rangekv bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let printed = match args.json {
        true => output::print(format_args!("{:#}", serde_json::json!(report))),
        false => output::print(&report),
    };
    if let Err(error) = printed {
        eprintln!("rangekv bench: {error}");
        return ExitCode::FAILURE;
    }
    match report.succeeded {
        0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Runs the load and returns its figures; an error says what to change.
fn run(args: &BenchArgs) -> Result<Report, String> {
    let load = args.load()?;
    if args.preload {
        preload(args, &load)?;
    }
    let pace = Pace::new(args.warmup, args.stop(), args.rate);
    let warm_at = pace.warm_at();
    let (tally, cpu) = run_threads(args, &load, args.pipeline, args.stop(), args.rate)?;
    Ok(Report::new(
        describe(args),
        &tally,
        warm_at,
        cpu,
        args.threads,
    ))
}

fn preload(args: &BenchArgs, load: &Load) -> Result<(), String> {
    let writer = match load.mix {
        Mix::Only(op) => op.writer(),
        Mix::Mixed { .. } => Op::Set,
    };
    let load = Load {
        mix: Mix::Only(writer),
        distribution: Distribution::Sequential,
        ..load.clone()
    };
    let args = BenchArgs {
        warmup: Duration::ZERO,
        ..args.clone()
    };
    let stop = Stop::Requests(load.keys);
    let (tally, _) = run_threads(&args, &load, PRELOAD_PIPELINE, stop, None)?;
    match tally.errors.first_key_value() {
        None => Ok(()),
        Some((kind, error)) => Err(format!(
            "--preload: {} of {} keys were written; {kind}: {}",
            tally.succeeded_total(),
            load.keys,
            error.example
        )),
    }
}

/// Runs `load` on all threads; also returns the CPU time that this took after the warm-up.
fn run_threads(
    args: &BenchArgs,
    load: &Load,
    pipeline: usize,
    stop: Stop,
    rate: Option<f64>,
) -> Result<(Tally, Duration), String> {
    let mut threads = Vec::new();
    let owners = match args.cluster {
        true => Some(Arc::new(cluster::owners(
            &resolve(&args.endpoints)?,
            args.timeout,
        )?)),
        false => None,
    };
    for thread in 0..args.threads {
        let stop = match stop {
            Stop::Requests(all) => Stop::Requests(part(all, thread, args.threads)),
            Stop::After(_) => stop,
        };
        let pace = Pace::new(
            args.warmup,
            stop,
            rate.map(|rate| rate / args.threads as f64),
        );
        let owners = owners.clone();
        threads.push(connect(args, load, pipeline, pace, owners, thread)?);
    }

    let start = Instant::now();
    let threads: Vec<_> = threads
        .into_iter()
        .map(|thread| std::thread::spawn(move || thread(start)))
        .collect();
    std::thread::sleep(args.warmup);
    let cpu_before = cpu_time();
    let mut total: Option<Tally> = None;
    for thread in threads {
        let tally = match thread.join() {
            Ok(tally) => tally?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match &mut total {
            None => total = Some(tally),
            Some(total) => total.merge(&tally),
        }
    }
    let cpu = cpu_time().saturating_sub(cpu_before);
    Ok((total.expect("at least one thread was checked for"), cpu))
}

type Thread = Box<dyn FnOnce(Instant) -> Result<Tally, String> + Send>;

fn connect(
    args: &BenchArgs,
    load: &Load,
    pipeline: usize,
    pace: Pace,
    owners: Option<Arc<Owners>>,
    thread: usize,
) -> Result<Thread, String> {
    let clients = part(args.clients as u64, thread, args.threads) as usize;
    let requests = Requests::new(load, thread, args.threads);
    let timeout = args.timeout;
    match args.protocol {
        Protocol::Resp => {
            let endpoints = match &owners {
                Some(owners) => owners.nodes.repeat(clients),
                None => deal(&resolve(&args.endpoints)?, clients, thread),
            };
            let open_loop = args.rate.is_some();
            let driver = driver::Driver {
                endpoints,
                owners,
                requests,
                pace,
                open_loop,
                pipeline,
                timeout,
            };
            let connected = driver.connect()?;
            Ok(Box::new(|start| connected.run(start)))
        }
        Protocol::Etcd => {
            let connections = args.connections.unwrap_or(args.endpoints.len());
            let connections = connections.div_ceil(args.threads);
            let endpoints = deal(&args.endpoints, connections, thread);
            let clients = tasks::Clients {
                count: clients * pipeline,
                requests,
                pace,
                timeout,
            };
            tasks::connect(clients, etcd::connect(endpoints))
        }
        Protocol::Dynamodb => {
            let endpoints = deal(&args.endpoints, clients * pipeline, thread);
            let clients = tasks::Clients {
                count: clients * pipeline,
                requests,
                pace,
                timeout,
            };
            tasks::connect(clients, dynamodb::connect(endpoints, args.table.clone()))
        }
    }
}

fn resolve(endpoints: &[String]) -> Result<Vec<SocketAddr>, String> {
    let resolve = |endpoint: &String| {
        let mut addresses = endpoint
            .to_socket_addrs()
            .map_err(|error| format!("--endpoints '{endpoint}': {error}; expected host:port"))?;
        addresses
            .next()
            .ok_or_else(|| format!("--endpoints '{endpoint}': no such host"))
    };
    endpoints.iter().map(resolve).collect()
}

/// Deals `count` places out to `choices` in turn, beginning elsewhere on each thread.
fn deal<T: Clone>(choices: &[T], count: usize, thread: usize) -> Vec<T> {
    (0..count)
        .map(|i| choices[(i + thread) % choices.len()].clone())
        .collect()
}

/// The share of `thread` in `all`; the shares of all threads add up to `all`.
fn part(all: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (thread as u64, threads as u64);
    all / threads + u64::from(thread < all % threads)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn describe(args: &BenchArgs) -> String {
    let command = match args.command.op() {
        None => format!("{:.0} % GET, else SET", args.reads.unwrap_or(0.5) * 100.0),
        Some(op) => op.name().into(),
    };
    let spread = match args.distribution {
        args::Spread::Uniform => "uniform".into(),
        args::Spread::Sequential => "sequential".into(),
        args::Spread::Zipf => format!("zipf {}", args.zipf_exponent),
        args::Spread::Hot => format!("{:.0} % on one key", args.hot_share * 100.0),
    };
    let pace = match args.rate {
        Some(rate) => format!("open loop at {rate}/s"),
        None => "closed loop".into(),
    };
    let route = match args.cluster {
        true => "each key's owner among ",
        false => "",
    };
    format!(
        "{command}, {} clients × {} in flight, {}-byte values, {} keys ({spread}), {pace}, on {route}{}",
        args.clients,
        args.pipeline,
        args.value_size,
        args.keys,
        args.endpoints.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        for (all, threads) in [(64, 1), (64, 3), (1, 2), (7, 7)] {
            let parts = (0..threads).map(|thread| part(all, thread, threads));
            assert_eq!(parts.sum::<u64>(), all);
        }
    }

    #[test]
    fn clients_are_dealt_out_in_turn() {
        assert_eq!(deal(&["a", "b", "c"], 4, 0), ["a", "b", "c", "a"]);
        assert_eq!(deal(&["a", "b", "c"], 2, 1), ["b", "c"]);
    }

    #[test]
    fn an_unknown_host_is_named() {
        let error = resolve(&["nonsense".into()]).unwrap_err();
        assert!(
            error.contains("'nonsense'") && error.contains("host:port"),
            "{error}"
        );
    }
}
