//! Records that the store keeps beside user data in the state engine.
//!
//! Keys that begin with byte 0x00 belong to the store, as CockroachDB's local keys do; user
//! keys begin with 0x01..=0xFE. Per range:
//! - `00 | range id, 8 bytes big-endian | 'a'`: what is applied: index, term, clock (3 × u64, big-endian);
//! - `00 | range id, 8 bytes big-endian | 'm'`: the descriptor (protobuf), then this store's
//!   replica id (u64, big-endian) in front of it.

use bytes::{BufMut, Bytes, BytesMut};
use rangekv_model::eval::View;
use rangekv_proto::{RangeDescriptor, RangeId, ReplicaId};
use std::ops::ControlFlow;

/// First byte of every user key is at least this.
pub const USER_START: &[u8] = &[0x01];
/// Every user key is below this.
pub const USER_END: &[u8] = &[0xff];

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
