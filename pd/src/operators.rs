//! The operators of one term: those under way, one per range, and the last ones that ended.
//!
//! [`advance`](Operators::advance) looks at one range as it was just reported, and says what to
//! order of its leader now. A step is ordered again when it seems lost: when its store has
//! said that it failed, or nothing has come of it for a while.

use crate::operator::{
    Goal, Operator, OperatorId, Order, Progress, Proposal, Step, StepTaken, STEPS_KEPT_MAX,
};
use crate::plan::{next, Next};
use crate::view::{RangeView, StoreView};
use rangekv_proto::{Epoch, RangeId};
use std::collections::{BTreeMap, VecDeque};

/// Operators that have ended and are kept to be shown.
pub const HISTORY_MAX: usize = 256;
/// A step of which nothing is heard is ordered again after so long.
pub const AGAIN_MS: u64 = 5_000;
/// A step that failed is tried again after so long.
pub const RETRY_MS: u64 = 500;
/// A change of leader or bounds of which nothing comes is given up after so long.
pub const BRIEF_MS: u64 = 20_000;
/// A placement is given up when nothing has moved for so long: a snapshot may take a while.
pub const LONG_MS: u64 = 15 * 60_000;
/// After a failure a range is left alone for so long; twice as long after the next one.
pub const BACKOFF_MS: u64 = 5_000;
/// At most.
pub const BACKOFF_MAX_MS: u64 = 5 * 60_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Operators {
    running: BTreeMap<RangeId, Operator>,
    history: VecDeque<Operator>,
    failures: BTreeMap<RangeId, Failures>,
    /// When an operator that moves the leader of a range last ended.
    leader_moved: BTreeMap<RangeId, u64>,
    last_id: u64,
}

/// What went wrong with one range, since something last went well.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    until_ms: u64,
}

impl Operators {
    /// None yet; ids are given out above `last_id`.
    pub fn above(last_id: u64) -> Self {
        Operators {
            last_id,
            ..Operators::default()
        }
    }

    /// Under way.
    pub fn running(&self) -> impl Iterator<Item = &Operator> {
        self.running.values()
    }

    /// Ended, the newest last.
    pub fn history(&self) -> impl Iterator<Item = &Operator> {
        self.history.iter()
    }

    /// The one under way for `range`.
    pub fn of(&self, range: RangeId) -> Option<&Operator> {
        self.running.get(&range)
    }

    /// Whether an operator on `range` failed not long ago.
    pub fn is_backing_off(&self, now_ms: u64, range: RangeId) -> bool {
        self.failures
            .get(&range)
            .is_some_and(|f| now_ms < f.until_ms)
    }

    /// When an operator that moves the leader of `range` last ended, well or not.
    pub fn leader_moved_ms(&self, range: RangeId) -> Option<u64> {
        self.leader_moved.get(&range).copied()
    }

    /// Begins what `proposal` wants, in the place of what is under way.
    pub fn begin(&mut self, now_ms: u64, proposal: Proposal, epoch: Epoch) -> OperatorId {
        let by = proposal.scheduler.name();
        self.end(
            now_ms,
            proposal.range,
            Progress::Cancelled(format!("{by} came first")),
        );
        self.last_id += 1;
        let id = OperatorId(self.last_id);
        let operator = Operator {
            id,
            range: proposal.range,
            goal: proposal.goal,
            scheduler: proposal.scheduler,
            reason: proposal.reason,
            version: epoch.version,
            progress: Progress::Running(String::new()),
            steps: Vec::new(),
            created_ms: now_ms,
            moved_ms: now_ms,
            finished_ms: None,
        };
        self.running.insert(operator.range, operator);
        id
    }

    /// Stops what is under way for `range`, because of `why`.
    pub fn cancel(&mut self, now_ms: u64, range: RangeId, why: String) {
        self.end(now_ms, range, Progress::Cancelled(why));
    }

    /// The range is gone: what wanted that has got it.
    pub fn range_gone(&mut self, now_ms: u64, range: RangeId) {
        self.end(
            now_ms,
            range,
            Progress::Cancelled("the range is gone".into()),
        );
        self.failures.remove(&range);
        self.leader_moved.remove(&range);
    }

    /// What a store made of an order.
    pub fn outcome(&mut self, now_ms: u64, id: OperatorId, error: &str) {
        let operator = self.running.values_mut().find(|o| o.id == id);
        if let Some(step) = operator.and_then(|o| o.steps.last_mut()) {
            step.error = error.to_owned();
            step.sent_ms = now_ms;
        }
    }

