//! Query and Scan: walks over the ranges of a table, in pages.

use super::backend::{not_understood, Backend, Place};
use super::capacity::{self, Wanted};
use super::error::DynamoError;
use super::expressions;
use super::items::usable;
use super::json::{body, ItemText};
use super::key_condition;
use super::request::Parameters;
use super::table::check_key;
use bytes::Bytes;
use rangekv_model::dynamo::command::{Command, Page, PageFound, Reply, Table};
use rangekv_model::dynamo::expr::ast::Condition;
use rangekv_model::dynamo::expr::Kind;
use rangekv_model::dynamo::keys;
use rangekv_model::dynamo::schema::KeySchema;
use rangekv_model::dynamo::value::Item;
use serde::Serialize;
use serde_json::Value as Json;
use std::ops::Range;

type Result<T> = std::result::Result<T, DynamoError>;

/// Bytes that one page looks at ("Paginating table query results", Developer Guide).
pub const PAGE_BYTES_MAX: u32 = 1 << 20;
/// Segments of a parallel scan at most.
const SEGMENTS_MAX: i64 = 1_000_000;

/// How often a walk may meet a range that is not the one it was taken for.
const ASTRAY_MAX: u32 = 16;

/// Query.
pub async fn query<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<String> {
    let options = Options::read(&request)?;
    let kinds = [Kind::KeyCondition, Kind::Filter, Kind::Projection];
    let mut parsed = expressions::read(&request, &kinds)?;
    options.check_projection(parsed.projection.is_some())?;
    let Some(condition) = &parsed.key_condition else {
        return Err(DynamoError::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
        ));
    };
    let (record, table) = usable(backend, &options.table).await?;
    let bounds = key_condition::bounds(table.id, &table.schema, condition)?;
    check_filter(&table.schema, parsed.condition.as_ref())?;
    let reverse = request.has("ScanIndexForward") && !request.flag("ScanIndexForward")?;
    let start = options.start_key(&table, &bounds, || {
        "The provided starting key is outside query boundaries based on provided conditions".into()
    })?;
    // The key condition does not travel: its placeholders neither.
    parsed.expressions.names.retain(|name, _| {
        uses(
            &parsed.expressions.condition,
            &parsed.expressions.projection,
            name,
        )
    });
    parsed
        .expressions
        .values
        .retain(|name, _| uses(&parsed.expressions.condition, &None, name));
    let page = options.page(
        table,
        after(bounds, start, reverse),
        reverse,
        parsed.expressions,
    );
    let (found, last) = walk(backend, page).await?;
    options.response(&record.name, &found, last.as_ref())
}

/// Scan, or one segment of it.
pub async fn scan<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<String> {
    let options = Options::read(&request)?;
    let segment = segment(&request)?;
    let parsed = expressions::read(&request, &[Kind::Filter, Kind::Projection])?;
    options.check_projection(parsed.projection.is_some())?;
    let (record, table) = usable(backend, &options.table).await?;
    let bounds = match segment {
        None => keys::table_start(table.id)..keys::table_end(table.id),
        Some((segment, total)) => keys::segment(table.id, segment, total),
    };
    let start = options.start_key(&table, &bounds, || match segment {
        Some(_) => "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments and Segment do not match the key".into(),
        None => "The provided starting key is invalid".into(),
    })?;
    let page = options.page(
        table,
        after(bounds, start, false),
        false,
        parsed.expressions,
    );
    let (found, last) = walk(backend, page).await?;
    options.response(&record.name, &found, last.as_ref())
}

/// Whether one of the expressions has the placeholder.
fn uses(condition: &Option<String>, projection: &Option<String>, placeholder: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let within = |text: &String| {
        text.match_indices(placeholder).any(|(at, _)| {
            !text
                .as_bytes()
                .get(at + placeholder.len())
                .is_some_and(|b| word(*b))
        })
    };
    condition.iter().chain(projection).any(within)
}

/// What Query and Scan have in common.
struct Options {
    table: String,
    limit: Option<u32>,
    consistent: bool,
    count_only: bool,
    select: Option<&'static str>,
    start: Option<Item>,
    wanted: Wanted,
}

impl Options {
    fn read(request: &Parameters<'_>) -> Result<Options> {
        let table = request.table_name()?.to_owned();
        if request.has("IndexName") {
            let name = request.text("IndexName")?.unwrap_or_default();
            return Err(DynamoError::validation(format!(
                "The table does not have the specified index: {name}"
            )));
        }
        let limit = request.bounded("Limit", 1, i32::MAX.into())?;
        let select = match request.has("Select") {
            false => None,
            true => Some(request.choice(
                "Select",
                &[
                    "ALL_ATTRIBUTES",
                    "ALL_PROJECTED_ATTRIBUTES",
                    "SPECIFIC_ATTRIBUTES",
                    "COUNT",
                ],
            )?),
        };
        if select == Some("ALL_PROJECTED_ATTRIBUTES") {
            return Err(DynamoError::validation(
                "One or more parameter values were invalid: ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
            ));
        }
        Ok(Options {
            table,
            limit: limit.map(|n| n as u32),
            consistent: request.flag("ConsistentRead")?,
            count_only: select == Some("COUNT"),
            select,
            start: request.item("ExclusiveStartKey")?,
            wanted: Wanted::of(request)?,
        })
    }

