//! The raft log of a store, in segments of one sequence of records.
//!
//! All groups of a loop share one record, one write and one sync. Entries are not read back
//! while running: the raft storage above keeps them, so that this keeps per group only where
//! its oldest live entry lies and how much there is.
//!
//! Invariants, besides those of [`RaftLog`]:
//! - Segment ids and record sequences have no gaps. A segment is synced before the next one is
//!   made, so that only the last one can have a torn tail.
//! - A group's hard state and truncation, and every tombstone, are written again at the tail
//!   before the segment that holds them is removed; and what made the segment's entries dead
//!   is durable by then, too. A further durable record vouches for it: if it is damaged
//!   later, that is not mistaken for a torn tail. Segments are removed oldest first.
//! - What is written again says only what was true at that place of the sequence. A rewritten
//!   group continues after it, so a copy never overrides a newer truncation.
//! - Bytes after the tail of the last segment are erased before anything is appended there.

mod codec;
mod index;
mod replay;

use super::disk::LogDisk;
use super::{entry_bytes, GroupLog, RaftLog, Recovered, SyncJob, Tombstone};
use codec::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use index::{GroupIndex, Segments};
use raft::eraftpb::{Entry, HardState};
use rangekv_proto::RangeId;
use replay::Replay;
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// Capacity that staging keeps between loops, bytes.
const STAGED_CAPACITY_MAX: usize = 1 << 20;

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// A segment that has reached this size is followed by another one.
    pub segment_bytes: u64,
    /// Above this total, groups are asked to let go of the oldest segments.
    pub target_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 16 << 20,
            target_bytes: 64 << 20,
        }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("raft log: {0}")]
    Io(#[from] io::Error),
    /// Something that had been synced is damaged. This store's copy of the log can no longer
    /// be trusted: its replicas are to be removed, and made again on an empty store.
    #[error(
        "raft log segment {segment:016x} is damaged at byte {offset} ({detail}): \
         replace this store by an empty one, its replicas live on elsewhere"
    )]
    Corrupt {
        /// The segment, which is a file name in hexadecimal.
        segment: u64,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A segment is gone.
    #[error(
        "raft log segment {0:016x} is missing: restore the file, or replace this store by an \
         empty one, its replicas live on elsewhere"
    )]
    Missing(u64),
    /// Entries of a group are gone.
    #[error(
        "raft log of range {group}: truncated at {truncated}, but entries begin at {first}: \
         a segment is missing; replace this store by an empty one"
    )]
    Gap {
        /// The group.
        group: RangeId,
        /// Where entries should begin, less one.
        truncated: u64,
        /// Where they begin.
        first: u64,
    },
    /// Written by a newer program.
    #[error(
        "raft log segment {segment:016x} has format {version}, which this version does not \
         know: start the version that wrote it, or a newer one"
    )]
    Format {
        /// The segment.
        segment: u64,
        /// Its format.
        version: u8,
    },
}

/// What is known of a segment.
#[derive(Debug, Default)]
struct Segment {
    /// Written bytes.
    bytes: u64,
    /// Live entries of all groups.
    live: u64,
}

/// Segments that may be removed once all up to `sequence` is durable and vouched for.
struct Doomed {
    through: u64,
    sequence: u64,
}

/// [`RaftLog`] on numbered segments.
pub struct SegmentedLog<D> {
    disk: D,
    config: LogConfig,
    groups: BTreeMap<RangeId, GroupIndex>,
    tombstones: BTreeMap<RangeId, (Tombstone, u64)>,
    /// Those on disk, and the one in which the staged record will be.
    segments: Segments,
    /// The segment that is written to; 0 = there is none yet.
    active: u64,
    /// A record under construction: room for its header, then operations.
    staged: Vec<u8>,
    /// Where the staged record will be; fixed by the first operation.
    staged_segment: u64,
    /// Sequence of the last written record.
    written: u64,
    /// Sequence of the last durable record.
    synced: u64,
    /// What the last durable record says is durable.
    vouched: u64,
    /// What written records say of it that are not durable yet, by their sequence.
    vouches: VecDeque<(u64, u64)>,
    doomed: Option<Doomed>,
    /// The failure after which nothing is to be trusted.
    poisoned: Option<String>,
}

fn entry_size(entry: &Entry) -> u32 {
    u32::try_from(entry_bytes(entry)).unwrap_or(u32::MAX)
}

