//! Moves replicas off the stores that drain, as far as others can take them; and off those on
//! which they don't belong: where placement nodes join a cluster of stores, range 1 moves to
//! them, one voter for another, as far as there are enough of them.
//!
//! A range never has fewer voters for it: where no store can take the place, the replica stays
//! and the scheduler says why.

use super::members::{is_free, Chooser};
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::{ClusterView, RangeView};
use rangekv_proto::{StoreId, PLACEMENT_RANGE};
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
    let strays = |range: &RangeView| -> BTreeSet<StoreId> {
        if range.range.id == PLACEMENT_RANGE && view.config.placement_replicas.is_none() {
            return BTreeSet::new(); // By hand.
        }
        let on = range.expected_replicas().into_iter();
        on.filter(|s| !view.belongs(range.range.id, *s)).collect()
    };
    if draining.is_empty() && view.ranges.iter().all(|r| strays(r).is_empty()) {
        return Verdict::quiet(ME, "no store is draining");
    }
    let mut verdict = Verdict::default();
    let mut chooser = Chooser::new(view);
    let mut left = 0;
    for range in &view.ranges {
        let drained = &range.expected_replicas() & &draining;
        let on = &drained | &strays(range);
        if on.is_empty() {
            continue;
        }
        left += on.len();
        if !is_free(range) || range.range.is_joint() {
            continue;
        }
        let names: Vec<String> = on.iter().map(|s| view.name(*s)).collect();
        let names = names.join(" and ");
        let why = match drained.is_empty() {
            true => format!("{names} is not where range {} belongs", range.range.id),
            false => format!("{names} is draining"),
        };
        match chooser.replace(range, &on) {
            Ok(voters) => verdict.proposals.push(Proposal {
                range: range.range.id,
                goal: Goal::Place {
                    voters,
                    learners: BTreeSet::new(),
                },
                scheduler: ME,
                reason: why,
            }),
            Err(refusals) => {
                let others = chooser.explain(&refusals);
                let text = format!("{why}, and no store can take its place: {others}");
                verdict.because_of(ME, range.range.id, text);
            }
        }
    }
    match left {
        0 => verdict.because(ME, "the draining stores are empty"),
        n => {
            let begun = verdict.proposals.len();
            let who = match draining.is_empty() {
                true => "stores that are not for them",
                false => "draining stores",
            };
            let text = format!("{who} hold {n} replicas to be moved; {begun} begun now");
            verdict.because(ME, text);
        }
    }
    verdict
}
