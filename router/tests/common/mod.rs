//! A cluster in one map: ranges with leaders and epochs, the real Redis model, and from a
//! seed the faults that a router meets. Virtual time, no threads.
#![allow(dead_code)] // Each test uses its part.

use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_model::eval::{Context, Evaluator, Txn, Watches, SEED_STEP};
use rangekv_model::redis::reply::Reply;
use rangekv_model::redis::RedisModel;
use rangekv_proto::*;
use rangekv_router::cache::SharedCache;
use rangekv_router::session::{Door, Errand, HangUp, Node, Session};
use rangekv_router::stores::Stores;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// xorshift64*.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    /// True `n` times in a thousand.
    pub fn chance(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }
}

/// Records in key order.
pub type Map = BTreeMap<Bytes, Bytes>;

/// Applies the writes of an evaluation.
pub fn apply(map: &mut Map, writes: BTreeMap<Bytes, Option<Bytes>>) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

/// The only range of a new cluster, on stores 1 to 3.
pub fn one_range() -> RangeDescriptor {
    RangeDescriptor {
        id: RangeId(2),
        start: Bytes::from_static(&[0x20]),
        end: Bytes::new(),
        epoch: Epoch {
            conf_version: 1,
            version: 1,
        },
        replicas: replicas(2, &[1, 2, 3]),
    }
}

/// How often what goes wrong, in thousandths of requests or of steps.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub busy: u64,
    pub lost: u64,
    pub hang: u64,
    pub no_leader: u64,
    pub transfer: u64,
    pub split: u64,
    pub merge: u64,
    pub moves: u64,
}

struct Range {
    descriptor: RangeDescriptor,
    leader: StoreId,
    term: u64,
    busy_until: u64,
    led_from: u64,
}

struct Inner {
    now: u64,
    rng: Rng,
    faults: Faults,
    stores: u64,
    next_id: u64,
    ranges: Vec<Range>,
    /// Ranges that were merged into their left neighbours, and where they began.
    merged: BTreeMap<RangeId, Bytes>,
    /// With what was evaluated, and without what is not applied yet.
    evaluated: Map,
    applied: Map,
    to_apply: VecDeque<(u64, BTreeMap<Bytes, Option<Bytes>>)>,
    arrivals: BTreeMap<StoreId, VecDeque<(u64, Request, u64)>>,
    responses: BTreeMap<(u64, u64), (u64, Response)>,
    responses_made: u64,
    down: bool,
    pub local_reads: u64,
    wanted: bool,
    seeds: u64,
    /// By which evaluation each unit was written last.
    written: BTreeMap<Bytes, u64>,
    clock: fn(u64) -> u64,
}

/// What was written, as one leader knows it.
struct Remembered<'a> {
    written: &'a BTreeMap<Bytes, u64>,
    of: String,
    evaluation: u64,
}

impl Watches for Remembered<'_> {
    fn stamp(&self) -> Bytes {
        format!("{} {}", self.of, self.evaluation).into()
    }

    fn unchanged(&self, unit: &[u8], stamp: &[u8]) -> bool {
        let stamp = std::str::from_utf8(stamp).unwrap();
        let (of, number) = stamp.rsplit_once(' ').unwrap();
        let last = self.written.get(unit).copied().unwrap_or(0);
        of == self.of && last <= number.parse().unwrap()
    }
}

/// See the module documentation. Its own store is 1.
pub struct Fake(Mutex<Inner>, Arc<SharedCache>);

fn replicas(id: u64, stores: &[u64]) -> Vec<Replica> {
    let replica = |s: &u64| Replica {
        id: ReplicaId(id * 100 + s),
        store: StoreId(*s),
        role: ReplicaRole::Voter,
    };
    stores.iter().map(replica).collect()
}

