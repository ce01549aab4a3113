//! What the log remembers of a group: in which segments its live data lies, and how large it is.
//! The entries themselves are kept by the raft storage above.

use super::Segment;
use raft::eraftpb::HardState;
use std::collections::{BTreeMap, VecDeque};

/// One group's part of the log. Invariants: `sizes` has one element per live entry;
/// runs ascend in both fields, the first begins at `first_index`, and there is one exactly
/// if there are entries; the sum over all groups of entries in a segment is its `live`.
#[derive(Debug)]
pub(super) struct GroupIndex {
    pub(super) hard_state: HardState,
    /// Where `hard_state` was last written.
    pub(super) hard_state_segment: u64,
    pub(super) truncated_index: u64,
    pub(super) truncated_term: u64,
    /// Where the truncation was last written.
    pub(super) truncated_segment: u64,
    /// Index of the first of `sizes`: `truncated_index + 1`, except in the middle of a replay.
    first_index: u64,
    sizes: VecDeque<u32>,
    runs: VecDeque<Run>,
    bytes: u64,
}

/// Entries from `first_index` up to the next run are in `segment`.
#[derive(Debug)]
struct Run {
    segment: u64,
    first_index: u64,
}

pub(super) type Segments = BTreeMap<u64, Segment>;

fn release(segments: &mut Segments, segment: u64, entries: u64) {
    let segment = segments
        .get_mut(&segment)
        .expect("a segment with live entries is kept");
    assert!(
        segment.live >= entries,
        "live entries {} < {entries} released",
        segment.live
    );
    segment.live -= entries;
}

impl GroupIndex {
    /// A group that begins to exist by a record in `segment`.
    pub(super) fn new(segment: u64) -> Self {
        GroupIndex {
            hard_state: HardState::default(),
            hard_state_segment: segment,
            truncated_index: 0,
            truncated_term: 0,
            truncated_segment: segment,
            first_index: 1,
            sizes: VecDeque::new(),
            runs: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn first_index(&self) -> u64 {
        self.first_index
    }

    pub(super) fn last_index(&self) -> u64 {
        self.first_index + self.sizes.len() as u64 - 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Bytes of live entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest segment with live entries.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment)
    }

    /// Adds entries at the end.
    pub(super) fn push(
        &mut self,
        segments: &mut Segments,
        segment: u64,
        sizes: impl Iterator<Item = u32>,
    ) {
        let first_index = self.first_index + self.sizes.len() as u64;
        for size in sizes {
            self.sizes.push_back(size);
            self.bytes += u64::from(size);
        }
        let pushed = self.first_index + self.sizes.len() as u64 - first_index;
        segments
            .get_mut(&segment)
            .expect("the segment is being written")
            .live += pushed;
        if pushed > 0 && self.runs.back().is_none_or(|run| run.segment != segment) {
            self.runs.push_back(Run {
                segment,
                first_index,
            });
        }
    }

    /// Forgets entries from `index` on. If none remain, the next one pushed has `index`.
    pub(super) fn truncate_from(&mut self, segments: &mut Segments, index: u64) {
        let keep = index
            .saturating_sub(self.first_index)
            .min(self.sizes.len() as u64);
        let mut end = self.first_index + self.sizes.len() as u64;
        self.bytes -= self
            .sizes
            .drain(keep as usize..)
            .map(u64::from)
            .sum::<u64>();
        while end > self.first_index + keep {
            let run = self.runs.back().expect("entries lie in runs");
            let from = run.first_index.max(self.first_index + keep);
            release(segments, run.segment, end - from);
            end = from;
            if run.first_index == from {
                self.runs.pop_back();
            }
        }
        if self.sizes.is_empty() {
            self.first_index = index;
        }
    }

    /// Forgets entries up to `index`. If none remain, the next one pushed has `index + 1`.
    pub(super) fn release_to(&mut self, segments: &mut Segments, index: u64) {
        let gone = (index + 1)
            .saturating_sub(self.first_index)
            .min(self.sizes.len() as u64);
        self.bytes -= self
            .sizes
            .drain(..gone as usize)
            .map(u64::from)
            .sum::<u64>();
        let new_first = self.first_index + gone;
        while self.first_index < new_first {
            let end = match self.runs.get(1) {
                Some(next) => next.first_index.min(new_first),
                None => new_first,
            };
            let run = self.runs.front_mut().expect("entries lie in runs");
            release(segments, run.segment, end - self.first_index);
            run.first_index = end;
            self.first_index = end;
            if self.runs.get(1).is_some_and(|next| next.first_index == end) {
                self.runs.pop_front();
            }
        }
        if self.sizes.is_empty() {
            self.runs.clear();
            self.first_index = self.first_index.max(index + 1);
        }
    }

    /// Forgets all entries.
    pub(super) fn release_all(&mut self, segments: &mut Segments) {
        if !self.is_empty() {
            self.release_to(segments, self.last_index());
        }
    }

    /// Begins anew after `index`.
    pub(super) fn reset(
        &mut self,
        segments: &mut Segments,
        segment: u64,
        (index, term): (u64, u64),
        hard_state: &HardState,
    ) {
        self.release_all(segments);
        self.first_index = index + 1;
        (
            self.truncated_index,
            self.truncated_term,
            self.truncated_segment,
        ) = (index, term, segment);
        self.hard_state = hard_state.clone();
        self.hard_state_segment = segment;
    }

    /// Adds the number of live entries per segment to `live`.
    pub(super) fn count_live(&self, live: &mut BTreeMap<u64, u64>) {
        for (i, run) in self.runs.iter().enumerate() {
            let end = self
                .runs
                .get(i + 1)
                .map_or(self.last_index() + 1, |next| next.first_index);
            assert!(run.first_index < end, "an empty run at {end}");
            *live.entry(run.segment).or_default() += end - run.first_index;
        }
        assert_eq!(self.runs.is_empty(), self.sizes.is_empty());
        assert_eq!(
            self.bytes,
            self.sizes.iter().map(|&size| u64::from(size)).sum::<u64>()
        );
    }
}
