//! Clusters of real processes on this machine, which are killed, paused, cut off their power
//! and brought back, while every acknowledged write is remembered and read back in the end.
//!
//! The tests, by what happens to the nodes: [`starting`], [`crashing`], [`pausing`], [`reshaping`],
//! [`placing`], [`steering`], [`recovering`], [`grpc`], [`dynamo`], [`pubsub`], [`redis`], [`sdk`],
//! [`kv`], [`power`], [`clocks`]; [`status`] is what is seen of it over HTTP, [`traces`] what a
//! [`collector`] is sent. What
//! they are made of: [`process`] and [`cluster`] run nodes, [`operator`] asks them as an operator
//! does, [`disk`] loses power, [`resp`] talks to them, [`writers`] keep a [`ledger`], and [`stale`]
//! looks for reads that are too old.
//!
//! Nothing here is asserted about speed. Where a test waits, it waits long.

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod starting;

mod crashing;

mod pausing;

mod reshaping;

mod placing;

mod steering;

mod recovering;

mod grpc;

mod dynamo;

mod pubsub;

mod kv;

mod redis;

mod sdk;

mod power;

mod clocks;

mod status;

mod traces;

mod browser;
mod cluster;
mod collector;
mod disk;
mod doors;
mod ledger;
mod operator;
mod process;
mod resp;
mod stale;
mod writers;
