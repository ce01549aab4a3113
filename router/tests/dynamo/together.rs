//! Batches and transactions.

use crate::cluster::Cluster;
use futures::executor::block_on;
use rangekv_model::dynamo::keys;
use rangekv_model::dynamo::number::Number;
use rangekv_model::dynamo::value::Value;
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
    let both = |condition: &str| json!({ "TransactItems": [add(1, "attribute_not_exists(gone)"), add(2, condition)] });
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

fn count(sk: i64) -> Json {
    json!({ "Update": {
        "TableName": "tab", "Key": key("a", sk), "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": { ":one": { "N": "1" } },
    } })
}

fn once(items: &[Json], token: &str) -> Json {
    json!({ "TransactItems": items, "ClientRequestToken": token, "ReturnConsumedCapacity": "TOTAL" })
}

fn counts(c: &Cluster) -> Vec<String> {
    let items = c.ok("Scan", json!({ "TableName": "tab" }))["Items"].clone();
    let count = |item: &Json| item["n"]["N"].as_str().unwrap().to_owned();
    items.as_array().unwrap().iter().map(count).collect()
}

#[test]
fn a_repeated_transaction_is_done_once() {
    let c = Cluster::with_table();
    let marked = || block_on(c.table("tab")).unwrap().unwrap().tokens_ms;
    let both = once(&[count(1), count(2)], "t-1");
    let wrote = json!([{ "TableName": "tab", "CapacityUnits": 4.0, "WriteCapacityUnits": 4.0 }]);
    assert_eq!(marked(), 0);
    assert_eq!(
        c.ok("TransactWriteItems", both.clone())["ConsumedCapacity"],
        wrote
    );
    assert_eq!(marked(), c.now_ms());
    // Done before: it costs what reading costs.
    let read = json!([{ "TableName": "tab", "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0 }]);
    *c.elapsed_ms.lock() += 599_999;
    assert_eq!(
        c.ok("TransactWriteItems", both.clone())["ConsumedCapacity"],
        read
    );
    assert_eq!(counts(&c), ["1", "1"]);
    let (name, _) = c.refused("TransactWriteItems", once(&[count(1), count(3)], "t-1"));
    assert_eq!(name, "IdempotentParameterMismatchException");
    assert_eq!(counts(&c), ["1", "1"]);
    // The items have come to lie in two ranges.
    let table = block_on(c.table("tab")).unwrap().unwrap().id;
    let pk = Value::S("a".into());
    let second = keys::item(table, &pk, Some(&Value::N(Number::parse("2").unwrap())));
    let before = c.cuts.lock().clone();
    c.cut(second);
    assert_eq!(
        c.ok("TransactWriteItems", both.clone())["ConsumedCapacity"],
        read
    );
    let (_, why) = c.refused("TransactWriteItems", once(&[count(1), count(2)], "t-2"));
    assert!(why.contains("several ranges"), "{why}");
    assert_eq!(counts(&c), ["1", "1"]);
    *c.cuts.lock() = before;
    // Ten minutes are over.
    *c.elapsed_ms.lock() += 1;
    let again = c.ok("TransactWriteItems", once(&[count(1)], "t-1"));
    assert_eq!(again["ConsumedCapacity"][0]["WriteCapacityUnits"], 2.0);
    assert_eq!(counts(&c), ["2", "1"]);
    assert_eq!(marked(), c.now_ms());
    // Without a token nothing is remembered.
    for expected in ["3", "4"] {
        c.ok("TransactWriteItems", json!({ "TransactItems": [count(1)] }));
        assert_eq!(counts(&c)[0], expected);
    }
}

#[test]
fn tokens_have_one_to_36_characters() {
    let c = Cluster::with_table();
    for (token, rule) in [
        (String::new(), "greater than or equal to 1"),
        ("x".repeat(37), "less than or equal to 36"),
    ] {
        let (name, why) = c.refused("TransactWriteItems", once(&[count(1)], &token));
        assert_eq!(name, "ValidationException");
        assert_eq!(why, format!("1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: Member must have length {rule}"));
    }
    let number = json!({ "TransactItems": [count(1)], "ClientRequestToken": 5 });
    assert_eq!(
        c.refused("TransactWriteItems", number).0,
        "SerializationException"
    );
    c.ok("TransactWriteItems", once(&[count(1)], &"é".repeat(36)));
}
