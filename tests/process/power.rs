//! Power cuts: a process is killed, and with it everything goes that its system had not yet
//! brought to the disk.

use crate::cluster::{until, Cluster, PATIENCE};
use crate::disk::{own_mounts, Disk};
use crate::ledger::{Ledger, Outcome};
use crate::resp::{describe, Reply};
use crate::writers::Writers;
use std::path::Path;
use std::time::Duration;

/// Makes fsync do nothing; package `eatmydata`.
const EATMYDATA: &str = "/usr/lib/x86_64-linux-gnu/libeatmydata.so";

/// A cluster whose nodes have a disk each.
struct Machines {
    /// Unmounted first, so that the cluster's directory can be removed.
    disks: Vec<Disk>,
    cluster: Cluster,
}

impl Machines {
    /// `None` = this machine does not let us; the reason is printed.
    fn new(size: usize) -> Option<Machines> {
        let mut machines = Machines {
            disks: Vec::new(),
            cluster: Cluster::new(size),
        };
        if let Err(why) = machines.add_disks() {
            println!("skipped: {why}");
            return None;
        }
        Some(machines)
    }

    fn add_disks(&mut self) -> Result<(), String> {
        own_mounts()?;
        let root = self.cluster.root().to_path_buf();
        for node in &mut self.cluster.nodes {
            let disk = Disk::new(&root.join(&node.name))?;
            node.data_dir = disk.mount_point().join("data");
            self.disks.push(disk);
        }
        Ok(())
    }

    /// One machine loses its power.
    fn cut(&mut self, n: usize) {
        self.cluster.nodes[n].kill();
        self.disks[n].cut();
    }

    /// All lose it in the same moment.
    fn cut_all(&mut self) {
        for node in &mut self.cluster.nodes {
            node.pause();
        }
        for node in &mut self.cluster.nodes {
            node.kill();
        }
        for disk in &self.disks {
            disk.copy();
        }
        for disk in &mut self.disks {
            disk.switch_to_copy();
        }
    }
}

/// One node: nobody else remembers what it has acknowledged.
#[test]
fn a_single_node_survives_power_cuts() {
    let Some(mut machines) = Machines::new(1) else {
        return;
    };
    let doors = machines.cluster.doors();
    let mut ledger = Ledger::default();
    for cut in 0..8 {
        machines.cluster.start_all();
        ledger.verify(&doors);
        let writers = Writers::start(&format!("cut{cut}-"), 3, &doors);
        writers.wait_for(20 + 60 * cut, PATIENCE);
        machines.cut_all();
        ledger.merge(writers.finish());
    }
    machines.cluster.start_all();
    ledger.verify(&doors);
}

/// All nodes at once.
#[test]
fn a_cluster_survives_a_power_cut_of_all_its_nodes() {
    let Some(mut machines) = Machines::new(3) else {
        return;
    };
    let doors = machines.cluster.doors();
    let mut ledger = Ledger::default();
    for cut in 0..4 {
        machines.cluster.start_all();
        ledger.verify(&doors);
        let writers = Writers::start(&format!("cuts{cut}-"), 4, &doors);
        writers.wait_for(100, PATIENCE);
        machines.cut_all();
        ledger.merge(writers.finish());
    }
    machines.cluster.start_all();
    ledger.verify(&doors);
}

/// One node after another loses its power, and in the end must know by itself what it has
/// acknowledged: the only other node that was there is gone when it comes back.
#[test]
fn a_node_remembers_through_a_power_cut_what_it_acknowledged() {
    let Some(mut machines) = Machines::new(3) else {
        return;
    };
    machines.cluster.start_all();
    let doors = machines.cluster.doors();
    let mut ledger = Ledger::default();
    for round in 0..3 {
        let [cut, witness, absent] = [round % 3, (round + 1) % 3, (round + 2) % 3];
        machines.cluster.wait_until_serving();
        machines.cluster.nodes[absent].kill();
        // Both that are left have what is acknowledged from here on.
        let two = [doors[cut], doors[witness]];
        let writers = Writers::start(&format!("lonely{round}-"), 3, &two);
        writers.wait_for(100, PATIENCE);
        machines.cut(cut);
        machines.cluster.nodes[witness].kill();
        ledger.merge(writers.finish());
        machines.cluster.nodes[cut].start();
        machines.cluster.nodes[absent].start();
        ledger.verify(&[doors[cut], doors[absent]]);
        machines.cluster.nodes[witness].start();
    }
    machines.cluster.wait_until_serving();
    ledger.verify(&doors);
}

/// The control: on a disk that lies about fsync, the same test must find lost writes. If it
/// doesn't, the tests above prove nothing.
#[test]
fn without_fsync_a_power_cut_loses_acknowledged_writes() {
    if !Path::new(EATMYDATA).exists() {
        println!("skipped: {EATMYDATA} is not installed");
        return;
    }
    let Some(mut machines) = Machines::new(1) else {
        return;
    };
    let doors = machines.cluster.doors();
    // An honest beginning, so that there is something to come back to.
    machines.cluster.start_all();
    let writers = Writers::start("honest-", 3, &doors);
    writers.wait_for(100, PATIENCE);
    machines.cluster.nodes[0].stop();
    let honest = writers.finish();
    machines.disks[0].cut();

    machines.cluster.nodes[0].environment = vec![("LD_PRELOAD", EATMYDATA.into())];
    // The system may write back by itself at any time, and so save what was not synced.
    for attempt in 0..5 {
        machines.cluster.start_all();
        honest.verify(&doors);
        let writers = Writers::start(&format!("lie{attempt}-"), 3, &doors);
        writers.wait_for(100, PATIENCE);
        machines.cut_all();
        let ledger = writers.finish();
        machines.cluster.start_all();
        let lost = lost_writes(&mut machines, &ledger);
        println!(
            "{lost} violations, {} writes acknowledged",
            ledger.count(Outcome::Acknowledged)
        );
        if lost > 0 {
            return;
        }
        machines.cluster.nodes[0].stop();
    }
    panic!("power cuts lose nothing even without fsync: they are no power cuts");
}

/// Violations after the cut; a node that finds its directory damaged has lost everything.
fn lost_writes(machines: &mut Machines, ledger: &Ledger) -> usize {
    let doors = machines.cluster.doors();
    let node = &mut machines.cluster.nodes[0];
    let mut door = node.door();
    let serves = until("the node answers or gives up", || {
        if node.process().wait(Duration::ZERO).is_some() {
            return Ok(false);
        }
        match door.call(&[b"GET", b"k"]) {
            Ok(Reply::Bulk(_)) => Ok(true),
            other => Err(describe(&other)),
        }
    });
    match serves {
        true => ledger.violations(&doors).len(),
        false => {
            println!("{}", node.output());
            drop(node.take_process());
            ledger.count(Outcome::Acknowledged)
        }
    }
}
