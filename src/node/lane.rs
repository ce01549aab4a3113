//! What waits to be sent to one store: raft envelopes and requests, coalesced into frames.
//!
//! Invariants:
//! - Bounded: envelopes over the bound are dropped (raft sends them again), requests over it
//!   are answered `Busy`. Nobody ever waits for a slow store.
//! - Each request is answered exactly once: by the store, or when the stream ends.
//! - Envelopes of one sender leave in order, and so do requests; everything that was queued
//!   when the stream is ready leaves in one frame, up to [`FRAME_BYTES`].

use super::mailbox::request_bytes;
use super::tokens::{Tokens, Waiting};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use parking_lot::{Mutex, MutexGuard};
use rangekv_proto::convert::{request_to_wire, response_from_wire};
use rangekv_proto::internal as pb;
use rangekv_proto::{Body, ReplySink, RequestError, Response};
use rangekv_router::stores::SentCall;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A frame is closed once it holds this much. One message more may exceed it.
pub const FRAME_BYTES: usize = 4 << 20;
/// No single message is larger: both ends accept frames of [`FRAME_BYTES`] plus one of these.
pub const MESSAGE_BYTES_MAX: usize = 240 << 20;
/// Envelopes waiting for one store. Raft's own windows are below it unless the store is slow.
const RAFT_BYTES_MAX: usize = 32 << 20;
/// Requests in flight to one store, sent or not.
const REQUESTS_MAX: usize = 16_384;
/// Bytes of requests not yet sent.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// The queue towards one store.
#[derive(Default)]
pub struct Lane {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Which connection may take frames; grows with each. 0 = none yet.
    session: u64,
    /// Whether that connection is up.
    open: bool,
    /// Set while the stream that takes frames out found nothing and sleeps.
    waker: Option<Waker>,
    raft: VecDeque<Bytes>,
    raft_bytes: usize,
    requests: VecDeque<pb::Request>,
    request_bytes: usize,
    tokens: Tokens,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.raft.is_empty() && self.requests.is_empty()
    }

    /// Why a request of this size is not taken.
    fn refusal(&self, bytes: usize) -> Option<RequestError> {
        if !self.open {
            let why = "no connection to the store".into();
            return Some(RequestError::Unavailable(why));
        }
        if bytes > MESSAGE_BYTES_MAX {
            let why = format!("a request of {bytes} bytes is over {MESSAGE_BYTES_MAX}");
            return Some(RequestError::Invalid(why));
        }
        let full = self.tokens.len() >= REQUESTS_MAX
            || (self.request_bytes > 0 && self.request_bytes + bytes > REQUEST_BYTES_MAX);
        full.then(|| RequestError::Busy {
            reason: "too many requests in flight to the store".into(),
            retry_after_ms: 20,
        })
    }

    fn push(&mut self, (request, sink, token): SentCall) {
        let harmless = match &request.body {
            Body::Command { read_only, .. } => *read_only,
            Body::Heartbeat(_) => true,
            Body::Admin(_) => false,
        };
        let waiting = Waiting {
            sink,
            token,
            harmless,
            sent: false,
        };
        let stream_token = self.tokens.insert(waiting);
        self.request_bytes += request_bytes(&request);
        self.requests
            .push_back(request_to_wire(stream_token, request));
    }
}

impl Lane {
    /// Queues envelopes (encoded); `false` = dropped.
    pub fn push_raft(&self, envelopes: Bytes) -> bool {
        let mut queue = self.queue.lock();
        if !queue.open || queue.raft_bytes + envelopes.len() > RAFT_BYTES_MAX.max(envelopes.len()) {
            return false;
        }
        queue.raft_bytes += envelopes.len();
        queue.raft.push_back(envelopes);
        wake(queue);
        true
    }

    /// Queues requests in order under one lock, and answers at once those that don't fit.
    pub fn push_calls(&self, calls: impl Iterator<Item = SentCall>) {
        let mut refused: Vec<(Arc<dyn ReplySink>, u64, RequestError)> = Vec::new();
        let mut queue = self.queue.lock();
        for call in calls {
            // Once one is refused, so are those behind it: their order survives a retry.
            let error = match refused.last() {
                Some((.., error)) => Some(error.clone()),
                None => queue.refusal(request_bytes(&call.0)),
            };
            match error {
                Some(error) => refused.push((call.1, call.2, error)),
                None => queue.push(call),
            }
        }
        wake(queue);
        for (sink, token, error) in refused {
            sink.complete(token, Err(error));
        }
    }

