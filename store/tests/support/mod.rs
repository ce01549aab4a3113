//! A cluster of workers over memory, driven by text: one thread, virtual time, no faults but
//! those that a script asks for.

use bytes::Bytes;
use prost::Message as _;
use rangekv_model::eval::{Context, Evaluator, Txn, View};
use rangekv_proto::internal::{admin_command as admin, AdminCommand, AdminReply, ReplicaStatus};
use rangekv_proto::*;
use rangekv_store::config::Config;
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::engine::StateEngine;
use rangekv_store::event::{Event, Now, Outbox};
use rangekv_store::log::disk::SimDisk;
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::log::RaftLog as _;
use rangekv_store::meta::{self, Merging};
use rangekv_store::reader::LocalReader;
use rangekv_store::recover::{self, Position, Survivor};
use rangekv_store::shared::StoreShared;
use rangekv_store::wire;
use rangekv_store::worker::{Evaluators, Worker};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// `set K V`, `get K`, `setnx K V`, `incr K`: enough to see evaluation at work.
struct Words;

impl Evaluator for Words {
    fn evaluate(&self, _: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        let text = String::from_utf8_lossy(command).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let text_of =
            |v: Option<Bytes>| v.map_or("nil".into(), |v| String::from_utf8_lossy(&v).into_owned());
        match words[..] {
            ["set", k, v] => {
                txn.put(k.to_owned(), v.to_owned());
                "ok".into()
            }
            ["setnx", k, v] => match txn.get(k.as_bytes()) {
                Some(_) => "exists".into(),
                None => {
                    txn.put(k.to_owned(), v.to_owned());
                    "ok".into()
                }
            },
            ["incr", k] => {
                let n: u64 = text_of(txn.get(k.as_bytes())).parse().unwrap_or(0);
                txn.put(k.to_owned(), (n + 1).to_string());
                (n + 1).to_string().into()
            }
            ["get", k] => text_of(txn.get(k.as_bytes())).into(),
            _ => format!("what is {text:?}?").into(),
        }
    }

    fn split_key(&self, _: &[u8], _: &[u8], near: &[u8]) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(near))
    }
}

#[derive(Default)]
struct Replies(Mutex<Vec<(u64, Response)>>);

impl ReplySink for Replies {
    fn complete(&self, token: u64, response: Response) {
        self.0
            .lock()
            .expect("no test panics while replying")
            .push((token, response));
    }
}

struct Node {
    worker: Option<Worker>,
    engine: Arc<MemEngine>,
    disk: SimDisk,
    shared: Arc<StoreShared>,
    inbox: Vec<(StoreId, Bytes)>,
    boots: u64,
}

/// The cluster that a script drives.
pub struct Cluster {
    nodes: BTreeMap<StoreId, Node>,
    replies: Arc<Replies>,
    cut: BTreeSet<(StoreId, StoreId)>,
    now: Now,
    token: u64,
    asked: BTreeMap<u64, String>,
    small_log: bool,
    out: String,
}

fn store(word: &str) -> StoreId {
    StoreId(
        word.trim_start_matches('s')
            .parse()
            .unwrap_or_else(|_| panic!("a store, not {word:?}")),
    )
}

fn show_epoch(d: &RangeDescriptor) -> String {
    format!("{}.{}", d.epoch.conf_version, d.epoch.version)
}

fn number(word: &str) -> u64 {
    word.trim_start_matches(['r', 'p'])
        .parse()
        .unwrap_or_else(|_| panic!("a number, not {word:?}"))
}

impl Cluster {
    /// Nothing yet: scripts begin with `cluster N`.
    pub fn new() -> Self {
        Cluster {
            nodes: BTreeMap::new(),
            replies: Arc::default(),
            cut: BTreeSet::new(),
            now: Now {
                mono_ns: 1_000_000_000,
                wall_ms: 1_000_000,
            },
            token: 0,
            asked: BTreeMap::new(),
            small_log: false,
            out: String::new(),
        }
    }

