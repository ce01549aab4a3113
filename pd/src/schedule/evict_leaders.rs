//! Moves leaders off the stores that drain, each to the voter whose store leads least.
//!
//! Comes before balance, and shares its limit per round. Range 1 moves too.

use super::{tally, Obstacle, Verdict};
use crate::operator::{Goal, Proposal, Scheduler};
use crate::view::ClusterView;
use rangekv_proto::StoreId;

const ME: Scheduler = Scheduler::EvictLeaders;

/// At most `leader-transfers-max` transfers under way.
pub fn schedule(view: &ClusterView) -> Verdict {
    // A silent store can't be told anything; the others elect new leaders without it.
    let draining = view.stores.iter().filter(|s| s.draining && s.live);
    let draining: Vec<StoreId> = draining.map(|s| s.id).collect();
    let mut leaders = view.leaders();
    let mut verdict = Verdict::default();
    let room = view.transfers_left();
    let mut stuck: Vec<Obstacle> = Vec::new();
    let mut waiting = 0;
    for range in &view.ranges {
        let Some(from) = range.expected_leader().filter(|s| draining.contains(s)) else {
            continue;
        };
        if verdict.proposals.len() as u64 >= room {
            waiting += 1;
            continue;
        }
        let free = view.can_lead().filter(|s| range.obstacle(*s).is_none());
        match free.min_by_key(|s| (leaders[s], *s)) {
            Some(to) => {
                *leaders.get_mut(&to).expect("a target") += 1;
                verdict.proposals.push(Proposal {
                    range: range.range.id,
                    goal: Goal::Lead(to),
                    scheduler: ME,
                    reason: format!("{} is draining", view.name(from)),
                });
            }
            // The obstacle that is nearest to going away: lagging before no voter at all.
            None => stuck.push(
                view.can_lead()
                    .filter_map(|s| range.obstacle(s))
                    .min_by_key(|o| (*o == Obstacle::NoVoter, *o))
                    .unwrap_or(Obstacle::NoVoter),
            ),
        }
    }
    if draining.is_empty() {
        verdict.because(ME, "no live store is draining");
    } else if verdict.proposals.is_empty() && stuck.is_empty() && waiting == 0 {
        verdict.because(ME, "draining stores lead nothing");
    }
    if waiting > 0 {
        verdict.because(ME, format!("{waiting} more leaders have to wait"));
    }
    if !stuck.is_empty() {
        let obstacles = tally(stuck.iter().copied());
        let text = format!("{} leaders have nowhere to go ({obstacles})", stuck.len());
        verdict.because(ME, text);
    }
    verdict
}
