//! The commands by which the router walks a keyspace, range by range and page by page.
//!
//! Users cannot type them: their names begin with a zero byte, which the router refuses. Each
//! works on the command's database inside the range that evaluates it:
//!
//! | arguments after the name | reply |
//! |---|---|
//! | `\0KEYS` start, limit, pattern (empty = all), type (empty = any) | `[next, [user key, …]]` |
//! | `\0COUNT` start, limit | `[next, number of keys]` |
//! | `\0FIGURES` start, limit | `[next, [records visited, then of each database with keys: its number, keys, those with an expiry, sum of their milliseconds]]` |
//! | `\0FLUSH` start, limit, optionally `ALL` databases | `[next, number of records deleted]` |
//! | `\0RANDOM` start | a user key, or nil |
//! | `\0SWEEP` start, limit | see [`sweep`](super::sweep): of all databases |
//! | `\0EXEC` … | see [`exec`](super::exec): not a page, but a transaction |
//! | `\0NAMED` keys and fields | see [`records`](super::records) |
//! | `\0RECORDS` command, keys | see [`records`](super::records) |
//!
//! `start` and `next` are record keys: an empty `start` is that of the range, an empty `next`
//! says that the range is finished. `limit` bounds how many records are visited, at least one,
//! so that a page takes bounded time whatever it finds. Replies are RESP2 whatever the
//! client speaks, since the router reads them.
//!
//! Expired keys are skipped and, except by `\0FLUSH`, not removed: a walk stays read-only.

use super::call::{Call, Outcome};
use super::codec::Protocol;
use super::error::CommandError;
use super::keys;
use super::reply::{self, Reply};
use super::value::Value;
use super::{glob, number};
use crate::eval::{Context, View};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// `\0KEYS`: the keys of a page.
pub const KEYS: &[u8] = b"\0KEYS";
/// `\0COUNT`: how many keys a page has.
pub const COUNT: &[u8] = b"\0COUNT";
/// `\0FIGURES`: what a page has, of all databases.
pub const FIGURES: &[u8] = b"\0FIGURES";
/// `\0FLUSH`: deletes a page of records.
pub const FLUSH: &[u8] = b"\0FLUSH";
/// `\0RANDOM`: some key of the range.
pub const RANDOM: &[u8] = b"\0RANDOM";

/// `\0SWEEP`: removes a page's garbage.
pub const SWEEP: &[u8] = b"\0SWEEP";

/// How many records `\0RANDOM` looks at, at most, before it gives up.
const RANDOM_VISITS_MAX: usize = 10_000;

/// Evaluates a command whose name begins with a zero byte.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let arity = |counts: std::ops::RangeInclusive<usize>| {
        if counts.contains(&call.args.len()) {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&call.args[0][1..]);
        Err(CommandError::Arity(name.to_ascii_lowercase()))
    };
    match &call.args[0][..] {
        KEYS => arity(5..=5).and_then(|()| page_of_keys(call)),
        COUNT => arity(3..=3).and_then(|()| count(call)),
        FIGURES => arity(3..=3).and_then(|()| figures(call)),
        FLUSH => arity(3..=4).and_then(|()| flush(call)),
        SWEEP => arity(3..=3).and_then(|()| super::sweep::evaluate(call)),
        RANDOM => arity(2..=2).map(|()| random(call)),
        super::records::RECORDS => {
            arity(2..=usize::MAX).and_then(|()| super::records::evaluate(call))
        }
        super::records::NAMED => super::records::evaluate_named(call),
        super::exec::EXEC => super::exec::evaluate(call),
        _ => Err(CommandError::unknown_command(call.args)),
    }
}

