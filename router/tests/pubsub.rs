//! Pub/Sub through real sockets: beside a real `redis-server`, between two nodes, and with
//! subscribers that do not read.
//!
//! `RANGEKV_SEED=n` replays one random sequence.

#![allow(
    clippy::disallowed_methods,
    reason = "runs a real server, waits for it"
)]

mod common;

use bytes::Bytes;
use common::{Rng, TestNode};
use parking_lot::Mutex;
use rangekv_proto::*;
use rangekv_router::cache::SharedCache;
use rangekv_router::pubsub::{Figures, Hub, Limit};
use rangekv_router::reply;
use rangekv_router::server::Place;
use rangekv_router::session::{Config, Door};
use rangekv_router::stores::Stores;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The door has two threads.
fn places(stores: &Arc<dyn Stores>) -> Vec<Place> {
    (0..2)
        .map(|_| Place::new(stores.clone()).unwrap())
        .collect()
}
const PATIENCE: Duration = Duration::from_secs(20);
const LINE_END: &str = "\r\n";

/// The other node of a cluster of two, which answers at once, or not at all.
#[derive(Default)]
struct Other {
    hub: Mutex<Option<Arc<Hub>>>,
    silent: bool,
}

impl Stores for Other {
    fn local(&self) -> StoreId {
        StoreId(1)
    }

    fn others(&self) -> Vec<StoreId> {
        let known = self.silent || self.hub.lock().is_some();
        known.then_some(StoreId(2)).into_iter().collect()
    }

    fn send(&self, _: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        let Body::PubSub(ask) = request.body else {
            return sink.complete(token, Err(RequestError::Invalid("no ranges".into())));
        };
        if let Some(hub) = &*self.hub.lock() {
            sink.complete(token, hub.answer_encoded(&ask));
        }
    }

    fn read_local(&self, _: RangeId, _: u64, _: EvaluatorId, _: &Bytes) -> Option<Bytes> {
        None
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        Vec::new()
    }
}

struct Node {
    address: SocketAddr,
    hub: Arc<Hub>,
    other: Arc<Other>,
}

async fn start(config: Config, silent: bool) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new(config, Arc::new(SharedCache::new()), Arc::new(TestNode));
    let hub = door.pubsub.clone();
    let other = Arc::new(Other {
        hub: Mutex::default(),
        silent,
    });
    let stores: Arc<dyn Stores> = other.clone();
    let run = rangekv_router::server::run(
        listener,
        Arc::new(door),
        places(&stores),
        std::future::pending(),
    );
    tokio::spawn(run);
    Node {
        address,
        hub,
        other,
    }
}

/// Two nodes of one cluster.
async fn pair() -> [Node; 2] {
    let (a, b) = (
        start(Config::default(), false).await,
        start(Config::default(), false).await,
    );
    *a.other.hub.lock() = Some(b.hub.clone());
    *b.other.hub.lock() = Some(a.hub.clone());
    [a, b]
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    markers: u64,
}

impl Client {
    async fn new(address: SocketAddr) -> Client {
        Client {
            stream: TcpStream::connect(address).await.unwrap(),
            received: Vec::new(),
            markers: 0,
        }
    }

    async fn send(&mut self, lines: &[&str]) {
        let text: String = lines.iter().flat_map(|line| [*line, LINE_END]).collect();
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// What has arrived when a `PING` is answered, without that answer.
    async fn until_marker(&mut self) -> String {
        self.markers += 1;
        let marker = format!("marker{}", self.markers);
        self.send(&[&format!("PING {marker}")]).await;
        let mark = format!("${}\r\n{marker}\r\n", marker.len());
        let mut text = self.until(&mark).await;
        text.truncate(text.len() - mark.len());
        // In subscriber mode.
        if let Some(rest) = text.strip_suffix("*2\r\n$4\r\npong\r\n") {
            text.truncate(rest.len());
        }
        text
    }

    /// What arrives up to the end of `mark`.
    async fn until(&mut self, mark: &str) -> String {
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&self.received).into_owned();
                if let Some(at) = text.find(mark) {
                    self.received.drain(..at + mark.len());
                    return text[..at + mark.len()].to_owned();
                }
                let count = self.stream.read_buf(&mut self.received).await.unwrap();
                assert!(count > 0, "closed before {mark:?}, after {text:?}");
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect(mark)
    }

    async fn expect(&mut self, lines: &[&str], expected: &str) {
        self.send(lines).await;
        let got = self.until_marker().await;
        assert_eq!(got, expected.replace(' ', LINE_END), "{lines:?}");
    }

