//! BatchGetItem and BatchWriteItem: many operations, each for itself, grouped by range.
//!
//! What a range could not do in time is handed back as unprocessed, as long as anything was done.

use super::backend::{not_understood, Backend, Place};
use super::capacity::{self, Wanted};
use super::error::{DynamoError, Exception};
use super::items::{key_of, usable, Draft};
use super::json::{self, item_json};
use super::request::{check_table_name, constraint, missing, table_of_arn, Parameters};
use rangekv_model::dynamo::command::{
    Command, Done, Ended, Expressions, Operation, Reply, Table, Verb,
};
use rangekv_model::dynamo::value::{item_size, ITEM_BYTES_MAX};
use rangekv_proto::RangeId;
use serde_json::{json, Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, DynamoError>;

/// Keys of a BatchGetItem at most.
const GETS_MAX: usize = 100;
/// Requests of a BatchWriteItem at most.
const WRITES_MAX: usize = 25;
/// Bytes of the items of a batch at most.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How often operations are grouped again because a range changed meanwhile.
const ROUNDS_MAX: usize = 8;

/// One operation, and what to hand back if it was not carried out.
struct Part {
    table: usize,
    operation: Operation,
    original: Json,
}

/// BatchGetItem.
pub async fn get<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    let tables = tables_of(&request)?;
    let mut drafts = Vec::new();
    for (name, body) in tables {
        let body = Parameters::of(body)?;
        let parsed = super::expressions::read(&body, &[super::Kind::Projection])?;
        let keys = body.array("Keys")?.ok_or_else(|| missing("Keys"))?;
        if keys.is_empty() {
            let rule = "Member must have length greater than or equal to 1";
            return Err(constraint(
                "[]",
                &format!("requestItems.{name}.member.keys"),
                rule,
            ));
        }
        drafts.push((name, body.flag("ConsistentRead")?, parsed.expressions, keys));
    }
    let total: usize = drafts.iter().map(|(.., keys)| keys.len()).sum();
    if total > GETS_MAX {
        return Err(DynamoError::validation(
            "Too many items requested for the BatchGetItem call",
        ));
    }
    let mut parts = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, (name, _, expressions, keys)) in drafts.iter().enumerate() {
        let (_, table) = usable(backend, table_of_arn(name)).await?;
        for key in *keys {
            let part = part(
                at,
                &table,
                Verb::Get,
                json::item(key)?,
                expressions.clone(),
                key,
            )?;
            if !seen.insert(key_of(&part.operation)) {
                return Err(duplicates());
            }
            parts.push(part);
        }
    }
    let (done, left) = run(backend, parts, true).await?;
    let mut responses = Map::new();
    let mut units = vec![0.0; drafts.len()];
    let mut bytes = 0;
    let mut unprocessed: Vec<Part> = left;
    for (name, ..) in &drafts {
        responses.insert((*name).clone(), json!([]));
    }
    for (part, done) in done {
        let (name, consistent, ..) = &drafts[part.table];
        bytes += done.old_bytes as usize;
        if bytes > BATCH_BYTES_MAX {
            unprocessed.push(part);
            continue;
        }
        units[part.table] += capacity::read(done.old_bytes.into(), *consistent);
        if let (Some(item), Some(list)) = (&done.old, responses[*name].as_array_mut()) {
            list.push(item_json(item));
        }
    }
    let mut again = Map::new();
    for part in unprocessed {
        let (name, _, _, _) = &drafts[part.table];
        // As it was asked, with the keys that are left.
        let entry = again.entry((*name).clone()).or_insert_with(|| {
            let mut body = request
                .get("RequestItems")
                .map_or(json!({}), |r| r[name.as_str()].clone());
            body["Keys"] = json!([]);
            body
        });
        if let Some(keys) = entry["Keys"].as_array_mut() {
            keys.push(part.original);
        }
    }
    let names = drafts.iter().map(|(name, ..)| name.as_str());
    let mut response = json!({ "Responses": responses, "UnprocessedKeys": again });
    add_capacity(&mut response, wanted, names, &units);
    Ok(response)
}

