//! Drives the connections of one thread: an epoll loop.
//!
//! The generator shares the machine with what it measures, so a request costs one `write`,
//! one `read` and its part of an `epoll_wait`, and allocates nothing: requests are encoded
//! into a buffer per connection, replies are read into one buffer per thread and scanned
//! there. Epoll is level-triggered, so that one `read` per event suffices.
//!
//! A broken connection fails what was in flight and is made again after a pause, so that a
//! run measures a failover instead of ending with it.

use super::cluster::Owners;
use super::load::{Op, Requests};
use super::pace::{nanos, Admitted, Pace};
use super::resp::{Reply, ReplyScanner};
use super::tally::Tally;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before a broken connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// How often timeouts and pauses are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(20);
/// All connections of a run must be up within this time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Large enough for the replies to one pipeline in most runs.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Most events that one wait returns.
const EVENTS_MAX: usize = 256;

/// What one thread is to do.
pub struct Driver {
    /// One per connection: where it goes; those of a client side by side.
    pub endpoints: Vec<SocketAddr>,
    /// Which of a client's connections serves a slot; `None`: it has but one.
    pub owners: Option<Arc<Owners>>,
    /// What to send.
    pub requests: Requests,
    /// When.
    pub pace: Pace,
    /// Whether requests are due by the clock, or when their client is free.
    pub open_loop: bool,
    /// Most requests in flight per client.
    pub pipeline: usize,
    /// A request is given up after this long.
    pub timeout: Duration,
}

/// Connections that are up, waiting for the start.
pub struct Connected {
    driver: Driver,
    poll: Poll,
    connections: Vec<Connection>,
}

struct Connection {
    endpoint: SocketAddr,
    link: Link,
    scanner: ReplyScanner,
    in_flight: VecDeque<InFlight>,
    out: Vec<u8>,
    /// Bytes of `out` that were sent.
    out_sent: usize,
    /// Whether epoll watches for room to write.
    watches_write: bool,
}

#[derive(Clone, Copy, Default)]
struct Client {
    /// Requests on all of its connections.
    in_flight: usize,
    /// Whether it stands in the queue of those that can send a request.
    queued: bool,
}

enum Link {
    Up(Socket),
    Connecting(Socket, /* give up at */ u64),
    Down(/* try again at */ u64),
}

struct InFlight {
    op: Op,
    request: Admitted,
    sent_at: u64,
}

struct Poll {
    epoll: OwnedFd,
}

impl Driver {
    /// Connections of each client.
    fn per_client(&self) -> usize {
        self.owners.as_ref().map_or(1, |owners| owners.nodes.len())
    }

    /// Opens all connections, or says why it can't.
    pub fn connect(self) -> Result<Connected, String> {
        let poll = Poll::new().map_err(|error| format!("can't make an epoll: {error}"))?;
        let connections = self.endpoints.iter().map(|&endpoint| Connection {
            endpoint,
            link: Link::Down(0),
            scanner: ReplyScanner::default(),
            in_flight: VecDeque::with_capacity(self.pipeline),
            out: Vec::new(),
            out_sent: 0,
            watches_write: false,
        });
        let mut connections: Vec<Connection> = connections.collect();
        for (index, connection) in connections.iter_mut().enumerate() {
            let failed = |error| format!("can't connect to {}: {error}", connection.endpoint);
            let socket = connect_blocking(connection.endpoint).map_err(failed)?;
            poll.add(&socket, index, EventFlags::IN).map_err(failed)?;
            connection.link = Link::Up(socket);
        }
        Ok(Connected {
            driver: self,
            poll,
            connections,
        })
    }
}

impl Connected {
    /// Runs the load; times count from `start`, which all threads of a run share.
    pub fn run(self, start: Instant) -> Result<Tally, String> {
        let mut run = Run {
            tally: Tally::new(self.driver.pace.warm_at()),
            idle: VecDeque::with_capacity(self.connections.len()),
            clients: vec![Client::default(); self.connections.len() / self.driver.per_client()],
            driver: self.driver,
            poll: self.poll,
            connections: self.connections,
            start,
            housekeeping_at: 0,
        };
        run.run()
            .map_err(|error| format!("can't wait for the connections: {error}"))?;
        Ok(run.tally)
    }
}

struct Run {
    driver: Driver,
    poll: Poll,
    connections: Vec<Connection>,
    tally: Tally,
    start: Instant,
    housekeeping_at: u64,
    clients: Vec<Client>,
    /// Clients that can send a request, the one that waits longest first.
    idle: VecDeque<usize>,
}

