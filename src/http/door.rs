//! Ports for HTTP: connections, counted and bounded; and what is said to those who meant another.
//!
//! HTTP/1.1 for people and scripts. HTTP/2 is spoken as well, so that a gRPC client that was
//! given the wrong port is told so in its own words.

use super::site::{self, Site};
use crate::node::options::Listen;
use axum::serve::Listener;
use rangekv_router::metrics::DoorMetrics;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Connections to the status at the same time: it has few readers.
const STATUS_CONNECTIONS_MAX: u64 = 512;

/// What a door counts.
pub struct DoorCounters {
    /// Requests by path or operation, errors by status or kind.
    pub metrics: DoorMetrics,
    connections_max: u64,
    accepted: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
}

impl DoorCounters {
    /// Of the status, for requests of `paths`.
    pub fn status(paths: Vec<&'static str>) -> Arc<Self> {
        let metrics = DoorMetrics::new(paths, &["400", "404", "405", "415", "503"]);
        Self::new(metrics, STATUS_CONNECTIONS_MAX)
    }

    /// All at 0; connections beyond `connections_max` at the same time are refused.
    pub fn new(metrics: DoorMetrics, connections_max: u64) -> Arc<Self> {
        Arc::new(DoorCounters {
            metrics,
            connections_max,
            accepted: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.accepted().saturating_sub(closed)
    }

    /// Connections refused so far, because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Listens where `listen` says. If nobody asked for that very address and another process has
/// it, the store goes on without: a database shall not fail for the sake of its status page.
pub async fn bind(listen: &Listen, asked_for: bool) -> anyhow::Result<Option<TcpListener>> {
    match crate::node::listen::bind("HTTP", "--http-address", listen).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if asked_for => Err(error),
        Err(error) => {
            let error = crate::node::entry::with_causes(&error);
            tracing::warn!(error, "no status over HTTP");
            Ok(None)
        }
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, site: Arc<Site>) -> anyhow::Result<()> {
    let counted = Counted::new(listener, site.door.clone());
    axum::serve(counted, site::routes(site)).await?;
    Ok(())
}

/// A listener whose connections are counted.
pub struct Counted {
    listener: TcpListener,
    door: Arc<DoorCounters>,
}

impl Counted {
    /// `listener`, whose connections count into `door`.
    pub fn new(listener: TcpListener, door: Arc<DoorCounters>) -> Self {
        Counted { listener, door }
    }
}

impl Listener for Counted {
    type Io = CountedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CountedStream, SocketAddr) {
        let door = &self.door;
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of one connection, or out of file descriptors: others give theirs back.
                    tracing::debug!(%error, "can't accept an HTTP connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if door.connections() >= door.connections_max {
                door.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "can't set options of an HTTP connection");
            }
            let number = door.accepted.fetch_add(1, Ordering::Relaxed);
            let counted = CountedStream {
                stream,
                door: door.clone(),
                number,
            };
            return (counted, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection whose bytes are counted.
pub struct CountedStream {
    stream: TcpStream,
    door: Arc<DoorCounters>,
    number: u64,
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.door.closed.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let stripe = self.door.metrics.stripe(self.number);
        stripe.received(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.door.metrics.stripe(self.number).sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
