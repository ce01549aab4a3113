//! What waits to be sent to one store: raft envelopes and requests, coalesced into frames.
//!
//! Invariants:
//! - Bounded: envelopes over the bound are dropped (raft sends them again), requests over it
//!   are answered `Busy`. Nobody ever waits for a slow store.
//! - Pub/Sub messages have a bound of their own, and frames of their own, which take turns with
//!   those of everything else: they hold up neither Raft nor requests.
//! - Each request is answered exactly once: by the store, or when the link ends.
//! - Envelopes of one sender leave in order, and so do requests; everything that was queued
//!   when the link is ready leaves in one frame, up to [`FRAME_BYTES`].

use super::frame::{Messages, Parts, FRAME_BYTES, MESSAGE_BYTES_MAX};
use super::link::{Sending, Understood};
use super::mailbox::request_bytes;
use super::outlet::{Outlet, Source};
use super::tokens::{Tokens, Waiting};
use bytes::Bytes;
use rangekv_proto::frame::{get_response, put_request};
use rangekv_proto::{Body, Mark, ReplySink, RequestError, Response};
use rangekv_router::stores::SentCall;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;

/// Envelopes waiting for one store. Raft's own windows are below it unless the store is slow.
const RAFT_BYTES_MAX: usize = 32 << 20;
/// Requests in flight to one store, sent or not.
const REQUESTS_MAX: usize = 16_384;
/// Bytes of requests not yet sent.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Pub/Sub messages in flight to one store, sent or not,
const PUBSUB_MESSAGES_MAX: usize = 65_536;
/// and their bytes.
const PUBSUB_BYTES_MAX: usize = 64 << 20;
/// A frame of them is closed once it holds this much: what comes after it waits no longer.
const PUBSUB_FRAME_BYTES: usize = 256 << 10;

/// The queue towards one store.
#[derive(Default)]
pub struct Lane(Outlet<Queue>);

/// What waits.
pub struct Queue {
    raft: VecDeque<Bytes>,
    raft_bytes: usize,
    requests: Messages,
    /// The tokens of `requests`, in order.
    unsent: VecDeque<u64>,
    pubsub: Messages,
    /// The tokens of `pubsub`, in order.
    pubsub_unsent: VecDeque<u64>,
    /// Pub/Sub messages without an answer.
    pubsub_count: usize,
    pubsub_bytes: usize,
    /// The next frame is one of Pub/Sub, if there is any.
    pubsub_turn: bool,
    tokens: Tokens,
    understood: Understood,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            raft: VecDeque::new(),
            raft_bytes: 0,
            requests: Messages::default(),
            unsent: VecDeque::new(),
            pubsub: Messages::in_frames_of(PUBSUB_FRAME_BYTES),
            pubsub_unsent: VecDeque::new(),
            pubsub_count: 0,
            pubsub_bytes: 0,
            pubsub_turn: false,
            tokens: Tokens::default(),
            understood: Understood::default(),
        }
    }
}

impl Queue {
    /// Why a request of this size is not taken by an open lane.
    fn refusal(&self, bytes: usize) -> Option<RequestError> {
        if bytes > MESSAGE_BYTES_MAX {
            let why = format!("a request of {bytes} bytes is over {MESSAGE_BYTES_MAX}");
            return Some(RequestError::Invalid(why));
        }
        let full = self.tokens.len() - self.pubsub_count >= REQUESTS_MAX
            || (!self.requests.is_empty() && self.requests.bytes() + bytes > REQUEST_BYTES_MAX);
        full.then(|| RequestError::Busy {
            reason: "too many requests in flight to the store".into(),
            retry_after_ms: 20,
        })
    }

    /// As [`refusal`](Self::refusal), for a Pub/Sub message.
    fn pubsub_refusal(&self, bytes: usize) -> Option<RequestError> {
        let full = self.pubsub_count >= PUBSUB_MESSAGES_MAX
            || (self.pubsub_count > 0 && self.pubsub_bytes + bytes > PUBSUB_BYTES_MAX);
        full.then(|| RequestError::Busy {
            reason: "too many Pub/Sub messages in flight to the store".into(),
            retry_after_ms: 20,
        })
    }