fn page_of_keys(call: &mut Call<'_, '_>) -> Outcome {
    let [_, start, _, pattern, kind] = call.args else {
        return Err(CommandError::Syntax);
    };
    let mut found = Vec::new();
    let next = walk(call, start, limit(call)?, &mut |user_key, value| {
        let wanted = (kind.is_empty() || kind.eq_ignore_ascii_case(value.kind.name().as_bytes()))
            && (pattern.is_empty() || glob::matches(pattern, &user_key));
        if wanted {
            found.push(user_key.into_owned());
        }
        ControlFlow::Continue(())
    });
    let bytes = found.iter().map(|key| key.len() + 16).sum::<usize>();
    let mut reply = Reply::with_capacity(Protocol::Resp2, next.len() + bytes + 32);
    reply.array(2).bulk(&next).array(found.len());
    for key in &found {
        reply.bulk(key);
    }
    Ok(reply.finish())
}

fn count(call: &mut Call<'_, '_>) -> Outcome {
    let mut keys = 0;
    let next = walk(call, &call.args[1], limit(call)?, &mut |_, _| {
        keys += 1;
        ControlFlow::Continue(())
    });
    Ok(page_of_number(&next, keys))
}

/// Keys, keys with an expiry, and the sum of the milliseconds that those have left.
type DatabaseFigures = [u64; 3];

fn figures(call: &mut Call<'_, '_>) -> Outcome {
    let mut databases: BTreeMap<u8, DatabaseFigures> = BTreeMap::new();
    let now_ms = call.context.now_ms;
    let (from, limit) = (&call.args[1], limit(call)?);
    let (next, visited) = visit(call, None, from, limit, &mut |db, _, value| {
        let [keys, expiring, left_ms] = databases.entry(db).or_default();
        *keys += 1;
        if let Some(at_ms) = value.expires_at_ms {
            *expiring += 1;
            *left_ms += at_ms.saturating_sub(now_ms);
        }
        ControlFlow::Continue(())
    });
    let mut reply = Reply::with_capacity(Protocol::Resp2, next.len() + 32 + 64 * databases.len());
    reply.array(2).bulk(&next).array(1 + 4 * databases.len());
    reply.int(visited as i64);
    for (db, figures) in databases {
        reply.int(db.into());
        for figure in figures {
            reply.int(i64::try_from(figure).unwrap_or(i64::MAX));
        }
    }
    Ok(reply.finish())
}

