//! How long ranges are without a leader after their leader's machine died, in virtual time:
//! groups that were quiesced, and groups that were awake.

use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::schedule::{Time, MS, SEC};
use rand::Rng;
use rangekv_proto::RangeId;
use std::collections::BTreeSet;

/// Nothing takes longer in a cluster that is otherwise well.
const GIVE_UP_AFTER: Time = 60 * SEC;

/// Per range that the dead machine led: time until another replica serves as leader.
/// The error is a finding. The machine dies at a moment that `seed` draws.
pub fn measure(seed: u64, stores: usize, quiesced: bool) -> Result<Vec<Time>, String> {
    let faults = Faults {
        stores,
        idle: if quiesced { 100 * MS } else { 3_600 * SEC },
        ..Faults::none()
    };
    let mut cluster = Cluster::new(seed, faults, false)?;
    cluster.clients_stopped = true;
    let settled = 5 * SEC + cluster.rng.random_range(0..SEC);
    cluster.run_until(settled)?;
    let asleep = cluster
        .views()
        .iter()
        .flat_map(|view| view.values())
        .filter(|group| group.quiesced == quiesced)
        .count();
    let all: usize = cluster.views().iter().map(|view| view.len()).sum();
    if asleep != all {
        return Err(format!("{asleep} of {all} replicas are as they should be"));
    }
    let led = cluster.led();
    let Some(victim) = led
        .first()
        .and_then(|(_, hint)| cluster.node_of(hint.store))
    else {
        return Err("nobody leads anything".into());
    };
    let store = cluster.nodes[victim].store;
    let mut orphans: BTreeSet<RangeId> = led
        .iter()
        .filter(|(_, hint)| hint.store == store)
        .map(|(range, _)| range.id)
        .collect();
    let died_at = cluster.schedule.now();
    cluster.crash_node(victim, true);
    let mut times = Vec::new();
    while !orphans.is_empty() {
        let now = cluster.schedule.now() + MS;
        cluster.run_until(now)?;
        if now > died_at + GIVE_UP_AFTER {
            return Err(format!("nobody leads {orphans:?} any more"));
        }
        for view in cluster.views() {
            // It has applied an entry of its own term: it answers.
            let serving = view
                .values()
                .filter(|g| g.is_leader && g.applied.1 == g.term);
            for group in serving {
                if orphans.remove(&group.range) {
                    times.push(now - died_at);
                }
            }
        }
    }
    Ok(times)
}