impl Fake {
    pub fn new(seed: u64, stores: u64, faults: Faults, cache: Arc<SharedCache>) -> Arc<Self> {
        let descriptor = one_range();
        let range = Range {
            descriptor,
            leader: StoreId(1),
            term: 6,
            busy_until: 0,
            led_from: 0,
        };
        Arc::new(Fake(
            Mutex::new(Inner {
                now: 0,
                rng: Rng::new(seed),
                faults,
                stores,
                next_id: 3,
                ranges: vec![range],
                merged: BTreeMap::new(),
                evaluated: Map::default(),
                applied: Map::default(),
                to_apply: VecDeque::new(),
                arrivals: BTreeMap::new(),
                responses: BTreeMap::new(),
                responses_made: 0,
                down: false,
                local_reads: 0,
                wanted: false,
                seeds: 0,
                written: BTreeMap::new(),
                clock: |now| 1_700_000_000_000 + now,
            }),
            cache,
        ))
    }

    /// Nobody leads anything any more, or again.
    pub fn set_down(&self, down: bool) {
        self.0.lock().down = down;
    }

    /// Where evaluations have their time from, given the virtual one.
    pub fn set_clock(&self, clock: fn(u64) -> u64) {
        self.0.lock().clock = clock;
    }

    pub fn ranges(&self) -> usize {
        self.0.lock().ranges.len()
    }

    pub fn local_reads(&self) -> u64 {
        self.0.lock().local_reads
    }

    /// Splits the range that holds `key` there.
    pub fn split_at(&self, key: &[u8]) {
        self.0.lock().split_at(Bytes::copy_from_slice(key));
    }

    /// The range at `index` absorbs its right neighbour.
    pub fn merge(&self, index: usize) {
        self.0.lock().merge(index);
    }

    pub fn transfer(&self, index: usize, to: u64) {
        let mut inner = self.0.lock();
        let range = &mut inner.ranges[index];
        range.leader = StoreId(to);
        range.term += 1;
    }

    /// Lets a millisecond pass: what arrived is evaluated, what is due is returned.
    pub fn step(&self) -> Vec<(u64, Response)> {
        let mut inner = self.0.lock();
        // The placement driver takes its time, and knows less about leaders.
        if inner.wanted && inner.now.is_multiple_of(20) {
            inner.wanted = false;
            self.1
                .apply_routes(inner.ranges.iter().map(|r| (r.descriptor.clone(), None)));
        }
        inner.step()
    }
}