impl<D: LogDisk> SegmentedLog<D> {
    /// Reads what is on the disk, erases a torn tail, and makes the rest durable.
    pub fn open(mut disk: D, config: LogConfig) -> Result<(Self, Recovered), LogError> {
        assert!(
            config.segment_bytes > 0 && config.target_bytes > 0,
            "sizes are positive: {config:?}"
        );
        let ids = disk.list()?;
        let mut replay = Replay::default();
        let last = ids.last().copied();
        // The first segment ever begins at 1. Others are only ever alone when durable.
        let mut expected = (ids.first() == Some(&1)).then_some(1);
        for (i, &id) in ids.iter().enumerate() {
            if id != ids[0] + i as u64 {
                return Err(LogError::Missing(ids[0] + i as u64));
            }
            let bytes = disk.read(id)?;
            let is_last = Some(id) == last;
            let scanned = replay.segment(id, &bytes, expected, is_last)?;
            expected = Some(scanned.next_sequence);
            if !is_last {
                continue;
            }
            let tail = &bytes[scanned.end as usize..];
            if tail.iter().any(|&byte| byte != 0) {
                tracing::info!(
                    segment = id,
                    offset = scanned.end,
                    "raft log: erasing what follows the last record"
                );
                disk.erase_from(id, scanned.end)?;
            } else {
                // A killed process may have left it to the operating system.
                disk.sync(id)?;
            }
        }
        let replayed = replay.finish()?;
        let sequence = expected.map_or(0, |next| next - 1);
        let log = SegmentedLog {
            disk,
            config,
            groups: replayed.groups,
            tombstones: replayed.tombstones,
            segments: replayed.segments,
            active: last.unwrap_or(0),
            staged: vec![0; RECORD_HEADER_BYTES],
            staged_segment: 0,
            written: sequence,
            synced: sequence,
            vouched: 0,
            vouches: VecDeque::new(),
            doomed: None,
            poisoned: None,
        };
        log.check_invariants();
        Ok((log, replayed.recovered))
    }

    /// Panics if the log's picture of itself is inconsistent. For tests; reads all groups.
    pub fn check_invariants(&self) {
        let mut live = BTreeMap::new();
        for (id, group) in &self.groups {
            group.count_live(&mut live);
            if !group.is_empty() {
                assert_eq!(group.first_index(), group.truncated_index + 1, "range {id}");
            }
            let oldest = self.segments.keys().next().copied().unwrap_or(0);
            assert!(
                group.hard_state_segment >= oldest,
                "range {id}: hard state is gone"
            );
            assert!(
                group.truncated_segment >= oldest,
                "range {id}: truncation is gone"
            );
        }
        for (id, segment) in &self.segments {
            assert_eq!(
                segment.live,
                live.get(id).copied().unwrap_or(0),
                "live in segment {id}"
            );
        }
        assert!(
            self.synced <= self.written,
            "synced {} > written {}",
            self.synced,
            self.written
        );
    }

    /// The segment of the staged record, which begins to exist by this operation at the latest.
    fn stage(&mut self) -> u64 {
        if !self.has_staged() {
            let full = self
                .segments
                .get(&self.active)
                .is_none_or(|s| s.bytes >= self.config.segment_bytes);
            self.staged_segment = if full { self.active + 1 } else { self.active };
            self.segments.entry(self.staged_segment).or_default();
        }
        self.staged_segment
    }

    /// The group, made if there is none, and the segment of the staged record.
    fn stage_group(&mut self, group: RangeId) -> (&mut GroupIndex, &mut Segments, u64) {
        let segment = self.stage();
        let index = self
            .groups
            .entry(group)
            .or_insert_with(|| GroupIndex::new(segment));
        (index, &mut self.segments, segment)
    }

    fn check_poisoned(&self) -> io::Result<()> {
        match &self.poisoned {
            Some(cause) => Err(io::Error::other(format!(
                "the raft log failed before: {cause}"
            ))),
            None => Ok(()),
        }
    }

    fn poison(&mut self, what: &str, error: io::Error) -> io::Error {
        let message = format!("raft log: {what} failed: {error}");
        self.poisoned = Some(message.clone());
        io::Error::new(error.kind(), message)
    }

    /// As [`poison`](Self::poison), but a full disk is no reason: what was to be written stays
    /// staged, and is written over whatever part of it was.
    fn poison_unless_full(&mut self, what: &str, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::StorageFull {
            return error;
        }
        self.poison(what, error)
    }

    /// Makes the next segment, after all before it is durable.
    fn roll(&mut self) -> io::Result<()> {
        if self.synced < self.written {
            self.disk
                .sync(self.active)
                .map_err(|error| self.poison("sync", error))?;
            self.is_durable(self.written);
        }
        // Room for the record that crosses the boundary.
        let capacity = self.config.segment_bytes + self.config.segment_bytes / 16;
        self.disk
            .create(self.staged_segment, capacity)
            .map_err(|error| self.poison_unless_full("making a segment", error))?;
        self.active = self.staged_segment;
        Ok(())
    }

