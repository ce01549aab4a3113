//! The judge: is a history linearizable?
//!
//! Linearizability is local (Herlihy and Wing, 1990), so each key is judged alone, by
//! [`jit::linearize`] over the Redis string of [`model`], or, if it expires, of [`expiry`].
//!
//! Invariant: `Verdict::Linearizable` is a proof. When the budget runs out the answer is
//! [`Verdict::Undecided`], which a run counts as a failure of its own.

pub mod expiry;
pub mod jit;
pub mod model;

pub use jit::Verdict;

use crate::clock::WallBounds;
use crate::history::{History, Outcome, Record};
use bytes::Bytes;
use expiry::ExpiryModel;
use jit::{linearize, Interval};
use model::StringModel;
use std::collections::BTreeMap;

/// Configurations that one key may cost, besides [`BUDGET_PER_OPERATION`]. Histories of the
/// simulation need some thousands.
pub const BUDGET: u64 = 5_000_000;
/// And for each operation on it.
pub const BUDGET_PER_OPERATION: u64 = 200;

/// A key whose history is not (known to be) linearizable.
#[derive(Debug)]
pub struct Failure {
    /// The key.
    pub key: Bytes,
    /// What was found, and the operations around it.
    pub description: String,
    /// Whether the budget ran out rather than a violation was found.
    pub undecided: bool,
}

/// Judges one key of machines whose clocks show what `clocks` says.
pub fn check_key(records: &[Record], clocks: &WallBounds, budget: u64) -> Verdict {
    let (kept, intervals) = prepare(records);
    let kept = kept.iter().map(|i| &records[*i]);
    if records.iter().any(|r| ExpiryModel::concerns(&r.op)) {
        return linearize(&ExpiryModel::new(kept, clocks), &intervals, budget);
    }
    let operations: Vec<_> = kept
        .map(|record| match &record.outcome {
            Outcome::Replied { reply, .. } => (&record.op, Some(reply)),
            _ => (&record.op, None),
        })
        .collect();
    linearize(&StringModel::new(&operations), &intervals, budget)
}

/// Judges all keys; an empty list means that the whole history is linearizable.
pub fn check(history: &History, budget: u64) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (key, records) in history.keys() {
        let budget = budget + BUDGET_PER_OPERATION * records.len() as u64;
        let (undecided, around, states) = match check_key(records, &history.clocks, budget) {
            Verdict::Linearizable { .. } => continue,
            Verdict::Undecided { at } => (true, at, Vec::new()),
            Verdict::Violation { at, states } => (false, at, states),
        };
        let culprit = prepare(records).0[around];
        failures.push(Failure {
            key: key.clone(),
            description: describe(records, culprit, &states, undecided),
            undecided,
        });
    }
    failures
}

/// Drops what can't matter: operations that were not executed, and reads without a reply.
/// What is left, by its position among `records`, and when it was.
fn prepare(records: &[Record]) -> (Vec<usize>, Vec<Interval>) {
    let mut intervals: Vec<Interval> = Vec::new();
    let mut kept = Vec::new();
    // The last operation of each client that has a reply.
    let mut last: BTreeMap<u32, usize> = BTreeMap::new();
    for (i, record) in records.iter().enumerate() {
        let end = match &record.outcome {
            Outcome::Replied { at, .. } => Some(*at),
            Outcome::Unknown if !record.op.is_read_only() => None,
            Outcome::Unknown | Outcome::NotExecuted => continue,
        };
        let this = intervals.len();
        let before = end.and_then(|_| last.insert(record.client, this));
        let overlaps = |first: &usize| intervals[*first].end.is_some_and(|e| e > record.call);
        intervals.push(Interval {
            call: record.call,
            end,
            after: before.filter(overlaps),
        });
        kept.push(i);
    }
    (kept, intervals)
}

/// The operation that fits nowhere, what the key could have held, and its neighbourhood.
fn describe(records: &[Record], culprit: usize, states: &[String], undecided: bool) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let culprit = &records[culprit];
    if undecided {
        writeln!(text, "undecided: the budget ran out at").unwrap();
    } else {
        writeln!(text, "not linearizable: no order explains").unwrap();
    }
    writeln!(text, "  {}", line(culprit)).unwrap();
    if !states.is_empty() {
        writeln!(
            text,
            "before it the key could only have held one of: {}",
            states.join(", ")
        )
        .unwrap();
    }
    let Outcome::Replied { at, .. } = culprit.outcome else {
        return text;
    };
    writeln!(text, "operations that overlap it or ended shortly before:").unwrap();
    let mut near: Vec<&Record> = records
        .iter()
        .filter(|r| r.call < at && r.outcome != Outcome::NotExecuted)
        .filter(|r| match r.outcome {
            Outcome::Replied { .. } => true,
            _ => !r.op.is_read_only(),
        })
        .collect();
    near.sort_by_key(|r| match r.outcome {
        Outcome::Replied { at, .. } => at,
        _ => r.call,
    });
    for record in &near[near.len().saturating_sub(24)..] {
        writeln!(text, "  {}", line(record)).unwrap();
    }
    text
}

fn line(record: &Record) -> String {
    let outcome = match &record.outcome {
        Outcome::Replied { at, reply } => format!("..{at:<9} -> {reply:?}"),
        Outcome::Unknown => ".. ?        -> unknown".to_string(),
        Outcome::NotExecuted => "            -> not executed".to_string(),
    };
    format!(
        "[{:>9}{outcome}  client {} {:?}",
        record.call, record.client, record.op
    )
}

#[cfg(test)]
mod tests;
