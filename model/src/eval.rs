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

/// What an evaluation may depend on besides the view.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Milliseconds since the Unix epoch; never runs backwards within a range.
    pub now_ms: u64,
    /// Random bits, fresh for each command: no two commands that are evaluated with the same
    /// `now_ms` in one range have the same lowest 20.
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
}

impl<'a> Txn<'a> {
    /// An evaluation that has written nothing yet.
    pub fn new(view: &'a dyn View) -> Self {
        Txn {
            view,
            writes: BTreeMap::new(),
            bytes: 0,
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

    /// How many records are written or deleted, and bytes of keys and values in all writes so
    /// far, those included that another one of the same key replaced.
    pub fn size(&self) -> (usize, usize) {
        (self.writes.len(), self.bytes)
    }

    /// Whether nothing was written.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
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
}
