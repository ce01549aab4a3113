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

const NOW_MS: u64 = 1_700_000_000_000;

fn within(records: &mut Records, command: &Command, start: &[u8], end: &[u8]) -> Reply {
    within_at(records, command, start, end, NOW_MS)
}

fn within_at(
    records: &mut Records,
    command: &Command,
    start: &[u8],
    end: &[u8],
    now_ms: u64,
) -> Reply {
    let context = Context {
        now_ms,
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

/// Adds one to the counters of these items, once per token.
fn count_once(sorts: &[i64], text: &str) -> Command {
    let add = |sk: &i64| {
        let mut add = operation(Verb::Update, item("a", *sk, &[]));
        add.expressions.update = Some("ADD c :one".into());
        add.expressions.values = Item::from([(":one".into(), n(1))]);
        add
    };
    let all: Vec<Operation> = sorts.iter().map(add).collect();
    let token = Token::of(text, &all);
    Command::Once(all, token)
}

fn counters(records: &mut Records) -> Vec<(Value, Value)> {
    let all = page(keys::table_start(9), keys::table_end(9));
    let Reply::Page(found) = run(records, &Command::Page(all)) else {
        panic!("no page")
    };
    let counted = |item: &Item| (item["sk"].clone(), item["c"].clone());
    found.items.iter().map(counted).collect()
}

#[test]
fn a_transaction_with_a_token_is_done_once_for_ten_minutes() {
    let mut records = Records::new();
    let transaction = count_once(&[1, 2], "t");
    assert!(matches!(run(&mut records, &transaction), Reply::Ended(ended) if ended.len() == 2));
    assert_eq!(records.len(), 3);
    let after = records.clone();
    let later = |records: &mut Records, command: &Command, ms: u64| {
        within_at(records, command, b"", b"", NOW_MS + ms)
    };
    for ms in [0, 1, token::WINDOW_MS - 1] {
        assert_eq!(later(&mut records, &transaction, ms), Reply::Repeated);
    }
    let other = count_once(&[1, 3], "t");
    assert_eq!(later(&mut records, &other, 5), Reply::OtherContent);
    assert_eq!(records, after);
    // Another token, or the same one later, is another transaction.
    let another = count_once(&[1, 2], "u");
    assert!(matches!(later(&mut records, &another, 5), Reply::Ended(_)));
    let over = later(&mut records, &transaction, token::WINDOW_MS);
    assert!(matches!(over, Reply::Ended(_)));
    assert_eq!(counters(&mut records), [1, 2].map(|sk| (n(sk), n(3))));
    // It counts from when it was done last.
    let again = later(&mut records, &transaction, 2 * token::WINDOW_MS - 1);
    assert_eq!(again, Reply::Repeated);
}

#[test]
fn a_transaction_that_fails_is_not_remembered() {
    let mut records = Records::new();
    let Command::Once(mut all, _) = count_once(&[1, 2], "t") else {
        unreachable!()
    };
    all[1].expressions.condition = Some("attribute_exists(c)".into());
    let token = Token::of("t", &all);
    let transaction = Command::Once(all, token);
    for _ in 0..2 {
        assert!(matches!(
            run(&mut records, &transaction),
            Reply::Cancelled(_)
        ));
        assert!(records.is_empty());
    }
    let put = operation(Verb::Put, item("a", 2, &[("c", n(5))]));
    run(&mut records, &Command::One(put));
    assert!(matches!(run(&mut records, &transaction), Reply::Ended(_)));
    assert_eq!(run(&mut records, &transaction), Reply::Repeated);
}

#[test]
fn a_repeated_transaction_is_known_wherever_its_range_was_cut() {
    let mut records = Records::new();
    let transaction = count_once(&[2, 1, 3], "t");
    run(&mut records, &transaction);
    let first = keys::item(9, &Value::S("a".into()), Some(&n(2)));
    let remembered = keys::token(&first, "t");
    assert!(records.contains_key(&remembered));
    // Wherever a cut is asked for, it does not come between the item and what is known of it.
    let cut = |near: &[u8]| DynamoModel.split_key(b"", b"", near);
    let all: Vec<Bytes> = records.keys().cloned().collect();
    for near in &all {
        let cut = cut(near).expect("inside");
        assert_eq!(cut <= first, cut <= remembered, "{near:02x?}");
        let (start, end): (&[u8], &[u8]) = match cut <= first {
            true => (&cut, b""),
            false => (b"", &cut),
        };
        let reply = within(&mut records, &transaction, start, end);
        assert_eq!(reply, Reply::Repeated, "{near:02x?}");
    }
    assert_eq!(cut(&remembered).as_deref(), Some(&first[..]));
    assert_eq!(DynamoModel.split_key(&first, b"", &remembered), None);
    // Who would cut there nevertheless gets no second execution.
    let before = records.clone();
    let left = within(&mut records, &transaction, b"", &remembered);
    assert_eq!((left, &records), (Reply::OutsideRange, &before));
}

#[test]
fn walks_pass_by_what_is_remembered() {
    let mut records = Records::new();
    for i in 0..100 {
        run(&mut records, &count_once(&[1, 2], &format!("t{i}")));
    }
    run(&mut records, &count_once(&[2], "t"));
    run(&mut records, &count_once(&[3, 1], "t"));
    assert_eq!(records.len(), 105);
    let all = page(keys::table_start(9), keys::table_end(9));
    for (reverse, items_max) in [(false, 100), (true, 100), (false, 3), (true, 3), (false, 1)] {
        let page = Page {
            reverse,
            items_max,
            ..all.clone()
        };
        let Reply::Page(found) = run(&mut records, &Command::Page(page)) else {
            panic!("no page")
        };
        let mut sorts: Vec<Value> = found.items.iter().map(|i| i["sk"].clone()).collect();
        if reverse {
            sorts.reverse();
        }
        let expected = [1, 2, 3].map(n);
        assert_eq!(sorts[..], expected[..sorts.len()], "{reverse} {items_max}");
        assert_eq!(found.scanned, items_max.min(3));
    }
    let expire = Command::Expire {
        table: table(),
        attribute: "c".into(),
        start: Bytes::new(),
        max: 3,
    };
    let none = Reply::Removed(0, keys::table_end(9));
    assert_eq!(run(&mut records, &expire), none);
}

#[test]
fn what_is_remembered_is_swept_when_it_is_over() {
    let mut records = Records::new();
    run(&mut records, &count_once(&[1, 2], "old"));
    let half = NOW_MS + token::WINDOW_MS / 2;
    within_at(&mut records, &count_once(&[2], "new"), b"", b"", half);
    let sweep = |records: &mut Records, now_ms: u64, max: u32| {
        let (mut start, mut swept) = (keys::table_start(9), 0);
        while start < keys::table_end(9) {
            let command = Command::Sweep {
                table: 9,
                start,
                max,
            };
            let reply = within_at(records, &command, b"", b"", now_ms);
            let Reply::Removed(removed, next) = reply else {
                panic!("{reply:?}")
            };
            (start, swept) = (next, swept + removed);
        }
        swept
    };
    let over = NOW_MS + token::WINDOW_MS;
    assert_eq!(sweep(&mut records, over - 1, 100), 0);
    assert_eq!(sweep(&mut records, over, 1), 1);
    assert_eq!(sweep(&mut records, over, 2), 0);
    let later = over + token::WINDOW_MS / 2;
    assert_eq!(sweep(&mut records, later, 100), 1);
    assert_eq!(records.len(), 2);
    assert_eq!(counters(&mut records), [(n(1), n(1)), (n(2), n(2))]);
}

#[test]
fn an_update_can_not_nest_deeper_than_a_put() {
    let mut records = Records::new();
    let mut deep = n(1);
    for _ in 0..20 {
        deep = Value::L(vec![deep]);
    }
    let mut update = operation(Verb::Update, item("a", 1, &[]));
    update.expressions.update = Some("SET d = list_append(if_not_exists(d, :none), :deep)".into());
    let none = Value::L(Vec::new());
    update.expressions.values =
        Item::from([(":deep".into(), deep.clone()), (":none".into(), none)]);
    let reply = run(&mut records, &Command::One(update.clone()));
    assert!(matches!(reply, Reply::Ended(ended) if matches!(ended[..], [Ended::Done(_)])));
    let path = format!("d{}", "[0]".repeat(18));
    update.expressions.update = Some(format!("SET {path} = :deep"));
    update.expressions.values = Item::from([(":deep".into(), deep)]);
    let before = records.clone();
    let reply = run(&mut records, &Command::One(update));
    let refused = Reply::Ended(vec![Ended::Invalid(NESTED_TOO_DEEP.into())]);
    assert_eq!((reply, &records), (refused, &before));
}
