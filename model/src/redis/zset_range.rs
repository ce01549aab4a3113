//! Ranges of sorted sets by rank, score or member: `ZRANGE` with all its forms and older names,
//! `ZRANGESTORE`, `ZCOUNT`, `ZLEXCOUNT`, `ZREMRANGEBY…`.
//!
//! Each kind of range is turned into a stretch of places, `[from, to)`: what it costs to find
//! that does not depend on how long it is, and counting takes two ranks.
//!
//! `BYLEX` supposes that all members have the same score, as Redis documents: that of the first.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::float;
use super::keys;
use super::number::{integer, range_within};
use super::rank;
use super::reply::{self, Reply};
use super::value::Kind;
use super::zset::{self, EVERYTHING};
use crate::eval::View;
use bytes::Bytes;
use std::ops::ControlFlow;

/// What a range is given by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Rank,
    Score,
    Member,
}

/// A bound of a range of members.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Lex {
    /// `-`
    Lowest,
    /// `+`
    Highest,
    Including(Bytes),
    Excluding(Bytes),
}

/// A range as it was typed, in ascending order.
#[derive(Clone, Debug)]
enum Range {
    Rank(i64, i64),
    /// Each bound with whether it is excluded.
    Score((f64, bool), (f64, bool)),
    Member(Lex, Lex),
}

/// From so many members on, those to be removed are counted by their ranks.
const COUNTED_MIN: usize = 1000;

/// A stretch of places, `[from, to)`.
type Stretch = (Vec<u8>, Vec<u8>);

fn parse_score(text: &[u8]) -> Result<(f64, bool), CommandError> {
    let (excluded, text) = match text {
        [b'(', rest @ ..] => (true, rest),
        text => (false, text),
    };
    let bound = float::parse_bound(text);
    let bound = bound.ok_or(CommandError::Of("ERR min or max is not a float"))?;
    Ok((bound, excluded))
}

fn parse_lex(text: &Bytes) -> Result<Lex, CommandError> {
    match &text[..] {
        b"-" => Ok(Lex::Lowest),
        b"+" => Ok(Lex::Highest),
        [b'[', ..] => Ok(Lex::Including(text.slice(1..))),
        [b'(', ..] => Ok(Lex::Excluding(text.slice(1..))),
        _ => Err(CommandError::Of(
            "ERR min or max not valid string range item",
        )),
    }
}

impl Range {
    fn parse(by: By, min: &Bytes, max: &Bytes) -> Result<Range, CommandError> {
        Ok(match by {
            By::Rank => Range::Rank(integer(min)?, integer(max)?),
            By::Score => Range::Score(parse_score(min)?, parse_score(max)?),
            By::Member => Range::Member(parse_lex(min)?, parse_lex(max)?),
        })
    }

    /// Where its members are; `reverse` if ranks count from the end. `None` if there are none.
    fn stretch(&self, set: &Collection, view: &dyn View, reverse: bool) -> Option<Stretch> {
        let (from, to) = match self {
            Range::Rank(start, stop) => {
                let size = set.meta.size;
                let (mut start, mut stop) = range_within(*start, *stop, size)?;
                if reverse {
                    (start, stop) = (size - 1 - stop, size - 1 - start);
                }
                let from = rank::place_at(set, view, start)?;
                let to = rank::place_at(set, view, stop + 1);
                (from, to.unwrap_or_else(|| EVERYTHING.to_vec()))
            }
            Range::Score((min, above), (max, below)) => {
                (score_edge(*min, *above), score_edge(*max, !*below))
            }
            Range::Member(min, max) => {
                let mut first = None;
                zset::visit(set, view, (&[], EVERYTHING), false, &mut |_, score| {
                    first = Some(score);
                    ControlFlow::Break(())
                });
                let score = first?;
                (
                    member_edge(score, min, false),
                    member_edge(score, max, true),
                )
            }
        };
        (from < to).then_some((from, to))
    }
}

/// The first place with this score, or the first one after all of it.
fn score_edge(score: f64, after: bool) -> Vec<u8> {
    let edge = u64::from_be_bytes(keys::score_bytes(score));
    (edge + u64::from(after)).to_be_bytes().to_vec()
}

