//! Sends calls to the leaders of their ranges, again where that is safe, and keeps the order
//! of one caller's calls. The part of a front door that all dialects share.
//!
//! A *call* is one request to one range. Calls of one caller travel in *lanes*: a lane is a
//! range as it was routed to (version, store, term) while calls to it are unanswered.
//!
//! Invariants:
//! - Calls whose keys may coincide are in one lane, or the later one is not started
//!   ([`admits`](Dispatcher::admits)). Within a lane they were sent in order, under one route.
//! - A store refuses every request of a term that is not its own, so a refusal is followed by
//!   refusals of all that was sent behind it. A lane with a refused call sends nothing more;
//!   when all its calls are answered the refused ones start over, in order.
//! - A call without a route holds up all others; it starts over when the lanes are empty.
//! - A call is not sent again if a later one of its lane was accepted (a store that was busy
//!   for the first and not for the second): the caller hears an error instead.
//! - A write is sent again only after an error that proves that nothing was proposed.
//! - Each started call ends in exactly one [`Outcome`], at its deadline at the latest.
//!
//! Sans-IO: time is an argument in milliseconds, effects go through `&dyn Stores`.

use crate::cache::{Asked, RangeCache, Route, SharedCache, Snapshot};
use crate::retry::{Action, Ask, Attempt, DoorError, Policy};
use crate::stores::Stores;
use crate::trace::Open;
use bytes::Bytes;
use rangekv_proto::{
    Body, EvaluatorId, Mark, RangeId, ReplySink, Request, RequestError, Response, StoreId,
    INITIAL_TERM,
};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A term in which nobody ever leads: a request that carries it is refused with the name of
/// the leader. So a leader's term is learned before anything is sent under it, at the price
/// of one round trip.
const PROBE_TERM: u64 = INITIAL_TERM - 1;

/// Names a call to its caller: a command, and which of its parts. The order of ids is the
/// order of the commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId {
    /// Number of the command; greater than those of all earlier ones.
    pub command: u64,
    /// Which part of it.
    pub part: u32,
}

/// One request to one range.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's name for it.
    pub id: CallId,
    /// A key in the range that it goes to.
    pub key: Bytes,
    /// The data model.
    pub evaluator: EvaluatorId,
    /// It never writes.
    pub read_only: bool,
    /// In the model's encoding.
    pub command: Bytes,
    /// When it must have ended.
    pub deadline_ms: u64,
    /// Waits for a busy range until the deadline.
    pub patient: bool,
    attempts: Attempts,
}

/// What a call has been through.
#[derive(Clone, Debug, Default)]
struct Attempts {
    tries: u32,
    at_once: u32,
    last: Option<Asked>,
    another: bool,
    /// Of the last send: the order within the lane.
    token: u64,
    /// When an unanswered try is taken for lost, or the deadline.
    try_until_ms: u64,
    why: Option<RequestError>,
}

impl Call {
    /// A call that has not been sent yet.
    pub fn new(
        id: CallId,
        key: Bytes,
        evaluator: EvaluatorId,
        read_only: bool,
        command: Bytes,
        deadline_ms: u64,
    ) -> Self {
        let attempts = Attempts::default();
        Call {
            id,
            key,
            evaluator,
            read_only,
            command,
            deadline_ms,
            patient: false,
            attempts,
        }
    }

    /// The same call, with what it has been through, as another part over other keys.
    pub fn divided(&self, id: CallId, key: Bytes, command: Bytes) -> Self {
        Call {
            id,
            key,
            command,
            ..self.clone()
        }
    }

