//! DynamoDB's API, version 2012-08-10: requests in JSON to commands of ranges, and back.
//!
//! In reading order: [`backend`] is what the door needs of the cluster, [`json`] and [`request`]
//! read parameters, `expressions` and `legacy` turn both dialects into one, `items`, `pages`,
//! `batch`, `transact` and `tables` are the operations. HTTP is the binary's.
//!
//! Checks come in DynamoDB's order: can it be read, are the values within bounds, do the
//! parameters go together, are the expressions sound, is there the table, does the key fit it.
//!
//! Sources: Amazon DynamoDB API Reference and Developer Guide.

pub mod backend;
mod batch;
mod capacity;
pub mod error;
mod expressions;
mod items;
pub mod json;
mod key_condition;
mod legacy;
mod pages;
pub mod request;
pub mod table;
mod tables;
mod transact;

use backend::Backend;
use error::{DynamoError, Exception};
use rangekv_model::dynamo::command::Verb;
pub(crate) use rangekv_model::dynamo::expr::Kind;
use request::Parameters;
use serde_json::Value as Json;

pub use pages::walk;
pub use transact::MARKED_FOR_MS;

/// Prefix of the `X-Amz-Target` header.
pub const TARGET: &str = "DynamoDB_20120810.";

/// Bytes of a request at most.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Who asks, as far as answers depend on it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// By the request's signature; shown in ARNs.
    pub region: String,
    /// `Host` header.
    pub host: String,
}

/// The operations, by name.
pub const OPERATIONS: [&str; 22] = [
    "BatchGetItem",
    "BatchWriteItem",
    "CreateTable",
    "DeleteItem",
    "DeleteTable",
    "DescribeEndpoints",
    "DescribeLimits",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "ListTables",
    "ListTagsOfResource",
    "PutItem",
    "Query",
    "Scan",
    "TagResource",
    "TransactGetItems",
    "TransactWriteItems",
    "UntagResource",
    "UpdateItem",
    "UpdateTable",
    "UpdateTimeToLive",
];

/// Answers one request: the body of the response.
pub async fn answer<B: Backend>(
    backend: &B,
    caller: &Caller,
    target: &str,
    body: &[u8],
) -> Result<String, DynamoError> {
    let operation = target.strip_prefix(TARGET).unwrap_or_default();
    if !OPERATIONS.contains(&operation) {
        return Err(DynamoError::new(Exception::UnknownOperation, target));
    }
    let json: Json = serde_json::from_slice(body)
        .map_err(|e| DynamoError::serialization(format!("the body is not JSON: {e}")))?;
    let request = Parameters::of(&json)?;
    let answer = match operation {
        // Items are written as they are met, not made into a tree of JSON first.
        "GetItem" => return items::get(backend, request).await,
        "Query" => return pages::query(backend, request).await,
        "Scan" => return pages::scan(backend, request).await,
        "PutItem" => items::write(backend, request, Verb::Put).await,
        "UpdateItem" => items::write(backend, request, Verb::Update).await,
        "DeleteItem" => items::write(backend, request, Verb::Delete).await,
        "BatchGetItem" => batch::get(backend, request).await,
        "BatchWriteItem" => batch::write(backend, request).await,
        "TransactGetItems" => transact::get(backend, request).await,
        "TransactWriteItems" => transact::write(backend, request).await,
        "CreateTable" => tables::create(backend, caller, request).await,
        "DeleteTable" => tables::delete(backend, caller, request).await,
        "DescribeTable" => tables::describe_table(backend, caller, request).await,
        "ListTables" => tables::list(backend, request).await,
        "UpdateTable" => tables::update_table(backend, caller, request).await,
        "TagResource" => tables::tag(backend, request).await,
        "UntagResource" => tables::untag(backend, request).await,
        "ListTagsOfResource" => tables::list_tags(backend, request).await,
        "UpdateTimeToLive" => tables::update_ttl(backend, request).await,
        "DescribeTimeToLive" => tables::describe_ttl(backend, request).await,
        "DescribeLimits" => Ok(tables::limits()),
        "DescribeEndpoints" => Ok(tables::endpoints(caller)),
        _ => Err(DynamoError::new(Exception::UnknownOperation, target)),
    };
    answer.map(|json| match json {
        Json::Null => String::new(),
        json => json.to_string(),
    })
}
