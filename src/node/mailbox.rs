//! The worker's mailbox: many producers (connections, streams, timers), one consumer.
//!
//! Invariants:
//! - Events of one producer arrive in the order in which it pushed them.
//! - Client requests are bounded by number and bytes; what is over the bound is answered
//!   `Busy` here, before it costs the worker anything. Everything else is never refused:
//!   raft messages are bounded by what the worker reads off its links between two rounds.
//! - Once closed, nothing gets in: requests are answered `Unavailable`.
//!
//! The lock is held for a push to a `Vec` or a swap of two; the worker takes all that is
//! there at once, so that a loop of any length costs it one lock.

use super::clock;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rangekv_proto::{Body, ReplySink, Request, RequestError, StoreId};
use rangekv_router::poll::Waker;
use rangekv_router::stores::SentCall;
use rangekv_store::event::Event;
use rangekv_store::metrics::{Metrics, Refusal};
use std::sync::Arc;

/// What may wait in a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client requests.
    pub requests_max: usize,
    /// Their bytes.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A worker drains some 100,000 requests per second: a full queue is a tenth of a
        // second of work, after which waiting at the door is better than waiting here.
        Limits {
            requests_max: 16_384,
            request_bytes_max: 64 << 20,
        }
    }
}

/// The producers' end.
pub struct Mailbox {
    queue: Mutex<Queue>,
    waker: Arc<Waker>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queue {
    events: Vec<Event>,
    requests: usize,
    /// When the oldest of them arrived, monotonic ns.
    requests_since_ns: u64,
    request_bytes: usize,
    /// The consumer sleeps, or is about to.
    asleep: bool,
    closed: bool,
    /// Syncs that have ended since the consumer last looked.
    synced: Vec<Event>,
}

/// The consumer's end.
pub struct Inbox {
    mailbox: Arc<Mailbox>,
}

/// What [`Inbox::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Perhaps nothing, but more may come.
    Open,
    /// Closed; what was taken is the last.
    Closed,
}

/// A mailbox, whose consumer is woken by `waker`, and the consumer's end.
pub fn mailbox(limits: Limits, metrics: Arc<Metrics>, waker: Arc<Waker>) -> (Arc<Mailbox>, Inbox) {
    let mailbox = Arc::new(Mailbox {
        queue: Mutex::default(),
        waker,
        limits,
        metrics,
    });
    (mailbox.clone(), Inbox { mailbox })
}

impl Mailbox {
    /// Adds an event that is neither a client request nor raft's.
    pub fn push(&self, event: Event) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        queue.events.push(event);
        self.wake(queue);
    }

    /// A sync that the consumer waits for has ended: it hears so also from a closed mailbox.
    pub fn synced(&self, sequence: u64, took_ns: u64) {
        let mut queue = self.queue.lock();
        queue.synced.push(Event::Synced { sequence, took_ns });
        self.wake(queue);
    }

    /// Adds raft envelopes.
    pub fn push_raft(&self, from: StoreId, envelopes: Bytes) {
        self.push(Event::Raft { from, envelopes });
    }

    /// Adds a client request, or answers it at once.
    pub fn request(&self, request: Request, sink: Arc<dyn ReplySink>, token: u64) {
        self.requests(std::iter::once((request, sink, token)));
    }

    /// Adds requests in order under one lock, and answers at once those that don't fit.
    pub fn requests(&self, calls: impl Iterator<Item = SentCall>) {
        let mut refused: Vec<(Arc<dyn ReplySink>, u64)> = Vec::new();
        let mut queue = self.queue.lock();
        let closed = queue.closed;
        for (request, sink, token) in calls {
            let bytes = request_bytes(&request);
            // An empty queue takes one request of any size: a limit is no size check.
            let full = queue.requests >= self.limits.requests_max
                || (queue.requests > 0
                    && queue.request_bytes + bytes > self.limits.request_bytes_max);
            // Once one is refused, so are those behind it: their order survives a retry.
            if closed || full || !refused.is_empty() {
                refused.push((sink, token));
                continue;
            }
            if queue.requests == 0 {
                queue.requests_since_ns = clock::mono_ns();
            }
            queue.requests += 1;
            queue.request_bytes += bytes;
            let arrived_ns = match request.mark.is_some() {
                true => clock::mono_ns(),
                false => 0,
            };
            queue.events.push(Event::Request {
                request,
                sink,
                token,
                arrived_ns,
            });
        }
        self.wake(queue);
        let count = self.metrics.refused.of(Refusal::Mailbox);
        count.add(refused.len() as u64);
        for (sink, token) in refused {
            let error = if closed {
                RequestError::Unavailable("this store is shutting down".into())
            } else {
                RequestError::Busy {
                    reason: "the worker's mailbox is full".into(),
                    retry_after_ms: 20,
                }
            };
            sink.complete(token, Err(error));
        }
    }

    /// Lets nothing more in. The consumer sees what is there, then the end.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        self.wake(queue);
    }

    /// Ends a push: wakes the consumer if it sleeps.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.waker.wake();
        }
    }
}

