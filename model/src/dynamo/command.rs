//! What a front door asks of a range, and what it is answered: types and their encodings.
//!
//! Expressions travel as text with their placeholders, which is an encoding that all versions
//! share. The door has parsed them before, so that an error here means that the door is of
//! another version than the leader.

use super::codec::{put_bytes, put_length, put_map, Input};
use super::schema::{KeyAttribute, KeySchema, KeyType};
use super::token::Token;
use super::value::{Item, Value};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Format of commands and replies.
const FORMAT: u8 = 1;

/// A table, as far as evaluation needs to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// First part of all its keys.
    pub id: u32,
    /// What identifies an item.
    pub schema: KeySchema,
}

/// Expressions of one operation, with the placeholders that they share.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expressions {
    /// `ConditionExpression`, or of a page `FilterExpression`.
    pub condition: Option<String>,
    /// `UpdateExpression`.
    pub update: Option<String>,
    /// `ProjectionExpression`.
    pub projection: Option<String>,
    /// `ExpressionAttributeNames`.
    pub names: BTreeMap<String, String>,
    /// `ExpressionAttributeValues`.
    pub values: BTreeMap<String, Value>,
}

/// What is done with one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Reads it.
    Get,
    /// Replaces or creates it.
    Put,
    /// Changes or creates it.
    Update,
    /// Removes it.
    Delete,
    /// Looks at its condition only (a part of a transaction).
    Check,
}

/// An operation on one item.
#[derive(Clone, PartialEq, Debug)]
pub struct Operation {
    /// What to do.
    pub verb: Verb,
    /// Where.
    pub table: Table,
    /// The key attributes; for [`Verb::Put`] the whole item.
    pub item: Item,
    /// Conditions and the like.
    pub expressions: Expressions,
    /// Answer the item as it was.
    pub want_old: bool,
    /// Answer the item as it became.
    pub want_new: bool,
    /// Answer the item if it does not fulfil the condition.
    pub want_failed: bool,
}

/// A walk over items in key order.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// The table.
    pub table: Table,
    /// First key.
    pub start: Bytes,
    /// Exclusive.
    pub end: Bytes,
    /// From the end to the start.
    pub reverse: bool,
    /// Items to look at, at most; at least 1.
    pub items_max: u32,
    /// Stop behind the item with which this many bytes were looked at.
    pub bytes_max: u32,
    /// The filter is their condition.
    pub expressions: Expressions,
    /// Answer no items, only their number.
    pub count_only: bool,
}

/// A command to one range.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// One operation.
    One(Operation),
    /// Several, none of which depends on another.
    Each(Vec<Operation>),
    /// Several, all or none.
    All(Vec<Operation>),
    /// As [`Command::All`], unless it was done before with this token.
    Once(Vec<Operation>, Token),
    /// A walk.
    Page(Page),
    /// Removes records of a table that was deleted, so many at most.
    Drop {
        /// The table's id.
        table: u32,
        /// Records at most.
        max: u32,
    },
    /// Removes items whose time is over, by the attribute that says so, looking at so many at most.
    Expire {
        /// The table.
        table: Table,
        /// The attribute: seconds since the Unix epoch.
        attribute: String,
        /// First key to look at.
        start: Bytes,
        /// Items at most.
        max: u32,
    },
    /// Removes what is known of transactions whose repetition is not waited for any longer.
    Sweep {
        /// The table's id.
        table: u32,
        /// First key to look at.
        start: Bytes,
        /// Records at most.
        max: u32,
    },
}

/// How one operation ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Ended {
    /// It was carried out.
    Done(Done),
    /// The item does not fulfil the condition; the item, if wanted and there.
    ConditionFailed(Option<Item>),
    /// It can't be carried out on this item, and why, in DynamoDB's words.
    Invalid(String),
}

/// See [`Ended::Done`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Done {
    /// The item as it was (for [`Verb::Get`] as it is), if wanted and there.
    pub old: Option<Item>,
    /// The item as it became, if wanted.
    pub new: Option<Item>,
    /// Bytes of the item before and after; 0 = none.
    pub old_bytes: u32,
    /// See `old_bytes`.
    pub new_bytes: u32,
}

/// What a walk found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PageFound {
    /// What passed the filter, projected.
    pub items: Vec<Item>,
    /// Number of those, also if only they were asked for.
    pub count: u32,
    /// Items looked at.
    pub scanned: u32,
    /// Bytes looked at.
    pub bytes: u32,
    /// The last item's key if the walk stopped at a limit.
    pub stopped_at: Option<Bytes>,
    /// How far the range reached: the walk goes on here, unless it stopped, or this is its end.
    pub covered_to: Bytes,
}

