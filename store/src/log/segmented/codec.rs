//! Bytes of the log: segment header, record header, operations.
//!
//! ```text
//! segment = header record*            (then zeros, or what the file held before)
//! header  = "RKVLOG" 0 version:u8 | segment:u64 | first sequence:u64 | crc32:u32 | 0:u32
//! record  = payload length:u32 | crc32:u32 | sequence:u64 | synced:u64 | payload
//! payload = operation*
//! ```
//! Fixed integers are little-endian, those inside operations are LEB128 varints. A record's
//! checksum covers its segment id, length, sequence, `synced` and payload, so that a record
//! which a recycled file held before is not taken for one of ours. `synced` is the sequence
//! that was known to be durable when the record was written; it lets replay tell a torn tail
//! (harmless) from the loss of something that had been synced (fatal).

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};
use rangekv_proto::{RangeId, ReplicaId};

use crate::log::Tombstone;

pub(super) const SEGMENT_HEADER_BYTES: usize = 32;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const MAGIC: &[u8; 7] = b"RKVLOG\0";
const FORMAT_VERSION: u8 = 1;

pub(super) fn encode_segment_header(
    segment: u64,
    first_sequence: u64,
) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..7].copy_from_slice(MAGIC);
    header[7] = FORMAT_VERSION;
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    header[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32fast::hash(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What stands where a segment header belongs.
pub(super) enum SegmentHeader {
    Valid {
        first_sequence: u64,
    },
    /// Whole, but of a format that this program does not know.
    Unknown {
        version: u8,
    },
    /// Torn, never written, or of the file's earlier life.
    Bad,
}

pub(super) fn decode_segment_header(bytes: &[u8], segment: u64) -> SegmentHeader {
    let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES) else {
        return SegmentHeader::Bad;
    };
    if &header[..7] != MAGIC
        || crc32fast::hash(&header[..24]) != u32_at(header, 24)
        || u64_at(header, 8) != segment
    {
        return SegmentHeader::Bad;
    }
    if header[7] != FORMAT_VERSION {
        return SegmentHeader::Unknown { version: header[7] };
    }
    SegmentHeader::Valid {
        first_sequence: u64_at(header, 16),
    }
}

/// Fills the header of `record`, whose payload is in place.
pub(super) fn seal_record(record: &mut [u8], segment: u64, sequence: u64, synced: u64) {
    let payload =
        u32::try_from(record.len() - RECORD_HEADER_BYTES).expect("records are below 4 GiB");
    record[..4].copy_from_slice(&payload.to_le_bytes());
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..24].copy_from_slice(&synced.to_le_bytes());
    let crc = record_crc(record, segment);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn record_crc(record: &[u8], segment: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// A record whose checksum holds.
pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) payload: &'a [u8],
}

