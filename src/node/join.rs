//! How a store comes to a running cluster: a new one asks for a seat, every one registers.

use super::book::{AddressBook, StoreEntry};
use super::calls::Calls;
use super::dial::{dial, Backoff};
use super::seat::Seat;
use rangekv_proto::internal::placement_command::{Kind, RegisterStore};
use rangekv_proto::internal::{Initialise, JoinReply, JoinRequest, StoreAddress, StoreRecord};
use rangekv_proto::StoreId;
use rangekv_router::retry::DoorError;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// One attempt at a registration takes no longer.
const REGISTER_TIME_MAX: Duration = Duration::from_secs(5);

/// Asks the stores at `addresses` for a seat until one is given; if no store has come before to a
/// cluster of placement nodes, with `data_ranges` data ranges. The error is final: the cluster does
/// not want this store.
pub async fn join(
    seat: &Arc<Seat>,
    addresses: &[String],
    data_ranges: Option<usize>,
) -> Result<(), String> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut last_problem = String::new();
    let mut turn: VecDeque<String> = addresses.iter().cloned().collect();
    loop {
        let address = turn.pop_front().ok_or("--join names no address")?;
        let problem = match ask(seat, &address, data_ranges).await {
            Ok(JoinReply { error, .. }) if !error.is_empty() => return Err(error),
            Ok(JoinReply {
                initialise: Some(offer),
                ..
            }) => return seat.take(&offer),
            Ok(JoinReply { leader_address, .. }) => {
                if !leader_address.is_empty() && !turn.contains(&leader_address) {
                    turn.push_front(leader_address);
                }
                format!("{address} can't say yet")
            }
            Err(status) => format!("{address}: {}", status.message()),
        };
        if addresses.contains(&address) {
            turn.push_back(address);
        }
        if problem != last_problem {
            tracing::info!(problem, "no seat yet; asking on");
            last_problem = problem;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.step()) => {}
            // Somebody has this store on the list of a new cluster.
            _ = seat.taken() => return Ok(()),
        }
    }
}

async fn ask(seat: &Seat, address: &str, data_ranges: Option<usize>) -> Result<JoinReply, Status> {
    let request = JoinRequest {
        identity: Some(seat.describe()),
        data_ranges: data_ranges.unwrap_or(0) as u64,
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(REGISTER_TIME_MAX * 2);
    Ok(dial(address).await?.join(request).await?.into_inner())
}

/// The answer to a store that asks for a seat. Asking twice gives the same seat.
pub async fn answer(
    calls: &Calls,
    book: &AddressBook,
    request: JoinRequest,
) -> Result<JoinReply, Status> {
    let identity = request
        .identity
        .ok_or_else(|| Status::invalid_argument("who asks?"))?;
    let record = StoreRecord {
        store: 0,
        name: identity.name.clone(),
        incarnation: identity.incarnation,
        grpc_address: identity.grpc_address,
        redis_address: identity.redis_address,
        dynamo_address: identity.dynamo_address,
        http_address: identity.http_address,
        state: 0,
        role: identity.role,
    };
    let register = Kind::RegisterStore(RegisterStore {
        record: Some(record),
        cluster: 0,
        data_ranges: request.data_ranges,
    });
    let reply = calls
        .placement(register, REGISTER_TIME_MAX)
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let state = match reply.state {
        Some(state) if reply.error.is_empty() => state,
        _ => {
            return Ok(JoinReply {
                error: reply.error,
                ..JoinReply::default()
            })
        }
    };
    if state.cluster == 0 {
        return Err(Status::unavailable(
            "the cluster is being made; its members are not registered yet",
        ));
    }
    Ok(JoinReply {
        leader_address: String::new(),
        error: String::new(),
        initialise: Some(Initialise {
            cluster: state.cluster,
            store: reply.first_id,
            name: identity.name,
            incarnation: identity.incarnation,
            ranges: reply.ranges,
            stores: addresses(&state.stores, book.all()),
        }),
    })
}

/// Where a new store finds the others: as they have registered, and, of those that have not yet
/// in a cluster that has just begun, as this store knows them. One of these may lead range 1.
fn addresses(
    registered: &[StoreRecord],
    known: BTreeMap<StoreId, StoreEntry>,
) -> Vec<StoreAddress> {
    let known = known.into_iter().filter(|(_, e)| !e.grpc.is_empty());
    let mut all: BTreeMap<u64, StoreAddress> = known
        .map(|(id, e)| {
            let address = StoreAddress {
                store: id.0,
                name: e.name,
                grpc_address: e.grpc,
            };
            (id.0, address)
        })
        .collect();
    all.extend(registered.iter().map(|s| {
        let address = StoreAddress {
            store: s.store,
            name: s.name.clone(),
            grpc_address: s.grpc_address.clone(),
        };
        (s.store, address)
    }));
    all.into_values().collect()
}

/// Tells the placement driver that this store runs, and where. Returns when it is accepted;
/// the error is final.
pub async fn register(calls: &Calls, seat: &Seat) -> Result<(), String> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    let mut last_problem = None;
    loop {
        let me = seat.identity().ok_or("a store without a seat has no id")?;
        let register = Kind::RegisterStore(RegisterStore {
            record: Some(seat.record(me.store)),
            cluster: me.cluster,
            data_ranges: 0,
        });
        let problem = match calls.placement(register, REGISTER_TIME_MAX).await {
            Ok(reply) if reply.error.is_empty() => {
                tracing::info!(store = me.store, node = me.name, "registered");
                return Ok(());
            }
            Ok(reply) => return Err(reply.error),
            Err(DoorError::Invalid(why)) => return Err(why),
            Err(problem) => problem,
        };
        if last_problem.as_ref() != Some(&problem) {
            tracing::info!(%problem, "not registered yet");
            last_problem = Some(problem);
        }
        tokio::time::sleep(backoff.step()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_is_told_of_members_that_have_not_registered_yet() {
        let registered = StoreRecord {
            store: 1,
            name: "n1".into(),
            grpc_address: "new:1".into(),
            ..StoreRecord::default()
        };
        let known = |id, name: &str, grpc: &str| {
            let entry = StoreEntry {
                name: name.into(),
                grpc: grpc.into(),
                ..StoreEntry::default()
            };
            (StoreId(id), entry)
        };
        let book = [
            known(1, "n1", "old:1"),
            known(2, "n2", "b:1"),
            known(3, "n3", ""),
        ];
        let told = addresses(&[registered], book.into_iter().collect());
        let told: Vec<_> = told
            .iter()
            .map(|a| (a.store, &a.name[..], &a.grpc_address[..]))
            .collect();
        assert_eq!(told, [(1, "n1", "new:1"), (2, "n2", "b:1")]);
    }
}
