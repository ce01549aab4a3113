//! An ordered map that is cheap to copy: sorted chunks behind `Arc`s, cloned when written.
//!
//! A copy costs one reference count. The first write after a copy costs the list of chunks
//! and one chunk. Invariants: no chunk is empty; keys ascend strictly within and across chunks.

use bytes::Bytes;
use rangekv_model::eval::View;
use std::ops::ControlFlow;
use std::sync::Arc;

const CHUNK_RECORDS_MAX: usize = 64;

#[derive(Clone, Default)]
pub(super) struct CowMap {
    chunks: Arc<Vec<Arc<Chunk>>>,
}

#[derive(Clone, Default)]
struct Chunk {
    records: Vec<(Bytes, Bytes)>,
    /// Keys and values.
    bytes: u64,
}

fn record_bytes((key, value): &(Bytes, Bytes)) -> u64 {
    (key.len() + value.len()) as u64
}

impl Chunk {
    fn of(records: Vec<(Bytes, Bytes)>) -> Arc<Chunk> {
        let bytes = records.iter().map(record_bytes).sum();
        Arc::new(Chunk { records, bytes })
    }

    fn first(&self) -> &[u8] {
        &self.records[0].0
    }

    fn last(&self) -> &[u8] {
        &self.records[self.records.len() - 1].0
    }

    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.records.binary_search_by(|(k, _)| k.as_ref().cmp(key))
    }

    /// Positions of the records in `[start, end)`.
    fn slice(&self, start: &[u8], end: &[u8]) -> &[(Bytes, Bytes)] {
        let from = self.records.partition_point(|(k, _)| k.as_ref() < start);
        let to = match end {
            [] => self.records.len(),
            end => self.records.partition_point(|(k, _)| k.as_ref() < end),
        };
        &self.records[from..to.max(from)]
    }
}

impl CowMap {
    /// The chunk in which `key` is, if it is anywhere.
    fn chunk_of(&self, key: &[u8]) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.first() <= key)
            .saturating_sub(1)
    }

    /// The chunks that `[start, end)` touches.
    fn touched(&self, start: &[u8], end: &[u8]) -> std::ops::Range<usize> {
        let from = self.chunks.partition_point(|chunk| chunk.last() < start);
        let to = match end {
            [] => self.chunks.len(),
            end => self.chunks.partition_point(|chunk| chunk.first() < end),
        };
        from..to.max(from)
    }

    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Chunk::of(vec![(key, value)]));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.find(&key) {
            Ok(i) => {
                chunk.bytes = chunk.bytes - chunk.records[i].1.len() as u64 + value.len() as u64;
                chunk.records[i].1 = value;
            }
            Err(i) => {
                chunk.bytes += (key.len() + value.len()) as u64;
                chunk.records.insert(i, (key, value));
                if chunk.records.len() > CHUNK_RECORDS_MAX {
                    let right = Chunk::of(chunk.records.split_off(CHUNK_RECORDS_MAX / 2));
                    chunk.bytes -= right.bytes;
                    chunks.insert(at + 1, right);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let at = self.chunk_of(key);
        let Some(Ok(i)) = self.chunks.get(at).map(|chunk| chunk.find(key)) else {
            return;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let record = chunk.records.remove(i);
        chunk.bytes -= record_bytes(&record);
        if chunk.records.is_empty() {
            chunks.remove(at);
        }
    }

    pub(super) fn remove_range(&mut self, start: &[u8], end: &[u8]) {
        let touched = self.touched(start, end);
        if touched.is_empty() {
            return;
        }
        let rest: Vec<Arc<Chunk>> = self.chunks[touched.clone()]
            .iter()
            .filter_map(|chunk| {
                let inside = |key: &[u8]| key >= start && (end.is_empty() || key < end);
                let kept: Vec<_> = chunk
                    .records
                    .iter()
                    .filter(|(key, _)| !inside(key))
                    .cloned()
                    .collect();
                (!kept.is_empty()).then(|| Chunk::of(kept))
            })
            .collect();
        Arc::make_mut(&mut self.chunks).splice(touched, rest);
    }

    /// Bytes of keys and values in `[start, end)`.
    pub(super) fn bytes_between(&self, start: &[u8], end: &[u8]) -> u64 {
        self.chunks[self.touched(start, end)]
            .iter()
            .map(|chunk| {
                let slice = chunk.slice(start, end);
                if slice.len() == chunk.records.len() {
                    chunk.bytes
                } else {
                    slice.iter().map(record_bytes).sum()
                }
            })
            .sum()
    }
}

impl View for CowMap {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        chunk.find(key).ok().map(|i| chunk.records[i].1.clone())
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        for chunk in &self.chunks[self.touched(start, end)] {
            for (key, value) in chunk.slice(start, end) {
                if visit(key, value).is_break() {
                    return;
                }
            }
        }
    }

    fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        for chunk in self.chunks[self.touched(start, end)].iter().rev() {
            for (key, value) in chunk.slice(start, end).iter().rev() {
                if visit(key, value).is_break() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn key(n: u64) -> Bytes {
        Bytes::from(format!("{n:04}"))
    }

    /// A small generator, so that a failure replays.
    fn next(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn behaves_as_an_ordered_map() {
        let mut rng = 1;
        let mut map = CowMap::default();
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut copies = Vec::new();
        for step in 0..20_000_u64 {
            let k = key(next(&mut rng) % 1000);
            match next(&mut rng) % 20 {
                0..=11 => {
                    let value = Bytes::from(step.to_string());
                    map.insert(k.clone(), value.clone());
                    model.insert(k, value);
                }
                12..=18 => {
                    map.remove(&k);
                    model.remove(&k);
                }
                _ => {
                    let end = key(next(&mut rng) % 1000);
                    map.remove_range(&k, &end);
                    model.retain(|m, _| *m < k || *m >= end);
                }
            }
            if step % 500 == 0 {
                copies.push((map.clone(), model.clone()));
            }
            assert_eq!(
                map.get(&key(step % 1000)),
                model.get(&key(step % 1000)).cloned()
            );
        }
        copies.push((map, model));
        for (map, model) in copies {
            let (start, end) = (key(100), key(900));
            let mut forward = Vec::new();
            map.scan(&start, &end, &mut |k, v| {
                forward.push((Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
                ControlFlow::Continue(())
            });
            let expected: Vec<_> = model
                .range(start.clone()..end.clone())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(forward, expected);
            let mut reverse = Vec::new();
            map.scan_reverse(&start, &end, &mut |k, v| {
                reverse.push((Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
                ControlFlow::Continue(())
            });
            reverse.reverse();
            assert_eq!(reverse, expected);
            let bytes: usize = expected.iter().map(|(k, v)| k.len() + v.len()).sum();
            assert_eq!(map.bytes_between(&start, &end), bytes as u64);
        }
    }
}