    fn push(&mut self, (mut request, sink, token): SentCall) {
        if !self.understood.traces {
            request.mark = Mark::NONE;
        }
        let harmless = match &request.body {
            Body::Command { read_only, .. } => *read_only,
            Body::Heartbeat(_) | Body::PubSub(_) => true,
            Body::Admin(_) => false,
        };
        let pubsub = match &request.body {
            Body::PubSub(message) => Some(message.len()),
            _ => None,
        };
        let waiting = Waiting {
            sink,
            token,
            harmless,
            sent: false,
            pubsub,
        };
        let token = self.tokens.insert(waiting);
        if let Some(bytes) = pubsub {
            self.pubsub_count += 1;
            self.pubsub_bytes += bytes;
            self.pubsub_unsent.push_back(token);
            self.pubsub
                .push(|buffer| put_request(buffer, token, &request));
            return;
        }
        self.unsent.push_back(token);
        self.requests
            .push(|buffer| put_request(buffer, token, &request));
    }
}

impl Lane {
    /// Queues envelopes (encoded); `false` = dropped.
    pub fn push_raft(&self, envelopes: Bytes) -> bool {
        let mut queue = self.0.lock();
        if !queue.is_open()
            || queue.raft_bytes + envelopes.len() > RAFT_BYTES_MAX.max(envelopes.len())
        {
            return false;
        }
        queue.raft_bytes += envelopes.len();
        queue.raft.push_back(envelopes);
        self.0.send(queue);
        true
    }

    /// Queues requests in order under one lock, and answers at once those that don't fit.
    pub fn push_calls(&self, calls: impl Iterator<Item = SentCall>) {
        let mut refused: Vec<(Arc<dyn ReplySink>, u64, RequestError)> = Vec::new();
        // Messages are not sent again: others need not be refused for their sake.
        let mut unheard: Vec<(Arc<dyn ReplySink>, u64, RequestError)> = Vec::new();
        let mut queue = self.0.lock();
        for call in calls {
            if let Body::PubSub(message) = &call.0.body {
                let error = match queue.is_open() {
                    true => queue.pubsub_refusal(message.len()),
                    false => {
                        let why = "no connection to the store".into();
                        Some(RequestError::Unavailable(why))
                    }
                };
                match error {
                    Some(error) => unheard.push((call.1, call.2, error)),
                    None => queue.push(call),
                }
                continue;
            }
            // Once one is refused, so are those behind it: their order survives a retry.
            let error = match refused.last() {
                Some((.., error)) => Some(error.clone()),
                None if !queue.is_open() => {
                    let why = "no connection to the store".into();
                    Some(RequestError::Unavailable(why))
                }
                None => queue.refusal(request_bytes(&call.0)),
            };
            match error {
                Some(error) => refused.push((call.1, call.2, error)),
                None => queue.push(call),
            }
        }
        self.0.send(queue);
        for (sink, token, error) in refused.into_iter().chain(unheard) {
            sink.complete(token, Err(error));
        }
    }

