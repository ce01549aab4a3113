//! Tables: create, describe, list, update, delete, tags, TTL, limits, endpoints.

use super::backend::Backend;
use super::error::{DynamoError, Exception};
use super::json;
use super::request::{check_table_name, constraint, missing, table_of_arn, Parameters};
use super::table::{describe, table_not_found};
use super::Caller;
use rangekv_proto::internal::placement_command::{CreateTable, Kind, UpdateTable};
use rangekv_proto::internal::TableRecord;
use serde_json::{json, Value as Json};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, DynamoError>;

const INVALID: &str = "One or more parameter values were invalid: ";
/// Tags of a table at most.
const TAGS_MAX: usize = 50;
/// How often a change is decided anew because somebody else changed the table meanwhile.
const ATTEMPTS_MAX: usize = 8;

/// CreateTable.
pub async fn create<B: Backend>(
    backend: &B,
    caller: &Caller,
    request: Parameters<'_>,
) -> Result<Json> {
    let name = request.table_name()?;
    for (parameter, what) in [
        ("GlobalSecondaryIndexes", "Global secondary indexes"),
        ("LocalSecondaryIndexes", "Local secondary indexes"),
        ("ResourcePolicy", "Resource policies"),
        ("OnDemandThroughput", "Limits of on-demand throughput"),
        ("WarmThroughput", "Warm throughput settings"),
    ] {
        if request.has(parameter) {
            return Err(not_yet(what));
        }
    }
    if let Some(stream) = request.get("StreamSpecification") {
        if Parameters::of(stream)?.flag("StreamEnabled")? {
            return Err(not_yet("Streams"));
        }
    }
    if let Some(encryption) = request.get("SSESpecification") {
        if Parameters::of(encryption)?.flag("Enabled")? {
            return Err(not_yet("Server-side encryption with a key of your own"));
        }
    }
    let now = backend.now_ms();
    let mut record = TableRecord {
        name: name.to_owned(),
        created_ms: now,
        billing_changed_ms: now,
        uuid: backend.uuid(),
        deletion_protection: request.flag("DeletionProtectionEnabled")?,
        ..TableRecord::default()
    };
    read_keys(&request, &mut record)?;
    read_billing(&request, &mut record, true)?;
    if request.has("TableClass") {
        let class = request.choice("TableClass", &["STANDARD", "STANDARD_INFREQUENT_ACCESS"])?;
        record.table_class = class.to_owned();
    }
    record.tags = tags(&request, "Tags")?.into_iter().collect();
    let create = CreateTable {
        record: Some(record),
    };
    match backend.change(Kind::CreateTable(create)).await? {
        Ok(record) => Ok(json!({ "TableDescription": describe(&record, &caller.region, (0, 0)) })),
        Err(_) => Err(in_use(format!("Table already exists: {name}"))),
    }
}

fn not_yet(what: &str) -> DynamoError {
    DynamoError::validation(format!("{INVALID}{what} are not supported yet"))
}

fn in_use(why: String) -> DynamoError {
    DynamoError::new(Exception::ResourceInUse, why)
}

fn read_keys(request: &Parameters<'_>, record: &mut TableRecord) -> Result<()> {
    let definitions = request
        .array("AttributeDefinitions")?
        .ok_or_else(|| missing("AttributeDefinitions"))?;
    let schema = request
        .array("KeySchema")?
        .ok_or_else(|| missing("KeySchema"))?;
    let mut types = BTreeMap::new();
    for definition in definitions {
        let definition = Parameters::of(definition)?;
        let name = definition
            .text("AttributeName")?
            .ok_or_else(|| missing("AttributeName"))?;
        if !definition.has("AttributeType") {
            return Err(missing("AttributeType"));
        }
        let kind = definition.choice("AttributeType", &["B", "N", "S"])?;
        if types.insert(name, kind).is_some() {
            return Err(DynamoError::validation(format!(
                "{INVALID}Duplicate AttributeName in AttributeDefinitions: {name}"
            )));
        }
    }
    if schema.is_empty() || schema.len() > 2 {
        let rule = match schema.len() {
            0 => "Member must have length greater than or equal to 1",
            _ => "Member must have length less than or equal to 2",
        };
        return Err(constraint("[]", "KeySchema", rule));
    }
    let mut names = Vec::new();
    for (at, key) in schema.iter().enumerate() {
        let key = Parameters::of(key)?;
        let name = key
            .text("AttributeName")?
            .ok_or_else(|| missing("AttributeName"))?;
        if name.is_empty() || name.len() > 255 {
            let rule = "Member must have length between 1 and 255";
            return Err(constraint(name, "AttributeName", rule));
        }
        if !key.has("KeyType") {
            return Err(missing("KeyType"));
        }
        let kind = key.choice("KeyType", &["HASH", "RANGE"])?;
        match (at, kind) {
            (0, "RANGE") => {
                let why = "Invalid KeySchema: The first KeySchemaElement is not a HASH key type";
                return Err(DynamoError::validation(why));
            }
            (1, "HASH") => {
                let why = "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type";
                return Err(DynamoError::validation(why));
            }
            _ => names.push(name),
        }
    }
    if names.len() == 2 && names[0] == names[1] {
        let why = "Both the Hash Key and the Range Key element in the KeySchema have the same name";
        return Err(DynamoError::validation(why));
    }
    let list = |names: &[&str]| names.join(", ");
    let defined: Vec<&str> = types.keys().copied().collect();
    if names.iter().any(|name| !types.contains_key(name)) {
        return Err(DynamoError::validation(format!(
            "{INVALID}Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], AttributeDefinitions: [{}]",
            list(&names),
            list(&defined)
        )));
    }
    if types.len() != names.len() {
        return Err(DynamoError::validation(format!(
            "{INVALID}Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions"
        )));
    }
    record.partition_name = names[0].to_owned();
    record.partition_type = types[names[0]].to_owned();
    if let Some(name) = names.get(1) {
        record.sort_name = (*name).to_owned();
        record.sort_type = types[name].to_owned();
    }
    Ok(())
}

