//! Evens out the number of leaders per store.
//!
//! Moves one leader at a time from the store that leads most to the store that leads least and
//! can take it, while they differ by more than the tolerance. The tolerance is at least 1, so
//! a move never makes the difference greater; and it is at least a twentieth of the mean, so
//! that a large cluster isn't kept busy for a handful of ranges. Balanced, it is quiet.
//!
//! Range 1 counts as a leadership and stays where it is; placement nodes take no part. Stores that are silent can't be told
//! anything, and stores that drain are evict_leaders.rs's.

use super::{tally, Obstacle, Verdict};
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const ME: Scheduler = Scheduler::BalanceLeaders;

/// At most `leader-transfers-max` transfers under way.
pub fn schedule(view: &ClusterView) -> Verdict {
    let all = view.leaders();
    let mut leaders: BTreeMap<StoreId, u64> = view.can_lead_data().map(|s| (s, all[&s])).collect();
    if leaders.len() < 2 {
        let text = format!("stores that can lead: {}; balance takes two", leaders.len());
        return Verdict::quiet(ME, text);
    }
    let mean = leaders.values().sum::<u64>() / leaders.len() as u64;
    let tolerance = view.config.leader_balance_tolerance.max(mean / 20);

    let room = view.transfers_left();
    let mut view = view.clone();
    let mut verdict = Verdict::default();
    let text = loop {
        let counts: Vec<String> = leaders
            .iter()
            .map(|(s, n)| format!("{} {n}", view.name(*s)))
            .collect();
        let counts = counts.join(", ");
        let (most, least) = extremes(&leaders);
        if leaders[&most] - leaders[&least] <= tolerance {
            break format!("leaders are balanced within {tolerance}: {counts}");
        }
        if verdict.proposals.len() as u64 >= room {
            break format!("no more transfers at a time: {counts}");
        }
        let Some((range, from, to)) = best_move(&view, &leaders, tolerance) else {
            let stuck = tally(led_by(&view, most).filter_map(|r| obstacle(r, least)));
            break format!(
                "no leader can move from {} to {} ({stuck}): {counts}",
                view.name(most),
                view.name(least)
            );
        };
        let proposal = Proposal {
            range: range.range.id,
            goal: Goal::Lead(to),
            scheduler: ME,
            reason: format!(
                "{} leads {} ranges, {} leads {}",
                view.name(from),
                leaders[&from],
                view.name(to),
                leaders[&to]
            ),
        };
        *leaders.get_mut(&from).expect("a source") -= 1;
        *leaders.get_mut(&to).expect("a target") += 1;
        view.assume(std::slice::from_ref(&proposal));
        verdict.proposals.push(proposal);
    };
    verdict.because(ME, text);
    verdict
}

/// The stores that lead most and least.
fn extremes(leaders: &BTreeMap<StoreId, u64>) -> (StoreId, StoreId) {
    let most = leaders
        .iter()
        .min_by_key(|(s, n)| (Reverse(**n), **s))
        .expect("two stores");
    let least = leaders
        .iter()
        .min_by_key(|(s, n)| (**n, **s))
        .expect("two stores");
    (*most.0, *least.0)
}

/// A range that can go from the fullest store possible to the emptiest one.
fn best_move<'a>(
    view: &'a ClusterView,
    leaders: &BTreeMap<StoreId, u64>,
    tolerance: u64,
) -> Option<(&'a RangeView, StoreId, StoreId)> {
    let mut sources: Vec<StoreId> = leaders.keys().copied().collect();
    sources.sort_by_key(|s| (Reverse(leaders[s]), *s));
    let mut targets: Vec<StoreId> = leaders.keys().copied().collect();
    targets.sort_by_key(|s| (leaders[s], *s));
    for &from in &sources {
        for &to in targets
            .iter()
            .filter(|to| leaders[&from] > leaders[to] + tolerance)
        {
            let movable = led_by(view, from).filter(|r| obstacle(r, to).is_none());
            // The least busy one: load is spread_hot_leaders.rs's.
            let busy = |r: &&RangeView| (r.reads + r.writes) / 100;
            if let Some(range) = movable.min_by_key(|r| (busy(r), r.range.id)) {
                return Some((range, from, to));
            }
        }
    }
    None
}

/// Ranges that `store` leads, or will once what is under way has arrived.
fn led_by(view: &ClusterView, store: StoreId) -> impl Iterator<Item = &RangeView> {
    view.ranges
        .iter()
        .filter(move |r| r.expected_leader() == Some(store))
}

fn obstacle(range: &RangeView, to: StoreId) -> Option<Obstacle> {
    match range.range.id == PLACEMENT_RANGE {
        true => Some(Obstacle::Placement),
        false => range.obstacle(to),
    }
}
