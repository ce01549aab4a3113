//! The collection of garbage: expired keys, and elements whose collection was deleted,
//! replaced or trimmed.
//!
//! `\0SWEEP start limit` walks a range's records of all databases from a record key on (empty =
//! the start of the range), looks at no more than `limit` of them, and removes what nobody can
//! see any more. It answers `[next, records removed, earliest expiry]`: where to go on (empty =
//! the range is finished), and when the next key that it met expires (ms since the epoch, 0 =
//! none does). So whoever sweeps knows how long a range without writes may be left alone.
//!
//! Nothing else is needed for that than the records themselves: a deletion writes nothing down
//! for the sweep, and a `SET` over a huge collection stays a blind write of one record. What it
//! costs is that garbage waits until the walk comes by, which a range's bounded size bounds.
//!
//! Invariant: what a sweep removes, no command would have seen. It skips what it doesn't know:
//! records of types, and sub-keys, that a later version may have written.

use super::call::{Call, Outcome};
use super::codec::{encode_command, Protocol};
use super::collection::Collection;
use super::keys;
use super::meta::Meta;
use super::number::parse_int;
use super::paging;
use super::reply::Reply;
use super::value::{Kind, Value};
use crate::eval::View;
use bytes::Bytes;
use std::ops::ControlFlow;

/// The command for a page, in the model's encoding.
pub fn command(start: &Bytes, records_max: u32) -> Bytes {
    let name = Bytes::from_static(paging::SWEEP);
    let limit = Bytes::from(records_max.to_string());
    encode_command(Protocol::Resp2, 0, &[name, start.clone(), limit])
}

/// What a page came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Where to go on; empty = the range is finished.
    pub next: Bytes,
    /// Records removed.
    pub removed: u64,
    /// When the first of the keys it met expires, ms since the Unix epoch.
    pub earliest_ms: Option<u64>,
}

