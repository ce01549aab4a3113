//! `Distribution`: answered by the placement driver's leader, and passed on to it by all others.

use super::status;
use crate::admin::catalog::{Catalog, Entry, Table};
use crate::admin::failure::Failure;
use crate::admin::members::{pursue, Pursuit, Wish};
use crate::admin::stores::{registered, role_name, store_name};
use crate::admin::{placement_leader, ranges, NotHere, CALL_TIME_MAX};
use crate::node::dial::connect;
use crate::node::running::Running;
use crate::node::service::Here;
use bytes::Bytes;
use futures::Stream;
use rangekv_proto::admin as pb;
use rangekv_proto::admin::distribution_client::DistributionClient;
use rangekv_proto::admin::distribution_server::Distribution;
use rangekv_proto::admin::watch_catalog_event::Payload;
use rangekv_proto::{RangeId, StoreId};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// Marks a request that another store has passed on: it is not passed on again.
const PASSED_ON: &str = "rangekv-passed-on";
/// How often a watcher's table is compared with the present one.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// A call waits so long for a replica to move, and then says that it goes on.
const MOVE_PATIENCE: Duration = Duration::from_secs(60);
/// Events that a watcher may be behind before it is waited for.
const WATCH_BEHIND_MAX: usize = 16;
/// Pause before the placement driver's leader is looked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub struct Routes {
    here: Here,
    catalog: Arc<Catalog>,
}

/// A client of the placement driver's leader.
type Leader = DistributionClient<Channel>;

type Answer<T> = Result<Response<T>, Status>;

/// What a watcher gets.
type Events = Pin<Box<dyn Stream<Item = Result<pb::WatchCatalogEvent, Status>> + Send>>;

/// A request, and how it is answered.
#[tonic::async_trait]
trait Call: Clone + Send + Sync + 'static {
    type Reply;

    /// It changes nothing: a leader that did not answer may be asked again.
    const HARMLESS: bool;

    /// On the placement driver's leader.
    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere>;

    /// On all other stores.
    async fn there(self, leader: Leader) -> Answer<Self::Reply>;
}

impl Routes {
    /// Answers for the store that is here, once it runs.
    pub fn new(here: Here) -> Self {
        Routes {
            here,
            catalog: Arc::default(),
        }
    }

