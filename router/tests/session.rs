//! A connection against a cluster whose ranges split, merge, move and change leaders, with
//! stores that are busy, lose answers or never give them.

mod common;

use bytes::Bytes;
use common::{Faults, Rng, World};
use std::collections::BTreeMap;

fn text(reply: &Bytes) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

/// What became of the appends to a key, in the order in which they were typed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Done,
    NotDone,
    Unknown,
}

/// Checks that `value` is what appends of these fates may have made, in their order.
fn check_value(seed: u64, key: &str, value: &str, history: &[(u64, Fate)]) {
    let mut seen = value
        .split_terminator(';')
        .map(|n| n.parse::<u64>().unwrap())
        .peekable();
    for (number, fate) in history {
        let there = seen.next_if_eq(number).is_some();
        match fate {
            Fate::Done => assert!(
                there,
                "seed {seed}: {key} lost {number}: {value} {history:?}"
            ),
            Fate::NotDone => assert!(!there, "seed {seed}: {key} has {number}, which was refused"),
            Fate::Unknown => {}
        }
    }
    let rest: Vec<u64> = seen.collect();
    assert!(
        rest.is_empty(),
        "seed {seed}: {key} = {value}: {rest:?} out of order in {history:?}"
    );
}

fn fate(reply: &str) -> Fate {
    match reply {
        r if r.starts_with(':') => Fate::Done,
        r if r.starts_with("-UNKNOWN ") => Fate::Unknown,
        r if r.starts_with("-CLUSTERDOWN ") || r.starts_with("-TRYAGAIN ") => Fate::NotDone,
        other => panic!("{other}"),
    }
}

fn value_of(reply: &Bytes) -> Option<String> {
    let bulk = rangekv_router::reply::bulk(reply)?;
    Some(bulk.map(|b| text(&b)).unwrap_or_default())
}

fn pipelines(seed: u64, faults: Faults) -> (u64, u64) {
    let mut rng = Rng::new(seed ^ 0xabcd);
    let mut world = World::new(seed, 5, faults);
    let keys: Vec<String> = (0..8).map(|n| format!("key{n}")).collect();
    let mut histories: BTreeMap<String, Vec<(u64, Fate)>> = BTreeMap::new();
    let mut number = 0;
    let (mut done, mut all) = (0, 0);
    for _ in 0..40 {
        let mut typed: Vec<(String, u64, Vec<String>)> = Vec::new();
        for _ in 0..rng.below(30) + 1 {
            let key = keys[rng.below(8) as usize].clone();
            match rng.below(10) {
                0..=4 => {
                    number += 1;
                    world.send(&format!("APPEND {key} {number};"));
                    typed.push(("append".into(), number, vec![key]));
                }
                5..=7 => {
                    world.send(&format!("GET {key}"));
                    typed.push(("get".into(), 0, vec![key]));
                }
                8 => {
                    let some: Vec<String> = keys[..rng.below(8) as usize + 1].to_vec();
                    world.send(&format!("MGET {}", some.join(" ")));
                    typed.push(("mget".into(), 0, some));
                }
                _ => {
                    world.send("PING");
                    typed.push(("ping".into(), 0, Vec::new()));
                }
            }
            if rng.chance(200) {
                world.step();
            }
        }
        let mut replies = world.replies();
        world.settle();
        replies.extend(world.replies());
        assert_eq!(
            replies.len(),
            typed.len(),
            "seed {seed}: one reply per command"
        );
        for ((command, number, keys), reply) in typed.iter().zip(&replies) {
            let line = text(reply);
            match command.as_str() {
                "ping" => assert_eq!(line, "+PONG\r\n", "seed {seed}"),
                "append" => {
                    if std::env::var("RANGEKV_ROUTER_TRACE").is_ok() && !line.starts_with(':') {
                        eprintln!("{line}");
                    }
                    let fate = fate(&line);
                    all += 1;
                    done += u64::from(fate == Fate::Done);
                    histories
                        .entry(keys[0].clone())
                        .or_default()
                        .push((*number, fate));
                }
                "get" => match value_of(reply) {
                    Some(value) => {
                        let history = histories.get(&keys[0]).map_or(&[][..], |h| &h[..]);
                        check_value(seed, &keys[0], &value, history);
                    }
                    None => assert_eq!(fate(&line), Fate::NotDone, "seed {seed}: {line}"),
                },
                _ => match rangekv_router::reply::array(reply) {
                    Some(values) => {
                        for (key, value) in keys.iter().zip(values) {
                            let history = histories.get(key).map_or(&[][..], |h| &h[..]);
                            check_value(seed, key, &value_of(&value).unwrap(), history);
                        }
                    }
                    None => assert_eq!(fate(&line), Fate::NotDone, "seed {seed}: {line}"),
                },
            }
        }
    }
    (done, all)
}

