//! The Redis port of a store that waits for its seat: every command is answered at once, by
//! an error that clients retry. Connections end when the seat is taken, so that clients
//! come again and find the real door.

use super::seat::Seat;
use bytes::BytesMut;
use rangekv_model::redis::reply;
use rangekv_router::resp::{Limits, Parser};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A client that sends a command of this size without an end is cut off.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Serves until `seat` is taken.
pub async fn serve(listener: &TcpListener, seat: &Arc<Seat>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = seat.taken() => return, // Dropping the set ends all connections.
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(refuse(stream, seat.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the Redis port can't accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn refuse(mut stream: TcpStream, seat: Arc<Seat>) -> std::io::Result<()> {
    let limits = Limits {
        request_bytes_max: BUFFER_BYTES_MAX,
        ..Limits::default()
    };
    let (mut parser, mut buffer, mut args) = (Parser::new(limits), BytesMut::new(), Vec::new());
    while stream.read_buf(&mut buffer).await? > 0 {
        loop {
            match parser.next(&mut buffer, &mut args) {
                Ok(true) if args[0].eq_ignore_ascii_case(b"PING") => {
                    stream.write_all(b"+PONG\r\n").await?;
                }
                // By this `CLUSTER MEET` finds where a store takes a seat.
                Ok(true) if args[0].eq_ignore_ascii_case(b"INFO") => {
                    let (name, grpc) = (seat.name(), &seat.addresses().grpc);
                    let info =
                        format!("# Server\r\nrangekv_node:{name}\r\nrangekv_grpc:{grpc}\r\n");
                    stream.write_all(&reply::bulk(info.as_bytes())).await?;
                }
                Ok(true) => stream.write_all(error(&seat).as_bytes()).await?,
                Ok(false) => break,
                Err(malformed) => {
                    let reply = format!("-{malformed}\r\n");
                    return stream.write_all(reply.as_bytes()).await;
                }
            }
        }
    }
    Ok(())
}

fn error(seat: &Seat) -> String {
    let why = match seat.notice() {
        Some(notice) => notice,
        None => "no member of a cluster has given it a place yet".into(),
    };
    format!(
        "-CLUSTERDOWN {} is waiting to be initialised: {why}\r\n",
        seat.name()
    )
}
