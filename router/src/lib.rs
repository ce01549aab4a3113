//! The front doors: from a client's bytes to the leaders of ranges, and back.
//!
//! In reading order: [`resp`] and [`reply`] know the wire, [`stores`] is how a request leaves
//! this crate, [`cache`] knows which range holds a key and who leads it, [`retry`] decides
//! what an error means.

pub mod resp;

pub mod reply;

pub mod stores;

pub mod cache;

pub mod retry;

pub mod dispatch;

pub mod session;