/// The first place that is within, as the lower bound, or that is beyond, as the upper one.
fn member_edge(score: f64, bound: &Lex, upper: bool) -> Vec<u8> {
    match (bound, upper) {
        (Lex::Lowest, _) => score_edge(score, false),
        (Lex::Highest, _) => score_edge(score, true),
        (Lex::Including(member), false) | (Lex::Excluding(member), true) => {
            rank::place(score, member)
        }
        (Lex::Including(member), true) | (Lex::Excluding(member), false) => {
            [&rank::place(score, member)[..], &[0]].concat()
        }
    }
}

/// What `ZRANGE` and its kin are asked for.
struct Request {
    range: Range,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

/// Parses `key min max [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]` from `at` on.
/// What the command's name says already can't be given as an option.
fn parse(
    args: &[Bytes],
    at: usize,
    mut by: Option<By>,
    mut reverse: Option<bool>,
    storing: bool,
) -> Result<Request, CommandError> {
    let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
    let mut rest = args[at + 3..].iter();
    while let Some(option) = rest.next() {
        match &option.to_ascii_lowercase()[..] {
            b"withscores" if !storing => with_scores = true,
            b"limit" if rest.len() >= 2 => {
                let mut number = || integer(rest.next().expect("there are two"));
                offset = number()?;
                limit = number()?;
            }
            b"rev" if reverse.is_none() => reverse = Some(true),
            b"bylex" if by.is_none() => by = Some(By::Member),
            b"byscore" if by.is_none() => by = Some(By::Score),
            _ => return Err(CommandError::Syntax),
        }
    }
    let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
    if limit != -1 && by == By::Rank {
        return Err(CommandError::Of(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if by == By::Rank {
        // With a count of -1 it is as good as absent.
        offset = 0;
    }
    if with_scores && by == By::Member {
        return Err(CommandError::Of(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    let (mut min, mut max) = (&args[at + 1], &args[at + 2]);
    if reverse && by != By::Rank {
        (min, max) = (max, min);
    }
    Ok(Request {
        range: Range::parse(by, min, max)?,
        reverse,
        with_scores,
        offset,
        limit,
    })
}

impl Request {
    fn find(&self, set: &Collection, view: &dyn View) -> Vec<(Bytes, f64)> {
        let mut found = Vec::new();
        let (Ok(mut offset), true) = (u64::try_from(self.offset), self.limit != 0) else {
            return found;
        };
        let Some((mut from, mut to)) = self.range.stretch(set, view, self.reverse) else {
            return found;
        };
        if offset > 0 {
            // What is skipped is not looked at.
            let rank = match self.reverse {
                false => Some(rank::rank_of(set, view, &from) + offset),
                true => rank::rank_of(set, view, &to).checked_sub(offset),
            };
            let Some(place) = rank.map(|rank| rank::place_at(set, view, rank)) else {
                return found;
            };
            match (self.reverse, place) {
                (false, Some(place)) => from = place,
                (true, Some(place)) => to = place,
                (_, None) => return found,
            }
            if from >= to {
                return found;
            }
            offset = 0;
        }
        debug_assert_eq!(offset, 0);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        zset::visit(
            set,
            view,
            (&from, &to),
            self.reverse,
            &mut |member, score| {
                found.push((Bytes::copy_from_slice(member), score));
                match found.len() < limit {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            },
        );
        found
    }
}

/// An array of members, with their scores if wanted.
pub(crate) fn reply_members(
    call: &Call<'_, '_>,
    members: &[(Bytes, f64)],
    with_scores: bool,
) -> Bytes {
    let mut reply = Reply::new(call.protocol);
    reply.pairs(members.len(), with_scores);
    for (member, score) in members {
        reply.pair(with_scores).bulk(member);
        if with_scores {
            reply.double(*score);
        }
    }
    reply.finish()
}

/// Puts members in the place of whatever is at a key, or nothing if there are none.
pub(crate) fn store(call: &mut Call<'_, '_>, key: &Bytes, members: &[(Bytes, f64)]) -> Bytes {
    let mut set = call.create(key, Kind::SortedSet);
    set.grow_if(zset::is_large(
        members.len(),
        members.iter().map(|(member, _)| &member[..]),
    ));
    for (member, score) in members {
        zset::put(call, &mut set, member, None, *score);
    }
    call.save(&set);
    reply::int(members.len() as i64)
}

/// `ZRANGE`, `ZREVRANGE`, `ZRANGEBYSCORE`, `ZREVRANGEBYSCORE`, `ZRANGEBYLEX`, `ZREVRANGEBYLEX`.
pub(crate) fn zrange(call: &mut Call<'_, '_>) -> Outcome {
    let (by, reverse) = match call.name {
        "zrange" => (None, None),
        "zrevrange" => (Some(By::Rank), Some(true)),
        "zrangebyscore" => (Some(By::Score), Some(false)),
        "zrevrangebyscore" => (Some(By::Score), Some(true)),
        "zrangebylex" => (Some(By::Member), Some(false)),
        _ => (Some(By::Member), Some(true)),
    };
    let request = parse(call.args, 1, by, reverse, false)?;
    let Some(set) = zset::open(call)? else {
        return Ok(reply::empty_array());
    };
    let found = request.find(&set, &*call.txn);
    Ok(reply_members(call, &found, request.with_scores))
}

/// `ZRANGESTORE destination source min max …`: how many members the destination has then.
pub(crate) fn zrangestore(call: &mut Call<'_, '_>) -> Outcome {
    let request = parse(call.args, 2, None, None, true)?;
    let source = call.key(2);
    let found = match call.open(&source, Kind::SortedSet)? {
        Some(set) => request.find(&set, &*call.txn),
        None => Vec::new(),
    };
    let destination = call.key(1);
    Ok(store(call, &destination, &found))
}

/// `ZCOUNT key min max`, `ZLEXCOUNT key min max`.
pub(crate) fn zcount(call: &mut Call<'_, '_>) -> Outcome {
    let by = match call.name {
        "zcount" => By::Score,
        _ => By::Member,
    };
    let range = Range::parse(by, &call.args[2], &call.args[3])?;
    let Some(set) = zset::open(call)? else {
        return Ok(reply::int(0));
    };
    let view: &dyn View = &*call.txn;
    let count = range.stretch(&set, view, false).map_or(0, |(from, to)| {
        rank::rank_of(&set, view, &to) - rank::rank_of(&set, view, &from)
    });
    Ok(reply::int(count as i64))
}

/// `ZREMRANGEBYRANK`, `ZREMRANGEBYSCORE`, `ZREMRANGEBYLEX` `key min max`: how many there were.
pub(crate) fn zremrange(call: &mut Call<'_, '_>) -> Outcome {
    let by = match call.name {
        "zremrangebyrank" => By::Rank,
        "zremrangebyscore" => By::Score,
        _ => By::Member,
    };
    let range = Range::parse(by, &call.args[2], &call.args[3])?;
    let Some(mut set) = zset::open(call)? else {
        return Ok(reply::int(0));
    };
    let view: &dyn View = &*call.txn;
    let Some((from, to)) = range.stretch(&set, view, false) else {
        return Ok(reply::int(0));
    };
    let mut doomed = Vec::new();
    let mut find = |most: usize| {
        doomed.clear();
        zset::visit(&set, view, (&from, &to), false, &mut |member, score| {
            doomed.push((Bytes::copy_from_slice(member), score));
            match doomed.len() < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        doomed.len()
    };
    let mut count = find(COUNTED_MIN);
    if count == COUNTED_MIN {
        // So many are not looked at before it is known what is to be done with them.
        count = (rank::rank_of(&set, view, &to) - rank::rank_of(&set, view, &from)) as usize;
        let kept = set.len() - count;
        if kept > 0 && kept < count / 4 {
            keep_others(call, &set, &from, &to);
            return Ok(reply::int(count as i64));
        }
        if kept > 0 {
            find(usize::MAX);
        }
    }
    if count == set.len() {
        // Nothing is left: the elements are garbage.
        call.delete(set.key);
        return Ok(reply::int(count as i64));
    }
    for (member, score) in &doomed {
        zset::remove(call, &mut set, member, *score);
    }
    if count > 0 {
        call.save(&set);
    }
    Ok(reply::int(count as i64))
}

/// Puts a set of what lies outside a stretch in the place of the whole: what was there is garbage.
fn keep_others(call: &mut Call<'_, '_>, set: &Collection, from: &[u8], to: &[u8]) {
    let mut kept = Vec::new();
    for stretch in [(&[][..], from), (to, EVERYTHING)] {
        zset::visit(set, &*call.txn, stretch, false, &mut |member, score| {
            kept.push((Bytes::copy_from_slice(member), score));
            ControlFlow::Continue(())
        });
    }
    let mut meta = set.meta.clone();
    (meta.version, meta.size, meta.height) = (call.fresh_version(), 0, 0);
    let mut others = Collection::new(set.key.clone(), meta);
    for (member, score) in &kept {
        zset::put(call, &mut others, member, None, *score);
    }
    call.save(&others);
}
