//! What the placement driver does, and is told to do.

use super::{encode, Failure};
use crate::admin::ranges::no_range;
use crate::admin::NotHere;
use crate::ctl::wire::{ManualChange, OperatorInfo, OperatorStep, SchedulerInfo, WhyInfo};
use crate::node::placement::now_ms;
use crate::node::running::Running;
use rangekv_pd::leader::{Leader, SchedulerStatus};
use rangekv_pd::operator::{ManualOperator, Operator, OperatorId, Progress, Scheduler};
use rangekv_pd::schedule::Reason;
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{RangeId, StoreId};

/// Orders a change of a range's members, unless a person has ordered one that is under way.
pub(super) async fn order(
    node: &Running,
    range: u64,
    change: ManualChange,
) -> Result<String, NotHere> {
    let range = RangeId(range);
    let ordered = node
        .placement
        .inspect(|leader, _, state| {
            let by_hand = |o: &&Operator| o.range == range && o.scheduler == Scheduler::Manual;
            if let Some(busy) = leader.operators().find(by_hand) {
                return Ok(info(busy));
            }
            // A leader that has just taken over will know more soon.
            let failure = match leader.is_ready(state) {
                true => Failure::Refused,
                false => Failure::Unavailable,
            };
            let id = leader
                .submit(now_ms(), state, operator(range, change))
                .map_err(failure)?;
            let begun = found(leader, id);
            begun.ok_or_else(|| Failure::Unknown(format!("operator {id} is not known")))
        })
        .await
        .map_err(NotHere::Leads)?;
    Ok(encode(&ordered?)?)
}

/// An operator of this term, under way or ended.
pub(super) async fn show(node: &Running, id: u64) -> Result<String, NotHere> {
    let look = |leader: &mut Leader| found(leader, OperatorId(id));
    let shown = node.placement.inspect(|leader, _, _| look(leader)).await;
    Ok(encode(&shown.map_err(NotHere::Leads)?)?)
}

/// Those under way, or those that have ended in this term.
pub(super) async fn list(node: &Running, ended: bool) -> Result<String, NotHere> {
    let look = |leader: &mut Leader| -> Vec<OperatorInfo> {
        match ended {
            true => leader.history().map(info).collect(),
            false => leader.operators().map(info).collect(),
        }
    };
    let listed = node.placement.inspect(|leader, _, _| look(leader)).await;
    Ok(encode(&listed.map_err(NotHere::Leads)?)?)
}

/// Stops one.
pub(super) async fn cancel(node: &Running, id: u64) -> Result<String, NotHere> {
    let cancel = |leader: &mut Leader| match leader.cancel(now_ms(), OperatorId(id)) {
        Ok(()) => Ok(found(leader, OperatorId(id))),
        Err(why) => match found(leader, OperatorId(id)) {
            // It is as if it had been stopped.
            Some(ended) if ended.state == "cancelled" => Ok(Some(ended)),
            _ => Err(Failure::Refused(why)),
        },
    };
    let stopped = node.placement.inspect(|leader, _, _| cancel(leader)).await;
    Ok(encode(&stopped.map_err(NotHere::Leads)??)?)
}

/// What keeps a range where it is.
pub(super) async fn why(node: &Running, range: u64) -> Result<String, NotHere> {
    let look = |leader: &mut Leader, state: &PlacementState| {
        let id = RangeId(range);
        leader.routes().get(id).ok_or_else(|| no_range(range))?;
        let reasons = leader.why(now_ms(), state, id).into_iter();
        let reason = |reason: Reason| WhyInfo {
            scheduler: reason.scheduler.name().into(),
            about_range: reason.range == Some(id),
            text: reason.text,
        };
        Ok::<Vec<WhyInfo>, Failure>(reasons.map(reason).collect())
    };
    let inspect = node
        .placement
        .inspect(|leader, _, state| look(leader, state));
    Ok(encode(&inspect.await.map_err(NotHere::Leads)??)?)
}

/// What the schedulers said in their last round, in order of urgency.
pub(super) async fn schedulers(node: &Running) -> Result<String, NotHere> {
    let info = |status: SchedulerStatus| SchedulerInfo {
        name: status.scheduler.name().into(),
        enabled: status.enabled,
        reasons: status.reasons.into_iter().map(|r| r.text).collect(),
    };
    let look = |leader: &mut Leader| -> Vec<SchedulerInfo> {
        leader.scheduler_status().into_iter().map(info).collect()
    };
    let said = node.placement.inspect(|leader, _, _| look(leader)).await;
    Ok(encode(&said.map_err(NotHere::Leads)?)?)
}

fn found(leader: &Leader, id: OperatorId) -> Option<OperatorInfo> {
    let mut all = leader.operators().chain(leader.history());
    all.find(|o| o.id == id).map(info)
}

fn operator(range: RangeId, change: ManualChange) -> ManualOperator {
    match change {
        ManualChange::Add { store, voter } => ManualOperator::AddReplica {
            range,
            store: StoreId(store),
            voter,
        },
        ManualChange::Promote { store } => ManualOperator::Promote {
            range,
            store: StoreId(store),
        },
        ManualChange::Demote { store } => ManualOperator::Demote {
            range,
            store: StoreId(store),
        },
        ManualChange::Remove { store } => ManualOperator::RemoveReplica {
            range,
            store: StoreId(store),
        },
        ManualChange::Move { from, to } => ManualOperator::MoveReplica {
            range,
            from: StoreId(from),
            to: StoreId(to),
        },
    }
}

/// An operator, for people.
pub fn info(operator: &Operator) -> OperatorInfo {
    let since = |ms: u64| now_ms().saturating_sub(ms);
    let (state, detail) = match &operator.progress {
        Progress::Running(_) => ("running", operator.waits_for()),
        Progress::Done => ("done", String::new()),
        Progress::Failed(why) => ("failed", why.clone()),
        Progress::TimedOut(what) => ("timed-out", what.clone()),
        Progress::Cancelled(why) => ("cancelled", why.clone()),
    };
    let step = |step: &rangekv_pd::operator::StepTaken| OperatorStep {
        step: step.step.to_string(),
        sent: step.sent,
        age_ms: since(step.ordered_ms),
        done: step.done_ms.is_some(),
        error: step.error.clone(),
    };
    OperatorInfo {
        id: operator.id.0,
        range: operator.range.0,
        goal: operator.goal.to_string(),
        scheduler: operator.scheduler.name().into(),
        reason: operator.reason.clone(),
        state: state.into(),
        detail,
        steps: operator.steps.iter().map(step).collect(),
        age_ms: since(operator.created_ms),
        ended_ms_ago: operator.finished_ms.map(since),
    }
}
