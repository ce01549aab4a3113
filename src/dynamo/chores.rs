//! What is removed in the background: the records of deleted tables, items whose time is over, and
//! what is remembered of transactions that nobody repeats any more.
//!
//! The node that leads range 1 does it. Everything may be done twice without harm, so that nobody
//! needs to be told when that leader changes.
//!
//! A deleting table is left alone for [`LEAVE_ALONE`] first: no node takes it for alive any more by
//! then, so that nothing is written behind the walk that removes its records.
//!
//! Transactions with tokens leave records in tables that are marked ([`MARKED_FOR_MS`]); the others
//! are not walked for them, so that their ranges may sleep. A mark goes after a walk that began
//! when all that was written under it was over.

use super::catalog::FRESH;
use super::ranges::Ranges;
use crate::node::running::Running;
use rangekv_model::dynamo::command::{Command, Reply};
use rangekv_model::dynamo::keys;
use rangekv_model::dynamo::token::WINDOW_MS;
use rangekv_proto::internal::placement_command::{Kind, ReadTables, RemoveTable, UpdateTable};
use rangekv_proto::internal::TableRecord;
use rangekv_router::dynamo::backend::{not_understood, Backend, Place};
use rangekv_router::dynamo::error::DynamoError;
use rangekv_router::dynamo::{table, MARKED_FOR_MS};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at the catalog.
const EVERY: Duration = Duration::from_secs(1);
/// Between two walks over the tables whose items expire.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// See the module's documentation.
const LEAVE_ALONE: Duration = Duration::from_secs(3);
/// Records that one command removes at most.
const DROP_MAX: u32 = 1_000;
/// Items that one command looks at.
const EXPIRE_MAX: u32 = 500;
/// Between two walks over the tables that have tokens.
const SWEEP_EVERY: Duration = Duration::from_millis(WINDOW_MS);
/// A mark of this age has nothing under it that is not over; with some minutes for clocks that
/// differ, and for requests that take their time.
const MARK_OVER_MS: u64 = MARKED_FOR_MS + WINDOW_MS + 5 * 60 * 1000;
/// Records that one command looks at for those of tokens; they need not be decoded.
const SWEEP_MAX: u32 = 2_000;
/// Between two commands.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs for as long as the process lives.
pub async fn run(node: Arc<Running>) {
    assert!(
        LEAVE_ALONE > 2 * FRESH,
        "a table is forgotten before it goes"
    );
    let ranges = Ranges::new(node);
    let mut doomed: HashMap<u32, Instant> = HashMap::new();
    let mut expired = Instant::now();
    let mut swept = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        if ranges.node.placement.inspect(|_, _, _| ()).await.is_err() {
            doomed.clear();
            continue;
        }
        let read = Kind::ReadTables(ReadTables {});
        let tables = match ranges.node.calls.placement(read, EVERY).await {
            Ok(reply) => reply.tables,
            Err(error) => {
                tracing::debug!(%error, "the tables could not be read");
                continue;
            }
        };
        for table in tables.iter().filter(|t| t.deleting) {
            let seen = *doomed.entry(table.id).or_insert_with(Instant::now);
            if seen.elapsed() >= LEAVE_ALONE {
                report(
                    table,
                    "removing a deleted table",
                    drop_table(&ranges, table).await,
                );
            }
        }
        if expired.elapsed() >= EXPIRE_EVERY {
            expired = Instant::now();
            for table in tables
                .iter()
                .filter(|t| !t.deleting && !t.ttl_attribute.is_empty())
            {
                report(
                    table,
                    "removing expired items",
                    expire(&ranges, table).await,
                );
            }
        }
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            for table in tables.iter().filter(|t| !t.deleting && t.tokens_ms != 0) {
                report(
                    table,
                    "forgetting old transactions",
                    sweep(&ranges, table).await,
                );
            }
        }
    }
}

/// It is tried again at the next look.
fn report(table: &TableRecord, what: &str, done: Result<u64, DynamoError>) {
    match done {
        Ok(0) => {}
        Ok(removed) => tracing::info!(table = table.name, removed, "{what}"),
        Err(error) => tracing::warn!(table = table.name, error = error.message, "{what} failed"),
    }
}

async fn drop_table(ranges: &Ranges, table: &TableRecord) -> Result<u64, DynamoError> {
    let command = Command::Drop {
        table: table.id,
        max: DROP_MAX,
    };
    let removed = walk(ranges, table, false, |_| command.clone()).await?;
    let remove = Kind::RemoveTable(RemoveTable { id: table.id });
    let reply = ranges
        .node
        .calls
        .placement(remove, super::ranges::REQUEST_TIME_MAX)
        .await?;
    match reply.error.is_empty() {
        true => Ok(removed),
        false => Err(not_understood(&Reply::Failed(reply.error))),
    }
}

async fn expire(ranges: &Ranges, record: &TableRecord) -> Result<u64, DynamoError> {
    let table = table::model(record)?;
    // As a read: it becomes a write where something has expired.
    walk(ranges, record, true, |start| Command::Expire {
        table: table.clone(),
        attribute: record.ttl_attribute.clone(),
        start,
        max: EXPIRE_MAX,
    })
    .await
}

async fn sweep(ranges: &Ranges, table: &TableRecord) -> Result<u64, DynamoError> {
    let began_ms = ranges.now_ms();
    // As a read: it becomes a write where something is over.
    let removed = walk(ranges, table, true, |start| Command::Sweep {
        table: table.id,
        start,
        max: SWEEP_MAX,
    })
    .await?;
    if began_ms < table.tokens_ms.saturating_add(MARK_OVER_MS) {
        return Ok(removed);
    }
    let unmarked = TableRecord {
        tokens_ms: 0,
        ..table.clone()
    };
    let unmark = Kind::UpdateTable(UpdateTable {
        record: Some(unmarked),
    });
    let time_max = super::ranges::REQUEST_TIME_MAX;
    let reply = ranges.node.calls.placement(unmark, time_max).await?;
    if !reply.error.is_empty() {
        // It was changed meanwhile, perhaps marked anew.
        tracing::debug!(table = table.name, why = reply.error, "the mark stays");
    }
    Ok(removed)
}

/// Sends commands to all of a table, from where the last one ended; how many records went.
async fn walk(
    ranges: &Ranges,
    table: &TableRecord,
    read_only: bool,
    command: impl Fn(bytes::Bytes) -> Command,
) -> Result<u64, DynamoError> {
    let end = keys::table_end(table.id);
    let mut at = keys::table_start(table.id);
    let mut removed = 0;
    while at < end {
        let place = Place::At(at.clone());
        match ranges.command(place, read_only, &command(at)).await? {
            Reply::Removed(count, next) => {
                removed += u64::from(count);
                at = next;
            }
            other => return Err(not_understood(&other)),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(removed)
}
