//! Batches and transactions.

use crate::cluster::Cluster;
use rangekv_router::dynamo::backend::Backend;
use serde_json::{json, Value as Json};

fn key(pk: &str, sk: i64) -> Json {
    json!({ "pk": { "S": pk }, "sk": { "N": sk.to_string() } })
}

fn put(pk: &str, sk: i64) -> Json {
    json!({ "PutRequest": { "Item": key(pk, sk) } })
}

#[test]
fn batches_cross_ranges_and_tell_what_is_left() {
    let c = Cluster::with_table();
    let names: Vec<String> = (0..20).map(|i| format!("p{i}")).collect();
    let writes: Vec<Json> = names.iter().map(|pk| put(pk, 1)).collect();
    let request = json!({ "RequestItems": { "tab": writes }, "ReturnConsumedCapacity": "TOTAL" });
    let answer = c.ok("BatchWriteItem", request.clone());
    assert_eq!(answer["UnprocessedItems"], json!({}));
    assert_eq!(answer["ConsumedCapacity"][0]["CapacityUnits"], 20.0);
    let keys: Vec<Json> = names
        .iter()
        .map(|pk| key(pk, 1))
        .chain([key("absent", 1)])
        .collect();
    let gets = json!({ "RequestItems": { "tab": { "Keys": keys, "ConsistentRead": true } } });
    let answer = c.ok("BatchGetItem", gets.clone());
    assert_eq!(answer["Responses"]["tab"].as_array().unwrap().len(), 20);
    assert_eq!(answer["UnprocessedKeys"], json!({}));
    let first = answer["Responses"]["tab"][0].clone();
    assert_eq!(first, key("p0", 1));
    // One range can't be reached.
    let first_cut = c.cuts.lock()[0].clone();
    let lost = c.range_of(&first_cut);
    *c.away.lock() = lost;
    let answer = c.ok("BatchGetItem", gets);
    let there = answer["Responses"]["tab"].as_array().unwrap().len();
    let left = answer["UnprocessedKeys"]["tab"]["Keys"]
        .as_array()
        .unwrap()
        .len();
    assert!(
        there > 0 && left > 0 && (20..=21).contains(&(there + left)),
        "{there} {left}"
    );
    assert_eq!(answer["UnprocessedKeys"]["tab"]["ConsistentRead"], true);
    let answer = c.ok("BatchWriteItem", request);
    let again = answer["UnprocessedItems"]["tab"].as_array().unwrap();
    assert!(again
        .iter()
        .all(|one| one["PutRequest"]["Item"]["sk"]["N"] == "1"));
    *c.away.lock() = None;
    let rest = json!({ "RequestItems": answer["UnprocessedItems"] });
    assert_eq!(c.ok("BatchWriteItem", rest)["UnprocessedItems"], json!({}));
}

#[test]
fn wrong_batches() {
    let c = Cluster::with_table();
    let write = |list: Json| {
        c.refused("BatchWriteItem", json!({ "RequestItems": { "tab": list } }))
            .1
    };
    assert_eq!(
        write(json!([put("a", 1), put("a", 1)])),
        "Provided list of item keys contains duplicates"
    );
    assert_eq!(
        write((0..26).map(|i| put("a", i)).collect()),
        "Too many items requested for the BatchWriteItem call"
    );
    assert!(write(json!([])).contains("cannot be null or empty"));
    let get = |keys: Json| {
        c.refused(
            "BatchGetItem",
            json!({ "RequestItems": { "tab": { "Keys": keys } } }),
        )
        .1
    };
    assert_eq!(
        get(json!([key("a", 1), key("a", 1)])),
        "Provided list of item keys contains duplicates"
    );
    assert_eq!(
        get((0..101).map(|i| key("a", i)).collect()),
        "Too many items requested for the BatchGetItem call"
    );
    let absent = json!({ "RequestItems": { "absent": [put("a", 1)] } });
    assert_eq!(
        c.refused("BatchWriteItem", absent).0,
        "ResourceNotFoundException"
    );
}

#[test]
fn a_transaction_in_one_range_is_all_or_nothing() {
    let c = Cluster::with_table();
    let add = |sk: i64, condition: &str| {
        json!({ "Update": {
            "TableName": "tab", "Key": key("a", sk), "UpdateExpression": "ADD n :one",
            "ConditionExpression": condition, "ExpressionAttributeValues": { ":one": { "N": "1" } },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        } })
    };
    let both = |condition: &str| json!({ "TransactItems": [add(1, "attribute_not_exists(gone)"), add(2, condition)], "ClientRequestToken": "x" });
    assert_eq!(
        c.ok("TransactWriteItems", both("attribute_not_exists(n)")),
        json!({})
    );
    let (name, why) = c.refused("TransactWriteItems", both("attribute_not_exists(n)"));
    assert_eq!(name, "TransactionCanceledException");
    assert_eq!(why, "Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed]");
    let gets = [1, 2, 3].map(|sk| json!({ "Get": { "TableName": "tab", "Key": key("a", sk), "ProjectionExpression": "n" } }));
    let get = json!({ "TransactItems": gets });
    let one = json!({ "Item": { "n": { "N": "1" } } });
    assert_eq!(
        c.ok("TransactGetItems", get)["Responses"],
        json!([one, one, {}])
    );
    let twice =
        json!({ "TransactItems": [add(1, "attribute_exists(n)"), add(1, "attribute_exists(n)")] });
    assert_eq!(
        c.refused("TransactWriteItems", twice).1,
        "Transaction request cannot include multiple operations on one item"
    );
}

#[test]
fn a_transaction_across_ranges_says_that_it_can_not() {
    let c = Cluster::with_table();
    let items: Vec<Json> = (0..20)
        .map(|i| json!({ "Put": { "TableName": "tab", "Item": key(&format!("p{i}"), 1) } }))
        .collect();
    let (name, why) = c.refused("TransactWriteItems", json!({ "TransactItems": items }));
    assert_eq!(name, "ValidationException");
    assert!(why.contains("several ranges"), "{why}");
    let scan = c.ok("Scan", json!({ "TableName": "tab" }));
    assert_eq!(scan["Count"], 0);
}