    fn gave_up(&self) -> DoorError {
        DoorError::Unavailable(match &self.attempts.why {
            Some(error) => error.to_string(),
            None => "the range that holds the key is not known".into(),
        })
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which call.
    pub id: CallId,
    /// The reply, or why there is none.
    pub result: Result<Bytes, DoorError>,
    /// End of the range by which it was routed.
    pub range_end: Bytes,
}

/// A range with unanswered calls.
#[derive(Debug)]
struct Lane {
    route: Arc<Route>,
    store: StoreId,
    term: u64,
    in_flight: usize,
    /// The greatest token of a call that was accepted, or may have been.
    accepted: u64,
    refused: Vec<Call>,
    retry_at_ms: u64,
}

/// Hashes a range id by one multiplication.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// See the module documentation. One per connection.
pub struct Dispatcher {
    shared: Arc<SharedCache>,
    sink: Arc<dyn ReplySink>,
    policy: Policy,
    routes: Snapshot,
    lanes: HashMap<RangeId, Lane, BuildHasherDefault<IdHasher>>,
    /// Lanes with refused calls.
    recovering: usize,
    /// Generation of the routes by which all lanes were made, or found to agree with.
    lanes_generation: u64,
    /// Calls that found no route; they start over when the first is due.
    unrouted: Vec<Call>,
    unrouted_at_ms: u64,
    /// Calls in flight by token, counted from `first_token`.
    in_flight: VecDeque<Option<Call>>,
    first_token: u64,
    /// No call in flight expires before this.
    expiry_ms: u64,
    /// What [`flush`](Self::flush) sends.
    outbox: Vec<(StoreId, Vec<(Request, u64)>)>,
    /// Traced commands under way: most often none.
    traced: Vec<Open>,
}

impl Dispatcher {
    /// A dispatcher with nothing in flight, whose responses go to `sink`.
    pub fn new(shared: Arc<SharedCache>, sink: Arc<dyn ReplySink>, policy: Policy) -> Self {
        let routes = shared.snapshot();
        Dispatcher {
            shared,
            sink,
            policy,
            lanes_generation: routes.generation,
            routes,
            lanes: HashMap::default(),
            recovering: 0,
            unrouted: Vec::new(),
            unrouted_at_ms: 0,
            in_flight: VecDeque::new(),
            first_token: 1,
            expiry_ms: u64::MAX,
            outbox: Vec::new(),
            traced: Vec::new(),
        }
    }

    /// From now on calls of this command are traced, until [`end_trace`](Self::end_trace).
    pub fn trace(&mut self, command: Open) {
        self.traced.push(command);
    }

    /// Whether any command is traced.
    pub fn is_tracing(&self) -> bool {
        !self.traced.is_empty()
    }

    /// What was noted of a command, if it is traced.
    pub fn end_trace(&mut self, command: u64) -> Option<Open> {
        let at = self
            .traced
            .iter()
            .position(|open| open.command == command)?;
        Some(self.traced.swap_remove(at))
    }

    /// Looks at the current routes from now on. Not called between the parts of a command, nor
    /// between calls that start over together: what one set of routes sends to one range may
    /// part under another.
    pub fn refresh(&mut self) {
        self.shared.refresh(&mut self.routes);
    }

    /// The route to the range that holds `key`, as of the last [`refresh`](Self::refresh) or
    /// [`take_due`](Self::take_due).
    pub fn lookup(&self, key: &[u8]) -> Option<Arc<Route>> {
        self.routes.cache.lookup(key).cloned()
    }

    /// All routes, as of then.
    pub fn routes(&self) -> &RangeCache {
        &self.routes.cache
    }

    /// Whether nothing is unanswered.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.unrouted.is_empty()
    }

    /// Whether a new call over `route` may be started now without overtaking an earlier one.
    /// `None` stands for a key without a route.
    pub fn admits(&mut self, route: Option<&Route>) -> bool {
        if !self.unrouted.is_empty() {
            return false;
        }
        if self.lanes.is_empty() {
            self.lanes_generation = self.routes.generation;
            return true;
        }
        let Some(route) = route else { return false };
        if self.recovering == 0 {
            if self.lanes_generation == self.routes.generation {
                return true;
            }
            // Something about the routes changed. Most often a leader, and all bounds hold.
            let cache = &self.routes.cache;
            if self
                .lanes
                .values()
                .all(|lane| lane.agrees(cache.lookup(&lane.start()[..])))
            {
                self.lanes_generation = self.routes.generation;
                return true;
            }
        }
        let descriptor = &route.descriptor;
        self.lanes.values().all(|lane| {
            !lane.route.descriptor.overlaps(descriptor)
                || (lane.refused.is_empty() && lane.same_bounds(route))
        })
    }

