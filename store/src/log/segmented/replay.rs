//! Reads the segments back: which records count, and what their operations add up to.
//!
//! The segments that remain are a suffix of all that was ever written, so operations may refer
//! to what is gone: an append may begin in the middle of a log, a compaction may name entries
//! that are no more. Garbage collection wrote again what still mattered, so that at the end
//! every group is whole; that is checked.

use super::codec::{self, Op, Ops, SegmentHeader, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::index::{GroupIndex, Segments};
use super::{entry_size, LogError, Segment};
use crate::log::{GroupLog, Recovered, Tombstone};
use raft::eraftpb::Entry;
use rangekv_proto::RangeId;
use std::collections::{BTreeMap, VecDeque};

/// How far a record's sequence may be ahead of the expected one and still be believed, when
/// looking for proof of a loss: more than a log ever leaves unsynced.
const SEQUENCES_AHEAD_MAX: u64 = 1 << 20;

/// The valid part of a segment.
pub(super) struct Scanned {
    /// Where the valid part ends; 0 if not even the header is whole.
    pub(super) end: u64,
    /// Sequence of the next record.
    pub(super) next_sequence: u64,
}

#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<RangeId, ReplayedGroup>,
    /// With the segment in which each was last written.
    tombstones: BTreeMap<RangeId, (Tombstone, u64)>,
    segments: Segments,
}

struct ReplayedGroup {
    index: GroupIndex,
    /// Those that `index` counts.
    entries: VecDeque<Entry>,
}

/// What the log continues with.
pub(super) struct Replayed {
    pub(super) recovered: Recovered,
    pub(super) groups: BTreeMap<RangeId, GroupIndex>,
    pub(super) tombstones: BTreeMap<RangeId, (Tombstone, u64)>,
    pub(super) segments: Segments,
}

impl Replay {
    /// Replays one segment. `expected` is the sequence of its first record, if known.
    pub(super) fn segment(
        &mut self,
        id: u64,
        bytes: &[u8],
        expected: Option<u64>,
        is_last: bool,
    ) -> Result<Scanned, LogError> {
        self.segments.insert(id, Segment::default());
        let corrupt = |offset: u64, detail: String| LogError::Corrupt {
            segment: id,
            offset,
            detail,
        };
        let first_sequence = match codec::decode_segment_header(bytes, id) {
            SegmentHeader::Valid { first_sequence } => first_sequence,
            SegmentHeader::Unknown { version } => {
                return Err(LogError::Format {
                    segment: id,
                    version,
                })
            }
            SegmentHeader::Bad => {
                let Some(next_sequence) = expected.filter(|_| is_last) else {
                    return Err(corrupt(0, "bad segment header".into()));
                };
                refuse_loss(id, bytes, 0, next_sequence)?;
                return Ok(Scanned {
                    end: 0,
                    next_sequence,
                });
            }
        };
        if let Some(expected) = expected.filter(|&expected| expected != first_sequence) {
            // The segment before this one was synced before this one was made.
            return Err(LogError::Corrupt {
                segment: id - 1,
                offset: self.segments[&(id - 1)].bytes,
                detail: format!(
                    "records {expected} to {} are missing",
                    first_sequence.saturating_sub(1)
                ),
            });
        }
        let mut next_sequence = first_sequence;
        let mut end = SEGMENT_HEADER_BYTES;
        while let Some(record) =
            codec::decode_record(&bytes[end..], id, &(next_sequence..=next_sequence))
        {
            let mut ops = Ops::new(record.payload);
            while let Some(op) = ops
                .next()
                .map_err(|error| corrupt(end as u64, error.0.into()))?
            {
                self.apply(op, id)
                    .map_err(|detail| corrupt(end as u64, detail))?;
            }
            end += RECORD_HEADER_BYTES + record.payload.len();
            next_sequence += 1;
        }
        if is_last {
            refuse_loss(id, bytes, end, next_sequence)?;
        }
        self.segments.get_mut(&id).expect("inserted above").bytes = end as u64;
        Ok(Scanned {
            end: end as u64,
            next_sequence,
        })
    }

