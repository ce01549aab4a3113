//! What `CLIENT` says of connections, and does to them.

mod common;

use bytes::Bytes;
use common::{Faults, World};

fn text(reply: &Bytes) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

#[test]
fn clients_are_described_and_chosen() {
    let mut world = World::new(21, 3, Faults::default());
    let mut other = common::session(&world.door, 2);
    std::mem::swap(&mut world.session, &mut other);
    for line in ["SUBSCRIBE a b", "PSUBSCRIBE x*", "SSUBSCRIBE s"] {
        world.send(line);
        world.settle();
    }
    std::mem::swap(&mut world.session, &mut other);
    let line = world.ask("CLIENT LIST TYPE pubsub");
    assert!(line.contains("id=2 ") && !line.contains("id=1 "), "{line}");
    assert!(
        line.contains(" flags=P db=0 sub=2 psub=1 ssub=1 multi=-1 watch=0 qbuf=0 ")
            && line.contains(" cmd=ssubscribe user=default redir=-1 resp=2 "),
        "{line}"
    );
    let line = world.ask("CLIENT LIST TYPE normal");
    assert!(line.contains("id=1 ") && !line.contains("id=2 "), "{line}");
    assert!(
        line.contains(" flags=N ") && line.contains(" cmd=client|list "),
        "{line}"
    );
    assert_eq!(world.ask("CLIENT LIST TYPE replica"), "$0\r\n\r\n");
    // Messages that nobody takes.
    world.ask("PUBLISH a hello");
    let line = world.ask("CLIENT LIST ID 2");
    assert!(line.contains(" oll=1 omem=99 "), "{line}");
    for line in ["WATCH k l", "MULTI", "SET k 1"] {
        world.ask(line);
    }
    let mine = world.door.clients.all()[0].clone();
    assert_eq!(mine.id, 1);
    let mut third = common::session(&world.door, 3);
    std::mem::swap(&mut world.session, &mut third);
    let line = world.ask("CLIENT LIST ID 1");
    assert!(
        line.contains(" flags=x ") && line.contains(" multi=1 watch=2 "),
        "{line}"
    );
    std::mem::swap(&mut world.session, &mut third);
    world.ask("DISCARD");
    for (command, expected) in [
        ("CLIENT KILL TYPE normal ID 1", ":0\r\n"),
        ("CLIENT KILL TYPE pubsub ID 1", ":0\r\n"),
        ("CLIENT KILL TYPE pubsub", ":1\r\n"),
        ("CLIENT KILL TYPE x", "-ERR Unknown client type 'x'\r\n"),
        (
            "CLIENT KILL ID 0",
            "-ERR client-id should be greater than 0\r\n",
        ),
        (
            "CLIENT KILL ID x",
            "-ERR client-id should be greater than 0\r\n",
        ),
        ("CLIENT KILL ID 1 SKIPME maybe", "-ERR syntax error\r\n"),
        ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n"),
        ("CLIENT UNBLOCK 2", ":0\r\n"),
        (
            "CLIENT UNBLOCK x",
            "-ERR value is not an integer or out of range\r\n",
        ),
        (
            "CLIENT UNBLOCK 2 FOO",
            "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n",
        ),
        (
            "CLIENT TRACKING ON",
            "-ERR client tracking is not supported: no store knows all writes\r\n",
        ),
        ("CLIENT TRACKING OFF", "+OK\r\n"),
    ] {
        assert_eq!(world.ask(command), expected, "{command}");
    }
    let info = world.ask("INFO stats");
    for line in [
        "pubsub_channels:2",
        "pubsub_patterns:1",
        "pubsubshard_channels:1",
    ] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{info}");
    }
}

#[test]
fn a_pause_holds_commands_and_nothing_else() {
    let mut world = World::new(22, 3, Faults::default());
    world.ask("SET k 1");
    for (command, error) in [
        (
            "CLIENT PAUSE x",
            "-ERR timeout is not an integer or out of range\r\n",
        ),
        ("CLIENT PAUSE -1", "-ERR timeout is negative\r\n"),
        (
            "CLIENT PAUSE 1 FOO",
            "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n",
        ),
    ] {
        assert_eq!(world.ask(command), error);
    }
    // Longer than a command may take: its time begins when the pause is over.
    assert_eq!(world.ask("CLIENT PAUSE 20000 WRITE"), "+OK\r\n");
    let began = world.now;
    assert_eq!(world.ask("GET k"), "$1\r\n1\r\n");
    assert!(world.now < began + 100);
    world.send("SET k 2");
    world.send("GET k");
    world.send("PING");
    assert!(world.settle() >= 19_000, "the pause lasts");
    let replies: Vec<String> = world.replies().iter().map(text).collect();
    assert_eq!(replies, ["+OK\r\n", "$1\r\n2\r\n", "+PONG\r\n"]);
    // Ended early, by another connection.
    assert_eq!(world.ask("CLIENT PAUSE 20000"), "+OK\r\n");
    world.send("GET k");
    for _ in 0..50 {
        world.step();
    }
    assert!(world.replies().is_empty());
    let mut other = common::session(&world.door, 2);
    std::mem::swap(&mut world.session, &mut other);
    assert_eq!(world.ask("PING"), "+PONG\r\n");
    assert_eq!(world.ask("CLIENT UNPAUSE"), "+OK\r\n");
    std::mem::swap(&mut world.session, &mut other);
    assert!(world.settle() < 100);
    assert_eq!(world.replies().len(), 1);
    // A transaction that only reads is none of the writes.
    for line in ["MULTI", "GET k", "CLIENT PAUSE 5000 WRITE"] {
        world.ask(line);
    }
    let began = world.now;
    assert!(world.ask("EXEC").starts_with("*2\r\n$1\r\n2"));
    assert!(world.now < began + 100);
    for line in ["MULTI", "INCR k"] {
        world.ask(line);
    }
    assert_eq!(world.ask("EXEC"), "*1\r\n:3\r\n");
    assert!(world.now >= began + 4_900);
}

#[test]
fn replies_are_left_out_when_the_client_says_so() {
    let mut world = World::new(13, 3, Faults::default());
    for command in [
        "CLIENT REPLY OFF",
        "SET k v",
        "PING",
        "CLIENT REPLY ON",
        "CLIENT REPLY SKIP",
        "SET k w",
        "GET k",
        "QUIT",
        "PING",
    ] {
        world.send(command);
    }
    world.settle();
    let replies: Vec<String> = world.replies().iter().map(text).collect();
    assert_eq!(replies, ["+OK\r\n", "$1\r\nw\r\n", "+OK\r\n"]);
    assert!(world.session.is_finished());
}
