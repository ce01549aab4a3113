//! The contract between the engine and a data model.
//!
//! A model is a pure function: it reads an ordered key-value view, and answers with a
//! reply and a set of writes. The leader evaluates; the log carries only the writes.
//!
//! Invariants that an [`Evaluator`] keeps:
//! - Every key it reads or writes lies in the range it was given, unless it says so itself.
//! - The same view, context and command give the same reply and writes. Time and
//!   randomness come from [`Context`] alone.
//! - It never fails: what is wrong with a command is part of the reply.

use bytes::Bytes;
use std::collections::btree_map::Range;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Called with the key and value of each record that a scan meets, until it breaks.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An ordered map of byte strings: applied state, or applied state below an overlay.
///
/// Reading never fails: a storage error is a fault of this store alone and ends the process.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// Visits records of `[start, end)` in ascending key order (`end` empty = unbounded)
    /// until `visit` breaks.
    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>);

    /// As [`scan`](Self::scan), in descending order.
    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>);
}

/// A view of a map in memory, for tests and for state that was fetched beforehand.
impl View for BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        BTreeMap::get(self, key).cloned()
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        let visited = within(self, start, end);
        let _ = visited
            .into_iter()
            .flatten()
            .try_for_each(|(key, value)| visit(key, value));
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        let visited = within(self, start, end);
        let _ = visited
            .into_iter()
            .flatten()
            .rev()
            .try_for_each(|(key, value)| visit(key, value));
    }
}

/// `None` if the bounds are in the wrong order, which a map would panic at.
fn within<'a>(
    map: &'a BTreeMap<Bytes, Bytes>,
    start: &[u8],
    end: &[u8],
) -> Option<Range<'a, Bytes, Bytes>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    if end.is_empty() {
        return Some(map.range::<[u8], _>((Included(start), Unbounded)));
    }
    (start < end).then(|| map.range::<[u8], _>((Included(start), Excluded(end))))
}

/// Between the [seeds](Context::seed) of one command and the next: odd, so that multiples of it
/// differ in any number of their lowest bits for as long as they can.
pub const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the leader of a range remembers of when its data was written, for optimistic locks.
///
/// *Units* are what a model locks as a whole, see [`Evaluator::unit`]. Evaluations of a leader
/// have an order, and a *stamp* names one of them, of one leader in one term over one set of
/// bounds.
///
/// Invariant: nothing is forgotten in silence. Where it is not known whether a unit was written,
/// because another leader gave the stamp, or the bounds have changed, or there were too many to
/// remember, it counts as written.
pub trait Watches {
    /// The stamp of this evaluation.
    fn stamp(&self) -> Bytes;

    /// Whether `unit` was [watched](Txn::watch) and certainly not been written by an evaluation
    /// later than the one that gave `stamp`.
    fn unchanged(&self, unit: &[u8], stamp: &[u8]) -> bool;
}

/// What an evaluation may depend on besides the view.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Milliseconds since the Unix epoch; never runs backwards within a range.
    pub now_ms: u64,
    /// Random bits, fresh for each command: no two commands that are evaluated with the same
    /// `now_ms` in one range have the same lowest 20. A command that consists of several takes
    /// more of them, see [`Txn::take_seeds`].
    pub seed: u64,
    /// First key of the range.
    pub start: &'a [u8],
    /// Exclusive end of the range; empty = the end of the keyspace.
    pub end: &'a [u8],
}

/// A view with this command's own writes above it.
pub struct Txn<'a> {
    view: &'a dyn View,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    watches: Option<&'a dyn Watches>,
    watched: Vec<Bytes>,
    needs_leader: bool,
    seeds: u32,
}

impl<'a> Txn<'a> {
    /// An evaluation that has written nothing yet.
    pub fn new(view: &'a dyn View) -> Self {
        Txn {
            view,
            writes: BTreeMap::new(),
            bytes: 0,
            watches: None,
            watched: Vec::new(),
            needs_leader: false,
            seeds: 1,
        }
    }

    /// The same where there is somebody who remembers: on the leader's worker.
    pub fn with_watches(self, watches: &'a dyn Watches) -> Self {
        Txn {
            watches: Some(watches),
            ..self
        }
    }

    /// Has writes to `unit` remembered from this evaluation on, whose stamp is the answer. `None`
    /// if nobody would: this is not the leader's worker, and the reply is not to be used.
    pub fn watch(&mut self, unit: Bytes) -> Option<Bytes> {
        let Some(watches) = self.watches else {
            self.needs_leader = true;
            return None;
        };
        self.watched.push(unit);
        Some(watches.stamp())
    }

