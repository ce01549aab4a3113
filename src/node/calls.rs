//! Calls that the process itself makes: registration, ids, heartbeats, admin commands.
//!
//! They go the way of every request, with the router's retry policy. What is called here may
//! be done twice without harm, save where [`Calls::admin`] says so.

use super::book::AddressBook;
use super::dial::dial;
use super::once::once;
use super::placement::{now_ms, PLACEMENT_VERSION};
use crate::trace::current::{self, Current};
use crate::trace::Tracer;
use bytes::Bytes;
use prost::Message;
use rangekv_pd::state::encode;
use rangekv_proto::internal as pb;
use rangekv_proto::internal::{admin_command, placement_command, AdminCommand, PlacementReply};
use rangekv_proto::{
    Body, EvaluatorId, LeaderHint, Mark, RangeDescriptor, RangeId, Request, RequestError, Response,
    StoreId, PLACEMENT_RANGE,
};
use rangekv_router::cache::{Asked, Route, SharedCache};
use rangekv_router::retry::{Action, Attempt, DoorError, Policy};
use rangekv_router::stores::Stores;
use std::sync::Arc;
use std::time::Duration;

/// One store has this long to answer one request.
const TRY_TIME_MAX: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Clone)]
pub struct Calls {
    stores: Arc<dyn Stores>,
    cache: Arc<SharedCache>,
    book: Arc<AddressBook>,
    tracer: Option<Arc<Tracer>>,
}

