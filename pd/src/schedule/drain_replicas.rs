//! Moves replicas off the stores that drain, as far as others can take them.
//!
//! A range never has fewer voters for it: where no store can take the place, the replica stays
//! and the scheduler says why.

use super::members::{is_free, Chooser};
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use rangekv_proto::StoreId;
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::DrainReplicas;

/// As many as `store-snapshots-max` lets each store receive.
pub fn schedule(view: &ClusterView) -> Verdict {
    let draining: BTreeSet<StoreId> = view
        .stores
        .iter()
        .filter(|s| s.draining)
        .map(|s| s.id)
        .collect();
    if draining.is_empty() {
        return Verdict::quiet(ME, "no store is draining");
    }
    let mut verdict = Verdict::default();
    let mut chooser = Chooser::new(view);
    let mut left = 0;
    for range in &view.ranges {
        let on: BTreeSet<StoreId> = range
            .expected_replicas()
            .intersection(&draining)
            .copied()
            .collect();
        if on.is_empty() {
            continue;
        }
        left += on.len();
        if !is_free(range) || range.range.is_joint() {
            continue;
        }
        let names: Vec<String> = on.iter().map(|s| view.name(*s)).collect();
        let names = names.join(" and ");
        match chooser.replace(range, &on) {
            Ok(voters) => verdict.proposals.push(Proposal {
                range: range.range.id,
                goal: Goal::Place {
                    voters,
                    learners: BTreeSet::new(),
                },
                scheduler: ME,
                reason: format!("{names} is draining"),
            }),
            Err(refusals) => {
                let others = chooser.explain(&refusals);
                let text =
                    format!("{names} is draining, and no store can take its place: {others}");
                verdict.because_of(ME, range.range.id, text);
            }
        }
    }
    match left {
        0 => verdict.because(ME, "the draining stores are empty"),
        n => {
            let begun = verdict.proposals.len();
            let text = format!("draining stores hold {n} replicas to be moved; {begun} begun now");
            verdict.because(ME, text);
        }
    }
    verdict
}
