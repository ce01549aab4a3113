//! Responses on their way back to the store that sent the requests: the answering end of an
//! `Exchange` stream.

use super::lane::{FRAME_BYTES, MESSAGE_BYTES_MAX};
use futures::Stream;
use parking_lot::Mutex;
use rangekv_proto::convert::response_to_wire;
use rangekv_proto::internal as pb;
use rangekv_proto::{ReplySink, RequestError, Response};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tonic::Status;

/// Collects responses; [`ReplyFrames`] takes out all that is there as one frame.
///
/// Bounded by the requests in flight, which the sender bounds.
#[derive(Default)]
pub struct Replies {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<(u64, Response)>,
    waker: Option<Waker>,
    closed: bool,
}

impl Replies {
    /// The stream has ended: drops what is there and what comes.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.ready.clear();
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ReplySink for Replies {
    fn complete(&self, token: u64, response: Response) {
        self.deposit(token, response);
        self.nudge();
    }

    fn deposit(&self, token: u64, response: Response) {
        let response = match response {
            // The write, if it was one, is done: only its reply can't be carried.
            Ok(reply) if reply.len() > MESSAGE_BYTES_MAX => Err(RequestError::Invalid(format!(
                "the reply of {} bytes is over {MESSAGE_BYTES_MAX}; ask for less at once",
                reply.len()
            ))),
            response => response,
        };
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        queue.ready.push_back((token, response));
    }

    fn nudge(&self) {
        let waker = self.queue.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The stream of frames of responses.
pub struct ReplyFrames(pub Arc<Replies>);

impl Stream for ReplyFrames {
    type Item = Result<pb::Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.0.queue.lock();
        if queue.closed {
            return Poll::Ready(None);
        }
        if queue.ready.is_empty() {
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = 0;
        let mut ready = Vec::with_capacity(queue.ready.len());
        while bytes < FRAME_BYTES {
            let Some(next) = queue.ready.pop_front() else {
                break;
            };
            bytes += 64 + next.1.as_ref().map_or(0, |reply| reply.len());
            ready.push(next);
        }
        drop(queue);
        let responses = ready
            .into_iter()
            .map(|(token, response)| response_to_wire(token, response))
            .collect();
        Poll::Ready(Some(Ok(pb::Frame {
            responses,
            ..pb::Frame::default()
        })))
    }
}

impl Drop for ReplyFrames {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::StreamExt;

    #[test]
    fn frames_carry_all_responses_and_end_when_closed() {
        let replies = Arc::new(Replies::default());
        let mut frames = ReplyFrames(replies.clone());
        for token in 0..3 {
            replies.complete(token, Ok(Bytes::from_static(b"r")));
        }
        let frame = futures::executor::block_on(frames.next()).unwrap().unwrap();
        assert_eq!(
            frame.responses.iter().map(|r| r.token).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        replies.close();
        replies.complete(4, Ok(Bytes::new()));
        assert!(futures::executor::block_on(frames.next()).is_none());
    }

    #[test]
    fn large_responses_are_spread_over_frames() {
        let replies = Arc::new(Replies::default());
        let mut frames = ReplyFrames(replies.clone());
        for token in 0..4 {
            replies.complete(token, Ok(Bytes::from(vec![0; FRAME_BYTES / 2])));
        }
        let mut counts = [0, 0];
        for count in &mut counts {
            *count = futures::executor::block_on(frames.next())
                .unwrap()
                .unwrap()
                .responses
                .len();
        }
        assert_eq!(counts, [2, 2]);
    }
}
