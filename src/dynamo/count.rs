//! Items and bytes of tables, counted by walking them in the background.
//!
//! DescribeTable answers what the last walk found, as DynamoDB does, whose figures are some hours
//! old. A walk is begun by somebody who asks, if the last one is older than [`COUNTED_FOR`].

use super::ranges::Ranges;
use parking_lot::Mutex;
use rangekv_model::dynamo::command::{Command, Expressions, Page, Reply};
use rangekv_model::dynamo::keys;
use rangekv_proto::internal::TableRecord;
use rangekv_router::dynamo::backend::{not_understood, Backend, Place};
use rangekv_router::dynamo::error::DynamoError;
use rangekv_router::dynamo::table;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A count of this age is told without counting again.
const COUNTED_FOR: Duration = Duration::from_secs(30);
/// Bytes that one step of a walk looks at.
const STEP_BYTES: u32 = 1 << 20;
/// Between two steps, so that a walk takes nobody's place.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Default)]
struct Count {
    items: u64,
    bytes: u64,
    /// When the last walk began.
    at: Option<Instant>,
}

/// The last counts, by table id.
#[derive(Default)]
pub struct Counts(Mutex<HashMap<u32, Count>>);

impl Counts {
    /// Items and bytes of `table`, as last counted; (0, 0) before it was counted at all.
    pub fn of(&self, ranges: &Ranges, table: &TableRecord) -> (u64, u64) {
        let mut counts = self.0.lock();
        let count = counts.entry(table.id).or_default();
        let known = (count.items, count.bytes);
        if count.at.is_none_or(|at| at.elapsed() > COUNTED_FOR) && !table.deleting {
            count.at = Some(Instant::now());
            let (ranges, table) = (ranges.clone(), table.clone());
            tokio::spawn(async move {
                match walk(&ranges, &table).await {
                    Ok((items, bytes)) => ranges.counted(table.id, items, bytes),
                    Err(error) => {
                        tracing::debug!(table = table.name, ?error, "the items were not counted");
                    }
                }
            });
        }
        known
    }

    /// Keeps what a walk found.
    pub fn put(&self, table: u32, items: u64, bytes: u64) {
        let mut counts = self.0.lock();
        let count = counts.entry(table).or_default();
        (count.items, count.bytes) = (items, bytes);
    }
}

async fn walk(ranges: &Ranges, record: &TableRecord) -> Result<(u64, u64), DynamoError> {
    let end = keys::table_end(record.id);
    let mut page = Page {
        table: table::model(record)?,
        start: keys::table_start(record.id),
        end: end.clone(),
        reverse: false,
        items_max: u32::MAX,
        bytes_max: STEP_BYTES,
        expressions: Expressions::default(),
        count_only: true,
    };
    let (mut items, mut bytes) = (0, 0);
    while page.start < end {
        let place = Place::At(page.start.clone());
        let found = match ranges
            .command(place, true, &Command::Page(page.clone()))
            .await?
        {
            Reply::Page(found) => found,
            other => return Err(not_understood(&other)),
        };
        items += u64::from(found.count);
        bytes += u64::from(found.bytes);
        page.start = match found.stopped_at {
            Some(key) => keys::after_prefix(&key),
            None => found.covered_to,
        };
        tokio::time::sleep(PAUSE).await;
    }
    Ok((items, bytes))
}
