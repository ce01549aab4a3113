//! Golden scripts of the raft log and of the state engine. Each runs on every disk or engine,
//! and prints the same on all.

mod storage_support;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};
use rangekv_model::eval::View;
use rangekv_proto::{RangeId, ReplicaId};
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::engine::{Snapshot, StateEngine, WriteBatch};
use rangekv_store::log::disk::{Crash, SimDisk, Torn};
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::log::{GroupLog, RaftLog, Recovered, Tombstone};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use storage_support::disks::{CrashDisk, Faulty};
use storage_support::script::{self, option, Subject};

macro_rules! scripts {
    ($run:ident: $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            $run(concat!(stringify!($run), "/", stringify!($name), ".txt"));
        }
    )*};
}

scripts!(storage_log:
    append_and_reopen,
    conflicting_append,
    torn_tail,
    segments_are_dropped,
    a_quiet_group_pins_old_segments,
    rewritten_copy_respects_truncation,
    tombstones_survive,
    full_disk,
    failed_sync,
    damage_is_found,
);

scripts!(storage_engine: crash_keeps_what_was_flushed, install_replaces_a_range);

fn storage_log(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Log::new(CrashDisk::new(dir.path().join("log")));
    script::run(name, &mut [&mut Log::new(SimDisk::new()), &mut files]);
}

/// A log, and what its owner remembers of its groups.
struct Log<D> {
    disk: D,
    config: LogConfig,
    log: Option<SegmentedLog<D>>,
    owner: Recovered,
}

fn range(word: &str) -> RangeId {
    RangeId(
        word.strip_prefix('r')
            .expect("a range like r1")
            .parse()
            .expect("a number"),
    )
}

fn term(words: &[&str]) -> u64 {
    let word = words.iter().find_map(|word| word.strip_prefix('@'));
    word.expect("a term like @2").parse().expect("a number")
}

impl<D: Faulty> Log<D> {
    fn new(disk: D) -> Self {
        let config = LogConfig {
            segment_bytes: 400,
            target_bytes: 1200,
        };
        let mut new = Log {
            disk,
            config,
            log: None,
            owner: Recovered::default(),
        };
        new.open();
        new
    }

    fn open(&mut self) -> String {
        self.log = None;
        match SegmentedLog::open(self.disk.clone(), self.config) {
            Ok((log, recovered)) => {
                self.log = Some(log);
                self.owner = recovered;
                self.show()
            }
            Err(error) => format!("cannot open: {error}\n"),
        }
    }

    fn show(&self) -> String {
        let mut out = String::new();
        for (id, group) in &self.owner.groups {
            let state = &group.hard_state;
            write!(
                out,
                "r{id}: term {} vote {} commit {}, ",
                state.term, state.vote, state.commit
            )
            .unwrap();
            write!(
                out,
                "truncated {}@{}, entries",
                group.truncated_index, group.truncated_term
            )
            .unwrap();
            for entry in &group.entries {
                write!(out, " {}@{}", entry.index, entry.term).unwrap();
            }
            out.push('\n');
        }
        for (id, grave) in &self.owner.tombstones {
            writeln!(
                out,
                "r{id}: tombstone {:?} conf_version {}",
                grave.replica, grave.conf_version
            )
            .unwrap();
        }
        if out.is_empty() {
            "nothing\n".into()
        } else {
            out
        }
    }

    fn status(&self) -> String {
        let log = self.log.as_ref().expect("an open log");
        log.check_invariants();
        let segments = self.disk.list().unwrap();
        let bytes: Vec<_> = self
            .owner
            .groups
            .keys()
            .map(|&id| format!("r{id} {}", log.group_bytes(id)))
            .collect();
        format!(
            "segments {segments:?}, {} bytes, live [{}], staged {}, pinning {:?}\n",
            log.total_bytes(),
            bytes.join(", "),
            log.has_staged(),
            log.pinning_groups()
        )
    }

    fn append(&mut self, id: RangeId, first: u64, last: u64, term: u64, size: usize) {
        let new = |index| Entry {
            index,
            term,
            data: Bytes::from(vec![b'x'; size]),
            ..Entry::default()
        };
        let entries: Vec<_> = (first..=last).map(new).collect();
        self.log.as_mut().expect("an open log").append(id, &entries);
        let group = self.owner.groups.entry(id).or_default();
        group
            .entries
            .truncate((first - 1 - group.truncated_index) as usize);
        group.entries.extend(entries);
    }
}

