//! Tables, from their creation to their deletion.

use crate::cluster::{create, Cluster};
use serde_json::{json, Value as Json};

#[test]
fn a_table_from_creation_to_deletion() {
    let c = Cluster::default();
    let made = c.ok("CreateTable", create("abc", "id", Some("at")))["TableDescription"].clone();
    assert_eq!(made["TableStatus"], "ACTIVE");
    assert_eq!(
        made["TableArn"],
        "arn:aws:dynamodb:eu-north-1:000000000000:table/abc"
    );
    assert_eq!(made["CreationDateTime"], 1_700_000_000.0);
    assert_eq!(made["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(
        made["KeySchema"][1],
        json!({ "AttributeName": "at", "KeyType": "RANGE" })
    );
    let (name, why) = c.refused("CreateTable", create("abc", "id", None));
    assert_eq!(
        (&*name, &*why),
        ("ResourceInUseException", "Table already exists: abc")
    );
    let table = json!({ "TableName": "abc" });
    assert_eq!(c.ok("DescribeTable", table.clone())["Table"], made);
    let protect = |on: bool| json!({ "TableName": "abc", "DeletionProtectionEnabled": on });
    c.ok("UpdateTable", protect(true));
    assert!(c
        .refused("DeleteTable", table.clone())
        .1
        .contains("protected against deletion"));
    c.ok("UpdateTable", protect(false));
    assert_eq!(
        c.ok("DeleteTable", table.clone())["TableDescription"]["TableStatus"],
        "DELETING"
    );
    assert_eq!(
        c.refused("DeleteTable", table.clone()).0,
        "ResourceInUseException"
    );
    let get = json!({ "TableName": "abc", "Key": { "id": { "S": "a" }, "at": { "N": "1" } } });
    assert_eq!(c.refused("GetItem", get).0, "ResourceNotFoundException");
    let absent = json!({ "TableName": "nothing" });
    assert_eq!(
        c.refused("DescribeTable", absent).1,
        "Requested resource not found: Table: nothing not found"
    );
}

#[test]
fn names_come_in_pages() {
    let c = Cluster::default();
    assert_eq!(c.ok("ListTables", json!({})), json!({ "TableNames": [] }));
    for name in ["ccc", "aaa", "bbb"] {
        c.ok("CreateTable", create(name, "id", None));
    }
    let page = c.ok("ListTables", json!({ "Limit": 2 }));
    assert_eq!(
        page,
        json!({ "TableNames": ["aaa", "bbb"], "LastEvaluatedTableName": "bbb" })
    );
    let page = c.ok("ListTables", json!({ "ExclusiveStartTableName": "bbb" }));
    assert_eq!(page, json!({ "TableNames": ["ccc"] }));
    let why = "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1";
    assert_eq!(c.refused("ListTables", json!({ "Limit": 0 })).1, why);
}

#[test]
fn wrong_definitions() {
    let c = Cluster::default();
    let with = |change: &dyn Fn(&mut Json)| {
        let mut request = create("abc", "id", Some("at"));
        change(&mut request);
        c.refused("CreateTable", request).1
    };
    assert!(with(&|r| r["KeySchema"][0]["KeyType"] = "RANGE".into())
        .contains("first KeySchemaElement is not a HASH"));
    assert!(with(&|r| r["KeySchema"][1]["AttributeName"] = "no".into()).contains("Some index key attributes are not defined in AttributeDefinitions. Keys: [id, no], AttributeDefinitions: [at, id]"));
    assert!(
        with(&|r| drop(r["KeySchema"].as_array_mut().unwrap().pop()))
            .contains("Number of attributes in KeySchema does not exactly match")
    );
    assert!(with(&|r| r["BillingMode"] = "PROVISIONED".into())
        .contains("must both be specified when BillingMode is PROVISIONED"));
    assert!(with(&|r| r["ProvisionedThroughput"] =
        json!({ "ReadCapacityUnits": 1, "WriteCapacityUnits": 1 }))
    .contains("Neither ReadCapacityUnits"));
    assert!(with(&|r| r["GlobalSecondaryIndexes"] = json!([{}]))
        .contains("Global secondary indexes are not supported yet"));
    assert!(
        with(&|r| r["AttributeDefinitions"][0]["AttributeType"] = "BOOL".into())
            .contains("Member must satisfy enum value set: [B, N, S]")
    );
}

#[test]
fn throughput_tags_and_time_to_live() {
    let c = Cluster::default();
    c.ok("CreateTable", create("abc", "id", None));
    let throughput = json!({ "TableName": "abc", "BillingMode": "PROVISIONED", "ProvisionedThroughput": { "ReadCapacityUnits": 3, "WriteCapacityUnits": 4 } });
    let changed = c.ok("UpdateTable", throughput.clone())["TableDescription"].clone();
    assert_eq!(changed["ProvisionedThroughput"]["WriteCapacityUnits"], 4);
    assert_eq!(changed.get("BillingModeSummary"), None);
    assert!(c
        .refused("UpdateTable", throughput)
        .1
        .contains("will not change"));
    let arn = changed["TableArn"].clone();
    c.ok("TagResource", json!({ "ResourceArn": arn, "Tags": [{ "Key": "a", "Value": "1" }, { "Key": "b", "Value": "2" }] }));
    c.ok(
        "UntagResource",
        json!({ "ResourceArn": arn, "TagKeys": ["a"] }),
    );
    assert_eq!(
        c.ok("ListTagsOfResource", json!({ "ResourceArn": arn })),
        json!({ "Tags": [{ "Key": "b", "Value": "2" }] })
    );
    let ttl = |on: bool| json!({ "TableName": "abc", "TimeToLiveSpecification": { "AttributeName": "till", "Enabled": on } });
    assert_eq!(
        c.refused("UpdateTimeToLive", ttl(false)).1,
        "TimeToLive is already disabled"
    );
    c.ok("UpdateTimeToLive", ttl(true));
    let described = c.ok("DescribeTimeToLive", json!({ "TableName": "abc" }));
    assert_eq!(
        described["TimeToLiveDescription"],
        json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": "till" })
    );
    c.ok("UpdateTimeToLive", ttl(false));
    assert_eq!(
        c.ok("DescribeEndpoints", json!({}))["Endpoints"][0]["Address"],
        "localhost:8000"
    );
}
