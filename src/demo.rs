//! `rangekv demo`: a whole cluster on this machine, as child processes of this one.
//!
//! The children are this same binary, started as an operator would. They have process groups
//! of their own, so that Ctrl-C reaches them through this process alone, which then stops
//! them by their ids.

use crate::cli::DemoArgs;
use crate::node::entry::{with_causes, ENDS_WITH_PARENT};
use crate::node::options::{default_cache_bytes, CACHE_BYTES_MIN};
use anyhow::{bail, Context};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{signal, SignalKind};

/// The cluster serves within this, or something is wrong.
const START_MAX: Duration = Duration::from_secs(30);
/// Children that were asked to stop are asked to hurry after this,
const STOP_GRACE: Duration = Duration::from_secs(2);
/// and killed after this.
const STOP_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Ports of one store; kept, because the stores know each other by them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ports {
    redis: u16,
    grpc: u16,
    /// 0 = the system chooses at each start.
    #[serde(default)]
    http: u16,
    /// As `http`.
    #[serde(default)]
    dynamo: u16,
    /// As `http`.
    #[serde(default)]
    kv_http: u16,
}

struct Store {
    name: String,
    ports: Ports,
    log: PathBuf,
    child: Child,
}

/// Runs the demo until SIGINT or SIGTERM, or until a child can't start.
pub fn demo(args: &DemoArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from);
    match runtime.and_then(|runtime| runtime.block_on(run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rangekv demo: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let temporary = args.data_dir.is_none();
    let dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("rangekv-demo-{}", std::process::id())),
    };
    fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
    let mut stores = Vec::new();
    let outcome = tokio::select! {
        outcome = serve(args, &dir, &mut stores) => outcome,
        _ = int.recv() => Ok(()),
        _ = term.recv() => Ok(()),
    };
    println!("\nstopping …");
    stop(&mut stores).await;
    if temporary && outcome.is_ok() {
        fs::remove_dir_all(&dir).with_context(|| format!("{} can't be removed", dir.display()))?;
    }
    outcome
}

/// Starts the stores, says what to type, and watches over them until dropped.
async fn serve(args: &DemoArgs, dir: &Path, stores: &mut Vec<Store>) -> anyhow::Result<()> {
    let began = Instant::now();
    let ports = choose_ports(args, dir)?;
    let members = ports
        .iter()
        .enumerate()
        .map(|(i, p)| format!("n{}=127.0.0.1:{}", i + 1, p.grpc));
    let members: Vec<String> = members.collect();
    for (i, ports) in ports.iter().enumerate() {
        let store = start_store(args, dir, i, *ports, &members.join(","))?;
        stores.push(store);
    }
    for i in 0..stores.len() {
        while !serves(stores[i].ports.redis).await {
            if began.elapsed() > START_MAX {
                bail!(
                    "{} does not serve after {START_MAX:?}; see {}",
                    stores[i].name,
                    stores[i].log.display()
                );
            }
            check_all(stores)?;
            tokio::time::sleep(LOOK).await;
        }
    }
    print_endpoints(dir, stores, began.elapsed());
    let mut down = vec![false; stores.len()];
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (store, down) in stores.iter_mut().zip(&mut down) {
            if let (false, Some(status)) = (*down, store.child.try_wait()?) {
                *down = true;
                let how = match status.signal() {
                    Some(signal) => format!("was ended by signal {signal}"),
                    None => format!("ended with {status}"),
                };
                println!("{} {how}; its log: {}", store.name, store.log.display());
            }
        }
    }
}