fn flush(call: &mut Call<'_, '_>) -> Outcome {
    let all = match call.args.get(3) {
        None => false,
        Some(option) if option.eq_ignore_ascii_case(b"ALL") => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    let limit = limit(call)?;
    let (mut cursor, end) = bounds(call.context, &call.args[1]);
    let mut doomed = Vec::new();
    let mut visited = 0;
    let next = loop {
        let mut resume = None;
        let mut full = false;
        if cursor < end {
            call.txn.scan(&cursor, &end, &mut |key, _| {
                if visited == limit {
                    full = true;
                    resume = Some(Bytes::copy_from_slice(key));
                    return ControlFlow::Break(());
                }
                visited += 1;
                match keys::slot_and_database(key) {
                    Some((slot, db)) if !all && db != call.db => {
                        resume = Some(seek_database(slot, db, call.db));
                        return ControlFlow::Break(());
                    }
                    _ => doomed.push(Bytes::copy_from_slice(key)),
                }
                ControlFlow::Continue(())
            });
        }
        match resume {
            None => break Bytes::new(),
            Some(next) if full => break next,
            Some(next) => cursor = next,
        }
    };
    let deleted = doomed.len();
    for key in doomed {
        call.txn.delete(key);
    }
    Ok(page_of_number(&next, deleted))
}

/// Looks from a given place, or from one that the seed chooses: a slot of the range, and in
/// the first slot at or after it that has keys a point between the first key and the last.
/// Keys after a gap are therefore likelier than others, as in Redis keys after an empty bucket.
fn random(call: &mut Call<'_, '_>) -> Bytes {
    let start = &call.args[1];
    let found = if start.is_empty() {
        let (low, end) = bounds(call.context, b"");
        let (first_slot, end_slot) = (keys::slot_at(&low), keys::slot_at(&end));
        let span = u64::from(end_slot.saturating_sub(first_slot)) + 1;
        let slot = (u64::from(first_slot) + call.context.seed % span).min(u64::from(keys::SLOTS));
        let near = first_key(call, &keys::slot_start(slot as u16));
        near.or_else(|| first_key(call, &low)).map(|first| {
            let point = point_in_slot(call, &first);
            first_key(call, &point)
                .filter(|_| point > first)
                .unwrap_or(first)
        })
    } else {
        first_key(call, start).or_else(|| first_key(call, b""))
    };
    match found.as_deref().and_then(keys::decode) {
        Some((_, _, user_key)) => reply::bulk(&user_key),
        None => reply::nil(Protocol::Resp2),
    }
}

/// The record key of the first key at or after `from`.
fn first_key(call: &Call<'_, '_>, from: &[u8]) -> Option<Bytes> {
    let mut found = None;
    walk(call, from, RANDOM_VISITS_MAX, &mut |user_key, _| {
        found = Some(keys::record_key(call.db, &user_key));
        ControlFlow::Break(())
    });
    found
}

/// A key between `first` and the last record of its slot and database, chosen by the seed
/// from the 8 bytes in which they begin to differ.
fn point_in_slot(call: &Call<'_, '_>, first: &Bytes) -> Bytes {
    let Some((slot, db)) = keys::slot_and_database(first) else {
        return first.clone();
    };
    let (_, end) = bounds(call.context, b"");
    let end = end.min(keys::database_start(slot, db + 1));
    let mut last = first.clone();
    call.txn.scan_reverse(first, &end, &mut |key, _| {
        last = Bytes::copy_from_slice(key);
        ControlFlow::Break(())
    });
    let common = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
    let window = |key: &[u8]| {
        let mut bytes = [0u8; 8];
        let rest = &key[common..key.len().min(common + 8)];
        bytes[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (window(first), window(&last));
    // The low bits of the seed chose the slot; an odd factor mixes them into the high ones.
    let bits = call.context.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let offset = (u128::from(bits) * (u128::from(high - low) + 1)) >> 64;
    [&first[..common], &(low + offset as u64).to_be_bytes()]
        .concat()
        .into()
}

/// Called with each user key and its record.
type KeyVisitor<'a> = &'a mut dyn FnMut(Cow<'_, [u8]>, &Value<&[u8]>) -> ControlFlow<()>;
/// The same, and with the key's database before.
type Visitor<'a> = &'a mut dyn FnMut(u8, Cow<'_, [u8]>, &Value<&[u8]>) -> ControlFlow<()>;

/// Visits the unexpired keys of the command's database from `from` on, as [`visit`] does.
/// Returns where to go on; empty = finished.
fn walk(call: &Call<'_, '_>, from: &[u8], limit: usize, each: KeyVisitor<'_>) -> Bytes {
    visit(
        call,
        Some(call.db),
        from,
        limit,
        &mut |_, user_key, value| each(user_key, value),
    )
    .0
}

/// Visits the unexpired keys of one database, or of all, from `from` on, until `each` breaks or
/// `limit` records were looked at. Elements of collections and records of other databases are
/// jumped over, each jump counting as one record. Returns where to go on, empty = finished, and
/// how many records were looked at.
fn visit(
    call: &Call<'_, '_>,
    only: Option<u8>,
    from: &[u8],
    limit: usize,
    each: Visitor<'_>,
) -> (Bytes, usize) {
    let (mut cursor, end) = bounds(call.context, from);
    let mut visited = 0;
    while cursor < end {
        let mut resume = None;
        let mut stopped = false;
        call.txn.scan(&cursor, &end, &mut |key, record| {
            if visited == limit {
                stopped = true;
                resume = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            visited += 1;
            let Some((slot, db, user_key)) = keys::decode(key) else {
                return ControlFlow::Continue(());
            };
            if let Some(only) = only.filter(|only| *only != db) {
                resume = Some(seek_database(slot, db, only));
                return ControlFlow::Break(());
            }
            if !keys::is_metadata(key) {
                resume = keys::next_user_key_prefix(key);
                return ControlFlow::Break(());
            }
            let value = Value::parse(record);
            if value.is_expired(call.context.now_ms) {
                return ControlFlow::Continue(());
            }
            let flow = each(db, user_key, &value);
            if flow.is_break() {
                stopped = true;
                resume = keys::next_user_key_prefix(key);
            }
            flow
        });
        match resume {
            None => return (Bytes::new(), visited),
            Some(next) if stopped => return (next, visited),
            Some(next) => cursor = next,
        }
    }
    (Bytes::new(), visited)
}

/// From a record of database `found`, where the records of `wanted` begin next.
fn seek_database(slot: u16, found: u8, wanted: u8) -> Bytes {
    let slot = if found < wanted { slot } else { slot + 1 };
    keys::database_start(slot, wanted)
}

/// `[start, end)`: what of the range is Redis's and not before `from`.
pub(crate) fn bounds(context: &Context<'_>, from: &[u8]) -> (Bytes, Bytes) {
    let (first, end) = (keys::slot_start(0), keys::slot_start(keys::SLOTS));
    let start = from.max(context.start).max(&first);
    let end = match context.end {
        [] => end,
        inside if inside < &end[..] => Bytes::copy_from_slice(inside),
        _ => end,
    };
    (Bytes::copy_from_slice(start), end)
}

/// How many records the command may look at.
pub(crate) fn limit(call: &Call<'_, '_>) -> Result<usize, CommandError> {
    let limit = number::parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    Ok(usize::try_from(limit).unwrap_or(0).max(1))
}

fn page_of_number(next: &[u8], number: usize) -> Bytes {
    let mut reply = Reply::with_capacity(Protocol::Resp2, next.len() + 48);
    reply.array(2).bulk(next).int(number as i64);
    reply.finish()
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::*;
    use std::collections::BTreeSet;

    /// 300 keys in database 0, every third of them also in databases 2 and 5; one has
    /// elements, and `{t}` makes some of them share a slot.
    fn filled() -> Keyspace {
        let mut keyspace = Keyspace::new();
        for n in 0..300 {
            for db in [0, 2, 5] {
                keyspace.db = db;
                if db == 0 || n % 3 == 0 {
                    keyspace.run(&format!("SET {} v", name(n)));
                }
            }
        }
        keyspace.db = 0;
        let owner = keys::record_key(0, b"key:7");
        for n in 0..50u8 {
            let element = [&owner[..], &[n]].concat();
            keyspace
                .records
                .insert(element.into(), Bytes::from("element"));
        }
        keyspace
    }

    fn name(n: usize) -> String {
        match n % 4 {
            0 => format!("{{t}}{n}"),
            _ => format!("key:{n}"),
        }
    }

    fn page(keyspace: &mut Keyspace, args: &[&[u8]]) -> (Bytes, Vec<Bytes>) {
        let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let reply = keyspace.run_args(&args);
        // Neither keys nor numbers contain line ends, and no next key here does either.
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!(text.starts_with("*2\r\n$"), "{text}");
        let mut rest = &reply[4..];
        let mut bulk = || {
            let line = rest.iter().position(|&b| b == b'\n')? + 1;
            let size = std::str::from_utf8(&rest[1..line - 2])
                .unwrap()
                .parse()
                .unwrap();
            let kind = rest[0];
            rest = &rest[line..];
            let taken = match kind {
                b'$' => {
                    let (taken, after) = rest.split_at(size);
                    rest = &after[2..];
                    Bytes::copy_from_slice(taken)
                }
                _ => Bytes::from(format!("{}{size}", kind as char)),
            };
            Some(taken)
        };
        let next = bulk().unwrap();
        (next, std::iter::from_fn(bulk).collect())
    }

    fn all_keys(keyspace: &mut Keyspace, limit: &str, pattern: &str, kind: &str) -> Vec<Bytes> {
        let mut start = keyspace.start.clone();
        let mut found = Vec::new();
        loop {
            let (pattern, kind) = (pattern.as_bytes(), kind.as_bytes());
            let (next, mut keys) = page(keyspace, &[KEYS, &start, limit.as_bytes(), pattern, kind]);
            assert_eq!(keyspace.writes, 0);
            keys.remove(0);
            assert!(keys.len() <= limit.parse().unwrap());
            found.append(&mut keys);
            if next.is_empty() {
                return found;
            }
            assert!(next > start, "a walk goes forward");
            start = next;
        }
    }

    #[test]
    fn pages_cover_each_key_once() {
        let mut keyspace = filled();
        let expected: BTreeSet<Bytes> = (0..300).map(|n| name(n).into()).collect();
        for limit in ["1", "7", "100", "100000"] {
            let found = all_keys(&mut keyspace, limit, "", "");
            assert_eq!(found.len(), 300, "limit {limit}");
            assert_eq!(BTreeSet::from_iter(found), expected);
        }
        keyspace.db = 2;
        assert_eq!(all_keys(&mut keyspace, "10", "", "").len(), 100);
        keyspace.db = 4;
        assert_eq!(all_keys(&mut keyspace, "10", "", "").len(), 0);
    }

    #[test]
    fn keys_are_filtered_by_pattern_and_type() {
        let mut keyspace = filled();
        assert_eq!(all_keys(&mut keyspace, "9", "*:1?", "").len(), 8);
        assert_eq!(all_keys(&mut keyspace, "9", "", "STRING").len(), 300);
        assert_eq!(all_keys(&mut keyspace, "9", "", "list").len(), 0);
    }

    #[test]
    fn walks_stay_within_their_range() {
        let mut keyspace = filled();
        let whole = all_keys(&mut keyspace, "1000", "", "").len();
        let (first, end) = (keyspace.start.clone(), keyspace.end.clone());
        for cut in [keys::slot_start(5000), keys::record_key(0, b"{t}100")] {
            (keyspace.start, keyspace.end) = (first.clone(), cut.clone());
            let left = all_keys(&mut keyspace, "5", "", "").len();
            (keyspace.start, keyspace.end) = (cut, end.clone());
            let right = all_keys(&mut keyspace, "5", "", "").len();
            assert_eq!(left + right, whole);
        }
        // An unbounded range holds other models' records too.
        (keyspace.start, keyspace.end) = (Bytes::new(), Bytes::new());
        for key in [&b"\x10x"[..], b"\x30x"] {
            keyspace
                .records
                .insert(Bytes::from_static(key), Bytes::from("x"));
        }
        assert_eq!(all_keys(&mut keyspace, "5", "", "").len(), whole);
    }

    #[test]
    fn counts_add_up() {
        let mut keyspace = filled();
        let (mut start, mut sum) = (Bytes::new(), 0);
        loop {
            let (next, number) = page(&mut keyspace, &[COUNT, &start, b"13"]);
            let text = std::str::from_utf8(&number[0]).unwrap();
            sum += text[1..].parse::<i32>().unwrap();
            if next.is_empty() {
                break;
            }
            start = next;
        }
        assert_eq!(sum, 300);
    }

    #[test]
    fn figures_are_of_all_databases() {
        let mut keyspace = filled();
        keyspace.db = 2;
        let left_ms = 5_000;
        let at_ms = keyspace.now_ms + left_ms;
        keyspace.run(&format!("PEXPIREAT {} {at_ms}", name(3)));
        keyspace.db = 5;
        keyspace.run(&format!("PEXPIREAT {} {at_ms}", name(6)));
        keyspace.now_ms += 1_000;
        keyspace.db = 9;
        for limit in ["1", "17", "100000"] {
            let (mut start, mut sums, mut visits) = (Bytes::new(), BTreeMap::new(), 0);
            loop {
                let args = [FIGURES, &start, limit.as_bytes()];
                let (next, numbers) = page(&mut keyspace, &args);
                let number = |n: &Bytes| std::str::from_utf8(&n[1..]).unwrap().parse().unwrap();
                let numbers: Vec<u64> = numbers[1..].iter().map(number).collect();
                visits += numbers[0];
                assert!(numbers[0] <= limit.parse().unwrap());
                for of_one in numbers[1..].chunks(4) {
                    let sum: &mut [u64; 3] = sums.entry(of_one[0]).or_default();
                    (0..3).for_each(|i| sum[i] += of_one[1 + i]);
                }
                if next.is_empty() {
                    break;
                }
                start = next;
            }
            let expected = [(0, [300, 0, 0]), (2, [100, 1, 4_000]), (5, [100, 1, 4_000])];
            assert_eq!(sums, BTreeMap::from(expected));
            assert_eq!(visits, 500 + 1, "the elements are one jump");
        }
    }

    #[test]
    fn flush_deletes_a_database_or_all() {
        for (all, left) in [(false, 200), (true, 0)] {
            let mut keyspace = filled();
            let others: BTreeMap<_, _> = keyspace.records.clone();
            let mut start = Bytes::new();
            loop {
                let mut args = vec![FLUSH, &start, &b"11"[..]];
                if all {
                    args.push(b"all");
                }
                let (next, _) = page(&mut keyspace, &args);
                assert!(keyspace.writes <= 11);
                if next.is_empty() {
                    break;
                }
                start = next;
            }
            assert_eq!(keyspace.records.len(), left);
            assert!(keyspace
                .records
                .iter()
                .all(|(k, v)| others.get(k) == Some(v)));
            assert!(keyspace
                .records
                .keys()
                .all(|key| keys::slot_and_database(key).unwrap().1 != 0));
        }
    }

    #[test]
    fn random_finds_a_key_if_there_is_one_and_not_always_the_same() {
        let mut keyspace = filled();
        let random = |keyspace: &mut Keyspace, start: &[u8]| {
            let args = [Bytes::from_static(RANDOM), Bytes::copy_from_slice(start)];
            keyspace.run_args(&args)
        };
        let distinct = |keyspace: &mut Keyspace| {
            let mut found = BTreeSet::new();
            for n in 0..1000u64 {
                keyspace.seed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                found.insert(random(keyspace, b""));
            }
            assert!(!found.contains(&reply::nil(Protocol::Resp2)));
            found.len()
        };
        assert!(distinct(&mut keyspace) > 100);
        let (first, end) = (keyspace.start.clone(), keyspace.end.clone());
        let slot = keys::slot(b"t");
        keyspace.start = keys::slot_start(slot);
        keyspace.end = keys::slot_start(slot + 1);
        assert!(distinct(&mut keyspace) > 20, "a single slot is no trap");
        (keyspace.start, keyspace.end) = (first, end);
        let first = random(&mut keyspace, &keys::record_key(0, b"foo"));
        assert!(first.starts_with(b"$"));
        keyspace.db = 9;
        assert_eq!(random(&mut keyspace, b""), reply::nil(Protocol::Resp2));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let mut keyspace = Keyspace::new();
        for line in [
            "\0KEYS",
            "\0COUNT",
            "\0FIGURES",
            "\0FLUSH",
            "\0RANDOM",
            "\0COUNT a b c",
        ] {
            let expected = "wrong number of arguments";
            assert!(keyspace.run(line).contains(expected), "{line:?}");
        }
        for line in ["\0COUNT  x", "\0FLUSH  5 SOME", "\0NOSUCH"] {
            assert!(keyspace.run(line).starts_with("-ERR "), "{line:?}");
        }
    }
}
