//! Responses on their way back to the store that sent the requests: the answering end of a
//! link.

use super::frame::{Messages, Parts, MESSAGE_BYTES_MAX};
use super::link::Sending;
use super::outlet::{Outlet, Source};
use bytes::Bytes;
use rangekv_proto::frame::put_response;
use rangekv_proto::{ReplySink, RequestError, Response};
use std::net::TcpStream;
use std::sync::Arc;

/// Collects responses, and sends all that are there as one frame.
///
/// Bounded by the requests in flight, which the sender bounds.
#[derive(Default)]
pub struct Replies(Outlet<Queue>);

/// What waits.
#[derive(Default)]
pub struct Queue(Messages);

impl Source for Queue {
    fn take(&mut self) -> Option<Parts> {
        (!self.0.is_empty()).then(|| Parts::new(Vec::new(), Bytes::new(), self.0.take().0))
    }
}

impl Replies {
    /// The connection is up; returns the number of its session.
    pub fn open(&self, link: Arc<TcpStream>) -> u64 {
        self.0.open(link)
    }

    /// The connection has ended: drops what is there and what comes.
    pub fn close(&self) {
        let (_, mut queue) = self.0.close();
        **queue = Queue::default();
    }
}

impl Sending for Replies {
    fn resume(&self, session: u64) {
        self.0.resume(session);
    }
    fn show_life(&self) {
        self.0.show_life();
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
        let mut queue = self.0.lock();
        if queue.is_open() {
            queue
                .0
                .push(|buffer| put_response(buffer, token, &response));
        }
    }

    fn nudge(&self) {
        self.0.send(self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::frame::FRAME_BYTES;
    use crate::node::link::testing::{opened, Far};
    use rangekv_proto::frame::get_response;

    fn open(replies: &Arc<Replies>) -> Far {
        opened(replies.clone(), |link| replies.open(link))
    }

    #[test]
    fn what_is_deposited_leaves_in_one_frame_when_nudged() {
        let replies = Arc::new(Replies::default());
        let mut far = open(&replies);
        for token in 0..3 {
            replies.deposit(token, Ok(Bytes::from_static(b"r")));
        }
        replies.nudge();
        let mut responses = far.next().unwrap().responses;
        for token in 0..3 {
            let reply = Ok(Bytes::from_static(b"r"));
            assert_eq!(get_response(&mut responses), Ok((token, reply)));
        }
        assert!(responses.is_empty());
        replies.close();
        replies.complete(4, Ok(Bytes::new()));
        assert!(replies.0.lock().take().is_none());
    }

    #[test]
    fn large_responses_are_spread_over_frames() {
        let replies = Arc::new(Replies::default());
        let mut far = open(&replies);
        for token in 0..4 {
            replies.deposit(token, Ok(Bytes::from(vec![0; FRAME_BYTES / 2])));
        }
        replies.nudge();
        for _ in 0..2 {
            let mut responses = far.next().unwrap().responses;
            for _ in 0..2 {
                assert!(get_response(&mut responses).unwrap().1.is_ok());
            }
            assert!(responses.is_empty());
        }
    }
}