    /// Whether the server ends the connection.
    async fn is_ended(&mut self) -> bool {
        let mut rest = vec![0; 1 << 16];
        let read = async {
            loop {
                match self.stream.read(&mut rest).await {
                    Ok(0) | Err(_) => return true,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or(false)
    }
}

struct Redis(Child, SocketAddr);

impl Redis {
    async fn start() -> std::io::Result<Redis> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let process = Command::new("redis-server")
            .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .args(["--port", &port.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let redis = Redis(process, port);
        let up = async {
            while TcpStream::connect(port).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await?;
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().expect("redis-server can be ended");
        self.0.wait().expect("redis-server ends");
    }
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

fn random_command(rng: &mut Rng) -> String {
    let mut command = match rng.below(22) {
        0..=3 => "SUBSCRIBE",
        4 | 5 => "PSUBSCRIBE",
        6 => "SSUBSCRIBE",
        7 => "UNSUBSCRIBE",
        8 => "PUNSUBSCRIBE",
        9 => "SUNSUBSCRIBE",
        10..=13 => {
            return format!(
                "PUBLISH {} {}",
                pick(rng, &["a", "b", "ab"]),
                rng.below(100)
            )
        }
        14 => return format!("SPUBLISH a {}", rng.below(100)),
        15 => pick(
            rng,
            &[
                "PUBSUB CHANNELS",
                "PUBSUB NUMSUB",
                "PUBSUB SHARDCHANNELS",
                "PUBSUB SHARDNUMSUB",
            ],
        ),
        16 => {
            return pick(
                rng,
                &[
                    "PUBSUB NUMPAT",
                    "PUBSUB NUMPAT x",
                    "PUBSUB nosuch",
                    "PUBSUB",
                    "PUBLISH a",
                    "PUBSUB CHANNELS a b",
                    "COMMAND INFO publish subscribe ssubscribe spublish",
                ],
            )
            .to_owned()
        }
        17 => {
            return pick(
                rng,
                &["PING", "PING x", "PING x y", "ECHO x", "CLIENT GETNAME"],
            )
            .to_owned()
        }
        18 => return pick(rng, &["RESET", "SELECT 0", "HELLO 9", "CONFIG", "GET"]).to_owned(),
        19 | 20 => return transaction(rng),
        _ => return "TTL".to_owned(),
    }
    .to_owned();
    for _ in 0..rng.below(3) {
        command.push(' ');
        command.push_str(pick(rng, &["a", "b", "ab", "a*", "*b", "[ab]"]));
    }
    command
}

/// All of it at once: in between, a subscription would be queued by Redis.
fn transaction(rng: &mut Rng) -> String {
    let mut lines = vec!["MULTI".to_owned()];
    for _ in 0..rng.below(5) {
        lines.push(match rng.below(8) {
            0..=3 => format!("PUBLISH {} {}", pick(rng, &["a", "b"]), rng.below(100)),
            4 => format!("SPUBLISH a {}", rng.below(100)),
            5 => pick(
                rng,
                &["PUBSUB NUMPAT", "PUBSUB NUMSUB a b", "PUBSUB nosuch"],
            )
            .to_owned(),
            6 => pick(
                rng,
                &["WAIT 0 0", "WAIT 7 1", "WAIT x 0", "WAIT 1 -1", "WAIT"],
            )
            .to_owned(),
            _ => pick(rng, &["PING", "PUBLISH a", "NOSUCH", "ECHO x"]).to_owned(),
        });
    }
    lines.push(pick(rng, &["EXEC", "EXEC", "EXEC", "DISCARD"]).to_owned());
    lines.join(LINE_END)
}

/// Replies and messages that arrived together. Where Redis goes through a hash table, in any
/// order; a message to who publishes it stands before the reply in 7.0, behind it in 7.2.
fn comparable(command: &str, text: String) -> Vec<Vec<u8>> {
    if command.starts_with("MULTI") {
        // What one publishes to oneself stands within the array in 7.0, behind it in 7.2.
        let mut lines: Vec<&str> = text.split(LINE_END).collect();
        lines.sort_unstable();
        return vec![lines.concat().into_bytes()];
    }
    let bytes = Bytes::from(text);
    let (frames, end) = reply::sequence(&bytes).expect("RESP");
    assert_eq!(end, bytes.len(), "{bytes:?}");
    let mut frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
    let any_order = ["PUBLISH", "SPUBLISH", "PUBSUB"]
        .iter()
        .any(|name| command.starts_with(name));
    if any_order {
        frames.sort();
    }
    let all = command.ends_with("UNSUBSCRIBE");
    if all || command.contains("CHANNELS") {
        frames.iter_mut().for_each(|frame| frame.sort());
        let mut one = frames.concat();
        one.sort();
        return vec![one];
    }
    frames
}

#[tokio::test]
async fn says_what_redis_says() {
    let redis = Redis::start()
        .await
        .expect("there is a redis-server to compare with");
    let seeds = match std::env::var("RANGEKV_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..30).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let ours = start(Config::default(), false).await;
        let mut rng = Rng::new(seed);
        let mut clients = Vec::new();
        for n in 0..3 {
            let mut pair = [Client::new(redis.1).await, Client::new(ours.address).await];
            if n == 1 {
                for client in &mut pair {
                    client.send(&["HELLO 3"]).await;
                    client.until_marker().await;
                }
            }
            clients.push(pair);
        }
        let mut typed = Vec::new();
        for _ in 0..60 {
            let by = rng.below(3) as usize;
            let command = random_command(&mut rng);
            typed.push(format!("{by}: {command}"));
            for client in &mut clients[by] {
                client.send(&[&command]).await;
            }
            // Whoever publishes first, so that the others have their messages when they are asked.
            for n in [by, (by + 1) % 3, (by + 2) % 3] {
                let [theirs, ours] = &mut clients[n];
                let theirs = comparable(&command, theirs.until_marker().await);
                let ours = comparable(&command, ours.until_marker().await);
                let show =
                    |frames: &[Vec<u8>]| String::from_utf8_lossy(&frames.concat()).into_owned();
                assert_eq!(
                    show(&theirs),
                    show(&ours),
                    "seed {seed}, connection {n}, Redis says the former: {typed:#?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn pipelines_meet_subscriber_mode_in_their_order() {
    let node = start(Config::default(), false).await;
    let mut client = Client::new(node.address).await;
    let refused = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                   / RESET are allowed in this context\r\n";
    client
        .send(&[
            "SUBSCRIBE a",
            "GET x",
            "PING",
            "RESET",
            "PING hi",
            "HELLO 3",
        ])
        .await;
    let got = client.until("modules\r\n*0\r\n").await;
    let expected = format!(
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n{refused}*2\r\n$4\r\npong\r\n$0\r\n\r\n+RESET\r\n\
         $2\r\nhi\r\n%7\r\n"
    );
    assert!(got.starts_with(&expected), "{got}");
    // Of one's own messages, those between the confirmations; whatever is muted.
    client
        .send(&[
            "CLIENT REPLY OFF",
            "PUBLISH a 0",
            "SUBSCRIBE a",
            "PUBLISH a 1",
        ])
        .await;
    client
        .send(&[
            "PUBLISH a 2",
            "UNSUBSCRIBE",
            "PUBLISH a 3",
            "CLIENT REPLY ON",
        ])
        .await;
    let message = |n| format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n{n}\r\n");
    let expected = format!(
        ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n{}{}>3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n+OK\r\n",
        message(1),
        message(2)
    );
    assert_eq!(client.until("+OK\r\n").await, expected);
    client.send(&["SUBSCRIBE a", "PUBLISH a x", "QUIT"]).await;
    assert!(client.is_ended().await);
    assert_eq!(node.hub.figures().subscriptions, [0; 3]);
}

#[tokio::test]
async fn what_a_transaction_publishes_reaches_all_nodes() {
    let [a, b] = pair().await;
    let mut here = Client::new(a.address).await;
    let mut there = Client::new(b.address).await;
    let mut publisher = Client::new(a.address).await;
    for subscriber in [&mut here, &mut there] {
        subscriber.send(&["SUBSCRIBE c"]).await;
        subscriber.until(":1\r\n").await;
    }
    publisher
        .send(&["MULTI", "PUBLISH c 0", "DISCARD", "PING after"])
        .await;
    publisher.until("after\r\n").await;
    let lines = [
        "MULTI",
        "PUBLISH c 1",
        "PING",
        "PUBLISH d 2",
        "WAIT 3 0",
        "PUBSUB NUMSUB c",
        "PUBLISH c 3",
        "EXEC",
    ];
    let queued = "+QUEUED ".repeat(6);
    let expected = format!("+OK {queued}*6 :2 +PONG :0 :0 *2 $1 c :2 :2 ");
    publisher.expect(&lines, &expected).await;
    for subscriber in [&mut here, &mut there] {
        let message = |n| format!("*3 $7 message $1 c $1 {n} ").replace(' ', LINE_END);
        let heard = subscriber.until(&message(3)).await;
        assert_eq!(heard, message(1) + &message(3));
    }
}

#[tokio::test]
async fn nodes_hear_each_other_and_count_together() {
    let [a, b] = pair().await;
    let mut here = Client::new(a.address).await;
    let mut there = Client::new(b.address).await;
    let mut publisher = Client::new(a.address).await;
    here.expect(&["SUBSCRIBE c"], "*3 $9 subscribe $1 c :1 ")
        .await;
    there
        .send(&["PSUBSCRIBE c* d*", "SUBSCRIBE c", "SSUBSCRIBE s"])
        .await;
    there.until_marker().await;
    publisher.expect(&["PUBLISH c 1"], ":3 ").await;
    publisher
        .expect(&["SPUBLISH s 1", "SPUBLISH c 1"], ":1 :0 ")
        .await;
    publisher.expect(&["PUBSUB CHANNELS"], "*1 $1 c ").await;
    publisher
        .expect(&["PUBSUB SHARDCHANNELS s*"], "*1 $1 s ")
        .await;
    publisher
        .expect(&["PUBSUB NUMSUB c s c"], "*6 $1 c :2 $1 s :0 $1 c :2 ")
        .await;
    publisher
        .expect(&["PUBSUB SHARDNUMSUB s"], "*2 $1 s :1 ")
        .await;
    publisher.expect(&["PUBSUB NUMPAT"], ":2 ").await;
    here.until_marker().await;
    there.until_marker().await;
    let publishes: Vec<String> = (0..3_000).map(|n| format!("PUBLISH c n{n}.")).collect();
    publisher
        .send(&publishes.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert_eq!(publisher.until_marker().await, ":3\r\n".repeat(3_000));
    let all: String = (0..3_000).map(|n| format!("n{n}.")).collect();
    for client in [&mut here, &mut there] {
        client.send(&["PUNSUBSCRIBE"]).await;
        let text = client.until_marker().await;
        let words = text.split(LINE_END);
        let mut got: Vec<&str> = words
            .filter(|w| w.starts_with('n') && w.ends_with('.'))
            .collect();
        // Once for the channel and once for the pattern, where there is one.
        got.dedup();
        assert_eq!(got.concat(), all);
    }
    drop(there);
    drop(here);
    let gone = async {
        while b.hub.figures().subscribers + a.hub.figures().subscribers > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("both are gone");
    publisher.expect(&["PUBLISH c 1"], ":0 ").await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_not_waited_for_long() {
    let config = Config {
        others_ms: 30,
        ..Config::default()
    };
    let node = start(config, true).await;
    let mut client = Client::new(node.address).await;
    client.send(&["HELLO 3"]).await;
    client.until_marker().await;
    // Held back until the message before it is answered: what comes after it is in order.
    client
        .send(&["PUBLISH a 1", "SUBSCRIBE a", "PUBLISH a 2", "PING"])
        .await;
    assert_eq!(
        client.until("+PONG\r\n").await,
        ":0\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n2\r\n\
         :1\r\n+PONG\r\n"
    );
    assert_eq!(node.hub.figures().unreached, 2);
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_and_others_go_on() {
    let limit = Limit {
        hard_bytes: 1 << 20,
        ..Limit::default()
    };
    let config = Config {
        messages_limit: limit,
        ..Config::default()
    };
    let node = start(config, false).await;
    let (mut slow, mut good) = (
        Client::new(node.address).await,
        Client::new(node.address).await,
    );
    for client in [&mut slow, &mut good] {
        client
            .expect(&["SUBSCRIBE c"], "*3 $9 subscribe $1 c :1 ")
            .await;
    }
    let mut publisher = Client::new(node.address).await;
    let payload = "x".repeat(50_000);
    let mut sent = 0;
    // The kernel's buffers take some, whatever their size.
    while node.hub.figures().cut_off == 0 {
        publisher.send(&[&format!("PUBLISH c {payload}")]).await;
        publisher.until_marker().await;
        good.until(&payload).await;
        sent += 1;
        assert!(sent < 5_000, "the limit holds");
    }
    assert!(slow.is_ended().await);
    publisher.expect(&["PUBLISH c last"], ":1 ").await;
    good.until("last\r\n").await;
    let Figures {
        delivered,
        dropped,
        cut_off,
        ..
    } = node.hub.figures();
    assert_eq!(cut_off, 1);
    assert!(delivered > sent && dropped > 0, "{delivered} {dropped}");
}

#[tokio::test]
async fn who_reads_too_little_for_too_long_is_cut_off() {
    let limit = Limit {
        hard_bytes: 64 << 20,
        soft_bytes: 1 << 20,
        soft_ms: 100,
    };
    let config = Config {
        messages_limit: limit,
        ..Config::default()
    };
    let node = start(config, false).await;
    let mut slow = Client::new(node.address).await;
    slow.expect(&["SUBSCRIBE c"], "*3 $9 subscribe $1 c :1 ")
        .await;
    let mut publisher = Client::new(node.address).await;
    let publish = format!("PUBLISH c {}", "x".repeat(50_000));
    // More than the kernel takes and the soft limit, less than the hard one.
    for _ in 0..700 {
        publisher.send(&[&publish]).await;
        publisher.until_marker().await;
    }
    // It does not begin to read before its time is over.
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while node.hub.figures().cut_off == 0 {
        assert!(tokio::time::Instant::now() < patience, "the limit holds");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(slow.is_ended().await);
    assert_eq!(node.hub.figures().cut_off, 1);
}
