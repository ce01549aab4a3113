//! Sorted sets, member by member: `ZADD ZINCRBY ZREM ZCARD ZSCORE ZMSCORE ZRANK ZREVRANK`.
//! Ranges are in [`zset_range`](super::zset_range), several sets at once in
//! [`zset_algebra`](super::zset_algebra), `ZPOPMIN` and its kin in [`zset_pop`](super::zset_pop).
//!
//! A member has two records, one by which its score is found, and one in the order of scores;
//! [`rank`] keeps counts beside them. The two zeros are one score, but one that is negative is
//! answered as such, if only by large sets: a `listpack` of Redis does not know it. The member's
//! record has the score's own bits, and the other one says `-` if it is negative zero.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::float;
use super::keys::{self, SCORES};
use super::meta::Encoding;
use super::rank;
use super::reply::{self, Reply};
use super::value::Kind;
use crate::eval::View;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Redis's `zset-max-listpack-entries` and `zset-max-listpack-value`.
const SMALL_ENTRIES_MAX: usize = 128;
const SMALL_BYTES_MAX: usize = 64;

/// The score in a member's record.
pub(crate) fn score_from(record: &[u8]) -> f64 {
    let bits = record.first_chunk::<8>();
    f64::from_bits(u64::from_be_bytes(
        *bits.expect("a member's record has eight bytes"),
    ))
}

/// A member's score.
pub(crate) fn score(set: &Collection, view: &dyn View, member: &[u8]) -> Option<f64> {
    set.member(view, member).map(|record| score_from(&record))
}

fn score_key(set: &Collection, place: &[u8]) -> Vec<u8> {
    set.sub_key(SCORES, &[place])
}

/// Gives a member a score, which was `old` (`None` = it is new).
pub(crate) fn put(
    call: &mut Call<'_, '_>,
    set: &mut Collection,
    member: &[u8],
    old: Option<f64>,
    score: f64,
) {
    let place = rank::place(score, member);
    if let Some(old) = old {
        remove_place(call, set, member, old);
    }
    rank::insert(set, call.txn, &place, member);
    set.meta.size += 1;
    set.grow_if(is_large(set.len(), [member]));
    let score = match set.meta.encoding {
        Encoding::Large => score,
        _ => score + 0.0,
    };
    let negative_zero = score == 0.0 && score.is_sign_negative();
    let mark: &'static [u8] = if negative_zero { b"-" } else { b"" };
    call.txn
        .put(score_key(set, &place), Bytes::from_static(mark));
    let bits = Bytes::copy_from_slice(&score.to_bits().to_be_bytes());
    call.txn.put(set.member_key(member), bits);
}

/// Whether Redis would not store so many members, and these among them, as a `listpack`.
pub(crate) fn is_large<'m>(count: usize, members: impl IntoIterator<Item = &'m [u8]>) -> bool {
    let mut members = members.into_iter();
    count > SMALL_ENTRIES_MAX || members.any(|member| member.len() > SMALL_BYTES_MAX)
}

/// Removes a member that has this score.
pub(crate) fn remove(call: &mut Call<'_, '_>, set: &mut Collection, member: &[u8], score: f64) {
    call.txn.delete(set.member_key(member));
    remove_place(call, set, member, score);
}

fn remove_place(call: &mut Call<'_, '_>, set: &mut Collection, member: &[u8], score: f64) {
    let place = rank::place(score, member);
    call.txn.delete(score_key(set, &place));
    rank::remove(set, call.txn, &place, member);
    set.meta.size -= 1;
}

/// Visits members with their scores whose places lie in `[from, to)`, in order or backwards.
pub(crate) fn visit(
    set: &Collection,
    view: &dyn View,
    (from, to): (&[u8], &[u8]),
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], f64) -> ControlFlow<()>,
) {
    let (start, end) = (score_key(set, from), score_key(set, to));
    let mut visit = |key: &[u8], mark: &[u8]| {
        let (score, member) = set
            .tail(key)
            .split_first_chunk::<8>()
            .expect("a score has eight bytes");
        let score = if mark.is_empty() {
            keys::score_of(*score)
        } else {
            -0.0
        };
        visit(member, score)
    };
    if reverse {
        view.scan_reverse(&start, &end, &mut visit);
    } else {
        view.scan(&start, &end, &mut visit);
    }
}