    /// Looks for the placement driver's leader until one answers, or the time is up.
    async fn answer<C: Call>(&self, request: Request<C>) -> Answer<C::Reply> {
        let node = self.here.running()?;
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let call = request.into_inner();
        let until = Instant::now() + CALL_TIME_MAX;
        loop {
            let problem = match call.clone().here(node, &self.catalog).await {
                Ok(reply) => return Ok(Response::new(reply)),
                Err(NotHere::Failed(failure)) => return Err(status(failure)),
                Err(NotHere::Leads(why)) => match placement_leader(node, &why) {
                    Some(leader) if !passed_on => match reach(node, leader).await {
                        Ok(client) => match call.clone().there(client).await {
                            Err(error) if C::HARMLESS && error.code() == Code::Unavailable => error,
                            reply => return reply,
                        },
                        Err(error) => error,
                    },
                    _ => Status::unavailable(format!(
                        "the placement driver's leader is not known: {why}"
                    )),
                },
            };
            if passed_on || Instant::now() + AGAIN >= until {
                return Err(problem);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn reach(node: &Running, leader: StoreId) -> Result<Leader, Status> {
    let name = store_name(node, leader);
    let address = node.book.grpc(leader);
    let address = address.ok_or_else(|| {
        Status::unavailable(format!("the address of the leader, {name}, is unknown"))
    })?;
    Ok(DistributionClient::new(connect(&address).await?))
}

fn passed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let yes = tonic::metadata::MetadataValue::from(1);
    request.metadata_mut().insert(PASSED_ON, yes);
    request
}

#[tonic::async_trait]
impl Distribution for Routes {
    async fn list_routes(
        &self,
        request: Request<pb::ListRoutesRequest>,
    ) -> Answer<pb::ListRoutesResponse> {
        self.answer(request).await
    }

    async fn get_route(
        &self,
        request: Request<pb::GetRouteRequest>,
    ) -> Answer<pb::GetRouteResponse> {
        self.answer(request).await
    }

    async fn split_range(
        &self,
        request: Request<pb::SplitRangeRequest>,
    ) -> Answer<pb::SplitRangeResponse> {
        self.answer(request).await
    }

    async fn merge_range(
        &self,
        request: Request<pb::MergeRangeRequest>,
    ) -> Answer<pb::MergeRangeResponse> {
        self.answer(request).await
    }

    async fn move_replica(
        &self,
        request: Request<pb::MoveReplicaRequest>,
    ) -> Answer<pb::MoveReplicaResponse> {
        self.answer(request).await
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Answer<pb::TransferLeaderResponse> {
        self.answer(request).await
    }

    type WatchCatalogStream = Events;

    async fn watch_catalog(&self, request: Request<pb::WatchCatalogRequest>) -> Answer<Events> {
        self.answer(request).await
    }
}

#[tonic::async_trait]
impl Call for pb::ListRoutesRequest {
    type Reply = pb::ListRoutesResponse;
    const HARMLESS: bool = true;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        Ok(listed(node, &catalog.table(node).await?))
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.list_routes(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::GetRouteRequest {
    type Reply = pb::GetRouteResponse;
    const HARMLESS: bool = true;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        let table = catalog.table(node).await?;
        let route = route(node, table.holder(&self.key));
        Ok(pb::GetRouteResponse {
            start: route.start.clone(),
            end: route.end.clone(),
            raft_group_id: route.raft_group_id,
            catalog_version: table.version,
            route: Some(route),
        })
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.get_route(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::SplitRangeRequest {
    type Reply = pb::SplitRangeResponse;
    const HARMLESS: bool = false;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        split(node, catalog, &self).await
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.split_range(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::MergeRangeRequest {
    type Reply = pb::MergeRangeResponse;
    const HARMLESS: bool = false;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        merge(node, catalog, &self).await
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.merge_range(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::MoveReplicaRequest {
    type Reply = pb::MoveReplicaResponse;
    const HARMLESS: bool = false;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        move_replica(node, catalog, &self).await
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.move_replica(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::TransferLeaderRequest {
    type Reply = pb::TransferLeaderResponse;
    const HARMLESS: bool = false;

    async fn here(
        self,
        node: &Arc<Running>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self::Reply, NotHere> {
        transfer_leader(node, catalog, &self).await
    }

    async fn there(self, mut leader: Leader) -> Answer<Self::Reply> {
        leader.transfer_leader(passed_on(self)).await
    }
}

#[tonic::async_trait]
impl Call for pb::WatchCatalogRequest {
    type Reply = Events;
    const HARMLESS: bool = true;

    async fn here(self, node: &Arc<Running>, catalog: &Arc<Catalog>) -> Result<Events, NotHere> {
        let first = catalog.table(node).await?;
        Ok(watch(node.clone(), catalog.clone(), first))
    }

    async fn there(self, mut leader: Leader) -> Answer<Events> {
        let events = leader.watch_catalog(passed_on(self)).await?.into_inner();
        let events: Events = Box::pin(events);
        Ok(Response::new(events))
    }
}

async fn split(
    node: &Running,
    catalog: &Catalog,
    asked: &pb::SplitRangeRequest,
) -> Result<pb::SplitRangeResponse, NotHere> {
    let id = RangeId(asked.route_id);
    let key = Bytes::from(ranges::cut_at(&asked.split_key));
    let check = |table: &Table| {
        let range = &table.range(id)?.range;
        match range.contains(&key) && key != range.start {
            true => Ok(()),
            false => Err(Failure::Invalid(format!(
                "the key {} does not lie strictly inside route {id}",
                hex(&key)
            ))),
        }
    };
    catalog
        .claim(node, asked.expected_catalog_version, check)
        .await?;
    let (left, right) = ranges::split(node, Some(id.0), &key).await?;
    let (left, right) = (left.id, right.id);
    let done = |table: &Table| {
        let end = table.range(left).map(|left| left.range.end.clone());
        let start = table.range(right).map(|right| right.range.start.clone());
        end.is_ok_and(|end| start == Ok(end))
    };
    let table = catalog.table_that(node, done).await?;
    Ok(pb::SplitRangeResponse {
        catalog_version: table.version,
        left: Some(route(node, table.range(left)?)),
        right: Some(route(node, table.range(right)?)),
    })
}

async fn merge(
    node: &Running,
    catalog: &Catalog,
    asked: &pb::MergeRangeRequest,
) -> Result<pb::MergeRangeResponse, NotHere> {
    let id = RangeId(asked.route_id);
    let check = |table: &Table| {
        let left = table.range(id)?.range.clone();
        match table.entries.iter().find(|e| e.range.start == left.end) {
            Some(right) if !left.end.is_empty() => Ok((left, right.range.clone())),
            _ => Err(Failure::Invalid(format!(
                "route {id} ends where the keyspace ends"
            ))),
        }
    };
    let (left, right) = catalog
        .claim(node, asked.expected_catalog_version, check)
        .await?;
    ranges::merge(node, &left, &right).await?;
    let done = |table: &Table| {
        table.range(right.id).is_err()
            && table
                .range(id)
                .is_ok_and(|merged| merged.range.end == right.end)
    };
    let table = catalog.table_that(node, done).await?;
    Ok(pb::MergeRangeResponse {
        catalog_version: table.version,
        merged: Some(route(node, table.range(id)?)),
    })
}

async fn move_replica(
    node: &Running,
    catalog: &Catalog,
    asked: &pb::MoveReplicaRequest,
) -> Result<pb::MoveReplicaResponse, NotHere> {
    let id = RangeId(asked.route_id);
    catalog.table(node).await?.range(id)?;
    let from = StoreId(registered(node, &asked.from, "").await?.store);
    let to = StoreId(registered(node, &asked.to, "").await?.store);
    catalog
        .claim(node, asked.expected_catalog_version, |table| {
            table.range(id).map(drop)
        })
        .await?;
    match pursue(node, id, Wish::Moved(from, to), MOVE_PATIENCE).await? {
        Pursuit::UnderWay(what) => Err(Failure::Unknown(format!(
            "the move goes on: {what}; ListRoutes shows when it is done"
        ))
        .into()),
        Pursuit::Met(moved) => {
            let done = |table: &Table| {
                let known = table.range(id).map(|entry| entry.range.epoch.conf_version);
                known.is_ok_and(|known| known >= moved.epoch.conf_version)
            };
            let table = catalog.table_that(node, done).await?;
            Ok(pb::MoveReplicaResponse {
                catalog_version: table.version,
                route: Some(route(node, table.range(id)?)),
            })
        }
    }
}

async fn transfer_leader(
    node: &Running,
    catalog: &Catalog,
    asked: &pb::TransferLeaderRequest,
) -> Result<pb::TransferLeaderResponse, NotHere> {
    let id = RangeId(asked.route_id);
    catalog.table(node).await?.range(id)?;
    let store = StoreId(registered(node, &asked.to, "").await?.store);
    ranges::transfer_leader(node, id.0, store).await?;
    if id == rangekv_proto::PLACEMENT_RANGE {
        // Whoever leads it now tells of the routes; this store did a moment ago.
        let table = catalog.table(node).await;
        let told = table
            .ok()
            .and_then(|t| t.range(id).ok().map(|e| route(node, e)));
        return Ok(pb::TransferLeaderResponse { route: told });
    }
    let leads = |table: &Table| {
        let leader = table.range(id).map(|entry| entry.leader);
        leader.is_ok_and(|leader| leader.is_some_and(|hint| hint.store == store))
    };
    let table = catalog.table_that(node, leads).await?;
    Ok(pb::TransferLeaderResponse {
        route: Some(route(node, table.range(id)?)),
    })
}

fn watch(node: Arc<Running>, catalog: Arc<Catalog>, first: Table) -> Events {
    let (sender, receiver) = mpsc::channel(WATCH_BEHIND_MAX);
    tokio::spawn(async move {
        let event = |payload| pb::WatchCatalogEvent {
            payload: Some(payload),
        };
        let mut told = first;
        let mut next = Ok(event(Payload::Snapshot(listed(&node, &told))));
        loop {
            let ends = next.is_err();
            if sender.send(next).await.is_err() || ends {
                return;
            }
            next = loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(WATCH_EVERY) => {}
                }
                match catalog.table(&node).await {
                    Ok(table) => {
                        if let Some(delta) = delta(&node, &told, &table) {
                            told = table;
                            break Ok(event(Payload::Delta(delta)));
                        }
                    }
                    Err(NotHere::Failed(failure)) => break Err(status(failure)),
                    Err(NotHere::Leads(why)) => {
                        break Err(Status::unavailable(format!(
                            "the placement driver's leader has moved; watch again: {why}"
                        )))
                    }
                }
            };
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// From one table to a later one; `None` = they tell the same.
fn delta(node: &Running, before: &Table, after: &Table) -> Option<pb::CatalogDelta> {
    let (changed, removed) = difference(before, after);
    if changed.is_empty() && removed.is_empty() && before.version == after.version {
        return None;
    }
    Some(pb::CatalogDelta {
        previous_version: before.version,
        catalog_version: after.version,
        changed: changed
            .into_iter()
            .map(|entry| route(node, entry))
            .collect(),
        removed,
    })
}

/// Ranges that are new or other than before, sizes aside; ids of those that are gone.
fn difference<'a>(before: &Table, after: &'a Table) -> (Vec<&'a Entry>, Vec<u64>) {
    let known: BTreeMap<RangeId, &Entry> = before.entries.iter().map(|e| (e.range.id, e)).collect();
    let same = |e: &&Entry| {
        let known = known.get(&e.range.id);
        known.is_some_and(|k| (&k.range, k.leader) == (&e.range, e.leader))
    };
    let changed = after.entries.iter().filter(|e| !same(e)).collect();
    let gone = |id: &&RangeId| after.range(**id).is_err();
    let removed = known.keys().filter(gone).map(|id| id.0).collect();
    (changed, removed)
}

fn listed(node: &Running, table: &Table) -> pb::ListRoutesResponse {
    pb::ListRoutesResponse {
        catalog_version: table.version,
        routes: table.entries.iter().map(|e| route(node, e)).collect(),
    }
}

fn route(node: &Running, entry: &Entry) -> pb::RouteDescriptor {
    let range = &entry.range;
    let address = |store| node.book.grpc(store).unwrap_or_default();
    let state = match entry.leader {
        None => pb::RouteState::Leaderless,
        Some(_) if range.is_joint() => pb::RouteState::ChangingMembers,
        Some(_) => pb::RouteState::Active,
    };
    pb::RouteDescriptor {
        route_id: range.id.0,
        start: range.start.clone(),
        end: range.end.clone(),
        raft_group_id: range.id.0,
        state: state.into(),
        conf_version: range.epoch.conf_version,
        version: range.epoch.version,
        leader: entry.leader.map(|hint| pb::RouteLeader {
            id: store_name(node, hint.store),
            address: address(hint.store),
            term: hint.term,
        }),
        replicas: range
            .replicas
            .iter()
            .map(|replica| pb::RouteReplica {
                replica_id: replica.id.0,
                id: store_name(node, replica.store),
                address: address(replica.store),
                role: role_name(replica.role).into(),
            })
            .collect(),
        size_bytes: entry.size_bytes,
    }
}

fn hex(key: &[u8]) -> String {
    format!("0x{}", crate::ctl::hex(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::{Epoch, LeaderHint, RangeDescriptor};

    fn entry(id: u64, start: &str, end: &str, version: u64, leader: u64) -> Entry {
        Entry {
            range: RangeDescriptor {
                id: RangeId(id),
                start: Bytes::copy_from_slice(start.as_bytes()),
                end: Bytes::copy_from_slice(end.as_bytes()),
                epoch: Epoch {
                    conf_version: 1,
                    version,
                },
                replicas: Vec::new(),
            },
            leader: Some(LeaderHint {
                store: StoreId(leader),
                term: 6,
            }),
            size_bytes: version,
        }
    }

    #[test]
    fn what_has_changed_between_two_tables() {
        let table = |entries| Table {
            version: 1,
            entries,
        };
        let whole = table(vec![entry(1, "", "b", 1, 1), entry(2, "b", "", 1, 1)]);
        let cut = table(vec![
            entry(1, "", "b", 1, 1),
            entry(2, "b", "m", 2, 1),
            entry(9, "m", "", 2, 1),
        ]);
        let led = table(vec![entry(1, "", "b", 1, 1), entry(2, "b", "", 1, 3)]);
        let mut larger = whole.clone();
        larger.entries[1].size_bytes += 1;
        let ids = |(changed, removed): (Vec<&Entry>, Vec<u64>)| {
            let changed: Vec<u64> = changed.iter().map(|e| e.range.id.0).collect();
            (changed, removed)
        };
        for (before, after, changed, removed) in [
            (&whole, &whole, vec![], vec![]),
            (&whole, &larger, vec![], vec![]),
            (&whole, &led, vec![2], vec![]),
            (&whole, &cut, vec![2, 9], vec![]),
            (&cut, &whole, vec![2], vec![9]),
        ] {
            assert_eq!(ids(difference(before, after)), (changed, removed));
        }
    }
}