    /// Starts a call which [`admits`](Self::admits) allowed, or starts one over which
    /// [`take_due`](Self::take_due) returned. The reply, if it could be had on this thread.
    pub fn start(
        &mut self,
        mut call: Call,
        route: Option<Arc<Route>>,
        now_ms: u64,
        stores: &dyn Stores,
    ) -> Option<Bytes> {
        // Nothing passes a call without a route: its keys may be anywhere.
        let Some(route) = route.filter(|_| self.unrouted.is_empty()) else {
            self.hold_unrouted(call, now_ms, stores);
            return None;
        };
        let range = route.descriptor.id;
        let version = route.descriptor.epoch.version;
        let lane = match self.lanes.get_mut(&range) {
            Some(lane) if lane.refused.is_empty() && lane.same_bounds(&route) => lane,
            Some(lane) => {
                // Only a call that starts over comes here, from another lane whose range has
                // become this one. Its keys are not among this lane's.
                if lane.refused.is_empty() {
                    self.recovering += 1;
                }
                call.attempts.token = self.first_token + self.in_flight.len() as u64;
                self.in_flight.push_back(None);
                lane.refused.push(call);
                return None;
            }
            None => {
                let (store, term) = target(&route, &call, stores.local());
                if call.read_only && store == stores.local() {
                    let reply = stores.read_local(range, version, call.evaluator, &call.command);
                    if reply.is_some() {
                        note(&mut self.traced, call.id.command, range, store);
                        return reply;
                    }
                }
                self.lanes.entry(range).or_insert(Lane {
                    route,
                    store,
                    term,
                    in_flight: 0,
                    accepted: 0,
                    refused: Vec::new(),
                    retry_at_ms: now_ms,
                })
            }
        };
        let (store, term) = (lane.store, lane.term);
        lane.in_flight += 1;
        let mark = note(&mut self.traced, call.id.command, range, store);
        let token = self.first_token + self.in_flight.len() as u64;
        let attempts = &mut call.attempts;
        attempts.tries += 1;
        attempts.last = Some(Asked {
            range,
            version,
            store,
            term,
        });
        attempts.token = token;
        attempts.try_until_ms = match call.read_only {
            true => call.deadline_ms.min(now_ms + self.policy.read_try_ms),
            false => call.deadline_ms,
        };
        self.expiry_ms = self.expiry_ms.min(attempts.try_until_ms);
        let body = Body::Command {
            evaluator: call.evaluator,
            read_only: call.read_only,
            command: call.command.clone(),
        };
        self.in_flight.push_back(Some(call));
        let request = Request {
            range,
            version,
            term,
            mark,
            body,
        };
        match self.outbox.iter_mut().find(|(to, _)| *to == store) {
            Some((_, batch)) => batch.push((request, token)),
            None => self.outbox.push((store, vec![(request, token)])),
        }
        None
    }

    /// Sends what was started since the last flush.
    pub fn flush(&mut self, stores: &dyn Stores) {
        for (store, batch) in &mut self.outbox {
            if !batch.is_empty() {
                stores.send_batch(*store, batch, &self.sink);
                batch.clear();
            }
        }
    }

    /// Takes in the response to `token`; an outcome if that ends the call.
    pub fn on_response(
        &mut self,
        token: u64,
        response: Response,
        now_ms: u64,
        stores: &dyn Stores,
    ) -> Option<Outcome> {
        let call = self.take(token)?;
        match response {
            Ok(reply) => Some(self.end(call, Ok(reply))),
            Err(error) => self.on_error(call, error, now_ms, stores),
        }
    }

    /// Ends what has reached its deadline by `now_ms`, and takes reads for lost that are
    /// unanswered for too long.
    pub fn on_timer(&mut self, now_ms: u64, stores: &dyn Stores, outcomes: &mut Vec<Outcome>) {
        if self.expiry_ms <= now_ms {
            self.expiry_ms = u64::MAX;
            for i in 0..self.in_flight.len() {
                let Some(call) = &self.in_flight[i] else {
                    continue;
                };
                if call.attempts.try_until_ms > now_ms {
                    self.expiry_ms = self.expiry_ms.min(call.attempts.try_until_ms);
                    continue;
                }
                if let Some(call) = self.in_flight[i].take() {
                    let error = match call.read_only {
                        true => RequestError::Unavailable("no answer in time".into()),
                        false => RequestError::OutcomeUnknown("no answer in time".into()),
                    };
                    outcomes.extend(self.on_error(call, error, now_ms, stores));
                }
            }
            self.trim();
        }
        let mut expired = Vec::new();
        let is_due = |call: &mut Call| call.deadline_ms <= now_ms;
        for lane in self
            .lanes
            .values_mut()
            .filter(|lane| !lane.refused.is_empty())
        {
            expired.extend(lane.refused.extract_if(.., is_due));
            if lane.refused.is_empty() {
                self.recovering -= 1;
            }
        }
        if !expired.is_empty() {
            self.lanes.retain(|_, lane| !lane.is_empty());
        }
        expired.extend(self.unrouted.extract_if(.., is_due));
        // Lanes are hashed; what is told must not depend on it.
        expired.sort_by_key(|call| call.id);
        outcomes.extend(expired.into_iter().map(|call| {
            let result = Err(call.gave_up());
            Outcome {
                id: call.id,
                result,
                range_end: Bytes::new(),
            }
        }));
    }

