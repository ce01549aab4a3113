//! Streams range snapshots to other stores: a few threads, one at a time each, under a
//! common rate limit, on connections of their own, so that raft's messages never wait behind.
//!
//! Every snapshot handed in ends in one `Event::SnapshotSent`, delivered or not.

use super::book::AddressBook;
use super::chunks::Encoder;
use super::dial::dial;
use super::greeting::Greeting;
use super::identity::Identity;
use super::mailbox::Mailbox;
use crate::trace::Tracer;
use crossbeam::channel::{bounded, Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use rangekv_proto::internal::{SnapshotAck, SnapshotChunk};
use rangekv_store::event::{Event, SnapshotToSend};
use rangekv_store::meta::data_bounds;
use rangekv_store::metrics::{Direction, Metrics};
use rangekv_store::wire;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The receiver takes a chunk within this, or the snapshot has failed.
const STALL_MAX: Duration = Duration::from_secs(20);
/// After the last chunk: the receiver completes its file.
const FINISH_MAX: Duration = Duration::from_secs(30);
/// Snapshots that wait, per thread. Each holds a view of the whole state, which keeps old
/// versions of records alive; raft asks again for those that are refused.
const WAITING_PER_THREAD: usize = 2;

/// Hands snapshots to the threads.
pub struct SnapshotSender {
    queue: Sender<SnapshotToSend>,
    mailbox: Arc<Mailbox>,
}

/// What the threads share.
struct Shared {
    me: Identity,
    book: Arc<AddressBook>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
    runtime: Handle,
    limit: RateLimit,
}

impl SnapshotSender {
    /// Starts `threads` threads that send `bytes_per_second` in all.
    #[allow(clippy::too_many_arguments)]
    pub fn spawn(
        threads: usize,
        bytes_per_second: u64,
        me: Identity,
        book: Arc<AddressBook>,
        mailbox: Arc<Mailbox>,
        metrics: Arc<Metrics>,
        tracer: Option<Arc<Tracer>>,
        runtime: Handle,
    ) -> std::io::Result<Self> {
        let (queue, work) = bounded(threads * WAITING_PER_THREAD);
        let shared = Arc::new(Shared {
            me,
            book,
            mailbox: mailbox.clone(),
            metrics,
            tracer,
            runtime,
            limit: RateLimit::new(bytes_per_second),
        });
        for n in 0..threads {
            let (shared, work) = (shared.clone(), work.clone());
            std::thread::Builder::new()
                .name(format!("snapshots-{n}"))
                .spawn(move || shared.run(&work))?;
        }
        Ok(SnapshotSender { queue, mailbox })
    }

    /// Streams `snapshot` when a thread is free; fails it if too many wait. Never blocks.
    pub fn send(&self, snapshot: SnapshotToSend) {
        if let Err(TrySendError::Full(s) | TrySendError::Disconnected(s)) =
            self.queue.try_send(snapshot)
        {
            self.mailbox.push(outcome(&s, false));
        }
    }
}

fn outcome(snapshot: &SnapshotToSend, ok: bool) -> Event {
    Event::SnapshotSent {
        range: snapshot.range.id,
        to: snapshot.envelope.to,
        ok,
    }
}

impl Shared {
    fn run(&self, work: &Receiver<SnapshotToSend>) {
        for snapshot in work {
            let (group, to) = (snapshot.range.id.0, snapshot.to.0);
            let began = Instant::now();
            let work = self
                .tracer
                .as_ref()
                .map(|tracer| tracer.begin("snapshot send"));
            let sent = self.stream(&snapshot);
            if let Some(work) = work {
                work.with("rangekv.range", group as i64)
                    .with("rangekv.to", to as i64)
                    .with("rangekv.bytes", *sent.as_ref().unwrap_or(&0) as i64)
                    .end(sent.clone().err());
            }
            match &sent {
                Ok(bytes) => {
                    tracing::info!(group, to, bytes, elapsed = ?began.elapsed(), "snapshot sent");
                }
                Err(error) => tracing::warn!(group, to, error, "snapshot not sent"),
            }
            self.mailbox.push(outcome(&snapshot, sent.is_ok()));
        }
    }

    /// Sends all chunks and waits for the receiver's word; the bytes sent.
    fn stream(&self, snapshot: &SnapshotToSend) -> Result<u64, String> {
        let entry = self.book.get(snapshot.to).filter(|e| !e.grpc.is_empty());
        let entry = entry.ok_or("the receiver's address is unknown")?;
        let greeting = Greeting::new(&self.me, snapshot.to, entry.incarnation);
        // Two chunks under way: one is read from disk while the other travels.
        let (chunks, stream) = mpsc::channel::<SnapshotChunk>(2);
        let call = self.runtime.spawn(async move {
            let mut request = tonic::Request::new(ReceiverStream::new(stream));
            greeting.put(request.metadata_mut());
            let mut client = dial(&entry.grpc).await?;
            client
                .send_snapshot(request)
                .await
                .map(tonic::Response::into_inner)
        });

        let mut encoder = Encoder::new(wire::encode([&snapshot.envelope]));
        let mut bytes = 0;
        let mut push = |chunk: SnapshotChunk| {
            bytes += chunk.records.len() as u64;
            let sent = self.metrics.snapshot_bytes.of(Direction::Sent);
            sent.add(chunk.records.len() as u64);
            self.limit.wait(chunk.records.len() as u64);
            // The timer is made inside: this is no thread of the runtime.
            let send = async { tokio::time::timeout(STALL_MAX, chunks.send(chunk)).await };
            matches!(self.runtime.block_on(send), Ok(Ok(())))
        };
        let (start, end) = data_bounds(&snapshot.range);
        let mut taken = true;
        snapshot.state.scan(&start, &end, &mut |key, value| {
            taken = encoder.add(key, value).is_none_or(&mut push);
            if taken {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        taken = taken && push(encoder.finish());
        drop(chunks);
        let abort = call.abort_handle();
        let ended = async { tokio::time::timeout(FINISH_MAX, call).await };
        let ended = self.runtime.block_on(ended);
        abort.abort();
        match ended {
            Ok(Ok(Ok(SnapshotAck { accepted: true, .. }))) if taken => Ok(bytes),
            Ok(Ok(Ok(ack))) => Err(format!("refused: {}", ack.reason)),
            Ok(Ok(Err(status))) => Err(status.message().to_string()),
            Ok(Err(lost)) => Err(lost.to_string()),
            Err(_) => Err(format!("no answer within {FINISH_MAX:?} of the last chunk")),
        }
    }
}

/// Spaces out what all threads send.
struct RateLimit {
    bytes_per_second: u64,
    /// When all that was let through so far has passed at the limit's rate.
    free_at: Mutex<Instant>,
}

impl RateLimit {
    fn new(bytes_per_second: u64) -> Self {
        RateLimit {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Sleeps until `bytes` may pass.
    fn wait(&self, bytes: u64) {
        std::thread::sleep(self.reserve(bytes, Instant::now()));
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Duration {
        let mut free_at = self.free_at.lock();
        let begin = (*free_at).max(now);
        *free_at = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        begin - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_limit_spaces_out_what_passes_and_saves_nothing_up() {
        let limit = RateLimit::new(1000);
        let now = Instant::now();
        let seconds = |s: f64| Duration::from_secs_f64(s);
        assert_eq!(limit.reserve(500, now), Duration::ZERO);
        assert_eq!(limit.reserve(250, now), seconds(0.5));
        assert_eq!(limit.reserve(1, now), seconds(0.75));
        let later = now + seconds(100.0);
        assert_eq!(limit.reserve(1000, later), Duration::ZERO);
        assert_eq!(
            limit.reserve(1, later),
            seconds(1.0),
            "idle time is not credit"
        );
    }
}