    fn check_projection(&self, projects: bool) -> Result<()> {
        let why = match self.select {
            Some(select @ ("ALL_ATTRIBUTES" | "COUNT")) if projects => {
                let what = if select == "COUNT" { "only the Count" } else { "ALL_ATTRIBUTES" };
                format!("Cannot specify the AttributesToGet when choosing to get {what}")
            }
            Some("SPECIFIC_ATTRIBUTES") if !projects => {
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES".into()
            }
            _ => return Ok(()),
        };
        Err(DynamoError::validation(why))
    }

    /// The key of `ExclusiveStartKey`.
    fn start_key(
        &self,
        table: &Table,
        bounds: &Range<Bytes>,
        outside: impl Fn() -> String,
    ) -> Result<Option<Bytes>> {
        let Some(item) = &self.start else {
            return Ok(None);
        };
        check_key(&table.schema, item, true).map_err(|_| {
            DynamoError::validation("The provided starting key is invalid: The provided key element does not match the schema")
        })?;
        let sort = table.schema.sort.as_ref().map(|key| &item[&key.name]);
        let key = keys::item(table.id, &item[&table.schema.partition.name], sort);
        match bounds.contains(&key) {
            true => Ok(Some(key)),
            false => Err(DynamoError::validation(outside())),
        }
    }

    fn page(
        &self,
        table: Table,
        bounds: Range<Bytes>,
        reverse: bool,
        expressions: rangekv_model::dynamo::command::Expressions,
    ) -> Page {
        Page {
            table,
            start: bounds.start,
            end: bounds.end,
            reverse,
            items_max: self.limit.unwrap_or(u32::MAX),
            bytes_max: PAGE_BYTES_MAX,
            expressions,
            count_only: self.count_only,
        }
    }

    fn response(&self, table: &str, found: &PageFound, last: Option<&Item>) -> Result<String> {
        let units = capacity::read(found.bytes.into(), self.consistent);
        let items = || found.items.iter().map(ItemText).collect();
        body(&Found {
            count: found.count,
            scanned_count: found.scanned,
            items: (!self.count_only).then(items),
            last_evaluated_key: last.map(ItemText),
            consumed_capacity: self.wanted.json(table, units),
        })
    }
}

/// The answer to a Query or Scan.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found<'a> {
    count: u32,
    scanned_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<ItemText<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_key: Option<ItemText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

fn segment(request: &Parameters<'_>) -> Result<Option<(u32, u32)>> {
    let segment = request.bounded("Segment", 0, SEGMENTS_MAX - 1)?;
    let total = request.bounded("TotalSegments", 1, SEGMENTS_MAX)?;
    let why = match (segment, total) {
        (None, None) => return Ok(None),
        (Some(segment), Some(total)) if segment < total => {
            return Ok(Some((segment as u32, total as u32)))
        }
        (Some(segment), Some(total)) => format!(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: {segment} is not less than TotalSegments: {total}"
        ),
        (None, _) => "The Segment parameter is required but was not present in the request when parameter TotalSegments is present".into(),
        (_, None) => "The TotalSegments parameter is required but was not present in the request when Segment parameter is present".into(),
    };
    Err(DynamoError::validation(why))
}

/// A filter of a query may not be about the key: the key condition is.
fn check_filter(schema: &KeySchema, filter: Option<&Condition>) -> Result<()> {
    let mut wrong = None;
    if let Some(filter) = filter {
        filter.paths(&mut |path| {
            if let Some(key) = schema.find(&path.attribute) {
                wrong.get_or_insert(key.name.clone());
            }
        });
    }
    match wrong {
        None => Ok(()),
        Some(name) => Err(DynamoError::validation(format!(
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: {name}"
        ))),
    }
}

/// What is left of `bounds` behind the item that the last page ended with.
fn after(bounds: Range<Bytes>, last: Option<Bytes>, reverse: bool) -> Range<Bytes> {
    match last {
        None => bounds,
        Some(last) if reverse => bounds.start..last,
        Some(last) => keys::after_prefix(&last)..bounds.end,
    }
}

/// Walks over as many ranges as one page takes; the key of the last item if there may be more.
pub async fn walk<B: Backend>(backend: &B, page: Page) -> Result<(PageFound, Option<Item>)> {
    let mut left = page;
    let mut all = PageFound::default();
    let mut astray = 0;
    while left.start < left.end {
        let place = match left.reverse {
            false => Place::At(left.start.clone()),
            true => Place::Before(left.end.clone()),
        };
        let command = Command::Page(left.clone());
        let found = match backend.command(place, true, &command).await? {
            Reply::Page(found) => found,
            // The range is not the one that it was taken for.
            Reply::OutsideRange if astray < ASTRAY_MAX => {
                astray += 1;
                continue;
            }
            other => return Err(not_understood(&other)),
        };
        all.count += found.count;
        all.scanned += found.scanned;
        all.bytes += found.bytes;
        all.items.extend(found.items);
        if let Some(key) = found.stopped_at {
            let (partition, sort) = keys::decode(&left.table.schema, &key)
                .ok_or_else(|| not_understood(&Reply::Failed("an unreadable key".into())))?;
            let names = left.table.schema.attributes().map(|a| a.name.clone());
            let last = names.zip(std::iter::once(partition).chain(sort)).collect();
            return Ok((all, Some(last)));
        }
        match left.reverse {
            false => left.start = found.covered_to,
            true => left.end = found.covered_to,
        }
        left.items_max -= found.scanned;
        left.bytes_max -= found.bytes.min(left.bytes_max - 1);
    }
    Ok((all, None))
}