impl Inbox {
    /// Swaps all that is there for the empty `events`.
    pub fn take(&self, events: &mut Vec<Event>) -> Taken {
        assert!(
            events.is_empty(),
            "{} events were not handled",
            events.len()
        );
        let mut queue = self.mailbox.queue.lock();
        // First what others wait for.
        std::mem::swap(&mut queue.synced, events);
        match events.is_empty() {
            true => std::mem::swap(&mut queue.events, events),
            false => events.append(&mut queue.events),
        }
        let requests = std::mem::take(&mut queue.requests);
        let (since_ns, closed) = (queue.requests_since_ns, queue.closed);
        queue.request_bytes = 0;
        drop(queue);
        if requests > 0 {
            let waited_ns = clock::mono_ns().saturating_sub(since_ns);
            self.mailbox.metrics.write.queue.observe(waited_ns);
        }
        if closed {
            Taken::Closed
        } else {
            Taken::Open
        }
    }

    /// Whether the consumer may sleep: from now on a push wakes it. `false`: something is there, or
    /// the mailbox was closed and it does not wait for a sync.
    pub fn fall_asleep(&self, waits_for_sync: bool) -> bool {
        let mut queue = self.mailbox.queue.lock();
        let nothing = queue.events.is_empty() && queue.synced.is_empty();
        queue.asleep = nothing && (waits_for_sync || !queue.closed);
        queue.asleep
    }

    /// The consumer is awake, and will look.
    pub fn awake(&self) {
        self.mailbox.queue.lock().asleep = false;
    }
}