    fn group(&mut self, group: RangeId, segment: u64) -> (&mut ReplayedGroup, &mut Segments) {
        let group = self.groups.entry(group).or_insert_with(|| ReplayedGroup {
            index: GroupIndex::new(segment),
            entries: VecDeque::new(),
        });
        (group, &mut self.segments)
    }

    fn apply(&mut self, op: Op, segment: u64) -> Result<(), String> {
        match op {
            Op::Append(id, entries) => {
                let (group, segments) = self.group(id, segment);
                let first = entries[0].index;
                if first > group.index.last_index() + 1 && !group.index.is_empty() {
                    let last = group.index.last_index();
                    return Err(format!("range {id}: entry {first} follows entry {last}"));
                }
                group.index.truncate_from(segments, first);
                let kept = group.index.last_index() + 1 - group.index.first_index();
                group.entries.truncate(kept as usize);
                group
                    .index
                    .push(segments, segment, entries.iter().map(entry_size));
                group.entries.extend(entries);
            }
            Op::HardState(id, hard_state) => {
                let (group, _) = self.group(id, segment);
                group.index.hard_state = hard_state;
                group.index.hard_state_segment = segment;
            }
            Op::Compact(id, index, term) => {
                let (group, segments) = self.group(id, segment);
                group.index.release_to(segments, index);
                let live = (group.index.last_index() + 1 - group.index.first_index()) as usize;
                group.entries.drain(..group.entries.len() - live);
                group.index.truncated_index = index;
                group.index.truncated_term = term;
                group.index.truncated_segment = segment;
            }
            Op::Reset(id, index, term, hard_state) => {
                let (group, segments) = self.group(id, segment);
                group
                    .index
                    .reset(segments, segment, (index, term), &hard_state);
                group.entries.clear();
            }
            Op::Destroy(id, tombstone) => {
                if let Some(mut group) = self.groups.remove(&id) {
                    group.index.release_all(&mut self.segments);
                }
                self.tombstones.insert(id, (tombstone, segment));
            }
            Op::Tombstone(id, tombstone) => {
                self.tombstones.insert(id, (tombstone, segment));
            }
        }
        Ok(())
    }

    /// All segments are read: checks that every group is whole.
    pub(super) fn finish(self) -> Result<Replayed, LogError> {
        let mut recovered = Recovered::default();
        let mut groups = BTreeMap::new();
        for (id, group) in self.groups {
            let index = group.index;
            let first = index.first_index();
            if !index.is_empty() && first != index.truncated_index + 1 {
                return Err(LogError::Gap {
                    group: id,
                    truncated: index.truncated_index,
                    first,
                });
            }
            let log = GroupLog {
                hard_state: index.hard_state.clone(),
                truncated_index: index.truncated_index,
                truncated_term: index.truncated_term,
                entries: group.entries.into(),
            };
            recovered.groups.insert(id, log);
            groups.insert(id, index);
        }
        recovered.tombstones = self
            .tombstones
            .iter()
            .map(|(&id, &(grave, _))| (id, grave))
            .collect();
        Ok(Replayed {
            recovered,
            groups,
            tombstones: self.tombstones,
            segments: self.segments,
        })
    }
}

/// Everything from `end` on is about to be dropped as a torn tail. That is wrong if a later
/// record knows that the one expected here had been synced: then the disk lost it.
fn refuse_loss(segment: u64, bytes: &[u8], end: usize, expected: u64) -> Result<(), LogError> {
    let sequences = expected..=expected + SEQUENCES_AHEAD_MAX;
    let tail = bytes.get(end..).unwrap_or_default();
    let mut at = 0;
    while at + RECORD_HEADER_BYTES < tail.len() {
        match codec::decode_record(&tail[at..], segment, &sequences) {
            Some(record) if record.synced >= expected => {
                return Err(LogError::Corrupt {
                    segment,
                    offset: end as u64,
                    detail: format!(
                    "record {expected} is damaged, and record {} was written after it was synced",
                    record.sequence
                ),
                })
            }
            Some(record) => at += RECORD_HEADER_BYTES + record.payload.len(),
            None => at += 1,
        }
    }
    Ok(())
}
