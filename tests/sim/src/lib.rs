//! The simulation: a whole cluster in one thread, from one seed, in virtual time.

pub mod checker;
pub mod history;