impl Run {
    fn run(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut events = Vec::with_capacity(EVENTS_MAX);
        for client in 0..self.clients.len() {
            self.make_idle(client);
        }
        loop {
            let now = self.now();
            if now >= self.housekeeping_at {
                self.keep_house(now);
                self.housekeeping_at = now + nanos(HOUSEKEEPING_INTERVAL);
            }
            self.dispatch();
            if self.is_over(now) {
                return Ok(());
            }
            let wake_at = match self.driver.pace.next_due_at() {
                Some(due_at) if !self.idle.is_empty() => due_at.min(self.housekeeping_at),
                _ => self.housekeeping_at,
            };
            self.poll
                .wait(&mut events, wake_at.saturating_sub(self.now()))?;
            for event in &events {
                self.on_event(event.data.u64() as usize, event.flags, &mut buffer);
            }
        }
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Hands due requests to clients that can take them, then sends what each was given.
    fn dispatch(&mut self) {
        if self.driver.open_loop {
            let mut now = self.now();
            while let Some(&client) = self.idle.front() {
                let Some(request) = self.driver.pace.admit(now) else {
                    break;
                };
                self.idle.pop_front();
                self.clients[client].queued = false;
                self.enqueue(client, request, now);
                self.make_idle(client);
                self.flush_all(client);
                now = self.now();
            }
        } else {
            while let Some(client) = self.idle.pop_front() {
                self.clients[client].queued = false;
                self.fill(client);
            }
        }
    }

    /// Closed loop: gives a client as many requests as it may have in flight.
    fn fill(&mut self, client: usize) {
        let now = self.now();
        for _ in 0..self.driver.pipeline {
            match self.driver.pace.admit(now) {
                Some(request) => self.enqueue(client, request, now),
                None => break,
            }
        }
        self.flush_all(client);
    }

    fn enqueue(&mut self, client: usize, request: Admitted, sent_at: u64) {
        let drawn = self.driver.requests.draw();
        let owners = self.driver.owners.as_ref();
        let owner = owners.map_or(0, |o| o.of(self.driver.requests.slot(drawn)));
        let index = client * self.driver.per_client() + owner;
        let connection = &mut self.connections[index];
        self.driver.requests.encode_resp(drawn, &mut connection.out);
        connection.in_flight.push_back(InFlight {
            op: drawn.op,
            request,
            sent_at,
        });
        self.clients[client].in_flight += 1;
    }

    fn connections_of(&self, client: usize) -> Range<usize> {
        let count = self.driver.per_client();
        client * count..(client + 1) * count
    }

    /// Notes that a client can send a request, if it can.
    fn make_idle(&mut self, client: usize) {
        let is_up = |c: &Connection| matches!(c.link, Link::Up(_));
        let up = self.connections[self.connections_of(client)]
            .iter()
            .all(is_up);
        let Client { in_flight, queued } = &mut self.clients[client];
        let room = match self.driver.open_loop {
            true => *in_flight < self.driver.pipeline,
            false => *in_flight == 0,
        };
        if room && !*queued && up {
            *queued = true;
            self.idle.push_back(client);
        }
    }

    fn flush_all(&mut self, client: usize) {
        for index in self.connections_of(client) {
            if !self.connections[index].out.is_empty() {
                self.flush(index);
            }
        }
    }

    fn flush(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Link::Up(socket) = &connection.link else {
            return;
        };
        while connection.out_sent < connection.out.len() {
            match (&*socket).write(&connection.out[connection.out_sent..]) {
                Ok(0) => return self.break_up(index, "CONNECTION", "closed while writing"),
                Ok(sent) => connection.out_sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.break_up(index, "CONNECTION", &error.to_string()),
            }
        }
        let blocked = connection.out_sent < connection.out.len();
        if !blocked {
            connection.out.clear();
            connection.out_sent = 0;
        }
        if blocked != connection.watches_write {
            connection.watches_write = blocked;
            let flags = if blocked {
                EventFlags::IN | EventFlags::OUT
            } else {
                EventFlags::IN
            };
            if let Err(error) = self.poll.modify(socket, index, flags) {
                self.break_up(index, "CONNECTION", &error.to_string());
            }
        }
    }

    fn on_event(&mut self, index: usize, flags: EventFlags, buffer: &mut [u8]) {
        match &self.connections[index].link {
            Link::Up(_) => {
                if flags.contains(EventFlags::OUT) {
                    self.flush(index);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.receive(index, buffer);
                }
            }
            Link::Connecting(socket, _) => match socket.take_error() {
                Ok(None) => self.finish_connecting(index),
                Ok(Some(error)) | Err(error) => {
                    self.break_up(index, "CONNECT", &error.to_string());
                }
            },
            Link::Down(_) => {}
        }
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        let Link::Up(socket) = &connection.link else {
            return;
        };
        let received = match (&*socket).read(buffer) {
            Ok(0) => return self.break_up(index, "CONNECTION", "closed by the server"),
            Ok(received) => received,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return;
            }
            Err(error) => return self.break_up(index, "CONNECTION", &error.to_string()),
        };
        let now = nanos(self.start.elapsed());
        let (tally, in_flight) = (&mut self.tally, &mut connection.in_flight);
        let client = index / self.driver.per_client();
        let client_in_flight = &mut self.clients[client].in_flight;
        let mut surplus = false;
        let scanned =
            connection
                .scanner
                .feed(&buffer[..received], |reply| match in_flight.pop_front() {
                    Some(sent) => {
                        *client_in_flight -= 1;
                        record(tally, &sent, reply, now);
                    }
                    None => surplus = true,
                });
        if let Err(error) = scanned {
            return self.break_up(index, "PROTOCOL", &error.0);
        }
        if surplus || (connection.in_flight.is_empty() && !connection.scanner.is_between_replies())
        {
            return self.break_up(index, "PROTOCOL", "a reply that nobody asked for");
        }
        if !self.driver.open_loop && self.clients[client].in_flight == 0 {
            self.fill(client);
        } else {
            self.make_idle(client);
        }
    }

