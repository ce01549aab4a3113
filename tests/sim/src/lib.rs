//! The simulation: a whole cluster of stores in one thread, from one seed, in virtual time.
//!
//! It runs the product's own workers, logs, state records, data models, route cache and retry
//! policy over a simulated network, disks and clocks, makes as much trouble as the seed says,
//! and then checks that nothing was lost, nothing invented, and that all is well again.
//!
//! In reading order: [`cluster`] is the loop, [`stores`] and [`requests`] what goes on in it, [`node`]
//! one machine, [`nemesis`] the trouble and
//! [`faults`] how much of it, [`client`], [`connection`] and [`workload`] those who are served, [`items`] what DynamoDB clients do,
//! [`door`] and [`streams`] how connections reach stores, [`placement`] the placement
//! driver, [`admin`] another hand that reshapes ranges, [`checks`] what must hold at every moment, [`ending`] what must hold in
//! the end, [`failover`] how soon a lost leader is replaced, [`reshape`] how long clients wait while ranges change, [`history`] and [`checker`] whether clients were told the truth, [`run`] how seeds
//! are run and failing ones reduced.
//!
//! Left out on purpose: threads, sockets, RocksDB. They are tested with real processes.

pub mod admin;
pub mod bugs;
pub mod checker;
pub mod checks;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod door;
pub mod ending;
pub mod failover;
pub mod faults;
pub mod history;
pub mod items;
pub mod log;
pub mod nemesis;
pub mod net;
pub mod node;
pub mod placement;
pub mod random;
pub mod requests;
pub mod reshape;
pub mod run;
pub mod schedule;
pub mod snapshots;
pub mod stores;
pub mod streams;
pub mod transactions;
pub mod walks;
pub mod workload;
