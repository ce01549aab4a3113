//! `aws-sdk-dynamodb`: each request through another node, while the table's range is cut.

use super::http::{plain, AtMost};
use super::{block_on, operate};
use crate::cluster::{Cluster, Node, PATIENCE};
use crate::status::metric;
use aws_sdk_dynamodb::client::Waiters;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region, SharedAsyncSleep};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, Get, KeySchemaElement,
    KeyType, KeysAndAttributes, Put, PutRequest, ReturnValue, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType, TableStatus, Tag, TimeToLiveSpecification, TimeToLiveStatus,
    TransactGetItem, TransactWriteItem, WriteRequest,
};
use aws_sdk_dynamodb::Client;
use rangekv_model::dynamo::keys;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

type Item = HashMap<String, AttributeValue>;

/// Ids of tables count from here.
const FIRST_TABLE: u32 = 100_000;
/// Requests in a BatchWriteItem, and keys in a BatchGetItem, at most.
const WRITES_MAX: usize = 25;
const GETS_MAX: usize = 100;

/// After which users try again, as the SDK does if it is let.
const TRANSIENT: [&str; 3] = [
    "InternalServerError",
    "ServiceUnavailableException",
    "ThrottlingException",
];

#[test]
fn three_nodes() {
    scenario(3);
}

#[test]
fn five_nodes() {
    scenario(5);
}

fn scenario(size: usize) {
    let cluster = Cluster::serving(size);
    let door = Everywhere::of(&cluster);
    block_on(async {
        let started = Instant::now();
        let done = |part: &str| println!("{part} passed, {:?}", started.elapsed());
        door.create("music", ScalarAttributeType::N).await;
        door.tables().await;
        done("tables");
        door.create("blobs", ScalarAttributeType::B).await;
        let (music, blobs) = (FIRST_TABLE, FIRST_TABLE + 1);
        while_cut(&cluster, music, 0x8000, door.items()).await;
        done("items");
        while_cut(&cluster, blobs, 0x8000, door.binary_keys()).await;
        done("binary keys");
        while_cut(&cluster, music, 0x4000, door.pages()).await;
        done("pages");
        while_cut(&cluster, blobs, 0x4000, door.large_batches()).await;
        done("large batches");
        while_cut(&cluster, music, 0xc000, door.counter()).await;
        done("counter");
        door.transactions().await;
        done("transactions");
        door.expired().await;
        done("expiry");
        door.dropped().await;
        done("dropped tables");
    });
    for node in &cluster.nodes {
        let requests = "rangekv_door_request_seconds";
        assert!(metric(node.http, requests, Some(("door", "dynamodb"))) > 0);
    }
}

/// Cuts the range of a table at a hash of partition keys, under `part`.
async fn while_cut(cluster: &Cluster, table: u32, hash: u32, part: impl Future<Output = ()>) {
    let key: String = keys::hash_start(table, hash)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let cut = operate(cluster, &["range", "split", "--raw-key", &key]);
    let ((), cut) = tokio::join!(part, cut);
    cut.expect("the range is cut");
}

