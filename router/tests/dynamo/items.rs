//! Operations on single items.

use crate::cluster::Cluster;
use serde_json::{json, Value as Json};

fn key(pk: &str, sk: i64) -> Json {
    json!({ "pk": { "S": pk }, "sk": { "N": sk.to_string() } })
}

fn item(pk: &str, sk: i64, more: Json) -> Json {
    let mut item = key(pk, sk);
    for (name, value) in more.as_object().unwrap() {
        item[name] = value.clone();
    }
    item
}

#[test]
fn an_item_from_put_to_delete() {
    let c = Cluster::with_table();
    let first = item("a", 1, json!({ "v": { "S": "one" } }));
    assert_eq!(
        c.ok("PutItem", json!({ "TableName": "tab", "Item": first })),
        json!({})
    );
    let get = json!({ "TableName": "tab", "Key": key("a", 1), "ConsistentRead": true, "ReturnConsumedCapacity": "TOTAL" });
    assert_eq!(
        c.ok("GetItem", get.clone()),
        json!({ "Item": first, "ConsumedCapacity": { "TableName": "tab", "CapacityUnits": 1.0 } })
    );
    let second = item("a", 1, json!({ "v": { "S": "two" } }));
    let put = json!({ "TableName": "tab", "Item": second, "ReturnValues": "ALL_OLD", "ReturnConsumedCapacity": "INDEXES" });
    let answer = c.ok("PutItem", put);
    assert_eq!(answer["Attributes"], first);
    assert_eq!(answer["ConsumedCapacity"]["Table"]["CapacityUnits"], 1.0);
    let delete = json!({ "TableName": "tab", "Key": key("a", 1), "ReturnValues": "ALL_OLD" });
    assert_eq!(c.ok("DeleteItem", delete.clone())["Attributes"], second);
    assert_eq!(c.ok("DeleteItem", delete), json!({}));
    assert_eq!(c.ok("GetItem", get)["Item"], Json::Null);
}

#[test]
fn what_an_update_returns() {
    let c = Cluster::with_table();
    c.ok("PutItem", json!({ "TableName": "tab", "Item": item("a", 1, json!({ "n": { "N": "1" }, "m": { "M": { "x": { "N": "1" }, "y": { "N": "2" } } } })) }));
    for (wanted, attributes) in [
        ("NONE", Json::Null),
        (
            "UPDATED_OLD",
            json!({ "n": { "N": "2" }, "m": { "M": { "x": { "N": "2" } } } }),
        ),
        (
            "UPDATED_NEW",
            json!({ "n": { "N": "4" }, "m": { "M": { "x": { "N": "4" } } } }),
        ),
        (
            "ALL_OLD",
            item(
                "a",
                1,
                json!({ "n": { "N": "4" }, "m": { "M": { "x": { "N": "4" }, "y": { "N": "2" } } } }),
            ),
        ),
        (
            "ALL_NEW",
            item(
                "a",
                1,
                json!({ "n": { "N": "6" }, "m": { "M": { "x": { "N": "6" }, "y": { "N": "2" } } } }),
            ),
        ),
    ] {
        let update = json!({
            "TableName": "tab", "Key": key("a", 1), "ReturnValues": wanted,
            "UpdateExpression": "SET n = n + :one, #m.x = #m.x + :one",
            "ExpressionAttributeNames": { "#m": "m" },
            "ExpressionAttributeValues": { ":one": { "N": "1" } },
        });
        assert_eq!(
            c.ok("UpdateItem", update)["Attributes"],
            attributes,
            "{wanted}"
        );
    }
}

#[test]
fn conditions_guard_writes() {
    let c = Cluster::with_table();
    let put = json!({ "TableName": "tab", "Item": key("a", 1), "ConditionExpression": "attribute_not_exists(pk)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD" });
    c.ok("PutItem", put.clone());
    let (name, why) = c.refused("PutItem", put);
    assert_eq!(
        (&*name, &*why),
        (
            "ConditionalCheckFailedException",
            "The conditional request failed"
        )
    );
    let legacy = |exists: bool| json!({ "TableName": "tab", "Key": key("a", 1), "Expected": { "pk": { "Exists": exists, "Value": { "S": "a" } } } });
    c.ok("DeleteItem", legacy(true));
    assert_eq!(
        c.refused("DeleteItem", legacy(true)).0,
        "ConditionalCheckFailedException"
    );
    assert!(c
        .refused("DeleteItem", legacy(false))
        .1
        .contains("Value cannot be used when Exists is false"));
}