    /// What to order now of the leader of `range`. The operator ends here, if it does.
    pub fn advance(
        &mut self,
        now_ms: u64,
        range: &RangeView,
        stores: &[StoreView],
    ) -> Option<Order> {
        let id = range.range.id;
        let operator = self.running.get_mut(&id)?;
        operator.see(now_ms, range.range.epoch);
        let reshapes = matches!(operator.goal, Goal::Split(_) | Goal::Merge(..));
        let next = match reshapes && range.range.epoch.version != operator.version {
            true => Next::Done,
            false => next(&operator.goal, range, stores),
        };
        match next {
            Next::Done => {
                self.end(now_ms, id, Progress::Done);
                None
            }
            Next::Fail(why) => {
                self.end(now_ms, id, Progress::Failed(why));
                None
            }
            Next::Wait(what) => {
                operator.progress = Progress::Running(what);
                None
            }
            Next::Step(step) => operator
                .order(now_ms, step, range.range.epoch)
                .then(|| operator.last_order(range.range.epoch)),
        }
    }

    /// Gives up what has not moved for too long.
    pub fn time_out(&mut self, now_ms: u64) {
        let late = |o: &&Operator| {
            let patience = match o.goal {
                Goal::Place { .. } => LONG_MS,
                _ => BRIEF_MS,
            };
            now_ms.saturating_sub(o.moved_ms) >= patience
        };
        let late: Vec<(RangeId, String)> = self
            .running
            .values()
            .filter(late)
            .map(|o| (o.range, o.waits_for()))
            .collect();
        for (range, what) in late {
            self.end(now_ms, range, Progress::TimedOut(what));
        }
    }

    fn end(&mut self, now_ms: u64, range: RangeId, progress: Progress) {
        let Some(mut operator) = self.running.remove(&range) else {
            return;
        };
        match &progress {
            Progress::Done => {
                self.failures.remove(&range);
                if let Some(last) = operator.steps.last_mut() {
                    last.done_ms.get_or_insert(now_ms);
                }
            }
            Progress::Failed(_) | Progress::TimedOut(_) => {
                let count = self.failures.get(&range).map_or(0, |f| f.count);
                let wait_ms = (BACKOFF_MS << count.min(16)).min(BACKOFF_MAX_MS);
                let until_ms = now_ms.saturating_add(wait_ms);
                let count = count + 1;
                self.failures.insert(range, Failures { count, until_ms });
            }
            Progress::Cancelled(_) | Progress::Running(_) => {}
        }
        if matches!(operator.goal, Goal::Lead(_)) {
            self.leader_moved.insert(range, now_ms);
        }
        operator.progress = progress;
        operator.finished_ms = Some(now_ms);
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(operator);
    }
}

impl Operator {
    /// What it waits for, for people.
    pub fn waits_for(&self) -> String {
        match (&self.progress, self.steps.last()) {
            (Progress::Running(what), _) if !what.is_empty() => what.clone(),
            (_, Some(step)) if !step.error.is_empty() => format!("{}: {}", step.step, step.error),
            (_, Some(step)) => step.step.to_string(),
            (_, None) => "the leader of the range has not asked for it yet".into(),
        }
    }

    /// The range is at `epoch`: a step that was ordered at another one has been taken, by
    /// whomever.
    fn see(&mut self, now_ms: u64, epoch: Epoch) {
        if let Some(last) = self.steps.last_mut() {
            if last.epoch != epoch && last.done_ms.is_none() {
                last.done_ms = Some(now_ms);
                self.moved_ms = now_ms;
            }
        }
    }

    /// Whether `step` is to be sent now; noted as sent, if so.
    fn order(&mut self, now_ms: u64, step: Step, epoch: Epoch) -> bool {
        self.progress = Progress::Running(String::new());
        if let Some(last) = self.steps.last_mut() {
            if last.step == step && last.epoch == epoch {
                let wait = match last.error.is_empty() {
                    true => AGAIN_MS,
                    false => RETRY_MS,
                };
                let due = now_ms.saturating_sub(last.sent_ms) >= wait;
                if due {
                    last.sent_ms = now_ms;
                    last.sent += 1;
                }
                return due;
            }
            last.done_ms.get_or_insert(now_ms);
        }
        if self.steps.len() == STEPS_KEPT_MAX {
            self.steps.remove(0);
        }
        self.moved_ms = now_ms;
        self.steps.push(StepTaken {
            step,
            epoch,
            ordered_ms: now_ms,
            sent_ms: now_ms,
            sent: 1,
            done_ms: None,
            error: String::new(),
        });
        true
    }

    fn last_order(&self, epoch: Epoch) -> Order {
        Order {
            operator: self.id,
            range: self.range,
            epoch,
            step: self.steps.last().expect("just ordered").step.clone(),
            reason: self.reason.clone(),
        }
    }
}
