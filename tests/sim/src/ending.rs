//! The second half of a run: everything is healed, and the cluster must become well within a
//! bounded time: every range serves, every operation ends, all replicas agree. Then it is judged.

use crate::checker;
use crate::cluster::{Cluster, Event};
use crate::history::Outcome;
use crate::nemesis::Trouble;
use crate::schedule::{Time, MS, SEC};
use rangekv_model::eval::View;
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaRole};
use rangekv_store::meta;
use rangekv_store::worker::GroupView;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// How long a healed cluster may take until all its ranges serve and all replicas are equal.
const WELL_WITHIN: Time = 60 * SEC;
/// A placement driver with nothing under way for so long has nothing left to do: its rounds come
/// every second, and leaders that have moved may move again after as long.
const QUIET: Time = 5 * SEC;
/// Clients go on for this long after the healing.
const CLIENTS_GO_ON: Time = 1_500 * MS;
/// How often the state of the cluster is looked at, and repaired.
const LOOK_EVERY: Time = 200 * MS;

impl Cluster {
    /// The whole run. The error is a finding.
    pub fn run(&mut self) -> Result<(), String> {
        self.run_until(self.faults.duration)?;
        self.heal()?;
        self.set_all_again();
        let healed_at = self.schedule.now();
        self.schedule.after(LOOK_EVERY, Event::Ending);
        // Who is paused may hold an older command that undoes this.
        let processes = self.nodes.iter().filter_map(|n| n.process.as_ref());
        let awake_at = processes.map(|p| p.paused_until).max().unwrap_or(0);
        self.run_until(healed_at.max(awake_at) + CLIENTS_GO_ON)?;
        self.set_all_again();
        self.clients_stopped = true;
        let deadline = healed_at + WELL_WITHIN;
        self.run_until_well(deadline)?;
        self.read_everything(deadline)?;
        let through_doors = self.schedule.now() + 30 * SEC;
        self.read_through_doors(through_doors)?;
        // The reads may have made entries, and the lag behind them is to be made up.
        self.run_until_well(deadline + 10 * SEC)?;
        for node in &self.nodes {
            self.counts.absorbed += node.process.as_ref().map_or(0, |p| p.absorbed());
        }
        self.judge_states()?;
        self.judge_history()
    }

