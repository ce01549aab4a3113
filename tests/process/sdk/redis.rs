//! The `redis` crate: plain, pipelined, transactional, subscribed, asynchronous and cluster-aware.

use super::{block_on, operate};
use crate::cluster::{until, Cluster, Node, PATIENCE};
use crate::operator::leader_of;
use ::redis::aio::ConnectionLike as AsyncConnectionLike;
use ::redis::cluster::{cluster_pipe, ClusterClient, ClusterConnection};
use ::redis::{
    cmd, pipe, AsyncCommands, AsyncConnectionConfig, AsyncIter, Client, Commands, Connection,
    ErrorKind, InfoDict, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerErrorKind, Value,
};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const PROTOCOLS: [ProtocolVersion; 2] = [ProtocolVersion::RESP2, ProtocolVersion::RESP3];

/// A message that says nothing.
const PROBE: &str = "probe";

/// Keys that lie in every range of a new cluster.
const KEYS: usize = 200;

fn url(node: &Node, protocol: ProtocolVersion) -> String {
    match protocol {
        ProtocolVersion::RESP3 => format!("redis://{}/?protocol=resp3", node.redis),
        _ => format!("redis://{}/", node.redis),
    }
}

fn client(node: &Node, protocol: ProtocolVersion) -> Client {
    Client::open(url(node, protocol)).expect("an address")
}

fn connect(node: &Node, protocol: ProtocolVersion) -> Connection {
    let connection = client(node, protocol).get_connection();
    connection.unwrap_or_else(|error| panic!("{}: {error}", node.name))
}

#[test]
fn connections_through_every_node() {
    let cluster = Cluster::serving(3);
    for protocol in PROTOCOLS {
        for node in &cluster.nodes {
            until(&node.name, || transient(commands(node, protocol)));
        }
        databases(&cluster.nodes[0], protocol).unwrap();
        transactions(&cluster, protocol);
        published(&cluster, protocol).unwrap();
        block_on(async { asynchronous(&cluster, protocol).await.unwrap() });
        println!("{protocol:?} passed");
    }
}

fn commands(node: &Node, protocol: ProtocolVersion) -> RedisResult<()> {
    let mut con = connect(node, protocol);
    let () = cmd("FLUSHALL").query(&mut con)?;
    values(&mut con)?;
    collections(&mut con)?;
    errors(&mut con)?;
    iterators(&mut con)?;
    pipelines(&mut con)
}

fn values(con: &mut Connection) -> RedisResult<()> {
    let key: &[u8] = b"\x00\xff\r\n";
    let () = con.set(key, &key[1..])?;
    assert_eq!(con.get::<_, Vec<u8>>(key)?, &key[1..]);
    assert_eq!(con.get::<_, Option<String>>("none")?, None);
    let () = con.mset(&[("{m}a", 1), ("{m}b", 2)])?;
    let some: (i64, Option<i64>, f64) = con.mget(&["{m}a", "none", "{m}b"])?;
    assert_eq!(some, (1, None, 2.0));
    assert_eq!(con.incr::<_, _, i64>("{m}a", 41)?, 42);
    assert!(!con.set_nx::<_, _, bool>("{m}a", 0)?);
    let () = con.set_ex("brief", "x", 100)?;
    assert!((1..=100).contains(&con.ttl::<_, i64>("brief")?));
    assert!(con.persist::<_, bool>("brief")?);
    assert_eq!(con.ttl::<_, i64>("brief")?, -1);
    assert_eq!(con.append::<_, _, usize>("brief", "yz")?, 3);
    assert_eq!(con.getrange::<_, String>("brief", 1, -1)?, "yz");
    assert_eq!(con.get_del::<_, String>("brief")?, "xyz");
    assert_eq!(con.del::<_, usize>(&["{m}a", "{m}b", "none"])?, 2);
    let info: InfoDict = cmd("INFO").query(con)?;
    assert!(info
        .get::<String>("redis_version")
        .is_some_and(|v| v.starts_with("7.2")));
    let me: String = cmd("CLIENT").arg("INFO").query(con)?;
    assert!(me.contains(" lib-name=redis-rs "), "{me}");
    Ok(())
}

