//! The table of all ranges, and the version that rises with each change of it.
//!
//! The placement driver's leader tells it. Routes are soft state, learned from heartbeats; the
//! version is replicated. The leader raises it before it tells of a table that is not the one it
//! told of last, and once in each of its terms, because it does not know what others told. So two
//! answers with the same version come from one leader, and tell of the same bounds and members.

use super::failure::Failure;
use super::{NotHere, CALL_TIME_MAX, LOOK};
use crate::node::running::Running;
use rangekv_pd::leader::Leader;
use rangekv_proto::internal::placement_command::{BumpCatalog, Kind};
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId};
use std::time::Instant;
use tokio::sync::Mutex;

/// Somebody else may raise the version at the same time; not this often in a row.
const TRIES_MAX: usize = 16;

/// Of the placement driver's leader; on other stores it does nothing.
#[derive(Default)]
pub struct Catalog {
    /// Held across the placement command that raises the version.
    published: Mutex<Option<Published>>,
}

/// What was told last.
struct Published {
    term: u64,
    version: u64,
    ranges: Vec<RangeDescriptor>,
}

/// All ranges, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Of their bounds and members.
    pub version: u64,
    /// They cover the keyspace.
    pub entries: Vec<Entry>,
}

/// One range of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bounds and members.
    pub range: RangeDescriptor,
    /// Who leads, if somebody says so.
    pub leader: Option<LeaderHint>,
    /// Approximate.
    pub size_bytes: u64,
}

impl Table {
    /// The range with this id.
    pub fn range(&self, id: RangeId) -> Result<&Entry, Failure> {
        let entry = self.entries.iter().find(|e| e.range.id == id);
        entry.ok_or_else(|| Failure::NotFound(format!("there is no route {id}")))
    }

    /// The range that holds `key`.
    pub fn holder(&self, key: &[u8]) -> &Entry {
        let mut entries = self.entries.iter();
        entries
            .find(|e| e.range.contains(key))
            .expect("the ranges cover the keyspace")
    }
}

impl Catalog {
    /// The table as it is now. A leader that has just taken over is given time to hear of all
    /// ranges.
    pub async fn table(&self, node: &Running) -> Result<Table, NotHere> {
        let until = Instant::now() + CALL_TIME_MAX;
        loop {
            let told = publish(node, &mut *self.published.lock().await).await;
            match told {
                Err(NotHere::Failed(Failure::Unavailable(_))) if Instant::now() < until => {}
                told => return told,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The table, once it `shows` what was done.
    pub async fn table_that(
        &self,
        node: &Running,
        shows: impl Fn(&Table) -> bool,
    ) -> Result<Table, NotHere> {
        let until = Instant::now() + CALL_TIME_MAX;
        loop {
            let table = self.table(node).await?;
            if shows(&table) {
                return Ok(table);
            }
            if Instant::now() >= until {
                let why = "it is done, but its leader has not reported it yet";
                return Err(Failure::Unknown(why.into()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Uses up version `expected` for a change that `check` accepts: of all who decided by this
    /// version one goes ahead, and the others hear that it has passed.
    pub async fn claim<T>(
        &self,
        node: &Running,
        expected: u64,
        check: impl FnOnce(&Table) -> Result<T, Failure>,
    ) -> Result<T, NotHere> {
        self.table(node).await?;
        let mut published = self.published.lock().await;
        let table = publish(node, &mut published).await?;
        let passed = |now| {
            Failure::Stale(format!(
                "the catalog version is {now}, not {expected} as expected; list the routes and decide again"
            ))
        };
        if table.version != expected {
            return Err(passed(table.version).into());
        }
        let checked = check(&table)?;
        let Some(version) = raise(node, expected).await? else {
            return Err(passed(expected + 1).into());
        };
        if let Some(published) = published.as_mut() {
            published.version = version;
        }
        Ok(checked)
    }
}

async fn publish(node: &Running, published: &mut Option<Published>) -> Result<Table, NotHere> {
    for _ in 0..TRIES_MAX {
        let seen = node.placement.inspect(look).await;
        let (term, table) = seen.map_err(NotHere::Leads)??;
        let ranges: Vec<RangeDescriptor> = table.entries.iter().map(|e| e.range.clone()).collect();
        let known = published
            .as_ref()
            .is_some_and(|p| (p.term, p.version) == (term, table.version) && p.ranges == ranges);
        if known {
            return Ok(table);
        }
        if let Some(version) = raise(node, table.version).await? {
            *published = Some(Published {
                term,
                version,
                ranges,
            });
            return Ok(Table { version, ..table });
        }
    }
    let why = "the catalog version rises faster than the routes can be told";
    Err(Failure::Unavailable(why.into()).into())
}

/// The table as the leader knows it, with the version of the replicated state.
fn look(leader: &mut Leader, term: u64, state: &PlacementState) -> Result<(u64, Table), Failure> {
    let entry = |route: &rangekv_pd::routes::Route| {
        let status = leader.range(route.range.id);
        Entry {
            range: route.range.clone(),
            leader: route.leader.filter(|_| status.is_some_and(|s| s.led)),
            size_bytes: status.map_or(0, |s| s.size_bytes),
        }
    };
    let entries: Vec<Entry> = leader.routes().iter().map(entry).collect();
    if !cover(entries.iter().map(|e| &e.range)) {
        return Err(Failure::Unavailable(
            "the placement driver's leader has not heard of all ranges yet".into(),
        ));
    }
    let version = state.catalog_version;
    Ok((term, Table { version, entries }))
}

/// Whether ranges in key order cover the keyspace.
fn cover<'a>(ranges: impl Iterator<Item = &'a RangeDescriptor>) -> bool {
    let mut next: Option<&[u8]> = Some(b"");
    for range in ranges {
        if next != Some(&range.start) {
            return false;
        }
        next = Some(&range.end)
            .filter(|end| !end.is_empty())
            .map(|end| &end[..]);
    }
    next.is_none()
}

/// The version above `expected`; `None` = somebody else was first.
async fn raise(node: &Running, expected: u64) -> Result<Option<u64>, Failure> {
    let bump = Kind::BumpCatalog(BumpCatalog { expected });
    let reply = node.calls.placement(bump, CALL_TIME_MAX).await?;
    Ok(reply
        .state
        .filter(|_| reply.error.is_empty())
        .map(|state| state.catalog_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rangekv_proto::Epoch;

    #[test]
    fn a_table_has_no_gaps() {
        let range = |start: &str, end: &str| RangeDescriptor {
            id: RangeId(2),
            start: Bytes::copy_from_slice(start.as_bytes()),
            end: Bytes::copy_from_slice(end.as_bytes()),
            epoch: Epoch::default(),
            replicas: Vec::new(),
        };
        for (ranges, whole) in [
            (vec![], false),
            (vec![("", "")], true),
            (vec![("", "m"), ("m", "")], true),
            (vec![("", "m"), ("n", "")], false),
            (vec![("", "m")], false),
            (vec![("a", "")], false),
            (vec![("", ""), ("m", "")], false),
        ] {
            let all: Vec<_> = ranges.iter().map(|(a, b)| range(a, b)).collect();
            assert_eq!(cover(all.iter()), whole, "{ranges:?}");
        }
    }
}
