//! Requests that nobody would write: whatever comes in, nothing panics, each error is one that
//! DynamoDB documents and the client's own fault, and what was stored can be read.

use crate::cluster::{create, Cluster};
use futures::executor::block_on;
use proptest::prelude::*;
use proptest::sample::{select, Index};
use rangekv_router::dynamo::error::Exception;
use rangekv_router::dynamo::{answer, Caller, OPERATIONS, TARGET};
use serde_json::{json, Map, Value as Json};

/// Requests of each operation that are as they should be.
fn requests() -> Vec<(&'static str, Json)> {
    let key = json!({ "pk": { "S": "a" }, "sk": { "N": "1" } });
    let item = json!({
        "pk": { "S": "a" }, "sk": { "N": "1" }, "n": { "N": "1.5e3" }, "b": { "B": "AP8=" },
        "l": { "L": [{ "S": "x" }, { "BOOL": true }, { "NULL": true }] },
        "m": { "M": { "x": { "M": { "y": { "N": "1" } } } } },
        "ss": { "SS": ["a", "b"] }, "ns": { "NS": ["1", "2"] }, "bs": { "BS": ["AA==", ""] },
    });
    let values = json!({ ":a": { "S": "a" }, ":one": { "N": "1" } });
    let conditional = json!({
        "TableName": "tab", "Item": item, "ConditionExpression": "attribute_not_exists(#n) OR size(l) > :one",
        "ExpressionAttributeNames": { "#n": "name" }, "ExpressionAttributeValues": { ":one": { "N": "1" } },
        "ReturnValues": "ALL_OLD", "ReturnConsumedCapacity": "INDEXES",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD", "ReturnItemCollectionMetrics": "SIZE",
    });
    let update = json!({
        "TableName": "tab", "Key": key,
        "UpdateExpression": "SET l[0] = :a, m.x.z = if_not_exists(n, :one) + :one REMOVE b ADD n :one",
        "ConditionExpression": "pk = :a AND n BETWEEN :one AND :one",
        "ExpressionAttributeValues": values, "ReturnValues": "UPDATED_NEW",
    });
    let older = json!({
        "TableName": "tab", "Key": key, "ConditionalOperator": "OR",
        "AttributeUpdates": { "n": { "Action": "ADD", "Value": { "N": "1" } }, "b": { "Action": "DELETE" } },
        "Expected": {
            "n": { "ComparisonOperator": "BETWEEN", "AttributeValueList": [{ "N": "1" }, { "N": "2" }] },
            "x": { "Exists": false },
        },
    });
    let arn = "arn:aws:dynamodb:eu-north-1:000000000000:table/tab";
    vec![
        ("PutItem", conditional),
        ("UpdateItem", update.clone()),
        ("UpdateItem", older),
        (
            "DeleteItem",
            json!({ "TableName": "tab", "Key": key, "Expected": { "n": { "Value": { "N": "1" } } } }),
        ),
        (
            "GetItem",
            json!({ "TableName": arn, "Key": key, "ProjectionExpression": "l[0], m.x", "ConsistentRead": true }),
        ),
        (
            "GetItem",
            json!({ "TableName": "tab", "Key": key, "AttributesToGet": ["pk", "n"] }),
        ),
        (
            "Query",
            json!({
                "TableName": "tab", "KeyConditionExpression": "pk = :a AND sk >= :one",
                "FilterExpression": "contains(ss, :a) OR NOT begins_with(n, :a)", "ExpressionAttributeValues": values,
                "Limit": 3, "ScanIndexForward": false, "Select": "COUNT", "ExclusiveStartKey": key,
            }),
        ),
        (
            "Query",
            json!({
                "TableName": "tab",
                "KeyConditions": { "pk": { "ComparisonOperator": "EQ", "AttributeValueList": [{ "S": "a" }] } },
                "QueryFilter": { "n": { "ComparisonOperator": "NOT_NULL" } },
            }),
        ),
        (
            "Scan",
            json!({
                "TableName": "tab", "Segment": 1, "TotalSegments": 4, "Limit": 2,
                "FilterExpression": "attribute_type(n, :t) AND n IN (:one, :t)",
                "ExpressionAttributeValues": { ":t": { "S": "N" }, ":one": { "N": "1" } },
                "ProjectionExpression": "pk, #s", "ExpressionAttributeNames": { "#s": "size" },
            }),
        ),
        (
            "Scan",
            json!({ "TableName": "tab", "ScanFilter": { "ss": { "ComparisonOperator": "NOT_CONTAINS", "AttributeValueList": [{ "S": "a" }] } } }),
        ),
        (
            "BatchGetItem",
            json!({ "RequestItems": { "tab": { "Keys": [key], "ProjectionExpression": "n" } }, "ReturnConsumedCapacity": "TOTAL" }),
        ),
        (
            "BatchWriteItem",
            json!({ "RequestItems": { "tab": [
            { "PutRequest": { "Item": item } },
            { "DeleteRequest": { "Key": { "pk": { "S": "b" }, "sk": { "N": "2" } } } },
        ] } }),
        ),
        (
            "TransactGetItems",
            json!({ "TransactItems": [{ "Get": { "TableName": "tab", "Key": key } }] }),
        ),
        (
            "TransactWriteItems",
            json!({ "ClientRequestToken": "token", "TransactItems": [
            { "Update": update },
            { "ConditionCheck": {
                "TableName": "tab", "Key": { "pk": { "S": "a" }, "sk": { "N": "2" } },
                "ConditionExpression": "attribute_not_exists(pk)",
            } },
            { "Delete": { "TableName": "tab", "Key": { "pk": { "S": "a" }, "sk": { "N": "3" } } } },
        ] }),
        ),
        ("CreateTable", create("other", "pk", Some("sk"))),
        (
            "CreateTable",
            json!({
                "TableName": "third", "AttributeDefinitions": [{ "AttributeName": "k", "AttributeType": "B" }],
                "KeySchema": [{ "AttributeName": "k", "KeyType": "HASH" }], "TableClass": "STANDARD",
                "ProvisionedThroughput": { "ReadCapacityUnits": 5, "WriteCapacityUnits": 5 },
                "Tags": [{ "Key": "team", "Value": "a" }], "DeletionProtectionEnabled": true,
                "StreamSpecification": { "StreamEnabled": false }, "SSESpecification": { "Enabled": false },
            }),
        ),
        ("DescribeTable", json!({ "TableName": "tab" })),
        (
            "ListTables",
            json!({ "Limit": 5, "ExclusiveStartTableName": "aaa" }),
        ),
        (
            "UpdateTable",
            json!({ "TableName": "tab", "BillingMode": "PROVISIONED", "ProvisionedThroughput": { "ReadCapacityUnits": 1, "WriteCapacityUnits": 2 } }),
        ),
        (
            "UpdateTable",
            json!({ "TableName": "tab", "DeletionProtectionEnabled": true, "TableClass": "STANDARD_INFREQUENT_ACCESS" }),
        ),
        ("DeleteTable", json!({ "TableName": "tab" })),
        (
            "TagResource",
            json!({ "ResourceArn": arn, "Tags": [{ "Key": "team", "Value": "b" }] }),
        ),
        (
            "UntagResource",
            json!({ "ResourceArn": arn, "TagKeys": ["team"] }),
        ),
        ("ListTagsOfResource", json!({ "ResourceArn": arn })),
        (
            "UpdateTimeToLive",
            json!({ "TableName": "tab", "TimeToLiveSpecification": { "AttributeName": "ttl", "Enabled": true } }),
        ),
        ("DescribeTimeToLive", json!({ "TableName": "tab" })),
        ("DescribeLimits", json!({})),
        ("DescribeEndpoints", json!({})),
    ]
}