fn collections(con: &mut Connection) -> RedisResult<()> {
    let () = con.hset_multiple("hash", &[("one", 1), ("two", 2)])?;
    let hash: BTreeMap<String, i64> = con.hgetall("hash")?;
    let expected = [("one".to_string(), 1), ("two".to_string(), 2)];
    assert_eq!(hash, expected.into());
    assert_eq!(con.hincr::<_, _, _, f64>("hash", "two", 0.5)?, 2.5);
    assert_eq!(con.hget::<_, _, Option<i64>>("hash", "three")?, None);

    let () = con.zadd_multiple("z", &[(1.5, "x"), (f64::INFINITY, "y"), (-2.0, "w")])?;
    let ranked: Vec<(String, f64)> = con.zrange_withscores("z", 0, -1)?;
    let expected = [("w", -2.0), ("x", 1.5), ("y", f64::INFINITY)];
    assert_eq!(ranked, expected.map(|(m, score)| (m.to_string(), score)));
    assert_eq!(con.zscore::<_, _, Option<f64>>("z", "none")?, None);
    assert_eq!(con.zrank::<_, _, Option<usize>>("z", "y")?, Some(2));

    assert_eq!(con.sadd::<_, _, usize>("set", &["a", "b", "c", "a"])?, 3);
    let set: BTreeSet<String> = con.smembers("set")?;
    assert_eq!(set, ["a", "b", "c"].map(String::from).into());
    assert!(con.sismember::<_, _, bool>("set", "b")?);

    assert_eq!(con.rpush::<_, _, usize>("list", &[1, 2, 3, 4])?, 4);
    assert_eq!(con.lpop::<_, Vec<i64>>("list", 2.try_into().ok())?, [1, 2]);
    assert_eq!(con.lrange::<_, Vec<i64>>("list", 0, -1)?, [3, 4]);
    Ok(())
}

fn errors(con: &mut Connection) -> RedisResult<()> {
    let wrong = con.incr::<_, _, i64>("hash", 1).unwrap_err();
    assert_eq!(wrong.code(), Some("WRONGTYPE"), "{wrong}");
    let () = con.set("text", "x")?;
    for wrong in [
        con.incr::<_, _, i64>("text", 1).unwrap_err(),
        cmd("NOSUCH").query::<()>(con).unwrap_err(),
        cmd("GET").query::<()>(con).unwrap_err(),
    ] {
        let expected = ErrorKind::Server(ServerErrorKind::ResponseError);
        assert_eq!(wrong.kind(), expected, "{wrong}");
    }
    // The connection goes on.
    assert_eq!(con.get::<_, String>("text")?, "x");
    Ok(())
}

fn iterators(con: &mut Connection) -> RedisResult<()> {
    let names: BTreeSet<String> = (0..300).map(|n| format!("i{n:03}")).collect();
    let mut filling = pipe();
    for name in &names {
        filling.set(name, 1).ignore();
        filling.hset("ih", name, 2).ignore();
        filling.sadd("is", name).ignore();
        filling.zadd("iz", name, 3).ignore();
    }
    filling.exec(con)?;
    let found = con.scan_match("i[0-9]*")?.collect::<RedisResult<_>>()?;
    assert_eq!(names, found);
    let found = con.sscan("is")?.collect::<RedisResult<_>>()?;
    assert_eq!(names, found);
    let found: BTreeMap<String, i64> = con.hscan("ih")?.collect::<RedisResult<_>>()?;
    assert_eq!(found, names.iter().map(|name| (name.clone(), 2)).collect());
    let found: BTreeMap<String, i64> = con.zscan("iz")?.collect::<RedisResult<_>>()?;
    assert_eq!(found, names.iter().map(|name| (name.clone(), 3)).collect());
    let all: usize = cmd("DBSIZE").query(con)?;
    assert_eq!(all, con.scan::<String>()?.count());
    Ok(())
}

fn pipelines(con: &mut Connection) -> RedisResult<()> {
    let mut many = pipe();
    for n in 0..500 {
        many.set(format!("p{n}"), n).ignore();
    }
    let some: (i64, i64) = many.get("p7").get("p499").query(con)?;
    assert_eq!(some, (7, 499));
    // One fails: the others were carried out.
    let mut mixed = pipe();
    mixed.set("p0", "new").incr("hash", 1).set("p1", "new");
    assert_eq!(codes(mixed.query::<()>(con)), ["1 WRONGTYPE"]);
    let both: (String, String) = con.mget(&["p0", "p1"])?;
    assert_eq!(both, ("new".into(), "new".into()));
    Ok(())
}

/// What the commands of a pipeline were refused with, each with its place.
fn codes(answer: RedisResult<()>) -> Vec<String> {
    let error = answer.expect_err("an error");
    let text = error.to_string();
    let errors = error.into_server_errors().expect(&text);
    let codes = errors.iter();
    codes
        .map(|(place, error)| format!("{place} {}", error.code()))
        .collect()
}