fn s(text: impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn b(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    let owned = attributes.map(|(name, value)| (name.to_owned(), value));
    owned.into()
}

fn number(item: &Item, name: &str) -> i64 {
    let number = item[name].as_n().unwrap_or_else(|_| panic!("{item:?}"));
    number.parse().unwrap_or_else(|_| panic!("{item:?}"))
}

/// What a service error is called.
fn code<T: std::fmt::Debug>(answer: Result<T, impl ProvideErrorMetadata>) -> String {
    let error = answer.expect_err("an error");
    error.code().unwrap_or("no code").to_owned()
}

/// A client per node.
struct Everywhere {
    clients: Vec<Client>,
    /// Of the first node, which waits only for moments.
    waiter: Client,
    turn: AtomicUsize,
}

impl Everywhere {
    fn of(cluster: &Cluster) -> Everywhere {
        let config = |node: &Node| {
            Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::from_static("eu-west-3"))
                .credentials_provider(Credentials::new("any", "any", None, None, "tests"))
                .endpoint_url(format!("http://{}", node.dynamo))
                .http_client(plain())
                .sleep_impl(SharedAsyncSleep::new(AtMost(Duration::MAX)))
                .retry_config(
                    RetryConfig::standard()
                        .with_max_attempts(10)
                        .with_initial_backoff(Duration::from_millis(50)),
                )
        };
        let waiting = config(&cluster.nodes[0])
            .sleep_impl(SharedAsyncSleep::new(AtMost(Duration::from_millis(100))))
            .timeout_config(TimeoutConfig::disabled());
        let clients = cluster
            .nodes
            .iter()
            .map(|node| Client::from_conf(config(node).build()));
        Everywhere {
            clients: clients.collect(),
            waiter: Client::from_conf(waiting.build()),
            turn: AtomicUsize::new(0),
        }
    }

    /// The next node's.
    fn any(&self) -> &Client {
        &self.clients[self.turn.fetch_add(1, Ordering::Relaxed) % self.clients.len()]
    }

    /// A table whose partition keys are strings, or binaries as the sort keys are.
    async fn create(&self, name: &str, sort: ScalarAttributeType) {
        let partition = match sort {
            ScalarAttributeType::B => ScalarAttributeType::B,
            _ => ScalarAttributeType::S,
        };
        let mut create = self
            .any()
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest);
        for (attribute, kind, of) in [
            ("pk", KeyType::Hash, partition),
            ("sk", KeyType::Range, sort),
        ] {
            let definition = AttributeDefinition::builder().attribute_name(attribute);
            let element = KeySchemaElement::builder().attribute_name(attribute);
            create = create
                .attribute_definitions(definition.attribute_type(of).build().unwrap())
                .key_schema(element.key_type(kind).build().unwrap());
        }
        create.send().await.unwrap();
        let exists = self.waiter.wait_until_table_exists().table_name(name);
        exists.wait(4 * PATIENCE).await.unwrap();
    }

    async fn tables(&self) {
        let mut arn = String::new();
        for _ in &self.clients {
            let described = self.any().describe_table().table_name("music").send();
            let table = described.await.unwrap().table.unwrap();
            assert_eq!(table.table_status, Some(TableStatus::Active));
            arn = table.table_arn.unwrap();
        }
        let none = self.any().describe_table().table_name("none").send();
        let error = none.await.unwrap_err().into_service_error();
        assert!(error.is_resource_not_found_exception(), "{error:?}");
        let again = self
            .any()
            .create_table()
            .table_name("music")
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name("pk")
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .unwrap(),
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name("pk")
                    .key_type(KeyType::Hash)
                    .build()
                    .unwrap(),
            );
        let error = again.send().await.unwrap_err().into_service_error();
        assert!(error.is_resource_in_use_exception(), "{error:?}");

        let tag = |key, value| Tag::builder().key(key).value(value).build().unwrap();
        let tags = vec![tag("team", "a"), tag("stage", "test")];
        let tagging = self.any().tag_resource().resource_arn(&arn);
        tagging.set_tags(Some(tags)).send().await.unwrap();
        let less = self.any().untag_resource().resource_arn(&arn);
        less.tag_keys("stage").send().await.unwrap();
        // A node knows the tables of a second ago.
        eventually("one tag is left", async || {
            let list = self.any().list_tags_of_resource().resource_arn(&arn);
            let listed = list.send().await.map_err(|e| format!("{e:?}"))?;
            match listed.tags() == [tag("team", "a")] {
                true => Ok(()),
                false => Err(format!("{:?}", listed.tags())),
            }
        })
        .await;

        let specification = TimeToLiveSpecification::builder()
            .attribute_name("until")
            .enabled(true)
            .build()
            .unwrap();
        let enabling = self.any().update_time_to_live().table_name("music");
        let enabling = enabling.time_to_live_specification(specification);
        enabling.send().await.unwrap();
        eventually("TTL is enabled", async || {
            let described = self.any().describe_time_to_live().table_name("music");
            let described = described.send().await.map_err(|e| format!("{e:?}"))?;
            let ttl = described.time_to_live_description.unwrap();
            match (ttl.time_to_live_status, ttl.attribute_name.as_deref()) {
                (Some(TimeToLiveStatus::Enabled), Some("until")) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        // Seen to be gone at the end.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let past = now.unwrap().as_secs() - 60;
        self.put(
            "music",
            item([("pk", s("old")), ("sk", n(0)), ("until", n(past))]),
        )
        .await;
    }

    async fn put(&self, table: &str, item: Item) {
        let put = self.any().put_item().table_name(table);
        put.set_item(Some(item)).send().await.unwrap();
    }

    /// An item, as the next node sees it.
    async fn get(&self, table: &str, key: &Item) -> Option<Item> {
        let get = self.any().get_item().table_name(table);
        let get = get.set_key(Some(key.clone())).consistent_read(true);
        get.send().await.unwrap().item
    }

    async fn items(&self) {
        let widest = "12345678901234567890123456789012345678";
        let smallest = "-0.00000000012345678901234567890123456789012345678";
        let whole = item([
            ("pk", s("a")),
            ("sk", n("1.5")),
            ("text", s("héllo")),
            ("nil", AttributeValue::Null(true)),
            ("yes", AttributeValue::Bool(true)),
            ("picture", b([0, 255])),
            ("wide", n(widest)),
            ("small", n(smallest)),
            (
                "list",
                AttributeValue::L(vec![n(1), s("two"), AttributeValue::Ss(vec!["x".into()])]),
            ),
            ("map", AttributeValue::M(item([("in", s("deep"))]))),
            ("empty", AttributeValue::L(vec![])),
            ("tags", AttributeValue::Ss(vec!["x".into(), "y".into()])),
        ]);
        let key = item([("pk", s("a")), ("sk", n("1.5"))]);
        self.put("music", whole.clone()).await;
        for _ in &self.clients {
            assert_eq!(self.get("music", &key).await.as_ref(), Some(&whole));
        }

        let updated = self
            .any()
            .update_item()
            .table_name("music")
            .set_key(Some(key.clone()))
            .update_expression(
                "SET #l[1] = :new, plays = if_not_exists(plays, :zero) + :one, wide = wide - :one \
                 REMOVE nil, #m.#in ADD score :one DELETE tags :x",
            )
            .condition_expression(
                "yes = :true AND attribute_type(picture, :b) AND size(tags) = :two",
            )
            .expression_attribute_names("#l", "list")
            .expression_attribute_names("#m", "map")
            .expression_attribute_names("#in", "in")
            .expression_attribute_values(":new", s("zwei"))
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":two", n(2))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":b", s("B"))
            .expression_attribute_values(":x", AttributeValue::Ss(vec!["x".into()]))
            .return_values(ReturnValue::AllNew)
            .send();
        let updated = updated.await.unwrap().attributes.unwrap();
        let mut expected = whole.clone();
        expected.remove("nil");
        expected.insert("map".into(), AttributeValue::M(HashMap::default()));
        expected.insert("plays".into(), n(1));
        expected.insert("score".into(), n(1));
        expected.insert("wide".into(), n("12345678901234567890123456789012345677"));
        expected.insert("tags".into(), AttributeValue::Ss(vec!["y".into()]));
        if let Some(AttributeValue::L(list)) = expected.get_mut("list") {
            list[1] = s("zwei");
        }
        assert_eq!(updated, expected);

        let failed = self
            .any()
            .put_item()
            .table_name("music")
            .set_item(Some(key.clone()))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send();
        let error = failed.await.unwrap_err().into_service_error();
        match error {
            aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(
                failed,
            ) => {
                assert_eq!(failed.item(), Some(&expected));
                assert_eq!(failed.message(), Some("The conditional request failed"));
            }
            other => panic!("{other:?}"),
        }
        let failed = self
            .any()
            .update_item()
            .table_name("music")
            .set_key(Some(item([("pk", s("none")), ("sk", n(0))])))
            .update_expression("SET a = :one")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":one", n(1))
            .send();
        let error = failed.await.unwrap_err().into_service_error();
        assert!(error.is_conditional_check_failed_exception(), "{error:?}");
        let deleting = |condition: &str| {
            let delete = self.any().delete_item().table_name("music");
            delete
                .set_key(Some(key.clone()))
                .condition_expression(condition)
                .expression_attribute_values(":n", n(1))
                .return_values(ReturnValue::AllOld)
                .send()
        };
        let error = deleting("plays > :n")
            .await
            .unwrap_err()
            .into_service_error();
        assert!(error.is_conditional_check_failed_exception(), "{error:?}");
        let deleted = deleting("plays = :n").await.unwrap();
        assert_eq!(deleted.attributes, Some(expected));
        assert_eq!(self.get("music", &key).await, None);

        for wrong in [
            item([("pk", s("a"))]),
            item([("pk", s("a")), ("sk", s("1"))]),
        ] {
            let get = self
                .any()
                .get_item()
                .table_name("music")
                .set_key(Some(wrong));
            assert_eq!(code(get.send().await), "ValidationException");
        }
        let digits = "123456789012345678901234567890123456789";
        let put = self.any().put_item().table_name("music");
        let put = put
            .set_item(Some(key.clone()))
            .item("wide", n(digits))
            .send();
        assert_eq!(code(put.await), "ValidationException");
    }

    /// All bytes in both keys, in the order of bytes.
    async fn binary_keys(&self) {
        let sorts = [
            vec![0],
            vec![0, 0],
            vec![0, 255],
            vec![1],
            vec![127],
            vec![128],
            vec![255, 0],
            vec![255, 255],
        ];
        for partition in [vec![0], vec![0, 1], vec![255, 0, 255]] {
            for sort in &sorts {
                let key = item([("pk", b(partition.clone())), ("sk", b(sort.clone()))]);
                self.put("blobs", key.clone()).await;
                assert_eq!(self.get("blobs", &key).await, Some(key));
            }
            let query = |condition: &str| {
                let query = self.any().query().table_name("blobs");
                query
                    .key_condition_expression(format!("pk = :pk AND {condition}"))
                    .expression_attribute_values(":pk", b(partition.clone()))
                    .expression_attribute_values(":a", b([0]))
            };
            let found = |items: Vec<Item>| -> Vec<Vec<u8>> {
                let sort = |item: &Item| item["sk"].as_b().expect("a binary").as_ref().to_vec();
                items.iter().map(sort).collect()
            };
            let all = query("sk >= :a").send().await.unwrap();
            assert_eq!(found(all.items.unwrap()), sorts);
            let some = query("begins_with(sk, :a)").send().await.unwrap();
            assert_eq!(found(some.items.unwrap()), sorts[..3]);
            let between = query("sk BETWEEN :a AND :b").expression_attribute_values(":b", b([128]));
            let between = between.scan_index_forward(false).send().await.unwrap();
            let mut expected = sorts[..6].to_vec();
            expected.reverse();
            assert_eq!(found(between.items.unwrap()), expected);
        }
    }

    /// BatchWriteItem until nothing is unprocessed.
    async fn write_all(&self, table: &str, items: impl IntoIterator<Item = Item>) {
        let request = |item| {
            let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
            WriteRequest::builder().put_request(put).build()
        };
        let mut left: Vec<WriteRequest> = items.into_iter().map(request).collect();
        let started = Instant::now();
        while !left.is_empty() {
            assert!(started.elapsed() < 4 * PATIENCE, "{} left", left.len());
            let batch = left.split_off(left.len().saturating_sub(WRITES_MAX));
            let write = self.any().batch_write_item().request_items(table, batch);
            let answer = write.send().await.unwrap();
            let unprocessed = answer.unprocessed_items.unwrap_or_default();
            if !unprocessed.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            left.extend(unprocessed.into_values().flatten());
        }
    }

    /// BatchGetItem until nothing is unprocessed; the items, and in how many answers they came.
    async fn read_all(&self, table: &str, keys: Vec<Item>) -> (Vec<Item>, usize) {
        let mut left = keys;
        let (mut found, mut answers) = (Vec::new(), 0);
        let started = Instant::now();
        while !left.is_empty() {
            assert!(started.elapsed() < 4 * PATIENCE, "{} left", left.len());
            let batch = left.split_off(left.len().saturating_sub(GETS_MAX));
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(batch))
                .consistent_read(true)
                .build()
                .unwrap();
            let get = self.any().batch_get_item().request_items(table, wanted);
            let answer = get.send().await.unwrap();
            answers += 1;
            found.extend(answer.responses.unwrap_or_default().into_values().flatten());
            let unprocessed = answer.unprocessed_keys.unwrap_or_default();
            left.extend(unprocessed.into_values().flat_map(|more| more.keys));
        }
        (found, answers)
    }

    async fn pages(&self) {
        let all = 0..400;
        let name = |n: i64| format!("p{}", n % 20);
        let filler = "x".repeat(5_000);
        let full = |i| item([("pk", s(name(i))), ("sk", n(i)), ("filler", s(&filler))]);
        self.write_all("music", all.clone().map(full)).await;
        let numbers = |items: &[Item]| -> Vec<i64> {
            let ours = items.iter().filter(|item| item.contains_key("filler"));
            ours.map(|item| number(item, "sk")).collect()
        };
        let sorted = |mut numbers: Vec<i64>| {
            numbers.sort_unstable();
            numbers
        };
        let expected: Vec<i64> = all.clone().collect();

        let keys = expected.iter().rev().take(100);
        let keys = keys.map(|i| item([("pk", s(name(*i))), ("sk", n(i))]));
        let (found, _) = self.read_all("music", keys.collect()).await;
        assert_eq!(sorted(numbers(&found)), expected[300..]);

        let scan = self.any().scan().table_name("music").into_paginator();
        let found = scan.items().send().collect::<Result<Vec<_>, _>>().await;
        assert_eq!(sorted(numbers(&found.unwrap())), expected);

        // Page by page, each from another node.
        let (mut found, mut pages, mut from) = (Vec::new(), 0, None);
        loop {
            let scan = self.any().scan().table_name("music").limit(60);
            let page = scan.set_exclusive_start_key(from).send().await.unwrap();
            assert!(page.items().len() <= 60);
            found.extend(numbers(page.items()));
            pages += 1;
            from = page.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        assert!(pages >= 7, "{pages}");
        assert_eq!(sorted(found), expected);

        let segments = (0..5).map(|segment| {
            let scan = self.any().scan().table_name("music");
            let scan = scan.segment(segment).total_segments(5).into_paginator();
            let found = scan.page_size(30).items().send();
            tokio::spawn(async move { found.collect::<Result<Vec<_>, _>>().await })
        });
        let mut found = Vec::new();
        for segment in segments.collect::<Vec<_>>() {
            found.extend(numbers(&segment.await.unwrap().unwrap()));
        }
        assert_eq!(sorted(found), expected);

        let query = |condition: &str| {
            let query = self.any().query().table_name("music");
            query
                .key_condition_expression(condition)
                .expression_attribute_values(":pk", s("p3"))
        };
        let backwards = query("pk = :pk AND sk BETWEEN :a AND :b")
            .expression_attribute_values(":a", n(100))
            .expression_attribute_values(":b", n(300))
            .scan_index_forward(false)
            .into_paginator();
        let found = backwards.page_size(3).items().send();
        let found = found.collect::<Result<Vec<_>, _>>().await.unwrap();
        let p3 = expected.iter().filter(|i| *i % 20 == 3);
        let some = p3.clone().rev().filter(|i| (100..=300).contains(*i));
        assert_eq!(numbers(&found), some.copied().collect::<Vec<_>>());
        let none = query("pk = :pk")
            .filter_expression("begins_with(filler, :y)")
            .expression_attribute_values(":y", s("y"));
        let none = none.send().await.unwrap();
        assert_eq!((none.count(), none.scanned_count()), (0, p3.count() as i32));
    }

    /// More than the 16 MB that a BatchGetItem answers.
    async fn large_batches(&self) {
        let key = |i: u8| item([("pk", b([9, i])), ("sk", b([i]))]);
        let filler = "x".repeat(390_000);
        let large = |i| {
            let mut item = key(i);
            item.insert("filler".into(), s(&filler));
            item
        };
        self.write_all("blobs", (0..45).map(large)).await;
        let (found, answers) = self.read_all("blobs", (0..45).map(key).collect()).await;
        let found: BTreeSet<Vec<u8>> = found
            .iter()
            .filter(|item| {
                item["filler"]
                    .as_s()
                    .is_ok_and(|text| text.len() == 390_000)
            })
            .map(|item| item["sk"].as_b().expect("a binary").as_ref().to_vec())
            .collect();
        assert_eq!(found, (0..45).map(|i| vec![i]).collect());
        assert!(answers > 1, "45 items of 390,000 bytes in one answer");
    }

    /// Two tasks per node add to one item: every addition that was answered counts once.
    async fn counter(&self) {
        const EACH: usize = 20;
        let once = Config::builder().retry_config(RetryConfig::disabled());
        let add = |client: &Client| {
            let add = client
                .update_item()
                .table_name("music")
                .set_key(Some(item([("pk", s("counter")), ("sk", n(0))])))
                .update_expression("ADD plays :one")
                .expression_attribute_values(":one", n(1))
                .return_values(ReturnValue::UpdatedNew);
            let once = once.clone();
            async move {
                let (mut sums, mut doubtful) = (Vec::new(), 0);
                while sums.len() < EACH {
                    let add = add.clone().customize().config_override(once.clone());
                    match add.send().await {
                        Ok(answer) => sums.push(number(&answer.attributes.unwrap(), "plays")),
                        Err(error) => {
                            let code = error.code().unwrap_or_default();
                            assert!(TRANSIENT.contains(&code), "{error:?}");
                            doubtful += 1;
                            assert!(doubtful < 1_000, "{error:?}");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
                (sums, doubtful)
            }
        };
        let clients = self.clients.iter().chain(&self.clients);
        let tasks: Vec<_> = clients.map(|client| tokio::spawn(add(client))).collect();
        let (mut all, mut perhaps) = (BTreeSet::new(), 0);
        let sure = tasks.len() * EACH;
        for task in tasks {
            let (sums, doubtful) = task.await.unwrap();
            all.extend(sums);
            perhaps += doubtful;
        }
        assert_eq!(all.len(), sure, "each sum once: {all:?}");
        let last = *all.last().expect("some") as usize;
        assert!(last <= sure + perhaps, "{last} of {sure} and {perhaps}");
    }

    async fn transactions(&self) {
        let fresh = "attribute_not_exists(pk)";
        let put = |partition: &str, sort: i64| {
            let put = Put::builder()
                .table_name("music")
                .item("pk", s(partition))
                .item("sk", n(sort))
                .condition_expression(fresh);
            TransactWriteItem::builder()
                .put(put.build().unwrap())
                .build()
        };
        let check = |sort: i64, condition: &str| {
            let check = ConditionCheck::builder()
                .table_name("music")
                .key("pk", s("t"))
                .key("sk", n(sort))
                .condition_expression(condition);
            TransactWriteItem::builder()
                .condition_check(check.build().unwrap())
                .build()
        };
        let write = |items: Vec<TransactWriteItem>| {
            let write = self.any().transact_write_items();
            write.set_transact_items(Some(items))
        };
        write(vec![put("t", 1), put("t", 2)]).send().await.unwrap();
        let failed = write(vec![put("t", 3), put("t", 2), check(1, fresh)]).send();
        match failed.await.unwrap_err().into_service_error() {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                let reasons = cancelled.cancellation_reasons().iter();
                let codes: Vec<_> = reasons.map(|reason| reason.code().unwrap()).collect();
                let failed = "ConditionalCheckFailed";
                assert_eq!(codes, ["None", failed, failed]);
            }
            other => panic!("{other:?}"),
        }
        let gets = (1..=3).map(|sort| {
            let get = Get::builder().table_name("music");
            let get = get.key("pk", s("t")).key("sk", n(sort)).build().unwrap();
            TransactGetItem::builder().get(get).build()
        });
        let gets = self
            .any()
            .transact_get_items()
            .set_transact_items(Some(gets.collect()));
        let found = gets.send().await.unwrap();
        let found = found.responses().iter().map(|one| one.item().is_some());
        assert_eq!(found.collect::<Vec<_>>(), [true, true, false]);

        // The conditions would not hold a second time.
        let once = |items| write(items).client_request_token("once");
        for _ in &self.clients {
            once(vec![put("t", 4), put("t", 5)]).send().await.unwrap();
        }
        let other = once(vec![put("t", 4), put("t", 6)]).send().await;
        let error = other.unwrap_err().into_service_error();
        assert!(
            error.is_idempotent_parameter_mismatch_exception(),
            "{error:?}"
        );

        // The table has been cut in four: sixteen partitions don't lie in one range.
        let partitions: Vec<String> = (0..16).map(|i| format!("wide-{i}")).collect();
        let wide = partitions.iter().map(|partition| put(partition, 0));
        let error = write(wide.collect()).send().await.unwrap_err();
        let error = error.into_service_error();
        assert_eq!(error.code(), Some("ValidationException"), "{error:?}");
        let message = error.message().unwrap_or_default();
        assert!(message.contains("several ranges"), "{message}");
        for partition in &partitions {
            let key = item([("pk", s(partition)), ("sk", n(0))]);
            assert_eq!(self.get("music", &key).await, None);
        }
    }

    async fn expired(&self) {
        let key = item([("pk", s("old")), ("sk", n(0))]);
        eventually("the expired item is gone", async || {
            match self.get("music", &key).await {
                None => Ok(()),
                Some(item) => Err(format!("{item:?}")),
            }
        })
        .await;
    }

    async fn dropped(&self) {
        let delete = self.any().delete_table().table_name("blobs");
        delete.send().await.unwrap();
        let gone = self.waiter.wait_until_table_not_exists();
        gone.table_name("blobs").wait(4 * PATIENCE).await.unwrap();
        let again = self.any().delete_table().table_name("blobs").send();
        let error = again.await.unwrap_err().into_service_error();
        assert!(error.is_resource_not_found_exception(), "{error:?}");
        let tables = self.any().list_tables().limit(1).into_paginator();
        let tables = tables.items().send().collect::<Result<Vec<_>, _>>().await;
        assert_eq!(tables.unwrap(), ["music"]);
        self.create("blobs", ScalarAttributeType::B).await;
        let mut counts = BTreeMap::new();
        for table in ["blobs", "music"] {
            let scan = self.any().scan().table_name(table).into_paginator();
            let items = scan.items().send().collect::<Result<Vec<_>, _>>().await;
            counts.insert(table, items.unwrap().len());
        }
        // The filled ones, the counter and four by transactions.
        assert_eq!(counts, BTreeMap::from([("blobs", 0), ("music", 405)]));
    }
}

/// Tries again until it goes well; fails with the last reason when patience ends.
async fn eventually(what: &str, mut attempt: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(why) = attempt().await {
        assert!(
            Instant::now() < deadline,
            "{what}: {why} after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
