//! Traces by OTLP: what a collector gets of a cluster, and what becomes of one without a collector.

use crate::cluster::{rangekv, until, Cluster, Node};
use crate::collector::{Collector, Received};
use crate::operator::{ask, leader_of};
use crate::resp::{describe, Reply};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

/// OTLP's numbers for a span's kind and status.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const ERROR: i32 = 2;

const STAGES: [&str; 5] = ["queue", "evaluate", "log", "commit", "apply"];

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

/// Every node sends spans of all requests to `endpoint`.
fn trace_all(cluster: &mut Cluster, endpoint: &str) {
    for node in &mut cluster.nodes {
        let flags = ["--otlp-endpoint", endpoint, "--trace-sample", "1"];
        node.flags.extend(flags.map(String::from));
    }
}

fn call(node: &Node, words: &[&str]) -> Reply {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    until(&format!("{} answers", node.name), || {
        match node.door().call(&words) {
            Ok(reply) => Ok(reply),
            other => Err(describe(&other)),
        }
    })
}

/// A request to a node's DynamoDB port; its body if it was answered with 200.
fn dynamo(node: &Node, operation: &str, body: &str) -> Result<String, String> {
    let post = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(node.dynamo)?;
        let (host, length) = (node.dynamo, body.len());
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n\
             content-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = post().map_err(|e| e.to_string())?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(answer),
        false => Err(answer),
    }
}

/// A trace's first span of this name that began since then and of which `fits` is true.
fn root(
    collector: &Collector,
    name: &str,
    since_ns: u64,
    fits: impl Fn(&Received) -> bool,
) -> Received {
    until(&format!("the span {name}"), || {
        let spans = collector.spans();
        let found = spans.iter().find(|s| {
            s.span.name == name
                && s.span.parent_span_id.is_empty()
                && s.span.start_time_unix_nano >= since_ns
                && fits(s)
        });
        found
            .cloned()
            .ok_or_else(|| format!("none among {} spans", spans.len()))
    })
}

fn is_ok(span: &Received) -> bool {
    span.attribute("rangekv.outcome") == "ok"
}

/// The spans right below `parent`, in the order of their names in `names`, which are all.
fn children(collector: &Collector, parent: &Received, names: &[&str]) -> Vec<Received> {
    until(&format!("{names:?} below {}", parent.span.name), || {
        let spans = collector.spans();
        let below: Vec<&Received> = spans
            .iter()
            .filter(|s| s.span.parent_span_id == parent.span.span_id)
            .collect();
        let found = |name: &&str| below.iter().find(|s| s.span.name == **name);
        let all: Option<Vec<Received>> = names.iter().map(|n| found(n).copied().cloned()).collect();
        match all {
            Some(all) if all.len() == below.len() => Ok(all),
            _ => Err(format!(
                "{:?}",
                below.iter().map(|s| &s.span.name).collect::<Vec<_>>()
            )),
        }
    })
}

