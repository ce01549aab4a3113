//! TransactWriteItems and TransactGetItems, for items of one range.
//!
//! One command, one Raft entry: all or nothing. Items of several ranges are refused with an error
//! that says so. A transaction with a token is known again where its first item is; its table is
//! marked in the catalog first, so that what is remembered is swept one day.

use super::backend::{not_understood, Backend, Place};
use super::capacity::{self, Wanted};
use super::error::{DynamoError, Exception};
use super::items::{self, key_of, usable, Draft};
use super::json::item_json;
use super::request::{constraint, missing, Parameters};
use rangekv_model::dynamo::command::{Command, Done, Ended, Expressions, Operation, Reply, Verb};
use rangekv_model::dynamo::token::{Token, WINDOW_MS};
use rangekv_model::dynamo::value::item_size;
use rangekv_proto::internal::placement_command::{Kind, UpdateTable};
use rangekv_proto::internal::TableRecord;
use serde_json::{json, Value as Json};
use std::collections::BTreeSet;

type Result<T> = std::result::Result<T, DynamoError>;

/// Items of a transaction at most.
const ITEMS_MAX: usize = 100;
/// Bytes of the items of a transaction at most.
const BYTES_MAX: usize = 4 << 20;
/// Characters of a token at most.
const TOKEN_MAX: usize = 36;
/// A table that was marked so long ago is marked again before a token is written into it.
pub const MARKED_FOR_MS: u64 = WINDOW_MS;
/// How often a table is marked while others change it.
const MARKS_MAX: usize = 8;

/// TransactGetItems.
pub async fn get<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    let mut drafts = Vec::new();
    for entry in entries(&request)? {
        let body = Parameters::of(entry)?;
        let body = body.get("Get").ok_or_else(|| missing("Get"))?;
        drafts.push(Draft::read(&Parameters::of(body)?, Verb::Get)?);
    }
    let (operations, records) = operations(backend, &drafts).await?;
    let command = Command::All(operations.clone());
    let done = match run(backend, &operations, &command, true).await? {
        Some(done) => done,
        None => return Err(not_understood(&Reply::Repeated)),
    };
    let responses: Vec<Json> = done
        .iter()
        .map(|done| match &done.old {
            Some(item) => json!({ "Item": item_json(item) }),
            None => json!({}),
        })
        .collect();
    let mut response = json!({ "Responses": responses });
    // A transaction costs twice.
    let units = done.iter().map(read_units);
    add_capacity(&mut response, wanted, &records, units, true);
    Ok(response)
}

fn read_units(done: &Done) -> f64 {
    2.0 * capacity::read(done.old_bytes.into(), true)
}

/// TransactWriteItems.
pub async fn write<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    request.choice("ReturnItemCollectionMetrics", &["NONE", "SIZE"])?;
    let token = token(&request)?;
    let mut drafts = Vec::new();
    for entry in entries(&request)? {
        let entry = Parameters::of(entry)?;
        let verbs = [
            ("ConditionCheck", Verb::Check),
            ("Put", Verb::Put),
            ("Delete", Verb::Delete),
            ("Update", Verb::Update),
        ];
        let mut found = verbs.iter().filter(|(name, _)| entry.has(name));
        let (Some((name, verb)), None) = (found.next(), found.next()) else {
            return Err(DynamoError::validation(
                "TransactItems can only contain one of Check, Put, Update or Delete",
            ));
        };
        let body = Parameters::of(entry.get(name).unwrap_or(&Json::Null))?;
        if *verb == Verb::Check && !body.has("ConditionExpression") {
            return Err(missing("ConditionExpression"));
        }
        if *verb == Verb::Update && !body.has("UpdateExpression") {
            return Err(missing("UpdateExpression"));
        }
        drafts.push(Draft::read(&body, *verb)?);
    }
    let bytes: usize = drafts.iter().map(|d| item_size(&d.item)).sum();
    if bytes > BYTES_MAX {
        return Err(DynamoError::validation(
            "Collection size of items in transaction exceeded the maximum allowed size of 4 MB",
        ));
    }
    let (operations, records) = operations(backend, &drafts).await?;
    let command = match token {
        None => Command::All(operations.clone()),
        Some(text) => {
            mark(backend, &records[0]).await?;
            Command::Once(operations.clone(), Token::of(text, &operations))
        }
    };
    let mut response = json!({});
    match run(backend, &operations, &command, false).await? {
        Some(done) => {
            let units = |done: &Done| 2.0 * capacity::write(done.old_bytes, done.new_bytes);
            add_capacity(
                &mut response,
                wanted,
                &records,
                done.iter().map(units),
                false,
            );
        }
        // Done before: that costs what reading the items costs.
        None if wanted != Wanted::None => {
            let mut units = Vec::new();
            for operation in &operations {
                units.push(read_units(&items::one(backend, as_read(operation)).await?));
            }
            add_capacity(&mut response, wanted, &records, units.into_iter(), true);
        }
        None => {}
    }
    Ok(response)
}

fn token<'a>(request: &Parameters<'a>) -> Result<Option<&'a str>> {
    let Some(token) = request.text("ClientRequestToken")? else {
        return Ok(None);
    };
    let rule = match token.chars().count() {
        0 => "Member must have length greater than or equal to 1".to_string(),
        1..=TOKEN_MAX => return Ok(Some(token)),
        _ => format!("Member must have length less than or equal to {TOKEN_MAX}"),
    };
    Err(constraint(token, "ClientRequestToken", &rule))
}