/// The answer to a [`Command`].
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// To one, or each; also to all if all were done.
    Ended(Vec<Ended>),
    /// To all, if one of them failed: nothing was done.
    Cancelled(Vec<Ended>),
    /// To [`Command::Once`]: it was done before, and not again.
    Repeated,
    /// To [`Command::Once`]: other operations were done with this token. Nothing was done.
    OtherContent,
    /// To a walk.
    Page(PageFound),
    /// To [`Command::Drop`], [`Command::Expire`] and [`Command::Sweep`]: how many records went, and where to go on:
    /// within this range, or where it ends, at the end of the table at most.
    Removed(u32, Bytes),
    /// A key lies in another range.
    OutsideRange,
    /// The command is not understood, or a record is damaged.
    Failed(String),
}

// ---- Encoding

fn flag(out: &mut Vec<u8>, flag: bool) {
    out.push(u8::from(flag));
}

fn optional<T: ?Sized>(out: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    flag(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}

fn text(out: &mut Vec<u8>, text: &String) {
    put_bytes(out, text.as_bytes());
}

impl Table {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(out, self.id.into());
        let attribute = |out: &mut Vec<u8>, a: &KeyAttribute| {
            text(out, &a.name);
            put_bytes(out, a.kind.name().as_bytes());
        };
        attribute(out, &self.schema.partition);
        optional(out, self.schema.sort.as_ref(), attribute);
    }

    fn get(input: &mut Input<'_>) -> Option<Table> {
        let id = u32::try_from(input.number()?).ok()?;
        let attribute = |input: &mut Input<'_>| {
            let name = input.text()?;
            let kind = KeyType::named(&input.text()?)?;
            Some(KeyAttribute { name, kind })
        };
        let partition = attribute(input)?;
        let sort = maybe(input, attribute)?;
        Some(Table {
            id,
            schema: KeySchema { partition, sort },
        })
    }
}

fn maybe<T>(input: &mut Input<'_>, get: impl Fn(&mut Input<'_>) -> Option<T>) -> Option<Option<T>> {
    match input.byte()? {
        0 => Some(None),
        1 => Some(Some(get(input)?)),
        _ => None,
    }
}

