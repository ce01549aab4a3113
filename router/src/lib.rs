//! The front doors: from a client's bytes to the leaders of ranges, and back.
//!
//! In reading order: [`resp`] and [`reply`] know the wire, [`stores`] is how a request leaves
//! this crate, [`cache`] knows which range holds a key and who leads it, [`retry`] decides
//! what an error means, [`dispatch`] sends calls to ranges and keeps their order,
//! [`session`] is one Redis connection, [`server`] its socket, [`pubsub`] who is subscribed to
//! what, [`metrics`] what doors count; [`dynamo`] is DynamoDB's API.
//!
//! **Architecture Invariant:** everything but [`server`] is sans-IO: no tokio, no clock, no
//! randomness. The simulation of a whole cluster drives the same [`session::Session`].

pub mod resp;

pub mod reply;

pub mod stores;

pub mod cache;

pub mod retry;

pub mod bugs;

pub mod dispatch;

pub mod metrics;

pub mod trace;

pub mod pubsub;

pub mod session;

pub mod server;

pub mod poll;

pub mod dynamo;