/// Ports that the stores of `dir` have, or new ones.
fn choose_ports(args: &DemoArgs, dir: &Path) -> anyhow::Result<Vec<Ports>> {
    let nodes = usize::from(args.nodes);
    let file = dir.join("ports.json");
    if let Ok(kept) = fs::read(&file) {
        let kept: Vec<Ports> = serde_json::from_slice(&kept)
            .with_context(|| format!("{} is not what a demo has written", file.display()))?;
        if kept.len() != nodes {
            bail!(
                "{} holds a demo of {} stores: ask for --nodes {0}, or for another --data-dir",
                kept.len(),
                dir.display()
            );
        }
        return Ok(kept);
    }
    // All are held until the last is chosen, so that they differ.
    let mut held = Vec::new();
    let mut choose = |base: u16, what: &str, flag: &str| -> anyhow::Result<Vec<u16>> {
        let wanted = (0..args.nodes).map(|i| if base == 0 { 0 } else { base.saturating_add(i) });
        let bound: Result<Vec<_>, _> = wanted
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        let listeners = match bound {
            Ok(listeners) => listeners,
            Err(error) => {
                println!("{what} ports from {base} on are not all free ({error}); taking others (see {flag})");
                let free = (0..nodes).map(|_| TcpListener::bind(("127.0.0.1", 0)));
                free.collect::<Result<_, _>>()?
            }
        };
        let ports = listeners.iter().map(|l| Ok(l.local_addr()?.port()));
        let ports = ports.collect::<std::io::Result<_>>()?;
        held.extend(listeners);
        Ok(ports)
    };
    let redis = choose(args.redis_port, "Redis", "--redis-port")?;
    let grpc = choose(args.grpc_port, "gRPC", "--grpc-port")?;
    let http = choose(args.http_port, "HTTP", "--http-port")?;
    let dynamo = choose(args.dynamo_port, "DynamoDB", "--dynamo-port")?;
    let kv_http = choose(args.kv_http_port, "KV", "--kv-http-port")?;
    let ports: Vec<Ports> = redis
        .into_iter()
        .zip(grpc)
        .zip(http)
        .zip(dynamo)
        .zip(kv_http)
        .map(|((((redis, grpc), http), dynamo), kv_http)| Ports {
            redis,
            grpc,
            http,
            dynamo,
            kv_http,
        })
        .collect();
    fs::write(&file, serde_json::to_vec(&ports)?)
        .with_context(|| format!("{} can't be written", file.display()))?;
    Ok(ports)
}

/// A store's share of the cores.
fn threads_of_each(stores: u16) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / usize::from(stores)).clamp(1, 64)
}

/// A store's share of the memory for caches, bytes.
fn cache_of_each(stores: u16) -> u64 {
    (default_cache_bytes() / u64::from(stores)).max(CACHE_BYTES_MIN)
}

fn start_store(
    args: &DemoArgs,
    dir: &Path,
    i: usize,
    ports: Ports,
    members: &str,
) -> anyhow::Result<Store> {
    let name = format!("n{}", i + 1);
    let log = dir.join(format!("{name}.log"));
    let out = File::options().create(true).append(true).open(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("start")
        .args(["--id", &name])
        .args(["--address", &format!("127.0.0.1:{}", ports.grpc)])
        .args(["--redis-address", &format!("127.0.0.1:{}", ports.redis)])
        .args(["--http-address", &format!("127.0.0.1:{}", ports.http)])
        .args(["--dynamo-address", &format!("127.0.0.1:{}", ports.dynamo)])
        .args(["--kv-http-address", &format!("127.0.0.1:{}", ports.kv_http)])
        .arg("--data-dir")
        .arg(dir.join(&name))
        .args(["--bootstrap-members", members])
        .args(["--redis-threads", &threads_of_each(args.nodes).to_string()])
        .args(["--cache", &cache_of_each(args.nodes).to_string()])
        .env(ENDS_WITH_PARENT, "1")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0);
    if i == 0 {
        command.arg("--bootstrap");
        if let Some(ranges) = args.initial_ranges {
            command.args(["--initial-ranges", &ranges.to_string()]);
        }
    }
    let child = command.spawn().context("starting a store")?;
    Ok(Store {
        name,
        ports,
        log,
        child,
    })
}

