//! What a replicated write costs three workers, without sockets, threads and disk: admission, raft, the log's
//! records, messages as bytes, applying to a map in memory.
//!
//! `round_cost RANGES WRITES COMPANY` does `WRITES` writes over `RANGES` ranges, whose leaders are spread over the
//! stores, `COMPANY` of them at a time. To count instructions:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*drive*' target/release/examples/round_cost 1000 6000 24
//! ```
#![allow(clippy::disallowed_methods)] // It measures.

use bytes::Bytes;
use rangekv_model::eval::{Context, Evaluator, Txn};
use rangekv_proto::*;
use rangekv_store::config::Config;
use rangekv_store::engine::mem::MemEngine;
use rangekv_store::engine::StateEngine;
use rangekv_store::event::{Event, Now, Outbox};
use rangekv_store::log::disk::SimDisk;
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::wire::{self, Envelope};
use rangekv_store::worker::{Evaluators, Worker};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const STORES: u64 = 3;

/// A command is a key; it is given a value of 128 bytes.
struct Put;

impl Evaluator for Put {
    fn evaluate(&self, _: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        txn.put(command.clone(), Bytes::from_static(&[7; 128]));
        Bytes::new()
    }

    fn split_key(&self, _: &[u8], _: &[u8], near: &[u8]) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(near))
    }
}

#[derive(Default)]
struct Replies(AtomicU64);

impl ReplySink for Replies {
    fn complete(&self, _: u64, response: Response) {
        response.expect("nothing goes wrong here");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Cluster {
    workers: Vec<(Worker, Vec<Event>)>,
    replies: Arc<Replies>,
    now: Now,
}

fn key(range: u64, word: &str) -> Bytes {
    format!("{range:06}{word}").into()
}

fn descriptor(range: u64, ranges: u64) -> RangeDescriptor {
    let replica = |i| Replica {
        id: ReplicaId(range * 10 + i),
        store: StoreId(i),
        role: ReplicaRole::Voter,
    };
    RangeDescriptor {
        id: RangeId(range + 2),
        start: key(range, ""),
        end: match range + 1 == ranges {
            true => Bytes::new(),
            false => key(range + 1, ""),
        },
        epoch: Epoch {
            conf_version: 1,
            version: 1,
        },
        replicas: (1..=STORES).map(replica).collect(),
    }
}

impl Cluster {
    fn new(ranges: u64) -> Self {
        let now = Now {
            mono_ns: 1_000_000_000,
            wall_ms: 1_000_000,
        };
        let workers = (1..=STORES).map(|store| {
            let engine: Arc<dyn StateEngine> = Arc::new(MemEngine::new());
            let disk = SegmentedLog::open(SimDisk::new(), LogConfig::default());
            let (log, recovered) = disk.expect("an empty disk");
            let model: Arc<dyn Evaluator> = Arc::new(Put);
            let worker = Worker::recover(
                Config::new(StoreId(store), store),
                Box::new(|_| 20),
                engine,
                Box::new(log),
                recovered,
                Arc::default(),
                Evaluators::new([(EvaluatorId::REDIS, model)]),
                now,
            );
            (worker.expect("nothing to recover"), Vec::new())
        });
        let mut cluster = Cluster {
            workers: workers.collect(),
            replies: Arc::default(),
            now,
        };
        let all: Vec<_> = (0..ranges).map(|range| descriptor(range, ranges)).collect();
        for (worker, _) in &mut cluster.workers {
            worker.handle(now, Event::Initialise(all.clone()));
        }
        for d in &all {
            let leader = (d.id.0 % STORES) as usize;
            let (worker, _) = &mut cluster.workers[leader];
            worker.with_replica(now, d.id, |r, _| r.campaign(now));
            worker.handle(now, Event::DiskFull(false));
            while cluster.round() {}
        }
        cluster
    }

    /// A round of each store; returns whether there was anything to do.
    fn round(&mut self) -> bool {
        self.now.mono_ns += 100_000;
        let mut busy = false;
        for store in 0..self.workers.len() {
            let (worker, inbox) = &mut self.workers[store];
            busy |= worker.has_work() || !inbox.is_empty();
            for event in inbox.drain(..) {
                worker.handle(self.now, event);
            }
            let mut outbox = Outbox::default();
            if worker.begin_round(self.now, &mut outbox) {
                worker.sync(self.now);
            }
            worker.finish_round(self.now, &mut outbox);
            for to in 0..self.workers.len() {
                let is_to = |e: &&(StoreId, Envelope)| e.0 .0 == to as u64 + 1;
                let envelopes: Vec<_> = outbox.envelopes.iter().filter(is_to).collect();
                if !envelopes.is_empty() {
                    self.workers[to].1.push(Event::Raft {
                        from: StoreId(store as u64 + 1),
                        envelopes: wire::encode(envelopes.iter().map(|(_, e)| e)),
                    });
                }
            }
        }
        busy
    }

    #[inline(never)]
    fn drive(&mut self, ranges: u64, writes: u64, company: u64) {
        let mut asked = 0;
        while asked < writes {
            for _ in 0..company.min(writes - asked) {
                // Not in their order, so that a batch touches ranges that lie apart.
                let range = asked.wrapping_mul(7919) % ranges;
                let request = Request {
                    range: RangeId(range + 2),
                    version: 1,
                    term: 0,
                    mark: Mark::NONE,
                    body: Body::Command {
                        evaluator: EvaluatorId::REDIS,
                        read_only: false,
                        command: key(range, &format!("{:09}", asked % 100_000)),
                    },
                };
                let leader = ((range + 2) % STORES) as usize;
                self.workers[leader].1.push(Event::Request {
                    request,
                    sink: self.replies.clone(),
                    token: asked,
                    arrived_ns: 0,
                });
                asked += 1;
            }
            self.round();
        }
        while self.round() {}
    }
}

fn main() {
    let number = |n| {
        let word = std::env::args().nth(n);
        let number = word.and_then(|word| word.parse::<u64>().ok());
        number.filter(|n| *n > 0).unwrap_or_else(|| {
            eprintln!("usage: round_cost RANGES WRITES COMPANY");
            std::process::exit(2)
        })
    };
    let (ranges, writes, company) = (number(1), number(2), number(3));
    let mut cluster = Cluster::new(ranges);
    let began = std::time::Instant::now();
    cluster.drive(ranges, writes, company);
    let took = began.elapsed();
    assert_eq!(cluster.replies.0.load(Ordering::Relaxed), writes);
    println!(
        "{writes} writes over {ranges} ranges, {company} at a time: {:.2} µs each",
        took.as_secs_f64() * 1e6 / writes as f64
    );
}
