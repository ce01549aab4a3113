//! Items of a DynamoDB table in the simulation: counters that clients raise with `ADD`, with a put
//! on the condition that the count is what they saw, and with a transaction that has a token.
//!
//! - An `ADD` or a put whose outcome is unknown is not sent again. A transaction with a token is,
//!   in the same words: it counts once, however often it arrives.
//! - A put whose condition failed says what the count is: as good as a read at that moment.
//! - Counts only grow, so that one that is lost, or counted twice, contradicts some reply.
//!
//! Ranges split at items, and merge again, under the transactions that are repeated.

use crate::history::{Op, Reply};
use bytes::Bytes;
use rangekv_model::dynamo::command::{self, Command, Ended, Expressions, Operation, Table, Verb};
use rangekv_model::dynamo::number::Number;
use rangekv_model::dynamo::schema::{KeyAttribute, KeySchema, KeyType};
use rangekv_model::dynamo::token::Token;
use rangekv_model::dynamo::value::{Item, Value};
use rangekv_model::dynamo::{keys, DynamoModel};
use rangekv_model::eval::{Context, Evaluator, Txn, View};
use std::sync::Arc;

/// The table of all items.
const TABLE: u32 = 100_000;
/// The attribute that counts.
const COUNT: &str = "n";

/// What is done to an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ItemOp {
    /// GetItem
    Get,
    /// UpdateItem, `ADD n :by`
    Add(i64),
    /// The same in a TransactWriteItems with a token.
    Once(i64, String),
    /// PutItem of a new count, if the count is still what it was, or the item still absent.
    Swap {
        /// What was seen.
        from: Option<i64>,
        /// The new count.
        to: i64,
    },
}

fn table() -> Table {
    let partition = KeyAttribute {
        name: "pk".into(),
        kind: KeyType::S,
    };
    Table {
        id: TABLE,
        schema: KeySchema {
            partition,
            sort: None,
        },
    }
}

fn text(name: &Bytes) -> Value {
    Value::S(String::from_utf8_lossy(name).into_owned())
}

fn number(n: i64) -> Value {
    Value::N(Number::parse(&n.to_string()).expect("an integer"))
}

/// The record of an item.
pub fn record(name: &Bytes) -> Bytes {
    keys::item(TABLE, &text(name), None)
}

impl ItemOp {
    /// Whether it may be sent again when nobody knows whether it was carried out.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, ItemOp::Get | ItemOp::Once(..))
    }

    /// The command that asks for it.
    pub fn command(&self, name: &Bytes) -> Bytes {
        let mut operation = Operation {
            verb: Verb::Get,
            table: table(),
            item: Item::from([("pk".into(), text(name))]),
            expressions: Expressions::default(),
            want_old: false,
            want_new: true,
            want_failed: true,
        };
        let e = &mut operation.expressions;
        match self {
            ItemOp::Get => operation.want_new = false,
            ItemOp::Add(by) | ItemOp::Once(by, _) => {
                operation.verb = Verb::Update;
                e.update = Some(format!("ADD {COUNT} :by"));
                e.values.insert(":by".into(), number(*by));
            }
            ItemOp::Swap { from, to } => {
                operation.verb = Verb::Put;
                operation.item.insert(COUNT.into(), number(*to));
                match from {
                    None => e.condition = Some(format!("attribute_not_exists({COUNT})")),
                    Some(from) => {
                        e.condition = Some(format!("{COUNT} = :seen"));
                        e.values.insert(":seen".into(), number(*from));
                    }
                }
            }
        }
        let command = match self {
            ItemOp::Once(_, token) => {
                let token = Token::of(token, std::slice::from_ref(&operation));
                Command::Once(vec![operation], token)
            }
            _ => Command::One(operation),
        };
        command.encode()
    }

    /// What a reply says; `None` if that is not possible.
    pub fn reply(&self, encoded: &[u8]) -> Option<Reply> {
        let ended = match command::Reply::decode(encoded)? {
            command::Reply::Ended(mut ended) if ended.len() == 1 => ended.pop()?,
            command::Reply::Repeated if matches!(self, ItemOp::Once(..)) => {
                return Some(Reply::Any)
            }
            _ => return None,
        };
        match (self, ended) {
            (ItemOp::Get, Ended::Done(done)) => bulk(done.old),
            (ItemOp::Swap { .. }, Ended::ConditionFailed(item)) => bulk(item),
            (ItemOp::Swap { .. }, Ended::Done(_)) => Some(Reply::Ok),
            (_, Ended::Done(done)) => Some(Reply::Int(count(&done.new?)?)),
            _ => None,
        }
    }
}

