//! What commands cost in collections of ten and of very many elements: counted as reads, scans,
//! records scanned, and records written, not timed. `RANGEKV_ELEMENTS=n` says how many.

use bytes::Bytes;
use rangekv_model::eval::{Context, Evaluator, Txn, View, Visitor};
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_model::redis::{keys, RedisModel};
use std::cell::Cell;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Cost {
    gets: u64,
    scans: u64,
    scanned: u64,
    written: u64,
}

#[derive(Default)]
struct Counting {
    records: BTreeMap<Bytes, Bytes>,
    cost: Cell<Cost>,
}

impl Counting {
    fn count(&self, change: impl FnOnce(&mut Cost)) {
        let mut cost = self.cost.get();
        change(&mut cost);
        self.cost.set(cost);
    }
}

impl View for Counting {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.count(|cost| cost.gets += 1);
        View::get(&self.records, key)
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.count(|cost| cost.scans += 1);
        self.records.scan(start, end, &mut |key, value| {
            self.count(|cost| cost.scanned += 1);
            visit(key, value)
        });
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.count(|cost| cost.scans += 1);
        self.records.scan_reverse(start, end, &mut |key, value| {
            self.count(|cost| cost.scanned += 1);
            visit(key, value)
        });
    }
}

#[derive(Default)]
struct Keyspace {
    view: Counting,
    seed: u64,
}

impl Keyspace {
    /// Runs a command; its reply, and what it cost.
    fn run(&mut self, args: &[Bytes]) -> (Bytes, Cost) {
        self.seed += 1;
        self.view.cost.set(Cost::default());
        let context = Context {
            now_ms: 1_000_000,
            seed: self.seed,
            start: &keys::slot_start(0),
            end: &keys::slot_start(keys::SLOTS),
        };
        let command = encode_command(Protocol::Resp2, 0, args);
        let mut txn = Txn::new(&self.view);
        let reply = RedisModel.evaluate(&context, &command, &mut txn);
        assert_ne!(reply[0], b'-', "{reply:?}");
        let writes = txn.into_writes();
        let mut cost = self.view.cost.get();
        cost.written = writes.len() as u64;
        for (key, record) in writes {
            match record {
                Some(record) => self.view.records.insert(key, record),
                None => self.view.records.remove(&key),
            };
        }
        (reply, cost)
    }

    fn cost(&mut self, line: &str) -> Cost {
        let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
        self.run(&args).1
    }

    /// Adds `size` elements by commands of many each.
    fn fill(&mut self, name: &str, size: usize, element: impl Fn(usize) -> Vec<String>) {
        const AT_ONCE: usize = 1000;
        for start in (0..size).step_by(AT_ONCE) {
            let mut args: Vec<Bytes> = name.split(' ').map(|arg| arg.to_owned().into()).collect();
            for n in start..size.min(start + AT_ONCE) {
                args.extend(element(n).into_iter().map(Bytes::from));
            }
            self.run(&args);
        }
    }
}

fn filled(size: usize) -> Keyspace {
    let mut keyspace = Keyspace::default();
    keyspace.fill("SADD set", size, |n| vec![format!("member:{n}")]);
    keyspace.fill("HSET hash", size, |n| {
        vec![format!("field:{n}"), "value".to_owned()]
    });
    // Scores in another order than they are added in.
    keyspace.fill("ZADD sorted", size, |n| {
        vec![(n * 7919 % size).to_string(), format!("member:{n}")]
    });
    keyspace.fill("RPUSH list", size, |n| vec![format!("element:{n}")]);
    keyspace
}

#[test]
fn many_elements_cost_what_ten_do() {
    let size = std::env::var("RANGEKV_ELEMENTS");
    let size: usize = size.map_or(100_000, |size| size.parse().expect("a number"));
    let (mut small, mut large) = (filled(10), filled(size));
    for line in [
        "SADD set new",
        "SREM set member:5",
        "SISMEMBER set member:7",
        "SCARD set",
        "SMOVE set other member:8",
        "HSET hash new value",
        "HSET hash field:3 changed",
        "HGET hash field:3",
        "HDEL hash field:4",
        "HINCRBY hash counter 1",
        "LPUSH list new",
        "RPUSH list new",
        "LPOP list",
        "RPOP list",
        "LINDEX list 5",
        "LINDEX list -2",
        "LSET list 5 changed",
        "LRANGE list 0 4",
        "LRANGE list -5 -1",
        "LTRIM list 1 -2",
        "LLEN list",
        "LMOVE list list LEFT RIGHT",
        "ZSCORE sorted member:3",
        "ZCARD sorted",
        "EXPIRE set 100",
        "TYPE set",
        "OBJECT ENCODING sorted",
        "DEL set",
    ] {
        assert_eq!(large.cost(line), small.cost(line), "{line}");
    }
    // Metadata that stays the same is not written.
    for (line, written) in [
        ("HSET hash field:9 other", 1),
        ("HINCRBY hash counter 1", 1),
        ("LSET list 7 other", 1),
        ("SADD hashset x", 2),
    ] {
        assert_eq!(large.cost(line).written, written, "{line}");
    }
    let middle = size / 2;
    // Bounds far above what is expected, and far below the size.
    for (line, reads_max, written_max) in [
        (format!("ZADD sorted {middle}.5 new"), 12, 8),
        ("ZINCRBY sorted 1000 member:77".to_owned(), 24, 14),
        ("ZREM sorted member:1234".to_owned(), 12, 8),
        ("ZRANK sorted member:4321".to_owned(), 1000, 0),
        (format!("ZRANGE sorted {middle} {}", middle + 9), 2500, 0),
        (format!("ZREVRANGE sorted {middle} {}", middle + 9), 2500, 0),
        (format!("ZCOUNT sorted 1000 {}", size - 1000), 2000, 0),
        ("ZRANGE sorted 0 9".to_owned(), 1500, 0),
        (
            format!("ZRANGEBYSCORE sorted {} +inf LIMIT {middle} 5", size / 4),
            3000,
            0,
        ),
        ("ZPOPMIN sorted".to_owned(), 12, 8),
        ("ZRANDMEMBER sorted".to_owned(), 20, 0),
        ("LTRIM list 10 -1000".to_owned(), 10, 1),
        ("LINSERT list BEFORE element:20 new".to_owned(), 40, 2),
        ("LREM list 1 element:21".to_owned(), 40, 2),
        // What is kept is written anew.
        ("ZREMRANGEBYRANK sorted 100 -101".to_owned(), 6000, 500),
        ("ZREMRANGEBYSCORE sorted -inf +inf".to_owned(), 500, 1),
        ("SET hash string".to_owned(), 1, 1),
    ] {
        let cost = large.cost(&line);
        let reads = cost.gets + cost.scans + cost.scanned;
        println!("{line}: {cost:?}");
        assert!(reads <= reads_max, "{line}: {cost:?}");
        assert!(cost.written <= written_max, "{line}: {cost:?}");
    }
}