    fn heal(&mut self) -> Result<(), String> {
        self.healed = true;
        let now = self.schedule.now();
        for (from, to, time, bytes) in self.net.heal(now) {
            self.schedule.at(time, Event::Frame { from, to, bytes });
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].sync_mean = self.faults.sync_mean;
            self.disk_free(node);
            // A stopped process goes on when it was to: until then is put off what came to it.
            if self.nodes[node].process.is_none() && !self.nodes[node].wiped {
                self.start_node(node)?;
            }
        }
        Ok(())
    }

    /// What the placement driver does for a cluster at rest.
    pub(crate) fn repair(&mut self) {
        self.schedule.after(LOOK_EVERY, Event::Ending);
        if self.has_placement() {
            return;
        }
        let (led, stores) = (self.led(), self.lasting_stores());
        for command in self.admin.repair(&led, &stores) {
            self.ask(Some(command), Trouble::Repair);
        }
    }

    fn run_until_well(&mut self, deadline: Time) -> Result<(), String> {
        let mut well_since = None;
        loop {
            let next = self.schedule.now() + LOOK_EVERY;
            self.run_until(next)?;
            match self.ailment() {
                // A cluster with a placement driver must also stay as it is.
                None if self.has_placement() => {
                    let since = *well_since.get_or_insert(next);
                    if next >= since + QUIET {
                        return Ok(());
                    }
                }
                None => return Ok(()),
                Some(ailment) if next >= deadline => {
                    return Err(format!(
                        "not well {} s after all was healed: {ailment}{}",
                        WELL_WITHIN / SEC,
                        self.placement_reasons()
                    ));
                }
                Some(_) => well_since = None,
            }
        }
    }

    pub(crate) fn views(&self) -> Vec<BTreeMap<RangeId, GroupView>> {
        let now = self.schedule.now();
        self.nodes
            .iter()
            .map(|n| match &n.process {
                Some(process) => process
                    .groups(n.now(now))
                    .into_iter()
                    .map(|g| (g.range, g))
                    .collect(),
                None => BTreeMap::new(),
            })
            .collect()
    }

    /// What is not yet well, if anything.
    fn ailment(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|c| c.busy.is_some()) {
            return Some(format!("client {} waits: {:?}", client.number, client.busy));
        }
        if let Some(connection) = self.connections.iter().find(|c| c.is_waiting()) {
            return Some(connection.show());
        }
        let open = self.open_requests.iter().flat_map(BTreeMap::values);
        let open = open.filter(|(caller, _)| !caller.is_a_store()).count();
        let views = self.views();
        let mut leaders: BTreeMap<RangeId, &GroupView> = BTreeMap::new();
        for group in views
            .iter()
            .flat_map(BTreeMap::values)
            .filter(|g| g.is_leader)
        {
            if let Some(other) = leaders.insert(group.range, group) {
                return Some(format!(
                    "range {} has two leaders, {} and {}",
                    group.range, other.replica, group.replica
                ));
            }
        }
        let mut ranges: Vec<&RangeDescriptor> = Vec::new();
        for leader in leaders.values() {
            let d = leader.descriptor.as_ref().expect("a leader is initialised");
            if d.is_joint()
                || d.replicas
                    .iter()
                    .any(|r| self.node_of(r.store).is_none_or(|n| self.nodes[n].wiped))
            {
                return Some(format!("range {} is not repaired: {:?}", d.id, d.replicas));
            }
            if let Some(ailment) = self.misplaced(d) {
                return Some(ailment);
            }
            ranges.push(d);
        }
        if let Some(gap) = tiling_gap(&mut ranges) {
            return Some(gap);
        }
        for (n, view) in views.iter().enumerate() {
            for group in view.values() {
                let Some(leader) = leaders.get(&group.range) else {
                    return Some(format!(
                        "node {n} has range {}, which nobody leads",
                        group.range
                    ));
                };
                let d = leader.descriptor.as_ref().expect("a leader is initialised");
                if d.replicas.iter().all(|r| r.id != group.replica) {
                    return Some(format!(
                        "node {n} has {} of range {}, no longer a member",
                        group.replica, d.id
                    ));
                }
            }
        }
        for d in ranges {
            let leader = leaders[&d.id];
            if leader.pinned {
                return Some(format!(
                    "range {} is part of a merge: {:?}",
                    d.id, leader.merging
                ));
            }
            if leader.applied.0 != leader.last_index {
                return Some(format!(
                    "range {}: applied {} of {}",
                    d.id, leader.applied.0, leader.last_index
                ));
            }
            for replica in &d.replicas {
                let node = self.node_of(replica.store).expect("looked up before");
                let Some(group) = views[node].get(&d.id) else {
                    return Some(format!(
                        "node {node} lacks {} of range {}",
                        replica.id, d.id
                    ));
                };
                if group.descriptor != leader.descriptor || group.applied != leader.applied {
                    return Some(format!(
                        "node {node} lags in range {}: {:?} of {:?}, {:?} instead of {:?}",
                        d.id, group.applied, leader.applied, group.descriptor, leader.descriptor
                    ));
                }
            }
        }
        if open > 0 {
            return Some(format!("{open} requests were never answered"));
        }
        self.placement_unrest()
    }

    /// How a range's replicas are not as the placement driver should have them.
    fn misplaced(&self, d: &RangeDescriptor) -> Option<String> {
        if !self.has_placement() {
            return None;
        }
        let usable = self.lasting_stores();
        let usable = usable.iter().filter(|s| Some(**s) != self.draining);
        let wanted = usable.count().min(3);
        let voters = d.replicas.iter().filter(|r| r.role == ReplicaRole::Voter);
        if voters.count() != d.replicas.len() || d.replicas.len() != wanted {
            return Some(format!(
                "range {} has {:?}, not {wanted} voters",
                d.id, d.replicas
            ));
        }
        let drained = self.draining.filter(|s| d.replica_on(*s).is_some());
        drained.map(|store| format!("range {} is still on store {store}", d.id))
    }

    /// A read of each key; its client does nothing else.
    fn read_everything(&mut self, deadline: Time) -> Result<(), String> {
        for key in 0..self.workload.keys.len() {
            self.clients[0].patience = 10 * SEC;
            let read = self.workload.keys[key].read();
            self.begin_operation(0, key, read);
            self.wake(0, self.schedule.now());
            while self.clients[0].busy.is_some() {
                let next = self.schedule.now() + MS;
                self.run_until(next)?;
            }
            let (_, records) = self
                .history
                .keys()
                .find(|(name, _)| **name == self.workload.keys[key].name)
                .expect("just begun");
            let last = records.last().expect("just begun");
            if !matches!(last.outcome, Outcome::Replied { .. })
                || self.schedule.now() > deadline + 30 * SEC
            {
                return Err(format!("a read of a healthy cluster fails: {last:?}"));
            }
        }
        Ok(())
    }

    /// All replicas of a range hold the same, and no store holds anything else.
    fn judge_states(&mut self) -> Result<(), String> {
        let views = self.views();
        let mut hashes: BTreeMap<RangeId, (usize, Option<u64>)> = BTreeMap::new();
        for (n, view) in views.iter().enumerate() {
            let Some(process) = &self.nodes[n].process else {
                continue;
            };
            let mut bounds = Vec::new();
            for (range, group) in view {
                let hash = process.state_hash(*range);
                let (first, expected) = *hashes.entry(*range).or_insert((n, hash));
                if hash != expected {
                    return Err(format!(
                        "replicas of range {range} differ on nodes {first} and {n}"
                    ));
                }
                bounds.extend(group.descriptor.as_ref().map(meta::data_bounds));
            }
            let engine = &self.nodes[n].engine;
            let mut stray = None;
            engine.scan(meta::USER_START, &[], &mut |key, _| {
                if bounds
                    .iter()
                    .any(|(start, end)| key >= &start[..] && key < &end[..])
                {
                    return ControlFlow::Continue(());
                }
                stray = Some(key.escape_ascii().to_string());
                ControlFlow::Break(())
            });
            if let Some(key) = stray {
                return Err(format!(
                    "node {n} holds a record of no range of its own: {key}"
                ));
            }
        }
        Ok(())
    }

    fn judge_history(&self) -> Result<(), String> {
        match checker::check(&self.history, checker::BUDGET).first() {
            None => Ok(()),
            Some(failure) => Err(format!(
                "key {}: {}",
                failure.key.escape_ascii(),
                failure.description
            )),
        }
    }

    /// Operations with a reply, of unknown outcome, and not executed.
    pub fn operations(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}

/// What is missing, or there twice, if ranges in any order do not tile the keyspace.
fn tiling_gap(ranges: &mut [&RangeDescriptor]) -> Option<String> {
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    let first = ranges.first()?;
    if !first.start.is_empty() {
        return Some("no leader of the first range".into());
    }
    for pair in ranges.windows(2) {
        if pair[0].end != pair[1].start {
            return Some(format!(
                "led ranges do not tile: {:?} and then {:?}",
                pair[0], pair[1]
            ));
        }
    }
    let last = ranges.last()?;
    (!last.end.is_empty()).then(|| format!("no leader of what follows {last:?}"))
}