fn databases(node: &Node, protocol: ProtocolVersion) -> RedisResult<()> {
    let info = url(node, protocol).as_str().into_connection_info()?;
    let settings = info.redis_settings().clone().set_db(3);
    let mut third = Client::open(info.set_redis_settings(settings))?.get_connection()?;
    let () = third.set("only here", 1)?;
    let mut first = connect(node, protocol);
    assert!(!first.exists::<_, bool>("only here")?);
    assert_eq!(third.del::<_, usize>("only here")?, 1);
    Ok(())
}

/// Two threads per node count together, by `WATCH` alone.
fn transactions(cluster: &Cluster, protocol: ProtocolVersion) {
    const EACH: i64 = 10;
    let key = format!("counted {protocol:?}");
    let doubtful = AtomicI64::new(0);
    let increment = |con: &mut Connection| {
        ::redis::transaction(con, &[&key], |con, pipe| {
            let old: Option<i64> = con.get(&key)?;
            let old = old.unwrap_or(0);
            pipe.set(&key, old + 1).ignore();
            let new: Option<(i64,)> = pipe.get(&key).query(con)?;
            Ok(new.map(|(new,)| (old, new)))
        })
    };
    let count = |node: &Node| {
        let mut con = connect(node, protocol);
        for _ in 0..EACH {
            let (old, new) = until("an increment", || {
                // On a new connection: nothing is watched there.
                transient(increment(&mut con)).inspect_err(|_| {
                    doubtful.fetch_add(1, Ordering::Relaxed);
                    con = connect(node, protocol);
                })
            });
            assert_eq!(new, old + 1);
        }
    };
    let threads: Vec<_> = cluster.nodes.iter().chain(&cluster.nodes).collect();
    std::thread::scope(|scope| {
        for node in &threads {
            scope.spawn(|| count(node));
        }
    });
    let mut con = connect(&cluster.nodes[0], protocol);
    let counted: i64 = con.get(&key).unwrap();
    let sure = threads.len() as i64 * EACH;
    let doubtful = doubtful.into_inner();
    assert!(
        (sure..=sure + doubtful).contains(&counted),
        "{counted} of {sure} and perhaps {doubtful}"
    );

    // Keys of all ranges: refused as a whole. Typed by hand, because an atomic pipeline does not
    // tell what `EXEC` itself is refused with.
    let mut wide = pipe();
    wide.cmd("MULTI");
    for n in 0..KEYS {
        wide.set(format!("wide{n}"), n);
    }
    wide.cmd("EXEC");
    let refused = codes(wide.exec(&mut con));
    assert_eq!(refused, [format!("{} CROSSSLOT", KEYS + 1)]);
    assert!(!con.exists::<_, bool>("wide0").unwrap());
}

/// Publishes until all of them get it, which they pass over: links to other nodes are made when
/// they are needed.
fn until_heard(con: &mut Connection, channel: &str, receivers: usize) {
    until(&format!("{channel} is heard"), || {
        match transient(con.publish::<_, _, usize>(channel, PROBE))? {
            heard if heard == receivers => Ok(()),
            heard => Err(format!("by {heard} of {receivers}")),
        }
    });
}

fn published(cluster: &Cluster, protocol: ProtocolVersion) -> RedisResult<()> {
    let mut listening = connect(&cluster.nodes[1], protocol);
    listening.set_read_timeout(Some(PATIENCE))?;
    let mut news = listening.as_pubsub();
    news.subscribe(&["news", "weather"])?;
    news.psubscribe("n?w*")?;
    let mut con = connect(&cluster.nodes[2], protocol);
    until_heard(&mut con, "news", 2);
    let mut publish = |channel: &str, payload: &[u8], receivers: usize| {
        // A store that takes more than a second to answer is not counted.
        let heard: usize = con.publish(channel, payload).unwrap();
        assert!(heard <= receivers, "{heard}");
    };
    publish("news", b"\x00one", 2);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let message = news.get_message()?;
        assert_eq!(message.get_channel_name(), "news");
        if message.get_payload_bytes() != PROBE.as_bytes() {
            assert_eq!(message.get_payload_bytes(), b"\x00one");
            heard.push(message.from_pattern());
        }
    }
    assert_eq!(heard, [false, true]);
    news.unsubscribe(&["news", "weather"])?;
    publish("weather", b"unheard", 0);
    publish("newer", b"two", 1);
    assert_eq!(news.get_message()?.get_payload::<String>()?, "two");
    // Usable for other things afterwards.
    drop(news);
    let () = listening.set("after", "wards")?;
    assert_eq!(listening.get::<_, String>("after")?, "wards");
    Ok(())
}

