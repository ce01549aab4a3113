//! What a leader has evaluated but not yet applied, in front of the applied state.
//!
//! Two layers. The *batch* holds the writes of this round, which become one entry; the
//! *overlay* holds those of entries in the log that are not applied. A proposal that fails
//! drops the batch and leaves the overlay untouched (rule E4).
//!
//! Invariants:
//! - every overlay record's index lies in (applied, last index];
//! - a record leaves the overlay when the entry that wrote it *last* is applied, or when
//!   leadership is lost, and never otherwise (rule E5).

use crate::payload::Writes;
use bytes::Bytes;
use rangekv_model::eval::{merge_scan, View};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

#[derive(Debug)]
struct Written {
    index: u64,
    value: Option<Bytes>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Overlay {
    proposed: BTreeMap<Bytes, Written>,
    proposed_bytes: usize,
    batch: Writes,
    batch_bytes: usize,
}

fn record_bytes(key: &Bytes, value: &Option<Bytes>) -> usize {
    key.len() + value.as_ref().map_or(0, |v| v.len()) + 64
}

impl Overlay {
    /// Nothing proposed, nothing in the batch.
    pub fn is_empty(&self) -> bool {
        self.proposed.is_empty() && self.batch.is_empty()
    }

    /// Whether this round has evaluated a write.
    pub fn has_batch(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Memory held, bytes, approximately.
    pub fn bytes(&self) -> usize {
        self.proposed_bytes + self.batch_bytes
    }

    /// Bytes of this round's batch, approximately.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Adds the writes of one command to this round's batch.
    pub fn add(&mut self, writes: Writes) {
        for (key, value) in writes {
            self.batch_bytes += record_bytes(&key, &value);
            self.batch.insert(key, value);
        }
    }

    /// This round's writes, for encoding the entry.
    pub fn batch(&self) -> &Writes {
        &self.batch
    }

    /// The batch was proposed as the entry at `index`.
    pub fn proposed(&mut self, index: u64) {
        for (key, value) in std::mem::take(&mut self.batch) {
            self.proposed_bytes += record_bytes(&key, &value);
            if let Some(old) = self.proposed.insert(key.clone(), Written { index, value }) {
                assert!(
                    old.index < index,
                    "overlay index regression {} → {index}",
                    old.index
                );
                self.proposed_bytes -= record_bytes(&key, &old.value);
            }
        }
        self.batch_bytes = 0;
    }

    /// The batch could not be proposed.
    pub fn drop_batch(&mut self) {
        self.batch.clear();
        self.batch_bytes = 0;
    }

    /// The entry at `index`, which wrote `key`, is applied.
    pub fn applied(&mut self, key: &[u8], index: u64) {
        if self.proposed.get(key).is_some_and(|w| w.index <= index) {
            if let Some((key, old)) = self.proposed.remove_entry(key) {
                self.proposed_bytes -= record_bytes(&key, &old.value);
            }
        }
    }

    /// Leadership is lost: nothing of it may be seen again.
    pub fn clear(&mut self) {
        *self = Overlay::default();
    }

    /// The least index that a record waits for.
    pub fn min_index(&self) -> Option<u64> {
        self.proposed.values().map(|w| w.index).min()
    }

    /// Reads through both layers.
    pub fn over<'a>(&'a self, below: &'a dyn View) -> OverlayView<'a> {
        OverlayView {
            overlay: self,
            below,
        }
    }
}

/// Batch over overlay over applied state.
pub struct OverlayView<'a> {
    overlay: &'a Overlay,
    below: &'a dyn View,
}

/// The proposed layer over applied state.
struct ProposedView<'a>(&'a OverlayView<'a>);

impl View for ProposedView<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.0.overlay.proposed.get(key) {
            Some(w) => w.value.clone(),
            None => self.0.below.get(key),
        }
    }
    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        merge_scan(
            &self.0.overlay.proposed,
            |w| w.value.as_ref(),
            self.0.below,
            start,
            end,
            false,
            visit,
        );
    }
    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        merge_scan(
            &self.0.overlay.proposed,
            |w| w.value.as_ref(),
            self.0.below,
            start,
            end,
            true,
            visit,
        );
    }
}

impl View for OverlayView<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.overlay.batch.get(key) {
            Some(v) => v.clone(),
            None => ProposedView(self).get(key),
        }
    }
    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        merge_scan(
            &self.overlay.batch,
            |v| v.as_ref(),
            &ProposedView(self),
            start,
            end,
            false,
            visit,
        );
    }
    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        merge_scan(
            &self.overlay.batch,
            |v| v.as_ref(),
            &ProposedView(self),
            start,
            end,
            true,
            visit,
        );
    }
}
