//! How long a range is without a leader when its leader's process dies, and nothing else happens:
//! from the death until another replica has applied an entry of its own term, and so serves.
//!
//! Once with groups that have been asked for nothing for a while, and are quiesced; once with groups
//! that are awake. Which store dies is the one that leads most; all its ranges count.

use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::random::stream;
use crate::schedule::{Time, MS, SEC};
use rand::Rng;
use rangekv_proto::RangeId;

/// A range must have a new leader within this time: an election timeout until the silence is
/// noticed, turns of at most four survivors, and an election that fails on the way.
pub const FAILOVER_MAX: Time = 3 * SEC;
/// Whether something has changed is looked at this often.
const STEP: Time = MS;

/// The longest time that a range of the store that dies is without a leader. The error is a finding.
pub fn failover(seed: u64, quiesced: bool) -> Result<Time, String> {
    let mut rng = stream(seed, "failover");
    let mut faults = Faults::none();
    faults.stores = [3, 5][rng.random_range(0..2)];
    faults.clock_rate = rng.random_range(0..100);
    faults.sync_mean = rng.random_range(MS / 20..3 * MS);
    faults.idle = if quiesced { 500 * MS } else { 3_600 * SEC };
    let mut cluster = Cluster::new(seed, faults, false)?;
    cluster.run_until(rng.random_range(3 * SEC..6 * SEC))?;
    cluster.clients_stopped = true;
    let settled = cluster.schedule.now() + rng.random_range(8 * SEC..12 * SEC);
    cluster.run_until(settled)?;
    cluster.time_without_leader(quiesced)
}

impl Cluster {
    fn time_without_leader(&mut self, quiesced: bool) -> Result<Time, String> {
        let views = self.views();
        let led = |node: &usize| views[*node].values().filter(|g| g.is_leader).count();
        let victim = (0..views.len()).max_by_key(led).expect("there are stores");
        let ranges: Vec<(RangeId, u64)> = views[victim]
            .values()
            .filter(|g| g.is_leader)
            .map(|g| (g.range, g.term))
            .collect();
        if let Some(group) = views[victim].values().find(|g| g.quiesced != quiesced) {
            let range = group.range;
            return Err(format!("range {range} is quiesced: {}", group.quiesced));
        }
        let died = self.schedule.now();
        self.crash_node(victim, false);
        loop {
            let next = self.schedule.now() + STEP;
            self.run_until(next)?;
            let views = self.views();
            let leaderless = ranges.iter().find(|(range, term)| {
                let groups = views.iter().filter_map(|v| v.get(range));
                let mut leaders = groups.filter(|g| g.is_leader && g.term > *term);
                !leaders.any(|g| g.applied.1 == g.term)
            });
            let time = next - died;
            match leaderless {
                None => return Ok(time),
                Some((range, _)) if time > FAILOVER_MAX => {
                    return Err(format!(
                        "range {range} has no leader {:.1} s after its leader's death",
                        time as f64 / SEC as f64
                    ));
                }
                Some(_) => {}
            }
        }
    }
}