fn outcome(result: std::io::Result<()>) -> String {
    result.map_or_else(|error| format!("error: {error}\n"), |()| String::new())
}

impl<D: Faulty> Subject for Log<D> {
    fn run(&mut self, words: &[&str]) -> String {
        match words[0] {
            "show" => return self.show(),
            "status" => return self.status(),
            "kill" => {
                self.log = None;
                self.disk.kill();
                return self.open();
            }
            "crash" => {
                self.log = None;
                let torn = option(words, "cut").map(|at| Torn::Cut(at as usize));
                let torn = torn.or(option(words, "zero").map(|at| Torn::Zero(at as usize)));
                let keep = option(words, "keep").expect("keep=n") as usize;
                let out = format!("{} unsynced writes\n", self.disk.unsynced());
                self.disk.crash(Crash { keep, torn });
                return out + &self.open();
            }
            "flip" => {
                let number = |word: &str| word.parse().expect("a number");
                self.disk.flip(number(words[1]), number(words[2]), 1);
                return String::new();
            }
            "failing" => self.disk.set_failing(words[1] == "on"),
            "full" => self.disk.set_full(words[1] == "on"),
            "append" => {
                let (first, last) = words[2].split_once('-').unwrap_or((words[2], words[2]));
                let size = option(words, "size").unwrap_or(10) as usize;
                let number = |word: &str| word.parse().expect("a number");
                self.append(
                    range(words[1]),
                    number(first),
                    number(last),
                    term(words),
                    size,
                );
            }
            // One entry per record, each synced.
            "fill" => {
                let id = range(words[1]);
                for _ in 0..words[2].parse().expect("a number") {
                    let group = self.owner.groups.entry(id).or_default();
                    let last = group
                        .entries
                        .last()
                        .map_or(group.truncated_index, |entry| entry.index);
                    self.append(id, last + 1, last + 1, term(words), 60);
                    let log = self.log.as_mut().expect("an open log");
                    log.write().unwrap();
                    log.sync().unwrap();
                }
            }
            "rewrite" => {
                let id = range(words[1]);
                self.log
                    .as_mut()
                    .expect("an open log")
                    .rewrite(id, &self.owner.groups[&id]);
            }
            "state" => {
                let [term, vote, commit] =
                    ["term", "vote", "commit"].map(|name| option(words, name).unwrap_or(0));
                let state = HardState {
                    term,
                    vote,
                    commit,
                    ..HardState::default()
                };
                self.log
                    .as_mut()
                    .expect("an open log")
                    .set_hard_state(range(words[1]), &state);
                self.owner
                    .groups
                    .entry(range(words[1]))
                    .or_default()
                    .hard_state = state;
            }
            "compact" => {
                let group = self
                    .owner
                    .groups
                    .get_mut(&range(words[1]))
                    .expect("a group");
                let to: u64 = words[2].parse().expect("a number");
                let n = (to - group.truncated_index) as usize;
                (group.truncated_index, group.truncated_term) = (to, group.entries[n - 1].term);
                group.entries.drain(..n);
                self.log.as_mut().expect("an open log").compact(
                    range(words[1]),
                    to,
                    group.truncated_term,
                );
            }
            "reset" => {
                let index = words[2].parse().expect("a number");
                let term = term(words);
                let hard_state = HardState {
                    term,
                    commit: index,
                    ..HardState::default()
                };
                self.log.as_mut().expect("an open log").reset(
                    range(words[1]),
                    index,
                    term,
                    &hard_state,
                );
                let group = GroupLog {
                    hard_state,
                    truncated_index: index,
                    truncated_term: term,
                    entries: Vec::new(),
                };
                self.owner.groups.insert(range(words[1]), group);
            }
            "destroy" => {
                let replica = words[2].strip_prefix('p').expect("a replica like p7");
                let tombstone = Tombstone {
                    replica: ReplicaId(replica.parse().expect("a number")),
                    conf_version: 1,
                };
                self.log
                    .as_mut()
                    .expect("an open log")
                    .destroy(range(words[1]), tombstone);
                self.owner.groups.remove(&range(words[1]));
                self.owner.tombstones.insert(range(words[1]), tombstone);
            }
            "write" => return outcome(self.log.as_mut().expect("an open log").write()),
            "sync" => return outcome(self.log.as_mut().expect("an open log").sync()),
            "commit" => {
                let log = self.log.as_mut().expect("an open log");
                return outcome(log.write().and_then(|()| log.sync()));
            }
            command => panic!("unknown command {command}"),
        }
        String::new()
    }
}

