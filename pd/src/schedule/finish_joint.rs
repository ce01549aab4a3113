//! Leaves joint configurations whose operator is gone: its leader of the placement driver was
//! replaced, or a person changed the members by hand.
//!
//! First in line: in a joint configuration nothing else can be changed, and twice as many
//! replicas must be alive as otherwise.

use super::members::is_free;
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::FinishJoint;

/// All of them.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut verdict = Verdict::default();
    for range in view.ranges.iter().filter(|r| r.range.is_joint()) {
        if matches!(range.goal, Some(Goal::Place { .. })) || !is_free(range) {
            continue;
        }
        verdict.proposals.push(Proposal {
            range: range.range.id,
            goal: Goal::Place {
                voters: range.voters().map(|r| r.store).collect(),
                learners: BTreeSet::new(),
            },
            scheduler: ME,
            reason: "a membership change was left half done".into(),
        });
    }
    if verdict.proposals.is_empty() {
        verdict.because(ME, "no range was left in a joint configuration");
    }
    verdict
}
