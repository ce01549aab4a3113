//! The answering end of `rangekv ctl`: any store, for the whole cluster.
//!
//! What only the placement driver's leader knows is asked of it; if there is none, a store
//! answers with what it knows itself. What changes something is an ordinary call, retried
//! like any other (see [`crate::node::calls`]).

mod operators;
mod overview;
mod stores;

pub use crate::admin::failure::Failure;
pub use crate::admin::groups::replica_status;

use super::unhex;
use super::wire::{Change, CtlCommand, Overview, RangeInfo, Setting, SplitDone, TransferDone};
use crate::admin::groups::{known_leader, leader_status};
use crate::admin::members::{pursue, Pursuit, Wish};
use crate::admin::stores::registered;
use crate::admin::{placement_leader, placement_state, ranges, NotHere, CALL_TIME_MAX};
use crate::node::dial::dial;
use crate::node::running::Running;
use rangekv_pd::config;
use rangekv_proto::internal::placement_command::{Kind, ReadState, SetConfig};
use rangekv_proto::internal::{CtlRequest, PlacementState};
use rangekv_proto::{RangeDescriptor, RangeId, StoreId, PLACEMENT_RANGE};
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::future::Future;
use std::time::Duration;

/// A change of members is followed for so long by one call.
const CHANGE_PATIENCE: Duration = Duration::from_secs(2);
/// Metadata of a command that another store has passed on: it is not passed on again.
pub const PASSED_ON: &str = "rangekv-passed-on";

/// Answers a command in JSON.
pub async fn answer(node: &Running, json: &str, passed_on: bool) -> Result<String, Failure> {
    let command: CtlCommand = serde_json::from_str(json)
        .map_err(|e| Failure::Invalid(format!("not a command of this version: {e}")))?;
    match command {
        CtlCommand::Status
        | CtlCommand::Overview
        | CtlCommand::StoreList
        | CtlCommand::RangeList => look(node, &command, json, passed_on).await,
        CtlCommand::StoreShow { ref store } => {
            at_leader(node, json, passed_on, stores::show(node, store)).await
        }
        CtlCommand::StoreDrain { ref store, undo } => {
            at_leader(node, json, passed_on, stores::drain(node, store, undo)).await
        }
        CtlCommand::StoreRemove { ref store } => {
            at_leader(node, json, passed_on, stores::remove(node, store)).await
        }
        CtlCommand::RangeShow { range } => encode(&overview::range(node, range).await?),
        CtlCommand::RangeSplit { range, key } => {
            let not_hex = || Failure::Invalid(format!("{key:?} is not hex"));
            let key = unhex(&key).ok_or_else(not_hex)?;
            let (left, right) = ranges::split(node, range, &key).await?;
            encode(&SplitDone {
                left: range_info(node, &left),
                right: range_info(node, &right),
            })
        }
        CtlCommand::RangeTransferLeader { range, store } => {
            let store = StoreId(registered(node, &store, "").await?.store);
            let term = ranges::transfer_leader(node, range, store).await?;
            encode(&TransferDone {
                range,
                leader: store.0,
                term,
            })
        }
        CtlCommand::RangeMerge { range } => {
            let (left, right) = ranges::neighbours(node, RangeId(range))?;
            ranges::merge(node, &left, &right).await?;
            let (_, merged) = leader_status(node, left.id, CALL_TIME_MAX).await?;
            encode(&range_info(node, &merged))
        }
        CtlCommand::RangeMove { range, from, to } => {
            let from = StoreId(registered(node, &from, "").await?.store);
            let to = StoreId(registered(node, &to, "").await?.store);
            encode(&change(node, RangeId(range), Wish::Moved(from, to)).await?)
        }
        CtlCommand::PlacementAdd { store, learner } => {
            let store = StoreId(registered(node, &store, "").await?.store);
            let wish = match learner {
                true => Wish::Learner(store),
                false => Wish::Voter(store),
            };
            encode(&change(node, PLACEMENT_RANGE, wish).await?)
        }
        CtlCommand::PlacementRemove { store } => {
            let store = StoreId(registered(node, &store, "").await?.store);
            encode(&change(node, PLACEMENT_RANGE, Wish::Gone(store)).await?)
        }
        CtlCommand::RangeWhy { range } => {
            at_leader(node, json, passed_on, operators::why(node, range)).await
        }
        CtlCommand::OperatorList => {
            at_leader(node, json, passed_on, operators::list(node, false)).await
        }
        CtlCommand::OperatorHistory => {
            at_leader(node, json, passed_on, operators::list(node, true)).await
        }
        CtlCommand::OperatorCancel { id } => {
            at_leader(node, json, passed_on, operators::cancel(node, id)).await
        }
        CtlCommand::SchedulerList => {
            at_leader(node, json, passed_on, operators::schedulers(node)).await
        }
        CtlCommand::RangeChange { range, change } => {
            at_leader(node, json, passed_on, operators::order(node, range, change)).await
        }
        CtlCommand::OperatorShow { id } => {
            at_leader(node, json, passed_on, operators::show(node, id)).await
        }
        CtlCommand::ConfigList => encode(&settings(
            &placement_state(node, Kind::ReadState(ReadState {})).await?,
        )),
        CtlCommand::ConfigGet { name } => {
            let state = placement_state(node, Kind::ReadState(ReadState {})).await?;
            encode(&setting(&state, &name)?)
        }
        CtlCommand::ConfigSet { name, value } => {
            let set = SetConfig {
                name: name.clone(),
                value,
            };
            encode(&setting(
                &placement_state(node, Kind::SetConfig(set)).await?,
                &name,
            )?)
        }
    }
}