/// A place after all others.
pub(crate) const EVERYTHING: &[u8] = &[0xFF; 8];

pub(crate) fn open(call: &mut Call<'_, '_>) -> Result<Option<Collection>, CommandError> {
    let key = call.key(1);
    call.open(&key, Kind::SortedSet)
}

/// What `OBJECT ENCODING` answers.
pub(crate) fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Small => "listpack",
        _ => "skiplist",
    }
}

#[derive(Clone, Copy, Default)]
struct Options {
    /// `NX`: only add. `XX`: only update.
    absent: bool,
    present: bool,
    /// `GT`, `LT`: update only to a greater or lesser score.
    greater: bool,
    less: bool,
    /// `CH`: count updates too.
    changed: bool,
    /// `INCR`: add to the score, and answer it.
    increment: bool,
}

impl Options {
    fn parse(args: &[Bytes]) -> (Options, usize) {
        let mut options = Options::default();
        for (index, arg) in args.iter().enumerate() {
            match &arg.to_ascii_lowercase()[..] {
                b"nx" => options.absent = true,
                b"xx" => options.present = true,
                b"gt" => options.greater = true,
                b"lt" => options.less = true,
                b"ch" => options.changed = true,
                b"incr" => options.increment = true,
                _ => return (options, index),
            }
        }
        (options, args.len())
    }