    /// Refused calls that are to start over now, in order: those of one lane. Call until
    /// `None`, and start each before asking for more.
    pub fn take_due(&mut self, now_ms: u64, outcomes: &mut Vec<Outcome>) -> Option<Vec<Call>> {
        if !self.unrouted.is_empty() && self.lanes.is_empty() && self.unrouted_at_ms <= now_ms {
            self.shared.refresh(&mut self.routes);
            self.unrouted.sort_by_key(|call| call.id);
            return Some(std::mem::take(&mut self.unrouted));
        }
        if self.recovering == 0 {
            return None;
        }
        let due = |lane: &Lane| {
            lane.in_flight == 0 && !lane.refused.is_empty() && lane.retry_at_ms <= now_ms
        };
        let range = self
            .lanes
            .iter()
            .filter(|(_, lane)| due(lane))
            .map(|(id, _)| *id)
            .min()?;
        let mut lane = self.lanes.remove(&range)?;
        self.recovering -= 1;
        self.shared.refresh(&mut self.routes);
        lane.refused.sort_by_key(|call| call.id);
        for call in lane
            .refused
            .extract_if(.., |call| call.attempts.token < lane.accepted)
        {
            let result = Err(match &call.attempts.why {
                Some(RequestError::Busy { reason, .. }) => DoorError::Busy(reason.clone()),
                why => DoorError::Unavailable(format!(
                    "{}; a later request of this connection went through",
                    why.as_ref().map_or_else(String::new, |why| why.to_string())
                )),
            });
            let range_end = lane.route.descriptor.end.clone();
            outcomes.push(Outcome {
                id: call.id,
                result,
                range_end,
            });
        }
        Some(lane.refused)
    }

    /// When [`on_timer`](Self::on_timer) or [`take_due`](Self::take_due) have something to do.
    pub fn next_timer(&self) -> Option<u64> {
        let mut next = self.expiry_ms;
        if self.recovering > 0 {
            for lane in self.lanes.values().filter(|lane| !lane.refused.is_empty()) {
                if lane.in_flight == 0 {
                    next = next.min(lane.retry_at_ms);
                }
                next = lane
                    .refused
                    .iter()
                    .map(|call| call.deadline_ms)
                    .fold(next, u64::min);
            }
        }
        if !self.unrouted.is_empty() {
            if self.lanes.is_empty() {
                next = next.min(self.unrouted_at_ms);
            }
            next = self
                .unrouted
                .iter()
                .map(|call| call.deadline_ms)
                .fold(next, u64::min);
        }
        (next != u64::MAX).then_some(next)
    }

    fn on_error(
        &mut self,
        mut call: Call,
        error: RequestError,
        now_ms: u64,
        stores: &dyn Stores,
    ) -> Option<Outcome> {
        let Some(asked) = call.attempts.last else {
            let result = Err(DoorError::Invalid("answered before it was sent".into()));
            return Some(Outcome {
                id: call.id,
                result,
                range_end: Bytes::new(),
            });
        };
        let news = self.shared.on_error(&asked, &error);
        self.shared.refresh(&mut self.routes);
        // Another connection may have learned it first.
        let moved_on = match (&error, self.routes.cache.lookup(&call.key)) {
            (RequestError::EpochNotMatch { .. }, Some(route)) => {
                let descriptor = &route.descriptor;
                descriptor.id != asked.range || descriptor.epoch.version != asked.version
            }
            _ => false,
        };
        if matches!(error, RequestError::RangeNotFound { .. })
            || (matches!(error, RequestError::EpochNotMatch { .. }) && !moved_on)
        {
            stores.want_route(&call.key);
        }
        let busy = matches!(error, RequestError::Busy { .. });
        let attempt = Attempt {
            now_ms,
            deadline_ms: call.deadline_ms,
            tries: if busy && call.patient {
                1
            } else {
                call.attempts.tries
            },
            at_once: call.attempts.at_once,
            read_only: call.read_only,
            asked,
            news: news || moved_on,
        };
        match self.policy.next(&error, &attempt) {
            Action::GiveUp(error) => Some(self.end(call, Err(error))),
            Action::RetryAt { when_ms, ask } => {
                call.attempts.another = ask == Ask::Another;
                call.attempts.at_once = if when_ms <= now_ms {
                    call.attempts.at_once + 1
                } else {
                    0
                };
                call.attempts.why = Some(error);
                let Some(lane) = self.lanes.get_mut(&asked.range) else {
                    let result = Err(call.gave_up());
                    return Some(Outcome {
                        id: call.id,
                        result,
                        range_end: Bytes::new(),
                    });
                };
                lane.in_flight -= 1;
                lane.retry_at_ms = match lane.refused.is_empty() {
                    true => when_ms,
                    false => lane.retry_at_ms.max(when_ms),
                };
                if lane.refused.is_empty() {
                    self.recovering += 1;
                }
                lane.refused.push(call);
                None
            }
        }
    }

