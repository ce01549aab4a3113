//! `/metrics`: everything that this store counts, for Prometheus as text and for people as JSON.
//!
//! A scrape gathers [`Family`]s from where the numbers live; nothing is kept here. Every name
//! belongs to a family with a help text and a unit, labels come from closed lists or number at
//! most one per store, and no family is per range or per key, so that the number of series
//! does not grow with the data. docs/METRICS.md is made of the same families.

mod doors;
mod json;
mod placement;
mod process;
mod pubsub;
mod store;
mod text;

#[cfg(test)]
mod tests;

pub use json::json;
pub use text::{text, CONTENT_TYPE};

use super::site::Site;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::task::JoinError;

/// Series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, as Prometheus wants it: with its unit, and `_total` if it only grows.
    pub name: Cow<'static, str>,
    /// A sentence for people.
    pub help: &'static str,
    /// What the numbers are.
    pub kind: Kind,
    /// What they count.
    pub unit: Unit,
    /// The series.
    pub samples: Vec<Sample>,
}

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, while the process lives.
    Counter,
    /// As it is now.
    Gauge,
    /// How often values fell between bounds.
    Histogram,
}

/// What the numbers of a family count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: the name says which.
    Count,
    /// Bytes; the name ends in `_bytes`.
    Bytes,
    /// Seconds; the name ends in `_seconds`.
    Seconds,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// Now.
    pub value: Value,
}

/// What a series shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge; a whole number.
    Whole(u64),
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// Upper bounds and how many values lie at or below each of them; ascending.
        at_most: Vec<(f64, u64)>,
        /// How many values there were.
        count: u64,
        /// Their sum.
        sum: f64,
    },
}

impl Family {
    /// A family without series.
    pub fn new(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Self {
        Family {
            name: name.into(),
            help,
            kind,
            unit,
            samples: Vec::new(),
        }
    }

    /// Adds a series without labels.
    pub fn with(self, value: Value) -> Self {
        self.labelled([], value)
    }

    /// Adds a series.
    pub fn labelled<const N: usize>(
        mut self,
        labels: [(&'static str, Cow<'static, str>); N],
        value: Value,
    ) -> Self {
        self.add(labels, value);
        self
    }

    /// Adds a series.
    pub fn add<const N: usize>(
        &mut self,
        labels: [(&'static str, Cow<'static, str>); N],
        value: Value,
    ) {
        let labels = labels.into();
        self.samples.push(Sample { labels, value });
    }
}

/// Everything, as it is now; sorted by name. What belongs to a store's place in a cluster is
/// absent while it has none.
pub async fn gather(site: &Arc<Site>) -> Result<Vec<Family>, JoinError> {
    let placement = match site.running() {
        Some(node) => placement::look(node).await,
        None => None,
    };
    let site = site.clone();
    // Figures of the engine and of /proc are found by reading.
    let read = tokio::task::spawn_blocking(move || {
        let mut families = process::families(site.uptime());
        families.extend(doors::families(&site));
        if let Some(node) = site.running() {
            families.extend(store::families(node));
            families.extend(pubsub::of(&node.hub.figures()));
        }
        families
    });
    let mut families = read.await?;
    families.extend(placement.unwrap_or_default());
    families.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(families)
}

/// The content of docs/METRICS.md.
#[cfg(test)]
pub fn markdown(families: &[Family]) -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on a store's HTTP address: OpenMetrics text with `?format=prometheus` or if \
         the request's `Accept` asks for it, as Prometheus does; JSON otherwise. This page is made \
         from the same definitions, by a test (`BLESS=1 cargo test metrics_page`).\n\n\
         Counters begin at 0 with the process. No series is per range or per key: their number \
         does not grow with the data. `store` labels are store ids.\n\n\
         | name | kind | labels | what it tells |\n|---|---|---|---|\n",
    );
    for family in families {
        let mut labels: Vec<&str> = family
            .samples
            .iter()
            .flat_map(|s| s.labels.iter().map(|(name, _)| *name))
            .collect();
        labels.sort_unstable();
        labels.dedup();
        let kind = format!("{:?}", family.kind).to_lowercase();
        let labels = labels.join(", ");
        let (name, help) = (&family.name, family.help.replace('|', "\\|"));
        text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    text
}