async fn asynchronous(cluster: &Cluster, protocol: ProtocolVersion) -> RedisResult<()> {
    let opened = client(&cluster.nodes[1], protocol);
    let con = opened.get_multiplexed_async_connection().await?;
    // One connection, many tasks.
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let mut con = con.clone();
            tokio::spawn(async move {
                let key = format!("m{n}");
                let () = con.set(&key, n).await?;
                con.get::<_, i64>(&key).await
            })
        })
        .collect();
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.await.expect("no panic")?, n);
    }
    let mut con = con;
    let (sum,): (i64,) = pipe()
        .atomic()
        .set("{m}sum", 1)
        .ignore()
        .incr("{m}sum", 2)
        .query_async(&mut con)
        .await?;
    assert_eq!(sum, 3);
    let mut names = BTreeSet::new();
    let mut found: AsyncIter<'_, String> = con.scan_match("m[0-9]*").await?;
    while let Some(name) = found.next_item().await {
        names.insert(name?);
    }
    drop(found);
    assert_eq!(names, (0..100).map(|n| format!("m{n}")).collect());
    let watched = async |mut con: ::redis::aio::MultiplexedConnection,
                         mut pipe: ::redis::Pipeline| {
        let old: i64 = con.get("{m}sum").await?;
        pipe.set("{m}sum", old * 2).ignore().get("{m}sum");
        pipe.query_async::<Option<(i64,)>>(&mut con).await
    };
    let (sum,) = ::redis::aio::transaction_async(con.clone(), &["{m}sum"], watched).await?;
    assert_eq!(sum, 6);

    // Messages: on a connection of their own, or in RESP3 on that of the commands.
    let mut elsewhere = connect(&cluster.nodes[0], protocol);
    let hello = |push: Option<&Value>| push == Some(&Value::BulkString(b"hello".to_vec()));
    match protocol {
        ProtocolVersion::RESP3 => {
            let (pushed, mut pushes) = tokio::sync::mpsc::unbounded_channel::<PushInfo>();
            let config = AsyncConnectionConfig::new().set_push_sender(pushed);
            let mut con = opened
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            con.subscribe("async").await?;
            until_heard(&mut elsewhere, "async", 1);
            let _: usize = elsewhere.publish("async", "hello")?;
            loop {
                let push = tokio::time::timeout(PATIENCE, pushes.recv()).await;
                let push = push.expect("a message in time").expect("it is open");
                if push.kind == PushKind::Message && hello(push.data.last()) {
                    break;
                }
            }
            assert_eq!(con.get::<_, i64>("m7").await?, 7);
        }
        _ => {
            let mut subscribed = opened.get_async_pubsub().await?;
            subscribed.subscribe("async").await?;
            let mut messages = subscribed.into_on_message();
            until_heard(&mut elsewhere, "async", 1);
            let _: usize = elsewhere.publish("async", "hello")?;
            loop {
                let message = tokio::time::timeout(PATIENCE, messages.next()).await;
                let message = message.expect("in time").expect("it is open");
                if message.get_payload::<String>()? == "hello" {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether users of the library would try again.
fn is_transient(error: &RedisError) -> bool {
    let code = error.code().unwrap_or_default();
    error.is_io_error()
        || error.kind() == ErrorKind::ClusterConnectionNotFound
        || ["UNKNOWN", "CLUSTERDOWN", "TRYAGAIN"].contains(&code)
}

/// Which [`until`] tries again; anything else is wrong.
fn transient<T>(result: RedisResult<T>) -> Result<T, String> {
    result.map_err(|error| {
        assert!(is_transient(&error), "{error:?}");
        format!("{error:?}")
    })
}

fn cluster_client(cluster: &Cluster, protocol: ProtocolVersion) -> ClusterClient {
    let nodes = cluster.nodes.iter().map(|node| url(node, protocol));
    ClusterClient::builder(nodes)
        .use_protocol(protocol)
        // A door answers within five.
        .response_timeout(Duration::from_secs(10))
        .build()
        .expect("addresses")
}

fn write_all(con: &mut ClusterConnection, text: &str) -> usize {
    let mut again = 0;
    for n in 0..KEYS {
        until(&format!("SET c{n}"), || {
            let set = con.set(format!("c{n}"), format!("{text} {n}"));
            again += usize::from(set.is_err());
            transient(set)
        })
    }
    again
}

fn assert_all(con: &mut ClusterConnection, text: &str) {
    for n in 0..KEYS {
        let found = until(&format!("GET c{n}"), || {
            transient(con.get::<_, Option<String>>(format!("c{n}")))
        });
        assert_eq!(found, Some(format!("{text} {n}")));
    }
}

#[test]
fn cluster_clients_while_leaders_move_and_a_node_dies() {
    let mut cluster = Cluster::serving(3);
    // Leaders stay where they are moved to.
    block_on(async {
        let off = operate(&cluster, &["config", "set", "leader-balance", "off"]);
        off.await.expect("switched off");
    });
    for protocol in PROTOCOLS {
        let mut con = cluster_client(&cluster, protocol).get_connection().unwrap();
        write_all(&mut con, "first");
        assert_all(&mut con, "first");
        let mut many = cluster_pipe();
        for n in 0..KEYS {
            many.get(format!("c{n}"));
        }
        let found: Vec<String> = many.query(&mut con).unwrap();
        let expected = (0..KEYS).map(|n| format!("first {n}"));
        assert_eq!(found, expected.collect::<Vec<_>>());
        // Several slots: the library asks each owner, and puts the answers in order.
        let some: Vec<String> = con.mget(&["c0", "c1", "c2", "c3"]).unwrap();
        assert_eq!(some, ["first 0", "first 1", "first 2", "first 3"]);
        leaders_move(&cluster, &mut con);
    }
    a_node_dies(&mut cluster);
}

/// Every node leads everything for a while.
fn leaders_move(cluster: &Cluster, con: &mut ClusterConnection) {
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for node in &cluster.nodes {
                take_over(node);
            }
            moved.store(true, Ordering::Relaxed);
        });
        let (mut rounds, mut again) = (0, 0);
        while !moved.load(Ordering::Relaxed) || rounds == 0 {
            rounds += 1;
            again += write_all(con, &format!("round {rounds}"));
            assert_all(con, &format!("round {rounds}"));
        }
        println!("{rounds} rounds of writes while leaders moved, {again} tried again");
    });
}

