//! Transactions against a real `redis-server`: the random commands of the model's own
//! differential test, on two connections, at random between `MULTI` and `EXEC` and below a
//! `WATCH`. Replies must be the same, byte for byte, in both protocol versions.
//!
//! `RANGEKV_SEED=n` replays one sequence, `RANGEKV_SEQUENCES=n` changes how many are run. One
//! that fails is shrunk before it is printed. Without a `redis-server` there is nothing to compare
//! with, and the test says so.
//!
//! Known differences, besides those of the model's test:
//! - A null where Redis executes, if a watched key was written with what it held before by a
//!   command that Redis finds to change nothing: such sequences end there, and are counted.
//! - `HELLO` and `CLIENT REPLY` are refused when they are to be queued, and so is what walks all
//!   keys. They are kept out.

#![allow(
    clippy::disallowed_methods,
    reason = "runs a real server, waits for it"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../model/tests/differential/compare.rs"]
mod compare;
#[path = "../../../model/tests/differential/grammar.rs"]
mod grammar;
#[path = "../../../model/tests/differential/reply.rs"]
#[allow(dead_code, reason = "used in part")]
mod reply;
#[path = "../../../model/tests/differential/server.rs"]
#[allow(dead_code, reason = "used in part")]
mod server;

use bytes::Bytes;
use common::{Faults, World};
use compare::{is_stale_error, same_but_for_zeros, same_reply, show, sorts};
use grammar::Rng;
use rangekv_model::redis::spec;
use rangekv_router::session::Session;
use server::Server;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

const STEPS: usize = 50;
const SEQUENCES: u64 = 2000;

