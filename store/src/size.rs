//! Where to cut a range that has grown too large: near the middle of its bytes.
//!
//! Found by bisection over the keyspace with the engine's size estimates, without reading the
//! data; then moved to a boundary that the data model allows. Any thread may ask.

use crate::engine::StateEngine;
use crate::meta;
use bytes::Bytes;
use rangekv_model::eval::Evaluator;
use rangekv_proto::{RangeDescriptor, PLACEMENT_RANGE};
use std::ops::ControlFlow;

/// Bytes of a key that the bisection looks at, beyond the bounds' common prefix.
const LOOKED_AT: usize = 16;

/// A key at which `range` falls into halves, if it holds more than `bytes_max` (approximately)
/// and `model` knows a boundary strictly inside it. `None` for the placement driver's range.
pub fn split_key(
    engine: &dyn StateEngine,
    range: &RangeDescriptor,
    model: &dyn Evaluator,
    bytes_max: u64,
) -> Option<Bytes> {
    let (start, end) = meta::data_bounds(range);
    if range.id == PLACEMENT_RANGE || engine.approximate_size(&start, &end) <= bytes_max {
        return None;
    }
    let first = first_key(engine, &start, &end)?;
    let last = last_key(engine, &start, &end)?;
    let near = first_key(engine, &middle(engine, &first, &last), &end)?;
    let key = model.split_key(&range.start, &range.end, &near)?;
    (range.contains(&key) && key != range.start).then_some(key)
}

/// How many records `range` holds: counted if they are few, else reckoned from its size and from
/// the mean size of the first ones.
pub fn approximate_keys(engine: &dyn StateEngine, range: &RangeDescriptor) -> u64 {
    const LOOKED_AT: u64 = 256;
    let (start, end) = meta::data_bounds(range);
    let (mut records, mut bytes) = (0, 0);
    engine.scan(&start, &end, &mut |k, v| {
        records += 1;
        bytes += (k.len() + v.len()) as u64;
        match records < LOOKED_AT {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    match records < LOOKED_AT {
        true => records,
        false => records.max(engine.approximate_size(&start, &end) * records / bytes.max(1)),
    }
}

/// The least key in `[first, last]`, as far as estimates tell, below which half of the bytes lie.
fn middle(engine: &dyn StateEngine, first: &[u8], last: &[u8]) -> Bytes {
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut digits = [0; LOOKED_AT];
        let tail = &key[common..];
        let n = tail.len().min(LOOKED_AT);
        digits[..n].copy_from_slice(&tail[..n]);
        u128::from_be_bytes(digits)
    };
    let key = |n: u128| [&first[..common], &n.to_be_bytes()].concat();
    let half = engine.approximate_size(first, &[last, &[0]].concat()) / 2;
    let (mut low, mut high) = (number(first), number(last));
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if engine.approximate_size(first, &key(mid)) < half {
            low = mid;
        } else {
            high = mid;
        }
    }
    key(high).into()
}

fn first_key(engine: &dyn StateEngine, start: &[u8], end: &[u8]) -> Option<Bytes> {
    let mut found = None;
    engine.scan(start, end, &mut |k, _| {
        found = Some(Bytes::copy_from_slice(k));
        ControlFlow::Break(())
    });
    found
}

fn last_key(engine: &dyn StateEngine, start: &[u8], end: &[u8]) -> Option<Bytes> {
    let mut found = None;
    engine.scan_reverse(start, end, &mut |k, _| {
        found = Some(Bytes::copy_from_slice(k));
        ControlFlow::Break(())
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mem::MemEngine;
    use crate::engine::WriteBatch;
    use rangekv_model::eval::{Context, Txn};
    use rangekv_proto::{Epoch, RangeId};

    /// Allows every key that the range contains.
    struct Anywhere;
    impl Evaluator for Anywhere {
        fn evaluate(&self, _: &Context<'_>, _: &Bytes, _: &mut Txn<'_>) -> Bytes {
            Bytes::new()
        }
        fn split_key(&self, start: &[u8], _: &[u8], near: &[u8]) -> Option<Bytes> {
            (near > start).then(|| Bytes::copy_from_slice(near))
        }
    }

    fn range(start: &'static [u8], end: &'static [u8]) -> RangeDescriptor {
        RangeDescriptor {
            id: RangeId(7),
            start: Bytes::from_static(start),
            end: Bytes::from_static(end),
            epoch: Epoch::default(),
            replicas: vec![],
        }
    }

    fn engine(keys: impl Iterator<Item = (String, usize)>) -> MemEngine {
        let engine = MemEngine::new();
        let mut batch = WriteBatch::default();
        for (key, len) in keys {
            batch.put(key, vec![b'v'; len]);
        }
        engine.write(&batch);
        engine
    }

    #[test]
    fn cuts_in_the_middle_of_the_bytes() {
        let even = engine((0..1000).map(|i| (format!("key:{i:04}"), 100)));
        let key = split_key(&even, &range(b"", b""), &Anywhere, 1000).expect("too large");
        assert!(
            (b"key:0490".as_slice()..b"key:0510").contains(&&key[..]),
            "{key:?}"
        );
        // Nine tenths of the bytes lie in the last tenth of the keys.
        let skewed =
            engine((0..1000).map(|i| (format!("key:{i:04}"), if i < 900 { 1 } else { 1000 })));
        let key = split_key(&skewed, &range(b"", b""), &Anywhere, 1000).expect("too large");
        assert!(&key[..] > b"key:0900".as_slice(), "{key:?}");
    }

    #[test]
    fn counts_few_records_and_reckons_many() {
        let all = range(b"", b"");
        let few = engine((0..100).map(|i| (format!("key:{i:04}"), 10)));
        assert_eq!(approximate_keys(&few, &all), 100);
        let many = engine((0..5_000).map(|i| (format!("key:{i:04}"), 100)));
        let reckoned = approximate_keys(&many, &all);
        assert!((4_000..=6_000).contains(&reckoned), "{reckoned}");
    }

    #[test]
    fn leaves_alone_what_is_small_or_has_one_key() {
        let small = engine((0..10).map(|i| (format!("key:{i}"), 10)));
        assert_eq!(
            split_key(&small, &range(b"", b""), &Anywhere, 1 << 20),
            None
        );
        let single = engine(std::iter::once(("key".to_string(), 10_000)));
        assert_eq!(
            split_key(&single, &range(b"key", b""), &Anywhere, 100),
            None
        );
        let empty = engine(std::iter::empty());
        assert_eq!(split_key(&empty, &range(b"", b""), &Anywhere, 0), None);
    }
}
