//! Evaluates commands on one range.
//!
//! Invariants: an operation whose condition fails, or that can't be carried out, writes nothing;
//! of [`Command::All`] either all operations write or none; [`Command::Once`] writes no item without
//! the record by which it is known again, nor that without the items; a page never leaves its range, and says
//! where it stopped or how far the range reaches.

use super::codec::{decode_item, encode_item};
use super::command::{Command, Done, Ended, Operation, Page, PageFound, Reply, Table, Verb};
use super::expr::ast::Condition;
use super::expr::path::{project, Path};
use super::expr::{condition, parse_condition, parse_projection, parse_update, update};
use super::expr::{Kind, Placeholders};
use super::keys;
use super::token::{self, Token};
use super::value::{item_size, Item, Value, DEPTH_MAX, ITEM_BYTES_MAX};
use crate::eval::{Context, Evaluator, Txn, View, Visitor};
use bytes::Bytes;
use std::ops::ControlFlow;

/// How long past its time an item may be and still expire: an attribute that is far in the past is
/// taken for no time at all ("Time to Live", Amazon DynamoDB Developer Guide: five years).
const EXPIRY_AGE_MAX_SECONDS: i64 = 5 * 365 * 24 * 3600;

/// What is said of lists and maps that lie in one another deeper than [`DEPTH_MAX`].
pub const NESTED_TOO_DEEP: &str =
    "Nesting Levels have exceeded supported limits: Attributes can be nested up to 32 levels deep";

/// Evaluates DynamoDB commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct DynamoModel;

impl Evaluator for DynamoModel {
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        let reply = match Command::decode(command) {
            Some(command) => run(context, command, txn),
            None => Err(Stop::Failed("a DynamoDB command of another version".into())),
        };
        let reply = reply.unwrap_or_else(|stop| {
            txn.clear();
            match stop {
                Stop::OutsideRange => Reply::OutsideRange,
                Stop::Failed(why) => Reply::Failed(why),
            }
        });
        reply.encode()
    }

    /// Between any two items, and what is known of transactions with them.
    fn split_key(&self, start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
        let near = keys::beside(near).unwrap_or(near);
        let inside = near > start && (end.is_empty() || near < end);
        (inside && near.first() == Some(&keys::TAG)).then(|| Bytes::copy_from_slice(near))
    }
}

/// Why a command as a whole has no result.
enum Stop {
    OutsideRange,
    Failed(String),
}

fn run(context: &Context<'_>, command: Command, txn: &mut Txn<'_>) -> Result<Reply, Stop> {
    match command {
        Command::One(operation) => Ok(Reply::Ended(vec![operate(context, &operation, txn)?])),
        Command::Each(each) => {
            let ended = each.iter().map(|one| operate(context, one, txn));
            Ok(Reply::Ended(ended.collect::<Result<_, _>>()?))
        }
        Command::All(all) => together(context, &all, txn),
        Command::Once(all, token) => once(context, &all, &token, txn),
        Command::Page(page) => walk(context, &page, txn),
        Command::Drop { table, max } => drop_records(context, table, max, txn),
        Command::Expire {
            table,
            attribute,
            start,
            max,
        } => expire(context, &table, &attribute, &start, max, txn),
        Command::Sweep { table, start, max } => sweep(context, table, &start, max, txn),
    }
}

fn together(context: &Context<'_>, all: &[Operation], txn: &mut Txn<'_>) -> Result<Reply, Stop> {
    // Each sees the items as they were: no two are about the same one.
    let ended = all.iter().map(|one| operate(context, one, txn));
    let ended = ended.collect::<Result<Vec<_>, _>>()?;
    if ended.iter().all(|one| matches!(one, Ended::Done(_))) {
        return Ok(Reply::Ended(ended));
    }
    txn.clear();
    Ok(Reply::Cancelled(ended))
}