/// A write at its leader below `root`, with all its stages, one after the other.
fn written(collector: &Collector, root: &Received) -> Received {
    // Beside it there may be requests that were refused, or had to wait.
    let write = until(&format!("a write below {}", root.span.name), || {
        let spans = collector.spans();
        let mut found = spans
            .into_iter()
            .filter(|s| s.span.parent_span_id == root.span.span_id && s.span.name == "write");
        match (found.next(), found.next()) {
            (Some(write), None) => Ok(write),
            (None, _) => Err("none".to_string()),
            (Some(a), Some(b)) => panic!("two: {a:?} {b:?}"),
        }
    });
    assert_eq!(write.span.trace_id, root.span.trace_id);
    assert_eq!(write.span.kind, SERVER);
    assert!(!write.attribute("rangekv.index").is_empty(), "{write:?}");
    assert_eq!(write.attribute("rangekv.outcome"), "applied");
    let stages = children(collector, &write, &STAGES);
    let mut at = write.span.start_time_unix_nano;
    for stage in &stages {
        let span = &stage.span;
        assert_eq!(
            (&span.trace_id, span.kind, stage.node()),
            (&root.span.trace_id, INTERNAL, write.node())
        );
        assert!(span.start_time_unix_nano >= at, "{stages:#?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        at = span.end_time_unix_nano;
    }
    assert_eq!(at, write.span.end_time_unix_nano);
    write
}

#[test]
fn a_request_is_one_trace_over_all_stores_that_serve_it() {
    let collector = Collector::start();
    let mut cluster = Cluster::new(3);
    trace_all(&mut cluster, &format!("http://{}", collector.address));
    cluster.start_all();
    cluster.wait_until_serving();

    // A SET through a node that does not lead the key's range: leaders may still move.
    let (set, led, began, ended) = until("a SET by way of another node", || {
        let leader = leader_of(&cluster, "traced");
        let other = &cluster.nodes[(leader + 1) % 3];
        let began = now_ns();
        assert!(matches!(
            call(other, &["SET", "traced", "x"]),
            Reply::Simple(_)
        ));
        let ended = now_ns();
        let set = root(&collector, "SET", began, |_| true);
        match set.attribute("rangekv.asked") == set.resource["rangekv.store"] {
            true => Err("it leads the range".to_string()),
            false => Ok((set, leader, began, ended)),
        }
    });
    let (led, other) = (&cluster.nodes[led], &cluster.nodes[(led + 1) % 3]);
    let span = &set.span;
    assert!(span.start_time_unix_nano >= began && span.end_time_unix_nano <= ended);
    assert_eq!((span.kind, set.node()), (SERVER, &other.name[..]));
    assert_eq!(set.resource["service.name"], "rangekv");
    assert_eq!(set.attribute("rangekv.door"), "redis");
    assert_eq!(set.attribute("db.operation.name"), "SET");
    assert_eq!(set.attribute("rangekv.outcome"), "ok");
    assert_ne!(set.attribute("rangekv.questions"), "0");
    let write = written(&collector, &set);
    assert_eq!(write.node(), led.name);
    assert_eq!(
        set.attribute("rangekv.asked"),
        write.resource["rangekv.store"]
    );
    assert_eq!(
        set.attribute("rangekv.range"),
        write.attribute("rangekv.range")
    );

    // What fails says why.
    let began = now_ns();
    assert!(matches!(
        call(led, &["LPUSH", "traced", "x"]),
        Reply::Error(_)
    ));
    let push = root(&collector, "LPUSH", began, |_| true);
    assert_eq!(push.attribute("rangekv.outcome"), "WRONGTYPE");
    assert_eq!(push.attribute("error.type"), "WRONGTYPE");
    assert_eq!(push.span.status.as_ref().map(|s| s.code), Some(ERROR));
    assert_eq!(push.node(), led.name);

    // An item through the DynamoDB port.
    let table = r#"{"TableName":"traced","BillingMode":"PAY_PER_REQUEST",
        "KeySchema":[{"AttributeName":"k","KeyType":"HASH"}],
        "AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}]}"#;
    until("the table", || dynamo(other, "CreateTable", table));
    let item = r#"{"TableName":"traced","Item":{"k":{"S":"a"}}}"#;
    let mut began = 0;
    until("the item", || {
        began = now_ns();
        dynamo(other, "PutItem", item)
    });
    let put = root(&collector, "PutItem", began, is_ok);
    assert_eq!(put.attribute("rangekv.door"), "dynamodb");
    assert_eq!((put.span.kind, put.node()), (SERVER, &other.name[..]));
    let write = written(&collector, &put);
    assert_eq!(
        put.attribute("rangekv.asked"),
        write.resource["rangekv.store"]
    );

    // What is done in the background: ranges had to be won, and one is cut.
    let elected = root(&collector, "election", 0, |_| true);
    assert_eq!(
        (elected.span.kind, elected.attribute("rangekv.outcome")),
        (INTERNAL, "ok")
    );
    let began = now_ns();
    until("a split", || {
        ask(&cluster, &["range", "split", "--slot", "8191"])
    });
    let split = root(&collector, "split", began, is_ok);
    assert_eq!(split.span.kind, INTERNAL);
    let write = written(&collector, &split);
    assert_eq!(
        split.attribute("rangekv.range"),
        write.attribute("rangekv.range")
    );

    // A node that stops sends its last spans first.
    let last = cluster.nodes.last_mut().unwrap();
    let began = now_ns();
    call(last, &["APPEND", "traced", "y"]);
    last.stop();
    let spans = collector.spans();
    let sent = |s: &&Received| s.span.name == "APPEND" && s.span.start_time_unix_nano >= began;
    assert_eq!(spans.iter().filter(sent).count(), 1);
}

#[test]
fn snapshots_and_orders_of_a_move_are_traced() {
    let collector = Collector::start();
    let mut cluster = Cluster::new(3);
    cluster.add_joining();
    trace_all(&mut cluster, &format!("http://{}", collector.address));
    cluster.start_all();
    cluster.wait_until_serving();
    let seen = |name: &str| {
        let spans = collector.spans();
        spans.into_iter().find(|s| s.span.name == name && is_ok(s))
    };
    // A fourth store is given its part by the placement driver.
    let receive = until("a snapshot is received", || {
        seen("snapshot receive").ok_or("none".into())
    });
    assert!(
        !receive.attribute("rangekv.records").is_empty(),
        "{receive:?}"
    );
    let send = until("a snapshot is sent", || {
        seen("snapshot send").ok_or("none".into())
    });
    assert!(!send.attribute("rangekv.to").is_empty(), "{send:?}");
    let order = until("an order", || seen("change members").ok_or("none".into()));
    assert!(!order.attribute("rangekv.operator").is_empty(), "{order:?}");
    assert!(!order.attribute("rangekv.step").is_empty(), "{order:?}");
    written(&collector, &order);
}

#[test]
fn without_a_collector_a_node_serves_and_says_so_once() {
    let mut cluster = Cluster::new(1);
    trace_all(&mut cluster, "http://127.0.0.1:1");
    cluster.start_all();
    cluster.wait_until_serving();
    const COMPLAINT: &str = "WARN spans did not reach the collector";
    until("a complaint", || {
        call(&cluster.nodes[0], &["SET", "k", "v"]);
        match cluster.nodes[0].output().contains(COMPLAINT) {
            true => Ok(()),
            false => Err(cluster.nodes[0].output()),
        }
    });
    for n in 0..2000 {
        call(&cluster.nodes[0], &["SET", "k", &n.to_string()]);
    }
    cluster.nodes[0].stop();
    let output = cluster.nodes[0].output();
    assert_eq!(output.matches(COMPLAINT).count(), 1, "{output}");
}

#[test]
fn nothing_is_traced_unless_asked_for_and_a_share_of_none_is_none() {
    let collector = Collector::start();
    let mut cluster = Cluster::new(1);
    let flags = [
        "--otlp-endpoint".to_string(),
        format!("http://{}", collector.address),
        "--trace-sample".into(),
        "0".into(),
    ];
    cluster.nodes[0].flags.extend(flags);
    cluster.start_all();
    cluster.wait_until_serving();
    cluster.nodes[0].stop();
    let names: Vec<String> = collector.spans().into_iter().map(|s| s.span.name).collect();
    assert!(
        !names.is_empty() && names.iter().all(|n| n == "election"),
        "{names:?}"
    );
    let help = rangekv().args(["start", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for said in [
        "--otlp-endpoint",
        "OTLP_ENDPOINT",
        "--trace-sample",
        "TRACE_SAMPLE",
    ] {
        assert!(help.contains(said), "{said}: {help}");
    }
}
