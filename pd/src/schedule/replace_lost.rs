//! Replaces voters on stores that were removed, or have been silent for `max-store-down-time`.
//!
//! Only where a store can take the place: without a spare one the range stays as it is, with
//! whoever is left, and says so. Nobody else is ever evicted because somebody is down.

use super::members::{is_free, Chooser};
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use rangekv_proto::StoreId;
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::ReplaceLost;

/// As many as `store-snapshots-max` lets each store receive.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut verdict = Verdict::default();
    let mut chooser = Chooser::new(view);
    let mut affected = 0;
    for range in &view.ranges {
        let voters = range.expected_voters().into_iter();
        let lost: BTreeSet<StoreId> = voters.filter(|s| view.is_lost(*s)).collect();
        if lost.is_empty() {
            continue;
        }
        affected += 1;
        if !is_free(range) {
            continue;
        }
        let names: Vec<String> = lost.iter().map(|s| view.name(*s)).collect();
        let names = names.join(" and ");
        match chooser.replace(range, &lost) {
            Ok(voters) => verdict.proposals.push(Proposal {
                range: range.range.id,
                goal: Goal::Place {
                    voters,
                    learners: BTreeSet::new(),
                },
                scheduler: ME,
                reason: format!("{names} is gone"),
            }),
            Err(refusals) => {
                let others = chooser.explain(&refusals);
                let text = format!("{names} is gone, and no store can take its place: {others}");
                verdict.because_of(ME, range.range.id, text);
            }
        }
    }
    match affected {
        0 => verdict.because(ME, "no range has a voter on a store that is gone"),
        n => {
            let begun = verdict.proposals.len();
            let text = format!("{n} ranges have voters on stores that are gone; {begun} begun now");
            verdict.because(ME, text);
        }
    }
    verdict
}
