//! The judge: is a history linearizable?
//!
//! Linearizability is local (Herlihy and Wing, 1990), so each key is judged alone, by
//! [`jit::linearize`] over the Redis string of [`model`].
//!
//! Invariant: `Verdict::Linearizable` is a proof. When the budget runs out the answer is
//! [`Verdict::Undecided`], which a run counts as a failure of its own.

pub mod jit;
pub mod model;

pub use jit::Verdict;

use crate::history::{History, Outcome, Record};
use bytes::Bytes;
use jit::{linearize, Interval};
use model::StringModel;

/// Configurations that one key may cost. Histories of the simulation need some thousands.
pub const BUDGET: u64 = 5_000_000;

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

/// Judges one key.
pub fn check_key(records: &[Record], budget: u64) -> Verdict {
    let (model, intervals, _) = prepare(records);
    linearize(&model, &intervals, budget)
}

/// Judges all keys; an empty list means that the whole history is linearizable.
pub fn check(history: &History, budget: u64) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (key, records) in history.keys() {
        let (model, intervals, origin) = prepare(records);
        let verdict = linearize(&model, &intervals, budget);
        let (undecided, around, states) = match verdict {
            Verdict::Linearizable { .. } => continue,
            Verdict::Undecided { at } => (true, at, Vec::new()),
            Verdict::Violation { at, states } => (false, at, states),
        };
        let culprit = origin[around];
        failures.push(Failure {
            key: key.clone(),
            description: describe(records, culprit, &states, undecided),
            undecided,
        });
    }
    failures
}

/// Drops what can't matter: operations that were not executed, and reads without a reply.
/// The last vector maps an operation to its record.
fn prepare(records: &[Record]) -> (StringModel, Vec<Interval>, Vec<usize>) {
    let mut intervals = Vec::new();
    let mut origin = Vec::new();
    let mut kept = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let (end, reply) = match &record.outcome {
            Outcome::Replied { at, reply } => (Some(*at), Some(reply)),
            Outcome::Unknown if !record.op.is_read_only() => (None, None),
            Outcome::Unknown | Outcome::NotExecuted => continue,
        };
        intervals.push(Interval {
            call: record.call,
            end,
        });
        kept.push((&record.op, reply));
        origin.push(i);
    }
    (StringModel::new(&kept), intervals, origin)
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
