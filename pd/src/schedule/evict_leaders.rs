//! Moves leaders off the stores that drain, each to the voter whose store leads least.
//!
//! Comes before balance, and shares its limit per round. Range 1 moves too.

use super::{tally, ClusterView, Obstacle, Operator, Reason};
use rangekv_proto::StoreId;

const NAME: &str = "evict-leaders";

/// At most `leader-transfers-max` transfers.
pub fn schedule(view: &ClusterView) -> (Vec<Operator>, Vec<Reason>) {
    // A silent store can't be told anything; the others elect new leaders without it.
    let draining = view.stores.iter().filter(|s| s.draining && s.live);
    let draining: Vec<StoreId> = draining.map(|s| s.id).collect();
    let mut leaders = view.leaders();
    let mut operators = Vec::new();
    let mut stuck: Vec<Obstacle> = Vec::new();
    let mut waiting = 0;
    for range in &view.ranges {
        let Some(from) = range.expected_leader().filter(|s| draining.contains(s)) else {
            continue;
        };
        if operators.len() as u64 >= view.config.leader_transfers_max {
            waiting += 1;
            continue;
        }
        let free = view.targets().filter(|s| range.obstacle(*s).is_none());
        match free.min_by_key(|s| (leaders[s], *s)) {
            Some(to) => {
                *leaders.get_mut(&to).expect("a target") += 1;
                operators.push(range.transfer(to, format!("{} is draining", view.name(from))));
            }
            // The obstacle that is nearest to going away: lagging before no voter at all.
            None => stuck.push(
                view.targets()
                    .filter_map(|s| range.obstacle(s))
                    .min_by_key(|o| (*o == Obstacle::NoVoter, *o))
                    .unwrap_or(Obstacle::NoVoter),
            ),
        }
    }
    let mut texts = Vec::new();
    if draining.is_empty() {
        texts.push("no live store is draining".to_owned());
    } else if operators.is_empty() && stuck.is_empty() {
        texts.push("draining stores lead nothing".to_owned());
    }
    if waiting > 0 {
        texts.push(format!(
            "{waiting} more leaders have to wait for the next round"
        ));
    }
    if !stuck.is_empty() {
        let obstacles = tally(stuck.iter().copied());
        texts.push(format!(
            "{} leaders have nowhere to go ({obstacles})",
            stuck.len()
        ));
    }
    let reasons = texts.into_iter().map(|text| Reason {
        scheduler: NAME,
        text,
    });
    (operators, reasons.collect())
}