    /// Completes requests by the store's responses.
    pub fn complete(&self, mut responses: Bytes) {
        let mut ready: Vec<(Waiting, Response)> = Vec::new();
        {
            let mut queue = self.0.lock();
            while !responses.is_empty() {
                match get_response(&mut responses) {
                    Ok((token, response)) => match queue.tokens.remove(token) {
                        Some(waiting) => {
                            if let Some(bytes) = waiting.pubsub {
                                queue.pubsub_count -= 1;
                                queue.pubsub_bytes -= bytes;
                            }
                            ready.push((waiting, response));
                        }
                        None => tracing::warn!(token, "a response to no request"),
                    },
                    Err(error) => {
                        // Whoever waits for the rest hears at its deadline.
                        tracing::error!(%error, "responses of another version");
                        break;
                    }
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

    /// The connection is up, to a store that understands so much; returns the number of its session.
    pub fn open(&self, link: Arc<TcpStream>, understood: Understood) -> u64 {
        let session = self.0.open(link);
        self.0.lock().understood = understood;
        session
    }

    /// Whether the connection is up.
    pub fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    /// The connection has ended: drops envelopes, answers all requests. Returns whether it was up.
    pub fn close(&self) -> bool {
        let (was_open, mut queue) = self.0.close();
        let tokens = std::mem::take(&mut queue.tokens);
        **queue = Queue::default();
        // Its generations go on: an answer that comes late meets nobody else's request.
        queue.tokens = tokens;
        let waiting = queue.tokens.drain();
        drop(queue);
        for Waiting {
            sink,
            token,
            harmless,
            sent,
            ..
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

impl Sending for Lane {
    fn resume(&self, session: u64) {
        self.0.resume(session);
    }
    fn show_life(&self) {
        self.0.show_life();
    }
}

impl Source for Queue {
    fn take(&mut self) -> Option<Parts> {
        let nothing_else = self.raft.is_empty() && self.requests.is_empty();
        if (nothing_else || self.pubsub_turn) && !self.pubsub.is_empty() {
            self.pubsub_turn = false;
            let (messages, count) = self.pubsub.take();
            for token in self.pubsub_unsent.drain(..count) {
                self.tokens.mark_sent(token);
            }
            return Some(Parts::new(Vec::new(), messages, Bytes::new()));
        }
        if nothing_else {
            return None;
        }
        self.pubsub_turn = true;
        let mut bytes = 0;
        let mut raft: Vec<Bytes> = Vec::with_capacity(self.raft.len());
        while bytes < FRAME_BYTES {
            let Some(envelopes) = self.raft.pop_front() else {
                break;
            };
            bytes += envelopes.len();
            raft.push(envelopes);
        }
        self.raft_bytes -= bytes;
        let mut requests = Bytes::new();
        if bytes < FRAME_BYTES {
            let (taken, count) = self.requests.take();
            for token in self.unsent.drain(..count) {
                self.tokens.mark_sent(token);
            }
            requests = taken;
        }
        Some(Parts::new(raft, requests, Bytes::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::frame::Frame;
    use crate::node::link::testing::{opened, Far};
    use bytes::BytesMut;
    use parking_lot::Mutex;
    use rangekv_proto::frame::{get_request, put_response};
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
            mark: Mark::NONE,
            body,
        }
    }

    fn push(lane: &Lane, request: Request, sink: &Arc<dyn ReplySink>, token: u64) {
        lane.push_calls(std::iter::once((request, sink.clone(), token)));
    }

    fn open(lane: &Arc<Lane>) -> Far {
        open_to(lane, Understood::default())
    }

    fn open_to(lane: &Arc<Lane>, understood: Understood) -> Far {
        opened(lane.clone(), |link| lane.open(link, understood))
    }

    #[test]
    fn only_a_store_that_understands_it_hears_that_a_request_is_traced() {
        for traces in [false, true] {
            let (lane, _, sink) = lane();
            let mut far = open_to(&lane, Understood { traces });
            let traced = Request {
                mark: Mark(9),
                ..request(false)
            };
            push(&lane, traced, &sink, 1);
            let mut requests = far.next().unwrap().requests;
            let mark = get_request(&mut requests).unwrap().1.mark;
            assert_eq!(mark, Mark(if traces { 9 } else { 0 }));
        }
    }

    fn tokens(frame: &Frame) -> Vec<u64> {
        let (mut requests, mut tokens) = (frame.requests.clone(), Vec::new());
        while !requests.is_empty() {
            tokens.push(get_request(&mut requests).unwrap().0);
        }
        tokens
    }

    fn lane() -> (Arc<Lane>, Arc<Answers>, Arc<dyn ReplySink>) {
        let answers = Arc::new(Answers::default());
        (Arc::default(), answers.clone(), answers)
    }

    #[test]
    fn what_is_queued_together_leaves_in_one_frame_in_order() {
        let (lane, answers, sink) = lane();
        let mut far = open(&lane);
        {
            let mut queue = lane.0.lock();
            queue
                .raft
                .extend([&b"ab"[..], b"c"].map(Bytes::from_static));
            queue.raft_bytes = 3;
        }
        let calls = [70, 71].map(|token| (request(false), sink.clone(), token));
        lane.push_calls(calls.into_iter());
        let frame = far.next().unwrap();
        assert_eq!(&frame.raft[..], b"abc");
        let mut responses = BytesMut::new();
        for token in tokens(&frame).into_iter().rev() {
            put_response(&mut responses, token, &Ok(Bytes::new()));
        }
        lane.complete(responses.freeze());
        let answers: Vec<u64> = answers.0.lock().iter().map(|a| a.0).collect();
        assert_eq!(answers, [71, 70]);
        assert!(lane.0.lock().take().is_none(), "nothing is left");
    }

    #[test]
    fn when_the_link_breaks_only_sent_writes_are_unknown() {
        let (lane, answers, sink) = lane();
        let _far = open(&lane);
        push(&lane, request(false), &sink, 1);
        push(&lane, request(true), &sink, 2);
        {
            // As if the socket were full.
            let mut queue = lane.0.lock();
            queue.push((request(false), sink.clone(), 3));
        }
        assert!(lane.close());
        assert!(!lane.close());
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
    fn a_new_connection_gets_nothing_of_the_old_one() {
        let (lane, answers, sink) = lane();
        let mut old = open(&lane);
        lane.0.lock().raft.push_back(Bytes::from_static(b"o"));
        lane.0.lock().raft_bytes = 1;
        lane.close();
        old.hang_up();
        let mut new = open(&lane);
        lane.push_raft(Bytes::from_static(b"x"));
        push(&lane, request(false), &sink, 9);
        assert_eq!(&new.next().unwrap().raft[..], b"x");
        assert!(old.next().is_none());
        assert!(answers.0.lock().is_empty());
    }

    #[test]
    fn drops_envelopes_over_the_bound_and_writes_the_rest_when_there_is_room() {
        let (lane, _, _) = lane();
        let mut far = open(&lane);
        let part = Bytes::from(vec![1; FRAME_BYTES / 2]);
        let mut taken = 0;
        while lane.push_raft(part.clone()) {
            taken += 1;
        }
        assert!(taken >= RAFT_BYTES_MAX / part.len(), "{taken} parts");
        let mut received = 0;
        while received < taken * part.len() {
            let frame = far.next().unwrap();
            assert!(frame.raft.len() <= FRAME_BYTES, "{}", frame.raft.len());
            received += frame.raft.len();
        }
        assert!(
            lane.push_raft(Bytes::from(vec![1; RAFT_BYTES_MAX + 1])),
            "alone it fits, whatever its size"
        );
    }

    #[test]
    fn messages_take_turns_with_the_rest_and_have_a_bound_of_their_own() {
        let (lane, answers, sink) = lane();
        let message = |bytes: usize| Request {
            range: RangeId(0),
            version: 0,
            term: 0,
            mark: Mark::NONE,
            body: Body::PubSub(Bytes::from(vec![7; bytes])),
        };
        let frames: Vec<(usize, usize)> = {
            let _far = open(&lane);
            let mut queue = lane.0.lock();
            for token in 0..3 {
                queue.push((message(PUBSUB_FRAME_BYTES), sink.clone(), token));
            }
            queue.push((request(false), sink.clone(), 3));
            queue.raft.push_back(Bytes::from_static(b"r"));
            queue.raft_bytes = 1;
            let mut frames = Vec::new();
            while let Some(parts) = queue.take() {
                // As if Raft always had something to say.
                if frames.len() < 4 {
                    queue.raft.push_back(Bytes::from_static(b"r"));
                    queue.raft_bytes += 1;
                }
                frames.push((parts.bytes(), queue.pubsub_unsent.len()));
            }
            frames
        };
        let unsent: Vec<usize> = frames.iter().map(|frame| frame.1).collect();
        assert_eq!(unsent, [3, 2, 2, 1, 1, 0], "{frames:?}");
        lane.close();
        answers.0.lock().clear();
        let _far = open(&lane);
        let half = PUBSUB_BYTES_MAX / 2 + 1;
        for token in 0..2 {
            push(&lane, message(half), &sink, token);
        }
        push(&lane, request(false), &sink, 2);
        let answers = answers.0.lock();
        assert!(
            matches!(answers[..], [(1, Err(RequestError::Busy { .. }))]),
            "{answers:?}"
        );
    }

    #[test]
    fn answers_busy_when_too_much_is_in_flight() {
        let (lane, answers, sink) = lane();
        let _far = open(&lane);
        for token in 0..=REQUESTS_MAX as u64 {
            push(&lane, request(false), &sink, token);
        }
        let answers = answers.0.lock();
        assert!(
            matches!(answers[..], [(t, Err(RequestError::Busy { .. }))] if t == REQUESTS_MAX as u64)
        );
    }
}
