//! PutItem, GetItem, UpdateItem, DeleteItem.

use super::backend::{not_understood, Backend, Place};
use super::capacity::{self, Wanted};
use super::error::{DynamoError, Exception};
use super::expressions::{self, check_update_keys, Parsed};
use super::json::{body, item_json, ItemText};
use super::request::{missing, Parameters};
use super::table::{self, check_key};
use rangekv_model::dynamo::command::{Command, Done, Ended, Operation, Reply, Table, Verb};
use rangekv_model::dynamo::expr::path::{project, Path};
use rangekv_model::dynamo::expr::Kind;
use rangekv_model::dynamo::keys;
use rangekv_model::dynamo::value::{item_size, Item, ITEM_BYTES_MAX};
use rangekv_proto::internal::TableRecord;
use serde::Serialize;
use serde_json::{json, Value as Json};

type Result<T> = std::result::Result<T, DynamoError>;

/// An operation on one item, read from a request and not yet checked against its table.
pub struct Draft {
    /// The table's name.
    pub table: String,
    /// What to do.
    pub verb: Verb,
    /// The key, or for a put the item.
    pub item: Item,
    /// Its expressions.
    pub parsed: Parsed,
    /// Answer the item if the condition fails.
    pub want_failed: bool,
}

/// `ReturnValues`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// Nothing.
    None,
    /// The item as it was.
    AllOld,
    /// Of it, what was updated.
    UpdatedOld,
    /// The item as it is now.
    AllNew,
    /// Of it, what was updated.
    UpdatedNew,
}

impl Return {
    fn of(request: &Parameters<'_>, verb: Verb) -> Result<Return> {
        let choice = request.choice(
            "ReturnValues",
            &["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"],
        )?;
        let wanted = match choice {
            "ALL_OLD" => Return::AllOld,
            "UPDATED_OLD" => Return::UpdatedOld,
            "ALL_NEW" => Return::AllNew,
            "UPDATED_NEW" => Return::UpdatedNew,
            _ => Return::None,
        };
        if verb != Verb::Update && !matches!(wanted, Return::None | Return::AllOld) {
            return Err(DynamoError::validation(
                "Return values set to invalid value",
            ));
        }
        Ok(wanted)
    }
}

impl Draft {
    /// Reads an operation from `request`; `body` is the parameter that has the key or item.
    pub fn read(request: &Parameters<'_>, verb: Verb) -> Result<Draft> {
        let table = request.table_name()?.to_owned();
        let (body, kinds): (_, &[Kind]) = match verb {
            Verb::Get => ("Key", &[Kind::Projection]),
            Verb::Put => ("Item", &[Kind::Condition]),
            Verb::Update => ("Key", &[Kind::Update, Kind::Condition]),
            Verb::Delete | Verb::Check => ("Key", &[Kind::Condition]),
        };
        let want_failed =
            request.choice("ReturnValuesOnConditionCheckFailure", &["NONE", "ALL_OLD"])?;
        let item = request.item(body)?.ok_or_else(|| missing(body))?;
        let parsed = expressions::read(request, kinds)?;
        if verb == Verb::Put && item_size(&item) > ITEM_BYTES_MAX {
            let why = "Item size has exceeded the maximum allowed size";
            return Err(DynamoError::validation(why));
        }
        Ok(Draft {
            table,
            verb,
            item,
            parsed,
            want_failed: want_failed == "ALL_OLD",
        })
    }

    /// Checks it against its table.
    pub fn operation(&self, table: &Table) -> Result<Operation> {
        check_key(&table.schema, &self.item, self.verb != Verb::Put)?;
        if let Some(update) = &self.parsed.update {
            check_update_keys(update, &table.schema)?;
        }
        Ok(Operation {
            verb: self.verb,
            table: table.clone(),
            item: self.item.clone(),
            expressions: self.parsed.expressions.clone(),
            want_old: false,
            want_new: false,
            want_failed: self.want_failed,
        })
    }
}

/// The table called `name`, if it can be used.
pub async fn usable<B: Backend>(backend: &B, name: &str) -> Result<(TableRecord, Table)> {
    let record = backend.table(name).await?.ok_or_else(table::not_found)?;
    if record.deleting {
        return Err(table::not_found());
    }
    let model = table::model(&record)?;
    Ok((record, model))
}

/// The key of an operation that was checked.
pub fn key_of(operation: &Operation) -> bytes::Bytes {
    let schema = &operation.table.schema;
    let sort = schema.sort.as_ref().map(|key| &operation.item[&key.name]);
    keys::item(
        operation.table.id,
        &operation.item[&schema.partition.name],
        sort,
    )
}

/// GetItem.
pub async fn get<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<String> {
    let wanted = Wanted::of(&request)?;
    let consistent = request.flag("ConsistentRead")?;
    let draft = Draft::read(&request, Verb::Get)?;
    let (record, model) = usable(backend, &draft.table).await?;
    let done = one(backend, draft.operation(&model)?).await?;
    let units = capacity::read(done.old_bytes.into(), consistent);
    body(&Got {
        item: done.old.as_ref().map(ItemText),
        consumed_capacity: wanted.json(&record.name, units),
    })
}

/// The answer to a GetItem.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Got<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<ItemText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

/// PutItem, UpdateItem, DeleteItem.
pub async fn write<B: Backend>(backend: &B, request: Parameters<'_>, verb: Verb) -> Result<Json> {
    let wanted = Wanted::of(&request)?;
    request.choice("ReturnItemCollectionMetrics", &["NONE", "SIZE"])?;
    let returned = Return::of(&request, verb)?;
    let draft = Draft::read(&request, verb)?;
    let (record, model) = usable(backend, &draft.table).await?;
    let mut operation = draft.operation(&model)?;
    operation.want_old = matches!(returned, Return::AllOld | Return::UpdatedOld);
    operation.want_new = matches!(returned, Return::AllNew | Return::UpdatedNew);
    let done = one(backend, operation).await?;
    let mut response = json!({});
    let targets: Vec<Path> = match &draft.parsed.update {
        Some(update) => update.targets().cloned().collect(),
        None => Vec::new(),
    };
    let attributes = match returned {
        Return::None => None,
        Return::AllOld => done.old,
        Return::AllNew => done.new,
        Return::UpdatedOld => done.old.map(|item| project(&item, &targets)),
        Return::UpdatedNew => done.new.map(|item| project(&item, &targets)),
    };
    if let Some(attributes) = attributes.filter(|a| !a.is_empty()) {
        response["Attributes"] = item_json(&attributes);
    }
    let units = capacity::write(done.old_bytes, done.new_bytes);
    if let Some(capacity) = wanted.json(&record.name, units) {
        response["ConsumedCapacity"] = capacity;
    }
    Ok(response)
}

/// Carries out one operation.
pub async fn one<B: Backend>(backend: &B, operation: Operation) -> Result<Done> {
    let place = Place::At(key_of(&operation));
    let read_only = operation.verb == Verb::Get;
    let command = Command::One(operation);
    match backend.command(place, read_only, &command).await? {
        Reply::Ended(mut ended) if ended.len() == 1 => match ended.remove(0) {
            Ended::Done(done) => Ok(done),
            Ended::ConditionFailed(item) => Err(condition_failed(item)),
            Ended::Invalid(why) => Err(DynamoError::validation(why)),
        },
        other => Err(not_understood(&other)),
    }
}

fn condition_failed(item: Option<Item>) -> DynamoError {
    let mut error = DynamoError::new(
        Exception::ConditionalCheckFailed,
        "The conditional request failed",
    );
    error.detail = item.map(|item| ("Item", item_json(&item)));
    error
}
