//! What the placement driver can say of itself and of the cluster, for people.

use super::{present, Leader};
use crate::operator::{Progress, Scheduler};
use crate::schedule::{Reason, Verdict};
use crate::state::StoreState;
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{RangeId, ReplicaRole, StoreId};
use std::collections::BTreeMap;

/// One scheduler, as its last round shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchedulerStatus {
    /// Which.
    pub scheduler: Scheduler,
    /// Whether its setting is on.
    pub enabled: bool,
    /// When it last ran, ms of the leader's monotonic clock; `None` = not in this term.
    pub ran_ms: Option<u64>,
    /// What it proposed then.
    pub proposed: u64,
    /// What it has proposed in this term.
    pub proposed_in_all: u64,
    /// Why it proposed no more.
    pub reasons: Vec<Reason>,
}

/// What is known of one scheduler's rounds in this term.
#[derive(Debug, Default)]
pub(super) struct Round {
    enabled: bool,
    ran_ms: u64,
    proposed: u64,
    proposed_in_all: u64,
}

impl Round {
    pub(super) fn note(&mut self, now_ms: u64, enabled: bool, verdict: &Verdict) {
        let proposed = verdict.proposals.len() as u64;
        *self = Round {
            enabled,
            ran_ms: now_ms,
            proposed,
            proposed_in_all: self.proposed_in_all + proposed,
        };
    }
}

/// How far a store that is being emptied has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainProgress {
    /// The store.
    pub store: StoreId,
    /// Ranges that it still leads.
    pub leaders: u64,
    /// Replicas that it still holds.
    pub replicas: u64,
    /// The most that it has held since this leader saw it drain.
    pub replicas_at_first: u64,
    /// Nothing is left: it can be removed.
    pub done: bool,
}

/// A range that has fewer healthy voters than it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnderReplicated {
    /// The range.
    pub range: RangeId,
    /// Voters on stores that live, and that keep up.
    pub healthy: u64,
    /// Voters that it should have.
    pub target: u64,
}

impl Leader {
    /// Every scheduler, in order of urgency.
    pub fn scheduler_status(&self) -> Vec<SchedulerStatus> {
        let status = |scheduler: Scheduler| {
            let round = self.rounds.get(&scheduler);
            let reasons = self.reasons.iter().filter(|r| r.scheduler == scheduler);
            SchedulerStatus {
                scheduler,
                enabled: round.is_none_or(|r| r.enabled),
                ran_ms: round.map(|r| r.ran_ms),
                proposed: round.map_or(0, |r| r.proposed),
                proposed_in_all: round.map_or(0, |r| r.proposed_in_all),
                reasons: reasons.cloned().collect(),
            }
        };
        Scheduler::ALL.map(status).into()
    }

    /// Every store that drains.
    pub fn drain_progress(&self, state: &PlacementState) -> Vec<DrainProgress> {
        let (leaders, replicas) = self.held_by_stores();
        let ready = self.is_ready(state);
        let draining = present(state).filter(|s| StoreState::of(s) == StoreState::Draining);
        let progress = |store: StoreId| {
            let replicas = replicas.get(&store).copied().unwrap_or(0);
            let at_first = self.drains.get(&store).copied().unwrap_or(0);
            DrainProgress {
                store,
                leaders: leaders.get(&store).copied().unwrap_or(0),
                replicas,
                replicas_at_first: at_first.max(replicas),
                done: ready && replicas == 0,
            }
        };
        draining.map(|s| progress(StoreId(s.store))).collect()
    }

    /// Ranges that would survive fewer failures than they should, in key order.
    pub fn under_replicated(&self, now_ms: u64, state: &PlacementState) -> Vec<UnderReplicated> {
        let view = self.view(now_ms, state);
        let status = |range: &crate::view::RangeView| {
            let voters = range.range.replicas.iter();
            let voters = voters.filter(|r| r.role == ReplicaRole::Voter);
            let healthy = voters.filter(|r| range.is_healthy(&view.stores, r.store));
            let (healthy, target) = (healthy.count(), view.target(range));
            (healthy < target).then_some(UnderReplicated {
                range: range.range.id,
                healthy: healthy as u64,
                target: target as u64,
            })
        };
        view.ranges.iter().filter_map(status).collect()
    }

    /// Why `range` is where it is: what is under way, what keeps it, what the schedulers said of
    /// it in their last round. Empty if there is no such range.
    pub fn why(&self, now_ms: u64, state: &PlacementState, range: RangeId) -> Vec<Reason> {
        let Some(view) = self.view(now_ms, state).range(range).cloned() else {
            return Vec::new();
        };
        let mut reasons = Vec::new();
        let mut say = |scheduler, text: String| {
            reasons.push(Reason {
                scheduler,
                range: Some(range),
                text,
            });
        };
        if !self.is_ready(state) {
            say(Scheduler::Manual, self.not_ready(state));
        }
        if view.leader.is_none() {
            say(
                Scheduler::Manual,
                "no store says that it leads the range".into(),
            );
        }
        if let Some(o) = self.operators.of(range) {
            let text = format!(
                "operator {} is under way: {}; {}",
                o.id,
                o.goal,
                o.waits_for()
            );
            say(o.scheduler, text);
        }
        if view.backing_off {
            let history = self.operators.history().filter(|o| o.range == range);
            let failed = |o: &&crate::operator::Operator| {
                matches!(o.progress, Progress::Failed(_) | Progress::TimedOut(_))
            };
            if let Some(o) = history.filter(failed).last() {
                let what = match &o.progress {
                    Progress::Failed(why) => format!("failed: {why}"),
                    _ => format!("timed out: {}", o.waits_for()),
                };
                say(
                    o.scheduler,
                    format!("left alone for a while, since {} {what}", o.goal),
                );
            }
        }
        if view.held {
            let text = "a person changed it not long ago: it is only repaired";
            say(Scheduler::Manual, text.into());
        }
        if view.cooling {
            let text = "its leader was moved not long ago";
            say(Scheduler::BalanceLeaders, text.into());
        }
        let about = |r: &&Reason| r.range == Some(range);
        reasons.extend(self.reasons.iter().filter(about).cloned());
        if reasons.is_empty() {
            reasons.extend(self.reasons.iter().filter(|r| r.range.is_none()).cloned());
        }
        reasons
    }

    /// Leaders and replicas by store.
    fn held_by_stores(&self) -> (BTreeMap<StoreId, u64>, BTreeMap<StoreId, u64>) {
        let (mut leaders, mut replicas) = (BTreeMap::new(), BTreeMap::new());
        for route in self.routes.iter() {
            let led = self.ranges.get(&route.range.id).is_some_and(|s| s.led);
            if let Some(leader) = route.leader.filter(|_| led) {
                *leaders.entry(leader.store).or_default() += 1;
            }
            for replica in &route.range.replicas {
                *replicas.entry(replica.store).or_default() += 1;
            }
        }
        (leaders, replicas)
    }

    /// Remembers how much there was to drain.
    pub(super) fn note_drains(&mut self, state: &PlacementState) {
        let progress = self.drain_progress(state);
        self.drains = progress
            .into_iter()
            .map(|p| (p.store, p.replicas_at_first))
            .collect();
    }
}
