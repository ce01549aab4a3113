"""DynamoDB as boto3's users use it, each request through another node.

    python3 client.py ENDPOINT...

Prints what was done; ends with an error at the first answer that is not DynamoDB's.
"""

import decimal
import itertools
import sys
import threading

import boto3
import botocore.exceptions
from boto3.dynamodb.conditions import Attr, Key
from botocore.config import Config

ENDPOINTS = sys.argv[1:]


def connect(make, endpoint):
    return make(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="eu-west-3",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"max_attempts": 6}),
    )


class Anywhere:
    """A client whose calls go to the nodes in turn."""

    def __init__(self, make):
        self.turn = itertools.cycle([connect(make, e) for e in ENDPOINTS])
        self.lock = threading.Lock()

    def __getattr__(self, name):
        with self.lock:
            return getattr(next(self.turn), name)


CLIENT = Anywhere(boto3.client)
RESOURCE = Anywhere(boto3.resource)


def refused(code, call, **parameters):
    try:
        answer = call(**parameters)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error.response
    raise AssertionError(f"{code} expected, not {answer}")


def create(name, sort=True):
    keys = [("pk", "HASH", "S")] + ([("sk", "RANGE", "N")] if sort else [])
    CLIENT.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": n, "KeyType": k} for n, k, _ in keys],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": t} for n, _, t in keys],
        BillingMode="PAY_PER_REQUEST",
    )
    CLIENT.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def tables():
    assert CLIENT.list_tables()["TableNames"] == []
    create("music")
    for _ in ENDPOINTS:
        described = CLIENT.describe_table(TableName="music")["Table"]
        assert described["TableStatus"] == "ACTIVE", described
        assert CLIENT.list_tables()["TableNames"] == ["music"]
    refused("ResourceInUseException", lambda: create("music"))
    refused("ResourceNotFoundException", CLIENT.describe_table, TableName="none")
    arn = described["TableArn"]
    CLIENT.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "a"}])
    assert CLIENT.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    create("brief", sort=False)
    CLIENT.delete_table(TableName="brief")
    CLIENT.get_waiter("table_not_exists").wait(TableName="brief", WaiterConfig={"Delay": 1})
    create("brief", sort=False)
    assert RESOURCE.Table("brief").scan()["Count"] == 0


