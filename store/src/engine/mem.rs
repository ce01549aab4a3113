//! The in-memory state engine of the simulation.
//!
//! It keeps the promises of [`StateEngine`] and no more: [`MemEngine::crash`] loses what no
//! flush has covered, except for a prefix of the batches, whose length the simulation chooses.
//! A flush that was asked for in the background is done when the simulation says so.
//!
//! Invariant: `newest` = `durable` + `unflushed` applied in order.

mod cow;

use super::{Snapshot, Staged, Stager, StateEngine, WriteBatch};
use bytes::Bytes;
use cow::CowMap;
use parking_lot::RwLock;
use rangekv_model::eval::View;
use std::any::Any;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// An engine in memory, which can lose what was not flushed. It outlives the worker that uses
/// it: the simulation keeps the `Arc`, and gives it to the worker's next incarnation.
#[derive(Default)]
pub struct MemEngine {
    // One writer, many short readers: scans work on a copy-on-write copy outside the lock.
    state: RwLock<State>,
    full: AtomicBool,
}

#[derive(Default)]
struct State {
    newest: CowMap,
    durable: CowMap,
    unflushed: Vec<WriteBatch>,
    /// How many of `unflushed` a background flush covers.
    flush_requested: Option<usize>,
    generation: u64,
}

impl State {
    /// All that was written is durable now.
    fn flush(&mut self) {
        if !self.unflushed.is_empty() {
            self.durable = self.newest.clone();
            self.unflushed.clear();
            self.generation += 1;
        }
        self.flush_requested = None;
    }
}

impl MemEngine {
    /// An empty engine.
    pub fn new() -> Self {
        MemEngine::default()
    }

    /// Number of batches written since the last flush: what a crash can lose.
    pub fn unflushed_batches(&self) -> usize {
        self.state.read().unflushed.len()
    }

    /// How many of the unflushed batches a flush covers that was started in the background
    /// and is not complete. Give it to [`complete_flush`](Self::complete_flush).
    pub fn flush_requested(&self) -> Option<usize> {
        self.state.read().flush_requested
    }

    /// Makes the oldest `batches` unflushed batches durable (all, if there are fewer). May be
    /// called at any time: a real engine flushes by itself when its memtable is full.
    pub fn complete_flush(&self, batches: usize) {
        let mut state = self.state.write();
        let batches = batches.min(state.unflushed.len());
        if batches == state.unflushed.len() {
            state.flush();
            return;
        }
        let flushed: Vec<WriteBatch> = state.unflushed.drain(..batches).collect();
        for batch in &flushed {
            apply(&mut state.durable, batch);
        }
        state.generation += u64::from(batches > 0);
        state.flush_requested = match state.flush_requested {
            Some(requested) if requested > batches => Some(requested - batches),
            _ => None,
        };
    }

    /// Loses power: of the unflushed batches, the oldest `keep_batches` survive (as if a flush
    /// had just covered them). Returns how many were lost.
    pub fn crash(&self, keep_batches: usize) -> usize {
        self.complete_flush(keep_batches);
        let mut state = self.state.write();
        let lost = state.unflushed.len();
        state.unflushed.clear();
        state.flush_requested = None;
        state.newest = state.durable.clone();
        lost
    }

    /// While full, snapshots cannot be staged.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// A map that shares its records with the engine's newest state.
    fn newest(&self) -> CowMap {
        self.state.read().newest.clone()
    }
}

fn apply(map: &mut CowMap, batch: &WriteBatch) {
    for (start, end) in &batch.delete_ranges {
        assert!(
            !end.is_empty(),
            "a range to delete needs an end (start {start:?})"
        );
        map.remove_range(start, end);
    }
    for (key, value) in &batch.puts {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        }
    }
}

impl View for MemEngine {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.state.read().newest.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        self.newest().scan(start, end, visit);
    }

    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        self.newest().scan_reverse(start, end, visit);
    }
}

impl StateEngine for MemEngine {
    fn write(&self, batch: &WriteBatch) {
        if batch.is_empty() {
            return;
        }
        let mut state = self.state.write();
        apply(&mut state.newest, batch);
        state.unflushed.push(batch.clone());
    }

    fn get_durable(&self, key: &[u8]) -> Option<Bytes> {
        self.state.read().durable.get(key)
    }

    fn durable_generation(&self) -> u64 {
        self.state.read().generation
    }

    fn flush(&self) {
        self.state.write().flush();
    }

    fn flush_in_background(&self) {
        let mut state = self.state.write();
        if !state.unflushed.is_empty() {
            state.flush_requested = Some(state.unflushed.len());
        }
    }

    fn snapshot(&self) -> Snapshot {
        Arc::new(self.newest())
    }

    fn stage(&self) -> io::Result<Box<dyn Stager>> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space for a snapshot",
            ));
        }
        Ok(Box::new(MemStager {
            records: Vec::new(),
        }))
    }

    fn install(&self, clear: &[(Bytes, Bytes)], staged: Box<dyn Staged>, puts: &WriteBatch) {
        let staged = staged
            .as_any()
            .downcast::<MemStaged>()
            .expect("staged by another engine");
        super::assert_installable(clear, staged.span(), puts);
        let mut state = self.state.write();
        for (start, end) in clear {
            state.newest.remove_range(start, end);
        }
        for (key, value) in staged.records {
            state.newest.insert(key, value);
        }
        apply(&mut state.newest, puts);
        state.durable = state.newest.clone();
        state.unflushed.clear();
        state.flush_requested = None;
        state.generation += 1;
    }

    fn approximate_size(&self, start: &[u8], end: &[u8]) -> u64 {
        self.newest().bytes_between(start, end)
    }
}

struct MemStager {
    records: Vec<(Bytes, Bytes)>,
}

impl Stager for MemStager {
    fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if let Some((last, _)) = self.records.last() {
            super::check_ascending(last, key)?;
        }
        self.records
            .push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Box<dyn Staged>> {
        Ok(Box::new(MemStaged {
            records: self.records,
        }))
    }
}

struct MemStaged {
    records: Vec<(Bytes, Bytes)>,
}

impl MemStaged {
    /// First and last key.
    fn span(&self) -> Option<(&[u8], &[u8])> {
        Some((&self.records.first()?.0, &self.records.last()?.0))
    }
}

impl Staged for MemStaged {
    fn records(&self) -> u64 {
        self.records.len() as u64
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