fn count(item: &Item) -> Option<i64> {
    match item.get(COUNT)? {
        Value::N(n) => n.to_string().parse().ok(),
        _ => None,
    }
}

fn bulk(item: Option<Item>) -> Option<Reply> {
    Some(match item {
        None => Reply::Nil,
        Some(item) => Reply::Bulk(count(&item)?.to_string().into()),
    })
}

/// The count that an operation's reply shows, if it shows one: `Some(None)` = no item.
pub fn shown(op: &Op, reply: &Reply) -> Option<Option<i64>> {
    match (op, reply) {
        (Op::Item(_), Reply::Nil) => Some(None),
        (Op::Item(_), Reply::Int(n)) => Some(Some(*n)),
        (Op::Item(_), Reply::Bulk(text)) => std::str::from_utf8(text).ok()?.parse().ok().map(Some),
        (Op::Item(ItemOp::Swap { to, .. }), Reply::Ok) => Some(Some(*to)),
        _ => None,
    }
}

/// The product's model, unless a bug is planted.
pub struct Items<V>(pub Arc<V>);

impl<V: View + Send + Sync> Evaluator for Items<V> {
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        if crate::bugs::is_planted("condition_below_overlay") {
            // Of what has been written, only what was applied is seen.
            let mut blind = Txn::new(&*self.0);
            let reply = DynamoModel.evaluate(context, command, &mut blind);
            txn.extend(blind.into_writes());
            return reply;
        }
        if crate::bugs::is_planted("token_forgotten") {
            if let Some(Command::Once(all, _)) = Command::decode(command) {
                let command = Command::All(all).encode();
                return DynamoModel.evaluate(context, &command, txn);
            }
        }
        DynamoModel.evaluate(context, command, txn)
    }

    fn split_key(&self, start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
        DynamoModel.split_key(start, end, near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn operations_are_commands_and_replies_are_read() {
        let mut records = BTreeMap::<Bytes, Bytes>::new();
        let name = Bytes::from_static(b"counter");
        let once = || ItemOp::Once(1, "t".into());
        let swap = |from, to| ItemOp::Swap { from, to };
        let bulk = |text: &'static str| Reply::Bulk(text.into());
        for (op, expected) in [
            (ItemOp::Get, Reply::Nil),
            (swap(None, 1), Reply::Ok),
            (swap(None, 2), bulk("1")),
            (swap(Some(1), 2), Reply::Ok),
            (ItemOp::Add(1), Reply::Int(3)),
            (once(), Reply::Int(4)),
            (once(), Reply::Any),
            (swap(Some(3), 4), bulk("4")),
            (ItemOp::Get, bulk("4")),
        ] {
            let before = records.clone();
            let mut txn = Txn::new(&before);
            let context = Context {
                now_ms: 1,
                seed: 0,
                start: b"",
                end: b"",
            };
            let model = Items(Arc::new(before.clone()));
            let reply = model.evaluate(&context, &op.command(&name), &mut txn);
            assert_eq!(op.reply(&reply), Some(expected), "{op:?}");
            for (key, value) in txn.into_writes() {
                assert!(key.starts_with(&record(&name)));
                records.insert(key, value.expect("nothing is deleted"));
            }
        }
    }
}