    /// Completes requests by the store's responses.
    pub fn complete(&self, responses: Vec<pb::Response>) {
        let mut ready: Vec<(Waiting, Response)> = Vec::with_capacity(responses.len());
        {
            let mut queue = self.queue.lock();
            for wire in responses {
                let (token, response) = response_from_wire(wire);
                match queue.tokens.remove(token) {
                    Some(waiting) => ready.push((waiting, response)),
                    None => tracing::warn!(token, "a response to no request"),
                }
            }
        }
        let mut sinks = Vec::with_capacity(ready.len());
        for (Waiting { sink, token, .. }, response) in ready {
            sink.deposit(token, response);
            sinks.push(sink);
        }
        sinks.iter().for_each(|sink| sink.nudge());
    }

    /// Begins a connection: its frames, to be sent as soon as [`open`](Self::open) is called.
    pub fn frames(self: &Arc<Self>) -> Frames {
        let mut queue = self.queue.lock();
        assert!(!queue.open, "the connection before this one has not ended");
        queue.session += 1;
        Frames {
            lane: self.clone(),
            session: queue.session,
        }
    }

    /// The connection is up.
    pub fn open(&self) {
        self.queue.lock().open = true;
    }

    /// Whether the connection is up.
    pub fn is_open(&self) -> bool {
        self.queue.lock().open
    }

    /// The connection has ended: drops envelopes, answers all requests. Returns whether it was up.
    pub fn close(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.raft.clear();
        queue.raft_bytes = 0;
        queue.requests.clear();
        queue.request_bytes = 0;
        let was_open = std::mem::take(&mut queue.open);
        let waiting = queue.tokens.drain();
        drop(queue);
        for Waiting {
            sink,
            token,
            harmless,
            sent,
        } in waiting
        {
            let why = "the connection to the store broke".to_string();
            sink.complete(
                token,
                Err(match sent && !harmless {
                    true => RequestError::OutcomeUnknown(why),
                    false => RequestError::Unavailable(why),
                }),
            );
        }
        was_open
    }
}

/// The stream of frames of one connection.
pub struct Frames {
    lane: Arc<Lane>,
    session: u64,
}

impl Stream for Frames {
    type Item = pb::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<pb::Frame>> {
        let mut queue = self.lane.queue.lock();
        if queue.session != self.session {
            return Poll::Ready(None);
        }
        if queue.is_idle() {
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(take_frame(&mut queue)))
    }
}

/// Unlocks, then wakes: the woken thread does not run into the lock.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn take_frame(queue: &mut Queue) -> pb::Frame {
    let mut bytes = 0;
    let mut raft: Vec<Bytes> = Vec::with_capacity(queue.raft.len());
    while bytes < FRAME_BYTES {
        let Some(envelopes) = queue.raft.pop_front() else {
            break;
        };
        bytes += envelopes.len();
        raft.push(envelopes);
    }
    queue.raft_bytes -= bytes;
    let mut requests = Vec::with_capacity(queue.requests.len());
    while bytes < FRAME_BYTES {
        let Some(request) = queue.requests.pop_front() else {
            break;
        };
        bytes += wire_bytes(&request);
        queue.tokens.mark_sent(request.token);
        queue.request_bytes -= wire_bytes(&request);
        requests.push(request);
    }
    pb::Frame {
        raft: concat(raft),
        requests,
        responses: Vec::new(),
    }
}

/// Encodings of envelopes are self-delimiting: one after the other is an encoding again.
fn concat(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.remove(0),
        _ => {
            let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| all.extend_from_slice(part));
            all.freeze()
        }
    }
}

