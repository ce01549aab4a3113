//! TransactWriteItems and TransactGetItems, for items of one range.
//!
//! One command, one Raft entry: all or nothing. Items of several ranges are refused with an error
//! that says so.

use super::backend::{not_understood, Backend, Place};
use super::capacity::{self, Wanted};
use super::error::{DynamoError, Exception};
use super::items::{key_of, usable, Draft};
use super::json::item_json;
use super::request::{constraint, missing, Parameters};
use rangekv_model::dynamo::command::{Command, Done, Ended, Reply, Verb};
use rangekv_model::dynamo::value::item_size;
use serde_json::{json, Value as Json};
use std::collections::BTreeSet;

type Result<T> = std::result::Result<T, DynamoError>;

/// Items of a transaction at most.
const ITEMS_MAX: usize = 100;
/// Bytes of the items of a transaction at most.
const BYTES_MAX: usize = 4 << 20;

/// TransactGetItems.
pub async fn get<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    let mut drafts = Vec::new();
    for entry in entries(&request)? {
        let body = Parameters::of(entry)?;
        let body = body.get("Get").ok_or_else(|| missing("Get"))?;
        drafts.push(Draft::read(&Parameters::of(body)?, Verb::Get)?);
    }
    let (names, done) = run(backend, drafts, true).await?;
    let responses: Vec<Json> = done
        .iter()
        .map(|done| match &done.old {
            Some(item) => json!({ "Item": item_json(item) }),
            None => json!({}),
        })
        .collect();
    let mut response = json!({ "Responses": responses });
    // A transaction costs twice.
    let units = |done: &Done| 2.0 * capacity::read(done.old_bytes.into(), true);
    add_capacity(&mut response, wanted, &names, done.iter().map(units), true);
    Ok(response)
}

/// TransactWriteItems.
pub async fn write<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    request.choice("ReturnItemCollectionMetrics", &["NONE", "SIZE"])?;
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
    let (names, done) = run(backend, drafts, false).await?;
    let mut response = json!({});
    let units = |done: &Done| 2.0 * capacity::write(done.old_bytes, done.new_bytes);
    add_capacity(&mut response, wanted, &names, done.iter().map(units), false);
    Ok(response)
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

/// Table names and outcomes, in the request's order.
async fn run<B: Backend>(
    backend: &B,
    drafts: Vec<Draft>,
    read_only: bool,
) -> Result<(Vec<String>, Vec<Done>)> {
    let mut operations = Vec::new();
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    for draft in &drafts {
        let (record, table) = usable(backend, &draft.table).await?;
        let operation = draft.operation(&table)?;
        if !seen.insert(key_of(&operation)) {
            return Err(DynamoError::validation(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        names.push(record.name);
        operations.push(operation);
    }
    let first = key_of(&operations[0]);
    let range = backend.range_of(&first);
    if operations
        .iter()
        .any(|o| backend.range_of(&key_of(o)) != range)
    {
        return Err(across_ranges());
    }
    let command = Command::All(operations);
    match backend
        .command(Place::At(first), read_only, &command)
        .await?
    {
        Reply::Ended(ended) if ended.len() == names.len() => {
            let done = ended.into_iter().map(|one| match one {
                Ended::Done(done) => Ok(done),
                other => Err(not_understood(&Reply::Ended(vec![other]))),
            });
            Ok((names, done.collect::<Result<_>>()?))
        }
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
    names: &[String],
    units: impl Iterator<Item = f64>,
    reads: bool,
) {
    if wanted == Wanted::None {
        return;
    }
    // Once per table.
    let mut tables: Vec<(&str, f64)> = Vec::new();
    for (name, units) in names.iter().zip(units) {
        match tables.iter_mut().find(|(table, _)| table == name) {
            Some((_, sum)) => *sum += units,
            None => tables.push((name, units)),
        }
    }
    let list = tables
        .into_iter()
        .filter_map(|(name, units)| wanted.transaction_json(name, units, reads));
    response["ConsumedCapacity"] = list.collect::<Vec<_>>().into();
}