/// Commands about connection and server, most of them wrong: their errors are Redis's, in its order.
#[rustfmt::skip]
const SERVER: &[&str] = &[
    "CLIENT",
    "CLIENT FOO",
    "CLIENT KILL",
    "CLIENT KILL ID",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID 99 TYPE",
    "CLIENT KILL FOO 1 ID 2",
    "CLIENT KILL SKIPME maybe ID 3",
    "CLIENT KILL USER x",
    "CLIENT KILL TYPE x",
    "CLIENT KILL ADDR 1.1.1.1:1",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE x",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 99",
    "CLIENT LIST FOO bar",
    "CLIENT PAUSE",
    "CLIENT PAUSE x",
    "CLIENT PAUSE -1",
    "CLIENT PAUSE 9223372036854775808",
    "CLIENT PAUSE 0 FOO",
    "CLIENT PAUSE 0 WRITE x",
    "CLIENT UNPAUSE",
    "CLIENT UNPAUSE x",
    "CLIENT REPLY",
    "CLIENT REPLY x",
    "CLIENT NO-EVICT",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT ON",
    "CLIENT NO-EVICT OFF",
    "CLIENT SETNAME",
    "CLIENT GETNAME x",
    "CLIENT UNBLOCK",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 1 x",
    "CLIENT UNBLOCK 1 ERROR",
    "CLIENT CACHING",
    "CLIENT CACHING x",
    "CLIENT CACHING YES",
    "CLIENT TRACKING",
    "CLIENT TRACKING x",
    "CLIENT TRACKING OFF",
    "CLIENT TRACKINGINFO x",
    "CLIENT GETREDIR",
    "CLIENT GETREDIR x",
    "CLIENT ID x",
    "CLIENT INFO x",
    "AUTH",
    "AUTH x",
    "AUTH a b",
    "AUTH a b c",
    "SELECT",
    "SELECT x",
    "SELECT 16",
    "SELECT -1",
    "SELECT 99999999999999999999",
    "SELECT 0 0",
    "PING a b",
    "ECHO",
    "ECHO a b",
    "RESET x",
    "CONFIG",
    "CONFIG FOO",
    "CONFIG GET",
    "CONFIG SET",
    "CONFIG SET maxmemory",
    "CONFIG SET foo bar",
    "CONFIG SET maxclients x",
    "CONFIG SET maxclients 0",
    "CONFIG SET maxclients 100 maxclients 200",
    "CONFIG SET slowlog-log-slower-than x",
    "CONFIG RESETSTAT x",
    "CONFIG REWRITE",
    "SLOWLOG",
    "SLOWLOG FOO",
    "SLOWLOG GET x",
    "SLOWLOG GET -2",
    "SLOWLOG GET 1 2",
    "SLOWLOG LEN x",
    "LATENCY",
    "LATENCY FOO",
    "LATENCY HISTORY",
    "LATENCY HISTORY foo",
    "LATENCY LATEST x",
    "LATENCY RESET",
    "LATENCY RESET foo",
    "COMMAND FOO",
    "COMMAND COUNT x",
    "COMMAND INFO foo",
    "COMMAND DOCS foo",
    "COMMAND GETKEYS",
    "COMMAND GETKEYS get",
    "COMMAND GETKEYS get a",
    "COMMAND GETKEYS get a b",
    "COMMAND GETKEYS foo a",
    "COMMAND GETKEYS ping",
    "COMMAND GETKEYS mset a b c d",
    "COMMAND GETKEYS zunionstore d 2 a b",
    "COMMAND GETKEYS zunionstore d 5 a b",
    "COMMAND GETKEYS sort a by b store c",
    "COMMAND LIST FILTERBY",
    "COMMAND LIST FILTERBY FOO x",
    "COMMAND LIST FILTERBY PATTERN hget",
    "COMMAND LIST FILTERBY MODULE x",
    "COMMAND LIST FOO",
    "MEMORY",
    "MEMORY FOO",
    "MEMORY USAGE",
    "MEMORY USAGE none",
    "MEMORY USAGE none FOO 1",
    "OBJECT",
    "OBJECT FOO",
    "OBJECT FOO x",
    "OBJECT ENCODING",
    "OBJECT ENCODING none",
    "OBJECT FREQ none",
    "OBJECT IDLETIME none",
    "OBJECT REFCOUNT none",
    "WAIT",
    "WAIT x 0",
    "WAIT 0 x",
    "WAIT 0 -1",
    "WAIT 0 0",
    "WAIT -1 0",
    "INFO foo",
    "DBSIZE x",
    "FLUSHDB FOO",
    "FLUSHALL ASYNC SYNC",
    "FLUSHALL SYNC",
    "RANDOMKEY",
    "RANDOMKEY x",
    "KEYS",
    "KEYS a b",
    "SCAN",
    "SCAN x",
    "SCAN 0 FOO",
    "SCAN 0 MATCH",
    "SCAN 0 COUNT x",
    "SCAN 0 COUNT 0",
    "SCAN 0 TYPE foo",
    "SCAN 0 TYPE",
    "SCAN 0 MATCH a COUNT 10 TYPE string",
    "TIME x",
    "PUBSUB",
    "PUBSUB FOO",
    "PUBSUB NUMPAT x",
    "HELLO 1",
    "HELLO 2 AUTH",
    "HELLO 2 AUTH a",
    "HELLO 2 SETNAME",
    "HELLO 2 FOO",
    "INFO keyspace",
    "SET counted x",
    "SELECT 7",
    "HSET counted f v g w",
    "INFO Keyspace foo",
    "FLUSHALL",
    "SELECT 0",
    "INFO keyspace",
];

/// A command, and which of the connections has it.
type Step = (usize, Vec<Bytes>);

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| word.to_owned().into()).collect()
}

