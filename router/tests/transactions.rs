//! `MULTI`, `EXEC` and `WATCH` at a session.

mod common;

use common::{Faults, World};

fn world() -> World {
    World::new(1, 3, Faults::default())
}

/// Asks all in turn; line ends are spaces.
fn ask(world: &mut World, commands: &[(&str, &str)]) {
    for (command, expected) in commands {
        let reply = world.ask(command).replace("\r\n", " ");
        assert_eq!(reply.trim_end(), *expected, "{command}");
    }
}

#[test]
fn queued_commands_are_executed_together() {
    let mut world = world();
    ask(
        &mut world,
        &[
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("INCR a", "+QUEUED"),
            ("LPUSH a x", "+QUEUED"),
            ("GET a", "+QUEUED"),
            (
                "EXEC",
                "*4 +OK :2 -WRONGTYPE Operation against a key holding the wrong kind of value \
                 $1 2",
            ),
            ("MULTI", "+OK"),
            ("DEL a", "+QUEUED"),
            ("DISCARD", "+OK"),
            ("MULTI", "+OK"),
            ("GET a", "+QUEUED"),
            ("EXEC", "*1 $1 2"),
            ("MULTI", "+OK"),
            ("EXEC", "*0"),
        ],
    );
    // Only reads: on this thread.
    assert!(world.fake.local_reads() >= 1);
}

