//! Records that the store keeps beside user data in the state engine.
//!
//! Keys that begin with byte 0x00 belong to the store, as CockroachDB's local keys do; user
//! keys begin with 0x01..=0xFE. Per range:
//! - `00 | range id, 8 bytes big-endian | 'a'`: what is applied: index, term, clock (3 × u64, big-endian);
//! - `00 | range id, 8 bytes big-endian | 'm'`: the descriptor (protobuf), then this store's
//!   replica id (u64, big-endian) in front of it;
//! - `00 | range id, 8 bytes big-endian | 'g'`: its part in a merge, [`Merging`], if it has one;
//! - `00 | range id, 8 bytes big-endian | 'x'`: instead of all these: what it was merged into,
//!   [`MergedInto`].

use crate::codec::{get_varint, put_varint, Corrupt};
use crate::engine::WriteBatch;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rangekv_model::eval::View;
use rangekv_proto::{Epoch, RangeDescriptor, RangeId, ReplicaId};
use std::ops::ControlFlow;

/// First byte of every user key is at least this.
pub const USER_START: &[u8] = &[0x01];
/// Every user key is below this.
pub const USER_END: &[u8] = &[0xff];

/// Whether `key` is a user's, and not of the store itself.
pub fn is_user_key(key: &[u8]) -> bool {
    (USER_START..USER_END).contains(&key)
}

/// How far a range has applied, as found in its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Log index.
    pub index: u64,
    /// Term of the entry at `index`.
    pub term: u64,
    /// Hybrid clock: the latest time by which a command was evaluated, ms.
    pub clock_ms: u64,
}

impl Applied {
    /// 24 bytes.
    pub fn encode(&self) -> Bytes {
        let mut b = BytesMut::with_capacity(24);
        b.put_u64(self.index);
        b.put_u64(self.term);
        b.put_u64(self.clock_ms);
        b.freeze()
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let part = |i: usize| bytes.get(i..i + 8)?.try_into().ok().map(u64::from_be_bytes);
        (bytes.len() == 24).then_some(())?;
        Some(Applied {
            index: part(0)?,
            term: part(8)?,
            clock_ms: part(16)?,
        })
    }
}

/// A range's part in a merge. `begun`, the index at which the absorbing range's log began it,
/// names the merge: no other merge of that range has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merging {
    /// This range is to absorb its right neighbour, or has given that up.
    Absorbing {
        /// Index of the entry that began it.
        begun: u64,
        /// The right neighbour.
        source: RangeId,
        /// The epoch that it must have when it freezes.
        source_epoch: Epoch,
        /// This range's own epoch when it began.
        own_epoch: Epoch,
        /// Given up. Kept for the source, which may have to be told.
        aborted: bool,
    },
    /// This range serves nothing until its left neighbour has absorbed it, or given that up.
    Frozen {
        /// The left neighbour.
        target: RangeId,
        /// Names the merge in the left neighbour's log.
        begun: u64,
        /// Index of the entry that froze this range.
        index: u64,
    },
}

impl Merging {
    /// Kind byte and varints.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32);
        let (kind, numbers) = match self {
            Merging::Absorbing {
                begun,
                source,
                source_epoch: e,
                own_epoch: own,
                aborted,
            } => (
                u8::from(*aborted),
                vec![
                    *begun,
                    source.0,
                    e.conf_version,
                    e.version,
                    own.conf_version,
                    own.version,
                ],
            ),
            Merging::Frozen {
                target,
                begun,
                index,
            } => (2, vec![target.0, *begun, *index]),
        };
        out.push(kind);
        numbers.into_iter().for_each(|n| put_varint(&mut out, n));
        out.into()
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(mut bytes: Bytes) -> Result<Self, Corrupt> {
        if bytes.is_empty() {
            return Err(Corrupt("merge record: empty"));
        }
        let kind = bytes.get_u8();
        let mut next = || get_varint(&mut bytes);
        match kind {
            0 | 1 => Ok(Merging::Absorbing {
                begun: next()?,
                source: RangeId(next()?),
                source_epoch: Epoch {
                    conf_version: next()?,
                    version: next()?,
                },
                own_epoch: Epoch {
                    conf_version: next()?,
                    version: next()?,
                },
                aborted: kind == 1,
            }),
            2 => Ok(Merging::Frozen {
                target: RangeId(next()?),
                begun: next()?,
                index: next()?,
            }),
            _ => Err(Corrupt("merge record: unknown kind")),
        }
    }
}

/// What remains in the state of a range that its left neighbour absorbed, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedInto {
    /// The left neighbour.
    pub target: RangeId,
    /// This store's replica of the range that was.
    pub replica: ReplicaId,
    /// The range as it was at the end.
    pub source: RangeDescriptor,
}

impl MergedInto {
    /// Target, replica (u64, big-endian), descriptor (protobuf).
    pub fn encode(&self) -> Bytes {
        let mut b = BytesMut::new();
        b.put_u64(self.target.0);
        b.extend_from_slice(&encode_descriptor(self.replica, &self.source));
        b.freeze()
    }