/// Which range a call is for.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Range 1.
    Placement,
    /// A range by its id.
    Range(RangeId),
    /// The range that holds a key.
    Key(&'a [u8]),
    /// The range that holds the keys just before this one.
    Before(&'a [u8]),
}

/// Where to send a call, as far as is known.
struct Where {
    range: RangeId,
    version: u64,
    leader: Option<LeaderHint>,
    /// Whom to ask in turn if the leader is unknown.
    others: Vec<StoreId>,
    /// Whom to ask now and then besides: the members known may all have been replaced.
    strangers: Vec<StoreId>,
}

impl Calls {
    /// Calls over `stores`, routed by `cache`.
    pub fn new(
        stores: Arc<dyn Stores>,
        cache: Arc<SharedCache>,
        book: Arc<AddressBook>,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        Calls {
            stores,
            cache,
            book,
            tracer,
        }
    }

    /// A placement command. A refusal is in the reply's `error`.
    pub async fn placement(
        &self,
        kind: placement_command::Kind,
        within: Duration,
    ) -> Result<PlacementReply, DoorError> {
        let body = Body::Command {
            evaluator: EvaluatorId::PLACEMENT,
            read_only: matches!(kind, placement_command::Kind::ReadState(_)),
            command: encode(kind),
        };
        let reply = self.call(Target::Placement, body, true, within).await?;
        PlacementReply::decode(reply)
            .map_err(|e| DoorError::Invalid(format!("not a placement reply: {e}")))
    }

    /// A placement command that must not be carried out twice: after an unknown outcome it is
    /// not sent again.
    pub async fn placement_once(
        &self,
        kind: placement_command::Kind,
        within: Duration,
    ) -> Result<PlacementReply, DoorError> {
        let body = Body::Command {
            evaluator: EvaluatorId::PLACEMENT,
            read_only: false,
            command: encode(kind),
        };
        let reply = self.call(Target::Placement, body, false, within).await?;
        PlacementReply::decode(reply)
            .map_err(|e| DoorError::Invalid(format!("not a placement reply: {e}")))
    }

    /// A command of a data model to a range's leader; a read is answered here if this store
    /// leads the range under a lease.
    pub async fn evaluate(
        &self,
        target: Target<'_>,
        evaluator: EvaluatorId,
        read_only: bool,
        command: Bytes,
        within: Duration,
    ) -> Result<Bytes, DoorError> {
        if read_only {
            let route = self.route(target);
            let local = route.and_then(|route| {
                let RangeDescriptor { id, epoch, .. } = &route.descriptor;
                let read = self
                    .stores
                    .read_local(*id, epoch.version, evaluator, &command)?;
                current::note(*id, self.stores.local());
                Some(read)
            });
            if let Some(reply) = local {
                return Ok(reply);
            }
        }
        let body = Body::Command {
            evaluator,
            read_only,
            command,
        };
        self.call(target, body, read_only, within).await
    }

    /// A heartbeat to the placement driver's leader.
    pub async fn heartbeat(&self, heartbeat: Bytes, within: Duration) -> Result<Bytes, DoorError> {
        let body = Body::Heartbeat(heartbeat);
        self.call(Target::Placement, body, true, within).await
    }

    /// An admin command to a range's leader. Sent again only if nothing can have been proposed:
    /// after an unknown outcome the caller looks at what the range has become.
    pub async fn admin(
        &self,
        target: Target<'_>,
        kind: admin_command::Kind,
        within: Duration,
    ) -> Result<Bytes, DoorError> {
        let name = match &kind {
            admin_command::Kind::Split(_) => "split",
            admin_command::Kind::Merge(_) => "merge",
            admin_command::Kind::TransferLeader(_) => "transfer leader",
            admin_command::Kind::ChangeReplicas(_) => "change members",
            _ => "admin command",
        };
        let command = AdminCommand { kind: Some(kind) };
        let body = Body::Admin(command.encode_to_vec().into());
        let Some(work) = self.tracer.as_ref().map(|tracer| tracer.begin(name)) else {
            return self.call(target, body, false, within).await;
        };
        let current = Current::new(work.mark());
        let done = current.run(self.call(target, body, false, within)).await;
        let ranges = current.asked().ranges;
        let range = ranges.first().map_or(0, |range| range.0);
        let error = done.as_ref().err().map(DoorError::to_string);
        work.with("rangekv.range", range as i64).end(error);
        done
    }

    /// The route to `target`, if it is known.
    pub fn route(&self, target: Target<'_>) -> Option<Arc<Route>> {
        let cache = self.cache.snapshot().cache;
        match target {
            Target::Placement => by_id(cache.routes(), PLACEMENT_RANGE),
            Target::Range(range) => by_id(cache.routes(), range),
            Target::Key(key) => cache.lookup(key).cloned(),
            Target::Before(key) => {
                let holds = |r: &&Arc<Route>| {
                    let d = &r.descriptor;
                    &d.start[..] < key && (d.end.is_empty() || key <= &d.end[..])
                };
                cache.routes().iter().find(holds).cloned()
            }
        }
    }

    /// All known routes, in key order.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.cache.snapshot().cache.routes().to_vec()
    }

    /// One request to one store, without retries.
    pub async fn ask(&self, store: StoreId, request: Request) -> Response {
        let harmless = match &request.body {
            Body::Command { read_only, .. } => *read_only,
            Body::Heartbeat(_) | Body::PubSub(_) => true,
            Body::Admin(_) => false,
        };
        let (sink, response) = once();
        self.stores.send(store, request, &sink, 0);
        tokio::time::timeout(TRY_TIME_MAX, response)
            .await
            .unwrap_or_else(|_| {
                let why = format!("no answer from store {store} within {TRY_TIME_MAX:?}");
                Err(match harmless {
                    true => RequestError::Unavailable(why),
                    false => RequestError::OutcomeUnknown(why),
                })
            })
    }

    async fn call(
        &self,
        target: Target<'_>,
        body: Body,
        repeatable: bool,
        within: Duration,
    ) -> Result<Bytes, DoorError> {
        let policy = Policy {
            busy_tries_max: u32::MAX,
            ..Policy::default()
        };
        let deadline_ms = now_ms() + within.as_millis() as u64;
        let mut told = None;
        let mut at_once = 0;
        for tries in 1.. {
            let asked = self.choose(target, tries, told);
            let response = match asked {
                Some(asked) => {
                    let mark = current::note(asked.range, asked.store);
                    self.ask(asked.store, request(asked, &body, mark)).await
                }
                None => Err(RequestError::Unavailable(format!(
                    "no route to {target:?} is known"
                ))),
            };
            let error = match response {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            told = match &error {
                RequestError::NotLeader { leader, .. } => *leader,
                _ => None,
            };
            let attempt = Attempt {
                now_ms: now_ms(),
                deadline_ms,
                tries,
                at_once,
                read_only: repeatable,
                asked: asked.unwrap_or(NOBODY),
                news: asked.is_some_and(|asked| self.cache.on_error(&asked, &error)),
            };
            match policy.next(&error, &attempt) {
                Action::GiveUp(error) => return Err(error),
                Action::RetryAt { when_ms, .. } => {
                    let wait = when_ms.saturating_sub(now_ms());
                    at_once = if wait == 0 { at_once + 1 } else { 0 };
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
            }
        }
        unreachable!("the policy gives up at the deadline")
    }

    /// Whom to ask: the leader by the cache, or the one just named, or everyone in turn. The
    /// cache forgets a leader that does not answer as one.
    fn choose(&self, target: Target<'_>, tries: u32, told: Option<LeaderHint>) -> Option<Asked> {
        let place = self.locate(target)?;
        let (store, term) = match place.leader.or(told) {
            Some(hint) => (hint.store, hint.term),
            None => (place.turn(tries as usize)?, 0),
        };
        Some(Asked {
            range: place.range,
            version: place.version,
            store,
            term,
        })
    }

    fn locate(&self, target: Target<'_>) -> Option<Where> {
        if let Some(route) = self.route(target) {
            let RangeDescriptor {
                id,
                epoch,
                replicas,
                ..
            } = &route.descriptor;
            let others: Vec<StoreId> = replicas.iter().map(|r| r.store).collect();
            let mut strangers = Vec::new();
            if *id == PLACEMENT_RANGE {
                let all = self.book.all().into_keys();
                strangers.extend(all.filter(|store| !others.contains(store)));
            }
            return Some(Where {
                range: *id,
                version: epoch.version,
                leader: route.leader,
                others,
                strangers,
            });
        }
        // A store that has just joined knows some stores, but no ranges.
        matches!(target, Target::Placement).then(|| Where {
            range: PLACEMENT_RANGE,
            version: PLACEMENT_VERSION,
            leader: None,
            others: self.book.all().into_keys().collect(),
            strangers: Vec::new(),
        })
    }
}

impl Where {
    /// Whom to ask at the `tries`th attempt: every fourth time a stranger, if there are any.
    fn turn(&self, tries: usize) -> Option<StoreId> {
        match self.strangers.len() {
            0 => self.others.get(tries % self.others.len().max(1)),
            count if tries % 4 == 3 => self.strangers.get(tries / 4 % count),
            _ => self.others.get(tries % self.others.len().max(1)),
        }
        .copied()
    }
}

/// Stands for "no one was asked" in an [`Attempt`].
const NOBODY: Asked = Asked {
    range: RangeId(0),
    version: 0,
    store: StoreId(0),
    term: 0,
};

/// In any term: nothing here depends on the order of calls.
fn request(asked: Asked, body: &Body, mark: Mark) -> Request {
    Request {
        range: asked.range,
        version: asked.version,
        term: 0,
        mark,
        body: body.clone(),
    }
}

fn by_id(routes: &[Arc<Route>], range: RangeId) -> Option<Arc<Route>> {
    routes.iter().find(|r| r.descriptor.id == range).cloned()
}

/// Who the store at `address` says it is.
pub async fn identify(address: &str) -> Result<pb::Identity, tonic::Status> {
    let mut request = tonic::Request::new(pb::ProbeRequest {});
    request.set_timeout(TRY_TIME_MAX);
    let mut client = dial(address).await?;
    Ok(client.identify(request).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_asked_in_turn_and_strangers_now_and_then() {
        let store = |ids: &[u64]| ids.iter().map(|id| StoreId(*id)).collect::<Vec<_>>();
        let mut place = Where {
            range: PLACEMENT_RANGE,
            version: 1,
            leader: None,
            others: store(&[1, 2, 3]),
            strangers: store(&[8, 9]),
        };
        let asked = |place: &Where| -> Vec<u64> {
            (1..=12)
                .filter_map(|tries| Some(place.turn(tries)?.0))
                .collect()
        };
        assert_eq!(asked(&place), [2, 3, 8, 2, 3, 1, 9, 3, 1, 2, 8, 1]);
        place.strangers.clear();
        assert_eq!(asked(&place), [2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1]);
        place.others.clear();
        assert!(asked(&place).is_empty());
    }
}