/// The sequence of a seed.
fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed ^ 0x7a_5eed);
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        if rng.one_in(2) {
            let who = rng.below(2);
            steps.push((who, grammar::command(&mut rng, seed)));
            continue;
        }
        while rng.one_in(2) {
            let watched = grammar::command(&mut rng, seed);
            let keys = spec::lookup(&watched[0]).map(|spec| spec::keys(spec, &watched));
            let mut watch = words("WATCH");
            watch.extend(keys.into_iter().flatten().map(|at| watched[at].clone()));
            steps.push((0, watch));
            while rng.one_in(2) {
                let who = rng.below(2);
                steps.push((who, grammar::command(&mut rng, seed)));
            }
        }
        if rng.one_in(12) {
            steps.push((0, words("UNWATCH")));
        }
        steps.push((0, words("MULTI")));
        for _ in 0..rng.below(8) {
            let command = match rng.below(24) {
                0 => words(rng.pick(&["PING", "ECHO x", "PING a b", "SELECT 0", "SELECT 99"])),
                1 => words(rng.pick(&["SELECT 3", "UNWATCH", "CLIENT GETNAME", "TIME x"])),
                4 => words(rng.pick(&[
                    "PUBLISH a x",
                    "SPUBLISH a x",
                    "WAIT 0 0",
                    "WAIT 2 1",
                    "PUBSUB NUMPAT",
                ])),
                2 if rng.one_in(3) => words(rng.pick(&["MULTI", "WATCH a", "EXEC x", "DISCARD x"])),
                3 => {
                    steps.push((1, grammar::command(&mut rng, seed)));
                    continue;
                }
                _ => grammar::command(&mut rng, seed),
            };
            steps.push((0, command));
        }
        let end = rng.pick(&["EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "DISCARD", "RESET"]);
        steps.push((0, words(end)));
        if end == "RESET" {
            steps.push((
                0,
                words(if seed.is_multiple_of(2) {
                    "HELLO 2"
                } else {
                    "HELLO 3"
                }),
            ));
        }
    }
    steps
}

/// Two sessions of a cluster of one range.
struct Ours {
    world: World,
    other: Session,
}

impl Ours {
    fn new(protocol: &str, db: &str) -> Self {
        let world = World::new(1, 1, Faults::default());
        world.fake.set_clock(|_| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            since_epoch.as_millis() as u64
        });
        let other = common::session(&world.door, 2);
        let mut ours = Ours { world, other };
        for who in [0, 1] {
            ours.run(who, words(protocol));
            ours.run(who, words(db));
        }
        ours
    }

    fn run(&mut self, who: usize, mut args: Vec<Bytes>) -> Bytes {
        let world = &mut self.world;
        if who == 1 {
            std::mem::swap(&mut world.session, &mut self.other);
        }
        world.session.execute(&mut args, world.now, &*world.fake);
        world.settle();
        let reply = world.session.replies().split().freeze();
        if who == 1 {
            std::mem::swap(&mut world.session, &mut self.other);
        }
        reply
    }
}

fn theirs(server: &mut Server, who: usize, command: &[Bytes]) -> Bytes {
    if who == 1 {
        server.change_connection();
    }
    let reply = server.run(&[command.to_vec()]).remove(0);
    if who == 1 {
        server.change_connection();
    }
    reply
}

#[derive(Default)]
struct Counted {
    executed: u64,
    conflicts: u64,
    spurious: u64,
}