/// Words of expressions, in any order.
fn expressions() -> impl Strategy<Value = String> {
    let words = vec![
        "SET",
        "REMOVE",
        "ADD",
        "DELETE",
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "+",
        "-",
        "(",
        ")",
        "[",
        "]",
        "[0]",
        "[99999999999]",
        ",",
        ".",
        "pk",
        "sk",
        "n",
        "l",
        "m.x.y",
        "ss",
        "#n",
        "#",
        ":a",
        ":one",
        ":",
        "size(l)",
        "size",
        "contains",
        "begins_with(pk, :a)",
        "attribute_exists(n)",
        "attribute_type(n, :a)",
        "if_not_exists",
        "list_append(l, l)",
        "é",
        "0",
        "\u{0}",
        " ",
        "",
    ];
    prop::collection::vec(select(words), 0..12).prop_map(|words| words.join(" "))
}

fn texts() -> impl Strategy<Value = String> {
    let odd = vec![
        "",
        "a",
        "tab",
        "none",
        "pk",
        "1",
        "-0",
        "1e126",
        "1E-131",
        "NaN",
        "0x1",
        "1e99999999999",
        "99999999999999999999999999999999999999",
        "999999999999999999999999999999999999999",
        "AA==",
        "AA",
        "=",
        "ALL_OLD",
        "NONE",
        "TOTAL",
        "é\u{0}",
        "arn:aws:dynamodb:::table/tab",
        "true",
    ];
    let odd = select(odd).prop_map(str::to_owned);
    prop_oneof![3 => odd, 3 => expressions(), 1 => ".{0,8}", 1 => "[a-z]{1,300}"]
}