/// `CLUSTER FAILOVER` of a node, until it owns all slots.
fn take_over(node: &Node) {
    let mut con = connect(node, ProtocolVersion::RESP2);
    let me: String = cmd("CLUSTER").arg("MYID").query(&mut con).unwrap();
    until(&format!("{} leads everything", node.name), || {
        let () = transient(cmd("CLUSTER").arg("FAILOVER").query(&mut con))?;
        let nodes: String = transient(cmd("CLUSTER").arg("NODES").query(&mut con))?;
        let mine = nodes.lines().find(|line| line.starts_with(&me));
        let slots = mine.map(|line| line.split(' ').skip(8).collect::<Vec<_>>());
        match slots {
            Some(slots) if slots == ["0-16383"] => Ok(()),
            _ => Err(nodes),
        }
    });
}

fn a_node_dies(cluster: &mut Cluster) {
    let [resp2, resp3] = PROTOCOLS.map(|protocol| cluster_client(cluster, protocol));
    let mut con = resp2.get_connection().unwrap();
    write_all(&mut con, "before");
    block_on(async {
        let mut con = resp3.get_async_connection().await.unwrap();
        assert_eq!(con.get::<_, String>("c7").await.unwrap(), "before 7");
        let dead = leader_of(cluster, "c7");
        cluster.nodes[dead].kill();
        // It learns by itself that others lead now.
        let started = Instant::now();
        for n in 0..KEYS {
            while let Err(error) = write(&mut con, n).await {
                assert!(is_transient(&error), "{error:?}");
                assert!(started.elapsed() < 4 * PATIENCE, "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    // The synchronous one goes on asking the dead node until it is replaced.
    let mut replaced = 0;
    until("an answer", || {
        transient(con.get::<_, String>("c7")).inspect_err(|_| {
            replaced += 1;
            con = until("a new connection", || transient(resp2.get_connection()));
        })
    });
    println!("the synchronous connection was replaced {replaced} times");
    assert_all(&mut con, "after");
    write_all(&mut con, "in the end");
    assert_all(&mut con, "in the end");
}

async fn write(con: &mut (impl AsyncConnectionLike + Send), n: usize) -> RedisResult<()> {
    cmd("SET")
        .arg(format!("c{n}"))
        .arg(format!("after {n}"))
        .exec_async(con)
        .await
}
