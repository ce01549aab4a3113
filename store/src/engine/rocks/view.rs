//! Reading.

use crate::fatal;
use bytes::Bytes;
use rangekv_model::eval::View;
use rocksdb::{DBRawIterator, ReadOptions, DB};
use std::ops::ControlFlow;
use std::sync::Arc;

type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

pub(super) fn get(db: &DB, key: &[u8], options: &ReadOptions) -> Option<Bytes> {
    match db.get_pinned_opt(key, options) {
        Ok(value) => value.map(|value| Bytes::copy_from_slice(&value)),
        Err(error) => fatal("reading from the state engine", &error),
    }
}

/// Whether `[start, end)` can hold no key.
pub(super) fn is_empty(start: &[u8], end: &[u8]) -> bool {
    !end.is_empty() && start >= end
}

pub(super) fn scan_options(start: &[u8], end: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start);
    if !end.is_empty() {
        options.set_iterate_upper_bound(end);
    }
    options
}

pub(super) fn scan(db: &DB, options: ReadOptions, visit: &mut Visit<'_>) {
    let mut iterator = db.raw_iterator_opt(options);
    iterator.seek_to_first();
    run(iterator, visit, |iterator| iterator.next());
}

pub(super) fn scan_reverse(db: &DB, options: ReadOptions, visit: &mut Visit<'_>) {
    let mut iterator = db.raw_iterator_opt(options);
    iterator.seek_to_last();
    run(iterator, visit, |iterator| iterator.prev());
}

fn run<'a>(
    mut iterator: DBRawIterator<'a>,
    visit: &mut Visit<'_>,
    step: fn(&mut DBRawIterator<'a>),
) {
    while let Some((key, value)) = iterator.item() {
        if visit(key, value).is_break() {
            return;
        }
        step(&mut iterator);
    }
    if let Err(error) = iterator.status() {
        fatal("scanning the state engine", &error);
    }
}

/// A RocksDB snapshot that keeps its database open.
///
/// Invariant: `snapshot` belongs to `db`, and is dropped before it (fields drop in order).
pub(super) struct RocksSnapshot {
    snapshot: rocksdb::Snapshot<'static>,
    db: Arc<DB>,
}

impl RocksSnapshot {
    #[allow(unsafe_code)]
    pub(super) fn new(db: Arc<DB>) -> Self {
        let snapshot = db.snapshot();
        // SAFETY: the lifetime stands for the borrow of the `DB` inside the `Arc`, which does
        // not move. This struct holds the `Arc` until after the snapshot is dropped, and never
        // gives the snapshot away.
        let snapshot = unsafe {
            std::mem::transmute::<rocksdb::Snapshot<'_>, rocksdb::Snapshot<'static>>(snapshot)
        };
        RocksSnapshot { snapshot, db }
    }

    fn at_this_moment(&self, mut options: ReadOptions) -> ReadOptions {
        options.set_snapshot(&self.snapshot);
        // A snapshot is read once, from end to end: it would push out what is read often.
        options.fill_cache(false);
        options
    }
}

impl View for RocksSnapshot {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        get(&self.db, key, &self.at_this_moment(ReadOptions::default()))
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        if !is_empty(start, end) {
            scan(
                &self.db,
                self.at_this_moment(scan_options(start, end)),
                visit,
            );
        }
    }

    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        if !is_empty(start, end) {
            scan_reverse(
                &self.db,
                self.at_this_moment(scan_options(start, end)),
                visit,
            );
        }
    }
}