/// As [`request_bytes`], of the wire form.
fn wire_bytes(request: &pb::Request) -> usize {
    use pb::request::Body as Wire;
    let body = match &request.body {
        Some(Wire::Command(command)) => command.command.len(),
        Some(Wire::Admin(bytes) | Wire::Heartbeat(bytes)) => bytes.len(),
        None => 0,
    };
    body + 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use rangekv_proto::convert::response_to_wire;
    use rangekv_proto::{EvaluatorId, RangeId, Request};

    #[derive(Default)]
    struct Answers(Mutex<Vec<(u64, Response)>>);
    impl ReplySink for Answers {
        fn complete(&self, token: u64, response: Response) {
            self.0.lock().push((token, response));
        }
    }

    fn request(read_only: bool) -> Request {
        let command = Bytes::from_static(b"x");
        let body = Body::Command {
            evaluator: EvaluatorId::REDIS,
            read_only,
            command,
        };
        Request {
            range: RangeId(2),
            version: 1,
            term: 0,
            body,
        }
    }

    fn push(lane: &Lane, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        lane.push_calls(std::iter::once((request, sink.clone(), token)));
    }

    fn opened() -> (Arc<Lane>, Frames, Arc<Answers>, Arc<dyn ReplySink>) {
        let lane = Arc::new(Lane::default());
        let frames = lane.frames();
        lane.open();
        let answers = Arc::new(Answers::default());
        (lane, frames, answers.clone(), answers)
    }

    #[test]
    fn all_that_is_queued_leaves_in_one_frame_in_order() {
        let (lane, mut frames, answers, sink) = opened();
        lane.push_raft(Bytes::from_static(b"ab"));
        push(&lane, request(false), &sink, 70);
        lane.push_raft(Bytes::from_static(b"c"));
        push(&lane, request(false), &sink, 71);
        let frame = futures::executor::block_on(frames.next()).unwrap();
        assert_eq!(&frame.raft[..], b"abc");
        let tokens: Vec<u64> = frame.requests.iter().map(|r| r.token).collect();
        let reply = |t: &u64| response_to_wire(*t, Ok(Bytes::from(t.to_string())));
        lane.complete(tokens.iter().rev().map(reply).collect());
        let answers: Vec<u64> = answers.0.lock().iter().map(|a| a.0).collect();
        assert_eq!(answers, [71, 70]);
        assert!(poll_once(frames.next()).is_none(), "nothing is left");
    }

    fn poll_once<F: std::future::Future + Unpin>(mut future: F) -> Option<F::Output> {
        let waker = futures::task::noop_waker();
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn when_the_stream_breaks_only_sent_writes_are_unknown() {
        let (lane, mut frames, answers, sink) = opened();
        push(&lane, request(false), &sink, 1);
        push(&lane, request(true), &sink, 2);
        futures::executor::block_on(frames.next()).unwrap();
        push(&lane, request(false), &sink, 3);
        assert!(lane.close());
        push(&lane, request(false), &sink, 4);
        let answers = answers.0.lock();
        assert!(
            matches!(
                &answers[..],
                [
                    (1, Err(RequestError::OutcomeUnknown(_))),
                    (2, Err(RequestError::Unavailable(_))),
                    (3, Err(RequestError::Unavailable(_))),
                    (4, Err(RequestError::Unavailable(_))),
                ]
            ),
            "{answers:?}"
        );
        assert!(!lane.push_raft(Bytes::from_static(b"x")));
    }

    #[test]
    fn a_connection_takes_no_frames_of_its_successor() {
        let (lane, mut old, _, _) = opened();
        lane.close();
        let mut new = lane.frames();
        lane.open();
        lane.push_raft(Bytes::from_static(b"x"));
        assert!(futures::executor::block_on(old.next()).is_none());
        assert_eq!(
            &futures::executor::block_on(new.next()).unwrap().raft[..],
            b"x"
        );
    }

    #[test]
    fn drops_envelopes_over_the_bound_and_splits_large_frames() {
        let (lane, mut frames, _, _) = opened();
        let part = Bytes::from(vec![1; FRAME_BYTES / 2]);
        let mut taken = 0;
        while lane.push_raft(part.clone()) {
            taken += 1;
        }
        assert_eq!(taken, RAFT_BYTES_MAX / part.len());
        for _ in 0..taken / 2 {
            let frame = futures::executor::block_on(frames.next()).unwrap();
            assert_eq!(frame.raft.len(), FRAME_BYTES);
        }
        assert!(poll_once(frames.next()).is_none());
        assert!(
            lane.push_raft(Bytes::from(vec![1; RAFT_BYTES_MAX + 1])),
            "alone it fits, whatever its size"
        );
    }

    #[test]
    fn answers_busy_when_too_much_is_in_flight() {
        let (lane, _frames, answers, sink) = opened();
        for token in 0..=REQUESTS_MAX as u64 {
            push(&lane, request(false), &sink, token);
        }
        let answers = answers.0.lock();
        assert!(
            matches!(answers[..], [(t, Err(RequestError::Busy { .. }))] if t == REQUESTS_MAX as u64)
        );
    }
}