/// Whether a read of the store's own door is answered, and not by an error.
async fn serves(port: u16) -> bool {
    let probe = move || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(6)))?;
        // Keys of three different slots, so most likely of three ranges.
        stream.write_all(b"EXISTS a\r\nEXISTS b\r\nEXISTS c\r\n")?;
        let mut replies = BufReader::new(stream).lines();
        for _ in 0..3 {
            match replies.next() {
                Some(Ok(line)) if line.starts_with(':') => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    };
    matches!(tokio::task::spawn_blocking(probe).await, Ok(Ok(true)))
}

/// Fails with the end of its log if a store has ended.
fn check_all(stores: &mut [Store]) -> anyhow::Result<()> {
    for store in stores {
        if let Some(status) = store.child.try_wait()? {
            let log = fs::read_to_string(&store.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
            bail!("{} ended with {status}:\n  {last}", store.name);
        }
    }
    Ok(())
}

fn print_endpoints(dir: &Path, stores: &[Store], elapsed: Duration) {
    let who = match stores.len() {
        1 => "1 store serves".to_string(),
        n => format!("{n} stores serve"),
    };
    println!(
        "{who} after {:.1} s; data and logs in {}\n",
        elapsed.as_secs_f64(),
        dir.display()
    );
    println!(
        "  {:<6}{:<18}{:<18}{:<18}{:<26}pid",
        "store", "redis", "dynamodb", "grpc", "status"
    );
    for store in stores {
        let Ports {
            redis,
            grpc,
            http,
            dynamo,
            ..
        } = store.ports;
        let dynamo = match dynamo {
            0 => "see its log".to_owned(),
            port => format!("127.0.0.1:{port}"),
        };
        let (redis, grpc) = (format!("127.0.0.1:{redis}"), format!("127.0.0.1:{grpc}"));
        let http = match http {
            0 => "see its log".to_owned(),
            port => format!("http://127.0.0.1:{port}/"),
        };
        println!(
            "  {:<6}{redis:<18}{dynamo:<18}{grpc:<18}{http:<26}{}",
            store.name,
            store.child.id()
        );
    }
    let first = &stores[0];
    let last = &stores[stores.len() - 1];
    println!("\nWrite through one store, read through another:");
    println!("  redis-cli -p {} SET greeting hello", first.ports.redis);
    println!("  redis-cli -p {} GET greeting", last.ports.redis);
    if last.ports.kv_http != 0 {
        println!(
            "  curl 'http://127.0.0.1:{}/kv/get?key=greeting'",
            last.ports.kv_http
        );
    }
    println!("See who leads what:");
    println!(
        "  rangekv ctl status --endpoints 127.0.0.1:{}",
        first.ports.grpc
    );
    println!(
        "  rangekv ctl range list --endpoints 127.0.0.1:{}",
        first.ports.grpc
    );
    if stores.len() >= 3 {
        println!("Kill a store, and read on:");
        println!("  kill -9 {}", last.child.id());
    }
    println!("Ctrl-C stops them all.");
}

/// Asks all children to stop, and makes sure that they do.
async fn stop(stores: &mut [Store]) {
    let began = Instant::now();
    ask_to_stop(stores);
    let mut hurried = false;
    loop {
        let running = stores
            .iter_mut()
            .filter_map(|s| matches!(s.child.try_wait(), Ok(None)).then_some(s));
        let running: Vec<&mut Store> = running.collect();
        if running.is_empty() {
            return;
        }
        if began.elapsed() > STOP_MAX {
            for store in running {
                println!("{} does not stop; killing it", store.name);
                if let Err(error) = store.child.kill().and_then(|()| store.child.wait()) {
                    println!("{}: {error}", store.name);
                }
            }
            return;
        }
        if !hurried && began.elapsed() > STOP_GRACE {
            hurried = true;
            ask_to_stop(stores);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn ask_to_stop(stores: &mut [Store]) {
    for store in stores {
        // A child that has ended and was waited for has no id any more.
        if let Ok(None) = store.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&store.child);
            if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
                println!("{} can't be asked to stop: {error}", store.name);
            }
        }
    }
}