fn once(
    context: &Context<'_>,
    all: &[Operation],
    token: &Token,
    txn: &mut Txn<'_>,
) -> Result<Reply, Stop> {
    let first = all.first().and_then(|one| key_of(&one.table, &one.item));
    let first = first.ok_or_else(misfit)?;
    let at = keys::token(&first, &token.text);
    if !is_inside(context, &first) || !is_inside(context, &at) {
        return Err(Stop::OutsideRange);
    }
    // Before the items are looked at: some may have come to lie in another range meanwhile.
    if let Some(record) = txn.get(&at) {
        let (at_ms, seen) = token::read(&record).ok_or_else(|| unreadable(&at))?;
        if seen.text == token.text && !token::is_over(at_ms, context.now_ms) {
            return Ok(match seen.digest == token.digest {
                true => Reply::Repeated,
                false => Reply::OtherContent,
            });
        }
    }
    let reply = together(context, all, txn)?;
    if matches!(reply, Reply::Ended(_)) {
        txn.put(at, token.record(context.now_ms));
    }
    Ok(reply)
}

fn misfit() -> Stop {
    Stop::Failed("a key that does not fit its table".into())
}

fn unreadable(key: &[u8]) -> Stop {
    Stop::Failed(format!("the record at {key:02x?} is unreadable"))
}

fn is_inside(context: &Context<'_>, key: &[u8]) -> bool {
    key >= context.start && (context.end.is_empty() || key < context.end)
}

fn operate(context: &Context<'_>, one: &Operation, txn: &mut Txn<'_>) -> Result<Ended, Stop> {
    let key = key_of(&one.table, &one.item).ok_or_else(misfit)?;
    if !is_inside(context, &key) {
        return Err(Stop::OutsideRange);
    }
    let record = txn.get(&key);
    let old = match &record {
        Some(record) => Some(read(record, &key)?),
        None => None,
    };
    let e = &one.expressions;
    let placeholders = Placeholders::new(e.names.clone(), e.values.clone());
    if let Some(text) = &e.condition {
        let wanted = parse_condition(Kind::Condition, text, &placeholders).map_err(Stop::Failed)?;
        let empty = Item::new();
        if !condition::holds(&wanted, old.as_ref().unwrap_or(&empty)) {
            return Ok(Ended::ConditionFailed(old.filter(|_| one.want_failed)));
        }
    }
    let mut new = None;
    match one.verb {
        Verb::Get => {
            let paths = match &e.projection {
                Some(text) => Some(parse_projection(text, &placeholders).map_err(Stop::Failed)?),
                None => None,
            };
            let old_bytes = old.as_ref().map_or(0, item_size) as u32;
            let shown = |item: Item| match &paths {
                Some(paths) => project(&item, paths),
                None => item,
            };
            return Ok(Ended::Done(Done {
                old: old.map(shown),
                old_bytes,
                ..Done::default()
            }));
        }
        Verb::Check => {}
        Verb::Delete => {
            if record.is_some() {
                txn.delete(key.clone());
            }
        }
        Verb::Put => new = Some(one.item.clone()),
        Verb::Update => {
            let before = old.clone().unwrap_or_else(|| one.item.clone());
            new = Some(match &e.update {
                None => before,
                Some(text) => {
                    let changes = parse_update(text, &placeholders).map_err(Stop::Failed)?;
                    let new = match update::apply(&changes, &before) {
                        Ok(new) => new,
                        Err(why) => return Ok(Ended::Invalid(why.to_string())),
                    };
                    // Each value is within the limit; put into one another they may not be.
                    if new.values().any(|value| value.deeper_than(DEPTH_MAX)) {
                        return Ok(Ended::Invalid(NESTED_TOO_DEEP.into()));
                    }
                    new
                }
            });
        }
    }
    let new_bytes = new.as_ref().map_or(0, item_size);
    if new_bytes > ITEM_BYTES_MAX {
        let why = "Item size to update has exceeded the maximum allowed size";
        return Ok(Ended::Invalid(why.into()));
    }
    if let Some(new) = &new {
        txn.put(key, encode_item(new));
    }
    Ok(Ended::Done(Done {
        old_bytes: old.as_ref().map_or(0, item_size) as u32,
        new_bytes: new_bytes as u32,
        old: old.filter(|_| one.want_old),
        new: new.filter(|_| one.want_new),
    }))
}

