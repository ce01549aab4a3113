//! The front doors.

pub mod stores;