#[test]
fn what_is_wrong_before_exec_discards_all() {
    let mut world = world();
    const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";
    for (command, error) in [
        (
            "NOSUCH x",
            "-ERR unknown command 'NOSUCH', with args beginning with: 'x'",
        ),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        (
            "DISCARD x",
            "-ERR wrong number of arguments for 'discard' command",
        ),
        (
            "KEYS *",
            "-ERR 'keys' walks all ranges, and can't be part of a transaction",
        ),
        (
            "FLUSHALL",
            "-ERR 'flushall' walks all ranges, and can't be part of a transaction",
        ),
        ("HELLO 3", "-ERR Command not allowed inside a transaction"),
        (
            "OBJECT FOO",
            "-ERR unknown subcommand 'FOO'. Try OBJECT HELP.",
        ),
    ] {
        ask(
            &mut world,
            &[
                ("MULTI", "+OK"),
                ("SET a 1", "+QUEUED"),
                (command, error),
                ("SET b 1", "+QUEUED"),
                ("EXEC", ABORTED),
                ("GET a", "$-1"),
            ],
        );
    }
    ask(
        &mut world,
        &[
            ("EXEC", "-ERR EXEC without MULTI"),
            ("DISCARD", "-ERR DISCARD without MULTI"),
            ("MULTI", "+OK"),
            ("MULTI", "-ERR MULTI calls can not be nested"),
            ("WATCH k", "-ERR WATCH inside MULTI is not allowed"),
            ("PING", "+QUEUED"),
            ("EXEC", "*1 +PONG"),
            ("MULTI", "+OK"),
            (
                "EXEC x",
                "-EXECABORT Transaction discarded because of: wrong number of arguments for \
                 'exec' command",
            ),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("RESET", "+RESET"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("GET a", "$-1"),
        ],
    );
}

#[test]
fn the_door_answers_in_its_places() {
    let mut world = world();
    for command in [
        "MULTI",
        "SET a 0",
        "PING",
        "SELECT 3",
        "SELECT 99",
        "SET a 3",
        "ECHO x",
        "UNWATCH",
        "CLIENT SETNAME n",
        "CONFIG GET save",
    ] {
        world.send(command);
    }
    // What stands behind it is on the database that it has chosen.
    world.send("EXEC");
    assert!(!world.session.accepts_more());
    world.settle();
    let replies = world.replies();
    let exec = String::from_utf8_lossy(&replies[10]).replace("\r\n", " ");
    assert_eq!(
        exec,
        "*9 +OK +PONG +OK -ERR DB index is out of range +OK $1 x +OK +OK *2 $4 save $0  "
    );
    ask(
        &mut world,
        &[
            ("GET a", "$1 3"),
            ("CLIENT GETNAME", "$1 n"),
            ("SELECT 0", "+OK"),
            ("GET a", "$1 0"),
            // Nothing of it without the others.
            ("WATCH a", "+OK"),
            ("SET a 1", "+OK"),
            ("MULTI", "+OK"),
            ("SELECT 5", "+QUEUED"),
            ("EXEC", "*-1"),
            ("GET a", "$1 1"),
        ],
    );
}

#[test]
fn a_watched_key_that_was_written_stops_the_transaction() {
    let mut world = world();
    ask(&mut world, &[("SET k 1", "+OK"), ("SADD s a", ":1")]);
    for (between, done) in [
        ("GET k", true),
        ("SET other 1", true),
        ("SET k 1", false),
        ("DEL k", false),
        ("SET k 2", false),
        ("SADD s b", false),
        ("SREM s b", false),
        ("APPEND absent x", false),
        ("DEL absent", false),
        ("DEL absent", true),
        ("PEXPIRE s 100000", false),
    ] {
        let exec = if done { "*1 +OK" } else { "*-1" };
        ask(&mut world, &[("WATCH k s", "+OK"), ("WATCH absent", "+OK")]);
        world.ask(between);
        ask(
            &mut world,
            &[("MULTI", "+OK"), ("SET seen x", "+QUEUED"), ("EXEC", exec)],
        );
    }
    // Changed and changed back.
    ask(
        &mut world,
        &[
            ("WATCH k", "+OK"),
            ("SET k 3", "+OK"),
            ("SET k 2", "+OK"),
            ("MULTI", "+OK"),
            ("EXEC", "*-1"),
            // An EXEC has forgotten what was watched, and so do these.
            ("MULTI", "+OK"),
            ("EXEC", "*0"),
            ("WATCH k", "+OK"),
            ("SET k 3", "+OK"),
            ("UNWATCH", "+OK"),
            ("MULTI", "+OK"),
            ("PING", "+QUEUED"),
            ("EXEC", "*1 +PONG"),
            ("WATCH k", "+OK"),
            ("SET k 3", "+OK"),
            ("MULTI", "+OK"),
            ("DISCARD", "+OK"),
            ("MULTI", "+OK"),
            ("EXEC", "*0"),
        ],
    );
}

#[test]
fn a_watched_key_that_expires_is_a_conflict() {
    let mut world = world();
    ask(
        &mut world,
        &[("SET k 1 PX 100000", "+OK"), ("WATCH k", "+OK")],
    );
    world.fake.set_clock(|now| 1_700_000_100_000 + now);
    ask(&mut world, &[("MULTI", "+OK"), ("EXEC", "*-1")]);
    // Expired before it was watched: absent, and it stays so.
    ask(&mut world, &[("SET l 1 PX 1000000", "+OK")]);
    world.fake.set_clock(|now| 1_700_009_900_000 + now);
    ask(
        &mut world,
        &[
            ("WATCH l", "+OK"),
            ("GET l", "$-1"),
            ("MULTI", "+OK"),
            ("EXEC", "*0"),
        ],
    );
}

#[test]
fn a_watch_outlives_neither_leader_nor_bounds() {
    let mut world = world();
    let watch = [("WATCH k", "+OK"), ("MULTI", "+OK"), ("SET k x", "+QUEUED")];
    ask(&mut world, &watch);
    world.fake.transfer(0, 2);
    ask(&mut world, &[("EXEC", "*-1")]);
    ask(&mut world, &watch);
    world.fake.split_at(&[0x20, 0x00, 0x01]);
    ask(&mut world, &[("EXEC", "*-1")]);
    ask(&mut world, &watch);
    ask(&mut world, &[("EXEC", "*1 +OK")]);
}

#[test]
fn keys_of_several_ranges_are_refused_at_exec() {
    let mut world = world();
    // foo is in slot 12182, bar in 5061.
    world.fake.split_at(&[0x20, 0x20, 0x00]);
    const CROSS: &str = "-CROSSSLOT Keys of 'exec' lie in different ranges; atomic writes across \
                         ranges are not supported yet, use a {hash tag}";
    ask(&mut world, &[("SET bar x", "+OK"), ("SET foo x", "+OK")]);
    ask(
        &mut world,
        &[
            ("MULTI", "+OK"),
            ("SET foo 1", "+QUEUED"),
            ("SET bar 1", "+QUEUED"),
            ("EXEC", CROSS),
            ("WATCH foo", "+OK"),
            ("MULTI", "+OK"),
            ("SET bar 1", "+QUEUED"),
            ("EXEC", CROSS),
            ("MGET foo bar", "*2 $1 x $1 x"),
        ],
    );
    // A WATCH that failed protects nothing.
    assert!(world.ask("WATCH foo bar").starts_with("-CROSSSLOT"));
    assert_eq!(world.ask("MULTI"), "+OK\r\n");
    assert!(world.ask("EXEC").starts_with("-EXECABORT"));
    // The range splits while the transaction is on its way.
    world.fake.merge(0);
    ask(&mut world, &[("GET foo", "$1 x"), ("GET bar", "$1 x")]);
    for command in ["MULTI", "SET foo 1", "SET bar 1", "EXEC"] {
        world.send(command);
    }
    world.fake.split_at(&[0x20, 0x20, 0x00]);
    world.settle();
    assert_eq!(world.replies()[3], CROSS.to_owned() + "\r\n");
    ask(&mut world, &[("MGET foo bar", "*2 $1 x $1 x")]);
}

#[test]
fn pipelined_transactions_keep_their_order() {
    let mut world = world();
    let commands = "SET k 5|WATCH k|MULTI|INCR k|EXEC|MULTI|INCR k|GET k|EXEC|WATCH k|INCR k|\
                    MULTI|SET k 0|EXEC|GET k";
    let mut commands = commands.split('|').peekable();
    while commands.peek().is_some() {
        while world.session.accepts_more() {
            let Some(command) = commands.next() else {
                break;
            };
            world.send(command);
        }
        world.step();
    }
    world.settle();
    let replies: Vec<String> = world
        .replies()
        .iter()
        .map(|reply| String::from_utf8_lossy(reply).replace("\r\n", " "))
        .collect();
    assert_eq!(
        replies.concat(),
        "+OK +OK +OK +QUEUED *1 :6 +OK +QUEUED +QUEUED *2 :7 $1 7 +OK :8 +OK +QUEUED *-1 $1 8 "
    );
}

#[test]
fn an_unknown_outcome_is_told() {
    let lossy = Faults {
        lost: 1000,
        ..Faults::default()
    };
    let mut world = World::new(3, 3, lossy);
    ask(&mut world, &[("MULTI", "+OK"), ("SET k 1", "+QUEUED")]);
    assert!(world.ask("EXEC").starts_with("-UNKNOWN outcome unknown"));
    ask(&mut world, &[("MULTI", "+OK"), ("SET k 1", "+QUEUED")]);
    world.fake.set_down(true);
    assert!(world.ask("EXEC").starts_with("-CLUSTERDOWN"));
    assert!(world.ask("WATCH k").starts_with("-CLUSTERDOWN"));
    assert_eq!(world.ask("MULTI"), "+OK\r\n");
    assert!(world.ask("EXEC").starts_with("-EXECABORT"));
}

/// What is queued for subscribers is told when the transaction is committed, and only then.
#[test]
fn a_transaction_publishes_if_it_is_executed() {
    let mut world = world();
    let mut other = common::session(&world.door, 2);
    let mut heard = |world: &mut World, lines: &[&str]| {
        std::mem::swap(&mut world.session, &mut other);
        for line in lines {
            world.send(line);
        }
        world.step();
        world.settle();
        let out = world.session.replies().split().freeze();
        std::mem::swap(&mut world.session, &mut other);
        String::from_utf8_lossy(&out).replace("\r\n", " ")
    };
    heard(&mut world, &["SUBSCRIBE c"]);
    ask(
        &mut world,
        &[
            ("MULTI", "+OK"),
            ("SET k 1", "+QUEUED"),
            ("PUBLISH c 1", "+QUEUED"),
            ("GET k", "+QUEUED"),
            ("SPUBLISH c 1", "+QUEUED"),
        ],
    );
    assert_eq!(heard(&mut world, &[]), "");
    ask(&mut world, &[("EXEC", "*4 +OK :1 $1 1 :0")]);
    assert_eq!(heard(&mut world, &[]), "*3 $7 message $1 c $1 1 ");
    // Not executed, by conflict, by an error, or because nobody leads.
    ask(&mut world, &[("WATCH k", "+OK"), ("SET k 2", "+OK")]);
    ask(&mut world, &[("MULTI", "+OK"), ("PUBLISH c 2", "+QUEUED")]);
    ask(&mut world, &[("EXEC", "*-1"), ("MULTI", "+OK")]);
    ask(&mut world, &[("PUBLISH c 3", "+QUEUED")]);
    world.ask("NOSUCH");
    assert!(world.ask("EXEC").starts_with("-EXECABORT"));
    ask(
        &mut world,
        &[
            ("MULTI", "+OK"),
            ("PUBLISH c 4", "+QUEUED"),
            ("SET k 3", "+QUEUED"),
        ],
    );
    world.fake.set_down(true);
    assert!(world.ask("EXEC").starts_with("-CLUSTERDOWN"));
    world.fake.set_down(false);
    assert_eq!(heard(&mut world, &[]), "");
    // Without keys, behind what stands before it.
    for line in [
        "SET k 5",
        "MULTI",
        "PUBLISH c 5",
        "WAIT 9 0",
        "WAITAOF 1 0 0",
        "EXEC",
        "GET k",
    ] {
        world.send(line);
    }
    world.settle();
    let replies: Vec<_> = world
        .replies()
        .iter()
        .map(|r| String::from_utf8_lossy(r).replace("\r\n", " "))
        .collect();
    assert_eq!(replies[5..], ["*3 :1 :0 *2 :1 :0 ", "$1 5 "]);
    assert_eq!(heard(&mut world, &[]), "*3 $7 message $1 c $1 5 ");
    for line in ["SUBSCRIBE c", "UNSUBSCRIBE", "CLUSTER INFO"] {
        let reply = world.ask("MULTI") + &world.ask(line) + &world.ask("DISCARD");
        assert!(reply.contains("can't be part of a transaction"), "{reply}");
    }
}