/// What differs, or nothing.
fn compare(
    server: &mut Server,
    seed: u64,
    steps: &[Step],
    counted: &mut Counted,
) -> Option<String> {
    let protocol = if seed.is_multiple_of(2) {
        "HELLO 2"
    } else {
        "HELLO 3"
    };
    let db = if seed.is_multiple_of(3) {
        "SELECT 3"
    } else {
        "SELECT 0"
    };
    for who in [0, 1] {
        for line in ["RESET", protocol, "FLUSHALL", db] {
            theirs(server, who, &words(line));
        }
    }
    let mut ours = Ours::new(protocol, db);
    let mut queued: Vec<Vec<Bytes>> = Vec::new();
    let sorted = sorts(steps.iter().map(|(_, command)| &command[..]));
    // What is there at the end.
    let keys: BTreeSet<&Bytes> = steps.iter().filter_map(|(_, args)| args.get(1)).collect();
    let left = keys.into_iter().flat_map(|key| {
        let dumps = [
            "TYPE",
            "GET",
            "HGETALL",
            "SMEMBERS",
            "LRANGE 0 -1",
            "ZRANGE 0 -1",
        ];
        dumps.map(|line| {
            let mut command = words(line);
            command.insert(1, key.clone());
            (1, command)
        })
    });
    for (index, (who, command)) in steps.iter().cloned().chain(left).enumerate() {
        let ours = ours.run(who, command.clone());
        let theirs = theirs(server, who, &command);
        let is = |name: &[u8]| command[0].eq_ignore_ascii_case(name);
        let transaction = who == 0 && is(b"EXEC");
        let same = match (transaction, elements(&ours), elements(&theirs)) {
            (true, Some(ours), Some(theirs)) => {
                counted.executed += 1;
                let pairs = queued.iter().zip(ours.iter().zip(&theirs));
                for (command, (ours, theirs)) in pairs.clone() {
                    if is_stale_error(command, ours, theirs) {
                        return None;
                    }
                }
                ours.len() == theirs.len()
                    && queued.len() == ours.len()
                    && pairs.into_iter().all(|(command, (ours, theirs))| {
                        same_reply(command, ours, theirs)
                            || sorted && same_but_for_zeros(command, ours, theirs)
                    })
            }
            (true, None, Some(_)) if is_null(&ours) => {
                counted.spurious += 1;
                return None;
            }
            _ if is_stale_error(&command, &ours, &theirs) => return None,
            // It tells versions and ids.
            _ if is(b"HELLO") => ours[..1] == theirs[..1],
            _ => {
                same_reply(&command, &ours, &theirs)
                    || sorted && same_but_for_zeros(&command, &ours, &theirs)
            }
        };
        if transaction && is_null(&theirs) {
            counted.conflicts += 1;
        }
        if !same {
            return Some(format!(
                "step {index}: {}\n  ours   {ours:?}\n  theirs {theirs:?}",
                show(&command)
            ));
        }
        if who == 0 {
            let ends = ["EXEC", "DISCARD", "RESET"];
            if ours[..] == b"+QUEUED\r\n"[..] {
                queued.push(command);
            } else if ends.iter().any(|name| is(name.as_bytes())) {
                queued.clear();
            }
        }
    }
    None
}

fn is_null(reply: &[u8]) -> bool {
    reply == b"*-1\r\n" || reply == b"_\r\n"
}

fn elements(reply: &Bytes) -> Option<Vec<Bytes>> {
    match is_null(reply) {
        true => None,
        false => rangekv_router::reply::array(reply),
    }
}

/// Removes ever smaller pieces while what is left still fails.
fn shrink(server: &mut Server, seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if compare(server, seed, &fewer, &mut Counted::default()).is_some() {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    steps
}

fn compare_server_commands(server: &mut Server) {
    for protocol in ["HELLO 2", "HELLO 3"] {
        theirs(server, 0, &words(protocol));
        let mut ours = Ours::new(protocol, "SELECT 0");
        let mut differences = Vec::new();
        for line in SERVER {
            let (ours, theirs) = (ours.run(0, words(line)), theirs(server, 0, &words(line)));
            if ours != theirs {
                differences.push(format!("{line}\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
        }
        let differences = differences.join("\n");
        assert!(differences.is_empty(), "{protocol}\n{differences}");
    }
}

#[test]
fn transactions_are_answered_as_redis_does() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(why) => {
            eprintln!("skipped: cannot start redis-server: {why}");
            return;
        }
    };
    compare_server_commands(&mut server);
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().expect("a number"))
    };
    let one = number("RANGEKV_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("RANGEKV_SEQUENCES").unwrap_or(SEQUENCES),
    };
    let mut counted = Counted::default();
    for seed in seeds.clone() {
        let all = steps(seed);
        if compare(&mut server, seed, &all, &mut counted).is_none() {
            continue;
        }
        let steps = shrink(&mut server, seed, all);
        let difference = compare(&mut server, seed, &steps, &mut Counted::default());
        let lines: Vec<String> = steps
            .iter()
            .map(|(who, command)| format!("{who}: {}", show(command)))
            .collect();
        panic!(
            "RANGEKV_SEED={seed}\n{}\n{}",
            lines.join("\n"),
            difference.unwrap_or("and not the same difference every time".to_owned())
        );
    }
    let Counted {
        executed,
        conflicts,
        spurious,
    } = counted;
    eprintln!("{executed} executed, {conflicts} conflicts, {spurious} that were none");
    assert!(
        one.is_some() || (executed > seeds.end / 2 && conflicts > seeds.end / 20),
        "{executed} executed, {conflicts} conflicts"
    );
    assert!(spurious <= seeds.end / 50, "{spurious} conflicts were none");
}
