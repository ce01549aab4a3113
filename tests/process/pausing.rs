//! A node is stopped in the middle of what it does, and goes on later, none the wiser.

use crate::cluster::{Cluster, PATIENCE};
use crate::resp::{describe, Door};
use crate::stale::Probe;
use std::time::Duration;

/// Reads that wait in a paused node's sockets.
const WAITING_READS: usize = 48;

/// Each node in turn is paused for longer than any lease, while others take its leaderships
/// over and accept writes. Reads that reached it meanwhile are answered when it goes on: from
/// what it knew before, if it trusts a lease that has run out.
#[test]
fn a_leader_paused_during_reads_answers_nothing_old() {
    let mut cluster = Cluster::serving(5);
    let probe = Probe::start("paused", 10, 2, &cluster.doors());
    let mut answered = 0;
    for round in 0..7 {
        probe.wait_for_writes(PATIENCE);
        let victim = round % 5;
        let mut doors: Vec<Door> = (0..WAITING_READS)
            .map(|_| cluster.nodes[victim].door())
            .collect();
        for door in &mut doors {
            let pong = door.call(&[b"PING"]);
            assert!(pong.is_ok(), "{}", describe(&pong));
        }
        println!("n{} pauses", victim + 1);
        cluster.nodes[victim].pause();
        // Some pauses are too short for others to take over, and end within a lease.
        if round % 3 == 2 {
            std::thread::sleep(Duration::from_millis(700));
        } else {
            probe.wait_for_writes(PATIENCE);
        }
        let registers = probe.registers();
        let mut reads = Vec::new();
        for (n, door) in doors.iter_mut().enumerate() {
            let register = &registers[n % registers.len()];
            reads.push(register.begin_read());
            door.send(&[b"GET", register.key().as_bytes()]).unwrap();
        }
        // Values that were acknowledged before these reads were sent lie on other nodes.
        println!("n{} goes on", victim + 1);
        cluster.nodes[victim].resume();
        for (door, read) in doors.iter_mut().zip(reads) {
            if let Some(verdict) = read.end(&door.receive()) {
                verdict.unwrap_or_else(|stale| panic!("n{} after its pause: {stale}", victim + 1));
                answered += 1;
            }
        }
    }
    println!("{answered} of the waiting reads were answered");
    assert!(answered > WAITING_READS, "too few to mean anything");
    probe.finish();
}