fn read_billing(request: &Parameters<'_>, record: &mut TableRecord, create: bool) -> Result<()> {
    let throughput = request
        .get("ProvisionedThroughput")
        .map(Parameters::of)
        .transpose()?;
    let mode = match request.has("BillingMode") {
        true => request.choice("BillingMode", &["PROVISIONED", "PAY_PER_REQUEST"])?,
        false if create || !record.on_demand => "PROVISIONED",
        false => "PAY_PER_REQUEST",
    };
    let on_demand = mode == "PAY_PER_REQUEST";
    let Some(throughput) = throughput else {
        if !on_demand && (create || record.on_demand) {
            return Err(DynamoError::validation(format!(
                "{INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
            )));
        }
        if on_demand {
            (record.read_units, record.write_units) = (0, 0);
        }
        record.on_demand = on_demand;
        return Ok(());
    };
    if on_demand {
        return Err(DynamoError::validation(format!(
            "{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
        )));
    }
    let units = |name: &str| {
        let most = 1_000_000_000_000;
        throughput
            .bounded(name, 1, most)?
            .ok_or_else(|| missing(name))
    };
    record.read_units = units("ReadCapacityUnits")? as u64;
    record.write_units = units("WriteCapacityUnits")? as u64;
    record.on_demand = false;
    Ok(())
}

/// DescribeTable.
pub async fn describe_table<B: Backend>(
    backend: &B,
    caller: &Caller,
    request: Parameters<'_>,
) -> Result<Json> {
    let record = existing(backend, request.table_name()?).await?;
    let size = backend.table_size(&record);
    Ok(json!({ "Table": describe(&record, &caller.region, size) }))
}

async fn existing<B: Backend>(backend: &B, name: &str) -> Result<TableRecord> {
    backend
        .table(name)
        .await?
        .ok_or_else(|| table_not_found(name))
}

/// ListTables.
pub async fn list<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let limit = request.bounded("Limit", 1, 100)?.unwrap_or(100) as usize;
    let after = request.text("ExclusiveStartTableName")?;
    if let Some(after) = after {
        check_table_name(after)?;
    }
    let tables = backend.tables().await?;
    let mut names: Vec<&str> = tables
        .iter()
        .map(|t| t.name.as_str())
        .filter(|name| after.is_none_or(|after| *name > after))
        .collect();
    names.sort_unstable();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut response = json!({ "TableNames": names });
    if let (true, Some(last)) = (more, names.last()) {
        response["LastEvaluatedTableName"] = json!(last);
    }
    Ok(response)
}

/// DeleteTable.
pub async fn delete<B: Backend>(
    backend: &B,
    caller: &Caller,
    request: Parameters<'_>,
) -> Result<Json> {
    let name = request.table_name()?;
    let record = change(backend, name, || table_not_found(name), |record| {
        if record.deleting {
            return Err(in_use(format!(
                "Attempt to change a resource which is still in use: Table is being deleted: {name}"
            )));
        }
        if record.deletion_protection {
            return Err(DynamoError::validation(format!(
                "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first. Table: {name}"
            )));
        }
        record.deleting = true;
        Ok(())
    })
    .await?;
    let size = backend.table_size(&record);
    Ok(json!({ "TableDescription": describe(&record, &caller.region, size) }))
}