    /// Puts this record in the place of the range's others.
    pub fn bury(&self, batch: &mut WriteBatch) {
        let range = self.source.id;
        batch.delete(descriptor_key(range));
        batch.delete(applied_key(range));
        batch.delete(merging_key(range));
        batch.put(merged_key(range), self.encode());
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (target, rest) = bytes.split_first_chunk::<8>()?;
        let (replica, source) = decode_descriptor(rest)?;
        Some(MergedInto {
            target: RangeId(u64::from_be_bytes(*target)),
            replica,
            source,
        })
    }
}

fn key(range: RangeId, suffix: u8) -> Bytes {
    let mut b = BytesMut::with_capacity(10);
    b.put_u8(0);
    b.put_u64(range.0);
    b.put_u8(suffix);
    b.freeze()
}

/// Key of [`Applied`].
pub fn applied_key(range: RangeId) -> Bytes {
    key(range, b'a')
}

/// Key of the descriptor.
pub fn descriptor_key(range: RangeId) -> Bytes {
    key(range, b'm')
}

/// Key of [`Merging`].
pub fn merging_key(range: RangeId) -> Bytes {
    key(range, b'g')
}

/// Key of [`MergedInto`].
pub fn merged_key(range: RangeId) -> Bytes {
    key(range, b'x')
}

/// The record at [`descriptor_key`].
pub fn encode_descriptor(replica: ReplicaId, descriptor: &RangeDescriptor) -> Bytes {
    let encoded = descriptor.encode();
    let mut b = BytesMut::with_capacity(8 + encoded.len());
    b.put_u64(replica.0);
    b.extend_from_slice(&encoded);
    b.freeze()
}

/// The reverse of [`encode_descriptor`].
pub fn decode_descriptor(bytes: &[u8]) -> Option<(ReplicaId, RangeDescriptor)> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    Some((
        ReplicaId(u64::from_be_bytes(*id)),
        RangeDescriptor::decode(rest).ok()?,
    ))
}

/// All ranges found in a state, with this store's replica and what is applied.
/// The error quotes the key that makes no sense.
pub fn all_ranges(view: &dyn View) -> Result<Vec<(ReplicaId, RangeDescriptor, Applied)>, String> {
    let mut found = Vec::new();
    let mut bad = None;
    view.scan(&[0], USER_START, &mut |key, value| {
        if key.last() == Some(&b'm') {
            match decode_descriptor(value) {
                Some(d) => found.push(d),
                None => {
                    bad = Some(format!("descriptor record {key:02x?} does not decode"));
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    });
    if let Some(bad) = bad {
        return Err(bad);
    }
    found
        .into_iter()
        .map(|(replica, d)| {
            let applied = view
                .get(&applied_key(d.id))
                .and_then(|v| Applied::decode(&v))
                .ok_or_else(|| format!("range {} has a descriptor but no applied state", d.id))?;
            Ok((replica, d, applied))
        })
        .collect()
}

/// All ranges that were merged into others on this store.
pub fn all_merged(view: &dyn View) -> Result<Vec<MergedInto>, String> {
    let mut found = Vec::new();
    let mut bad = None;
    view.scan(&[0], USER_START, &mut |key, value| {
        if key.last() == Some(&b'x') {
            match MergedInto::decode(value) {
                Some(m) => found.push(m),
                None => {
                    bad = Some(format!("record {key:02x?} of a merge does not decode"));
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    });
    bad.map_or(Ok(found), Err)
}

/// The first key that a model may see of a range that begins at `start`.
pub fn user_start(start: &[u8]) -> &[u8] {
    start.max(USER_START)
}

/// `[start, end)` of a range's user records, both ends non-empty.
pub fn data_bounds(d: &RangeDescriptor) -> (Bytes, Bytes) {
    let start = if &d.start[..] < USER_START {
        Bytes::from_static(USER_START)
    } else {
        d.start.clone()
    };
    let end = if d.end.is_empty() {
        Bytes::from_static(USER_END)
    } else {
        d.end.clone()
    };
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_records_come_back() {
        let epoch = Epoch {
            conf_version: 3,
            version: 300,
        };
        for aborted in [false, true] {
            let absorbing = Merging::Absorbing {
                begun: 1 << 40,
                source: RangeId(7),
                source_epoch: epoch,
                own_epoch: Epoch::default(),
                aborted,
            };
            assert_eq!(Merging::decode(absorbing.encode()), Ok(absorbing));
        }
        let frozen = Merging::Frozen {
            target: RangeId(2),
            begun: 9,
            index: 10,
        };
        assert_eq!(Merging::decode(frozen.encode()), Ok(frozen));
        assert!(Merging::decode(Bytes::from_static(&[2, 1])).is_err());
        let merged = MergedInto {
            target: RangeId(2),
            replica: ReplicaId(31),
            source: RangeDescriptor {
                id: RangeId(3),
                start: "m".into(),
                end: Bytes::new(),
                epoch,
                replicas: Vec::new(),
            },
        };
        assert_eq!(MergedInto::decode(&merged.encode()), Some(merged));
    }
}