/// Follows a change of a range's members for a moment; whoever asked asks again.
async fn change(node: &Running, range: RangeId, wish: Wish) -> Result<Change, Failure> {
    let (range, waits_for) = match pursue(node, range, wish, CHANGE_PATIENCE).await? {
        Pursuit::Met(range) => (range, String::new()),
        Pursuit::UnderWay(what) => (leader_status(node, range, CALL_TIME_MAX).await?.1, what),
    };
    Ok(Change {
        range: range_info(node, &range),
        done: waits_for.is_empty(),
        waits_for,
    })
}

fn range_info(node: &Running, range: &RangeDescriptor) -> RangeInfo {
    overview::range_info(range, known_leader(node, range.id), |_| false)
}

/// The reply to a command of this store itself.
pub async fn ask<T: DeserializeOwned>(node: &Running, command: &CtlCommand) -> Result<T, Failure> {
    let unreadable = |e: serde_json::Error| Failure::Unknown(format!("not understood: {e}"));
    let json = serde_json::to_string(command).map_err(unreadable)?;
    let reply = Box::pin(answer(node, &json, false)).await?;
    serde_json::from_str(&reply).map_err(unreadable)
}

/// What the placement driver's leader sees; without one, what this store sees.
async fn look(
    node: &Running,
    command: &CtlCommand,
    json: &str,
    passed_on: bool,
) -> Result<String, Failure> {
    let encode = |overview: Overview| match command {
        CtlCommand::Status => encode(&overview.status),
        CtlCommand::Overview => encode(&overview),
        CtlCommand::StoreList => encode(&overview.status.stores),
        _ => encode(&overview.ranges),
    };
    let seen = async {
        node.placement
            .inspect(|leader, _, state| overview::of_leader(node, leader, state))
            .await
            .map_err(NotHere::Leads)
    };
    match at_leader(node, json, passed_on, async {
        encode(seen.await?).map_err(NotHere::Failed)
    })
    .await
    {
        Err(Failure::Unavailable(why)) => {
            tracing::debug!(why, "the placement driver's leader does not answer");
            encode(overview::of_node(node))
        }
        answer => answer,
    }
}

/// The answer of the placement driver's leader: `here` if that is this store, else the other's.
async fn at_leader(
    node: &Running,
    json: &str,
    passed_on: bool,
    here: impl Future<Output = Result<String, NotHere>>,
) -> Result<String, Failure> {
    let why = match here.await {
        Ok(answer) => return Ok(answer),
        Err(NotHere::Failed(failure)) => return Err(failure),
        Err(NotHere::Leads(why)) => why,
    };
    match placement_leader(node, &why) {
        Some(leader) if !passed_on => pass_on(node, leader, json).await,
        _ => Err(Failure::Unavailable(why.to_string())),
    }
}

async fn pass_on(node: &Running, to: StoreId, json: &str) -> Result<String, Failure> {
    let unavailable = |why: &str| Failure::Unavailable(format!("store {to}: {why}"));
    let address = node.book.grpc(to);
    let address = address.ok_or_else(|| unavailable("its address is unknown"))?;
    let mut request = tonic::Request::new(CtlRequest { json: json.into() });
    request.set_timeout(CALL_TIME_MAX / 2);
    request
        .metadata_mut()
        .insert(PASSED_ON, tonic::metadata::MetadataValue::from(1));
    let ask = async { dial(&address).await?.ctl(request).await };
    let reply = ask.await.map_err(|status| unavailable(status.message()))?;
    let reply = reply.into_inner();
    match (reply.error.is_empty(), reply.outcome_unknown) {
        (true, _) => Ok(reply.json),
        (false, true) => Err(Failure::Unknown(reply.error)),
        (false, false) => Err(Failure::Refused(reply.error)),
    }
}

fn settings(state: &PlacementState) -> Vec<Setting> {
    let setting = |(setting, value): (&config::Setting, String)| Setting {
        name: setting.name.into(),
        value,
        default: setting.default.into(),
        help: setting.help.into(),
    };
    config::effective(state).map(setting).collect()
}

fn setting(state: &PlacementState, name: &str) -> Result<Setting, Failure> {
    let setting = settings(state).into_iter().find(|s| s.name == name);
    setting.ok_or_else(|| Failure::NotFound(format!("there is no setting {name}")))
}

fn encode(reply: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(reply).map_err(|e| Failure::Unavailable(e.to_string()))
}
