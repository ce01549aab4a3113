//! Keys and values over HTTP through every node, the same as through Redis.

use crate::cluster::{Cluster, Node, PATIENCE};
use crate::resp::Reply;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Where a node listens that was told nothing else.
fn address(node: &Node) -> SocketAddr {
    SocketAddr::new(node.grpc.ip(), 9080)
}

fn ask(node: &Node, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address(node)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("HTTP");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{head}"));
    let json = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    (status, json)
}

fn set(node: &Node, body: Value) -> (u16, Value) {
    ask(node, "POST", "/kv/set", &body.to_string())
}

fn get(node: &Node, path: &str) -> (u16, Value) {
    ask(node, "GET", path, "")
}

/// All keys that a node lists, in pages of so many.
fn listed(node: &Node, limit: usize) -> BTreeSet<String> {
    let (mut keys, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let (status, page) = get(node, &format!("/kv/list?limit={limit}&cursor={cursor}"));
        assert_eq!(status, 200, "{page}");
        let names =
            |field: &str| -> Vec<String> { serde_json::from_value(page[field].clone()).unwrap() };
        let found = [names("keys"), names("keys_base64")].concat();
        assert_eq!(page["count"], found.len());
        assert!(found.len() <= limit, "{page}");
        keys.extend(found);
        match &page["cursor"] {
            Value::String(next) => cursor.clone_from(next),
            _ => return keys,
        }
    }
}

#[test]
fn the_same_keys_through_every_node_and_through_redis() {
    let mut cluster = Cluster::serving(3);
    let nodes = &cluster.nodes;
    let key = "user:123";
    let answer = set(&nodes[0], json!({"key": key, "value": "John Doe"}));
    assert_eq!(answer, (200, json!({"status": "success", "key": key})));
    for node in nodes {
        let (status, found) = get(node, "/kv/get?key=user%3A123");
        assert_eq!((status, &found["value"]), (200, &json!("John Doe")));
        let redis = node.door().call(&[b"GET", key.as_bytes()]).unwrap();
        assert_eq!(redis, Reply::Bulk(Some(b"John Doe".to_vec())));
    }
    let mut redis = nodes[1].door();
    redis.call(&[b"SET", b"\xff\x00", b"\x00\xfe"]).unwrap();
    let (status, found) = get(&nodes[2], "/kv/get?key=%FF%00");
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["key_base64"], "/wA=");
    assert_eq!(found["value_base64"], "AP4=");
    let answer = set(
        &nodes[2],
        json!({"key_base64": "/wA=", "value_base64": "/w=="}),
    );
    assert_eq!(
        answer,
        (200, json!({"status": "success", "key_base64": "/wA="}))
    );
    let changed = redis.call(&[b"GET", b"\xff\x00"]).unwrap();
    assert_eq!(changed, Reply::Bulk(Some(b"\xff".to_vec())));

    redis.call(&[b"HSET", b"hash", b"f", b"v"]).unwrap();
    let (status, refused) = get(&nodes[0], "/kv/get?key=hash");
    assert_eq!(status, 400, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .starts_with("WRONGTYPE"),
        "{refused}"
    );
    let (status, bad) = ask(&nodes[0], "POST", "/kv/set", "{\"key\": oops}");
    assert_eq!(status, 400);
    assert!(bad["message"].as_str().unwrap().contains("oops"), "{bad}");
    for (method, path, expected) in [
        ("GET", "/kv/get?key=nosuch", 404),
        ("GET", "/kv/nosuch", 404),
        ("GET", "/kv/get", 400),
        ("GET", "/kv/list?limit=many", 400),
        ("GET", "/kv/list?cursor=%25", 400),
        ("GET", "/kv/set", 405),
        ("DELETE", "/kv/get?key=a", 405),
        ("PUT", "/kv/delete?key=a", 405),
    ] {
        let (status, answer) = ask(&nodes[1], method, path, "");
        assert_eq!(status, expected, "{method} {path}: {answer}");
    }

    for n in 0..40 {
        let answer = set(&nodes[n % 3], json!({"key": format!("k{n}"), "value": ""}));
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
    let all = listed(&nodes[0], 1_000);
    // With those that showed that every range serves, and without the hash.
    assert_eq!(
        redis.call(&[b"DBSIZE"]).unwrap(),
        Reply::Integer(all.len() as i64 + 1)
    );
    assert!(all.contains("k39") && all.contains("/wA=") && !all.contains("hash"));
    for node in nodes {
        assert_eq!(listed(node, 7), all, "{}", node.name);
    }
    for (deleted, present) in [(true, false), (false, false)] {
        let answer = ask(&nodes[1], "POST", "/kv/delete?key=user:123", "");
        let expected = json!({"status": "success", "key": key, "deleted": deleted});
        assert_eq!(answer, (200, expected));
        let found = get(&nodes[2], "/kv/get?key=user:123").0 == 200;
        assert_eq!(found, present);
    }

    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let alone = &cluster.nodes[0];
    for (status, answer) in [
        set(alone, json!({"key": "a", "value": "b"})),
        get(alone, "/kv/get?key=k1"),
        get(alone, "/kv/list"),
        ask(alone, "POST", "/kv/delete?key=k1", ""),
    ] {
        assert_eq!(status, 503, "{answer}");
        assert!(answer.get("leader").is_some(), "{answer}");
    }
}
