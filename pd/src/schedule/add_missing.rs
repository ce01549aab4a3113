//! Adds voters to ranges that have fewer than they should: the cluster grew, the replication
//! factor was raised, or a store was removed while there was nobody to take its place.
//!
//! All that a range lacks is added by one operator, so that it goes from one voter to three
//! without ever having two. If there are stores for some only, the range grows to an odd number:
//! an even one survives no more failures.

use super::members::{is_free, Chooser};
use super::Verdict;
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use rangekv_proto::StoreId;
use std::collections::BTreeSet;

const ME: Scheduler = Scheduler::AddMissing;

/// The fewest voters that survive the loss of one.
const SAFE_VOTERS: usize = 3;

/// As many as `store-snapshots-max` lets each store receive.
pub fn schedule(view: &ClusterView) -> Verdict {
    let mut verdict = Verdict::default();
    let mut chooser = Chooser::new(view);
    let mut affected = 0;
    for range in &view.ranges {
        let now = range.expected_voters();
        let target = view.target(range);
        if now.len() >= target {
            continue;
        }
        affected += 1;
        if !is_free(range) || range.range.is_joint() {
            continue;
        }
        // What a person has just taken away is not given back behind their back, as long as the
        // range survives a failure without it.
        if range.held && now.len() >= SAFE_VOTERS {
            let text = format!("{} voters of {target}, as a person wants it", now.len());
            verdict.because_of(ME, range.range.id, text);
            continue;
        }
        let now: BTreeSet<StoreId> = range.voters().map(|r| r.store).collect();
        let mut voters = now.clone();
        let mut chosen = Vec::new();
        let mut refusals = None;
        while voters.len() < target {
            match chooser.choose(range, &voters) {
                Ok(store) => {
                    voters.insert(store);
                    chosen.push(store);
                }
                Err(why) => {
                    refusals = Some(why);
                    break;
                }
            }
        }
        if voters.len().is_multiple_of(2) {
            voters.retain(|s| chosen.last() != Some(s));
            chosen.pop();
        }
        if let Some(why) = refusals.filter(|_| chosen.is_empty()) {
            let text = format!(
                "{} voters of {target}, and no store can take another: {}",
                now.len(),
                chooser.explain(&why)
            );
            verdict.because_of(ME, range.range.id, text);
            continue;
        }
        chosen.iter().for_each(|s| chooser.take(range, *s));
        verdict.proposals.push(Proposal {
            range: range.range.id,
            goal: Goal::Place {
                voters,
                learners: BTreeSet::new(),
            },
            scheduler: ME,
            reason: format!("{} voters of {target}", now.len()),
        });
    }
    match affected {
        0 => verdict.because(ME, "every range has its voters"),
        n => {
            let begun = verdict.proposals.len();
            verdict.because(ME, format!("{n} ranges lack voters; {begun} begun now"));
        }
    }
    verdict
}
