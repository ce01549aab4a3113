//! The shell with real sockets, over a store that answers from another thread.

mod common;

use bytes::Bytes;
use common::{apply, one_range, Map, TestNode};
use parking_lot::Mutex;
use rangekv_model::eval::{Context, Evaluator, Txn};
use rangekv_model::redis::RedisModel;
use rangekv_proto::*;
use rangekv_router::cache::SharedCache;
use rangekv_router::server::Place;
use rangekv_router::session::{Config, Door};
use rangekv_router::stores::Stores;
use std::net::SocketAddr;
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The door has two threads.
fn places(stores: &Arc<dyn Stores>) -> Vec<Place> {
    (0..2)
        .map(|_| Place::new(stores.clone()).unwrap())
        .collect()
}

type Work = (Bytes, u64, Arc<dyn ReplySink>);

/// One range, led here; writes take a detour over a worker thread.
struct OneRange {
    data: Arc<Mutex<Map>>,
    worker: Mutex<Sender<Work>>,
}

fn evaluate(data: &Mutex<Map>, command: &Bytes) -> Bytes {
    let mut data = data.lock();
    let context = Context {
        now_ms: 1_700_000_000_000,
        seed: 4,
        start: &[],
        end: &[],
    };
    let mut txn = Txn::new(&*data);
    let reply = RedisModel.evaluate(&context, command, &mut txn);
    let writes = txn.into_writes();
    apply(&mut data, writes);
    reply
}

impl OneRange {
    fn start() -> Arc<Self> {
        let data = Arc::new(Mutex::new(Map::default()));
        let (worker, work) = channel::<Work>();
        let worked_on = data.clone();
        #[allow(clippy::disallowed_methods)]
        std::thread::spawn(move || {
            for (command, token, sink) in work {
                sink.complete(token, Ok(evaluate(&worked_on, &command)));
            }
        });
        Arc::new(OneRange {
            data,
            worker: Mutex::new(worker),
        })
    }
}

impl Stores for OneRange {
    fn local(&self) -> StoreId {
        StoreId(1)
    }

    fn send(&self, _: StoreId, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        let Body::Command { command, .. } = request.body else {
            return sink.complete(token, Err(RequestError::Invalid("body".into())));
        };
        let sent = self.worker.lock().send((command, token, sink.clone()));
        assert!(sent.is_ok(), "the worker lives as long as the store");
    }

    fn read_local(&self, _: RangeId, _: u64, _: EvaluatorId, command: &Bytes) -> Option<Bytes> {
        Some(evaluate(&self.data, command))
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        vec![(
            one_range(),
            Some(LeaderHint {
                store: StoreId(1),
                term: 6,
            }),
        )]
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(config: Config) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cache = Arc::new(SharedCache::new());
    let door = Arc::new(Door::new(config, cache, Arc::new(TestNode)));
    let (stop, stopped) = oneshot::channel();
    let stores: Arc<dyn Stores> = OneRange::start();
    let task = tokio::spawn(async move {
        let stopped = async {
            stopped.await.ok();
        };
        rangekv_router::server::run(listener, door, places(&stores), stopped).await
    });
    Server {
        address,
        stop,
        task,
    }
}

async fn exchange(stream: &mut TcpStream, request: &[u8], expected: &[u8]) {
    stream.write_all(request).await.unwrap();
    let mut reply = vec![0; expected.len()];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut reply)).await;
    read.expect("an answer in time").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&reply),
        String::from_utf8_lossy(expected)
    );
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    read.expect("the end in time").unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn requests_in_any_pieces_are_answered_in_order() {
    let server = start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    exchange(&mut stream, b"PING\r\n", b"+PONG\r\n").await;
    exchange(
        &mut stream,
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
        b"+OK\r\n",
    )
    .await;
    for byte in b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
    }
    exchange(&mut stream, b"", b"$1\r\nv\r\n").await;
    // Many more than the window, writes and reads of one key.
    let (mut request, mut expected) = (Vec::new(), Vec::new());
    for n in 1..=5_000 {
        request.extend_from_slice(b"INCR n\r\nGET n\r\n");
        expected
            .extend_from_slice(format!(":{n}\r\n${}\r\n{n}\r\n", n.to_string().len()).as_bytes());
    }
    exchange(&mut stream, &request, &expected).await;
    let big = vec![b'x'; 3 << 20];
    let mut request = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", big.len()).into_bytes();
    request.extend_from_slice(&big);
    request.extend_from_slice(b"\r\nSTRLEN big\r\n");
    exchange(
        &mut stream,
        &request,
        format!("+OK\r\n:{}\r\n", big.len()).as_bytes(),
    )
    .await;
}

#[tokio::test]
async fn a_malformed_stream_closes_only_its_own_connection() {
    let server = start(Config::default()).await;
    let mut good = TcpStream::connect(server.address).await.unwrap();
    let mut bad = TcpStream::connect(server.address).await.unwrap();
    bad.write_all(b"INCR n\r\n*1\r\n!\r\nINCR n\r\n")
        .await
        .unwrap();
    let expected = ":1\r\n-ERR Protocol error: expected '$', got '!'\r\n";
    assert_eq!(rest(&mut bad).await, expected);
    exchange(&mut good, b"GET n\r\n", b"$1\r\n1\r\n").await;
}

#[tokio::test]
async fn quit_kill_half_close_and_too_many_clients() {
    let server = start(Config {
        clients_max: 2,
        ..Config::default()
    })
    .await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    exchange(&mut first, b"CLIENT ID\r\n", b":1\r\n").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    exchange(&mut second, b"CLIENT ID\r\n", b":2\r\n").await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        rest(&mut third).await,
        "-ERR max number of clients reached\r\n"
    );
    exchange(&mut first, b"CLIENT KILL ID 2\r\n", b":1\r\n").await;
    assert_eq!(rest(&mut second).await, "");
    first
        .write_all(b"INCR n\r\nQUIT\r\nINCR n\r\n")
        .await
        .unwrap();
    assert_eq!(rest(&mut first).await, ":1\r\n+OK\r\n");
    let mut fourth = TcpStream::connect(server.address).await.unwrap();
    fourth.write_all(b"INCR n\r\nGET n\r\n").await.unwrap();
    fourth.shutdown().await.unwrap();
    assert_eq!(rest(&mut fourth).await, ":2\r\n$1\r\n2\r\n");
}

#[tokio::test]
async fn shutdown_answers_what_was_read() {
    let server = start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    exchange(&mut stream, b"SET k v\r\n", b"+OK\r\n").await;
    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut stream).await, "");
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
