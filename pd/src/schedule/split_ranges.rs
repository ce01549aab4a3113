//! Cuts ranges that hold more than `range-split-size`, in the middle of their bytes, and ranges
//! that have served more than `range-split-qps` for a while, at a key that divides their load.
//!
//! Where the middle is the range's leader finds out, which also has sampled the load. A hot key is
//! no reason to cut: where no key divides the load, nothing is done.

use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use bytes::Bytes;
use rangekv_proto::PLACEMENT_RANGE;

const ME: Scheduler = Scheduler::SplitRanges;

/// Splits under way at one time, at most.
const AT_ONCE_MAX: usize = 4;

/// The first ones in key order.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut verdict = Verdict::default();
    let under_way = view.ranges.iter();
    let under_way = under_way.filter(|r| matches!(r.goal, Some(Goal::Split(_))));
    let room = AT_ONCE_MAX.saturating_sub(under_way.count());
    let mut waiting = 0;
    for range in &view.ranges {
        let id = range.range.id;
        let large = range.size_bytes >= view.config.range_split_bytes;
        if id == PLACEMENT_RANGE || !(large || range.hot) {
            continue;
        }
        let free = range.leader.is_some() && range.goal.is_none() && !range.range.is_joint();
        let qps = range.reads + range.writes;
        if !large && range.load_key.is_empty() {
            let text = format!("{qps} requests/s, and no key that would divide them is known");
            verdict.because_of(ME, id, text);
            continue;
        }
        if !free || range.backing_off || verdict.proposals.len() >= room {
            waiting += 1;
            continue;
        }
        let (key, reason) = match large {
            true => (Bytes::new(), format!("it holds {} bytes", range.size_bytes)),
            false => (range.load_key.clone(), format!("{qps} requests/s")),
        };
        verdict.proposals.push(Proposal {
            range: id,
            goal: Goal::Split(key),
            scheduler: ME,
            reason,
        });
    }
    match (waiting, verdict.proposals.len()) {
        (0, 0) => verdict.because(ME, "no range is too large, or too busy and divisible"),
        (0, _) => {}
        (n, _) => verdict.because(ME, format!("{n} more ranges have to wait")),
    }
    verdict
}