impl Inner {
    fn step(&mut self) -> Vec<(u64, Response)> {
        self.now += 1;
        self.shake();
        for store in 1..=self.stores {
            let store = StoreId(store);
            while let Some((at, _, _)) = self.arrivals.get(&store).and_then(|q| q.front()) {
                if *at > self.now {
                    break;
                }
                if let Some((_, request, token)) =
                    self.arrivals.get_mut(&store).and_then(|q| q.pop_front())
                {
                    self.serve(store, request, token);
                }
            }
        }
        // Before what was written is acknowledged.
        while self.to_apply.front().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, writes)) = self.to_apply.pop_front() {
                apply(&mut self.applied, writes);
            }
        }
        let later = self.responses.split_off(&(self.now + 1, 0));
        std::mem::replace(&mut self.responses, later)
            .into_values()
            .collect()
    }

    fn respond(&mut self, at: u64, token: u64, response: Response) {
        self.responses_made += 1;
        self.responses
            .insert((at, self.responses_made), (token, response));
    }

    fn serve(&mut self, store: StoreId, request: Request, token: u64) {
        let soon = self.now + self.rng.below(5);
        match self.refuse(store, &request) {
            Some(error) => self.respond(soon, token, Err(error)),
            None => {
                let Body::Command { read_only, .. } = &request.body else {
                    return self.respond(soon, token, Err(RequestError::Invalid("body".into())));
                };
                let read_only = *read_only;
                let hang = self.rng.chance(self.faults.hang);
                let lost = hang || self.rng.chance(self.faults.lost);
                let executed = !lost || self.rng.chance(500);
                let mut reply = Bytes::new();
                let mut at = self
                    .to_apply
                    .back()
                    .map_or(self.now, |(at, _)| *at)
                    .max(self.now);
                if executed {
                    let writes;
                    (reply, writes) = self.evaluate(&request);
                    if !writes.is_empty() {
                        apply(&mut self.evaluated, writes.clone());
                        at += self.rng.below(8);
                        self.to_apply.push_back((at, writes));
                    }
                }
                let at = at + self.rng.below(3) + if hang { 6_000 } else { 0 };
                let response = match (lost, read_only) {
                    (false, _) => Ok(reply),
                    (true, true) => Err(RequestError::Unavailable("lost".into())),
                    (true, false) => Err(RequestError::OutcomeUnknown("lost".into())),
                };
                self.respond(at, token, response);
            }
        }
    }

    fn refuse(&mut self, store: StoreId, request: &Request) -> Option<RequestError> {
        let id = request.range;
        let not_found = RequestError::RangeNotFound { range: id, store };
        let Some(index) = self.ranges.iter().position(|r| r.descriptor.id == id) else {
            // Who has merged the range tells what it is part of now; others know nothing of it.
            let union = self.merged.get(&id).and_then(|start| {
                let here = self.ranges.iter().map(|r| &r.descriptor);
                here.filter(|d| d.replica_on(store).is_some())
                    .find(|d| d.contains(start))
            });
            let current = union.into_iter().cloned().collect::<Vec<_>>();
            return Some(match current.is_empty() {
                true => not_found,
                false => RequestError::EpochNotMatch { current },
            });
        };
        let no_leader = self.down || self.rng.chance(self.faults.no_leader);
        let busy = self.rng.chance(self.faults.busy);
        let busy_for = self.rng.below(30);
        let now = self.now;
        let range = &mut self.ranges[index];
        if range.descriptor.replica_on(store).is_none() {
            return Some(not_found);
        }
        let hint = LeaderHint {
            store: range.leader,
            term: range.term,
        };
        if self.down || now < range.led_from {
            return Some(RequestError::NotLeader {
                range: id,
                leader: None,
            });
        }
        if store != range.leader || (request.term != 0 && request.term != range.term) {
            let leader = (!no_leader).then_some(hint);
            return Some(RequestError::NotLeader { range: id, leader });
        }
        if request.version != range.descriptor.epoch.version {
            let old_end = range.descriptor.end.clone();
            let mut current = vec![range.descriptor.clone()];
            // The neighbour that the range has been cut from, as a store would know it.
            let right = self.ranges.iter().find(|r| r.descriptor.start == old_end);
            current.extend(right.map(|r| r.descriptor.clone()));
            return Some(RequestError::EpochNotMatch { current });
        }
        if busy {
            range.busy_until = now + busy_for;
        }
        (range.busy_until > now).then(|| RequestError::Busy {
            reason: "overlay full".into(),
            retry_after_ms: 5,
        })
    }

    fn evaluate(&mut self, request: &Request) -> (Bytes, BTreeMap<Bytes, Option<Bytes>>) {
        let Body::Command { command, .. } = &request.body else {
            return (Bytes::new(), BTreeMap::new());
        };
        self.seeds += 1;
        let range = self.range(request.range);
        let version = range.descriptor.epoch.version;
        let remembered = Remembered {
            written: &self.written,
            of: format!("{} {version} {}", request.range, range.term),
            evaluation: self.seeds,
        };
        let context = self.context(range);
        let mut txn = Txn::new(&self.evaluated).with_watches(&remembered);
        let reply = RedisModel.evaluate(&context, command, &mut txn);
        let seeds = txn.seeds() - 1;
        let writes = txn.into_writes();
        for key in writes.keys() {
            let unit = Bytes::copy_from_slice(RedisModel.unit(key));
            self.written.insert(unit, self.seeds);
        }
        self.seeds += u64::from(seeds);
        (reply, writes)
    }

    fn context<'a>(&self, range: &'a Range) -> Context<'a> {
        Context {
            now_ms: (self.clock)(self.now),
            seed: self.seeds.wrapping_mul(SEED_STEP),
            start: &range.descriptor.start,
            end: &range.descriptor.end,
        }
    }

    fn range(&self, id: RangeId) -> &Range {
        self.ranges
            .iter()
            .find(|r| r.descriptor.id == id)
            .expect("a range that was found before")
    }

    fn shake(&mut self) {
        let faults = self.faults;
        let index = self.rng.below(self.ranges.len() as u64) as usize;
        if self.rng.chance(faults.transfer) {
            let members = self.ranges[index].descriptor.replicas.len() as u64;
            let to = self.rng.below(members) as usize;
            let gap = self.rng.below(60);
            let range = &mut self.ranges[index];
            range.leader = range.descriptor.replicas[to].store;
            range.term += 1;
            range.led_from = self.now + gap;
        }
        if self.rng.chance(faults.split) && self.ranges.len() < 12 {
            let slot = self.rng.below(16384);
            self.split_at(Bytes::copy_from_slice(&[
                0x20,
                (slot >> 8) as u8,
                slot as u8,
            ]));
        }
        if self.rng.chance(faults.merge) && index + 1 < self.ranges.len() {
            self.merge(index);
        }
        if self.rng.chance(faults.moves) && self.stores > 3 {
            let range = &mut self.ranges[index];
            let spare = (1..=self.stores)
                .map(StoreId)
                .find(|s| range.descriptor.replica_on(*s).is_none());
            let victim = range
                .descriptor
                .replicas
                .iter()
                .position(|r| r.store != range.leader);
            if let (Some(spare), Some(victim)) = (spare, victim) {
                let id = ReplicaId(self.next_id * 100 + spare.0);
                self.next_id += 1;
                range.descriptor.replicas[victim] = Replica {
                    id,
                    store: spare,
                    role: ReplicaRole::Voter,
                };
                range.descriptor.epoch.conf_version += 2;
            }
        }
    }

    /// The range at `index` absorbs its right neighbour.
    fn merge(&mut self, index: usize) {
        let right = self.ranges.remove(index + 1).descriptor;
        let left = &mut self.ranges[index];
        left.descriptor.end = right.end;
        let version = &mut left.descriptor.epoch.version;
        *version = right.epoch.version.max(*version) + 1;
        self.merged.insert(right.id, right.start);
    }

    fn split_at(&mut self, key: Bytes) {
        let Some(index) = self
            .ranges
            .iter()
            .position(|r| r.descriptor.contains(&key) && r.descriptor.start != key)
        else {
            return;
        };
        let id = self.next_id;
        self.next_id += 1;
        let left = &mut self.ranges[index];
        left.descriptor.epoch.version += 1;
        let mut right = left.descriptor.clone();
        left.descriptor.end = key.clone();
        right.id = RangeId(id);
        right.start = key;
        let right = Range {
            descriptor: right,
            leader: left.leader,
            term: 6,
            busy_until: 0,
            led_from: self.now + 3,
        };
        self.ranges.insert(index + 1, right);
    }
}

