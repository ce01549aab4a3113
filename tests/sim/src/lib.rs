//! The simulation: a whole cluster in one thread, from one seed, in virtual time.

pub mod checker;
pub mod clock;
pub mod faults;
pub mod history;
pub mod net;
pub mod random;
pub mod schedule;