/// The key of an item; `None` if a key attribute is absent or of another type.
pub fn key_of(table: &Table, item: &Item) -> Option<Bytes> {
    let value = |attribute: &super::schema::KeyAttribute| {
        item.get(&attribute.name)
            .filter(|value| attribute.kind.fits(value))
    };
    let partition = value(&table.schema.partition)?;
    let sort = match &table.schema.sort {
        Some(sort) => Some(value(sort)?),
        None => None,
    };
    Some(keys::item(table.id, partition, sort))
}

fn read(record: &[u8], key: &[u8]) -> Result<Item, Stop> {
    decode_item(record).ok_or_else(|| unreadable(key))
}

/// Records of tokens in a row that are passed by one by one, rather than by seeking beyond them.
const PASSED_BY: u32 = 16;

/// Visits the items of `[start, end)`, and not what lies beside them.
fn scan_items(txn: &Txn<'_>, start: &[u8], end: &[u8], reverse: bool, visit: Visitor<'_>) {
    let (mut start, mut end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
    while end.is_empty() || start < end {
        let (mut passed, mut beyond) = (0, None);
        let mut step = |key: &[u8], record: &[u8]| {
            if !token::is_token(record) {
                passed = 0;
                return visit(key, record);
            }
            passed += 1;
            if passed < PASSED_BY {
                return ControlFlow::Continue(());
            }
            beyond = keys::beside(key).map(keys::tokens);
            match beyond {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        };
        match reverse {
            true => txn.scan_reverse(&start, &end, &mut step),
            false => txn.scan(&start, &end, &mut step),
        }
        match beyond {
            Some(tokens) if reverse => end = tokens.start,
            Some(tokens) => start = tokens.end,
            None => return,
        }
    }
}

/// `[start, end)` within the range.
fn clip<'a>(context: &Context<'a>, start: &'a [u8], end: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let end = match (context.end.is_empty(), end.is_empty()) {
        (true, _) => end,
        (_, true) => context.end,
        _ => end.min(context.end),
    };
    (start.max(context.start), end)
}