fn seeds() -> u64 {
    std::env::var("RANGEKV_ROUTER_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60)
}

#[test]
fn without_faults_everything_is_done() {
    let (done, all) = pipelines(1, Faults::default());
    assert_eq!(done, all);
}

#[test]
fn leaders_and_bounds_that_change_lose_nothing() {
    let faults = Faults {
        transfer: 10,
        split: 20,
        merge: 15,
        moves: 10,
        no_leader: 100,
        ..Faults::default()
    };
    for seed in 0..seeds() {
        let (done, all) = pipelines(seed, faults);
        // A leader that is not ready yet for the first of two requests may be for the second.
        assert!(
            done + all / 20 >= all,
            "seed {seed}: {done} of {all}; only delays were injected"
        );
    }
}

#[test]
fn under_all_faults_order_and_outcomes_hold() {
    let faults = Faults {
        busy: 20,
        lost: 10,
        hang: 2,
        transfer: 10,
        split: 20,
        merge: 15,
        moves: 10,
        no_leader: 100,
    };
    let (mut done, mut all) = (0, 0);
    for seed in 0..seeds() {
        let (d, a) = pipelines(seed, faults);
        done += d;
        all += a;
    }
    assert!(done * 10 > all * 6, "{done} of {all} appends done");
}

#[test]
fn keyspace_commands_are_complete_while_ranges_change() {
    let faults = Faults {
        transfer: 10,
        split: 40,
        merge: 40,
        moves: 10,
        no_leader: 100,
        busy: 3,
        ..Faults::default()
    };
    for seed in 0..seeds() / 2 {
        let mut world = World::new(seed, 5, faults);
        let keys: Vec<String> = (0..300).map(|n| format!("k:{n}")).collect();
        for key in &keys {
            let done = (0..20).any(|_| world.ask(&format!("SET {key} v")) == "+OK\r\n");
            assert!(done, "seed {seed}: SET {key} was refused 20 times");
        }
        world.ask("SELECT 3");
        assert_eq!(world.ask("SET other 1"), "+OK\r\n");
        world.ask("SELECT 0");
        assert_eq!(world.ask("DBSIZE"), ":300\r\n", "seed {seed}");
        let expires = |world: &mut World| world.ask("EXPIRE k:0 1000") == ":1\r\n";
        assert!((0..20).any(|_| expires(&mut world)), "seed {seed}");
        world.send("INFO keyspace");
        world.settle();
        let info = value_of(&world.replies()[0]).expect("a string");
        let lines: Vec<&str> = info.lines().collect();
        let first = "db0:keys=300,expires=1,avg_ttl=";
        assert!(lines[1].starts_with(first), "seed {seed}: {info}");
        assert_eq!(
            lines[2..],
            ["db3:keys=1,expires=0,avg_ttl=0"],
            "seed {seed}"
        );
        world.send("KEYS *");
        world.settle();
        let replies = world.replies();
        let mut found: Vec<String> = rangekv_router::reply::array(&replies[0])
            .unwrap()
            .iter()
            .map(|k| value_of(k).unwrap())
            .collect();
        found.sort();
        let mut expected = keys.clone();
        expected.sort();
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(scan(&mut world, "COUNT 20", 0), expected, "seed {seed}");
        assert!(world.ask("RANDOMKEY").contains("k:"), "seed {seed}");
        // Pipelined: what is written before is gone, what is written after stays.
        for command in ["SET k:x 1", "FLUSHDB", "SET k:y 1", "DBSIZE", "PING"] {
            world.send(command);
        }
        world.settle();
        let replies: Vec<String> = world.replies().iter().map(text).collect();
        assert_eq!(
            replies[1..],
            ["+OK\r\n", "+OK\r\n", ":1\r\n", "+PONG\r\n"],
            "seed {seed}"
        );
        world.ask("SELECT 3");
        assert_eq!(world.ask("DBSIZE"), ":1\r\n", "seed {seed}");
        assert_eq!(world.ask("FLUSHALL"), "+OK\r\n");
        assert_eq!(world.ask("RANDOMKEY"), "$-1\r\n");
    }
}

/// Scans to the end; the keys found, sorted. Deletes and adds `churn` other keys meanwhile.
fn scan(world: &mut World, options: &str, churn: u64) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut found = Vec::new();
    for call in 0.. {
        assert!(call < 100_000, "the scan does not end");
        world.send(&format!("SCAN {cursor} {options}"));
        world.settle();
        let replies = world.replies();
        let parts = rangekv_router::reply::array(&replies[0]).unwrap_or_else(|| {
            panic!("{}", text(&replies[0]));
        });
        cursor = value_of(&parts[0]).unwrap();
        for key in rangekv_router::reply::array(&parts[1]).unwrap() {
            found.push(value_of(&key).unwrap());
        }
        for n in 0..churn {
            world.ask(&format!("SET churn{n}:{call} 1"));
            world.ask(&format!("DEL churn{n}:{}", call - 1));
        }
        if cursor == "0" {
            break;
        }
        assert!(cursor.parse::<i64>().unwrap() > 0);
    }
    found.retain(|key| !key.starts_with("churn"));
    found.sort();
    found
}