    /// Fails what is in flight and closes the connection.
    fn break_up(&mut self, index: usize, kind: &str, why: &str) {
        let now = self.now();
        let connection = &mut self.connections[index];
        let why = format!("{}: {why}", connection.endpoint);
        if kind == "CONNECT" || (kind == "PROTOCOL" && connection.in_flight.is_empty()) {
            self.tally.error(kind, &why);
        }
        let client = index / self.driver.per_client();
        self.clients[client].in_flight -= connection.in_flight.len();
        for sent in connection.in_flight.drain(..) {
            if sent.request.measured {
                self.tally.failed(kind, &why, now);
            }
        }
        connection.scanner = ReplyScanner::default();
        connection.out.clear();
        connection.out_sent = 0;
        connection.watches_write = false;
        // Closing the socket takes it out of the epoll.
        connection.link = Link::Down(now + nanos(RECONNECT_AFTER));
        if std::mem::take(&mut self.clients[client].queued) {
            self.idle.retain(|&queued| queued != client);
        }
    }

    /// Gives up what took too long, and makes broken connections again.
    fn keep_house(&mut self, now: u64) {
        let timeout = nanos(self.driver.timeout);
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            match &connection.link {
                Link::Up(_) => {
                    let oldest = connection.in_flight.front();
                    if oldest.is_some_and(|sent| now.saturating_sub(sent.sent_at) >= timeout) {
                        self.break_up(index, "TIMEOUT", "no reply within --timeout");
                    }
                }
                Link::Connecting(_, give_up_at) if now >= *give_up_at => {
                    self.break_up(index, "CONNECT", "no answer within --timeout");
                }
                Link::Down(again_at) if now >= *again_at => self.begin_connecting(index, now),
                Link::Connecting(..) | Link::Down(_) => {}
            }
        }
    }

    fn begin_connecting(&mut self, index: usize, now: u64) {
        let begun = connect_nonblocking(self.connections[index].endpoint).and_then(|socket| {
            self.poll.add(&socket, index, EventFlags::OUT)?;
            Ok(socket)
        });
        match begun {
            Ok(socket) => {
                let give_up_at = now + nanos(self.driver.timeout);
                self.connections[index].link = Link::Connecting(socket, give_up_at);
            }
            Err(error) => self.break_up(index, "CONNECT", &error.to_string()),
        }
    }

    fn finish_connecting(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let down = Link::Down(0);
        let Link::Connecting(socket, _) = std::mem::replace(&mut connection.link, down) else {
            return;
        };
        match self.poll.modify(&socket, index, EventFlags::IN) {
            Ok(()) => {
                connection.link = Link::Up(socket);
                self.make_idle(index / self.driver.per_client());
            }
            Err(error) => self.break_up(index, "CONNECT", &error.to_string()),
        }
    }

    /// Whether everything admitted was answered, or has no more time to be.
    fn is_over(&mut self, now: u64) -> bool {
        let pace = &mut self.driver.pace;
        if !pace.is_over(now) {
            return false;
        }
        let grace_over = pace
            .ends_at()
            .is_some_and(|ends_at| now >= ends_at.saturating_add(nanos(self.driver.timeout)));
        if grace_over {
            // Open loop: due before the end, and still not sent.
            while self.driver.open_loop {
                match self.driver.pace.admit(now) {
                    Some(request) if request.measured => {
                        self.tally
                            .failed("TIMEOUT", "due, but never sent: overloaded", now);
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            for index in 0..self.connections.len() {
                self.break_up(index, "TIMEOUT", "no reply within --timeout");
            }
            return true;
        }
        let backlog = match (pace.next_due_at(), pace.ends_at()) {
            (Some(due_at), Some(ends_at)) => due_at < ends_at,
            _ => false,
        };
        !backlog
            && self
                .connections
                .iter()
                .all(|connection| connection.in_flight.is_empty())
    }
}

fn record(tally: &mut Tally, sent: &InFlight, reply: Reply<'_>, now: u64) {
    if !sent.request.measured {
        return;
    }
    match reply {
        Reply::Value => tally.succeeded(sent.op, sent.request.due_at, now),
        Reply::Null => {
            tally.nulls += 1;
            tally.succeeded(sent.op, sent.request.due_at, now);
        }
        Reply::Error(text) => {
            let text = String::from_utf8_lossy(text);
            let kind = text.split(' ').next().unwrap_or_default();
            tally.failed(kind, &text, now);
        }
    }
}

impl Poll {
    fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    fn add(&self, socket: &Socket, index: usize, flags: EventFlags) -> std::io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(index as u64),
            flags,
        )?)
    }

    fn modify(&self, socket: &Socket, index: usize, flags: EventFlags) -> std::io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(index as u64),
            flags,
        )?)
    }

    /// Fills `events` with what happened, at the latest after `timeout` nanoseconds.
    fn wait(&self, events: &mut Vec<epoll::Event>, timeout: u64) -> std::io::Result<()> {
        let timeout = Timespec {
            tv_sec: (timeout / 1_000_000_000) as i64,
            tv_nsec: (timeout % 1_000_000_000) as _,
        };
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn tcp_socket(endpoint: SocketAddr) -> std::io::Result<Socket> {
    Socket::new(
        Domain::for_address(endpoint),
        Type::STREAM,
        Some(Protocol::TCP),
    )
}

fn connect_blocking(endpoint: SocketAddr) -> std::io::Result<Socket> {
    let socket = tcp_socket(endpoint)?;
    socket.connect_timeout(&SockAddr::from(endpoint), CONNECT_DEADLINE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn connect_nonblocking(endpoint: SocketAddr) -> std::io::Result<Socket> {
    let socket = tcp_socket(endpoint)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(endpoint)) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Distribution;
    use super::super::load::{Load, Mix};
    use super::super::pace::Stop;
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// `*2 $3 GET $16 key:…`, with its line ends.
    const REQUEST_BYTES: usize = 4 + 4 + 5 + 5 + 18;

    /// Answers the `n`th request of each connection with what `reply` says; `None` hangs up.
    fn serve(reply: fn(usize) -> Option<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || answer(stream.unwrap(), reply));
            }
        });
        address
    }

    fn answer(mut stream: TcpStream, reply: fn(usize) -> Option<&'static [u8]>) {
        stream.set_nodelay(true).unwrap();
        let mut request = [0; REQUEST_BYTES];
        for n in 0.. {
            if stream.read_exact(&mut request).is_err() {
                return;
            }
            let Some(reply) = reply(n) else { return };
            // In two pieces, so that the driver meets half replies.
            let (head, tail) = reply.split_at(reply.len() / 2);
            if stream
                .write_all(head)
                .and_then(|()| stream.write_all(tail))
                .is_err()
            {
                return;
            }
        }
    }

    fn load(distribution: Distribution) -> Load {
        Load {
            mix: Mix::Only(Op::Get),
            collections: 1,
            distribution,
            keys: 10,
            key_prefix: "key:".into(),
            value_bytes: 0,
            seed: 1,
        }
    }

    fn run(endpoint: SocketAddr, pipeline: usize, stop: Stop, rate: Option<f64>) -> Tally {
        let driver = Driver {
            endpoints: vec![endpoint; 2],
            owners: None,
            requests: Requests::new(&load(Distribution::Uniform), 0, 1),
            pace: Pace::new(Duration::ZERO, stop, rate),
            open_loop: rate.is_some(),
            pipeline,
            timeout: Duration::from_millis(200),
        };
        driver.connect().unwrap().run(Instant::now()).unwrap()
    }

    #[test]
    fn counts_values_nulls_and_errors_apart() {
        let endpoint = serve(|n| match n % 4 {
            0 | 1 => Some(b"$2\r\nhi\r\n"),
            2 => Some(b"$-1\r\n"),
            _ => Some(b"-BUSY try again\r\n"),
        });
        for (pipeline, rate) in [(1, None), (4, None), (1, Some(5e3)), (4, Some(5e3))] {
            let tally = run(endpoint, pipeline, Stop::Requests(400), rate);
            assert_eq!(tally.succeeded_total() + tally.errors["BUSY"].count, 400);
            assert_eq!(tally.errors["BUSY"].example, "BUSY try again");
            assert!(
                (98..=100).contains(&tally.errors["BUSY"].count),
                "{:?}",
                tally.errors
            );
            assert!((98..=102).contains(&tally.nulls), "{}", tally.nulls);
        }
    }

    #[test]
    fn each_key_goes_to_the_owner_of_its_slot() {
        // One of the nodes has values, the other has none.
        let full = serve(|_| Some(b"$2\r\nhi\r\n"));
        let empty = serve(|_| Some(b"$-1\r\n"));
        let owners = Owners::halves(full, empty);
        let key = |n| format!("key:{n:012}");
        let slot_of = |n| rangekv_model::redis::keys::slot(key(n).as_bytes());
        let absent = (0..10).filter(|n| owners.of(slot_of(*n)) == 1).count();
        assert!((1..10).contains(&absent));
        for (pipeline, rate) in [(1, None), (4, None), (4, Some(5e3))] {
            let clients = 3;
            let driver = Driver {
                endpoints: owners.nodes.repeat(clients),
                owners: Some(Arc::new(owners.clone())),
                requests: Requests::new(&load(Distribution::Sequential), 0, 1),
                pace: Pace::new(Duration::ZERO, Stop::Requests(400), rate),
                open_loop: rate.is_some(),
                pipeline,
                timeout: Duration::from_secs(20),
            };
            let tally = driver.connect().unwrap().run(Instant::now()).unwrap();
            assert_eq!(tally.succeeded_total(), 400, "{:?}", tally.errors);
            assert_eq!(tally.nulls, 40 * absent as u64);
        }
    }

    #[test]
    fn connects_again_after_a_hang_up() {
        let endpoint = serve(|n| (n < 10).then_some(b"$2\r\nhi\r\n"));
        let tally = run(endpoint, 1, Stop::Requests(44), None);
        assert_eq!(tally.succeeded_total(), 40);
        assert_eq!(tally.errors["CONNECTION"].count, 4);
    }

    #[test]
    fn a_request_without_a_reply_times_out() {
        let endpoint = serve(|n| Some(if n == 0 { b"" } else { b"+\r\n" }));
        let tally = run(endpoint, 1, Stop::Requests(2), None);
        assert_eq!(
            (tally.succeeded_total(), tally.errors["TIMEOUT"].count),
            (0, 2)
        );
    }

    #[test]
    fn what_was_due_but_never_sent_is_an_error() {
        let endpoint = serve(|_| Some(b""));
        let tally = run(
            endpoint,
            1,
            Stop::After(Duration::from_millis(100)),
            Some(1_000.0),
        );
        assert_eq!(tally.errors["TIMEOUT"].count, 100);
    }

    #[test]
    fn a_reply_that_nobody_asked_for_is_an_error() {
        let endpoint = serve(|n| (n == 0).then_some(b"+a\r\n+surplus\r\n"));
        let tally = run(endpoint, 1, Stop::Requests(2), None);
        assert!(tally.errors.contains_key("PROTOCOL"), "{:?}", tally.errors);
    }

    #[test]
    fn nobody_listens() {
        let unused = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(connect_blocking(unused).is_err());
    }
}