#[test]
fn older_updates_are_the_same_as_expressions() {
    let c = Cluster::with_table();
    let update = json!({
        "TableName": "tab", "Key": key("a", 1), "ReturnValues": "ALL_NEW",
        "AttributeUpdates": {
            "n": { "Action": "ADD", "Value": { "N": "5" } },
            "s": { "Action": "PUT", "Value": { "S": "x" } },
            "l": { "Action": "ADD", "Value": { "L": [{ "S": "e" }] } },
            "gone": { "Action": "DELETE" },
        },
    });
    c.ok("UpdateItem", update.clone());
    assert_eq!(
        c.ok("UpdateItem", update)["Attributes"],
        item(
            "a",
            1,
            json!({ "n": { "N": "10" }, "s": { "S": "x" }, "l": { "L": [{ "S": "e" }, { "S": "e" }] } })
        )
    );
    let mixed = json!({ "TableName": "tab", "Key": key("a", 1), "AttributeUpdates": {}, "UpdateExpression": "REMOVE n" });
    assert_eq!(
        c.refused("UpdateItem", mixed).1,
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributeUpdates} Expression parameters: {UpdateExpression}"
    );
}

#[test]
fn wrong_requests() {
    let c = Cluster::with_table();
    let long = "x".repeat(410_000);
    for (operation, request, name, why) in [
        ("GetItem", json!({ "Key": key("a", 1) }), "ValidationException", "The parameter 'TableName' is required but was not present in the request"),
        ("GetItem", json!({ "TableName": "x", "Key": key("a", 1) }), "ValidationException", "Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'"),
        ("GetItem", json!({ "TableName": "absent", "Key": key("a", 1) }), "ResourceNotFoundException", "Requested resource not found"),
        ("GetItem", json!({ "TableName": 5, "Key": key("a", 1) }), "SerializationException", "NUMBER_VALUE cannot be converted to String"),
        ("GetItem", json!({ "TableName": "tab" }), "ValidationException", "1 validation error detected: Value null at 'key' failed to satisfy constraint: Member must not be null"),
        ("GetItem", json!({ "TableName": "arn:aws:dynamodb:eu-north-1:000000000000:table/ttt", "Key": { "pk": { "S": "a" } } }), "ResourceNotFoundException", "Requested resource not found"),
        ("PutItem", json!({ "TableName": "tab", "Item": key("a", 1), "ReturnValues": "ALL_NEW" }), "ValidationException", "Return values set to invalid value"),
        ("PutItem", json!({ "TableName": "tab", "Item": key("a", 1), "ReturnValues": "SOME" }), "ValidationException", "1 validation error detected: Value 'SOME' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set: [NONE, ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATED_NEW]"),
        ("PutItem", json!({ "TableName": "tab", "Item": item("a", 1, json!({ "x": { "S": long } })) }), "ValidationException", "Item size has exceeded the maximum allowed size"),
        ("PutItem", json!({ "TableName": "tab", "Item": key("a", 1), "ConditionExpression": "a = :x" }), "ValidationException", "Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :x"),
        ("PutItem", json!({ "TableName": "tab", "Item": key("a", 1), "ExpressionAttributeValues": { ":x": { "S": "a" } } }), "ValidationException", "ExpressionAttributeValues can only be specified when using expressions: ConditionExpression is null"),
        ("UpdateItem", json!({ "TableName": "tab", "Key": key("a", 1), "UpdateExpression": "SET a = :a", "ExpressionAttributeValues": { ":a": { "S": "a" }, ":b": { "S": "a" } } }), "ValidationException", "Value provided in ExpressionAttributeValues unused in expressions: keys: {:b}"),
        ("Frobnicate", json!({}), "UnknownOperationException", "DynamoDB_20120810.Frobnicate"),
    ] {
        assert_eq!(c.refused(operation, request.clone()), (name.to_owned(), why.to_owned()), "{operation}");
    }
}