fn truth(input: &mut Input<'_>) -> Option<bool> {
    match input.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn small(input: &mut Input<'_>) -> Option<u32> {
    u32::try_from(input.number()?).ok()
}

fn wide(input: &mut Input<'_>) -> Option<u128> {
    let (first, rest) = input.0.split_first_chunk()?;
    input.0 = rest;
    Some(u128::from_be_bytes(*first))
}

fn many<T>(input: &mut Input<'_>, get: impl Fn(&mut Input<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = input.count()?;
    (0..count).map(|_| get(input)).collect()
}

fn item(input: &mut Input<'_>) -> Option<Item> {
    input.map(0)
}

fn bytes(input: &mut Input<'_>) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(input.bytes()?))
}

impl Expressions {
    fn put(&self, out: &mut Vec<u8>) {
        for expression in [&self.condition, &self.update, &self.projection] {
            optional(out, expression.as_ref(), text);
        }
        put_length(out, self.names.len() as u128);
        for (placeholder, name) in &self.names {
            text(out, placeholder);
            text(out, name);
        }
        put_map(out, &self.values);
    }

    fn get(input: &mut Input<'_>) -> Option<Expressions> {
        let condition = maybe(input, |i| i.text())?;
        let update = maybe(input, |i| i.text())?;
        let projection = maybe(input, |i| i.text())?;
        let names = many(input, |input| Some((input.text()?, input.text()?)))?;
        Some(Expressions {
            condition,
            update,
            projection,
            names: names.into_iter().collect(),
            values: item(input)?,
        })
    }
}

const VERBS: [Verb; 5] = [
    Verb::Get,
    Verb::Put,
    Verb::Update,
    Verb::Delete,
    Verb::Check,
];

impl Operation {
    fn put(&self, out: &mut Vec<u8>) {
        let verb = VERBS.iter().position(|v| *v == self.verb);
        out.push(verb.expect("all verbs are listed") as u8);
        self.table.put(out);
        put_map(out, &self.item);
        self.expressions.put(out);
        flag(out, self.want_old);
        flag(out, self.want_new);
        flag(out, self.want_failed);
    }

    fn get(input: &mut Input<'_>) -> Option<Operation> {
        Some(Operation {
            verb: *VERBS.get(usize::from(input.byte()?))?,
            table: Table::get(input)?,
            item: item(input)?,
            expressions: Expressions::get(input)?,
            want_old: truth(input)?,
            want_new: truth(input)?,
            want_failed: truth(input)?,
        })
    }
}

/// Appends operations, as they travel.
pub(super) fn encode_operations(out: &mut Vec<u8>, operations: &[Operation]) {
    put_length(out, operations.len() as u128);
    operations.iter().for_each(|o| o.put(out));
}

impl Command {
    /// On the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        match self {
            Command::One(one) => {
                out.push(1);
                one.put(&mut out);
            }
            Command::Each(each) => {
                out.push(2);
                encode_operations(&mut out, each);
            }
            Command::All(all) => {
                out.push(3);
                encode_operations(&mut out, all);
            }
            Command::Page(page) => {
                out.push(4);
                page.table.put(&mut out);
                put_bytes(&mut out, &page.start);
                put_bytes(&mut out, &page.end);
                flag(&mut out, page.reverse);
                put_length(&mut out, page.items_max.into());
                put_length(&mut out, page.bytes_max.into());
                page.expressions.put(&mut out);
                flag(&mut out, page.count_only);
            }
            Command::Drop { table, max } => {
                out.push(5);
                put_length(&mut out, (*table).into());
                put_length(&mut out, (*max).into());
            }
            Command::Expire {
                table,
                attribute,
                start,
                max,
            } => {
                out.push(6);
                table.put(&mut out);
                text(&mut out, attribute);
                put_bytes(&mut out, start);
                put_length(&mut out, (*max).into());
            }
            Command::Once(all, token) => {
                out.push(7);
                encode_operations(&mut out, all);
                text(&mut out, &token.text);
                out.extend(token.digest.to_be_bytes());
            }
            Command::Sweep { table, start, max } => {
                out.push(8);
                put_length(&mut out, (*table).into());
                put_bytes(&mut out, start);
                put_length(&mut out, (*max).into());
            }
        }
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` if it is of another version.
    pub fn decode(encoded: &[u8]) -> Option<Command> {
        let mut input = Input(encoded.strip_prefix(&[FORMAT])?);
        let command = Self::get(&mut input)?;
        input.0.is_empty().then_some(command)
    }

    fn get(input: &mut Input<'_>) -> Option<Command> {
        Some(match input.byte()? {
            1 => Command::One(Operation::get(input)?),
            2 => Command::Each(many(input, Operation::get)?),
            3 => Command::All(many(input, Operation::get)?),
            4 => Command::Page(Page {
                table: Table::get(input)?,
                start: bytes(input)?,
                end: bytes(input)?,
                reverse: truth(input)?,
                items_max: small(input)?,
                bytes_max: small(input)?,
                expressions: Expressions::get(input)?,
                count_only: truth(input)?,
            }),
            5 => Command::Drop {
                table: small(input)?,
                max: small(input)?,
            },
            6 => Command::Expire {
                table: Table::get(input)?,
                attribute: input.text()?,
                start: bytes(input)?,
                max: small(input)?,
            },
            7 => Command::Once(
                many(input, Operation::get)?,
                Token {
                    text: input.text()?,
                    digest: wide(input)?,
                },
            ),
            8 => Command::Sweep {
                table: small(input)?,
                start: bytes(input)?,
                max: small(input)?,
            },
            _ => return None,
        })
    }
}

impl Ended {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ended::Done(done) => {
                out.push(1);
                optional(out, done.old.as_ref(), put_map);
                optional(out, done.new.as_ref(), put_map);
                put_length(out, done.old_bytes.into());
                put_length(out, done.new_bytes.into());
            }
            Ended::ConditionFailed(item) => {
                out.push(2);
                optional(out, item.as_ref(), put_map);
            }
            Ended::Invalid(why) => {
                out.push(3);
                text(out, why);
            }
        }
    }

    fn get(input: &mut Input<'_>) -> Option<Ended> {
        Some(match input.byte()? {
            1 => Ended::Done(Done {
                old: maybe(input, item)?,
                new: maybe(input, item)?,
                old_bytes: small(input)?,
                new_bytes: small(input)?,
            }),
            2 => Ended::ConditionFailed(maybe(input, item)?),
            3 => Ended::Invalid(input.text()?),
            _ => return None,
        })
    }
}

impl Reply {
    /// On the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        let ended = |out: &mut Vec<u8>, all: &[Ended]| {
            put_length(out, all.len() as u128);
            all.iter().for_each(|e| e.put(out));
        };
        match self {
            Reply::Ended(all) => {
                out.push(1);
                ended(&mut out, all);
            }
            Reply::Cancelled(all) => {
                out.push(2);
                ended(&mut out, all);
            }
            Reply::Page(found) => {
                out.push(3);
                put_length(&mut out, found.items.len() as u128);
                found.items.iter().for_each(|i| put_map(&mut out, i));
                for n in [found.count, found.scanned, found.bytes] {
                    put_length(&mut out, n.into());
                }
                optional(&mut out, found.stopped_at.as_deref(), put_bytes);
                put_bytes(&mut out, &found.covered_to);
            }
            Reply::Removed(count, next) => {
                out.push(4);
                put_length(&mut out, (*count).into());
                put_bytes(&mut out, next);
            }
            Reply::OutsideRange => out.push(5),
            Reply::Failed(why) => {
                out.push(6);
                text(&mut out, why);
            }
            Reply::Repeated => out.push(7),
            Reply::OtherContent => out.push(8),
        }
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` if it is of another version.
    pub fn decode(encoded: &[u8]) -> Option<Reply> {
        let mut input = Input(encoded.strip_prefix(&[FORMAT])?);
        let reply = Self::get(&mut input)?;
        input.0.is_empty().then_some(reply)
    }

    fn get(input: &mut Input<'_>) -> Option<Reply> {
        Some(match input.byte()? {
            1 => Reply::Ended(many(input, Ended::get)?),
            2 => Reply::Cancelled(many(input, Ended::get)?),
            3 => Reply::Page(PageFound {
                items: many(input, item)?,
                count: small(input)?,
                scanned: small(input)?,
                bytes: small(input)?,
                stopped_at: maybe(input, bytes)?,
                covered_to: bytes(input)?,
            }),
            4 => Reply::Removed(small(input)?, bytes(input)?),
            5 => Reply::OutsideRange,
            6 => Reply::Failed(input.text()?),
            7 => Reply::Repeated,
            8 => Reply::OtherContent,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::codec::tests::items;
    use proptest::prelude::*;

    fn tables() -> impl Strategy<Value = Table> {
        let kinds = || prop_oneof![Just(KeyType::S), Just(KeyType::N), Just(KeyType::B)];
        let attribute =
            move || ("[a-z]{1,3}", kinds()).prop_map(|(name, kind)| KeyAttribute { name, kind });
        (any::<u32>(), attribute(), prop::option::of(attribute())).prop_map(
            |(id, partition, sort)| Table {
                id,
                schema: KeySchema { partition, sort },
            },
        )
    }

    fn operations() -> impl Strategy<Value = Operation> {
        let expression = || prop::option::of("[a-z =]{1,6}");
        let names = prop::collection::btree_map("#[a-z]", "[a-z]", 0..3);
        (
            tables(),
            items(),
            0..5usize,
            expression(),
            expression(),
            names,
            items(),
            any::<[bool; 3]>(),
        )
            .prop_map(
                |(table, item, verb, condition, update, names, values, want)| Operation {
                    verb: VERBS[verb],
                    table,
                    item,
                    expressions: Expressions {
                        condition,
                        update,
                        projection: None,
                        names,
                        values,
                    },
                    want_old: want[0],
                    want_new: want[1],
                    want_failed: want[2],
                },
            )
    }

    proptest! {
        #[test]
        fn commands_are_read_back(one in operations(), more in prop::collection::vec(operations(), 0..3), page in any::<(bool, u32, u32, bool)>()) {
            let commands = [
                Command::Page(Page {
                    table: one.table.clone(),
                    start: Bytes::from_static(b"a"),
                    end: Bytes::from_static(b"\xff"),
                    reverse: page.0,
                    items_max: page.1,
                    bytes_max: page.2,
                    expressions: one.expressions.clone(),
                    count_only: page.3,
                }),
                Command::Drop { table: page.1, max: page.2 },
                Command::Expire { table: one.table.clone(), attribute: "t".into(), start: Bytes::new(), max: 9 },
                Command::Sweep { table: page.1, start: Bytes::from_static(b"s"), max: page.2 },
                Command::Once(more.clone(), Token::of("token", &more)),
                Command::One(one),
                Command::Each(more.clone()),
                Command::All(more),
            ];
            for command in commands {
                prop_assert_eq!(Command::decode(&command.encode()), Some(command));
            }
        }

        #[test]
        fn replies_are_read_back(old in prop::option::of(items()), found in prop::collection::vec(items(), 0..4), n in any::<u32>()) {
            let done = Done { old: old.clone(), new: None, old_bytes: n, new_bytes: 0 };
            let ended = vec![Ended::Done(done), Ended::ConditionFailed(old), Ended::Invalid("why".into())];
            let page = PageFound { items: found, count: n, scanned: n, bytes: n, stopped_at: Some(Bytes::from_static(b"k")), covered_to: Bytes::new() };
            let replies = [
                Reply::Ended(ended.clone()),
                Reply::Cancelled(ended),
                Reply::Page(page),
                Reply::Removed(n, Bytes::from_static(b"next")),
                Reply::OutsideRange,
                Reply::Repeated,
                Reply::OtherContent,
                Reply::Failed("x".into()),
            ];
            for reply in replies {
                prop_assert_eq!(Reply::decode(&reply.encode()), Some(reply));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Command::decode(&bytes);
            let _ = Reply::decode(&bytes);
        }
    }
}
