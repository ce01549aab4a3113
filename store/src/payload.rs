//! What a log entry carries: the outcome of an evaluation, or an admin command.
//!
//! Layout: one kind byte, then
//! - data (0): the leader's hybrid clock in ms, the number of writes, and per write a flag
//!   (0 delete, 1 put), the key, and, for a put, the value; integers are varints;
//! - split (1): `AdminCommand.Split` in protobuf;
//! - merge (2): a `MergeEntry` in protobuf, save for its `Commit`, which is (3) alone, as it
//!   is told from others before it is decoded.
//!
//! An empty payload is raft's own: a new leader's first entry. Membership changes travel as
//! raft's configuration entries, with `AdminCommand.ChangeReplicas` as their context.

use crate::codec::{get_bytes, get_varint, put_bytes, put_varint, Corrupt};
use bytes::{Buf, Bytes};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use rangekv_proto::internal as pb;
use std::collections::BTreeMap;

/// Keys and their new values; `None` deletes.
pub type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// A decoded entry payload.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Blind writes.
    Data {
        /// The range's clock after this entry, ms since the Unix epoch.
        clock_ms: u64,
        /// In key order.
        writes: Vec<(Bytes, Option<Bytes>)>,
    },
    /// Cut the range in two.
    Split(pb::admin_command::Split),
    /// A step of a merge, save for the last.
    Merge(pb::merge_entry::Step),
    /// Absorb the right neighbour.
    MergeCommit(pb::merge_entry::Commit),
}

const DATA: u8 = 0;
const SPLIT: u8 = 1;
const MERGE: u8 = 2;
const MERGE_COMMIT: u8 = 3;

/// Encodes data.
pub fn encode_data(clock_ms: u64, writes: &Writes) -> Vec<u8> {
    let bytes: usize = writes
        .iter()
        .map(|(k, v)| k.len() + v.as_ref().map_or(0, |v| v.len()) + 8)
        .sum();
    let mut out = Vec::with_capacity(bytes + 16);
    out.push(DATA);
    put_varint(&mut out, clock_ms);
    put_varint(&mut out, writes.len() as u64);
    for (key, value) in writes {
        out.push(u8::from(value.is_some()));
        put_bytes(&mut out, key);
        if let Some(value) = value {
            put_bytes(&mut out, value);
        }
    }
    out
}

/// Encodes a split.
pub fn encode_split(split: &pb::admin_command::Split) -> Vec<u8> {
    let mut out = vec![SPLIT];
    split.encode(&mut out).expect("a Vec grows");
    out
}

/// Encodes a step of a merge.
pub fn encode_merge(step: pb::merge_entry::Step) -> Vec<u8> {
    if let pb::merge_entry::Step::Commit(commit) = &step {
        let mut out = vec![MERGE_COMMIT];
        commit.encode(&mut out).expect("a Vec grows");
        return out;
    }
    let mut out = vec![MERGE];
    let entry = pb::MergeEntry { step: Some(step) };
    entry.encode(&mut out).expect("a Vec grows");
    out
}

/// Whether an entry absorbs a neighbour, which must be as far as the entry says before it is applied.
pub fn is_merge_commit(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && entry.data.first() == Some(&MERGE_COMMIT)
}

/// Decodes a payload that is not empty. Keys and values share `bytes`.
pub fn decode(mut bytes: Bytes) -> Result<Payload, Corrupt> {
    if bytes.is_empty() {
        return Err(Corrupt("entry: empty"));
    }
    match bytes.get_u8() {
        DATA => {
            let clock_ms = get_varint(&mut bytes)?;
            let n = get_varint(&mut bytes)?;
            if n > bytes.len() as u64 {
                return Err(Corrupt("entry: more writes than bytes"));
            }
            let mut writes = Vec::with_capacity(n as usize);
            for _ in 0..n {
                if bytes.is_empty() {
                    return Err(Corrupt("entry: ends early"));
                }
                let put = bytes.get_u8() == 1;
                let key = get_bytes(&mut bytes)?;
                let value = if put {
                    Some(get_bytes(&mut bytes)?)
                } else {
                    None
                };
                writes.push((key, value));
            }
            Ok(Payload::Data { clock_ms, writes })
        }
        SPLIT => pb::admin_command::Split::decode(bytes)
            .map(Payload::Split)
            .map_err(|_| Corrupt("entry: split")),
        MERGE => pb::MergeEntry::decode(bytes)
            .ok()
            .and_then(|e| e.step)
            .map(Payload::Merge)
            .ok_or(Corrupt("entry: merge")),
        MERGE_COMMIT => pb::merge_entry::Commit::decode(bytes)
            .map(Payload::MergeCommit)
            .map_err(|_| Corrupt("entry: commit of a merge")),
        _ => Err(Corrupt("entry: unknown kind")),
    }
}