    /// All records up to this one are durable.
    fn is_durable(&mut self, sequence: u64) {
        self.synced = self.synced.max(sequence);
        while let Some(&(_, vouched)) = self
            .vouches
            .front()
            .filter(|(sequence, _)| *sequence <= self.synced)
        {
            self.vouched = vouched;
            self.vouches.pop_front();
        }
    }

    /// Removes segments in which nothing is live; see the invariants above.
    fn collect_garbage(&mut self) -> io::Result<()> {
        if self.doomed.is_none() {
            let dead = self
                .segments
                .iter()
                .take_while(|(&id, segment)| id < self.active && segment.live == 0);
            let Some((&through, _)) = dead.last() else {
                return Ok(());
            };
            self.rewrite_small(through);
            let sequence = if self.has_staged() {
                self.written + 1
            } else {
                self.written
            };
            self.doomed = Some(Doomed { through, sequence });
        }
        let Some(doomed) = self
            .doomed
            .take_if(|doomed| doomed.sequence <= self.vouched)
        else {
            return Ok(());
        };
        while let Some((&id, segment)) = self.segments.first_key_value() {
            if id > doomed.through {
                break;
            }
            assert_eq!(segment.live, 0, "segment {id} came to life again");
            self.disk
                .remove(id)
                .map_err(|error| self.poison("removing a segment", error))?;
            self.segments.remove(&id);
        }
        Ok(())
    }

    /// Stages again the hard states, truncations and tombstones last written up to segment `through`.
    fn rewrite_small(&mut self, through: u64) {
        let segment = self.stage();
        let mut out = std::mem::take(&mut self.staged);
        for (&id, group) in &mut self.groups {
            if group.hard_state_segment <= through {
                codec::put_hard_state(&mut out, id, &group.hard_state);
                group.hard_state_segment = segment;
            }
            if group.truncated_segment <= through {
                codec::put_compact(&mut out, id, group.truncated_index, group.truncated_term);
                group.truncated_segment = segment;
            }
        }
        for (&id, (tombstone, written)) in &mut self.tombstones {
            if *written <= through {
                codec::put_tombstone(&mut out, id, *tombstone);
                *written = segment;
            }
        }
        self.staged = out;
    }

    fn live_bytes(&self) -> u64 {
        self.groups.values().map(GroupIndex::bytes).sum()
    }
}

fn assert_no_regression(group: RangeId, old: &HardState, new: &HardState) {
    assert!(
        new.term >= old.term,
        "range {group}: term regression {} → {}",
        old.term,
        new.term
    );
    assert!(
        new.term > old.term || old.vote == 0 || new.vote == old.vote,
        "range {group}: vote changed in term {}: {} → {}",
        new.term,
        old.vote,
        new.vote
    );
}

impl<D: LogDisk> RaftLog for SegmentedLog<D> {
    fn append(&mut self, group: RangeId, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        for (i, pair) in entries.windows(2).enumerate() {
            assert_eq!(
                pair[0].index + 1,
                pair[1].index,
                "range {group}: gap after entry {i} of an append"
            );
            assert!(
                pair[0].term <= pair[1].term,
                "range {group}: term regression at {}",
                pair[1].index
            );
        }
        let (index, segments, segment) = self.stage_group(group);
        assert!(
            first.index > index.truncated_index,
            "range {group}: append at {} below truncation {}",
            first.index,
            index.truncated_index
        );
        assert!(
            first.index <= index.last_index() + 1,
            "range {group}: append at {} leaves a gap after {}",
            first.index,
            index.last_index()
        );
        index.truncate_from(segments, first.index);
        index.push(segments, segment, entries.iter().map(entry_size));
        codec::put_append(&mut self.staged, group, entries);
    }

    fn set_hard_state(&mut self, group: RangeId, hard_state: &HardState) {
        let (index, _, segment) = self.stage_group(group);
        assert_no_regression(group, &index.hard_state, hard_state);
        index.hard_state = hard_state.clone();
        index.hard_state_segment = segment;
        codec::put_hard_state(&mut self.staged, group, hard_state);
    }

    fn compact(&mut self, group: RangeId, to: u64, term: u64) {
        if self
            .groups
            .get(&group)
            .is_some_and(|index| to <= index.truncated_index)
        {
            return;
        }
        let (index, segments, segment) = self.stage_group(group);
        assert!(
            to <= index.last_index(),
            "range {group}: compaction to {to} beyond last index {}",
            index.last_index()
        );
        assert!(
            term >= index.truncated_term,
            "range {group}: truncated term regression {} → {term}",
            index.truncated_term
        );
        index.release_to(segments, to);
        (
            index.truncated_index,
            index.truncated_term,
            index.truncated_segment,
        ) = (to, term, segment);
        codec::put_compact(&mut self.staged, group, to, term);
    }