/// UpdateTable.
pub async fn update_table<B: Backend>(
    backend: &B,
    caller: &Caller,
    request: Parameters<'_>,
) -> Result<Json> {
    let name = request.table_name()?;
    for (parameter, what) in [
        ("GlobalSecondaryIndexUpdates", "Global secondary indexes"),
        ("StreamSpecification", "Streams"),
        ("SSESpecification", "Server-side encryption settings"),
        ("ReplicaUpdates", "Global tables"),
        ("MultiRegionConsistency", "Global tables"),
        ("GlobalTableWitnessUpdates", "Global tables"),
        ("OnDemandThroughput", "Limits of on-demand throughput"),
        ("WarmThroughput", "Warm throughput settings"),
    ] {
        if request.has(parameter) {
            return Err(not_yet(what));
        }
    }
    let changes = [
        "BillingMode",
        "ProvisionedThroughput",
        "DeletionProtectionEnabled",
        "TableClass",
    ];
    if !changes.iter().any(|parameter| request.has(parameter)) {
        return Err(DynamoError::validation(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required",
        ));
    }
    let now_ms = backend.now_ms();
    let record = change(
        backend,
        name,
        || table_not_found(name),
        |record| {
            if record.deleting {
                return Err(table_not_found(name));
            }
            edit(&request, record, now_ms)
        },
    )
    .await?;
    let size = backend.table_size(&record);
    Ok(json!({ "TableDescription": describe(&record, &caller.region, size) }))
}

/// What UpdateTable asks for.
fn edit(request: &Parameters<'_>, record: &mut TableRecord, now_ms: u64) -> Result<()> {
    let before = (record.on_demand, record.read_units, record.write_units);
    if request.has("BillingMode") || request.has("ProvisionedThroughput") {
        read_billing(request, record, false)?;
        let after = (record.on_demand, record.read_units, record.write_units);
        if before == after && request.has("ProvisionedThroughput") {
            return Err(DynamoError::validation(format!(
                "The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: {0}. Requested ReadCapacityUnits: {0}. Current WriteCapacityUnits provisioned for the table: {1}. Requested WriteCapacityUnits: {1}. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.",
                record.read_units, record.write_units
            )));
        }
        if before.0 != record.on_demand {
            record.billing_changed_ms = now_ms;
        }
    }
    if request.has("DeletionProtectionEnabled") {
        record.deletion_protection = request.flag("DeletionProtectionEnabled")?;
    }
    if request.has("TableClass") {
        let class = request.choice("TableClass", &["STANDARD", "STANDARD_INFREQUENT_ACCESS"])?;
        record.table_class = class.to_owned();
    }
    Ok(())
}

/// Changes the record of a table as it is now, as `edit` says, which is asked again if somebody
/// else changed it meanwhile. Not as it was last seen: that may be a moment old.
async fn change<B: Backend>(
    backend: &B,
    name: &str,
    absent: impl Fn() -> DynamoError,
    edit: impl Fn(&mut TableRecord) -> Result<()>,
) -> Result<TableRecord> {
    for _ in 0..ATTEMPTS_MAX {
        let tables = backend.tables().await?;
        let found = tables.into_iter().find(|table| table.name == name);
        let mut record = found.ok_or_else(&absent)?;
        edit(&mut record)?;
        let change = UpdateTable {
            record: Some(record),
        };
        if let Ok(record) = backend.change(Kind::UpdateTable(change)).await? {
            return Ok(record);
        }
    }
    Err(in_use(format!(
        "Attempt to change a resource which is still in use: Table is being updated: {name}"
    )))
}

// ---- Tags

fn tags(request: &Parameters<'_>, parameter: &str) -> Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for tag in request.array(parameter)?.into_iter().flatten() {
        let tag = Parameters::of(tag)?;
        let key = tag.text("Key")?.ok_or_else(|| missing("Key"))?;
        let value = tag.text("Value")?.ok_or_else(|| missing("Value"))?;
        if key.is_empty() || key.chars().count() > 128 {
            return Err(constraint(
                key,
                "Key",
                "Member must have length between 1 and 128",
            ));
        }
        if value.chars().count() > 256 {
            let rule = "Member must have length less than or equal to 256";
            return Err(constraint(value, "Value", rule));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    if tags.len() > TAGS_MAX {
        return Err(too_many_tags());
    }
    Ok(tags)
}

fn too_many_tags() -> DynamoError {
    DynamoError::validation(format!("Too many tags: a table has {TAGS_MAX} at most"))
}

/// The ARN of a request about tags, and the name of its table.
fn tagged<'a>(request: &Parameters<'a>) -> Result<(&'a str, &'a str)> {
    let text = request
        .text("ResourceArn")?
        .ok_or_else(|| missing("ResourceArn"))?;
    let name = table_of_arn(text);
    if !text.starts_with("arn:") || check_table_name(name).is_err() {
        return Err(DynamoError::validation(format!("Invalid TableArn: {text}")));
    }
    Ok((text, name))
}

