//! A range's records as a sequence of checked chunks: the codec of snapshots on the wire.
//!
//! A chunk's records are `key length u32 LE, value length u32 LE, key, value`, repeated.
//! Each chunk carries the CRC32 of its records; the last one the number of chunks and the
//! CRC32 over all chunk CRCs, so that neither a changed, a lost, a doubled nor an exchanged
//! chunk goes unnoticed. Keys ascend strictly across the whole snapshot.

use bytes::{BufMut, Bytes, BytesMut};
use rangekv_proto::internal::SnapshotChunk;

/// A chunk is closed once it holds this much. One record more may exceed it.
pub const CHUNK_BYTES: usize = 512 << 10;

/// Key and value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// What is wrong with a received snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes are not those that were sent.
    #[error("chunk {0}: checksum does not match")]
    Checksum(u64),
    /// The bytes are as sent, but no records.
    #[error("chunk {0}: not a sequence of records")]
    Records(u64),
    /// Chunks are missing, or stand in another order.
    #[error("snapshot of {got} chunks does not match its last one, which counts {counted}")]
    Total {
        /// Chunks received.
        got: u64,
        /// Chunks sent.
        counted: u64,
    },
    /// Keys must ascend.
    #[error("chunk {0}: keys do not ascend")]
    Order(u64),
    /// A chunk after the last one.
    #[error("chunk {0} follows the last one")]
    AfterLast(u64),
}

/// Makes chunks of records.
pub struct Encoder {
    envelope: Option<Bytes>,
    records: BytesMut,
    total: crc32fast::Hasher,
    chunks: u64,
}

impl Encoder {
    /// The first chunk will carry `envelope`.
    pub fn new(envelope: Bytes) -> Self {
        Encoder {
            envelope: Some(envelope),
            records: BytesMut::with_capacity(CHUNK_BYTES + 4096),
            total: crc32fast::Hasher::new(),
            chunks: 0,
        }
    }

    /// Adds a record; returns a chunk once one is full.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Option<SnapshotChunk> {
        self.records.put_u32_le(key.len() as u32);
        self.records.put_u32_le(value.len() as u32);
        self.records.put_slice(key);
        self.records.put_slice(value);
        (self.records.len() >= CHUNK_BYTES).then(|| self.chunk(false))
    }

    /// The last chunk.
    pub fn finish(mut self) -> SnapshotChunk {
        self.chunk(true)
    }

    fn chunk(&mut self, last: bool) -> SnapshotChunk {
        let records = self.records.split().freeze();
        let crc = crc32fast::hash(&records);
        self.total.update(&crc.to_le_bytes());
        self.chunks += 1;
        SnapshotChunk {
            envelope: self.envelope.take().unwrap_or_default(),
            records,
            crc,
            total_crc: if last {
                self.total.clone().finalize()
            } else {
                0
            },
            chunks: if last { self.chunks } else { 0 },
            last,
        }
    }
}

/// Checks chunks and hands out their records.
#[derive(Default)]
pub struct Decoder {
    total: crc32fast::Hasher,
    chunks: u64,
    last_key: Option<Vec<u8>>,
    complete: bool,
}

impl Decoder {
    /// The records of the next chunk, all of them checked before the first is handed out.
    pub fn records<'a>(&mut self, chunk: &'a SnapshotChunk) -> Result<Vec<Record<'a>>, ChunkError> {
        let n = self.chunks;
        if self.complete {
            return Err(ChunkError::AfterLast(n));
        }
        let crc = crc32fast::hash(&chunk.records);
        if crc != chunk.crc {
            return Err(ChunkError::Checksum(n));
        }
        self.total.update(&crc.to_le_bytes());
        self.chunks += 1;
        if chunk.last {
            if chunk.chunks != self.chunks || chunk.total_crc != self.total.clone().finalize() {
                return Err(ChunkError::Total {
                    got: self.chunks,
                    counted: chunk.chunks,
                });
            }
            self.complete = true;
        }
        let records = split(&chunk.records).ok_or(ChunkError::Records(n))?;
        for (key, _) in &records {
            if self.last_key.as_deref().is_some_and(|last| last >= *key) {
                return Err(ChunkError::Order(n));
            }
            self.last_key = Some(key.to_vec());
        }
        Ok(records)
    }

    /// Whether the last chunk has come, and all before it.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