    /// As [`Watches::unchanged`]; if nobody remembers the reply is not to be used.
    pub fn is_unchanged(&mut self, unit: &[u8], stamp: &[u8]) -> bool {
        self.needs_leader |= self.watches.is_none();
        self.watches
            .is_some_and(|watches| watches.unchanged(unit, stamp))
    }

    /// What is to be remembered from now on.
    pub fn take_watched(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.watched)
    }

    /// The evaluation consists of `count` commands, at least one: their seeds are that of the
    /// context and those that follow it at a distance of [`SEED_STEP`].
    pub fn take_seeds(&mut self, count: u32) {
        self.seeds = self.seeds.max(count);
    }

    /// How many seeds were taken, at least one.
    pub fn seeds(&self) -> u32 {
        self.seeds
    }

    /// Adds the writes of a part of this evaluation.
    pub fn extend(&mut self, writes: BTreeMap<Bytes, Option<Bytes>>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.put(key, value),
                None => self.delete(key),
            }
        }
    }

    /// Sets `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.writes.insert(key, Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.writes.insert(key, None);
    }

    /// Forgets all writes.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.bytes = 0;
    }

    /// Whether `key` is set or removed so far.
    pub fn has_written(&self, key: &[u8]) -> bool {
        self.writes.contains_key(key)
    }

    /// How many records are written or deleted, and bytes of keys and values in all writes so
    /// far, those included that another one of the same key replaced.
    pub fn size(&self) -> (usize, usize) {
        (self.writes.len(), self.bytes)
    }

    /// Whether nothing was written, nor asked that only the leader's worker knows.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty() && !self.needs_leader
    }

    /// The writes in key order; `None` deletes.
    pub fn into_writes(self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.writes
    }

    fn merge(&self, start: &[u8], end: &[u8], reverse: bool, visit: Visitor<'_>) {
        if !end.is_empty() && start >= end {
            return;
        }
        merge_scan(
            &self.writes,
            |v| v.as_ref(),
            self.view,
            start,
            end,
            reverse,
            visit,
        );
    }
}

impl View for Txn<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.view.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.merge(start, end, false, visit);
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        self.merge(start, end, true, visit);
    }
}

/// Scans `below` with the records of `above` in front of it: a `None` hides a record.
/// Used for a command's own writes, and by the engine for its overlay.
pub fn merge_scan<T>(
    above: &BTreeMap<Bytes, T>,
    value_of: impl Fn(&T) -> Option<&Bytes>,
    below: &dyn View,
    start: &[u8],
    end: &[u8],
    reverse: bool,
    visit: Visitor<'_>,
) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let upper = if end.is_empty() {
        Unbounded
    } else {
        Excluded(end)
    };
    let range = above.range::<[u8], _>((Included(start), upper));
    let mut pending: Box<dyn Iterator<Item = (&Bytes, &T)>> = if reverse {
        Box::new(range.rev())
    } else {
        Box::new(range)
    };
    let mut next = pending.next();
    let mut stopped = false;
    let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
    {
        let mut step = |key: &[u8], value: &[u8]| -> ControlFlow<()> {
            while let Some((k, v)) = next {
                if before(k, key) {
                    if let Some(v) = value_of(v) {
                        if visit(k, v).is_break() {
                            stopped = true;
                            return ControlFlow::Break(());
                        }
                    }
                    next = pending.next();
                } else {
                    break;
                }
            }
            if let Some((k, v)) = next {
                if k == key {
                    next = pending.next();
                    return match value_of(v) {
                        Some(v) => {
                            let flow = visit(key, v);
                            stopped = flow.is_break();
                            flow
                        }
                        None => ControlFlow::Continue(()),
                    };
                }
            }
            let flow = visit(key, value);
            stopped = flow.is_break();
            flow
        };
        if reverse {
            below.scan_reverse(start, end, &mut step);
        } else {
            below.scan(start, end, &mut step);
        }
    }
    if stopped {
        return;
    }
    while let Some((k, v)) = next {
        if let Some(v) = value_of(v) {
            if visit(k, v).is_break() {
                return;
            }
        }
        next = pending.next();
    }
}

/// A data model: Redis, DynamoDB, the placement state.
pub trait Evaluator: Send + Sync {
    /// Evaluates `command`, reading and writing through `txn`; the reply is in the model's
    /// own encoding. A command sent as read-only that leaves writes in `txn` (it met a record
    /// that has expired) is evaluated again on the leader's worker, where writes are allowed.
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes;

    /// A key strictly inside `[start, end)` at which a split keeps together what must stay
    /// together, close to `near`; `None` if there is none.
    fn split_key(&self, start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes>;

    /// The part of a record's key that all records share which are [watched](Watches) together.
    fn unit<'k>(&self, record: &'k [u8]) -> &'k [u8] {
        record
    }
}