    /// Runs one line and returns what it printed.
    pub fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["cluster", n] => self.cluster(number(n), number(n)),
            ["cluster", n, "spare", m] => self.cluster(number(n), number(n) + number(m)),
            ["small-log"] => self.small_log = true,
            ["tick", n] => (0..number(n)).for_each(|_| self.tick()),
            ["settle"] => self.settle(),
            ["campaign", s, r] => {
                let now = self.now;
                let worker = self
                    .nodes
                    .get_mut(&store(s))
                    .and_then(|n| n.worker.as_mut())
                    .expect("a running store");
                worker.with_replica(now, RangeId(number(r)), |r, _| {
                    r.raw.campaign().expect("may campaign")
                });
                worker.handle(now, Event::DiskFull(false));
                self.settle();
            }
            ["cut", a, b] => {
                self.cut
                    .extend([(store(a), store(b)), (store(b), store(a))]);
            }
            ["cut-one-way", a, b] => {
                self.cut.insert((store(a), store(b)));
            }
            ["heal"] => self.cut.clear(),
            ["crash", s] => self.crash(store(s)),
            ["recover", ref survivors @ ..] => {
                self.recover(survivors.iter().map(|s| store(s)).collect())
            }
            ["restart", s] => self.start(store(s)),
            ["flush", s] => self.nodes[&store(s)].engine.flush(),
            ["local-read", s, k] => self.local_read(store(s), k),
            ["split", s, r, key, new, ..] => {
                let d = self.descriptor(store(s), number(r));
                let new = number(new);
                let kind = admin::Split {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    new_range: new,
                    new_replicas: (0..d.replicas.len() as u64).map(|i| new * 10 + i).collect(),
                };
                self.admin(store(s), &d, admin::Kind::Split(kind), line);
            }
            // `&` leaves it at the leader, for `rounds` to go on with.
            ["merge", s, r, source, ..] => {
                let d = self.descriptor(store(s), number(r));
                let epoch = match self.nodes[&store(s)].shared.cell(RangeId(number(source))) {
                    Some(_) => self.descriptor(store(s), number(source)).epoch,
                    None => Epoch::default(),
                };
                let kind = admin::Merge {
                    source: number(source),
                    source_conf_version: epoch.conf_version,
                    source_version: epoch.version,
                };
                self.admin(store(s), &d, admin::Kind::Merge(kind), line);
            }
            ["merge-stale", s, r, source] => {
                let d = self.descriptor(store(s), number(r));
                let kind = admin::Merge {
                    source: number(source),
                    source_conf_version: 1,
                    source_version: 1,
                };
                self.admin(store(s), &d, admin::Kind::Merge(kind), line);
            }
            // By a route of the asker's choice.
            ["ask", s, r, version, ref command @ ..] => {
                let request = Request {
                    range: RangeId(number(r)),
                    version: number(version),
                    term: 0,
                    mark: Mark::NONE,
                    body: Body::Command {
                        evaluator: EvaluatorId::REDIS,
                        read_only: command[0] == "get",
                        command: command.join(" ").into(),
                    },
                };
                self.request(store(s), request, line);
            }
            ["rounds", n] => {
                for _ in 0..number(n) {
                    for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                        self.round(id);
                    }
                }
            }
            ["round", s] => self.round(store(s)),
            ["transfer", s, r, to, ..] => {
                let d = self.descriptor(store(s), number(r));
                let kind = admin::TransferLeader { store: store(to).0 };
                self.admin(store(s), &d, admin::Kind::TransferLeader(kind), line);
            }
            ["stop", s] => {
                let (id, now) = (store(s), self.now);
                let worker = self.nodes.get_mut(&id).and_then(|n| n.worker.as_mut());
                worker.expect("a running store").handle(now, Event::Drain);
            }
            ["takers", s] => {
                let shared = &self.nodes[&store(s)].shared;
                let takers = (1..=self.nodes.len() as u64).map(StoreId);
                let takers = takers.filter(|other| shared.is_taker(*other));
                let takers: Vec<String> = takers.map(|store| format!("s{store}")).collect();
                writeln!(self.out, "{line} → [{}]", takers.join(" ")).expect("a string takes all");
            }
            ["barrier", s, r] => {
                let d = self.descriptor(store(s), number(r));
                self.admin(store(s), &d, admin::Kind::Barrier(true), line);
            }
            ["verify-leader", s, r] => {
                let d = self.descriptor(store(s), number(r));
                self.admin(store(s), &d, admin::Kind::VerifyLeader(true), line);
            }
            ["compact", s, r] => {
                let d = self.descriptor(store(s), number(r));
                self.admin(store(s), &d, admin::Kind::Compact(true), line);
            }
            ["progress", s, r] => {
                let d = self.descriptor(store(s), number(r));
                self.admin(store(s), &d, admin::Kind::Status(true), line);
            }
            ["leave-joint", s, r] => {
                let d = self.descriptor(store(s), number(r));
                let change = admin::ChangeReplicas {
                    conf_version: d.epoch.conf_version,
                    changes: vec![],
                    leave_joint: true,
                };
                self.admin(store(s), &d, admin::Kind::ChangeReplicas(change), line);
            }
            ["change", s, r, ref changes @ ..] => {
                let d = self.descriptor(store(s), number(r));
                let changes = changes
                    .iter()
                    .map(|c| {
                        let parts: Vec<&str> = c.split(':').collect();
                        let kind = match parts[0] {
                            "learner" => admin::ChangeKind::AddLearner,
                            "promote" => admin::ChangeKind::Promote,
                            "demote" => admin::ChangeKind::Demote,
                            "remove" => admin::ChangeKind::RemoveLearner,
                            other => panic!("what change is {other:?}?"),
                        };
                        admin::Change {
                            kind: kind as i32,
                            replica: number(parts[1]),
                            store: parts.get(2).map_or(0, |s| store(s).0),
                        }
                    })
                    .collect();
                let change = admin::ChangeReplicas {
                    conf_version: d.epoch.conf_version,
                    changes,
                    leave_joint: false,
                };
                self.admin(store(s), &d, admin::Kind::ChangeReplicas(change), line);
            }
            ["status"] => self.status(),
            ["hashes"] => self.hashes(),
            [s, "stale", ref command @ ..] => {
                self.command(store(s), &command.join(" "), Some(1), line)
            }
            [s, ref command @ ..] => self.command(store(s), &command.join(" "), None, line),
            [] => {}
        }
        for node in self.nodes.values() {
            if let Some(w) = &node.worker {
                w.check_invariants();
            }
        }
        std::mem::take(&mut self.out)
    }

    fn cluster(&mut self, n: u64, stores: u64) {
        let d = RangeDescriptor {
            id: RangeId(2),
            start: Bytes::new(),
            end: Bytes::new(),
            epoch: Epoch {
                conf_version: 1,
                version: 1,
            },
            replicas: (1..=n)
                .map(|i| Replica {
                    id: ReplicaId(20 + i),
                    store: StoreId(i),
                    role: ReplicaRole::Voter,
                })
                .collect(),
        };
        for i in 1..=stores {
            let node = Node {
                worker: None,
                engine: Arc::new(MemEngine::new()),
                disk: SimDisk::new(),
                shared: Arc::default(),
                inbox: Vec::new(),
                boots: 0,
            };
            self.nodes.insert(StoreId(i), node);
            self.start(StoreId(i));
            let now = self.now;
            let worker = self
                .nodes
                .get_mut(&StoreId(i))
                .and_then(|n| n.worker.as_mut())
                .expect("just started");
            worker.handle(now, Event::Initialise(vec![d.clone()]));
        }
    }

    fn config(&self, id: StoreId, boot: u64) -> Config {
        let mut config = Config::new(id, id.0 << 32 | boot);
        if self.small_log {
            config.log_keep_bytes = 64;
            config.log_max_bytes = 128;
        }
        config
    }

    fn start(&mut self, id: StoreId) {
        let now = self.now;
        let boots = self.nodes[&id].boots + 1;
        let config = self.config(id, boots);
        let node = self.nodes.get_mut(&id).expect("a store of the cluster");
        node.boots = boots;
        node.shared = Arc::default();
        let (log, recovered) = SegmentedLog::open(node.disk.clone(), LogConfig::default())
            .expect("the log opens after a crash");
        let evaluators =
            Evaluators::new([(EvaluatorId::REDIS, Arc::new(Words) as Arc<dyn Evaluator>)]);
        let draw = Box::new(move |_| 20 + id.0 as usize * 3);
        let engine: Arc<dyn StateEngine> = node.engine.clone();
        match Worker::recover(
            config,
            draw,
            engine,
            Box::new(log),
            recovered,
            node.shared.clone(),
            evaluators,
            now,
        ) {
            Ok(w) => node.worker = Some(w),
            Err(e) => {
                let _ = writeln!(self.out, "s{id} refuses to start: {e}");
            }
        }
    }

    fn crash(&mut self, id: StoreId) {
        let node = self.nodes.get_mut(&id).expect("a store of the cluster");
        node.worker = None;
        node.inbox.clear();
        node.engine.crash(0);
        node.disk.crash(Default::default());
    }

    /// What remains of a cluster when all stores but these, which don't run, are gone for good.
    fn recover(&mut self, stores: BTreeSet<StoreId>) {
        let mut found: BTreeMap<RangeId, Vec<(StoreId, Survivor)>> = BTreeMap::new();
        let mut logs = BTreeMap::new();
        for id in &stores {
            let node = &self.nodes[id];
            assert!(node.worker.is_none(), "s{id} runs");
            let (log, mut recovered) = SegmentedLog::open(node.disk.clone(), LogConfig::default())
                .expect("the log opens after a crash");
            logs.insert(*id, log);
            for (replica, d, applied) in meta::all_ranges(&*node.engine).expect("readable") {
                let merging = node.engine.get(&meta::merging_key(d.id)).is_some();
                let log = recovered.groups.remove(&d.id);
                let range = d.id;
                let survivor = Survivor::new(replica, d, applied, merging, log);
                found.entry(range).or_default().push((*id, survivor));
            }
        }
        for (range, survivors) in found {
            if survivors.iter().any(|(_, s)| {
                recover::has_quorum(&s.committed_members().expect("a sound log"), &stores)
            }) {
                let _ = writeln!(self.out, "r{range} keeps its majority");
                continue;
            }
            let best = survivors.iter().max_by_key(|(_, s)| s.position());
            let best = best.expect("found somewhere").0;
            for (id, survivor) in &survivors {
                let log = logs.get_mut(id).expect("opened");
                let Position { term, index } = survivor.position();
                let applied = survivor.applied.index;
                let done = match *id == best {
                    true => match survivor.stand_alone(log, None) {
                        Ok(alone) => format!("stands alone at epoch {}", show_epoch(&alone)),
                        Err(why) => format!("refused: {why}"),
                    },
                    false => {
                        survivor.stand_down(log);
                        "stands down".into()
                    }
                };
                let _ = writeln!(
                    self.out,
                    "s{id} r{range} applied {applied} last {index} of term {term}: {done}"
                );
            }
        }
        for log in logs.values_mut() {
            if log.has_staged() {
                log.write().expect("memory has room");
                log.sync().expect("memory has room");
            }
        }
    }

    fn tick(&mut self) {
        self.now.mono_ns += 50_000_000;
        self.now.wall_ms += 50;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.round(id);
        }
        self.settle();
    }

    fn round(&mut self, id: StoreId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a store of the cluster");
        let Some(worker) = node.worker.as_mut() else {
            return;
        };
        let mut outbox = Outbox::default();
        for (from, bytes) in std::mem::take(&mut node.inbox) {
            worker.handle(
                now,
                Event::Raft {
                    from,
                    envelopes: bytes,
                },
            );
        }
        if worker.begin_round(now, &mut outbox) {
            worker.sync(now);
        }
        worker.finish_round(now, &mut outbox);
        self.send(id, outbox);
    }

    fn send(&mut self, from: StoreId, outbox: Outbox) {
        let up = |to: &StoreId, nodes: &BTreeMap<StoreId, Node>, cut: &BTreeSet<_>| {
            !cut.contains(&(from, *to)) && nodes.get(to).is_some_and(|n| n.worker.is_some())
        };
        for (to, envelope) in outbox.envelopes {
            if up(&to, &self.nodes, &self.cut) {
                let node = self.nodes.get_mut(&to).expect("just seen");
                node.inbox.push((from, wire::encode([&envelope])));
            }
        }
        for s in outbox.snapshots {
            let ok = up(&s.to, &self.nodes, &self.cut);
            let now = self.now;
            if ok {
                let node = self.nodes.get_mut(&s.to).expect("just seen");
                let mut stager = node.engine.stage().expect("memory has room");
                let (start, end) = meta::data_bounds(&s.range);
                let mut n = 0;
                s.state.scan(&start, &end, &mut |k, v| {
                    stager.add(k, v).expect("memory has room");
                    n += 1;
                    ControlFlow::Continue(())
                });
                let staged = stager.finish().expect("memory has room");
                let _ = writeln!(
                    self.out,
                    "snapshot of r{} with {n} records: s{from} → s{}",
                    s.range.id, s.to
                );
                let worker = node.worker.as_mut().expect("just seen");
                worker.handle(
                    now,
                    Event::SnapshotReceived {
                        envelope: s.envelope.clone(),
                        staged,
                    },
                );
            }
            let sent = Event::SnapshotSent {
                range: s.range.id,
                to: s.envelope.to,
                ok,
            };
            self.nodes
                .get_mut(&from)
                .and_then(|n| n.worker.as_mut())
                .expect("the sender runs")
                .handle(now, sent);
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let busy: Vec<StoreId> = self
                .nodes
                .iter()
                .filter(|(_, n)| {
                    n.worker
                        .as_ref()
                        .is_some_and(|w| w.has_work() || !n.inbox.is_empty())
                })
                .map(|(id, _)| *id)
                .collect();
            if busy.is_empty() {
                break;
            }
            for id in busy {
                self.round(id);
            }
        }
        let mut replies = std::mem::take(
            &mut *self
                .replies
                .0
                .lock()
                .expect("no test panics while replying"),
        );
        replies.sort_by_key(|(token, _)| *token);
        for (token, response) in replies {
            let asked = self
                .asked
                .remove(&token)
                .expect("each request is answered once");
            let text = match response {
                Ok(bytes)
                    if asked.starts_with("split")
                        || asked.starts_with("merge")
                        || asked.starts_with("change")
                        || asked.starts_with("leave") =>
                {
                    format!("done ({} bytes)", bytes.len())
                }
                Ok(bytes) if asked.starts_with("barrier") || asked.starts_with("verify") => {
                    let reply = AdminReply::decode(bytes).expect("an admin reply");
                    format!("index {} of term {}", reply.index, reply.term)
                }
                Ok(bytes) if asked.starts_with("progress") || asked.starts_with("compact") => {
                    progress(&ReplicaStatus::decode(bytes).expect("a replica's status"))
                }
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) => format!("error: {e}"),
            };
            let _ = writeln!(self.out, "{asked} → {text}");
        }
    }

    fn descriptor(&self, s: StoreId, range: u64) -> RangeDescriptor {
        let routes = self.nodes[&s].shared.routes();
        routes
            .into_iter()
            .find(|(d, _)| d.id.0 == range)
            .expect("the store has a replica of the range")
            .0
    }

    fn request(&mut self, s: StoreId, request: Request, line: &str) {
        self.token += 1;
        self.asked.insert(self.token, line.to_owned());
        let event = Event::Request {
            request,
            sink: self.replies.clone(),
            token: self.token,
            arrived_ns: 0,
        };
        let now = self.now;
        self.nodes
            .get_mut(&s)
            .and_then(|n| n.worker.as_mut())
            .expect("a running store")
            .handle(now, event);
        if !line.ends_with('&') {
            self.settle();
        }
    }

    fn admin(&mut self, s: StoreId, d: &RangeDescriptor, kind: admin::Kind, line: &str) {
        let command = AdminCommand { kind: Some(kind) }.encode_to_vec().into();
        let request = Request {
            range: d.id,
            version: d.epoch.version,
            term: 0,
            mark: Mark::NONE,
            body: Body::Admin(command),
        };
        self.request(s, request, line);
    }

    fn command(&mut self, s: StoreId, command: &str, version: Option<u64>, line: &str) {
        let command = command.trim_end_matches(" &");
        let key = command
            .split(' ')
            .nth(1)
            .expect("a command with a key")
            .to_owned();
        let routes = self.nodes[&s].shared.routes();
        let d = match version {
            // By the route of the cluster's beginning.
            Some(_) => routes.into_iter().next(),
            None => routes.into_iter().find(|(d, _)| d.contains(key.as_bytes())),
        };
        let d = d.expect("the store has a replica of the key's range").0;
        let body = Body::Command {
            evaluator: EvaluatorId::REDIS,
            read_only: command.starts_with("get "),
            command: Bytes::copy_from_slice(command.as_bytes()),
        };
        let request = Request {
            range: d.id,
            version: version.unwrap_or(d.epoch.version),
            term: 0,
            mark: Mark::NONE,
            body,
        };
        self.request(s, request, line);
    }

    fn local_read(&mut self, s: StoreId, key: &str) {
        let node = &self.nodes[&s];
        let evaluators =
            Evaluators::new([(EvaluatorId::REDIS, Arc::new(Words) as Arc<dyn Evaluator>)]);
        let reader = LocalReader::new(node.shared.clone(), node.engine.clone(), evaluators);
        let (d, _) = node
            .shared
            .routes()
            .into_iter()
            .find(|(d, _)| d.contains(key.as_bytes()))
            .expect("a replica of the range");
        let command = Bytes::from(format!("get {key}"));
        let read = reader
            .begin(
                d.id,
                d.epoch.version,
                EvaluatorId::REDIS,
                &command,
                self.now,
            )
            .and_then(|r| r.validate(self.now));
        let text = read.map_or("no lease".into(), |v| {
            String::from_utf8_lossy(&v).into_owned()
        });
        let _ = writeln!(self.out, "local-read s{s} {key} → {text}");
    }

    fn status(&mut self) {
        for (id, node) in &self.nodes {
            let Some(w) = &node.worker else {
                let _ = writeln!(self.out, "s{id} is down");
                continue;
            };
            for g in w.groups(self.now) {
                let role = if g.is_leader { "leads" } else { "follows" };
                let _ = write!(
                    self.out,
                    "s{id} r{} p{} {role} term {} applied {} last {} truncated {}",
                    g.range, g.replica, g.term, g.applied.0, g.last_index, g.truncated
                );
                if let Some(d) = g.descriptor {
                    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
                    let members: Vec<String> = d
                        .replicas
                        .iter()
                        .map(|r| format!("p{}@s{} {:?}", r.id, r.store, r.role))
                        .collect();
                    let _ = write!(
                        self.out,
                        " [{:?}, {:?}) epoch {}.{} {}",
                        text(&d.start),
                        text(&d.end),
                        d.epoch.conf_version,
                        d.epoch.version,
                        members.join(", ")
                    );
                }
                match g.merging {
                    Some(Merging::Frozen { .. }) => self.out += " frozen",
                    Some(Merging::Absorbing { aborted: false, .. }) => self.out += " absorbing",
                    Some(Merging::Absorbing { aborted: true, .. }) if g.pinned => {
                        self.out += " aborted"
                    }
                    _ => {}
                }
                let _ = writeln!(self.out, "{}", if g.leased { " leased" } else { "" });
            }
        }
    }

    fn hashes(&mut self) {
        let mut by_range: BTreeMap<RangeId, BTreeSet<u64>> = BTreeMap::new();
        let mut copies: BTreeMap<RangeId, usize> = BTreeMap::new();
        for node in self.nodes.values() {
            let Some(w) = &node.worker else { continue };
            for g in w.groups(self.now) {
                if let Some(h) = w.state_hash(g.range) {
                    by_range.entry(g.range).or_default().insert(h);
                    *copies.entry(g.range).or_default() += 1;
                }
            }
        }
        for (range, hashes) in by_range {
            let equal = if hashes.len() == 1 {
                "equal"
            } else {
                "DIFFERENT"
            };
            let _ = writeln!(self.out, "r{range}: {} replicas, {equal}", copies[&range]);
        }
    }
}

fn progress(status: &ReplicaStatus) -> String {
    let peers = status.peers.iter().map(|p| {
        let caught_up = if p.caught_up { "" } else { " behind" };
        format!(
            "p{}@s{} {} {}{caught_up}",
            p.replica, p.store, p.state, p.matched
        )
    });
    let peers: Vec<String> = peers.collect();
    format!(
        "{} durable {} [{}]",
        status.role,
        status.durable_applied,
        peers.join(", ")
    )
}
