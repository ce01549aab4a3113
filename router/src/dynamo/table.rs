//! A table's record in the catalog, as evaluation and as clients see it.

use super::error::{DynamoError, Exception};
use rangekv_model::dynamo::command::Table;
use rangekv_model::dynamo::schema::{KeyAttribute, KeySchema, KeyType};
use rangekv_model::dynamo::value::{Item, Value};
use rangekv_proto::internal::TableRecord;
use serde_json::{json, Value as Json};

type Result<T> = std::result::Result<T, DynamoError>;

/// Bytes of a partition key at most.
pub const PARTITION_KEY_BYTES_MAX: usize = 2048;
/// Bytes of a sort key at most.
pub const SORT_KEY_BYTES_MAX: usize = 1024;

/// We have no accounts; ARNs name this one.
const ACCOUNT: &str = "000000000000";

/// As evaluation sees it.
pub fn model(record: &TableRecord) -> Result<Table> {
    let attribute = |name: &str, kind: &str| -> Result<KeyAttribute> {
        let kind = KeyType::named(kind).ok_or_else(|| {
            let why = format!(
                "table {} has a key of the unknown type {kind:?}",
                record.name
            );
            DynamoError::new(Exception::Internal, why)
        })?;
        Ok(KeyAttribute {
            name: name.to_owned(),
            kind,
        })
    };
    let sort = match record.sort_name.is_empty() {
        true => None,
        false => Some(attribute(&record.sort_name, &record.sort_type)?),
    };
    Ok(Table {
        id: record.id,
        schema: KeySchema {
            partition: attribute(&record.partition_name, &record.partition_type)?,
            sort,
        },
    })
}

/// The name by which other services would know the table.
pub fn arn(record: &TableRecord, region: &str) -> String {
    format!("arn:aws:dynamodb:{region}:{ACCOUNT}:table/{}", record.name)
}

/// `TableDescription`.
pub fn describe(record: &TableRecord, region: &str, (items, bytes): (u64, u64)) -> Json {
    let mut attributes = vec![json!({
        "AttributeName": record.partition_name, "AttributeType": record.partition_type,
    })];
    let mut keys = vec![json!({ "AttributeName": record.partition_name, "KeyType": "HASH" })];
    if !record.sort_name.is_empty() {
        attributes.push(json!({
            "AttributeName": record.sort_name, "AttributeType": record.sort_type,
        }));
        keys.push(json!({ "AttributeName": record.sort_name, "KeyType": "RANGE" }));
    }
    let mut description = json!({
        "AttributeDefinitions": attributes,
        "TableName": record.name,
        "KeySchema": keys,
        "TableStatus": if record.deleting { "DELETING" } else { "ACTIVE" },
        "CreationDateTime": seconds(record.created_ms),
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0,
            "ReadCapacityUnits": record.read_units,
            "WriteCapacityUnits": record.write_units,
        },
        "TableSizeBytes": bytes,
        "ItemCount": items,
        "TableArn": arn(record, region),
        "TableId": record.uuid,
        "DeletionProtectionEnabled": record.deletion_protection,
    });
    if record.on_demand {
        description["BillingModeSummary"] = json!({
            "BillingMode": "PAY_PER_REQUEST",
            "LastUpdateToPayPerRequestDateTime": seconds(record.billing_changed_ms),
        });
    }
    if !record.table_class.is_empty() {
        description["TableClassSummary"] = json!({ "TableClass": record.table_class });
    }
    description
}

/// A time as DynamoDB writes it: seconds with three decimals.
pub fn seconds(ms: u64) -> Json {
    json!(ms as f64 / 1000.0)
}

/// `Requested resource not found`, for operations on items.
pub fn not_found() -> DynamoError {
    DynamoError::new(Exception::ResourceNotFound, "Requested resource not found")
}

/// The same, for operations on tables.
pub fn table_not_found(name: &str) -> DynamoError {
    let why = format!("Requested resource not found: Table: {name} not found");
    DynamoError::new(Exception::ResourceNotFound, why)
}

/// Refuses an item (or a key, if `exact`) that does not fit the schema.
pub fn check_key(schema: &KeySchema, item: &Item, exact: bool) -> Result<()> {
    const SCHEMA: &str = "The provided key element does not match the schema";
    if exact && item.len() != schema.attributes().count() {
        return Err(DynamoError::validation(SCHEMA));
    }
    for (i, key) in schema.attributes().enumerate() {
        let Some(value) = item.get(&key.name) else {
            return Err(DynamoError::validation(match exact {
                true => SCHEMA.to_string(),
                false => format!(
                    "One or more parameter values were invalid: Missing the key {} in the item",
                    key.name
                ),
            }));
        };
        if !key.kind.fits(value) {
            return Err(DynamoError::validation(match exact {
                true => SCHEMA.to_string(),
                false => format!(
                    "One or more parameter values were invalid: Type mismatch for key {} expected: {} actual: {}",
                    key.name,
                    key.kind.name(),
                    value.type_name()
                ),
            }));
        }
        let (kind, length) = match value {
            Value::S(s) => ("string", s.len()),
            Value::B(b) => ("binary", b.len()),
            _ => continue,
        };
        if length == 0 {
            return Err(DynamoError::validation(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty {kind} value. Key: {}",
                key.name
            )));
        }
        let (name, max) = match i {
            0 => ("hashkey", PARTITION_KEY_BYTES_MAX),
            _ => ("rangekey", SORT_KEY_BYTES_MAX),
        };
        if length > max {
            return Err(DynamoError::validation(format!(
                "One or more parameter values were invalid: Size of {name} has exceeded the maximum size limit of{} bytes",
                if i == 0 { format!(" {max}") } else { format!("{max}") }
            )));
        }
    }
    Ok(())
}
