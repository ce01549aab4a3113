//! Several sorted sets at once: `ZUNION ZINTER ZDIFF`, the same with `STORE`, and `ZINTERCARD`.
//!
//! Plain sets take part as sorted sets whose scores are all 1. Scores are added in the order
//! of the sets' sizes, as in Redis: the sum of doubles depends on it.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::float;
use super::number::{integer, parse_int};
use super::reply;
use super::set_algebra::Operation;
use super::value::Kind;
use super::zset;
use super::zset_range::{reply_members, store};
use crate::eval::View;
use bytes::Bytes;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::ControlFlow;

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Opposite infinities have no sum.
            Aggregate::Sum if (a + b).is_nan() => 0.0,
            Aggregate::Sum => a + b,
            Aggregate::Min => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            Aggregate::Max => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        }
    }
}

struct Source {
    set: Option<Collection>,
    weight: f64,
}

impl Source {
    fn size(&self) -> u64 {
        self.set.as_ref().map_or(0, |set| set.meta.size)
    }

    fn weighted(&self, score: f64) -> f64 {
        match self.weight * score {
            product if product.is_nan() => 0.0,
            product => product,
        }
    }

    fn score(&self, view: &dyn View, member: &[u8]) -> Option<f64> {
        let set = self.set.as_ref()?;
        let record = set.member(view, member)?;
        Some(self.weighted(score_in(set, &record)))
    }

    fn visit(&self, view: &dyn View, visit: &mut dyn FnMut(&[u8], f64) -> ControlFlow<()>) {
        if let Some(set) = &self.set {
            set.members(view, 0, &mut |_, member, record| {
                visit(member, self.weighted(score_in(set, record)))
            });
        }
    }
}

fn score_in(set: &Collection, record: &[u8]) -> f64 {
    match set.meta.kind {
        Kind::SortedSet => zset::score_from(record),
        _ => 1.0,
    }
}

struct Request {
    sources: Vec<Source>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: usize,
}

/// What a command of this family answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Members,
    Stored,
    Count,
}

fn parse(
    call: &mut Call<'_, '_>,
    operation: Operation,
    answer: Answer,
) -> Result<Request, CommandError> {
    let at = if answer == Answer::Stored { 2 } else { 1 };
    let count = integer(&call.args[at])?;
    if count < 1 {
        return Err(CommandError::NoInputKey(call.name));
    }
    if count > (call.args.len() - at - 1) as i64 {
        return Err(CommandError::Syntax);
    }
    let end = at + 1 + count as usize;
    let mut request = Request {
        sources: Vec::new(),
        aggregate: Aggregate::Sum,
        with_scores: false,
        limit: 0,
    };
    for index in at + 1..end {
        let key = call.key(index);
        let set = match call.read(&key).map(|value| value.kind) {
            Some(Kind::Set) => call.open(&key, Kind::Set)?,
            _ => call.open(&key, Kind::SortedSet)?,
        };
        request.sources.push(Source { set, weight: 1.0 });
    }
    let combines = operation != Operation::Difference && answer != Answer::Count;
    let mut rest = call.args[end..].iter();
    while let Some(option) = rest.next() {
        match &option.to_ascii_lowercase()[..] {
            b"weights" if combines && rest.len() >= request.sources.len() => {
                for source in &mut request.sources {
                    let weight = rest.next().and_then(|text| float::parse(text));
                    source.weight =
                        weight.ok_or(CommandError::Of("ERR weight value is not a float"))?;
                }
            }
            b"aggregate" if combines && rest.len() >= 1 => {
                let name = rest.next().expect("there is one").to_ascii_lowercase();
                request.aggregate = match &name[..] {
                    b"sum" => Aggregate::Sum,
                    b"min" => Aggregate::Min,
                    b"max" => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
            }
            b"withscores" if answer == Answer::Members => request.with_scores = true,
            b"limit" if answer == Answer::Count && rest.len() >= 1 => {
                let limit = rest.next().and_then(|text| parse_int(text));
                let limit = limit.and_then(|limit| usize::try_from(limit).ok());
                request.limit = limit.ok_or(CommandError::Of("ERR LIMIT can't be negative"))?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    if request.limit == 0 {
        request.limit = usize::MAX;
    }
    Ok(request)
}

/// `ZUNION numkeys key … [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]` and its kin.
pub(crate) fn evaluate(call: &mut Call<'_, '_>, operation: Operation, answer: Answer) -> Outcome {
    let request = parse(call, operation, answer)?;
    let found = request.combine(&*call.txn, operation);
    if answer == Answer::Count {
        return Ok(reply::int(found.len() as i64));
    }
    let mut members: Vec<(Bytes, f64)> = found.into_iter().collect();
    // Stable: those of equal score stay in the order of members.
    members.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("no score is NaN"));
    if answer == Answer::Stored {
        let destination = call.key(1);
        return Ok(store(call, &destination, &members));
    }
    Ok(reply_members(call, &members, request.with_scores))
}

impl Request {
    fn combine(&self, view: &dyn View, operation: Operation) -> BTreeMap<Bytes, f64> {
        let mut found: BTreeMap<Bytes, f64> = BTreeMap::new();
        let mut ordered: Vec<&Source> = self.sources.iter().collect();
        ordered.sort_by_key(|source| source.size());
        match operation {
            Operation::Union => {
                for source in ordered {
                    source.visit(view, &mut |member, score| {
                        match found.entry(Bytes::copy_from_slice(member)) {
                            Entry::Occupied(mut entry) => {
                                let sum = self.aggregate.of(*entry.get(), score);
                                entry.insert(sum);
                            }
                            Entry::Vacant(entry) => {
                                entry.insert(score);
                            }
                        }
                        ControlFlow::Continue(())
                    });
                }
            }
            Operation::Intersection => {
                let (smallest, others) = ordered.split_first().expect("there is a key");
                smallest.visit(view, &mut |member, score| {
                    let score = others.iter().try_fold(score, |sum, other| {
                        Some(self.aggregate.of(sum, other.score(view, member)?))
                    });
                    if let Some(score) = score {
                        found.insert(Bytes::copy_from_slice(member), score);
                    }
                    match found.len() < self.limit {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                });
            }
            Operation::Difference => {
                let (first, others) = self.sources.split_first().expect("there is a key");
                first.visit(view, &mut |member, score| {
                    let mut others = others.iter();
                    if others.all(|other| other.score(view, member).is_none()) {
                        found.insert(Bytes::copy_from_slice(member), score);
                    }
                    ControlFlow::Continue(())
                });
            }
        }
        found
    }
}
