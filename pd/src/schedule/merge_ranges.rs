//! Joins two neighbours that are both small, cold, healthy, and have been as they are for long.
//!
//! The left one absorbs the right one. Before that the right one is moved to where the left
//! one is, replicas first, then the leader: each an operator of its own, decided anew in each
//! round, until nothing is left to prepare. One pair at a time: the first in key order.
//!
//! A cluster keeps as many ranges as it began with (one for each store to lead, at least three),
//! however empty: they spread the load that is to come.

use super::Verdict;
use crate::bootstrap::default_data_ranges;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::MergeRanges;

/// Above so many requests per second a range is not cold.
const COLD_QPS_MAX: u64 = 50;

/// What is next for the first pair.
pub fn schedule(view: &ClusterView) -> Verdict {
    if view.ranges.iter().any(|r| r.goal_of == Some(ME)) {
        return Verdict::quiet(ME, "one merge is under way");
    }
    let data = view.ranges.iter().filter(|r| r.range.id != PLACEMENT_RANGE);
    let (data, least) = (
        data.count(),
        default_data_ranges(view.data_stores().count()),
    );
    if data <= least {
        let text = format!("{data} ranges; {least} are kept in any case");
        return Verdict::quiet(ME, text);
    }
    let pairs = view.ranges.windows(2).map(|pair| (&pair[0], &pair[1]));
    let fit = |(left, right): &(&RangeView, &RangeView)| {
        left.range.end == right.range.start
            && is_ready(view, left)
            && is_ready(view, right)
            && left.size_bytes + right.size_bytes < view.config.range_merge_bytes
    };
    let Some((left, right)) = pairs.into_iter().find(fit) else {
        return Verdict::quiet(ME, "no two neighbours are small, cold, healthy and settled");
    };
    let (l, r) = (left.range.id, right.range.id);
    let reason = format!("ranges {l} and {r} are small and cold, and become one");
    let mut verdict = Verdict::default();
    verdict.proposals.extend(step(left, right, ME, reason));
    verdict
}

/// What is next on the way to `left` having absorbed `right`; nothing while nobody leads them.
pub fn step(
    left: &RangeView,
    right: &RangeView,
    scheduler: Scheduler,
    reason: String,
) -> Option<Proposal> {
    let on = |range: &RangeView| -> BTreeSet<StoreId> {
        range.range.replicas.iter().map(|r| r.store).collect()
    };
    let leader = left.leader?;
    let (range, goal) = if on(left) != on(right) {
        let place = Goal::Place {
            voters: on(left),
            learners: BTreeSet::new(),
        };
        (right, place)
    } else if right.leader? != leader {
        (right, Goal::Lead(leader))
    } else {
        (left, Goal::Merge(right.range.id, right.range.epoch))
    };
    Some(Proposal {
        range: range.range.id,
        goal,
        scheduler,
        reason,
    })
}

fn is_ready(view: &ClusterView, range: &RangeView) -> bool {
    let voters: BTreeSet<StoreId> = range.voters().map(|r| r.store).collect();
    range.range.id != PLACEMENT_RANGE
        && range.leader.is_some()
        && range.goal.is_none()
        && !range.range.is_joint()
        && !(range.reshaped || range.hot || range.held || range.backing_off)
        && range.reads + range.writes <= COLD_QPS_MAX
        && range.learners().next().is_none()
        && voters.len() == view.target(range)
        && voters
            .iter()
            .all(|s| range.is_healthy(&view.stores, *s) && !view.is_draining(*s))
}