fn numbers() -> impl Strategy<Value = Json> {
    prop_oneof![
        select(vec![0, 1, -1, 100, 101, 1 << 31, i64::MAX, i64::MIN]).prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(|f| json!(f)),
    ]
}

fn names() -> impl Strategy<Value = String> {
    let known = vec![
        "S",
        "N",
        "B",
        "BOOL",
        "NULL",
        "L",
        "M",
        "SS",
        "NS",
        "BS",
        "pk",
        "sk",
        "n",
        "tab",
        "none",
        ":a",
        ":one",
        "#n",
        "TableName",
        "Key",
        "Item",
        "Keys",
        "ConditionExpression",
        "UpdateExpression",
        "FilterExpression",
        "ProjectionExpression",
        "KeyConditionExpression",
        "ExpressionAttributeValues",
        "ExpressionAttributeNames",
        "Expected",
        "AttributeUpdates",
        "ExclusiveStartKey",
        "Limit",
        "Select",
        "IndexName",
        "ReturnValues",
        "Segment",
        "TotalSegments",
        "ClientRequestToken",
        "GlobalSecondaryIndexes",
        "Put",
        "Delete",
        "Action",
        "Value",
        "Exists",
        "ComparisonOperator",
        "AttributeValueList",
        "",
    ];
    prop_oneof![4 => select(known).prop_map(str::to_owned), 1 => texts()]
}

fn values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::from),
        2 => numbers(),
        4 => texts().prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((names(), inner), 0..3)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// What is done to one place of a request.
#[derive(Clone, Debug)]
enum Change {
    Replace(Json),
    Remove,
    Rename(String),
    Add(String, Json),
    Deepen(usize),
}

fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let change = prop_oneof![
        4 => values().prop_map(Change::Replace),
        3 => texts().prop_map(|text| Change::Replace(text.into())),
        2 => Just(Change::Remove),
        1 => names().prop_map(Change::Rename),
        2 => (names(), values()).prop_map(|(name, value)| Change::Add(name, value)),
        1 => (1..40usize).prop_map(Change::Deepen),
    ];
    prop::collection::vec((any::<Index>(), change), 0..4)
}

