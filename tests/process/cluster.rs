//! A cluster of `rangekv start` processes on this machine.
//!
//! Each node has a loopback address of its own, as each VM has: a port that was chosen for a
//! node stays free while the node is down, because connections within the machine take theirs
//! at 127.0.0.1.

use crate::process::Process;
use crate::resp::{describe, Door, Reply};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For whatever must happen eventually. Generous: nothing here measures.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A terminated node has exited by then.
pub const STOP_MAX: Duration = Duration::from_secs(8);

/// How much of a node's log is shown when a test fails.
const LOG_BYTES_SHOWN: usize = 6000;

/// Keys enough to meet every data range of a new cluster.
const SPREAD_KEYS: usize = 64;

/// One cluster at a time: the others would take its processors.
static TURN: Mutex<()> = Mutex::new(());

/// Nodes, running or not. Dropping it ends and removes everything; and fails if a node panicked
/// or ended by itself.
pub struct Cluster {
    /// The nodes, n1 first.
    pub nodes: Vec<Node>,
    root: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// One node and its places.
pub struct Node {
    /// `n1`, …
    pub name: String,
    /// Raft and admin services.
    pub grpc: SocketAddr,
    /// Redis.
    pub redis: SocketAddr,
    /// DynamoDB.
    pub dynamo: SocketAddr,
    /// Status over HTTP.
    pub http: SocketAddr,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Further environment of the process, such as libraries to preload.
    pub environment: Vec<(&'static str, OsString)>,
    /// How it finds its cluster: `--bootstrap` and its members, for the node that makes it.
    pub flags: Vec<String>,
    /// Started without a name, it makes a cluster of its own.
    pub single: bool,
    /// Its syncs take so many milliseconds longer (`deploy/bench/slowsync.py`).
    pub sync_ms: Option<u32>,
    log: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Addresses and directories for `size` nodes, none of them started. n1 bootstraps.
    pub fn new(size: usize) -> Cluster {
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let root = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Node> = (1..=size).map(|n| Node::new(n, root.path())).collect();
        let members: Vec<String> = nodes
            .iter()
            .map(|node| format!("{}={}", node.name, node.grpc))
            .collect();
        if let Some(first) = nodes.first_mut() {
            first.flags = vec![
                "--bootstrap".into(),
                "--bootstrap-members".into(),
                members.join(","),
            ];
        }
        Cluster {
            nodes,
            root,
            _turn: turn,
        }
    }

    /// A cluster that serves.
    pub fn serving(size: usize) -> Cluster {
        let mut cluster = Cluster::new(size);
        cluster.start_all();
        cluster.wait_until_serving();
        cluster
    }

    /// One more node, which joins by asking the others.
    pub fn join(&mut self) {
        let others: Vec<String> = self.nodes.iter().map(|n| n.grpc.to_string()).collect();
        let mut node = Node::new(self.nodes.len() + 1, self.root.path());
        node.flags = vec!["--join".into(), others.join(",")];
        node.start();
        self.nodes.push(node);
    }

    /// A further node, which joins by asking the first; not started.
    pub fn add_joining(&mut self) -> &mut Node {
        let mut node = Node::new(self.nodes.len() + 1, self.root.path());
        node.flags = vec!["--join".into(), self.nodes[0].grpc.to_string()];
        self.nodes.push(node);
        self.nodes.last_mut().expect("just added")
    }

    /// The cluster's directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Starts all nodes that don't run.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if node.process.is_none() {
                node.start();
            }
        }
    }

    /// The Redis ports of all nodes.
    pub fn doors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.redis).collect()
    }

    /// Waits until every running node serves keys of every range.
    pub fn wait_until_serving(&self) {
        let started = Instant::now();
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            node.wait_until_serving();
        }
        println!("serving after {:?}", started.elapsed());
    }
}

impl Node {
    fn new(n: usize, root: &Path) -> Node {
        let [grpc, redis, dynamo, http] = draw_ports();
        let name = format!("n{n}");
        Node {
            grpc,
            redis,
            dynamo,
            http,
            data_dir: root.join(&name).join("data"),
            environment: Vec::new(),
            flags: Vec::new(),
            single: false,
            sync_ms: None,
            log: root.join(format!("{name}.log")),
            name,
            process: None,
        }
    }

