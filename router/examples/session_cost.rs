//! What a command costs from its bytes to those of its reply, without sockets, threads, Raft and disk:
//! parser, session, dispatcher, and the Redis model over a map in memory.
//!
//! `session_cost COMMAND COUNT PIPELINE`, where `COMMAND` is `get`, `set`, `hget` or `ping`, does it
//! `COUNT` times. To count instructions:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*drive*' target/release/examples/session_cost get 20000 1
//! ```

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use rangekv_model::eval::{Context, Evaluator, Txn, SEED_STEP};
use rangekv_model::redis::RedisModel;
use rangekv_proto::*;
use rangekv_router::cache::SharedCache;
use rangekv_router::resp::{Limits, Parser};
use rangekv_router::session::{Door, HangUp, Node, Session};
use rangekv_router::stores::Stores;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys, so that each is met several times.
const KEYS: u64 = 100;

/// The only store of a cluster of one range, which has no log: a write counts when it is evaluated.
struct Store {
    range: RangeDescriptor,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Bytes, Bytes>,
    evaluations: u64,
    responses: Vec<(u64, Response)>,
}

impl State {
    fn evaluate(&mut self, range: &RangeDescriptor, command: &Bytes) -> Bytes {
        self.evaluations += 1;
        let context = Context {
            now_ms: 1_700_000_000_000,
            seed: self.evaluations.wrapping_mul(SEED_STEP),
            start: &range.start,
            end: &range.end,
        };
        let mut txn = Txn::new(&self.records);
        let reply = RedisModel.evaluate(&context, command, &mut txn);
        for (key, record) in txn.into_writes() {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        reply
    }
}

impl Stores for Store {
    fn local(&self) -> StoreId {
        StoreId(1)
    }

    fn send(&self, _: StoreId, request: Request, _: &Arc<dyn ReplySink>, token: u64) {
        let Body::Command { command, .. } = &request.body else {
            unreachable!("nothing but commands");
        };
        let mut state = self.state.lock();
        let reply = state.evaluate(&self.range, command);
        state.responses.push((token, Ok(reply)));
    }

    fn read_local(&self, _: RangeId, _: u64, _: EvaluatorId, command: &Bytes) -> Option<Bytes> {
        Some(self.state.lock().evaluate(&self.range, command))
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        Vec::new()
    }
}

struct Nobody;

impl ReplySink for Nobody {
    fn complete(&self, _: u64, _: Response) {}
}

impl HangUp for Nobody {
    fn hang_up(&self) {}
    fn finish(&self) {}
    fn wake(&self) {}
}

impl Node for Nobody {
    fn unix_micros(&self) -> u64 {
        1_700_000_000_000_000
    }
    fn info(&self, _: &str, _: &mut Vec<(String, String)>) {}
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// What is measured.
#[inline(never)]
fn drive(session: &mut Session, store: &Store, batches: &[Vec<u8>]) -> usize {
    turns(session, store, batches)
}

/// As a connection's turns do, a batch of commands each.
#[inline(never)]
fn turns(session: &mut Session, store: &Store, batches: &[Vec<u8>]) -> usize {
    let mut parser = Parser::new(Limits::default());
    let (mut buffer, mut args) = (BytesMut::new(), Vec::new());
    let mut replied = 0;
    for (batch, turn) in batches.iter().zip(1u64..) {
        session.begin_turn(turn * 1000);
        buffer.extend_from_slice(batch);
        while let Ok(true) = parser.next(&mut buffer, &mut args) {
            session.execute(&mut args, turn, store);
        }
        session.pump(turn, store);
        session.end_turn(|| turn * 1000 + 500);
        let responses = std::mem::take(&mut store.state.lock().responses);
        if !responses.is_empty() {
            session.begin_turn(turn * 1000 + 600);
            for (token, response) in responses {
                session.on_response(token, response, turn, store);
            }
            session.pump(turn, store);
            session.end_turn(|| turn * 1000 + 700);
        }
        let replies = session.replies();
        replied += replies.len();
        replies.advance(replies.len());
    }
    replied
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, command, count, pipeline] = &args[..] else {
        panic!("session_cost get|set|hget|ping COUNT PIPELINE");
    };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (count, pipeline) = (number(count), number(pipeline).max(1));
    let range = RangeDescriptor {
        id: RangeId(2),
        start: Bytes::from_static(&[0x20]),
        end: Bytes::new(),
        epoch: Epoch {
            conf_version: 1,
            version: 1,
        },
        replicas: vec![Replica {
            id: ReplicaId(1),
            store: StoreId(1),
            role: ReplicaRole::Voter,
        }],
    };
    let cache = Arc::new(SharedCache::new());
    let leader = LeaderHint {
        store: StoreId(1),
        term: 6,
    };
    cache.apply_routes([(range.clone(), Some(leader))]);
    let store = Store {
        range,
        state: Mutex::default(),
    };
    let door = Arc::new(Door::new(Default::default(), cache, Arc::new(Nobody)));
    let (from, to) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    let client = door.clients.open(from, to, Arc::new(Nobody), 0, 100);
    let client = client.expect("room for one");
    let mut session = Session::new(door, client, Arc::new(Nobody), 1);

    let value = "x".repeat(128);
    let words = |n: u64| {
        let key = format!("key:{:012}", n % KEYS);
        match command.as_str() {
            "get" => request(&["GET", &key]),
            "set" => request(&["SET", &key, &value]),
            "hget" => request(&["HGET", "hash", &key]),
            "ping" => request(&["PING"]),
            other => panic!("{other:?} is no command to be measured"),
        }
    };
    let fill = |n: u64| {
        let key = format!("key:{n:012}");
        [
            request(&["SET", &key, &value]),
            request(&["HSET", "hash", &key, &value]),
        ]
        .concat()
    };
    let filling: Vec<Vec<u8>> = (0..KEYS).map(fill).collect();
    let batches: Vec<Vec<u8>> = (0..count / pipeline)
        .map(|batch| {
            (0..pipeline)
                .flat_map(|n| words(batch * pipeline + n))
                .collect()
        })
        .collect();
    turns(&mut session, &store, &filling);
    let replied = drive(&mut session, &store, &batches);
    println!("{replied} bytes of replies");
}