#[test]
fn a_scan_returns_what_stays_while_other_keys_come_and_go() {
    let mut world = World::new(7, 3, Faults::default());
    let mut expected: Vec<String> = (0..500).map(|n| format!("k:{n}")).collect();
    expected.sort();
    for key in &expected {
        world.ask(&format!("SET {key} v"));
    }
    assert_eq!(scan(&mut world, "COUNT 7", 2), expected);
    assert_eq!(scan(&mut world, "MATCH k:1?", 0).len(), 10);
    assert_eq!(scan(&mut world, "TYPE hash", 0).len(), 0);
    assert_eq!(scan(&mut world, "COUNT 100000 TYPE string", 0), expected);
}

#[test]
fn ranges_that_merge_between_two_pages_hide_no_key_and_repeat_none() {
    let mut world = World::new(17, 3, Faults::default());
    let slots = [2000u16, 5000, 8000, 11000, 14000];
    for slot in slots {
        world
            .fake
            .split_at(&rangekv_model::redis::keys::slot_start(slot));
    }
    let mut expected: Vec<String> = (0..300).map(|n| format!("k:{n}")).collect();
    expected.sort();
    for key in &expected {
        assert_eq!(world.ask(&format!("SET {key} v")), "+OK\r\n");
    }
    let (mut cursor, mut found) = (String::from("0"), Vec::new());
    for call in 0.. {
        world.send(&format!("SCAN {cursor} COUNT 5"));
        // In the middle of a page, and then between two.
        if call % 3 == 0 && world.fake.ranges() > 1 {
            world.fake.merge(call / 3 % (world.fake.ranges() - 1));
        }
        world.settle();
        let replies = world.replies();
        let parts = rangekv_router::reply::array(&replies[0])
            .unwrap_or_else(|| panic!("{}", text(&replies[0])));
        cursor = value_of(&parts[0]).unwrap();
        for key in rangekv_router::reply::array(&parts[1]).unwrap() {
            found.push(value_of(&key).unwrap());
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(world.fake.ranges(), 1);
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn commands_over_ranges_that_have_merged_meanwhile_count_each_key_once() {
    let mut world = World::new(18, 3, Faults::default());
    for slot in [3000u16, 8000, 12000] {
        world
            .fake
            .split_at(&rangekv_model::redis::keys::slot_start(slot));
    }
    for key in ["a", "b", "c", "d"] {
        assert_eq!(world.ask(&format!("SET {key} {key}")), "+OK\r\n");
    }
    let values = "*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n";
    for _ in 0..3 {
        // The connection routes by the ranges that were.
        world.fake.merge(0);
        assert_eq!(world.ask("MGET a b c d"), values);
        world.ask("GET d");
    }
    assert_eq!(world.fake.ranges(), 1);
    assert_eq!(world.ask("DBSIZE"), ":4\r\n");
    assert_eq!(world.ask("EXISTS a b c d a"), ":5\r\n");
    assert_eq!(world.ask("DEL a b c d"), ":4\r\n");
}

#[test]
fn a_scan_pages_through_a_huge_slot_by_hash() {
    let mut world = World::new(8, 3, Faults::default());
    let mut expected: Vec<String> = (0..10_000).map(|n| format!("{{t}}:{n}")).collect();
    expected.extend(["a".to_owned(), "b".to_owned()]);
    expected.sort();
    for chunk in expected.chunks(500) {
        for key in chunk {
            world.send(&format!("SET {key} v"));
        }
        world.settle();
    }
    world.replies();
    // A cut inside the slot: a page of the slot then comes from two ranges.
    world
        .fake
        .split_at(&rangekv_model::redis::keys::record_key(0, b"{t}:5"));
    assert_eq!(scan(&mut world, "COUNT 10", 1), expected);
}

#[test]
fn commands_over_several_ranges_are_cut_and_merged() {
    let mut world = World::new(9, 3, Faults::default());
    for slot in [3000u16, 8000, 12000] {
        world
            .fake
            .split_at(&rangekv_model::redis::keys::slot_start(slot));
    }
    world.fake.transfer(1, 2);
    assert_eq!(world.fake.ranges(), 4);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(world.ask(&format!("SET {key} {key}{key}")), "+OK\r\n");
    }
    let values = "*5\r\n$2\r\ncc\r\n$2\r\naa\r\n$-1\r\n$2\r\nbb\r\n$2\r\naa\r\n";
    assert_eq!(world.ask("MGET c a none b a"), values);
    assert_eq!(world.ask("EXISTS a b c d a none"), ":5\r\n");
    assert_eq!(world.ask("LCS a b"), "$0\r\n\r\n");
    assert_eq!(world.ask("LCS a c LEN"), ":0\r\n");
    assert_eq!(world.ask("DEL a b none"), ":2\r\n");
    assert_eq!(world.ask("DBSIZE"), ":2\r\n");
    assert!(world
        .ask("MSET a 1 b 2")
        .starts_with("-CROSSSLOT Keys of 'mset' lie in different"));
    assert!(world
        .ask("RENAME c a")
        .starts_with("-CROSSSLOT Keys of 'rename'"));
    assert_eq!(world.ask("MSET {x}a 1 {x}b 2"), "+OK\r\n");
    assert_eq!(world.ask("MGET {x}a {x}b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

#[test]
fn keys_that_follow_their_number_route_a_command() {
    let mut world = World::new(11, 3, Faults::default());
    for slot in [3000u16, 8000, 12000] {
        world
            .fake
            .split_at(&rangekv_model::redis::keys::slot_start(slot));
    }
    for key in ["a", "b", "c", "d"] {
        let stored = world.ask(&format!("ZADD {{{key}}}z 1 m"));
        assert_eq!(stored, ":1\r\n", "{key}");
        // One key: wherever it lies.
        let union = world.ask(&format!("ZUNION 1 {{{key}}}z"));
        assert_eq!(union, "*1\r\n$1\r\nm\r\n", "{key}");
        let both = world.ask(&format!(
            "ZUNIONSTORE {{{key}}}u 2 {{{key}}}z {{{key}}}none"
        ));
        assert_eq!(both, ":1\r\n", "{key}");
    }
    for (command, name) in [
        ("ZUNIONSTORE {a}u 1 {b}z", "zunionstore"),
        ("SINTERSTORE {a}s {b}s", "sinterstore"),
        ("PFMERGE {a}p {b}p", "pfmerge"),
        ("SORT {a}z STORE {b}l", "sort"),
    ] {
        let refused = world.ask(command);
        let expected = format!("-CROSSSLOT Keys of '{name}' lie in different ranges");
        assert!(refused.starts_with(&expected), "{command}: {refused}");
    }
    assert!(world
        .ask("ZUNION x {a}z")
        .starts_with("-ERR value is not an integer"));
    assert!(world.ask("LMPOP 0 {a}z LEFT").starts_with("-ERR numkeys"));
}

#[test]
fn sets_in_several_ranges_are_read_together() {
    let mut apart = World::new(12, 3, Faults::default());
    let mut together = World::new(12, 3, Faults::default());
    let all = [
        "SADD a 1 2 3",
        "SADD b 2 3 4",
        "SADD c 3",
        "ZADD d 1 2 2 3 3 5",
        "ZADD e 0.5 3 9 x",
        "PFADD f a b c",
        "PFADD g c d",
        "SET h x",
        "SINTER a b c",
        "SUNION c a none b",
        "SDIFF b c",
        "SINTERCARD 3 a b c LIMIT 5",
        "SINTER a h",
        "SUNION a d",
        "ZUNION 3 d e a WEIGHTS 1 2 3 WITHSCORES",
        "ZINTER 2 d e AGGREGATE MAX WITHSCORES",
        "ZDIFF 2 d e",
        "ZINTERCARD 2 d e",
        "ZUNION 2 d h",
        "ZUNION 2 d e FOO",
        "ZUNION x d e",
        "PFCOUNT f g none",
        "PFCOUNT f a",
        "HELLO 3",
        "SUNION a b",
        "ZUNION 2 d e WITHSCORES",
    ];
    for slot in (1000..16000).step_by(1500) {
        let cut = rangekv_model::redis::keys::slot_start(slot);
        apart.fake.split_at(&cut);
    }
    apart.fake.transfer(3, 2);
    assert!(apart.fake.ranges() > 8);
    for command in all {
        assert_eq!(apart.ask(command), together.ask(command), "{command}");
    }
}

#[test]
fn without_a_leader_commands_fail_in_time_and_work_again_after() {
    let mut world = World::new(10, 3, Faults::default());
    assert_eq!(world.ask("SET k v"), "+OK\r\n");
    world.fake.set_down(true);
    let failing = [
        "SET k w",
        "GET k",
        "MGET k j",
        "DBSIZE",
        "FLUSHALL",
        "INFO keyspace",
    ];
    for command in failing.into_iter().chain(["INFO", "PING"]) {
        world.send(command);
    }
    let took = world.settle();
    let replies: Vec<String> = world.replies().iter().map(text).collect();
    for reply in &replies[..6] {
        assert!(reply.starts_with("-CLUSTERDOWN "), "{reply}");
    }
    // Clients ask for it when they connect: it says what it can, and soon.
    assert!(replies[6].ends_with("# Keyspace\r\n\r\n"), "{}", replies[6]);
    assert_eq!(replies[7], "+PONG\r\n");
    assert!((4_000..=20_700).contains(&took), "{took} ms");
    world.send("SET k w");
    assert!(world.settle() <= 5_000);
    world.replies();
    world.send("SET k x");
    for _ in 0..1_000 {
        world.step();
    }
    world.fake.set_down(false);
    assert!(world.settle() <= 300);
    assert_eq!(text(&world.replies()[0]), "+OK\r\n");
    assert_eq!(world.ask("GET k"), "$1\r\nx\r\n");
}

#[test]
fn reads_are_local_unless_something_is_under_way() {
    let mut world = World::new(11, 3, Faults::default());
    world.ask("SET k v");
    for _ in 0..10 {
        assert_eq!(world.ask("GET k"), "$1\r\nv\r\n");
    }
    assert_eq!(world.fake.local_reads(), 10);
    world.send("SET k w");
    world.send("GET k");
    world.settle();
    assert_eq!(text(&world.replies()[1]), "$1\r\nw\r\n");
    assert_eq!(world.fake.local_reads(), 10);
}

#[test]
fn connection_commands_answer_as_redis_does() {
    let mut world = World::new(12, 3, Faults::default());
    for (command, expected) in [
        ("PING", "+PONG\r\n"),
        ("ping hi", "$2\r\nhi\r\n"),
        (
            "PING a b",
            "-ERR wrong number of arguments for 'ping' command\r\n",
        ),
        ("ECHO hi", "$2\r\nhi\r\n"),
        (
            "GET",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (
            "NOSUCH a b",
            "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n",
        ),
        (
            "\0KEYS x 1 y z",
            "-ERR unknown command '\0KEYS', with args beginning with: 'x' '1' 'y' 'z' \r\n",
        ),
        ("SELECT 16", "-ERR DB index is out of range\r\n"),
        (
            "SELECT x",
            "-ERR value is not an integer or out of range\r\n",
        ),
        ("SELECT 15", "+OK\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        (
            "HELLO x",
            "-ERR Protocol version is not an integer or out of range\r\n",
        ),
        (
            "HELLO 3 NOSUCH",
            "-ERR Syntax error in HELLO option 'NOSUCH'\r\n",
        ),
        ("AUTH default x", "+OK\r\n"),
        (
            "AUTH other x",
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        ),
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK\r\n"),
        ("CLIENT SETINFO x y", "-ERR Unrecognized option 'x'\r\n"),
        (
            "CLIENT NOSUCH",
            "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n",
        ),
        (
            "CLIENT SETNAME",
            "-ERR wrong number of arguments for 'client|setname' command\r\n",
        ),
        ("CLIENT KILL 1.1.1.1:1", "-ERR No such client\r\n"),
        ("CLUSTER KEYSLOT foo", ":12182\r\n"),
        (
            "CONFIG GET save appendonly",
            "*4\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$4\r\nsave\r\n$0\r\n\r\n",
        ),
        ("TIME", "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n"),
        ("SCAN x", "-ERR invalid cursor\r\n"),
        ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
        ("RESET", "+RESET\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
    ] {
        assert_eq!(world.ask(command), expected, "{command}");
    }
    let hello = world.ask("HELLO 3 SETNAME you");
    assert!(
        hello.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
        "{hello}"
    );
    assert_eq!(world.ask("GET none"), "_\r\n");
    let list = world.ask("CLIENT LIST");
    assert!(
        list.contains("id=1 addr=127.0.0.1:1 laddr=127.0.0.1:2 name=you"),
        "{list}"
    );
    let info = world.ask("INFO");
    assert!(info.contains("\r\nused_memory:1\r\n"), "{info}");
}

#[test]
fn settings_slow_commands_and_slots() {
    let mut world = World::new(12, 3, Faults::default());
    let failed = "-ERR CONFIG SET failed (possibly related to argument";
    for (command, expected) in [
        (
            "CONFIG GET maxclients",
            "*2\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n".to_owned(),
        ),
        (
            "CONFIG SET MaxClients 7 save x",
            format!("{failed} 'save') - can't set immutable config\r\n"),
        ),
        (
            "CONFIG SET maxclients 7 maxclients 8",
            format!("{failed} 'maxclients') - duplicate parameter\r\n"),
        ),
        (
            "CONFIG SET maxclients x",
            format!("{failed} 'maxclients') - argument couldn't be parsed into an integer\r\n"),
        ),
        (
            "CONFIG SET slowlog-max-len -1",
            format!(
                "{failed} 'slowlog-max-len') - argument must be between 0 and 100000 inclusive\r\n"
            ),
        ),
        (
            "CONFIG SET a b",
            "-ERR Unknown option or number of arguments for CONFIG SET - 'a'\r\n".to_owned(),
        ),
        (
            "CONFIG SET maxclients",
            "-ERR wrong number of arguments for 'config|set' command\r\n".to_owned(),
        ),
        (
            "CONFIG GET maxclients",
            "*2\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n".to_owned(),
        ),
        (
            "CONFIG SET appendonly yes slowlog-log-slower-than 0",
            "+OK\r\n".to_owned(),
        ),
        ("SLOWLOG RESET", "+OK\r\n".to_owned()),
        ("SLOWLOG LEN", ":1\r\n".to_owned()),
        ("SET {t}a 1", "+OK\r\n".to_owned()),
        ("SET {t}b 2", "+OK\r\n".to_owned()),
        (
            "CONFIG SET slowlog-log-slower-than -1",
            "+OK\r\n".to_owned(),
        ),
        ("SLOWLOG LEN", ":4\r\n".to_owned()),
        (
            "SLOWLOG GET x",
            "-ERR count should be greater than or equal to -1\r\n".to_owned(),
        ),
        (
            "CLUSTER COUNTKEYSINSLOT x",
            "-ERR value is not an integer or out of range\r\n".to_owned(),
        ),
        (
            "CLUSTER COUNTKEYSINSLOT 16384",
            "-ERR Invalid slot\r\n".to_owned(),
        ),
        (
            "CLUSTER GETKEYSINSLOT 1 -1",
            "-ERR Invalid slot or number of keys\r\n".to_owned(),
        ),
        (
            "CLUSTER ADDSLOTS 1",
            "-ERR slots are managed by the placement driver\r\n".to_owned(),
        ),
        (
            "CLUSTER MEET",
            "-ERR wrong number of arguments for 'cluster|meet' command\r\n".to_owned(),
        ),
        (
            "CLUSTER MEET h 0",
            "-ERR Invalid node address specified: h:0\r\n".to_owned(),
        ),
        (
            "CLUSTER NOSUCH",
            "-ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP.\r\n".to_owned(),
        ),
        ("WAIT 1 -1", "-ERR timeout is negative\r\n".to_owned()),
        ("WAIT 1 1", ":0\r\n".to_owned()),
        ("CLUSTER FAILOVER", "-ERR no cluster\r\n".to_owned()),
        ("LATENCY LATEST", "*0\r\n".to_owned()),
    ] {
        assert_eq!(world.ask(command), expected, "{command}");
    }
    let slot = rangekv_model::redis::keys::slot(b"t");
    assert_eq!(
        world.ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}")),
        ":2\r\n"
    );
    for (count, expected) in [(0, "*0\r\n"), (1, "*1\r\n$4\r\n{t}a\r\n")] {
        let command = format!("CLUSTER GETKEYSINSLOT {slot} {count}");
        assert_eq!(world.ask(&command), expected);
    }
    assert_eq!(
        world.ask(&format!("CLUSTER COUNTKEYSINSLOT {}", slot + 1)),
        ":0\r\n"
    );
}

#[test]
fn sort_fetches_what_its_patterns_name_in_other_ranges() {
    let faults = Faults {
        busy: 10,
        transfer: 10,
        split: 20,
        merge: 10,
        ..Faults::default()
    };
    for (seed, faults) in [(31, Faults::default()), (32, faults)] {
        let mut world = World::new(seed, 3, faults);
        for slot in [4000u16, 8000, 12000] {
            world
                .fake
                .split_at(&rangekv_model::redis::keys::slot_start(slot));
        }
        world.ask("RPUSH l 3 1 2 4");
        world.ask("SADD s 3 1 2 4");
        world.ask("ZADD z 9 3 8 1 7 2 6 4");
        for (key, weight) in [("w1", "30"), ("w2", "10"), ("w3", "20")] {
            world.ask(&format!("SET {key} {weight}"));
            world.ask(&format!("HSET h{key} f v{weight} g other"));
        }
        world.ask("SET hw4 no-hash");
        let bulks = |texts: &str| -> String {
            let texts: Vec<&str> = texts.split(' ').collect();
            let bulk = |text: &&str| match *text {
                "nil" => "$-1\r\n".to_owned(),
                text => format!("${}\r\n{text}\r\n", text.len()),
            };
            let all: String = texts.iter().map(bulk).collect();
            format!("*{}\r\n{all}", texts.len())
        };
        for _ in 0..20 {
            for (line, expected) in [
                ("SORT l BY w*", "4 2 3 1"),
                ("SORT_RO s BY w* DESC", "1 3 2 4"),
                ("SORT z BY w* LIMIT 1 2", "2 3"),
                ("SORT l BY w* GET # GET hw*->f", "4 nil 2 v10 3 v20 1 v30"),
                ("SORT z BY nosort GET w*", "nil 10 30 20"),
                (
                    "SORT_RO l BY hw*->f ALPHA DESC GET hw*->g",
                    "other other other nil",
                ),
                ("SORT l DESC GET none*", "nil nil nil nil"),
            ] {
                assert_eq!(world.ask(line), bulks(expected), "{line}");
            }
            let refused = world.ask("SORT l BY w* STORE l2");
            assert!(refused.starts_with("-CROSSSLOT"), "{refused}");
            let failed = world.ask("SORT l BY hw*->f");
            assert_eq!(
                failed,
                "-ERR One or more scores can't be converted into double\r\n"
            );
        }
        assert_eq!(world.ask("SORT none BY w*"), "*0\r\n");
        // In a pipeline: what was written before is seen, and replies come in their order.
        world.ask("SET w4 5");
        for line in [
            "SET w4 25",
            "SORT l BY w*",
            "SET w4 15",
            "SORT l BY w*",
            "GET w4",
        ] {
            world.send(line);
        }
        world.settle();
        let replies: Vec<String> = world.replies().iter().map(text).collect();
        assert_eq!(
            replies[1..4],
            [bulks("2 3 4 1"), "+OK\r\n".into(), bulks("2 4 3 1")]
        );
    }
}

#[test]
fn whatever_is_typed_has_one_reply() {
    let words = [
        "",
        "0",
        "1",
        "-1",
        "16",
        "9223372036854775807",
        "18446744073709551615",
        "k",
        "{t}k",
        "*",
        "COUNT",
        "MATCH",
        "TYPE",
        "string",
        "ID",
        "LIST",
        "SETNAME",
        "GET",
        "INFO",
        "AUTH",
        "3",
        "KEYSLOT",
        "DOCS",
        "GETKEYS",
        "EX",
        "PX",
        "NX",
        "KILL",
        "ADDR",
        "SKIPME",
        "no",
        "\u{0}x",
        "562949953421312",
        "281474976710657",
        "LEN",
        "IDX",
        "ASYNC",
        "DB",
    ];
    for seed in 0..seeds() {
        let mut rng = Rng::new(seed);
        let mut world = World::new(
            seed,
            3,
            Faults {
                split: 20,
                merge: 10,
                ..Faults::default()
            },
        );
        let mut typed = 0;
        for _ in 0..300 {
            let specs = rangekv_model::redis::spec::all();
            let mut command = match rng.below(20) {
                0 => ["CONFIG", "CLUSTER", "NOSUCH", "\u{0}KEYS"][rng.below(4) as usize].to_owned(),
                _ => specs[rng.below(specs.len() as u64) as usize]
                    .name
                    .to_owned(),
            };
            // Those answer once for each of their channels, or not.
            if command == "quit" || command.ends_with("subscribe") {
                continue;
            }
            // Mostly as many arguments as it takes, or one more.
            for _ in 0..rng.below(5) {
                command.push(' ');
                command.push_str(words[rng.below(words.len() as u64) as usize]);
            }
            world.send(&command);
            typed += 1;
            if rng.chance(100) {
                world.step();
            }
        }
        let mut replies = world.replies().len();
        world.settle();
        replies += world.replies().len();
        // A client that was told to kill itself is told nothing more.
        if !world.session.is_finished() {
            assert_eq!(replies, typed, "seed {seed}");
        }
    }
}
