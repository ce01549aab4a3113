//! Streams of requests between stores: in order, lost only with the stream, and then answered:
//! what may have been sent has an unknown outcome.

use crate::cluster::{trace, Caller, Cluster, Event};
use crate::door::DoorCall;
use crate::random::exponential;
use crate::schedule::MS;
use rand::Rng;
use rangekv_proto::{Request, RequestError};
use std::collections::{BTreeMap, VecDeque};

/// Requests from one store to another.
#[derive(Default)]
pub(crate) struct Stream {
    /// Names it; a stream that broke is followed by another one.
    id: u64,
    queue: VecDeque<(u64, Request)>,
    /// A delivery is due.
    turning: bool,
    /// Sent and not answered, by the token under which the receiver has it.
    open: BTreeMap<u64, (DoorCall, bool)>,
}

/// All streams, by sender and receiver.
#[derive(Default)]
pub(crate) struct Streams {
    streams: BTreeMap<(usize, usize), Stream>,
    last_id: u64,
}

impl Cluster {
    /// Puts a request onto the stream to `call.at`.
    pub(crate) fn send_on_stream(&mut self, mut call: DoorCall, request: Request) {
        let (from, to) = (call.node, call.at);
        let token = self.token();
        let streams = &mut self.streams;
        let stream = streams.streams.entry((from, to)).or_default();
        if stream.id == 0 {
            streams.last_id += 1;
            stream.id = streams.last_id;
        }
        call.stream = stream.id;
        let read_only = crate::requests::is_read_only(&request);
        stream.open.insert(token, (call, read_only));
        stream.queue.push_back((token, request));
        if !std::mem::replace(&mut stream.turning, true) {
            let delay = 20_000 + exponential(&mut self.rng, 200_000);
            self.turn_after(delay, from, to, call.stream);
        }
    }

    fn turn_after(&mut self, delay: u64, from: usize, to: usize, stream: u64) {
        self.schedule
            .after(delay, Event::Stream { from, to, stream });
    }

    /// What is in a stream arrives, or a part of it, or the stream breaks.
    pub(crate) fn turn(&mut self, from: usize, to: usize, id: u64) {
        let Some(stream) = self.streams.streams.get(&(from, to)) else {
            return;
        };
        if stream.id != id {
            return;
        }
        let refused = self.nodes[to].process.is_none();
        if refused || self.rng.random_bool(self.client_loss() / 4.0) {
            return self.break_stream(from, to);
        }
        if !self.net.is_open(from, to) {
            if self.rng.random_bool(0.3) {
                return self.break_stream(from, to);
            }
            let again = self.rng.random_range(10 * MS..400 * MS);
            return self.turn_after(again, from, to, id);
        }
        if self.net.is_clogged(from, to) {
            return self.turn_after(5 * MS, from, to, id);
        }
        let part = self.rng.random_bool(0.2);
        let stream = self
            .streams
            .streams
            .get_mut(&(from, to))
            .expect("just seen");
        let count = match part {
            true => stream.queue.len().div_ceil(2),
            false => stream.queue.len(),
        };
        let arrived: Vec<_> = stream.queue.drain(..count).collect();
        stream.turning = !stream.queue.is_empty();
        let calls: Vec<_> = arrived.iter().map(|(t, _)| stream.open[t]).collect();
        if stream.turning {
            let delay = exponential(&mut self.rng, 200_000);
            self.turn_after(delay, from, to, id);
        }
        for ((token, request), (call, _)) in arrived.into_iter().zip(calls) {
            self.arrive(to, Caller::Door(call), token, request);
        }
    }

    /// Whether the answer under `token` reaches who asked; `None` = not yet.
    pub(crate) fn comes_back(&mut self, call: DoorCall, token: u64) -> Option<bool> {
        if call.stream == 0 {
            return Some(true);
        }
        let (from, to) = (call.node, call.at);
        let stream = self.streams.streams.get_mut(&(from, to));
        let Some(stream) = stream.filter(|s| s.id == call.stream) else {
            return Some(false);
        };
        if self.net.is_open(to, from) && !self.net.is_clogged(to, from) {
            return Some(stream.open.remove(&token).is_some());
        }
        if self.rng.random_bool(0.3) {
            self.break_stream(from, to);
            return Some(false);
        }
        None
    }

    /// A stream ends; who waits for answers is told sooner or later.
    pub(crate) fn break_stream(&mut self, from: usize, to: usize) {
        let Some(stream) = self.streams.streams.remove(&(from, to)) else {
            return;
        };
        trace!(
            self,
            "the stream n{from} → n{to} breaks, {} open",
            stream.open.len()
        );
        let unsent: Vec<u64> = stream.queue.iter().map(|(token, _)| *token).collect();
        let notices = 100_000 + exponential(&mut self.rng, 100 * MS);
        for (token, (mut call, read_only)) in stream.open {
            call.stream = 0;
            let known = unsent.contains(&token) && self.rng.random_bool(0.5);
            let why = "the connection broke".to_string();
            let error = match read_only || known {
                true => RequestError::Unavailable(why),
                false => RequestError::OutcomeUnknown(why),
            };
            self.schedule.after(
                notices,
                Event::Response {
                    caller: Caller::Door(call),
                    token: 0,
                    response: Err(error),
                },
            );
        }
    }

    /// A store's process is gone, and all its streams with it.
    pub(crate) fn break_streams_of(&mut self, node: usize) {
        let broken: Vec<(usize, usize)> = self.streams.streams.keys().copied().collect();
        for (from, to) in broken {
            if from == node {
                self.streams.streams.remove(&(from, to));
            } else if to == node {
                self.break_stream(from, to);
            }
        }
    }
}