fn split(mut bytes: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (lengths, rest) = bytes.split_at_checked(8)?;
        let length = |at: usize| {
            u32::from_le_bytes(lengths[at..at + 4].try_into().expect("4 bytes")) as usize
        };
        let (key, rest) = rest.split_at_checked(length(0))?;
        let (value, rest) = rest.split_at_checked(length(4))?;
        records.push((key, value));
        bytes = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Records = BTreeMap<Vec<u8>, Vec<u8>>;

    fn encode(records: &Records) -> Vec<SnapshotChunk> {
        let mut encoder = Encoder::new(Bytes::from_static(b"envelope"));
        let mut chunks: Vec<SnapshotChunk> = records
            .iter()
            .filter_map(|(k, v)| encoder.add(k, v))
            .collect();
        chunks.push(encoder.finish());
        chunks
    }

    fn decode(chunks: &[SnapshotChunk]) -> Result<Option<Records>, ChunkError> {
        let (mut decoder, mut all) = (Decoder::default(), Records::new());
        for chunk in chunks {
            let records = decoder.records(chunk)?;
            all.extend(records.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())));
        }
        Ok(decoder.is_complete().then_some(all))
    }

    fn large() -> Records {
        (0..300u32)
            .map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 7000]))
            .collect()
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..100), 0..50)) {
            prop_assert_eq!(decode(&encode(&records)).unwrap(), Some(records));
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut chunks = encode(&large());
            let n = at.index(chunks.len() - 1);
            let mut bytes = chunks[n].records.to_vec();
            let byte = at.index(bytes.len());
            bytes[byte] ^= 1u8 << bit;
            chunks[n].records = bytes.into();
            prop_assert_eq!(decode(&chunks), Err(ChunkError::Checksum(n as u64)));
        }
    }

    #[test]
    fn many_chunks_with_the_envelope_in_the_first() {
        let chunks = encode(&large());
        assert!(chunks.len() > 3, "{}", chunks.len());
        assert_eq!(&chunks[0].envelope[..], b"envelope");
        assert!(chunks[1..].iter().all(|c| c.envelope.is_empty()));
        assert_eq!(decode(&chunks).unwrap(), Some(large()));
    }

    #[test]
    fn an_empty_range_is_one_empty_chunk() {
        let chunks = encode(&Records::new());
        assert_eq!(chunks.len(), 1);
        assert_eq!(decode(&chunks).unwrap(), Some(Records::new()));
    }

    #[test]
    fn lost_doubled_exchanged_and_trailing_chunks_are_noticed() {
        let whole = encode(&large());
        assert_eq!(
            decode(&whole[..whole.len() - 1]).unwrap(),
            None,
            "the end is missing"
        );
        let mut lost = whole.clone();
        lost.remove(1);
        assert!(matches!(decode(&lost), Err(ChunkError::Total { .. })));
        let mut doubled = whole.clone();
        doubled.insert(1, whole[1].clone());
        assert_eq!(decode(&doubled), Err(ChunkError::Order(2)));
        let mut exchanged = whole.clone();
        exchanged.swap(0, 1);
        assert_eq!(decode(&exchanged), Err(ChunkError::Order(1)));
        let mut trailing = whole.clone();
        trailing.push(whole[0].clone());
        assert_eq!(
            decode(&trailing),
            Err(ChunkError::AfterLast(whole.len() as u64))
        );
    }

    #[test]
    fn lengths_beyond_the_chunk_are_noticed() {
        let records = Bytes::from_static(&[200, 0, 0, 0, 1, 0, 0, 0, 9]);
        let crc = crc32fast::hash(&records);
        let chunk = SnapshotChunk {
            records,
            crc,
            ..SnapshotChunk::default()
        };
        assert_eq!(
            Decoder::default().records(&chunk),
            Err(ChunkError::Records(0))
        );
    }
}
