//! The process around the sans-IO core: threads, sockets, files, clocks.
//!
//! In reading order: what a node is told ([`options`]) and who it is ([`identity`]); the
//! worker's thread ([`mailbox`], [`driver`], [`watchdog`]); streams between stores
//! ([`transport`], [`service`]); snapshots ([`chunks`]).

pub mod options;

pub mod book;
pub mod durable;
pub mod identity;

pub mod clock;
pub mod driver;
pub mod mailbox;
pub mod watchdog;

pub mod dial;
pub mod greeting;
pub mod lane;
pub mod replies;
pub mod tokens;
pub mod transport;

pub mod chunks;