    fn reset(&mut self, group: RangeId, to: u64, term: u64, hard_state: &HardState) {
        let (index, segments, segment) = self.stage_group(group);
        assert_no_regression(group, &index.hard_state, hard_state);
        index.reset(segments, segment, (to, term), hard_state);
        codec::put_reset(&mut self.staged, group, to, term, hard_state);
    }

    fn destroy(&mut self, group: RangeId, tombstone: Tombstone) {
        let segment = self.stage();
        if let Some(mut index) = self.groups.remove(&group) {
            index.release_all(&mut self.segments);
        }
        if let Some((old, _)) = self.tombstones.insert(group, (tombstone, segment)) {
            assert!(
                old.replica <= tombstone.replica,
                "range {group}: tombstone regression {:?} → {:?}",
                old.replica,
                tombstone.replica
            );
        }
        codec::put_destroy(&mut self.staged, group, tombstone);
    }

    fn staged_bytes(&self) -> usize {
        self.staged.len() - RECORD_HEADER_BYTES
    }

    fn write(&mut self) -> io::Result<()> {
        self.check_poisoned()?;
        if !self.has_staged() {
            return Ok(());
        }
        if self.staged_segment != self.active {
            self.roll()?;
        }
        let (segment, sequence) = (self.active, self.written + 1);
        codec::seal_record(&mut self.staged, segment, sequence, self.synced);
        let mut offset = self.segments[&segment].bytes;
        if offset == 0 {
            let header = codec::encode_segment_header(segment, sequence);
            self.disk
                .write_at(segment, 0, &header)
                .map_err(|error| self.poison_unless_full("writing a header", error))?;
            offset = SEGMENT_HEADER_BYTES as u64;
        }
        self.disk
            .write_at(segment, offset, &self.staged)
            .map_err(|error| self.poison_unless_full("write", error))?;
        self.segments.get_mut(&segment).expect("staged into").bytes =
            offset + self.staged.len() as u64;
        self.written = sequence;
        self.vouches.push_back((sequence, self.synced));
        self.staged.truncate(RECORD_HEADER_BYTES);
        self.staged.shrink_to(STAGED_CAPACITY_MAX);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check_poisoned()?;
        if self.synced < self.written {
            self.disk
                .sync(self.active)
                .map_err(|error| self.poison("sync", error))?;
            self.is_durable(self.written);
        }
        self.collect_garbage()
    }

    fn sync_job(&mut self) -> io::Result<Option<SyncJob>> {
        self.check_poisoned()?;
        if self.synced == self.written {
            return Ok(None);
        }
        // Segments before the active one were synced when it was made.
        let work = self.disk.sync_work(self.active);
        Ok(Some(SyncJob {
            sequence: self.written,
            work: work.map_err(|error| self.poison("opening a segment to sync it", error))?,
        }))
    }

    fn synced(&mut self, sequence: u64) -> io::Result<()> {
        self.check_poisoned()?;
        assert!(
            sequence <= self.written,
            "record {sequence} of {} is durable",
            self.written
        );
        self.is_durable(sequence);
        self.collect_garbage()
    }

    fn pinning_groups(&self) -> Vec<RangeId> {
        let total = self.total_bytes();
        // Copying what is mostly alive frees nothing: only compaction helps then.
        if total <= self.config.target_bytes || self.live_bytes() > total / 2 {
            return Vec::new();
        }
        let mut excess = total - self.config.target_bytes;
        let mut through = 0;
        for (&id, segment) in self.segments.range(..self.active) {
            through = id;
            excess = excess.saturating_sub(segment.bytes);
            if excess == 0 {
                break;
            }
        }
        let pins = |index: &GroupIndex| {
            index
                .oldest_segment()
                .is_some_and(|oldest| oldest <= through)
        };
        self.groups
            .iter()
            .filter(|(_, index)| pins(index))
            .map(|(&id, _)| id)
            .collect()
    }

    fn rewrite(&mut self, group: RangeId, state: &GroupLog) {
        let last = state
            .entries
            .last()
            .map_or(state.truncated_index, |entry| entry.index);
        let index = self
            .groups
            .get(&group)
            .expect("a group that is rewritten has a log");
        assert_eq!(
            last,
            index.last_index(),
            "range {group}: rewritten with another last index"
        );
        assert!(
            state.truncated_index >= index.truncated_index,
            "range {group}: truncation regression {} → {}",
            index.truncated_index,
            state.truncated_index
        );
        self.reset(
            group,
            state.truncated_index,
            state.truncated_term,
            &state.hard_state,
        );
        self.append(group, &state.entries);
    }

    fn group_bytes(&self, group: RangeId) -> u64 {
        self.groups.get(&group).map_or(0, GroupIndex::bytes)
    }

    fn total_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }
}
