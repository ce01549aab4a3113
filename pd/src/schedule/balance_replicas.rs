//! Evens out what the stores hold, by count and by size.
//!
//! A replica weighs `REPLICA`, and as much again for each half of `range-split-size` that it
//! holds. One moves at a time from the store that holds most to the one that holds least and can
//! take it, if that makes the two more equal by a clear margin: they must differ by five quarters
//! of what moves, and by more than the tolerance. Moving it back would need the weights to change
//! by half of it first, so a balanced cluster is quiet, and the sum of squares falls with
//! every move, so an unbalanced one becomes balanced.
//!
//! Load is not looked at here: it is spread by moving leaders (spread_hot_leaders.rs), which
//! costs nothing, and by splitting. Range 1 counts and stays: its members are not chosen for
//! balance. Placement nodes take no part.

use super::members::Chooser;
use super::Verdict;
use crate::config::ReplicationFactor;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const ME: Scheduler = Scheduler::BalanceReplicas;

/// Weight of an empty replica.
const REPLICA: u64 = 1_000;

/// At most `replica-moves-max` under way, and none while something is to be repaired.
pub fn schedule(view: &ClusterView) -> Verdict {
    if let Some(range) = view.ranges.iter().find(|r| needs_repair(view, r)) {
        let text = format!("range {} is to be repaired first", range.range.id);
        return Verdict::quiet(ME, text);
    }
    let mut held = weights(view);
    if held.len() < 2 {
        let text = format!(
            "stores that can hold more: {}; balance takes two",
            held.len()
        );
        return Verdict::quiet(ME, text);
    }
    if view.data_stores().count() < 3 && view.config.replication_factor == ReplicationFactor::Auto {
        // Single replicas: moving them gains nothing that a third store will not undo.
        return Verdict::quiet(ME, "two stores: nothing moves until there is a third");
    }
    let mean = held.values().sum::<u64>() / held.len() as u64;
    let tolerance = (view.config.replica_balance_tolerance * REPLICA).max(mean / 20);
    let moving = |r: &&RangeView| matches!(r.goal, Some(Goal::Place { .. })) && r.goal_can_wait();
    let moving = view.ranges.iter().filter(moving).count() as u64;
    let room = view.config.replica_moves_max.saturating_sub(moving);

    let mut view = view.clone();
    let mut verdict = Verdict::default();
    let text = loop {
        let (most, least) = extremes(&held);
        let shown = show(&view);
        if held[&most] - held[&least] <= tolerance {
            break format!("replicas are balanced: {shown}");
        }
        if verdict.proposals.len() as u64 >= room {
            break format!("no more moves at a time: {shown}");
        }
        let Some(best) = best_move(&view, &held, tolerance) else {
            break match view.arriving()[&least] >= view.config.store_snapshots_max {
                true => format!("{} receives as many as it may: {shown}", view.name(least)),
                false => format!("no replica that could move would make it more even: {shown}"),
            };
        };
        let Move { range, from, to } = best;
        let weight = weight(&view, range);
        let mut voters = range.expected_voters();
        voters.remove(&from);
        voters.insert(to);
        let proposal = Proposal {
            range: range.range.id,
            goal: Goal::Place {
                voters,
                learners: BTreeSet::new(),
            },
            scheduler: ME,
            reason: format!("{} holds more than {}", view.name(from), view.name(to)),
        };
        *held.get_mut(&from).expect("a source") -= weight;
        *held.get_mut(&to).expect("a target") += weight;
        view.assume(std::slice::from_ref(&proposal));
        verdict.proposals.push(proposal);
    };
    verdict.because(ME, text);
    verdict
}

/// A replica that could go.
struct Move<'a> {
    range: &'a RangeView,
    from: StoreId,
    to: StoreId,
}

/// Whether `range` has lost something that there is a way to make up for.
fn needs_repair(view: &ClusterView, range: &RangeView) -> bool {
    matches!(range.goal, Some(Goal::Place { .. })) && !range.goal_can_wait()
        || range.voters().count() < view.target(range) && range.leader.is_some() && is_whole(view)
}

/// Whether no store is missing: else a range may lack voters for long.
fn is_whole(view: &ClusterView) -> bool {
    view.stores.iter().all(|s| s.live && !s.full)
}

/// The weight of a replica of `range`.
fn weight(view: &ClusterView, range: &RangeView) -> u64 {
    let half = (view.config.range_split_bytes / 2).max(1);
    REPLICA + REPLICA.saturating_mul(range.size_bytes) / half
}

/// What each store holds that can be given more, or could give.
fn weights(view: &ClusterView) -> BTreeMap<StoreId, u64> {
    let able = view.data_stores().filter(|s| s.live && !s.draining);
    let mut held: BTreeMap<StoreId, u64> = able.map(|s| (s.id, 0)).collect();
    for range in &view.ranges {
        let weight = weight(view, range);
        for store in range.expected_replicas() {
            if let Some(sum) = held.get_mut(&store) {
                *sum += weight;
            }
        }
    }
    held
}

fn show(view: &ClusterView) -> String {
    let counts = view.replicas();
    let able = view.data_stores().filter(|s| s.live && !s.draining);
    let parts: Vec<String> = able
        .map(|s| format!("{} {}", s.name, counts[&s.id]))
        .collect();
    parts.join(", ")
}

/// The stores that hold most and least.
fn extremes(held: &BTreeMap<StoreId, u64>) -> (StoreId, StoreId) {
    let most = held.iter().min_by_key(|(s, n)| (Reverse(**n), **s));
    let least = held.iter().min_by_key(|(s, n)| (**n, **s));
    (*most.expect("two stores").0, *least.expect("two stores").0)
}

/// From the fullest store possible to the emptiest: the replica that makes the two most equal;
/// rather one that doesn't lead.
fn best_move<'a>(
    view: &'a ClusterView,
    held: &BTreeMap<StoreId, u64>,
    tolerance: u64,
) -> Option<Move<'a>> {
    let chooser = Chooser::new(view);
    let mut sources: Vec<StoreId> = held.keys().copied().collect();
    sources.sort_by_key(|s| (Reverse(held[s]), *s));
    let mut targets: Vec<StoreId> = held.keys().copied().collect();
    targets.sort_by_key(|s| (held[s], *s));
    for &from in &sources {
        for &to in targets
            .iter()
            .filter(|to| held[&from] > held[to] + tolerance)
        {
            let gap = held[&from] - held[&to];
            let fits = |r: &&RangeView| {
                let voters = r.expected_voters();
                is_movable(r)
                    && voters.contains(&from)
                    && gap >= weight(view, r) * 5 / 4
                    && chooser.refusal(r, &voters, to).is_none()
            };
            let best = view.ranges.iter().filter(fits).min_by_key(|r| {
                let leads = r.expected_leader() == Some(from);
                (leads, gap.abs_diff(2 * weight(view, r)), r.range.id)
            });
            if let Some(range) = best {
                return Some(Move { range, from, to });
            }
        }
    }
    None
}

fn is_movable(range: &RangeView) -> bool {
    range.range.id != PLACEMENT_RANGE
        && range.leader.is_some()
        && range.goal.is_none()
        && !range.range.is_joint()
        && !range.backing_off
        && !range.held
        && range.lagging.is_empty()
}
