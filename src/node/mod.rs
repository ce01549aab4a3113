//! The process around the sans-IO core: threads, sockets, files, clocks.
//!
//! In reading order: what a node is told ([`options`]), who it is ([`identity`], [`seat`]) and
//! how it gets there ([`bootstrap`], [`join`], [`peers`]); the worker's thread ([`mailbox`], [`driver`],
//! [`syncers`], [`watchdog`]); streams between stores ([`transport`], [`service`]); snapshots
//! ([`snapshots`], [`receive`]); the placement driver's two ends ([`heartbeat`], [`orders`],
//! [`placement`]). [`prepare`] and
//! [`process`] wire them together, [`entry`] gives it a runtime and signals.

pub mod options;

pub mod bootstrap;
pub mod identity;
pub mod join;
pub mod peers;
pub mod seat;
pub mod waiting;

pub mod book;
pub mod durable;

pub mod clock;
pub mod company;
pub mod driver;
pub mod mailbox;
pub mod storage;
pub mod syncers;
pub mod watchdog;

pub mod dial;
pub mod frame;
pub mod greeting;
pub mod grpc;
pub mod lane;
pub mod link;
pub mod outlet;
pub mod pubsub;
pub mod replies;
pub mod service;
pub mod tokens;
pub mod transport;

pub mod chunks;
pub mod receive;
pub mod snapshots;

pub mod calls;
pub mod heartbeat;
pub mod once;
pub mod orders;
pub mod placement;
pub mod stores;

pub mod disk;
pub mod entry;
pub mod info;
pub mod listen;
pub mod prepare;
pub mod process;
pub mod running;
pub mod sweep;

pub use entry::start;