    /// Ends a call that was in flight.
    fn end(&mut self, call: Call, result: Result<Bytes, DoorError>) -> Outcome {
        let mut range_end = Bytes::new();
        if let Some(asked) = call.attempts.last {
            if let Some(lane) = self.lanes.get_mut(&asked.range) {
                range_end = lane.route.descriptor.end.clone();
                lane.in_flight -= 1;
                if matches!(result, Ok(_) | Err(DoorError::OutcomeUnknown(_))) {
                    lane.accepted = lane.accepted.max(call.attempts.token);
                }
                if lane.is_empty() {
                    self.lanes.remove(&asked.range);
                }
            }
        }
        Outcome {
            id: call.id,
            result,
            range_end,
        }
    }

    fn hold_unrouted(&mut self, mut call: Call, now_ms: u64, stores: &dyn Stores) {
        stores.want_route(&call.key);
        call.attempts.tries += 1;
        if self.unrouted.is_empty() {
            self.shared.apply_routes(stores.local_routes());
            let known = self.shared.snapshot().cache.lookup(&call.key).is_some();
            let wait = if known {
                0
            } else {
                self.policy.backoff_ms(call.attempts.tries)
            };
            self.unrouted_at_ms = (now_ms + wait).min(call.deadline_ms);
        }
        self.unrouted.push(call);
    }

    /// The call in flight with `token`; `None` if it has ended meanwhile.
    fn take(&mut self, token: u64) -> Option<Call> {
        let index = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        let call = self.in_flight.get_mut(index)?.take();
        self.trim();
        call
    }

    fn trim(&mut self) {
        while let Some(None) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.first_token += 1;
        }
        if self.in_flight.is_empty() {
            self.expiry_ms = u64::MAX;
        }
    }

    /// Panics unless lanes, calls and counts agree.
    pub fn check_invariants(&self) {
        let in_flight = self.in_flight.iter().flatten().count();
        let by_lane: usize = self.lanes.values().map(|lane| lane.in_flight).sum();
        assert_eq!(in_flight, by_lane, "calls in flight, and in lanes");
        let recovering = self
            .lanes
            .values()
            .filter(|lane| !lane.refused.is_empty())
            .count();
        assert_eq!(recovering, self.recovering, "lanes with refused calls");
        assert!(
            self.lanes.values().all(|lane| !lane.is_empty()),
            "an empty lane is left"
        );
    }
}

impl Lane {
    fn start(&self) -> &Bytes {
        &self.route.descriptor.start
    }

    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.refused.is_empty()
    }

    fn same_bounds(&self, route: &Route) -> bool {
        let (mine, other) = (&self.route.descriptor, &route.descriptor);
        mine.id == other.id && mine.epoch.version == other.epoch.version
    }

    fn agrees(&self, route: Option<&Arc<Route>>) -> bool {
        route.is_some_and(|route| self.same_bounds(route))
    }
}

/// Notes that a call of `command` goes to `store`; the mark under which it goes.
fn note(traced: &mut [Open], command: u64, range: RangeId, store: StoreId) -> Mark {
    if traced.is_empty() {
        return Mark::NONE;
    }
    match traced.iter_mut().find(|open| open.command == command) {
        Some(open) => {
            open.asked.note(range, store);
            open.mark
        }
        None => Mark::NONE,
    }
}

/// Whom to ask, and in which term: the leader if one is known that has not just denied it,
/// else the replicas in turn, this process's own first.
fn target(route: &Route, call: &Call, local: StoreId) -> (StoreId, u64) {
    let attempts = &call.attempts;
    let last = attempts
        .last
        .filter(|last| last.range == route.descriptor.id);
    if let Some(hint) = route.leader {
        let denied = attempts.another
            && last.is_some_and(|last| last.store == hint.store && last.term == hint.term);
        if !denied {
            let term = if hint.term == 0 {
                PROBE_TERM
            } else {
                hint.term
            };
            return (hint.store, term);
        }
    }
    let replicas = &route.descriptor.replicas;
    let position = |store| replicas.iter().position(|r| r.store == store);
    let next = match last.and_then(|last| position(last.store)) {
        Some(asked) => (asked + 1) % replicas.len(),
        None => position(local).unwrap_or(0),
    };
    // If nobody can name the leader's term, whoever leads may take it in any.
    let term = if attempts.tries as usize <= 2 * replicas.len() {
        PROBE_TERM
    } else {
        0
    };
    (replicas.get(next).map_or(local, |r| r.store), term)
}
