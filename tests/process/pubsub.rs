//! Pub/Sub through all nodes: subscribers and publishers everywhere, one who does not read, and a
//! node that is killed.

use crate::cluster::{until, Cluster, Node};
use crate::resp::{Door, Reply};
use std::io::{Read, Write};
use std::net::TcpStream;

const PUBLISHERS: usize = 3;
const MESSAGES: usize = 600;
const PIPELINE: usize = 50;
/// A flood of twice what may wait for a subscriber, and more than kernels keep.
const FLOOD: usize = 1_200;
const FLOOD_BYTES: usize = 60_000;

/// A connection in subscriber mode.
fn subscribed(node: &Node, command: &str, name: &str) -> Door {
    let mut door = node.door();
    let confirmed = door.call(&[command.as_bytes(), name.as_bytes()]).unwrap();
    assert!(matches!(confirmed, Reply::Array(Some(_))), "{confirmed:?}");
    door
}

/// The payload of the next message.
fn next(door: &mut Door) -> Vec<u8> {
    match door.receive() {
        Ok(Reply::Array(Some(mut parts))) => match parts.pop() {
            Some(Reply::Bulk(Some(payload))) => payload,
            other => panic!("{other:?}"),
        },
        other => panic!("{}", crate::resp::describe(&other)),
    }
}

fn publish(door: &mut Door, channel: &str, payload: &str) -> i64 {
    match door.call(&[b"PUBLISH", channel.as_bytes(), payload.as_bytes()]) {
        Ok(Reply::Integer(receivers)) => receivers,
        other => panic!("{}", crate::resp::describe(&other)),
    }
}

/// Publishes until so many get it. The payload is one that [`in_order`] passes over.
fn until_heard_by(node: &Node, receivers: i64) {
    let mut door = node.door();
    until(
        &format!("{} reaches all subscribers", node.name),
        || match publish(&mut door, "news", "probe") {
            got if got == receivers => Ok(()),
            got => Err(format!("{got} of {receivers}")),
        },
    );
}

/// Reads until all of so many publishers' messages are there; fails unless each one's are in order.
fn in_order(door: &mut Door, publishers: usize, messages: usize) {
    let mut expected = vec![0; publishers];
    while expected.iter().any(|next| *next < messages) {
        let payload = String::from_utf8(next(door)).unwrap();
        let Some((publisher, number)) = payload.split_once(':') else {
            assert_eq!(payload, "probe");
            continue;
        };
        let (publisher, number): (usize, usize) =
            (publisher.parse().unwrap(), number.parse().unwrap());
        assert_eq!(number, expected[publisher], "of publisher {publisher}");
        expected[publisher] += 1;
    }
}

fn metric(node: &Node, name: &str) -> u64 {
    let mut stream = TcpStream::connect(node.http).unwrap();
    let request = format!(
        "GET /metrics?format=prometheus HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        node.http
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text
        .lines()
        .find(|line| line.split([' ', '{']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

#[test]
fn messages_reach_all_nodes_in_order_past_slow_readers_and_dead_nodes() {
    let mut cluster = Cluster::serving(PUBLISHERS);
    let mut subscribers: Vec<Door> = Vec::new();
    for node in &cluster.nodes {
        subscribers.push(subscribed(node, "SUBSCRIBE", "news"));
        subscribers.push(subscribed(node, "PSUBSCRIBE", "n?w*"));
    }
    for node in &cluster.nodes {
        until_heard_by(node, 6);
    }

    std::thread::scope(|scope| {
        for (publisher, node) in cluster.nodes.iter().enumerate() {
            scope.spawn(move || {
                let mut door = node.door();
                for first in (0..MESSAGES).step_by(PIPELINE) {
                    for number in first..first + PIPELINE {
                        let payload = format!("{publisher}:{number}");
                        door.send(&[b"PUBLISH", b"news", payload.as_bytes()])
                            .unwrap();
                        door.send(&[b"SET", b"k", payload.as_bytes()]).unwrap();
                    }
                    for _ in 0..PIPELINE {
                        // Fewer than 6 if a node took too long to answer.
                        let heard = door.receive().unwrap();
                        assert!(matches!(heard, Reply::Integer(2..=6)), "{heard:?}");
                        assert_eq!(door.receive().unwrap(), Reply::Simple("OK".into()));
                    }
                }
            });
        }
        for subscriber in &mut subscribers {
            scope.spawn(|| in_order(subscriber, PUBLISHERS, MESSAGES));
        }
    });

    // Shard channels are another name space, and as reachable from everywhere.
    let mut shard = subscribed(&cluster.nodes[2], "SSUBSCRIBE", "news");
    let mut door = cluster.nodes[0].door();
    assert_eq!(
        door.call(&[b"SPUBLISH", b"news", b"s"]).unwrap(),
        Reply::Integer(1)
    );
    assert_eq!(next(&mut shard), b"s");
    let counted = door.call(&[b"PUBSUB", b"NUMSUB", b"news"]).unwrap();
    assert_eq!(format!("{counted:?}"), r#"["news", :3]"#);

    let _slow = subscribed(&cluster.nodes[1], "SUBSCRIBE", "flood");
    let mut good = subscribed(&cluster.nodes[2], "SUBSCRIBE", "flood");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut door = cluster.nodes[0].door();
            for number in 0..FLOOD {
                let payload = format!("{number:0>FLOOD_BYTES$}");
                let receivers = publish(&mut door, "flood", &payload);
                assert!((0..=2).contains(&receivers), "{receivers} at {number}");
            }
        });
        for number in 0..FLOOD {
            let payload = String::from_utf8(next(&mut good)).unwrap();
            assert_eq!(payload, format!("{number:0>FLOOD_BYTES$}"));
        }
    });
    let cut_off = "rangekv_pubsub_connections_cut_off_total";
    until("the slow one is cut off", || {
        match metric(&cluster.nodes[1], cut_off) {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(metric(&cluster.nodes[2], cut_off), 0);

    cluster.nodes[2].kill();
    subscribers.truncate(4);
    for node in &cluster.nodes[..2] {
        until_heard_by(node, 4);
    }
    for (publisher, node) in cluster.nodes[..2].iter().enumerate() {
        let mut door = node.door();
        for number in 0..PIPELINE {
            assert_eq!(
                publish(&mut door, "news", &format!("{publisher}:{number}")),
                4
            );
        }
    }
    for subscriber in &mut subscribers {
        in_order(subscriber, 2, PIPELINE);
    }

    cluster.nodes[2].start();
    let back = &cluster.nodes[2];
    back.wait_until_serving();
    subscribers.push(subscribed(back, "SUBSCRIBE", "news"));
    for node in &cluster.nodes {
        until_heard_by(node, 5);
    }
    publish(&mut back.door(), "news", "0:0");
    for subscriber in &mut subscribers {
        in_order(subscriber, 1, 1);
    }
}