#[test]
fn keys_fit_their_table() {
    let c = Cluster::with_table();
    c.ok("CreateTable", crate::cluster::create("one", "pk", None));
    let put = |item: Json| {
        c.refused("PutItem", json!({ "TableName": "one", "Item": item }))
            .1
    };
    let get = |key: Json| {
        c.refused("GetItem", json!({ "TableName": "one", "Key": key }))
            .1
    };
    assert_eq!(
        put(json!({})),
        "One or more parameter values were invalid: Missing the key pk in the item"
    );
    assert_eq!(
        put(json!({ "pk": { "N": "1" } })),
        "One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N"
    );
    assert_eq!(put(json!({ "pk": { "S": "" } })), "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk");
    assert!(put(json!({ "pk": { "S": "k".repeat(2049) } }))
        .contains("Size of hashkey has exceeded the maximum size limit of 2048 bytes"));
    for key in [json!({}), json!({ "pk": { "N": "1" } }), key("a", 1)] {
        assert_eq!(
            get(key),
            "The provided key element does not match the schema"
        );
    }
    let update = json!({ "TableName": "one", "Key": { "pk": { "S": "a" } }, "UpdateExpression": "SET pk = :a", "ExpressionAttributeValues": { ":a": { "S": "b" } } });
    assert_eq!(c.refused("UpdateItem", update).1, "One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key");
}

#[test]
fn older_parameters_may_be_about_many_attributes() {
    let c = Cluster::with_table();
    let change = |i: usize| {
        let value = json!({ "Action": "PUT", "Value": { "N": i.to_string() } });
        (format!("attribute-{i}"), value)
    };
    let changes: serde_json::Map<_, _> = (0..1_000).map(change).collect();
    let update = json!({ "TableName": "tab", "Key": key("a", 1), "AttributeUpdates": changes });
    c.ok("UpdateItem", update);
    let names: Vec<String> = (0..1_000).map(|i| format!("attribute-{i}")).collect();
    let get = json!({ "TableName": "tab", "Key": key("a", 1), "AttributesToGet": names });
    let found = c.ok("GetItem", get);
    assert_eq!(
        found["Item"].as_object().map(|item| item.len()),
        Some(1_000)
    );
    // What a client writes itself has its limit.
    let names = vec!["a"; 3_000].join(",");
    let get = json!({ "TableName": "tab", "Key": key("a", 1), "ProjectionExpression": names });
    assert_eq!(
        c.refused("GetItem", get).1,
        "Invalid ProjectionExpression: Expression size has exceeded the maximum allowed size; expression size: 5999"
    );
    let conditions: serde_json::Map<_, _> = (0..301)
        .map(|i| (format!("a{i}"), json!({ "Exists": false })))
        .collect();
    let put = json!({ "TableName": "tab", "Item": key("b", 1), "Expected": conditions });
    assert!(c
        .refused("PutItem", put)
        .1
        .contains("Expected has 301 conditions"));
}

#[test]
fn older_parameters_that_do_not_go_together() {
    let c = Cluster::with_table();
    let base = json!({ "TableName": "tab", "Key": key("a", 1), "ConditionalOperator": "OR" });
    let with = |name: &str, value: Json| {
        let mut request = base.clone();
        request[name] = value;
        request
    };
    let none = json!({ "ComparisonOperator": "NULL" });
    for (operation, request, why) in [
        (
            "DeleteItem",
            base.clone(),
            "ConditionalOperator cannot be used without Filter or Expected",
        ),
        (
            "DeleteItem",
            with("Expected", json!({ "a": none })),
            "ConditionalOperator can only be used when Filter or Expected has two or more elements",
        ),
        (
            "GetItem",
            with("AttributesToGet", json!(["a", "b", "a"])),
            "Duplicate value in attribute name: a",
        ),
    ] {
        let expected = format!("One or more parameter values were invalid: {why}");
        assert_eq!(
            c.refused(operation, request),
            ("ValidationException".into(), expected)
        );
    }
    c.ok(
        "DeleteItem",
        with("Expected", json!({ "a": none, "b": none })),
    );
}
