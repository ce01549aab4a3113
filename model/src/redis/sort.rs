//! `SORT`, `SORT_RO`: the elements of a list, set or sorted set, sorted by themselves or by what
//! other keys say.
//!
//! `BY` and `GET` name those keys by a pattern, so that nobody knows them before the command is
//! evaluated: if one lies in another range the command is refused there. The router then fetches
//! the [records](super::records) of the collection, of what the patterns name for its elements
//! ([`named`]), and evaluates the command itself, unless it is to be stored. As in Redis with
//! `LC_COLLATE=C`, `ALPHA` compares bytes.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::float;
use super::keys;
use super::list;
use super::meta::Meta;
use super::number::integer;
use super::position;
use super::reply::{self, Reply};
use super::value::{Kind, Value};
use super::zset::{self, EVERYTHING};
use crate::eval::View;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

#[derive(Default)]
struct Options<'a> {
    descending: bool,
    alpha: bool,
    offset: i64,
    /// Negative: all.
    count: Option<i64>,
    by: Option<&'a Bytes>,
    /// Some `BY` had no star in it: the same for all, there is nothing to sort by.
    unsorted: bool,
    get: Vec<&'a Bytes>,
    store: Option<&'a Bytes>,
}

fn parse<'a>(args: &'a [Bytes], readonly: bool) -> Result<Options<'a>, CommandError> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        match (&option.to_ascii_lowercase()[..], rest.len()) {
            (b"asc", _) => options.descending = false,
            (b"desc", _) => options.descending = true,
            (b"alpha", _) => options.alpha = true,
            (b"limit", 2..) => {
                let mut number = || integer(rest.next().expect("there are two"));
                options.offset = number()?;
                options.count = Some(number()?);
            }
            (b"store", 1..) if !readonly => options.store = rest.next(),
            (b"by", 1..) => {
                options.by = rest.next();
                options.unsorted |= options.by.is_some_and(|pattern| !pattern.contains(&b'*'));
            }
            (b"get", 1..) => options.get.extend(rest.next()),
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(options)
}

/// The index of the key that `STORE` names among the arguments of a `SORT`.
pub(crate) fn destination_at(args: &[Bytes]) -> Option<usize> {
    let mut found = None;
    let mut at = 2;
    while let Some(option) = args.get(at) {
        at += match &option.to_ascii_lowercase()[..] {
            b"store" => {
                found = Some(at + 1).filter(|at| *at < args.len());
                2
            }
            b"limit" => 3,
            b"by" | b"get" => 2,
            _ => 1,
        };
    }
    found
}

/// What an element is sorted by. Its own order is that of the replies.
#[derive(Clone, PartialEq, Debug)]
enum Weight {
    Number(f64),
    /// The key that a pattern names may not be there; then it comes first.
    Text(Option<Bytes>),
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC | DESC] [ALPHA] [STORE key]`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let args = call.args;
    let mut options = parse(&args[2..], call.name == "sort_ro")?;
    let key = call.key(1);
    let source = match call.read(&key) {
        None => None,
        Some(value) => {
            let meta = Meta::parse(&value).filter(|meta| meta.kind != Kind::Hash);
            Some(Collection::new(key, meta.ok_or(CommandError::WrongType)?))
        }
    };
    let mut sorts = !options.unsorted;
    let is_set = source
        .as_ref()
        .is_some_and(|source| source.meta.kind == Kind::Set);
    if !sorts && is_set && options.store.is_some() {
        // What is stored does not depend on how sets are kept.
        (sorts, options.alpha, options.by) = (true, true, None);
    }
    let mut elements = source.map_or(Vec::new(), |source| load(&*call.txn, &source));
    if sorts {
        elements = sort(call, elements, &options)?;
    } else if options.descending && !is_set {
        elements.reverse();
    }
    let offset = usize::try_from(options.offset.max(0)).unwrap_or(usize::MAX);
    let count = options.count.and_then(|count| usize::try_from(count).ok());
    let chosen = elements
        .into_iter()
        .skip(offset)
        .take(count.unwrap_or(usize::MAX));
    let mut output: Vec<Option<Bytes>> = Vec::new();
    for element in chosen {
        if options.get.is_empty() {
            output.push(Some(element));
            continue;
        }
        for pattern in &options.get {
            output.push(lookup(call, pattern, &element));
        }
    }
    match options.store {
        Some(destination) => Ok(store(call, destination, output)),
        None => {
            let mut reply = Reply::new(call.protocol);
            reply.array(output.len());
            for value in output {
                match value {
                    Some(value) => reply.bulk(&value),
                    None => reply.nil(),
                };
            }
            Ok(reply.finish())
        }
    }
}

fn store(call: &mut Call<'_, '_>, destination: &Bytes, output: Vec<Option<Bytes>>) -> Bytes {
    let key = keys::record_key(call.db, destination);
    let mut result = call.create(&key, Kind::List);
    for value in &output {
        list::add(
            call,
            &mut result,
            false,
            value.as_deref().unwrap_or_default(),
        );
    }
    call.save(&result);
    reply::int(output.len() as i64)
}

/// All elements, in the order in which they are kept.
fn load(view: &dyn View, source: &Collection) -> Vec<Bytes> {
    let mut elements = Vec::with_capacity(source.len().min(1 << 16));
    let mut take = |element: &[u8]| {
        elements.push(Bytes::copy_from_slice(element));
        ControlFlow::Continue(())
    };
    match source.meta.kind {
        Kind::List => position::visit(source, view, false, &mut |_, element| take(element)),
        Kind::SortedSet => {
            let everything: (&[u8], &[u8]) = (&[], EVERYTHING);
            zset::visit(source, view, everything, false, &mut |member, _| {
                take(member)
            });
        }
        _ => source.members(view, 0, &mut |_, member, _| take(member)),
    }
    elements
}

fn sort(
    call: &mut Call<'_, '_>,
    elements: Vec<Bytes>,
    options: &Options<'_>,
) -> Result<Vec<Bytes>, CommandError> {
    let mut weighted = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match options.by {
            None => Some(element.clone()),
            Some(pattern) => lookup(call, pattern, &element),
        };
        let weight = match text {
            text if options.alpha => Weight::Text(text),
            None => Weight::Number(0.0),
            Some(text) => Weight::Number(float::parse_padded(&text).ok_or(CommandError::Of(
                "ERR One or more scores can't be converted into double",
            ))?),
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(a, first), (b, second)| {
        let order = match (a, b) {
            (Weight::Number(a), Weight::Number(b)) => {
                let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                order.then_with(|| first.cmp(second))
            }
            (Weight::Text(a), Weight::Text(b)) if options.store.is_some() => a.cmp(b),
            // For a reply, C's `strcoll` compares.
            (Weight::Text(a), Weight::Text(b)) => {
                let seen =
                    |text: &Option<Bytes>| text.as_deref().map(|t| float::c_string(t).to_vec());
                seen(a).cmp(&seen(b))
            }
            _ => unreachable!("all weights are of one kind"),
        };
        match options.descending {
            true => order.reverse(),
            false => order,
        }
    });
    Ok(weighted.into_iter().map(|(_, element)| element).collect())
}

/// What the key says that a pattern names for an element: a string, or with `->` a field of a
/// hash. `#` is the element itself.
fn lookup(call: &mut Call<'_, '_>, pattern: &[u8], element: &Bytes) -> Option<Bytes> {
    if pattern == b"#" {
        return Some(element.clone());
    }
    let (user_key, field) = key_of(pattern, element)?;
    let key = keys::record_key(call.db, &user_key);
    match field {
        None => {
            let value = call.read_string(&key).ok()??;
            Some(Bytes::copy_from_slice(value.payload()))
        }
        Some(field) => {
            let hash = call.open(&key, Kind::Hash).ok()??;
            hash.member(&*call.txn, field)
        }
    }
}