impl Stores for Fake {
    fn local(&self) -> StoreId {
        StoreId(1)
    }

    fn send(&self, store: StoreId, request: Request, _: &Arc<dyn ReplySink>, token: u64) {
        let mut inner = self.0.lock();
        let at = inner.now + inner.rng.below(4);
        let queue = inner.arrivals.entry(store).or_default();
        let at = queue.back().map_or(at, |(last, _, _)| at.max(*last));
        queue.push_back((at, request, token));
    }

    fn read_local(
        &self,
        range: RangeId,
        version: u64,
        _: EvaluatorId,
        command: &Bytes,
    ) -> Option<Bytes> {
        let mut inner = self.0.lock();
        let found = inner.ranges.iter().find(|r| r.descriptor.id == range)?;
        let leads = found.leader == StoreId(1) && !inner.down && found.led_from <= inner.now;
        if !leads || found.descriptor.epoch.version != version {
            return None;
        }
        let context = inner.context(found);
        let mut txn = Txn::new(&inner.applied);
        let reply = RedisModel.evaluate(&context, command, &mut txn);
        let read_only = txn.is_read_only();
        drop(txn);
        inner.local_reads += 1;
        read_only.then_some(reply)
    }

    fn local_routes(&self) -> Vec<(RangeDescriptor, Option<LeaderHint>)> {
        let inner = self.0.lock();
        let here = inner
            .ranges
            .iter()
            .filter(|r| r.descriptor.replica_on(StoreId(1)).is_some());
        let route = |r: &Range| {
            (
                r.descriptor.clone(),
                Some(LeaderHint {
                    store: r.leader,
                    term: r.term,
                }),
            )
        };
        here.map(route).collect()
    }

