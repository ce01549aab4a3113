//! The worker's mailbox: many producers (connections, streams, timers), one consumer.
//!
//! Invariants:
//! - Events of one producer arrive in the order in which it pushed them.
//! - Client requests are bounded by number and bytes; what is over the bound is answered
//!   `Busy` here, before it costs the worker anything. Everything else is never refused:
//!   raft messages are bounded by their senders (`over_raft_limit` makes streams wait).
//! - Once closed, nothing gets in: requests are answered `Unavailable`.
//!
//! The lock is held for a push to a `Vec` or a swap of two; the worker takes all that is
//! there at once, so that a loop of any length costs it one lock.

use super::clock;
use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_proto::{Body, ReplySink, Request, RequestError, StoreId};
use rangekv_router::stores::SentCall;
use rangekv_store::event::Event;
use rangekv_store::metrics::{Metrics, Refusal};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// What may wait in a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client requests.
    pub requests_max: usize,
    /// Their bytes.
    pub request_bytes_max: usize,
    /// Bytes of raft envelopes above which streams stop reading.
    pub raft_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A worker drains some 100,000 requests per second: a full queue is a tenth of a
        // second of work, after which waiting at the door is better than waiting here.
        Limits {
            requests_max: 16_384,
            request_bytes_max: 64 << 20,
            raft_bytes_max: 64 << 20,
        }
    }
}

/// The producers' end.
pub struct Mailbox {
    queue: Mutex<Queue>,
    consumer: OnceLock<Thread>,
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
    raft_bytes: usize,
    parked: bool,
    closed: bool,
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

/// A mailbox and its consumer's end.
pub fn mailbox(limits: Limits, metrics: Arc<Metrics>) -> (Arc<Mailbox>, Inbox) {
    let mailbox = Arc::new(Mailbox {
        queue: Mutex::default(),
        consumer: OnceLock::new(),
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
        let wake = std::mem::take(&mut queue.parked);
        drop(queue);
        self.wake(wake);
    }

    /// Adds raft envelopes; whether so many wait that the stream should pause.
    pub fn push_raft(&self, from: StoreId, envelopes: Bytes) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            return false;
        }
        queue.raft_bytes += envelopes.len();
        let over = queue.raft_bytes > self.limits.raft_bytes_max;
        queue.events.push(Event::Raft { from, envelopes });
        let wake = std::mem::take(&mut queue.parked);
        drop(queue);
        self.wake(wake);
        over
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
            queue.events.push(Event::Request {
                request,
                sink,
                token,
            });
        }
        let wake = !closed && std::mem::take(&mut queue.parked);
        drop(queue);
        self.wake(wake);
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

    /// Whether so many raft envelopes wait that streams should stop reading for a moment.
    pub fn over_raft_limit(&self) -> bool {
        self.queue.lock().raft_bytes > self.limits.raft_bytes_max
    }

    /// Lets nothing more in. The consumer sees what is there, then the end.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        let wake = std::mem::take(&mut queue.parked);
        drop(queue);
        self.wake(wake);
    }

    fn wake(&self, wake: bool) {
        if wake {
            self.consumer
                .get()
                .expect("only a bound consumer parks")
                .unpark();
        }
    }
}

impl Inbox {
    /// Makes the current thread the one that is woken.
    pub fn bind(&self) {
        if self.mailbox.consumer.set(std::thread::current()).is_err() {
            panic!("a mailbox has one consumer");
        }
    }

    /// Swaps all that is there for the empty `events`.
    pub fn take(&self, events: &mut Vec<Event>) -> Taken {
        assert!(
            events.is_empty(),
            "{} events were not handled",
            events.len()
        );
        let mut queue = self.mailbox.queue.lock();
        std::mem::swap(&mut queue.events, events);
        let requests = std::mem::take(&mut queue.requests);
        let (since_ns, closed) = (queue.requests_since_ns, queue.closed);
        queue.request_bytes = 0;
        queue.raft_bytes = 0;
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

    /// Waits until something is pushed, for `timeout` at most. May return early.
    pub fn park(&self, timeout: Duration) {
        {
            let mut queue = self.mailbox.queue.lock();
            if !queue.events.is_empty() || queue.closed {
                return;
            }
            queue.parked = true;
        }
        std::thread::park_timeout(timeout);
        self.mailbox.queue.lock().parked = false;
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
    use rangekv_proto::{EvaluatorId, RangeId, Response};
    use std::time::Instant;

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
            body: Body::Command {
                evaluator: EvaluatorId::REDIS,
                read_only: false,
                command: Bytes::from(vec![0; bytes]),
            },
        }
    }

    fn small() -> Limits {
        Limits {
            requests_max: 3,
            request_bytes_max: 1000,
            raft_bytes_max: 100,
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
        let (mailbox, inbox) = mailbox(small(), Arc::default());
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
        let (mailbox, inbox) = mailbox(small(), Arc::default());
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
        let (mailbox, _inbox) = mailbox(small(), Arc::default());
        let sink = Arc::new(Answers::default());
        mailbox.request(request(100_000), sink.clone(), 1);
        assert!(sink.0.lock().is_empty());
    }

    #[test]
    fn never_refuses_raft_but_says_when_to_wait() {
        let (mailbox, inbox) = mailbox(small(), Arc::default());
        for _ in 0..10 {
            let envelopes = Bytes::from(vec![0; 30]);
            mailbox.push_raft(StoreId(2), envelopes);
        }
        assert!(mailbox.over_raft_limit());
        let mut events = Vec::new();
        inbox.take(&mut events);
        assert_eq!(events.len(), 10);
        assert!(!mailbox.over_raft_limit());
    }

    #[test]
    fn after_closing_requests_are_answered_and_the_consumer_sees_the_end() {
        let (mailbox, inbox) = mailbox(small(), Arc::default());
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
    fn a_parked_consumer_is_woken_by_each_kind_of_push_and_no_event_is_lost() {
        let (mailbox, inbox) = mailbox(Limits::default(), Arc::default());
        const EACH: u64 = 20_000;
        let consumer = std::thread::spawn(move || {
            inbox.bind();
            let (mut seen, mut events) = ([0u64; 2], Vec::new());
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
                // Far longer than the test may take: progress comes from wake-ups alone.
                inbox.park(Duration::from_secs(60));
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