/// BatchWriteItem.
pub async fn write<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    request.choice("ReturnItemCollectionMetrics", &["NONE", "SIZE"])?;
    let tables = tables_of(&request)?;
    let mut drafts = Vec::new();
    for (name, list) in tables {
        let mut writes = Vec::new();
        for original in json::array(list)? {
            let one = Parameters::of(original)?;
            let (put, delete) = (one.object("PutRequest")?, one.object("DeleteRequest")?);
            let (verb, body, member) = match (put, delete) {
                (Some(_), None) => (Verb::Put, one.get("PutRequest"), "Item"),
                (None, Some(_)) => (Verb::Delete, one.get("DeleteRequest"), "Key"),
                (Some(_), Some(_)) => {
                    let why = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes";
                    return Err(DynamoError::validation(why));
                }
                (None, None) => {
                    let why = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes";
                    return Err(DynamoError::validation(why));
                }
            };
            let body = Parameters::of(body.unwrap_or(&Json::Null))?;
            let item = body.item(member)?.ok_or_else(|| missing(member))?;
            if verb == Verb::Put && item_size(&item) > ITEM_BYTES_MAX {
                let why = "Item size has exceeded the maximum allowed size";
                return Err(DynamoError::validation(why));
            }
            writes.push((verb, item, original));
        }
        if writes.is_empty() {
            let why = "The batch write request list for a table cannot be null or empty";
            return Err(DynamoError::validation(why));
        }
        drafts.push((name, writes));
    }
    let total: usize = drafts.iter().map(|(_, writes)| writes.len()).sum();
    if total > WRITES_MAX {
        return Err(DynamoError::validation(
            "Too many items requested for the BatchWriteItem call",
        ));
    }
    let mut parts = Vec::new();
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for (at, (name, writes)) in drafts.into_iter().enumerate() {
        let (_, table) = usable(backend, table_of_arn(name)).await?;
        names.push(name);
        for (verb, item, original) in writes {
            let part = part(at, &table, verb, item, Expressions::default(), original)?;
            if !seen.insert(key_of(&part.operation)) {
                return Err(duplicates());
            }
            parts.push(part);
        }
    }
    let (done, left) = run(backend, parts, false).await?;
    let mut units = vec![0.0; names.len()];
    for (part, done) in done {
        units[part.table] += capacity::write(done.old_bytes, done.new_bytes);
    }
    let mut again: Map<String, Json> = Map::new();
    for part in left {
        let entry = again.entry(names[part.table].clone()).or_insert(json!([]));
        if let Some(list) = entry.as_array_mut() {
            list.push(part.original);
        }
    }
    let mut response = json!({ "UnprocessedItems": again });
    add_capacity(
        &mut response,
        wanted,
        names.iter().map(|n| n.as_str()),
        &units,
    );
    Ok(response)
}

fn tables_of<'a>(request: &Parameters<'a>) -> Result<&'a Map<String, Json>> {
    let tables = request
        .object("RequestItems")?
        .ok_or_else(|| missing("RequestItems"))?;
    if tables.is_empty() {
        let rule = "Member must have length greater than or equal to 1";
        return Err(constraint("{}", "RequestItems", rule));
    }
    for name in tables.keys() {
        check_table_name(table_of_arn(name))?;
    }
    Ok(tables)
}

fn duplicates() -> DynamoError {
    DynamoError::validation("Provided list of item keys contains duplicates")
}

fn part(
    at: usize,
    table: &Table,
    verb: Verb,
    item: rangekv_model::dynamo::value::Item,
    expressions: Expressions,
    original: &Json,
) -> Result<Part> {
    let draft = Draft {
        table: String::new(),
        verb,
        item,
        parsed: super::expressions::Parsed {
            expressions,
            ..Default::default()
        },
        want_failed: false,
    };
    Ok(Part {
        table: at,
        operation: draft.operation(table)?,
        original: original.clone(),
    })
}

/// Carries out `parts`, range by range; those done with what came of them, and those left over.
async fn run<B: Backend>(
    backend: &B,
    parts: Vec<Part>,
    read_only: bool,
) -> Result<(Vec<(Part, Done)>, Vec<Part>)> {
    let mut todo: Vec<(usize, Part)> = parts.into_iter().enumerate().collect();
    let mut done: Vec<(usize, Part, Done)> = Vec::new();
    let mut left = Vec::new();
    let mut failure = None;
    for _ in 0..ROUNDS_MAX {
        let mut groups: BTreeMap<Option<RangeId>, Vec<(usize, Part)>> = BTreeMap::new();
        for (at, part) in std::mem::take(&mut todo) {
            let range = backend.range_of(&key_of(&part.operation));
            groups.entry(range).or_default().push((at, part));
        }
        for group in groups.into_values() {
            let place = Place::At(key_of(&group[0].1.operation));
            let operations = group.iter().map(|(_, part)| part.operation.clone());
            let command = Command::Each(operations.collect());
            match backend.command(place, read_only, &command).await {
                Ok(Reply::Ended(ended)) if ended.len() == group.len() => {
                    for ((at, part), ended) in group.into_iter().zip(ended) {
                        match ended {
                            Ended::Done(found) => done.push((at, part, found)),
                            other => return Err(not_understood(&Reply::Ended(vec![other]))),
                        }
                    }
                }
                Ok(Reply::OutsideRange) => todo.extend(group),
                Ok(other) => return Err(not_understood(&other)),
                Err(error) if error.kind == Exception::Internal => return Err(error),
                Err(error) => {
                    failure = Some(error);
                    left.extend(group);
                }
            }
        }
        if todo.is_empty() {
            break;
        }
    }
    left.extend(todo);
    match failure {
        Some(error) if done.is_empty() => return Err(error),
        _ => {}
    }
    done.sort_by_key(|(at, ..)| *at);
    left.sort_by_key(|(at, _)| *at);
    let done = done.into_iter().map(|(_, part, found)| (part, found));
    Ok((
        done.collect(),
        left.into_iter().map(|(_, part)| part).collect(),
    ))
}

fn add_capacity<'a>(
    response: &mut Json,
    wanted: Wanted,
    names: impl Iterator<Item = &'a str>,
    units: &[f64],
) {
    let list: Vec<Json> = names
        .zip(units)
        .filter_map(|(name, units)| wanted.json(table_of_arn(name), *units))
        .collect();
    if wanted != Wanted::None {
        response["ConsumedCapacity"] = list.into();
    }
}
