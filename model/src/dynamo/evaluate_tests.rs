use super::*;
use crate::dynamo::command::Expressions;
use crate::dynamo::number::Number;
use crate::dynamo::schema::{KeyAttribute, KeySchema, KeyType};
use std::collections::BTreeMap;

type Records = BTreeMap<Bytes, Bytes>;

fn table() -> Table {
    let attribute = |name: &str, kind| KeyAttribute {
        name: name.into(),
        kind,
    };
    Table {
        id: 9,
        schema: KeySchema {
            partition: attribute("pk", KeyType::S),
            sort: Some(attribute("sk", KeyType::N)),
        },
    }
}

fn n(n: i64) -> Value {
    Value::N(Number::parse(&n.to_string()).unwrap())
}

fn item(pk: &str, sk: i64, more: &[(&str, Value)]) -> Item {
    let mut item = Item::from([("pk".into(), Value::S(pk.into())), ("sk".into(), n(sk))]);
    item.extend(more.iter().map(|(k, v)| (k.to_string(), v.clone())));
    item
}

fn operation(verb: Verb, item: Item) -> Operation {
    Operation {
        verb,
        table: table(),
        item,
        expressions: Expressions::default(),
        want_old: false,
        want_new: false,
        want_failed: false,
    }
}

fn within(records: &mut Records, command: &Command, start: &[u8], end: &[u8]) -> Reply {
    let context = Context {
        now_ms: 1_700_000_000_000,
        seed: 0,
        start,
        end,
    };
    let view: &dyn View = &records.clone();
    let mut txn = Txn::new(view);
    let reply = DynamoModel.evaluate(&context, &command.encode(), &mut txn);
    for (key, value) in txn.into_writes() {
        match value {
            Some(value) => records.insert(key, value),
            None => records.remove(&key),
        };
    }
    Reply::decode(&reply).expect("a reply")
}

fn run(records: &mut Records, command: &Command) -> Reply {
    within(records, command, b"", b"")
}

fn page(start: Bytes, end: Bytes) -> Page {
    Page {
        table: table(),
        start,
        end,
        reverse: false,
        items_max: 100,
        bytes_max: 1 << 20,
        expressions: Expressions::default(),
        count_only: false,
    }
}

#[test]
fn a_put_is_read_back_and_a_condition_that_fails_writes_nothing() {
    let mut records = Records::new();
    let put = Command::One(operation(Verb::Put, item("a", 1, &[("x", n(1))])));
    let done = |old: u32, new: u32| {
        Reply::Ended(vec![Ended::Done(Done {
            old_bytes: old,
            new_bytes: new,
            ..Done::default()
        })])
    };
    assert_eq!(run(&mut records, &put), done(0, 10));
    let before = records.clone();
    let mut again = operation(Verb::Put, item("a", 1, &[]));
    again.expressions.condition = Some("attribute_not_exists(pk)".into());
    again.want_failed = true;
    let failed = Ended::ConditionFailed(Some(item("a", 1, &[("x", n(1))])));
    assert_eq!(
        run(&mut records, &Command::One(again)),
        Reply::Ended(vec![failed])
    );
    assert_eq!(records, before);
    let mut get = operation(Verb::Get, item("a", 1, &[]));
    get.expressions.projection = Some("x".into());
    let found = Done {
        old: Some(Item::from([("x".into(), n(1))])),
        old_bytes: 10,
        ..Done::default()
    };
    assert_eq!(
        run(&mut records, &Command::One(get)),
        Reply::Ended(vec![Ended::Done(found)])
    );
    let delete = Command::One(operation(Verb::Delete, item("a", 1, &[])));
    assert_eq!(run(&mut records, &delete), done(10, 0));
    assert!(records.is_empty());
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut records = Records::new();
    let put = operation(Verb::Put, item("a", 1, &[]));
    let mut check = operation(Verb::Check, item("b", 1, &[]));
    check.expressions.condition = Some("attribute_exists(pk)".into());
    let both = Command::All(vec![put, check]);
    assert!(matches!(run(&mut records, &both), Reply::Cancelled(ended)
        if matches!(ended[..], [Ended::Done(_), Ended::ConditionFailed(None)])));
    assert!(records.is_empty());
    run(
        &mut records,
        &Command::One(operation(Verb::Put, item("b", 1, &[]))),
    );
    assert!(matches!(run(&mut records, &both), Reply::Ended(_)));
    assert_eq!(records.len(), 2);
}