def items():
    item = {
        "pk": "a",
        "sk": decimal.Decimal("1.5"),
        "text": "héllo",
        "nil": None,
        "yes": True,
        "blob": boto3.dynamodb.types.Binary(b"\x00\xff"),
        "list": [1, "two", {"three": {"four"}}],
        "numbers": {decimal.Decimal("12345678901234567890123456789012345678"), decimal.Decimal(-1)},
    }
    RESOURCE.Table("music").put_item(Item=item)
    key = {"pk": "a", "sk": decimal.Decimal("1.5")}
    for _ in ENDPOINTS:
        found = RESOURCE.Table("music").get_item(Key=key, ConsistentRead=True)["Item"]
        assert found == item, found
    updated = RESOURCE.Table("music").update_item(
        Key=key,
        UpdateExpression="SET #l[1] = :new, plays = if_not_exists(plays, :zero) + :one REMOVE nil",
        ConditionExpression=Attr("yes").eq(True),
        ExpressionAttributeNames={"#l": "list"},
        ExpressionAttributeValues={":new": "zwei", ":zero": 0, ":one": 1},
        ReturnValues="ALL_NEW",
    )["Attributes"]
    assert updated["list"][1] == "zwei" and updated["plays"] == 1 and "nil" not in updated
    failed = refused(
        "ConditionalCheckFailedException",
        CLIENT.put_item,
        TableName="music",
        Item={"pk": {"S": "a"}, "sk": {"N": "1.5"}},
        ConditionExpression="attribute_not_exists(pk)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    assert failed["Item"]["yes"] == {"BOOL": True}, failed
    old = RESOURCE.Table("music").delete_item(Key=key, ReturnValues="ALL_OLD")["Attributes"]
    assert old["plays"] == 1
    assert "Item" not in RESOURCE.Table("music").get_item(Key=key)
    refused("ValidationException", CLIENT.get_item, TableName="music", Key={"pk": {"S": "a"}})


def pages():
    with connect(boto3.resource, ENDPOINTS[0]).Table("music").batch_writer() as batch:
        for n in range(400):
            batch.put_item(Item={"pk": f"p{n % 20}", "sk": n, "filler": "x" * 5000})
    expected = {(f"p{n % 20}", n) for n in range(400)}
    seen = []
    for page in CLIENT.get_paginator("scan").paginate(TableName="music"):
        seen += [(i["pk"]["S"], int(i["sk"]["N"])) for i in page["Items"]]
    assert len(seen) == 400 and set(seen) == expected, len(seen)
    parts = []
    for segment in range(5):
        scan = CLIENT.get_paginator("scan").paginate(TableName="music", Segment=segment, TotalSegments=5)
        parts += [(i["pk"]["S"], int(i["sk"]["N"])) for page in scan for i in page["Items"]]
    assert sorted(parts) == sorted(expected)
    query = Key("pk").eq("p3") & Key("sk").between(100, 300)
    found = RESOURCE.Table("music").query(KeyConditionExpression=query, ScanIndexForward=False)["Items"]
    assert [int(i["sk"]) for i in found] == [n for n in range(300, 99, -1) if n % 20 == 3]
    few = RESOURCE.Table("music").query(
        KeyConditionExpression=Key("pk").eq("p3"), FilterExpression=Attr("filler").begins_with("y")
    )
    assert (few["Count"], few["ScannedCount"]) == (0, 20)
    keys = [{"pk": {"S": f"p{n % 20}"}, "sk": {"N": str(n)}} for n in range(60)]
    got = CLIENT.batch_get_item(RequestItems={"music": {"Keys": keys, "ProjectionExpression": "sk"}})
    assert len(got["Responses"]["music"]) == 60 and got["UnprocessedKeys"] == {}


def counter():
    """Two threads per node add to one item: every add that was answered counts once."""
    added, lock = [], threading.Lock()

    def add(endpoint):
        table = connect(boto3.resource, endpoint).Table("music")
        for _ in range(25):
            answer = table.update_item(
                Key={"pk": "counter", "sk": 0},
                UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": 1},
                ReturnValues="UPDATED_NEW",
            )
            with lock:
                added.append(int(answer["Attributes"]["n"]))

    threads = [threading.Thread(target=add, args=[e]) for e in ENDPOINTS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == list(range(1, 50 * len(ENDPOINTS) + 1)), sorted(added)


def transactions():
    def put(sk, condition):
        return {
            "Put": {
                "TableName": "music",
                "Item": {"pk": {"S": "t"}, "sk": {"N": str(sk)}},
                "ConditionExpression": condition,
            }
        }

    CLIENT.transact_write_items(TransactItems=[put(1, "attribute_not_exists(pk)"), put(2, "attribute_not_exists(pk)")])
    failed = refused(
        "TransactionCanceledException",
        CLIENT.transact_write_items,
        TransactItems=[put(3, "attribute_not_exists(pk)"), put(2, "attribute_not_exists(pk)")],
    )
    codes = [reason["Code"] for reason in failed["CancellationReasons"]]
    assert codes == ["None", "ConditionalCheckFailed"], failed
    gets = [{"Get": {"TableName": "music", "Key": {"pk": {"S": "t"}, "sk": {"N": str(n)}}}} for n in (1, 2, 3)]
    found = CLIENT.transact_get_items(TransactItems=gets)["Responses"]
    assert ["Item" in one for one in found] == [True, True, False], found


for part in (tables, items, pages, counter, transactions):
    part()
    print(part.__name__, "ok", flush=True)
