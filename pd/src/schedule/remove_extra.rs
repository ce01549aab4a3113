//! Removes voters beyond the target, and learners that nobody is about to promote.
//!
//! The least useful voter goes first: one that is gone, silent, draining or lagging; the leader
//! last. A range is not shrunk below three voters because only two stores are left (see
//! [`ClusterView::may_shrink_to`]): that would throw away what a third store will need.

use super::members::{is_free, Chooser};
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::RemoveExtra;

/// Ranges whose members are reduced at one time, at most: each gives up records to be deleted.
const AT_ONCE_MAX: usize = 8;

/// At most `AT_ONCE_MAX` ranges under way.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut verdict = Verdict::default();
    let chooser = Chooser::new(view);
    let (mut affected, mut kept) = (0, 0);
    for range in &view.ranges {
        let by_hand = range.range.id == PLACEMENT_RANGE && view.config.placement_replicas.is_none();
        if range.goal.is_some() || range.range.is_joint() || range.held || by_hand {
            continue;
        }
        let now: BTreeSet<StoreId> = range.voters().map(|r| r.store).collect();
        let target = view.target(range);
        let extra = now.len().saturating_sub(target);
        let orphans = range.learners().count();
        let shrink = extra > 0 && view.may_shrink_to(range, target);
        kept += usize::from(extra > 0 && !shrink);
        if !shrink && orphans == 0 {
            continue;
        }
        affected += 1;
        if !is_free(range) || verdict.proposals.len() >= AT_ONCE_MAX {
            continue;
        }
        let voters = match shrink {
            true => chooser.trim(range, now.clone(), target),
            false => now.clone(),
        };
        let reason = match shrink {
            true => format!("{} voters of {target}", now.len()),
            false => format!("{orphans} learners that nobody needs"),
        };
        verdict.proposals.push(Proposal {
            range: range.range.id,
            goal: Goal::Place {
                voters,
                learners: BTreeSet::new(),
            },
            scheduler: ME,
            reason,
        });
    }
    if kept > 0 {
        let text = format!("{kept} ranges keep more voters than two stores need, for a third one");
        verdict.because(ME, text);
    }
    match affected {
        0 => verdict.because(ME, "no range has more replicas than it should"),
        n => {
            let begun = verdict.proposals.len();
            verdict.because(
                ME,
                format!("{n} ranges have replicas too many; {begun} begun now"),
            );
        }
    }
    verdict
}