fn arn_not_found(arn: &str) -> DynamoError {
    let why = format!("Requested resource not found: ResourcArn: {arn} not found");
    DynamoError::new(Exception::ResourceNotFound, why)
}

async fn change_tags<B: Backend>(
    backend: &B,
    request: &Parameters<'_>,
    edit: impl Fn(&mut TableRecord) -> Result<()>,
) -> Result<Json> {
    let (arn, name) = tagged(request)?;
    change(backend, name, || arn_not_found(arn), edit).await?;
    Ok(Json::Null)
}

/// TagResource.
pub async fn tag<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let added = tags(&request, "Tags")?;
    if added.is_empty() {
        let why = "Atleast one Tag needs to be provided as Input.";
        return Err(DynamoError::validation(why));
    }
    change_tags(backend, &request, |record| {
        record.tags.extend(added.clone());
        match record.tags.len() > TAGS_MAX {
            true => Err(too_many_tags()),
            false => Ok(()),
        }
    })
    .await
}

/// UntagResource.
pub async fn untag<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let keys = request
        .texts("TagKeys")?
        .ok_or_else(|| missing("TagKeys"))?;
    if keys.is_empty() {
        let why = "Atleast one Tag Key needs to be provided as Input.";
        return Err(DynamoError::validation(why));
    }
    change_tags(backend, &request, |record| {
        record.tags.retain(|key, _| !keys.contains(key));
        Ok(())
    })
    .await
}

/// ListTagsOfResource.
pub async fn list_tags<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let (arn, name) = tagged(&request)?;
    let record = backend.table(name).await?;
    let record = record.ok_or_else(|| arn_not_found(arn))?;
    let tags = record
        .tags
        .iter()
        .map(|(key, value)| json!({ "Key": key, "Value": value }));
    Ok(json!({ "Tags": tags.collect::<Vec<_>>() }))
}

// ---- Time to live

/// UpdateTimeToLive.
pub async fn update_ttl<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let name = request.table_name()?;
    let specification = request
        .get("TimeToLiveSpecification")
        .ok_or_else(|| missing("TimeToLiveSpecification"))?;
    let specification = Parameters::of(specification)?;
    let attribute = specification
        .text("AttributeName")?
        .ok_or_else(|| missing("AttributeName"))?;
    if attribute.is_empty() || attribute.len() > 255 {
        let rule = "Member must have length between 1 and 255";
        return Err(constraint(attribute, "AttributeName", rule));
    }
    let enabled = json::boolean(
        specification
            .get("Enabled")
            .ok_or_else(|| missing("Enabled"))?,
    )?;
    change(backend, name, || table_not_found(name), |record| {
        let was = !record.ttl_attribute.is_empty();
        let why = match (was, enabled) {
            (true, true) => Some("TimeToLive is already enabled"),
            (false, false) => Some("TimeToLive is already disabled"),
            (true, false) if record.ttl_attribute != attribute => {
                Some("TimeToLive is active on a different AttributeName: current AttributeName is not the one given")
            }
            _ => None,
        };
        if let Some(why) = why {
            return Err(DynamoError::validation(why));
        }
        record.ttl_attribute = match enabled {
            true => attribute.to_owned(),
            false => String::new(),
        };
        Ok(())
    })
    .await?;
    Ok(json!({
        "TimeToLiveSpecification": { "Enabled": enabled, "AttributeName": attribute },
    }))
}

/// DescribeTimeToLive.
pub async fn describe_ttl<B: Backend>(backend: &B, request: Parameters<'_>) -> Result<Json> {
    let record = existing(backend, request.table_name()?).await?;
    Ok(
        json!({ "TimeToLiveDescription": match record.ttl_attribute.is_empty() {
        true => json!({ "TimeToLiveStatus": "DISABLED" }),
        false => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": record.ttl_attribute }),
    } }),
    )
}

// ---- What clients ask of the service

/// DescribeLimits: a table may have what the cluster can do.
pub fn limits() -> Json {
    json!({
        "AccountMaxReadCapacityUnits": 80_000,
        "AccountMaxWriteCapacityUnits": 80_000,
        "TableMaxReadCapacityUnits": 40_000,
        "TableMaxWriteCapacityUnits": 40_000,
    })
}

/// DescribeEndpoints: where the request came in.
pub fn endpoints(caller: &Caller) -> Json {
    json!({ "Endpoints": [{ "Address": caller.host, "CachePeriodInMinutes": 1440 }] })
}
