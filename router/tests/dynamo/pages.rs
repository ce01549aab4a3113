//! Query and Scan, page by page.

use crate::cluster::Cluster;
use serde_json::{json, Value as Json};

fn filled() -> Cluster {
    let c = Cluster::with_table();
    for pk in ["a", "b", "c", "d", "e", "f"] {
        for sk in -2..3 {
            let item = json!({ "pk": { "S": pk }, "sk": { "N": sk.to_string() }, "v": { "N": (sk * 10).to_string() } });
            c.ok("PutItem", json!({ "TableName": "tab", "Item": item }));
        }
    }
    c
}

fn sorts(answer: &Json) -> Vec<i64> {
    let items = answer["Items"].as_array().unwrap();
    items
        .iter()
        .map(|i| i["sk"]["N"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn query(condition: &str, values: Json) -> Json {
    let mut all = json!({ ":p": { "S": "c" } });
    for (name, value) in values.as_object().unwrap() {
        all[name] = value.clone();
    }
    json!({ "TableName": "tab", "KeyConditionExpression": format!("pk = :p{condition}"), "ExpressionAttributeValues": all })
}

#[test]
fn key_conditions() {
    let c = filled();
    let n = |n: i64| json!({ "N": n.to_string() });
    for (condition, values, expected) in [
        ("", json!({}), vec![-2, -1, 0, 1, 2]),
        (" AND sk = :a", json!({ ":a": n(1) }), vec![1]),
        (" AND sk < :a", json!({ ":a": n(0) }), vec![-2, -1]),
        (" AND sk <= :a", json!({ ":a": n(0) }), vec![-2, -1, 0]),
        (" AND sk > :a", json!({ ":a": n(0) }), vec![1, 2]),
        (" AND :a <= sk", json!({ ":a": n(0) }), vec![0, 1, 2]),
        (
            " AND sk BETWEEN :a AND :b",
            json!({ ":a": n(-1), ":b": n(1) }),
            vec![-1, 0, 1],
        ),
    ] {
        let answer = c.ok("Query", query(condition, values));
        assert_eq!(sorts(&answer), expected, "{condition}");
        assert_eq!(answer["Count"], expected.len());
    }
    let mut backwards = query("", json!({}));
    backwards["ScanIndexForward"] = false.into();
    assert_eq!(sorts(&c.ok("Query", backwards)), [2, 1, 0, -1, -2]);
    let older = json!({ "TableName": "tab", "KeyConditions": {
        "pk": { "ComparisonOperator": "EQ", "AttributeValueList": [{ "S": "c" }] },
        "sk": { "ComparisonOperator": "GE", "AttributeValueList": [{ "N": "1" }] },
    }, "QueryFilter": { "v": { "ComparisonOperator": "NE", "AttributeValueList": [{ "N": "10" }] } } });
    assert_eq!(sorts(&c.ok("Query", older)), [2]);
}

#[test]
fn wrong_key_conditions() {
    let c = filled();
    let with = |expression: &str| {
        let mut values = json!({});
        for (name, value) in [(":p", json!({ "S": "c" })), (":a", json!({ "N": "1" }))] {
            if expression.contains(name) {
                values[name] = value;
            }
        }
        let request = json!({ "TableName": "tab", "KeyConditionExpression": expression, "ExpressionAttributeValues": values });
        c.refused("Query", request).1
    };
    assert_eq!(
        with("sk = :a"),
        "Query condition missed key schema element: pk"
    );
    assert_eq!(with("pk > :p"), "Query key condition not supported");
    assert_eq!(
        with("pk = :p AND v = :a"),
        "Query condition missed key schema element: sk"
    );
    assert_eq!(with("pk = :a"), "One or more parameter values were invalid: Condition parameter type does not match schema type");
    assert_eq!(
        with("pk = :p AND sk <> :a"),
        "Invalid KeyConditionExpression: Invalid operator used in KeyConditionExpression: <>"
    );
    assert_eq!(
        with("pk = :p OR sk = :a"),
        "Invalid KeyConditionExpression: Invalid operator used in KeyConditionExpression: OR"
    );
    let mut filtered = query("", json!({ ":v": { "N": "1" } }));
    filtered["FilterExpression"] = "sk = :v".into();
    assert_eq!(
        c.refused("Query", filtered).1,
        "Filter Expression can only contain non-primary key attributes: Primary key attribute: sk"
    );
}

/// All pages of a request, by its `LastEvaluatedKey`; the number of pages too.
fn all(c: &Cluster, operation: &str, request: &Json) -> (Vec<(String, i64)>, usize) {
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut request = request.clone();
    loop {
        let answer = c.ok(operation, request.clone());
        pages += 1;
        let items = answer["Items"].as_array().unwrap();
        found.extend(items.iter().map(|i| {
            let sk = i["sk"]["N"].as_str().unwrap().parse().unwrap();
            (i["pk"]["S"].as_str().unwrap().to_owned(), sk)
        }));
        match answer.get("LastEvaluatedKey") {
            Some(last) => request["ExclusiveStartKey"] = last.clone(),
            None => return (found, pages),
        }
    }
}

#[test]
fn pages_go_on_where_they_ended_over_all_ranges_in_both_directions() {
    let c = filled();
    let mut reference = all(&c, "Scan", &json!({ "TableName": "tab" })).0;
    assert_eq!(reference.len(), 30);
    for limit in [1, 4, 7, 30] {
        let (found, pages) = all(&c, "Scan", &json!({ "TableName": "tab", "Limit": limit }));
        assert_eq!(found, reference);
        assert!(pages >= 30 / limit);
    }
    let mut together: Vec<_> = (0..4)
        .flat_map(|i| {
            all(
                &c,
                "Scan",
                &json!({ "TableName": "tab", "Segment": i, "TotalSegments": 4 }),
            )
            .0
        })
        .collect();
    assert_eq!(together, reference);
    together.sort();
    reference.sort();
    assert_eq!(together, reference);
    // A range that ends within a partition.
    let id = rangekv_model::dynamo::keys::table_of(&c.cuts.lock().last().unwrap().clone()).unwrap();
    let pk = rangekv_model::dynamo::value::Value::S("c".into());
    let sk = rangekv_model::dynamo::value::Value::N(Default::default());
    c.cuts
        .lock()
        .push(rangekv_model::dynamo::keys::item(id, &pk, Some(&sk)));
    c.cuts.lock().sort();
    for forward in [true, false] {
        for limit in 1..6 {
            let mut request = query("", json!({}));
            request["Limit"] = limit.into();
            request["ScanIndexForward"] = forward.into();
            let mut expected: Vec<_> = (-2..3).map(|sk| ("c".to_owned(), sk)).collect();
            if !forward {
                expected.reverse();
            }
            assert_eq!(all(&c, "Query", &request).0, expected, "{limit} {forward}");
        }
    }
}

#[test]
fn filters_counts_and_projections() {
    let c = filled();
    let mut request = query("", json!({ ":v": { "N": "0" } }));
    request["FilterExpression"] = "v > :v".into();
    request["ProjectionExpression"] = "v".into();
    let answer = c.ok("Query", request.clone());
    assert_eq!(
        answer["Items"],
        json!([{ "v": { "N": "10" } }, { "v": { "N": "20" } }])
    );
    assert_eq!(
        (&answer["Count"], &answer["ScannedCount"]),
        (&json!(2), &json!(5))
    );
    let count = json!({ "TableName": "tab", "Select": "COUNT", "ReturnConsumedCapacity": "TOTAL" });
    let answer = c.ok("Scan", count);
    assert_eq!((&answer["Count"], answer.get("Items")), (&json!(30), None));
    assert_eq!(answer["ConsumedCapacity"]["CapacityUnits"], 0.5);
    request["Select"] = "COUNT".into();
    assert!(c.refused("Query", request).1.contains("only the Count"));
    let wrong = json!({ "TableName": "tab", "Segment": 4, "TotalSegments": 4 });
    assert!(c
        .refused("Scan", wrong)
        .1
        .contains("must be less than parameter TotalSegments"));
    let elsewhere = json!({ "TableName": "tab", "ExclusiveStartKey": { "pk": { "S": "c" } } });
    assert!(c
        .refused("Scan", elsewhere)
        .1
        .starts_with("The provided starting key is invalid"));
}