/// Sees to it that the catalog says that there may be tokens in the table.
async fn mark<B: Backend>(backend: &B, record: &TableRecord) -> Result<()> {
    let mut record = record.clone();
    for _ in 0..MARKS_MAX {
        let now_ms = backend.now_ms();
        if now_ms < record.tokens_ms.saturating_add(MARKED_FOR_MS) {
            return Ok(());
        }
        record.tokens_ms = now_ms;
        let name = record.name.clone();
        let marked = Kind::UpdateTable(UpdateTable {
            record: Some(record),
        });
        if backend.change(marked).await?.is_ok() {
            return Ok(());
        }
        // Somebody else changed it, perhaps to the same end.
        record = usable(backend, &name).await?.0;
    }
    Err(DynamoError::new(
        Exception::Unavailable,
        format!("table {} is changed all the time", record.name),
    ))
}

/// What reads the item that an operation is about.
fn as_read(operation: &Operation) -> Operation {
    let keys = operation.table.schema.attributes();
    let item = keys.map(|key| (key.name.clone(), operation.item[&key.name].clone()));
    Operation {
        verb: Verb::Get,
        table: operation.table.clone(),
        item: item.collect(),
        expressions: Expressions::default(),
        want_old: false,
        want_new: false,
        want_failed: false,
    }
}

fn entries<'a>(request: &Parameters<'a>) -> Result<&'a Vec<Json>> {
    let entries = request
        .array("TransactItems")?
        .ok_or_else(|| missing("TransactItems"))?;
    if entries.is_empty() {
        let rule = "Member must have length greater than or equal to 1";
        return Err(constraint("[]", "TransactItems", rule));
    }
    if entries.len() > ITEMS_MAX {
        let rule = format!("Member must have length less than or equal to {ITEMS_MAX}");
        return Err(constraint("[…]", "TransactItems", &rule));
    }
    Ok(entries)
}

/// The operations and the records of their tables, in the request's order.
async fn operations<B: Backend>(
    backend: &B,
    drafts: &[Draft],
) -> Result<(Vec<Operation>, Vec<TableRecord>)> {
    let mut operations = Vec::new();
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    for draft in drafts {
        let (record, table) = usable(backend, &draft.table).await?;
        let operation = draft.operation(&table)?;
        if !seen.insert(key_of(&operation)) {
            return Err(DynamoError::validation(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        records.push(record);
        operations.push(operation);
    }
    Ok((operations, records))
}

/// What came of each operation; `None` if they were carried out before.
async fn run<B: Backend>(
    backend: &B,
    operations: &[Operation],
    command: &Command,
    read_only: bool,
) -> Result<Option<Vec<Done>>> {
    let first = key_of(&operations[0]);
    // A repeated one may be about items that have come to lie in several ranges meanwhile.
    if matches!(command, Command::All(_)) {
        let range = backend.range_of(&first);
        let elsewhere = |o: &Operation| backend.range_of(&key_of(o)) != range;
        if operations.iter().any(elsewhere) {
            return Err(across_ranges());
        }
    }
    match backend
        .command(Place::At(first), read_only, command)
        .await?
    {
        Reply::Ended(ended) if ended.len() == operations.len() => {
            let done = ended.into_iter().map(|one| match one {
                Ended::Done(done) => Ok(done),
                other => Err(not_understood(&Reply::Ended(vec![other]))),
            });
            Ok(Some(done.collect::<Result<_>>()?))
        }
        Reply::Repeated => Ok(None),
        Reply::OtherContent => Err(DynamoError::new(
            Exception::IdempotentParameterMismatch,
            "The request uses the same client token as a previous request, but is not identical to it: its ClientRequestToken was used with other parameters within the last 10 minutes",
        )),
        Reply::Cancelled(ended) => Err(cancelled(ended)),
        Reply::OutsideRange => Err(across_ranges()),
        other => Err(not_understood(&other)),
    }
}

fn across_ranges() -> DynamoError {
    DynamoError::validation(
        "The items of this transaction lie in several ranges; transactions across ranges are not supported yet",
    )
}

fn cancelled(ended: Vec<Ended>) -> DynamoError {
    let code = |one: &Ended| match one {
        Ended::Done(_) => "None",
        Ended::ConditionFailed(_) => "ConditionalCheckFailed",
        Ended::Invalid(_) => "ValidationError",
    };
    let codes: Vec<&str> = ended.iter().map(code).collect();
    let reasons: Vec<Json> = ended
        .iter()
        .map(|one| {
            let mut reason = json!({ "Code": code(one) });
            match one {
                Ended::Done(_) => {}
                Ended::ConditionFailed(item) => {
                    reason["Message"] = "The conditional request failed".into();
                    if let Some(item) = item {
                        reason["Item"] = item_json(item);
                    }
                }
                Ended::Invalid(why) => reason["Message"] = why.clone().into(),
            }
            reason
        })
        .collect();
    let mut error = DynamoError::new(
        Exception::TransactionCanceled,
        format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        ),
    );
    error.detail = Some(("CancellationReasons", reasons.into()));
    error
}

fn add_capacity(
    response: &mut Json,
    wanted: Wanted,
    records: &[TableRecord],
    units: impl Iterator<Item = f64>,
    reads: bool,
) {
    if wanted == Wanted::None {
        return;
    }
    // Once per table.
    let mut tables: Vec<(&str, f64)> = Vec::new();
    for (record, units) in records.iter().zip(units) {
        match tables.iter_mut().find(|(table, _)| *table == record.name) {
            Some((_, sum)) => *sum += units,
            None => tables.push((&record.name, units)),
        }
    }
    let list = tables
        .into_iter()
        .filter_map(|(name, units)| wanted.transaction_json(name, units, reads));
    response["ConsumedCapacity"] = list.collect::<Vec<_>>().into();
}