    fn check(&self, elements: usize) -> Result<(), CommandError> {
        if self.absent && self.present {
            return Err(CommandError::Of(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if (self.greater || self.less) && self.absent || self.greater && self.less {
            return Err(CommandError::Of(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && elements > 1 {
            return Err(CommandError::Of(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member …`.
pub(crate) fn zadd(call: &mut Call<'_, '_>) -> Outcome {
    let (options, count) = Options::parse(&call.args[2..]);
    let elements = &call.args[2 + count..];
    if elements.is_empty() || !elements.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    add(call, options, elements)
}

/// `ZINCRBY key increment member`.
pub(crate) fn zincrby(call: &mut Call<'_, '_>) -> Outcome {
    let options = Options {
        increment: true,
        ..Options::default()
    };
    add(call, options, &call.args[2..])
}

fn add(call: &mut Call<'_, '_>, options: Options, elements: &[Bytes]) -> Outcome {
    options.check(elements.len() / 2)?;
    let scores: Vec<f64> = elements
        .iter()
        .step_by(2)
        .map(|text| float::parse(text).ok_or(CommandError::NotFloat))
        .collect::<Result<_, _>>()?;
    let key = call.key(1);
    let mut set = call.open_or_create(&key, Kind::SortedSet)?;
    let (mut added, mut updated) = (0, 0);
    let mut answer = None;
    for (given, member) in scores.iter().zip(elements[1..].iter().step_by(2)) {
        let old = score(&set, &*call.txn, member);
        let new = match old {
            Some(_) if options.absent => continue,
            None if options.present => continue,
            Some(old) if options.increment => old + given,
            _ => *given,
        };
        if new.is_nan() {
            return Err(CommandError::Of(
                "ERR resulting score is not a number (NaN)",
            ));
        }
        if let Some(old) = old {
            if (options.less && new >= old) || (options.greater && new <= old) {
                continue;
            }
        }
        answer = Some(new);
        if old != Some(new) {
            put(call, &mut set, member, old, new);
            added += i64::from(old.is_none());
            updated += i64::from(old.is_some());
        }
    }
    if added + updated > 0 {
        call.save(&set);
    }
    Ok(match (options.increment, answer) {
        (true, Some(score)) => reply::double(call.protocol, score),
        (true, None) => reply::nil(call.protocol),
        (false, _) if options.changed => reply::int(added + updated),
        (false, _) => reply::int(added),
    })
}

/// `ZREM key member …`: how many there were.
pub(crate) fn zrem(call: &mut Call<'_, '_>) -> Outcome {
    let Some(mut set) = open(call)? else {
        return Ok(reply::int(0));
    };
    let mut removed = 0;
    for member in &call.args[2..] {
        if let Some(score) = score(&set, &*call.txn, member) {
            remove(call, &mut set, member, score);
            removed += 1;
        }
    }
    if removed > 0 {
        call.save(&set);
    }
    Ok(reply::int(removed))
}

/// `ZCARD key`.
pub(crate) fn zcard(call: &mut Call<'_, '_>) -> Outcome {
    Ok(reply::int(open(call)?.map_or(0, |set| set.len() as i64)))
}

/// `ZSCORE key member`.
pub(crate) fn zscore(call: &mut Call<'_, '_>) -> Outcome {
    let set = open(call)?;
    Ok(
        match set.and_then(|set| score(&set, &*call.txn, &call.args[2])) {
            Some(score) => reply::double(call.protocol, score),
            None => reply::nil(call.protocol),
        },
    )
}

/// `ZMSCORE key member …`.
pub(crate) fn zmscore(call: &mut Call<'_, '_>) -> Outcome {
    let set = open(call)?;
    let mut reply = Reply::new(call.protocol);
    reply.array(call.args.len() - 2);
    for member in &call.args[2..] {
        let set = set.as_ref();
        match set.and_then(|set| score(set, &*call.txn, member)) {
            Some(score) => reply.double(score),
            None => reply.nil(),
        };
    }
    Ok(reply.finish())
}

/// `ZRANK key member [WITHSCORE]`, `ZREVRANK key member [WITHSCORE]`.
pub(crate) fn zrank(call: &mut Call<'_, '_>) -> Outcome {
    let with_score = match &call.args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withscore") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(call.name.to_owned())),
    };
    let member = &call.args[2];
    let found = open(call)?.and_then(|set| {
        let score = score(&set, &*call.txn, member)?;
        let rank = rank::rank_of(&set, &*call.txn, &rank::place(score, member));
        let rank = match call.name {
            "zrevrank" => set.meta.size - 1 - rank,
            _ => rank,
        };
        Some((rank as i64, score))
    });
    Ok(match (found, with_score) {
        (None, false) => reply::nil(call.protocol),
        (None, true) => reply::nil_array(call.protocol),
        (Some((rank, _)), false) => reply::int(rank),
        (Some((rank, score)), true) => {
            let mut reply = Reply::new(call.protocol);
            reply.array(2).int(rank).double(score);
            reply.finish()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::super::{codec::Protocol, keys};
    use super::*;
    use crate::eval::{Context, Txn};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Asserts that counts agree with members, whatever was done.
    fn check(keyspace: &Keyspace) {
        let mut txn = Txn::new(&keyspace.records);
        let context = Context {
            now_ms: keyspace.now_ms,
            seed: 0,
            start: &keyspace.start,
            end: &keyspace.end,
        };
        let mut call = Call {
            context: &context,
            protocol: Protocol::Resp2,
            db: 0,
            name: "",
            args: &[],
            txn: &mut txn,
            outside: false,
        };
        let key = keys::record_key(0, b"z");
        if let Some(set) = call.open(&key, Kind::SortedSet).unwrap() {
            rank::check(&set, &keyspace.records);
        }
    }

    fn order(model: &BTreeMap<String, i64>) -> Vec<(i64, String)> {
        let mut order: Vec<(i64, String)> = model
            .iter()
            .map(|(member, score)| (*score, member.clone()))
            .collect();
        order.sort();
        order
    }

    #[test]
    fn counts_hold_through_growth_and_decay() {
        let mut keyspace = Keyspace::new();
        let mut random = super::super::random::Random::new(1);
        let mut model = BTreeMap::new();
        for n in 0..6000 {
            let member = format!("m{}", random.below(2000));
            if random.below(4) == 0 || n > 5000 {
                keyspace.run(&format!("ZREM z {member}"));
                model.remove(&member);
            } else {
                let score = random.below(500) as i64;
                keyspace.run(&format!("ZADD z {score} {member}"));
                model.insert(member, score);
            }
            if n % 500 == 0 {
                check(&keyspace);
            }
        }
        check(&keyspace);
        for (rank, (_, member)) in order(&model).iter().enumerate() {
            assert_eq!(
                keyspace.run(&format!("ZRANK z {member}")),
                format!(":{rank} ")
            );
            let reply = keyspace.run(&format!("ZRANGE z {rank} {rank}"));
            assert!(reply.ends_with(&format!(" {member} ")), "{reply}");
        }
    }

    /// Whether few are removed one by one, or those that are kept are written anew.
    #[test]
    fn large_ranges_are_removed_as_small_ones_are() {
        for (line, removed, left, written_max) in [
            ("ZREMRANGEBYRANK z 100 -101", 4800, 100..4900, 450),
            ("ZREMRANGEBYRANK z 0 -101", 4900, 0..4900, 230),
            ("ZREMRANGEBYSCORE z 2000 3499", 1500, 2000..3500, 5000),
            ("ZREMRANGEBYSCORE z (4990 +inf", 9, 4991..5000, 60),
            ("ZREMRANGEBYSCORE z -inf +inf", 5000, 0..5000, 1),
            ("ZREMRANGEBYRANK z 5000 6000", 0, 0..0, 0),
        ] {
            let mut keyspace = Keyspace::new();
            for first in (0..5000).step_by(500) {
                let pairs: Vec<String> =
                    (first..first + 500).map(|n| format!("{n} m{n}")).collect();
                keyspace.run(&format!("ZADD z {}", pairs.join(" ")));
            }
            keyspace.run("PEXPIRE z 100000");
            assert_eq!(keyspace.run(line), format!(":{removed} "), "{line}");
            assert!(
                keyspace.writes <= written_max,
                "{line}: {}",
                keyspace.writes
            );
            check(&keyspace);
            let kept = (0..5000).filter(|n| !left.contains(n));
            let members: Vec<String> = kept.map(|n| format!("m{n}")).collect();
            let bulks: String = members
                .iter()
                .map(|m| format!("${} {m} ", m.len()))
                .collect();
            let expected = format!("*{} {bulks}", members.len());
            assert_eq!(keyspace.run("ZRANGE z 0 -1"), expected, "{line}");
            let ttl = if members.is_empty() {
                ":-2 "
            } else {
                ":100000 "
            };
            assert_eq!(keyspace.run("PTTL z"), ttl);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn ranks_and_counts_are_those_of_a_sorted_list(
            scores in proptest::collection::vec(0i64..50, 1..400),
            (low, high) in (0i64..50, 0i64..50),
        ) {
            let mut keyspace = Keyspace::new();
            let mut model = BTreeMap::new();
            for (n, score) in scores.iter().enumerate() {
                keyspace.run(&format!("ZADD z {score} m{n}"));
                model.insert(format!("m{n}"), *score);
            }
            check(&keyspace);
            let between = scores.iter().filter(|s| low < **s && **s <= high).count();
            prop_assert_eq!(keyspace.run(&format!("ZCOUNT z ({low} {high}")), format!(":{between} "));
            keyspace.run(&format!("ZREMRANGEBYSCORE z ({low} {high}"));
            check(&keyspace);
            model.retain(|_, score| !(low < *score && *score <= high));
            let left: Vec<String> = order(&model).into_iter().map(|(_, member)| member).collect();
            let reply = keyspace.run("ZRANGE z 0 -1");
            let found: Vec<&str> = reply.split(' ').filter(|word| word.starts_with('m')).collect();
            prop_assert_eq!(found, left);
        }
    }
}
