//! Spreads load by moving the leaders of busy ranges: from the store whose leaders serve most to
//! the one whose leaders serve least.
//!
//! Where a transfer would leave the *numbers* of leaders uneven, a leader of the other store comes
//! back for it, one that serves less: else balance_leaders.rs would undo it. The difference
//! must be large, and must shrink by a clear margin, as in balance_replicas.rs; a range that was
//! moved is left alone for `leader-transfer-cooldown`, in which its load can be seen anew.

use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const ME: Scheduler = Scheduler::SpreadHotLeaders;

/// A difference of fewer requests per second between two stores is left alone.
const QPS_MIN: u64 = 1_000;

/// One leader, or one pair, per round.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut load: BTreeMap<StoreId, u64> = view.can_lead_data().map(|s| (s, 0)).collect();
    for range in &view.ranges {
        if let Some(sum) = range.expected_leader().and_then(|s| load.get_mut(&s)) {
            *sum += qps(range);
        }
    }
    if load.len() < 2 {
        return Verdict::quiet(ME, "fewer than two stores can lead");
    }
    let most = load.iter().min_by_key(|(s, n)| (Reverse(**n), **s));
    let least = load.iter().min_by_key(|(s, n)| (**n, **s));
    let (from, to) = (*most.expect("two").0, *least.expect("two").0);
    let gap = load[&from] - load[&to];
    let mean = load.values().sum::<u64>() / load.len() as u64;
    let (most, least) = (view.name(from), view.name(to));
    let shown = format!(
        "{most} serves {} requests/s, {least} {}",
        load[&from], load[&to]
    );
    if gap <= (mean / 3).max(QPS_MIN) {
        return Verdict::quiet(ME, format!("no store is much busier than others: {shown}"));
    }
    if view.transfers_left() < 2 {
        return Verdict::quiet(ME, format!("no more transfers at a time: {shown}"));
    }
    let Some((hot, cold)) = best(view, from, to, gap) else {
        let text = format!("no transfer that could be made would spread the load: {shown}");
        return Verdict::quiet(ME, text);
    };
    let mut verdict = Verdict::default();
    verdict.proposals.push(Proposal {
        range: hot.range.id,
        goal: Goal::Lead(to),
        scheduler: ME,
        reason: shown.clone(),
    });
    verdict.proposals.extend(cold.map(|cold| Proposal {
        range: cold.range.id,
        goal: Goal::Lead(from),
        scheduler: ME,
        reason: format!("in exchange for range {}: {shown}", hot.range.id),
    }));
    verdict
}

fn qps(range: &RangeView) -> u64 {
    range.reads + range.writes
}

/// What moves, and what comes back for it, if anything must.
fn best(
    view: &ClusterView,
    from: StoreId,
    to: StoreId,
    gap: u64,
) -> Option<(&RangeView, Option<&RangeView>)> {
    let leaders = view.leaders();
    // Afterwards the other store leads so many more.
    let more = (leaders[&to] + 2).saturating_sub(leaders[&from]);
    let alone = more <= view.config.leader_balance_tolerance;
    let movable = |on: StoreId, to: StoreId| {
        let led = view.ranges.iter().filter(move |r| r.leader == Some(on));
        led.filter(move |r| r.range.id != PLACEMENT_RANGE && r.obstacle(to).is_none())
    };
    let back: Vec<Option<&RangeView>> = match alone {
        true => vec![None],
        false => movable(to, from).map(Some).collect(),
    };
    let pairs = movable(from, to).flat_map(|hot| back.iter().map(move |cold| (hot, *cold)));
    let moved = |(hot, cold): &(&RangeView, Option<&RangeView>)| {
        qps(hot).saturating_sub(cold.map_or(0, qps))
    };
    pairs
        .filter(|pair| moved(pair) > 0 && gap >= moved(pair) * 5 / 4)
        .filter(|pair| moved(pair) >= QPS_MIN / 4)
        .min_by_key(|pair| (gap.abs_diff(2 * moved(pair)), pair.0.range.id))
}
