//! Status over HTTP, on every store: what people, scripts and Prometheus look at.
//!
//! In reading order: [`door`] listens ([`wrong_port`] answers those who came to gRPC's),
//! [`site`] maps paths to handlers, [`answer`] is what they return. Handlers are pure functions of a [`snapshot`] of the cluster, which any store gets
//! from the placement driver's leader and keeps for a moment, so that a hundred viewers cost the
//! cluster as much as one: [`placement`] (`/pd/api/v1`), [`membership`] (`/cluster`,
//! `/partitions`). What only a store knows of itself is [`raft`] and [`health`]. [`metrics`] are
//! for Prometheus, [`page`] is for people and lives on [`events`].
//!
//! Nothing here changes the cluster, save for the setting of a configuration value.
//!
//! Left out on purpose: authentication and TLS, as on the other doors of this version.

pub mod door;
pub mod site;
pub mod wrong_port;

pub mod answer;
pub mod query;

pub mod snapshot;

pub mod placement;

pub mod membership;

pub mod raft;

pub mod health;

pub mod metrics;

pub mod page;

pub mod events;