    fn want_route(&self, _: &[u8]) {
        self.0.lock().wanted = true;
    }
}

struct Nowhere;

impl ReplySink for Nowhere {
    fn complete(&self, _: u64, _: Response) {}
}

impl HangUp for Nowhere {
    fn hang_up(&self) {}
    fn finish(&self) {}
    fn wake(&self) {}
}

pub struct TestNode;

impl Node for TestNode {
    fn unix_micros(&self) -> u64 {
        1_700_000_000_123_456
    }
    /// There are no replicas.
    fn run(&self, errand: Errand, _: Arc<dyn ReplySink>, _: u64) -> Option<Bytes> {
        let Errand::Wait {
            local, protocol, ..
        } = errand
        else {
            return Some(Bytes::from_static(b"-ERR no cluster\r\n"));
        };
        let mut reply = Reply::new(protocol);
        match local {
            None => reply.int(0),
            Some(_) => reply.array(2).int(1).int(0),
        };
        Some(reply.finish())
    }
    fn info(&self, section: &str, lines: &mut Vec<(String, String)>) {
        if section == "memory" {
            lines.push(("used_memory".into(), "1".into()));
        }
    }
}

pub fn session(door: &Arc<Door>, seed: u64) -> Session {
    let client = door
        .clients
        .open(
            "127.0.0.1:1".into(),
            "127.0.0.1:2".into(),
            Arc::new(Nowhere),
            0,
            100,
        )
        .expect("room for a client");
    Session::new(door.clone(), client, Arc::new(Nowhere), seed)
}

/// A session on a fake cluster, with a clock.
pub struct World {
    pub fake: Arc<Fake>,
    pub door: Arc<Door>,
    pub session: Session,
    pub now: u64,
}

impl World {
    pub fn new(seed: u64, stores: u64, faults: Faults) -> Self {
        let cache = Arc::new(SharedCache::new());
        let fake = Fake::new(seed, stores, faults, cache.clone());
        let door = Arc::new(Door::new(Default::default(), cache, Arc::new(TestNode)));
        let session = session(&door, seed);
        World {
            fake,
            door,
            session,
            now: 0,
        }
    }

    pub fn send(&mut self, command: &str) {
        let mut args: Vec<Bytes> = command
            .split(' ')
            .map(|a| Bytes::copy_from_slice(a.as_bytes()))
            .collect();
        self.session.execute(&mut args, self.now, &*self.fake);
    }

    pub fn step(&mut self) {
        self.session.pump(self.now, &*self.fake);
        self.now += 1;
        for (token, response) in self.fake.step() {
            self.session
                .on_response(token, response, self.now, &*self.fake);
        }
        if self.session.next_timer().is_some_and(|at| at <= self.now) {
            self.session.on_timer(self.now, &*self.fake);
        }
        self.session.pump(self.now, &*self.fake);
    }

    /// Runs until all is answered; how long that took.
    pub fn settle(&mut self) -> u64 {
        let start = self.now;
        self.session.pump(self.now, &*self.fake);
        while !self.session.is_idle() {
            self.step();
            assert!(self.now - start < 60_000, "unanswered after a minute");
        }
        self.now - start
    }

    /// The replies since the last call, each with its framing.
    pub fn replies(&mut self) -> Vec<Bytes> {
        let out = self.session.replies().split().freeze();
        match rangekv_router::reply::sequence(&out) {
            Some((replies, end)) if end == out.len() => replies,
            _ => panic!("replies that can't be read: {out:?}"),
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.settle();
        let replies = self.replies();
        assert_eq!(replies.len(), 1, "{command}: {replies:?}");
        String::from_utf8_lossy(&replies[0]).into_owned()
    }
}
