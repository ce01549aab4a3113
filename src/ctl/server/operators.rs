//! What the placement driver does.

use crate::ctl::wire::{OperatorInfo, OperatorStep};
use crate::node::placement::now_ms;
use rangekv_pd::operator::{Operator, Progress};

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