/// What a request weighs against the byte limits.
pub fn request_bytes(request: &Request) -> usize {
    let body = match &request.body {
        Body::Command { command, .. } => command.len(),
        Body::Admin(bytes) | Body::Heartbeat(bytes) | Body::PubSub(bytes) => bytes.len(),
    };
    body + 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::{EvaluatorId, Mark, RangeId, Response};
    use rangekv_router::poll::{Events, Poll};
    use std::time::{Duration, Instant};

    #[derive(Default)]
    struct Answers(Mutex<Vec<(u64, Response)>>);
    impl ReplySink for Answers {
        fn complete(&self, token: u64, response: Response) {
            self.0.lock().push((token, response));
        }
    }

    fn request(bytes: usize) -> Request {
        Request {
            range: RangeId(1),
            version: 1,
            term: 0,
            mark: Mark::NONE,
            body: Body::Command {
                evaluator: EvaluatorId::REDIS,
                read_only: false,
                command: Bytes::from(vec![0; bytes]),
            },
        }
    }

    fn mailbox(limits: Limits) -> (Arc<Mailbox>, Inbox) {
        let (_, waker) = Poll::new().unwrap();
        super::mailbox(limits, Arc::default(), waker)
    }

    fn small() -> Limits {
        Limits {
            requests_max: 3,
            request_bytes_max: 1000,
        }
    }

    fn tokens(events: &[Event]) -> Vec<u64> {
        let token = |e: &Event| match e {
            Event::Request { token, .. } => Some(*token),
            _ => None,
        };
        events.iter().filter_map(token).collect()
    }

    #[test]
    fn refuses_requests_over_the_count_and_takes_them_again_after_a_drain() {
        let (mailbox, inbox) = mailbox(small());
        let sink = Arc::new(Answers::default());
        for token in 0..5 {
            mailbox.request(request(1), sink.clone(), token);
        }
        let answers = std::mem::take(&mut *sink.0.lock());
        assert_eq!(answers.iter().map(|a| a.0).collect::<Vec<_>>(), [3, 4]);
        assert!(matches!(answers[0].1, Err(RequestError::Busy { .. })));
        let mut events = Vec::new();
        assert_eq!(inbox.take(&mut events), Taken::Open);
        assert_eq!(tokens(&events), [0, 1, 2]);
        mailbox.request(request(1), sink.clone(), 9);
        assert!(sink.0.lock().is_empty());
    }

    #[test]
    fn refuses_requests_over_the_bytes_and_all_that_follow_in_the_batch() {
        let (mailbox, inbox) = mailbox(small());
        let sink = Arc::new(Answers::default());
        let sizes = [500, 600, 1];
        let call =
            |(i, n): (usize, usize)| (request(n), sink.clone() as Arc<dyn ReplySink>, i as u64);
        mailbox.requests(sizes.into_iter().enumerate().map(call));
        assert_eq!(
            sink.0.lock().iter().map(|a| a.0).collect::<Vec<_>>(),
            [1, 2]
        );
        let mut events = Vec::new();
        inbox.take(&mut events);
        assert_eq!(tokens(&events), [0]);
    }

    #[test]
    fn takes_one_request_of_any_size() {
        let (mailbox, _inbox) = mailbox(small());
        let sink = Arc::new(Answers::default());
        mailbox.request(request(100_000), sink.clone(), 1);
        assert!(sink.0.lock().is_empty());
    }

    #[test]
    fn after_closing_requests_are_answered_and_the_consumer_sees_the_end() {
        let (mailbox, inbox) = mailbox(small());
        let sink = Arc::new(Answers::default());
        mailbox.request(request(1), sink.clone(), 1);
        mailbox.close();
        mailbox.request(request(1), sink.clone(), 2);
        mailbox.push(Event::Drain);
        let mut events = Vec::new();
        assert_eq!(inbox.take(&mut events), Taken::Closed);
        assert_eq!(events.len(), 1);
        assert!(matches!(
            sink.0.lock()[..],
            [(2, Err(RequestError::Unavailable(_)))]
        ));
    }

    #[test]
    fn a_sleeping_consumer_is_woken_by_each_push_and_no_event_is_lost() {
        let (poll, waker) = Poll::new().unwrap();
        let (mailbox, inbox) = super::mailbox(Limits::default(), Arc::default(), waker);
        const EACH: u64 = 20_000;
        let consumer = std::thread::spawn(move || {
            let (mut seen, mut events) = ([0u64; 2], Vec::new());
            let mut sockets = Events::new();
            loop {
                let taken = inbox.take(&mut events);
                for event in events.drain(..) {
                    if let Event::Raft { from, envelopes } = event {
                        let n = u64::from_le_bytes(envelopes[..].try_into().unwrap());
                        assert_eq!(n, seen[from.0 as usize], "out of order");
                        seen[from.0 as usize] += 1;
                    }
                }
                if taken == Taken::Closed {
                    return seen;
                }
                if inbox.fall_asleep(false) {
                    // Far longer than the test may take: progress comes from wake-ups alone.
                    let timeout = Some(Duration::from_secs(60));
                    poll.wait(&mut sockets, timeout).unwrap();
                    inbox.awake();
                }
            }
        });
        let began = Instant::now();
        std::thread::scope(|scope| {
            for store in 0..2 {
                let mailbox = mailbox.clone();
                scope.spawn(move || {
                    for n in 0..EACH {
                        let envelopes = Bytes::copy_from_slice(&n.to_le_bytes());
                        mailbox.push_raft(StoreId(store), envelopes);
                        if n % 1000 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
        });
        mailbox.close();
        assert_eq!(consumer.join().unwrap(), [EACH, EACH]);
        assert!(
            began.elapsed() < Duration::from_secs(50),
            "a wake-up was lost"
        );
    }
}