#[cfg(not(feature = "rocks"))]
fn storage_engine(name: &str) {
    script::run(
        name,
        &mut [&mut Engine::new(MemEngine::new(), |engine| {
            (engine.crash(0), engine).1
        })],
    );
}

#[cfg(feature = "rocks")]
fn storage_engine(name: &str) {
    use rangekv_store::engine::rocks::{RocksConfig, RocksEngine};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let open = move || {
        let config = RocksConfig {
            flush_on_close: false,
            ..RocksConfig::default()
        };
        RocksEngine::open(&path, &config).unwrap()
    };
    let mut mem = Engine::new(MemEngine::new(), |engine| (engine.crash(0), engine).1);
    let mut rocks = Engine::new(open(), move |engine| {
        drop(engine);
        open()
    });
    script::run(name, &mut [&mut mem, &mut rocks]);
}

struct Engine<E> {
    engine: Option<E>,
    crash: Box<dyn Fn(E) -> E>,
    snapshots: BTreeMap<String, Snapshot>,
}

impl<E: StateEngine> Engine<E> {
    fn new(engine: E, crash: impl Fn(E) -> E + 'static) -> Self {
        Engine {
            engine: Some(engine),
            crash: Box::new(crash),
            snapshots: BTreeMap::new(),
        }
    }
}

/// `a=1 b` puts `a` and deletes `b`.
fn batch(words: &[&str]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => batch.put(key.to_owned(), value.to_owned()),
            None => batch.delete(word.to_string()),
        }
    }
    batch
}

/// `a..c` is `[a, c)`.
fn bounds(word: &str) -> (Bytes, Bytes) {
    let (start, end) = word.split_once("..").expect("a range like a..c");
    (start.to_owned().into(), end.to_owned().into())
}

fn scan(view: &dyn View, (start, end): (Bytes, Bytes), reverse: bool) -> String {
    let mut out = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        out.push(format!(
            "{}={}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value)
        ));
        ControlFlow::Continue(())
    };
    if reverse {
        view.scan_reverse(&start, &end, &mut visit);
    } else {
        view.scan(&start, &end, &mut visit);
    }
    format!(
        "{}\n",
        if out.is_empty() {
            "nothing".into()
        } else {
            out.join(" ")
        }
    )
}

impl<E: StateEngine> Subject for Engine<E> {
    fn run(&mut self, words: &[&str]) -> String {
        let engine = self.engine.as_ref().expect("an open engine");
        let shown = |value: Option<Bytes>| {
            format!(
                "{}\n",
                value.map_or("none".into(), |value| String::from_utf8_lossy(&value)
                    .into_owned())
            )
        };
        match words[0] {
            "write" => engine.write(&batch(&words[1..])),
            "delete-range" => engine.write(&WriteBatch {
                delete_ranges: vec![bounds(words[1])],
                ..batch(&words[2..])
            }),
            "flush" => engine.flush(),
            "get" => return shown(engine.get(words[1].as_bytes())),
            "durable" => return shown(engine.get_durable(words[1].as_bytes())),
            "scan" => return scan(engine, bounds(words[1]), false),
            "reverse" => return scan(engine, bounds(words[1]), true),
            "snapshot" => {
                self.snapshots.insert(words[1].into(), engine.snapshot());
            }
            "look" => return scan(&*self.snapshots[words[1]], bounds(words[2]), false),
            "install" => {
                // install a..c a..c: staged records: puts
                let mut parts = words[1..].split(|word| *word == ":");
                let clear: Vec<_> = parts
                    .next()
                    .unwrap_or_default()
                    .iter()
                    .map(|word| bounds(word))
                    .collect();
                let mut stager = engine.stage().unwrap();
                for word in parts.next().unwrap_or_default() {
                    let (key, value) = word.split_once('=').expect("a record like a=1");
                    stager.add(key.as_bytes(), value.as_bytes()).unwrap();
                }
                let puts = batch(parts.next().unwrap_or_default());
                engine.install(&clear, stager.finish().unwrap(), &puts);
            }
            "crash" => {
                self.snapshots.clear();
                let engine = self.engine.take().expect("an open engine");
                self.engine = Some((self.crash)(engine));
            }
            command => panic!("unknown command {command}"),
        }
        String::new()
    }
}