#[test]
fn an_update_creates_counts_and_keeps_to_the_size_limit() {
    let mut records = Records::new();
    let mut add = operation(Verb::Update, item("a", 1, &[]));
    add.expressions.update = Some("ADD c :one".into());
    add.expressions.values = Item::from([(":one".into(), n(1))]);
    add.want_new = true;
    for count in 1..4 {
        let reply = run(&mut records, &Command::One(add.clone()));
        let Reply::Ended(ended) = reply else {
            panic!("{reply:?}")
        };
        let Ended::Done(done) = &ended[0] else {
            panic!("{ended:?}")
        };
        assert_eq!(done.new, Some(item("a", 1, &[("c", n(count))])));
    }
    add.expressions.update = Some("SET c = :one".into());
    add.expressions.values = Item::from([(":one".into(), Value::S("x".repeat(ITEM_BYTES_MAX)))]);
    let why = "Item size to update has exceeded the maximum allowed size".to_string();
    assert_eq!(
        run(&mut records, &Command::One(add)),
        Reply::Ended(vec![Ended::Invalid(why)])
    );
}

#[test]
fn pages_keep_order_limits_and_their_range() {
    let mut records = Records::new();
    for sk in [5, -3, 40, 0, 7] {
        run(
            &mut records,
            &Command::One(operation(Verb::Put, item("a", sk, &[]))),
        );
    }
    run(
        &mut records,
        &Command::One(operation(Verb::Put, item("b", 1, &[]))),
    );
    let prefix = keys::partition(9, &Value::S("a".into()));
    let all = page(prefix.clone().into(), keys::after_prefix(&prefix));
    let sorts = |reply: &Reply| match reply {
        Reply::Page(found) => found
            .items
            .iter()
            .map(|i| i["sk"].clone())
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let reply = run(&mut records, &Command::Page(all.clone()));
    assert_eq!(sorts(&reply), [-3, 0, 5, 7, 40].map(n));
    let backwards = Page {
        reverse: true,
        items_max: 2,
        ..all.clone()
    };
    let reply = run(&mut records, &Command::Page(backwards));
    assert_eq!(sorts(&reply), [40, 7].map(n));
    let key = |sk| keys::item(9, &Value::S("a".into()), Some(&n(sk)));
    let Reply::Page(found) = &reply else {
        unreachable!()
    };
    assert_eq!(found.stopped_at, Some(key(7)));
    // A range that ends within the partition.
    let reply = within(&mut records, &Command::Page(all.clone()), b"", &key(5));
    assert_eq!(sorts(&reply), [-3, 0].map(n));
    let Reply::Page(found) = &reply else {
        unreachable!()
    };
    assert_eq!(
        (found.covered_to.clone(), found.stopped_at.clone()),
        (key(5), None)
    );
    let mut filtered = Page {
        count_only: true,
        ..all
    };
    filtered.expressions.condition = Some("sk > :five".into());
    filtered.expressions.values = Item::from([(":five".into(), n(5))]);
    let reply = run(&mut records, &Command::Page(filtered));
    let Reply::Page(found) = &reply else {
        unreachable!()
    };
    assert_eq!((found.count, found.scanned, found.items.len()), (2, 5, 0));
}

#[test]
fn what_is_over_goes_and_a_dropped_table_with_all() {
    let mut records = Records::new();
    let now = 1_700_000_000;
    for (sk, ttl) in [
        (1, n(now - 10)),
        (2, n(now + 10)),
        (3, Value::S("x".into())),
        (4, n(5)),
    ] {
        run(
            &mut records,
            &Command::One(operation(Verb::Put, item("a", sk, &[("ttl", ttl)]))),
        );
    }
    let expire = |start: Bytes| Command::Expire {
        table: table(),
        attribute: "ttl".into(),
        start,
        max: 3,
    };
    let Reply::Removed(1, next) = run(&mut records, &expire(Bytes::new())) else {
        panic!()
    };
    assert!(next < keys::table_end(9));
    assert_eq!(
        run(&mut records, &expire(next)),
        Reply::Removed(0, keys::table_end(9))
    );
    assert_eq!(records.len(), 3);
    let Reply::Removed(2, next) = run(&mut records, &Command::Drop { table: 9, max: 2 }) else {
        panic!()
    };
    assert!(next < keys::table_end(9));
    assert_eq!(
        run(&mut records, &Command::Drop { table: 9, max: 2 }),
        Reply::Removed(1, keys::table_end(9))
    );
    assert!(records.is_empty());
}

#[test]
fn keys_of_other_ranges_and_versions_are_refused() {
    let mut records = Records::new();
    let put = Command::One(operation(Verb::Put, item("a", 1, &[])));
    assert_eq!(
        within(&mut records, &put, b"", &[keys::TAG]),
        Reply::OutsideRange
    );
    let wrong = Command::One(operation(Verb::Put, Item::new()));
    assert!(matches!(run(&mut records, &wrong), Reply::Failed(_)));
    assert!(records.is_empty());
}
