//! The tables, as last read from the placement driver.
//!
//! What is older than [`FRESH`] is read again before it is used; so is the catalog when a name is not
//! in it. If the placement driver has no leader, tables that are known serve on for [`STALE_MAX`].
//! A table that is deleted keeps its name for longer than any node takes it for alive
//! (`chores.rs`), as long as that node hears the placement driver.

use crate::node::calls::Calls;
use parking_lot::Mutex;
use rangekv_proto::internal::placement_command::{Kind, ReadTables};
use rangekv_proto::internal::TableRecord;
use rangekv_router::dynamo::error::{DynamoError, Exception};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A catalog of this age is as good as new.
pub const FRESH: Duration = Duration::from_secs(1);
/// A catalog serves so long without the placement driver.
const STALE_MAX: Duration = Duration::from_secs(30);
/// Reading the catalog takes no longer.
const READ_TIME_MAX: Duration = Duration::from_secs(3);

type Tables = Arc<HashMap<String, TableRecord>>;

/// See the module's documentation.
#[derive(Default)]
pub struct Catalog {
    /// When the read began that brought them. Held for a moment, never while waiting.
    known: Mutex<Option<(Instant, Tables)>>,
    /// One reader at a time; the others find what it brought.
    reading: tokio::sync::Mutex<()>,
}

impl Catalog {
    /// The table of this name.
    pub async fn table(
        &self,
        calls: &Calls,
        name: &str,
    ) -> Result<Option<TableRecord>, DynamoError> {
        let known = self.known.lock().clone();
        if let Some((at, tables)) = &known {
            match tables.get(name) {
                Some(table) if at.elapsed() < FRESH => return Ok(Some(table.clone())),
                _ => {}
            }
        }
        match self.refresh(calls).await {
            Ok(tables) => Ok(tables.get(name).cloned()),
            Err(error) => match known {
                Some((at, tables)) if at.elapsed() < STALE_MAX && tables.contains_key(name) => {
                    Ok(tables.get(name).cloned())
                }
                _ => Err(error),
            },
        }
    }

    /// All tables, by name, as they are now.
    pub async fn read(&self, calls: &Calls) -> Result<Vec<TableRecord>, DynamoError> {
        let mut tables: Vec<_> = self.refresh(calls).await?.values().cloned().collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// Changes the catalog, and forgets what was known of it.
    pub async fn change(
        &self,
        calls: &Calls,
        kind: Kind,
    ) -> Result<Result<TableRecord, String>, DynamoError> {
        let reply = calls
            .placement_once(kind, super::ranges::REQUEST_TIME_MAX)
            .await;
        *self.known.lock() = None;
        let mut reply = reply?;
        if !reply.error.is_empty() {
            return Ok(Err(reply.error));
        }
        match reply.tables.pop() {
            Some(table) => Ok(Ok(table)),
            None => Err(DynamoError::new(
                Exception::Internal,
                "the placement driver is of another version: it knows no tables",
            )),
        }
    }

    async fn refresh(&self, calls: &Calls) -> Result<Tables, DynamoError> {
        let asked = Instant::now();
        let _alone = self.reading.lock().await;
        // Read by somebody else since we asked.
        if let Some((at, tables)) = &*self.known.lock() {
            if *at >= asked {
                return Ok(tables.clone());
            }
        }
        let began = Instant::now();
        let read = Kind::ReadTables(ReadTables {});
        let reply = calls.placement(read, READ_TIME_MAX).await?;
        if !reply.error.is_empty() {
            return Err(DynamoError::new(Exception::Internal, reply.error));
        }
        let tables = reply.tables.into_iter().map(|t| (t.name.clone(), t));
        let tables: Tables = Arc::new(tables.collect());
        *self.known.lock() = Some((began, tables.clone()));
        Ok(tables)
    }
}