    /// The arguments to start it with.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["start".into()];
        if !self.single {
            arguments.extend(["--id".into(), self.name.clone().into()]);
        }
        for (flag, value) in [
            ("--address", self.grpc.to_string()),
            ("--redis-address", self.redis.to_string()),
            ("--dynamo-address", self.dynamo.to_string()),
            ("--http-address", self.http.to_string()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(["--data-dir".into(), self.data_dir.clone().into()]);
        arguments.extend(self.flags.iter().map(Into::into));
        arguments
    }

    /// Starts the process.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        std::fs::create_dir_all(self.data_dir.parent().expect("below the root")).unwrap();
        let mut command = match self.sync_ms {
            None => rangekv(),
            Some(ms) => {
                let mut slow = Command::new("/usr/bin/env");
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/bench/slowsync.py");
                slow.args(["python3", script, &ms.to_string()]);
                slow.arg(rangekv().get_program());
                slow
            }
        };
        command
            .args(self.arguments())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn(&self.name, &mut command, &self.log));
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// The process, which is no longer the node's: the caller sees to its end.
    pub fn take_process(&mut self) -> Process {
        self.process
            .take()
            .unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        match self.sync_ms {
            None => self.take_process().kill(),
            Some(_) => self.take_process().kill_all(),
        }
    }

    /// SIGTERM; fails unless the process exits with 0 in time.
    pub fn stop(&mut self) {
        let mut process = self.take_process();
        let started = Instant::now();
        process.signal(libc::SIGTERM);
        let status = process.wait(STOP_MAX);
        let took = started.elapsed();
        let status =
            status.unwrap_or_else(|| panic!("{} still runs {took:?} after SIGTERM", self.name));
        assert!(status.success(), "{}: {status} after SIGTERM", self.name);
        println!("{} exited {took:?} after SIGTERM", self.name);
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process().signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process().signal(libc::SIGCONT);
    }

    /// A connection to its Redis port, to be made.
    pub fn door(&self) -> Door {
        Door::new(self.redis, PATIENCE)
    }

    /// What it has printed, all its runs together.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it writes and reads keys of every range.
    pub fn wait_until_serving(&self) {
        let mut door = self.door();
        for n in 0..SPREAD_KEYS {
            let key = format!("spread-{n}");
            until(&format!("{} serves {key}", self.name), || {
                match door.call(&[b"SET", key.as_bytes(), b"x"]) {
                    Ok(Reply::Simple(_)) => Ok(()),
                    other => Err(describe(&other)),
                }
            });
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut faults = Vec::new();
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                if let Some(status) = process.wait(Duration::ZERO) {
                    faults.push(format!("{} ended by itself: {status}", node.name));
                }
            }
            let output = node.output();
            if let Some(at) = output.find("panicked at") {
                let line = output[at..].lines().take(2).collect::<Vec<_>>().join(" ");
                faults.push(format!("{} {line}", node.name));
            }
        }
        if std::thread::panicking() || !faults.is_empty() {
            for node in &self.nodes {
                let output = node.output();
                let mut from = output.len().saturating_sub(LOG_BYTES_SHOWN);
                while !output.is_char_boundary(from) {
                    from += 1;
                }
                println!("──── {} …\n{}", node.name, &output[from..]);
            }
        }
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "{}", faults.join("\n"));
        }
    }
}

/// The binary under test, with nothing in its environment: variables can stand for flags.
pub fn rangekv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rangekv"));
    command.env_clear();
    command
}

/// Tries again until it goes well; fails with the last reason when patience ends.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) if Instant::now() >= deadline => panic!("{what}: {why} after {PATIENCE:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Free ports, chosen by the kernel, at a loopback address that no other node of this or of
/// another suite has.
fn draw_ports<const N: usize>() -> [SocketAddr; N] {
    static DRAWN: AtomicU8 = AtomicU8::new(0);
    let suite = std::process::id();
    let node = 1 + DRAWN.fetch_add(1, Ordering::Relaxed) % 250;
    let host = Ipv4Addr::new(127, 64 + (suite >> 8) as u8 % 128, suite as u8, node);
    // Released together, so that they differ.
    let listeners = [(); N].map(|()| TcpListener::bind((host, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