/// The user key, and perhaps the field, that a pattern with a star names for an element.
fn key_of<'p>(pattern: &'p [u8], element: &[u8]) -> Option<(Vec<u8>, Option<&'p [u8]>)> {
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = after.windows(2).position(|two| two == b"->");
    // An arrow at the very end is part of the key.
    let arrow = arrow.filter(|at| at + 2 < after.len());
    let (after, field) = match arrow {
        Some(at) => (&after[..at], Some(&after[at + 2..])),
        None => (after, None),
    };
    Some(([before, element, after].concat(), field))
}

/// User keys, and fields of those that are hashes.
pub(crate) type Named = BTreeSet<(Bytes, Option<Bytes>)>;

/// What the patterns of a `SORT` or `SORT_RO` name for the elements of its source, whose records
/// these are.
pub(crate) fn named(
    records: &BTreeMap<Bytes, Bytes>,
    db: u8,
    args: &[Bytes],
) -> Result<Named, CommandError> {
    let options = parse(&args[2..], true)?;
    let key = keys::record_key(db, &args[1]);
    let meta = records
        .get(&key)
        .and_then(|r| Meta::parse(&Value::parse(r.clone())));
    let Some(meta) = meta else {
        return Ok(Named::new());
    };
    let elements = load(records, &Collection::new(key, meta));
    let by = options.by.filter(|_| !options.unsorted);
    let mut named = Named::new();
    for pattern in by.into_iter().chain(options.get) {
        for element in &elements {
            if let Some((user_key, field)) = key_of(pattern, element) {
                named.insert((user_key.into(), field.map(Bytes::copy_from_slice)));
            }
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::*;

    #[test]
    fn the_destination_is_found_among_options() {
        for (line, expected) in [
            ("sort k", None),
            ("sort k store d", Some(3)),
            ("sort k by store store d", Some(5)),
            ("sort k limit store store STORE d store e", Some(8)),
            ("sort k store", None),
        ] {
            let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
            assert_eq!(destination_at(&args), expected, "{line}");
        }
    }

    #[test]
    fn patterns_reach_no_further_than_the_range() {
        let mut keyspace = Keyspace::new();
        keyspace.run("RPUSH {t}list 1 2");
        keyspace.run("SET {t}1 9");
        let slot = keys::slot(b"{t}");
        (keyspace.start, keyspace.end) = (keys::slot_start(slot), keys::slot_start(slot + 1));
        assert_eq!(keyspace.run("SORT {t}list BY {t}*"), "*2 $1 2 $1 1 ");
        let refused = keyspace.run("SORT {t}list BY w*");
        assert!(refused.starts_with("-CROSSSLOT"), "{refused}");
    }
}