/// The record at the start of `bytes`, if there is one with a sequence in `sequences`.
pub(super) fn decode_record<'a>(
    bytes: &'a [u8],
    segment: u64,
    sequences: &std::ops::RangeInclusive<u64>,
) -> Option<Record<'a>> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    let payload = u32_at(header, 0) as usize;
    let sequence = u64_at(header, 8);
    if payload == 0 || !sequences.contains(&sequence) {
        return None;
    }
    let record = bytes.get(..RECORD_HEADER_BYTES + payload)?;
    if record_crc(record, segment) != u32_at(header, 4) {
        return None;
    }
    Some(Record {
        sequence,
        synced: u64_at(header, 16),
        payload: &record[RECORD_HEADER_BYTES..],
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

const APPEND: u8 = 1;
const HARD_STATE: u8 = 2;
const COMPACT: u8 = 3;
const RESET: u8 = 4;
const DESTROY: u8 = 5;
const TOMBSTONE: u8 = 6;

/// One operation, as replay sees it.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    /// Consecutive entries, at least one.
    Append(RangeId, Vec<Entry>),
    HardState(RangeId, HardState),
    /// Index and its term.
    Compact(RangeId, u64, u64),
    Reset(RangeId, u64, u64, HardState),
    /// Removes the group.
    Destroy(RangeId, Tombstone),
    /// A tombstone written again: says nothing of a later replica of the range.
    Tombstone(RangeId, Tombstone),
}

pub(super) fn put_append(out: &mut Vec<u8>, group: RangeId, entries: &[Entry]) {
    out.push(APPEND);
    put(out, group.0);
    put(out, entries[0].index);
    put(out, entries.len() as u64);
    for entry in entries {
        out.push(match entry.entry_type {
            EntryType::EntryNormal => 0,
            EntryType::EntryConfChange => 1,
            EntryType::EntryConfChangeV2 => 2,
        });
        put(out, entry.term);
        put(out, entry.context.len() as u64);
        put(out, entry.data.len() as u64);
        out.extend_from_slice(&entry.context);
        out.extend_from_slice(&entry.data);
    }
}

pub(super) fn put_hard_state(out: &mut Vec<u8>, group: RangeId, hard_state: &HardState) {
    out.push(HARD_STATE);
    put(out, group.0);
    put_state(out, hard_state);
}

pub(super) fn put_compact(out: &mut Vec<u8>, group: RangeId, index: u64, term: u64) {
    out.push(COMPACT);
    put(out, group.0);
    put(out, index);
    put(out, term);
}

pub(super) fn put_reset(
    out: &mut Vec<u8>,
    group: RangeId,
    index: u64,
    term: u64,
    hard_state: &HardState,
) {
    out.push(RESET);
    put(out, group.0);
    put(out, index);
    put(out, term);
    put_state(out, hard_state);
}

pub(super) fn put_destroy(out: &mut Vec<u8>, group: RangeId, tombstone: Tombstone) {
    out.push(DESTROY);
    put_grave(out, group, tombstone);
}

pub(super) fn put_tombstone(out: &mut Vec<u8>, group: RangeId, tombstone: Tombstone) {
    out.push(TOMBSTONE);
    put_grave(out, group, tombstone);
}

fn put_grave(out: &mut Vec<u8>, group: RangeId, tombstone: Tombstone) {
    put(out, group.0);
    put(out, tombstone.replica.0);
    put(out, tombstone.conf_version);
}

fn put_state(out: &mut Vec<u8>, hard_state: &HardState) {
    put(out, hard_state.term);
    put(out, hard_state.vote);
    put(out, hard_state.commit);
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A payload that its checksum protects, and that makes no sense all the same.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a payload's operations.
pub(super) struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Ops<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Ops { rest: payload }
    }

    /// The next operation; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Op>, Malformed> {
        let Some((&kind, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        let group = RangeId(self.varint()?);
        Ok(Some(match kind {
            APPEND => Op::Append(group, self.entries()?),
            HARD_STATE => Op::HardState(group, self.state()?),
            COMPACT => Op::Compact(group, self.varint()?, self.varint()?),
            RESET => Op::Reset(group, self.varint()?, self.varint()?, self.state()?),
            DESTROY => Op::Destroy(group, self.grave()?),
            TOMBSTONE => Op::Tombstone(group, self.grave()?),
            _ => return Err(Malformed("unknown operation")),
        }))
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        let first = self.varint()?;
        let count = self.varint()?;
        if count == 0 || first == 0 {
            return Err(Malformed("append of nothing"));
        }
        let mut entries = Vec::with_capacity(count.min(4096) as usize);
        for i in 0..count {
            let index = first.checked_add(i).ok_or(Malformed("index overflow"))?;
            let entry_type = match self.take(1)?[0] {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                2 => EntryType::EntryConfChangeV2,
                _ => return Err(Malformed("unknown entry type")),
            };
            let term = self.varint()?;
            let (context, data) = (self.varint()?, self.varint()?);
            let context = Bytes::copy_from_slice(self.take(context)?);
            let data = Bytes::copy_from_slice(self.take(data)?);
            entries.push(Entry {
                entry_type,
                term,
                index,
                data,
                context,
                ..Entry::default()
            });
        }
        Ok(entries)
    }

    fn state(&mut self) -> Result<HardState, Malformed> {
        let (term, vote, commit) = (self.varint()?, self.varint()?, self.varint()?);
        Ok(HardState {
            term,
            vote,
            commit,
            ..HardState::default()
        })
    }

    fn grave(&mut self) -> Result<Tombstone, Malformed> {
        Ok(Tombstone {
            replica: ReplicaId(self.varint()?),
            conf_version: self.varint()?,
        })
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(n).map_err(|_| Malformed("length overflow"))?;
        let (taken, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or(Malformed("operation cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed("varint overflow"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("varint overflow"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_round_trip() {
        let group = RangeId(300);
        let hard_state = HardState {
            term: u64::MAX,
            vote: 1 << 63,
            commit: 127,
            ..HardState::default()
        };
        let entry = Entry {
            index: 128,
            term: 7,
            entry_type: EntryType::EntryConfChangeV2,
            data: Bytes::from_static(b"data"),
            context: Bytes::from_static(b"context"),
            ..Entry::default()
        };
        let next = Entry {
            index: 129,
            term: 8,
            ..Entry::default()
        };
        let grave = Tombstone {
            replica: ReplicaId(9),
            conf_version: 1 << 40,
        };

        let mut out = Vec::new();
        put_append(&mut out, group, &[entry.clone(), next.clone()]);
        put_hard_state(&mut out, group, &hard_state);
        put_compact(&mut out, group, 1 << 20, 3);
        put_reset(&mut out, group, 5, 5, &hard_state);
        put_destroy(&mut out, group, grave);
        put_tombstone(&mut out, group, grave);
        let expected = [
            Op::Append(group, vec![entry, next]),
            Op::HardState(group, hard_state.clone()),
            Op::Compact(group, 1 << 20, 3),
            Op::Reset(group, 5, 5, hard_state),
            Op::Destroy(group, grave),
            Op::Tombstone(group, grave),
        ];
        let mut ops = Ops::new(&out);
        for op in expected {
            assert_eq!(ops.next(), Ok(Some(op)));
        }
        assert_eq!(ops.next(), Ok(None));
        // Every shorter prefix either ends between two operations or is refused; none panics.
        for len in 0..out.len() {
            let mut ops = Ops::new(&out[..len]);
            while let Ok(Some(_)) = ops.next() {}
        }
    }

    #[test]
    fn a_record_is_bound_to_its_segment_and_sequence() {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record.extend_from_slice(b"payload");
        seal_record(&mut record, 3, 10, 9);
        let found = decode_record(&record, 3, &(10..=10)).unwrap();
        assert_eq!(
            (found.sequence, found.synced, found.payload),
            (10, 9, &b"payload"[..])
        );
        assert!(decode_record(&record, 4, &(10..=10)).is_none());
        assert!(decode_record(&record, 3, &(11..=11)).is_none());
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(
                decode_record(&record, 3, &(0..=u64::MAX)).is_none(),
                "bit {bit}"
            );
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