impl Page {
    /// Reads a reply; `None` if it is none, but an error.
    pub fn parse(reply: &Bytes) -> Option<Page> {
        let text = reply.strip_prefix(b"*3\r\n$")?;
        let (length, rest) = split_line(text)?;
        let (next, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (removed, rest) = split_line(rest.strip_prefix(b"\r\n:")?)?;
        let (earliest, _) = split_line(rest.strip_prefix(b":")?)?;
        Some(Page {
            next: reply.slice_ref(next),
            removed: u64::try_from(removed).ok()?,
            earliest_ms: u64::try_from(earliest).ok().filter(|at| *at > 0),
        })
    }
}

/// A number up to the end of its line, and what follows.
fn split_line(text: &[u8]) -> Option<(i64, &[u8])> {
    let end = text.windows(2).position(|two| two == b"\r\n")?;
    Some((parse_int(&text[..end])?, &text[end + 2..]))
}

/// Live elements of one collection that are read before the others are jumped over: a jump
/// costs as much as a few dozen records.
const ELEMENTS_READ_MAX: usize = 32;

/// What the user key that the walk is in has to say about its elements.
enum Owner {
    /// There is no such key, or it is no collection.
    None,
    Collection(Collection),
    /// Nothing of this key may be touched.
    Unknown(Bytes),
}

impl Owner {
    fn of(record: Option<(&[u8], &[u8])>, now_ms: u64) -> Owner {
        let Some((key, record)) = record else {
            return Owner::None;
        };
        let value = Value::parse(record);
        match Meta::parse(&value) {
            _ if value.kind != Kind::Unknown && value.is_expired(now_ms) => Owner::None,
            Some(meta) => Owner::Collection(Collection::new(Bytes::copy_from_slice(key), meta)),
            None if value.kind == Kind::String => Owner::None,
            None => Owner::Unknown(Bytes::copy_from_slice(key)),
        }
    }
}

/// `\0SWEEP start limit`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let limit = paging::limit(call)?;
    let now_ms = call.context.now_ms;
    let (mut cursor, end) = paging::bounds(call.context, &call.args[1]);
    let mut owner = match keys::user_key_prefix(&cursor) {
        Some(prefix) => {
            let record = call.txn.get(prefix);
            Owner::of(record.as_deref().map(|record| (prefix, record)), now_ms)
        }
        None => Owner::None,
    };
    let mut doomed = Vec::new();
    let mut earliest = None;
    let (mut visited, mut live) = (0, 0);
    let next = loop {
        let mut resume = None;
        let mut full = false;
        if cursor < end {
            call.txn.scan(&cursor, &end, &mut |key, record| {
                if visited == limit {
                    full = true;
                    resume = Some(Bytes::copy_from_slice(key));
                    return ControlFlow::Break(());
                }
                visited += 1;
                let Some(prefix) = keys::user_key_prefix(key) else {
                    return ControlFlow::Continue(());
                };
                if prefix.len() == key.len() {
                    live = 0;
                    owner = Owner::of(Some((key, record)), now_ms);
                    let value = Value::parse(record);
                    if value.kind == Kind::Unknown {
                        resume = Some(keys::after_user_key(prefix));
                        return ControlFlow::Break(());
                    }
                    if value.is_expired(now_ms) {
                        doomed.push(Bytes::copy_from_slice(key));
                    } else if let Some(at) = value.expires_at_ms {
                        earliest = Some(earliest.map_or(at, |earliest: u64| earliest.min(at)));
                    }
                    return ControlFlow::Continue(());
                }
                let Some(version) = keys::element_version(key) else {
                    return ControlFlow::Continue(());
                };
                let collection = match &owner {
                    // Elements of a key without metadata come first of their key.
                    Owner::Collection(collection) if key.starts_with(&collection.key) => {
                        Some(collection)
                    }
                    Owner::Unknown(owner) if key.starts_with(owner) => {
                        return ControlFlow::Continue(());
                    }
                    _ => None,
                };
                match collection.filter(|collection| collection.meta.version == version) {
                    Some(collection) if collection.is_live(key) => {
                        live += 1;
                        if live > ELEMENTS_READ_MAX {
                            live = 0;
                            resume = Some(collection.live_end());
                            return ControlFlow::Break(());
                        }
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
    let removed = doomed.len();
    for key in doomed {
        call.txn.delete(key);
    }
    let mut reply = Reply::with_capacity(Protocol::Resp2, next.len() + 64);
    reply.array(3).bulk(&next).int(removed as i64);
    reply.int(earliest.map_or(0, |at| at.min(i64::MAX as u64) as i64));
    Ok(reply.finish())
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::*;

    /// Sweeps in pages of `limit` until the end; how many records were removed.
    fn sweep(keyspace: &mut Keyspace, limit: usize) -> usize {
        let mut start = Bytes::new();
        let mut removed = 0;
        loop {
            let limit = Bytes::from(limit.to_string());
            let args = [Bytes::from_static(paging::SWEEP), start.clone(), limit];
            let page = Page::parse(&keyspace.run_args(&args)).expect("a page");
            assert_eq!(page.removed as usize, keyspace.writes);
            removed += keyspace.writes;
            let next = page.next;
            if next.is_empty() {
                return removed;
            }
            assert!(next > start, "a sweep goes forward");
            start = next;
        }
    }

    #[test]
    fn only_what_nobody_sees_is_removed() {
        for limit in [1, 3, 1000] {
            let mut keyspace = Keyspace::new();
            for n in 0..100 {
                keyspace.run(&format!("SADD gone a{n} b{n}"));
                keyspace.run(&format!("HSET overwritten f{n} v"));
                keyspace.run(&format!("RPUSH trimmed v{n}"));
                keyspace.run(&format!("ZADD replaced {n} m{n}"));
                keyspace.run(&format!("SADD kept {n}"));
                keyspace.run(&format!("SET expires{n} v PX 1000"));
                keyspace.run(&format!("HSET hash{n} f v"));
                keyspace.run(&format!("PEXPIRE hash{n} 1000"));
            }
            keyspace.run("DEL gone");
            keyspace.run("SADD gone again");
            keyspace.run("SET overwritten v");
            keyspace.run("LTRIM trimmed 10 19");
            keyspace.run("DEL replaced");
            keyspace.now_ms += 1000;
            let ask = [
                "SMEMBERS gone",
                "GET overwritten",
                "LRANGE trimmed 0 -1",
                "SCARD kept",
            ];
            let before = ask.map(|line| keyspace.run(line));
            // The sorted set has two records for each member, and some counts.
            assert!(sweep(&mut keyspace, limit) >= 200 + 100 + 90 + 200 + 100 + 200);
            assert_eq!(ask.map(|line| keyspace.run(line)), before);
            assert_eq!(keyspace.records.len(), 2 + 1 + 11 + 101, "limit {limit}");
            assert_eq!(sweep(&mut keyspace, limit), 0);
        }
    }

    #[test]
    fn a_sweep_jumps_over_what_lives() {
        let mut keyspace = Keyspace::new();
        for n in 0..2000 {
            keyspace.run(&format!("SADD big {n}"));
        }
        keyspace.run("SET z v PXAT 5000000");
        let sweep = [paging::SWEEP, b"", b"100"].map(Bytes::from_static);
        let expected = Page {
            next: Bytes::new(),
            removed: 0,
            earliest_ms: Some(5_000_000),
        };
        assert_eq!(Page::parse(&keyspace.run_args(&sweep)), Some(expected));
    }

    #[test]
    fn what_is_unknown_is_left_alone() {
        let mut keyspace = Keyspace::new();
        let key = keys::record_key(0, b"k");
        keyspace
            .records
            .insert(key.clone(), Bytes::from_static(b"\xEE\0"));
        let element = [&keys::version_prefix(&key, 7)[..], b"x"].concat();
        keyspace.records.insert(element.into(), Bytes::new());
        assert_eq!(sweep(&mut keyspace, 1), 0);
    }
}
