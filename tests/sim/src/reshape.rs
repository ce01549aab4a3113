//! How long clients wait while a range is reshaped, and nothing is wrong: the longest time from a
//! command to its reply, while a leadership moves, a range splits, two merge, a replica moves.
//!
//! Four stores, three replicas of each range, connections that pipeline at all doors. Time is
//! virtual: what is measured is syncs, hops, retries and ticks on the way, not the CPU.

use crate::admin::Led;
use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::nemesis::Trouble;
use crate::random::stream;
use crate::schedule::{Time, MS, SEC};
use crate::workload::Workload;
use rand::seq::IndexedRandom;
use rand::Rng;
use rangekv_proto::{RangeDescriptor, Request, StoreId, PLACEMENT_RANGE};
use std::fmt;
use std::str::FromStr;

/// What is done to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Another store leads it.
    Transfer,
    /// It is cut in two.
    Split,
    /// It absorbs its right neighbour.
    Merge,
    /// A replica that does not lead moves to another store.
    Move,
}

impl Change {
    /// All of them.
    pub const ALL: [Change; 4] = [Change::Transfer, Change::Split, Change::Merge, Change::Move];
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Transfer => "transfer",
            Change::Split => "split",
            Change::Merge => "merge",
            Change::Move => "move",
        })
    }
}

impl FromStr for Change {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Change::ALL.into_iter().find(|c| c.to_string() == s);
        found.ok_or_else(|| format!("no change {s:?}"))
    }
}

/// The longest that a command took.
#[derive(Clone, Copy, Debug)]
pub struct Longest {
    /// In the second before the change.
    pub before: Time,
    /// During the change, and for `AFTER`.
    pub with: Time,
}

/// Who waits because of a change is answered within this time after it.
const AFTER: Time = SEC;
/// A change must be done within this time, refusals included.
const CHANGE_MAX: Time = 10 * SEC;

/// Does `change` once. The error is a finding: also a command that fails.
pub fn reshape(seed: u64, change: Change) -> Result<Longest, String> {
    let mut rng = stream(seed, "reshape");
    let mut faults = Faults::none();
    faults.stores = 4;
    faults.clock_rate = rng.random_range(0..100);
    faults.sync_mean = rng.random_range(MS..4 * MS);
    faults.idle = 3_600 * SEC;
    let workload = Workload::even(60, 16, MS);
    let mut cluster = Cluster::with_workload(seed, faults, workload, false)?;
    // Until all have a leader, and are known.
    cluster.run_until(4 * SEC)?;
    for connection in &mut cluster.connections {
        connection.pipeline(2);
    }
    cluster.waits = Some(Vec::new());
    cluster.run_until(rng.random_range(6 * SEC..7 * SEC))?;
    if change == Change::Merge {
        cluster.reshape(Change::Split)?;
        cluster.run_until(cluster.schedule.now() + rng.random_range(SEC..2 * SEC))?;
        cluster.bring_leaders_together()?;
        cluster.run_until(cluster.schedule.now() + 2 * SEC)?;
    }
    let began = cluster.schedule.now();
    cluster.reshape(change)?;
    let done = cluster.schedule.now();
    cluster.run_until(done + AFTER)?;
    if let Some(waiting) = cluster
        .connections
        .iter()
        .find(|c| c.is_waiting_since(began))
    {
        return Err(format!("no answer in {AFTER} ns: {}", waiting.show()));
    }
    Ok(Longest {
        before: cluster.longest_wait(began - SEC, began),
        with: cluster.longest_wait(began, done + AFTER),
    })
}

/// Whether `right` is the right neighbour of `left`, on the same stores.
fn adjoins(left: &RangeDescriptor, right: &RangeDescriptor) -> bool {
    left.id != PLACEMENT_RANGE
        && left.end == right.start
        && left.replicas.len() == right.replicas.len()
        && left
            .replicas
            .iter()
            .all(|r| right.replica_on(r.store).is_some())
}

impl Cluster {
    /// Does `change` to some range, and returns when it is done.
    fn reshape(&mut self, change: Change) -> Result<(), String> {
        let until = self.schedule.now() + CHANGE_MAX;
        let range = self.find_for_change(change)?;
        loop {
            let led = self.led().into_iter().find(|(d, _)| d.id == range.0.id);
            match led.map(|led| self.next_step(change, &range, &led)) {
                Some(None) => return Ok(()),
                Some(Some((store, request))) => self.order(store, request)?,
                None => self.run_until(self.schedule.now() + MS)?,
            }
            if self.schedule.now() > until {
                return Err(format!("no {change} within {} s", CHANGE_MAX / SEC));
            }
        }
    }

    /// A range with data, and for a merge with a right neighbour that has the same members.
    fn find_for_change(&mut self, change: Change) -> Result<Led, String> {
        let mut ranges = self.led();
        ranges.retain(|(d, _)| d.id != PLACEMENT_RANGE);
        let all = ranges.clone();
        if change == Change::Merge {
            ranges.retain(|(d, _)| all.iter().any(|(r, _)| adjoins(d, r)));
        }
        let range = ranges.choose(&mut self.rng).cloned();
        range.ok_or_else(|| format!("no range for a {change}"))
    }

    fn next_step(&mut self, change: Change, was: &Led, led: &Led) -> Option<(StoreId, Request)> {
        let d = &led.0;
        match change {
            Change::Transfer if led.1.store == was.1.store => {
                self.admin.transfer(std::slice::from_ref(led))
            }
            Change::Split if d.epoch.version == was.0.epoch.version => {
                let keys = self.workload.records();
                let mut step = None;
                while step.is_none() {
                    step = self.admin.split(std::slice::from_ref(led), &keys);
                }
                step
            }
            Change::Merge if d.epoch.version == was.0.epoch.version => {
                let right = self.led().into_iter().find(|(r, _)| adjoins(d, r))?;
                Some(self.admin.absorb(led, &right))
            }
            Change::Move => {
                let from = was.0.replicas.iter().find(|r| r.store != was.1.store)?;
                let mut stores = self.lasting_stores().into_iter();
                let to = stores.find(|store| was.0.replica_on(*store).is_none())?;
                self.admin.move_step(led, from.store, to)
            }
            _ => None,
        }
    }

    /// Has neighbours on the same stores led by one of them, for a merge.
    fn bring_leaders_together(&mut self) -> Result<(), String> {
        let until = self.schedule.now() + CHANGE_MAX;
        while self.schedule.now() < until {
            let all = self.led();
            let pairs = all.iter().filter_map(|left| {
                let right = all.iter().find(|(d, _)| adjoins(&left.0, d))?;
                (left.1.store != right.1.store).then_some((left.1.store, right))
            });
            let Some((store, right)) = pairs.into_iter().next() else {
                return Ok(());
            };
            let (at, request) = self.admin.lead(right, store);
            self.order(at, request)?;
        }
        Err("neighbours are not led by one store".into())
    }

    /// Has a command carried out, or refused; waits for the answer, and a little.
    fn order(&mut self, store: StoreId, request: Request) -> Result<(), String> {
        self.ask(Some((store, request)), Trouble::Repair);
        while !self.admin_open.is_empty() {
            self.run_until(self.schedule.now() + MS)?;
        }
        self.run_until(self.schedule.now() + 20 * MS)
    }

    /// The longest wait of a command that was answered between the two times.
    fn longest_wait(&self, from: Time, to: Time) -> Time {
        let within = |(at, _): &&(Time, Time)| (from..=to).contains(at);
        let waits = self.waits.iter().flatten().filter(within);
        waits.map(|(_, wait)| *wait).max().unwrap_or(0)
    }
}