/// All places within `json`, as JSON pointers.
fn places(json: &Json, at: String, found: &mut Vec<String>) {
    found.push(at.clone());
    match json {
        Json::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                places(inner, format!("{at}/{i}"), found);
            }
        }
        Json::Object(members) => {
            for (name, inner) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(inner, format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

fn change(json: &mut Json, at: Index, change: Change) {
    let mut all = Vec::new();
    places(json, String::new(), &mut all);
    let place = all[at.index(all.len())].clone();
    let (above, name) = place.rsplit_once('/').unwrap_or_default();
    let name = name.replace("~1", "/").replace("~0", "~");
    match change {
        Change::Replace(value) => *json.pointer_mut(&place).expect("listed") = value,
        Change::Remove | Change::Rename(_) => match json.pointer_mut(above) {
            Some(Json::Object(members)) => {
                let value = members.remove(&name);
                if let (Change::Rename(name), Some(value)) = (change, value) {
                    members.insert(name, value);
                }
            }
            Some(Json::Array(list)) if !list.is_empty() => drop(list.pop()),
            _ => {}
        },
        Change::Add(name, value) => match json.pointer_mut(&place).expect("listed") {
            Json::Object(members) => drop(members.insert(name, value)),
            Json::Array(list) => list.push(value),
            _ => {}
        },
        Change::Deepen(levels) => {
            let place = json.pointer_mut(&place).expect("listed");
            for _ in 0..levels {
                let inner = std::mem::take(place);
                *place = json!({ "L": [inner] });
            }
        }
    }
}

/// Asks, and looks at what is answered.
fn ask(c: &Cluster, target: &str, body: &[u8]) -> Result<(), TestCaseError> {
    let caller = Caller {
        region: "eu-north-1".into(),
        host: "localhost".into(),
    };
    let Err(error) = block_on(answer(c, &caller, target, body)) else {
        return Ok(());
    };
    let fault = [
        Exception::Internal,
        Exception::Unavailable,
        Exception::Throttling,
    ];
    prop_assert!(!fault.contains(&error.kind), "{target}: {error:?}");
    prop_assert_eq!(error.kind.status(), 400);
    let json = error.to_json();
    let name = json["__type"]
        .as_str()
        .and_then(|name| name.rsplit('#').next());
    prop_assert!(
        Exception::SHORT_NAMES.contains(&name.unwrap_or_default()),
        "{}",
        json
    );
    Ok(())
}

/// A cluster with an item in its table.
fn with_item() -> Cluster {
    let c = Cluster::with_table();
    let (operation, mut put) = requests().remove(0);
    put.as_object_mut()
        .expect("an object")
        .retain(|name, _| matches!(&**name, "TableName" | "Item"));
    c.ok(operation, put);
    c
}

#[test]
fn the_requests_themselves_are_understood() {
    for (operation, request) in requests() {
        match with_item().ask(operation, request.clone()) {
            Ok(_) => {}
            Err((name, why)) => assert!(
                [
                    "ConditionalCheckFailedException",
                    "TransactionCanceledException"
                ]
                .contains(&&*name),
                "{operation} {request}: {name} {why}"
            ),
        }
    }
    let asked: Vec<&str> = requests().iter().map(|(operation, _)| *operation).collect();
    assert!(OPERATIONS.iter().all(|operation| asked.contains(operation)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_request_is_our_fault(
        (operation, request) in select(requests()),
        changes in changes(),
        more in changes(),
    ) {
        let c = with_item();
        for changes in [changes, more] {
            let mut request = request.clone();
            for (at, what) in changes {
                change(&mut request, at, what);
            }
            ask(&c, &format!("{TARGET}{operation}"), request.to_string().as_bytes())?;
        }
        // Whatever was written can be read.
        let scan = json!({ "TableName": "tab" }).to_string();
        ask(&c, &format!("{TARGET}Scan"), scan.as_bytes())?;
    }

    #[test]
    fn no_expression_is_our_fault(
        update in expressions(), condition in expressions(), projection in expressions(),
        named in any::<[bool; 3]>(),
    ) {
        let c = with_item();
        let mut members = Map::new();
        members.insert("TableName".into(), "tab".into());
        if named[0] {
            members.insert("ExpressionAttributeNames".into(), json!({ "#n": "n" }));
        }
        if named[1] {
            members.insert("ExpressionAttributeValues".into(), json!({ ":a": { "S": "a" } }));
        }
        if named[2] {
            members.insert("ExpressionAttributeValues".into(), json!({ ":one": { "N": "1" }, ":a": { "SS": ["a"] } }));
        }
        let key = json!({ "pk": { "S": "a" }, "sk": { "N": "1" } });
        for (operation, parameters) in [
            ("UpdateItem", vec![("UpdateExpression", &update), ("ConditionExpression", &condition)]),
            ("Query", vec![("KeyConditionExpression", &condition), ("FilterExpression", &update)]),
            ("Scan", vec![("FilterExpression", &condition), ("ProjectionExpression", &projection)]),
            ("GetItem", vec![("ProjectionExpression", &projection)]),
        ] {
            let mut request = members.clone();
            if matches!(operation, "UpdateItem" | "GetItem") {
                request.insert("Key".into(), key.clone());
            }
            for (name, text) in parameters {
                request.insert(name.into(), Json::from(text.as_str()));
            }
            let body = Json::Object(request).to_string();
            ask(&c, &format!("{TARGET}{operation}"), body.as_bytes())?;
        }
    }

    #[test]
    fn no_bytes_are_our_fault(
        operation in select(OPERATIONS.to_vec()),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[{}\\[\\]\":,0-9a-zA-Z\\\\. ]{0,64}".prop_map(String::into_bytes),
        ],
        target in ".{0,20}",
    ) {
        let c = Cluster::with_table();
        ask(&c, &format!("{TARGET}{operation}"), &body)?;
        ask(&c, &target, &body)?;
        // Deeper than any parser's stack.
        let deep = [vec![b'['; 100_000], body].concat();
        ask(&c, &format!("{TARGET}{operation}"), &deep)?;
    }
}