fn walk(context: &Context<'_>, page: &Page, txn: &Txn<'_>) -> Result<Reply, Stop> {
    // A walk that began elsewhere would leave out what lies between.
    let begins_here = match page.reverse {
        false => &page.start[..] >= context.start,
        true => context.end.is_empty() || (&page.end[..] <= context.end && !page.end.is_empty()),
    };
    if !begins_here {
        return Err(Stop::OutsideRange);
    }
    let (start, end) = clip(context, &page.start, &page.end);
    let e = &page.expressions;
    let placeholders = Placeholders::new(e.names.clone(), e.values.clone());
    let filter: Option<Condition> = match &e.condition {
        Some(text) => {
            Some(parse_condition(Kind::Filter, text, &placeholders).map_err(Stop::Failed)?)
        }
        None => None,
    };
    let paths: Option<Vec<Path>> = match &e.projection {
        Some(text) => Some(parse_projection(text, &placeholders).map_err(Stop::Failed)?),
        None => None,
    };
    let mut found = PageFound {
        covered_to: Bytes::copy_from_slice(if page.reverse { start } else { end }),
        ..PageFound::default()
    };
    let mut stop = None;
    let mut visit = |key: &[u8], record: &[u8]| {
        let item = match read(record, key) {
            Ok(item) => item,
            Err(why) => {
                stop = Some(why);
                return ControlFlow::Break(());
            }
        };
        found.scanned += 1;
        found.bytes += item_size(&item) as u32;
        if filter.as_ref().is_none_or(|f| condition::holds(f, &item)) {
            found.count += 1;
            if !page.count_only {
                let shown = paths.as_ref().map(|p| project(&item, p));
                found.items.push(shown.unwrap_or(item));
            }
        }
        if found.scanned >= page.items_max || found.bytes >= page.bytes_max {
            found.stopped_at = Some(Bytes::copy_from_slice(key));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    scan_items(txn, start, end, page.reverse, &mut visit);
    stop.map_or(Ok(Reply::Page(found)), Err)
}

fn drop_records(
    context: &Context<'_>,
    table: u32,
    max: u32,
    txn: &mut Txn<'_>,
) -> Result<Reply, Stop> {
    let (from, to) = (keys::table_start(table), keys::table_end(table));
    let (start, end) = clip(context, &from, &to);
    let mut doomed = Vec::new();
    let mut next = Bytes::copy_from_slice(end);
    if start < end {
        txn.scan(start, end, &mut |key, _| {
            let key = Bytes::copy_from_slice(key);
            if doomed.len() == max as usize {
                next = key;
                return ControlFlow::Break(());
            }
            doomed.push(key);
            ControlFlow::Continue(())
        });
    }
    Ok(removed(doomed, next, txn))
}

fn expire(
    context: &Context<'_>,
    table: &Table,
    attribute: &str,
    from: &[u8],
    max: u32,
    txn: &mut Txn<'_>,
) -> Result<Reply, Stop> {
    let (first, to) = (keys::table_start(table.id), keys::table_end(table.id));
    let (start, end) = clip(context, from.max(&first), &to);
    let now = (context.now_ms / 1000) as i64;
    let (mut seen, mut doomed) = (0, Vec::new());
    let mut next = Bytes::copy_from_slice(end);
    let mut stop = None;
    scan_items(txn, start, end, false, &mut |key, record| {
        if seen == max {
            next = Bytes::copy_from_slice(key);
            return ControlFlow::Break(());
        }
        seen += 1;
        match read(record, key) {
            Ok(item) if is_over(item.get(attribute), now) => {
                doomed.push(Bytes::copy_from_slice(key));
            }
            Ok(_) => {}
            Err(why) => {
                stop = Some(why);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if let Some(why) = stop {
        return Err(why);
    }
    Ok(removed(doomed, next, txn))
}

fn sweep(
    context: &Context<'_>,
    table: u32,
    from: &[u8],
    max: u32,
    txn: &mut Txn<'_>,
) -> Result<Reply, Stop> {
    let (first, to) = (keys::table_start(table), keys::table_end(table));
    let (start, end) = clip(context, from.max(&first), &to);
    let (mut seen, mut doomed) = (0, Vec::new());
    let mut next = Bytes::copy_from_slice(end);
    let mut stop = None;
    if start < end {
        txn.scan(start, end, &mut |key, record| {
            if seen == max {
                next = Bytes::copy_from_slice(key);
                return ControlFlow::Break(());
            }
            seen += 1;
            if token::is_token(record) {
                match token::read(record) {
                    Some((at_ms, _)) if token::is_over(at_ms, context.now_ms) => {
                        doomed.push(Bytes::copy_from_slice(key));
                    }
                    Some(_) => {}
                    None => {
                        stop = Some(unreadable(key));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
    }
    match stop {
        Some(why) => Err(why),
        None => Ok(removed(doomed, next, txn)),
    }
}

fn removed(doomed: Vec<Bytes>, next: Bytes, txn: &mut Txn<'_>) -> Reply {
    let count = doomed.len() as u32;
    doomed.into_iter().for_each(|key| txn.delete(key));
    Reply::Removed(count, next)
}

fn is_over(value: Option<&Value>, now: i64) -> bool {
    let Some(Value::N(seconds)) = value else {
        return false;
    };
    let text = seconds.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    let Ok(seconds) = whole.parse::<i64>() else {
        return false;
    };
    seconds < now && seconds >= now - EXPIRY_AGE_MAX_SECONDS
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
