//! The answering end of `rangekv ctl`: any store, for the whole cluster.
//!
//! What only the placement driver's leader knows is asked of it; if there is none, a store
//! answers with what it knows itself. What changes something is an ordinary call, retried
//! like any other (see [`crate::node::calls`]).

pub mod change;
mod operators;
mod overview;

pub use overview::replica_status;

use super::wire::{CtlCommand, Overview, Setting};
use crate::node::calls::Target;
use crate::node::dial::dial;
use crate::node::running::Running;
use rangekv_pd::config;
use rangekv_proto::internal::placement_command::{Kind, ReadState, SetConfig};
use rangekv_proto::internal::{CtlRequest, PlacementState};
use rangekv_proto::{RequestError, StoreId};
use rangekv_router::retry::DoorError;
use serde::Serialize;
use std::future::Future;
use std::time::Duration;

/// A call that this file makes takes no longer.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// Metadata of a command that another store has passed on: it is not passed on again.
pub const PASSED_ON: &str = "rangekv-passed-on";

/// Why a command has no answer.
#[derive(Debug)]
pub enum Failure {
    /// No retry would change it.
    Refused(String),
    /// Another store, or a later moment, may do better.
    Unavailable(String),
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Invalid(why) => Failure::Refused(why),
            error => Failure::Unavailable(error.to_string()),
        }
    }
}

/// Answers a command in JSON.
pub async fn answer(node: &Running, json: &str, passed_on: bool) -> Result<String, Failure> {
    let command: CtlCommand = serde_json::from_str(json)
        .map_err(|e| Failure::Refused(format!("not a command of this version: {e}")))?;
    match command {
        CtlCommand::Status
        | CtlCommand::Overview
        | CtlCommand::StoreList
        | CtlCommand::RangeList => look(node, &command, json, passed_on).await,
        CtlCommand::StoreRemove { ref store } => {
            at_leader(node, json, passed_on, change::remove_store(node, store)).await
        }
        CtlCommand::RangeShow { range } => encode(&overview::range(node, range).await?),
        CtlCommand::RangeSplit { range, key } => encode(&change::split(node, range, &key).await?),
        CtlCommand::RangeTransferLeader { range, store } => {
            encode(&change::transfer_leader(node, range, StoreId(store)).await?)
        }
        CtlCommand::ConfigList => encode(&settings(
            &state(node, Kind::ReadState(ReadState {})).await?,
        )),
        CtlCommand::ConfigSet { name, value } => {
            let set = SetConfig {
                name: name.clone(),
                value,
            };
            let state = state(node, Kind::SetConfig(set)).await?;
            let setting = settings(&state).into_iter().find(|s| s.name == name);
            encode(&setting.ok_or_else(|| Failure::Refused(format!("no setting {name}")))?)
        }
    }
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

/// Why this store has no answer to what only the placement driver's leader knows.
enum NotHere {
    /// This store does not lead range 1.
    Leads(RequestError),
    /// It does, and the answer is no.
    Failed(Failure),
}

impl From<Failure> for NotHere {
    fn from(failure: Failure) -> Self {
        NotHere::Failed(failure)
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
    let hint = match &why {
        RequestError::NotLeader { leader, .. } => *leader,
        _ => None,
    };
    let hint = hint.or_else(|| node.calls.route(Target::Placement)?.leader);
    match hint.map(|hint| hint.store) {
        Some(leader) if !passed_on && leader != node.identity.store_id() => {
            pass_on(node, leader, json).await
        }
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
    match reply.error.is_empty() {
        true => Ok(reply.json),
        false => Err(Failure::Refused(reply.error)),
    }
}

/// The placement state after `kind`.
async fn state(node: &Running, kind: Kind) -> Result<PlacementState, Failure> {
    let reply = node.calls.placement(kind, CALL_TIME_MAX).await?;
    match reply.state {
        Some(state) if reply.error.is_empty() => Ok(state),
        _ => Err(Failure::Refused(reply.error)),
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

fn encode(reply: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(reply).map_err(|e| Failure::Unavailable(e.to_string()))
}
