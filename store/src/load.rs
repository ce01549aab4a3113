//! Where in a range its load falls, from a sample of the keys that requests touch, and where to
//! cut the range so that both halves get their part of it.
//!
//! One request in [`SAMPLED`] leaves its first key; the newest [`KEPT`] are looked at. That
//! costs a request that is not sampled one load of a counter that it increments anyway.

use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_model::eval::{Evaluator, View, Visitor};
use rangekv_proto::{RangeDescriptor, PLACEMENT_RANGE};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// One request in so many is sampled.
pub const SAMPLED: u64 = 256;

/// Keys that are kept.
pub const KEPT: usize = 128;

/// Fewer say nothing.
const KEPT_MIN: usize = 32;

/// Each half must get at least this part of the load: one in so many.
const PART: usize = 4;

/// Keys of the newest sampled requests of one range.
#[derive(Debug, Default)]
pub struct Samples(Mutex<VecDeque<Bytes>>);

impl Samples {
    /// Adds a key.
    pub fn add(&self, key: Bytes) {
        let mut keys = self.0.lock();
        if keys.len() == KEPT {
            keys.pop_front();
        }
        keys.push_back(key);
    }

    /// The range's bounds have changed.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// A boundary of `model` strictly inside `range` that leaves at least a quarter of the
    /// samples on either side, as near to half as there is; `None` if there is none.
    pub fn dividing_key(&self, range: &RangeDescriptor, model: &dyn Evaluator) -> Option<Bytes> {
        let mut keys: Vec<Bytes> = self.0.lock().iter().cloned().collect();
        keys.retain(|key| range.contains(key));
        if range.id == PLACEMENT_RANGE || keys.len() < KEPT_MIN {
            return None;
        }
        keys.sort_unstable();
        let mut near = keys.clone();
        near.dedup();
        let cuts = near.iter().filter_map(|key| {
            let cut = model.split_key(&range.start, &range.end, key)?;
            let inside = range.contains(&cut) && cut != range.start;
            inside.then(|| (keys.partition_point(|key| *key < cut), cut))
        });
        let (left, cut) = cuts.min_by_key(|(left, _)| left.abs_diff(keys.len() / 2))?;
        let least = keys.len() / PART;
        (left >= least && keys.len() - left >= least).then_some(cut)
    }
}

/// A view that remembers the first key that was asked of it.
pub struct FirstKey<'a> {
    view: &'a dyn View,
    key: OnceCell<Bytes>,
}

impl<'a> FirstKey<'a> {
    /// Over `view`.
    pub fn of(view: &'a dyn View) -> Self {
        FirstKey {
            view,
            key: OnceCell::new(),
        }
    }

    /// The key, if there was one.
    pub fn into_key(self) -> Option<Bytes> {
        self.key.into_inner()
    }

    fn note(&self, key: &[u8]) {
        self.key.get_or_init(|| Bytes::copy_from_slice(key));
    }
}

impl View for FirstKey<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.note(key);
        self.view.get(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        let mut first = true;
        self.view.scan(start, end, &mut |key, value| {
            if std::mem::take(&mut first) {
                self.note(key);
            }
            visit(key, value)
        });
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: Visitor<'_>) {
        let mut first = true;
        self.view
            .scan_reverse(start, end, &mut |key, value| -> ControlFlow<()> {
                if std::mem::take(&mut first) {
                    self.note(key);
                }
                visit(key, value)
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_model::eval::{Context, Txn};
    use rangekv_proto::{Epoch, RangeId};

    /// Allows keys of two letters, so that what they have in common stays together.
    struct Pairs;
    impl Evaluator for Pairs {
        fn evaluate(&self, _: &Context<'_>, _: &Bytes, _: &mut Txn<'_>) -> Bytes {
            Bytes::new()
        }
        fn split_key(&self, start: &[u8], _: &[u8], near: &[u8]) -> Option<Bytes> {
            let cut = &near[..near.len().min(2)];
            (cut > start).then(|| Bytes::copy_from_slice(cut))
        }
    }

    fn cut(keys: &[(&'static str, usize)]) -> Option<String> {
        let samples = Samples::default();
        for (key, times) in keys {
            (0..*times).for_each(|_| samples.add(Bytes::from_static(key.as_bytes())));
        }
        let range = RangeDescriptor {
            id: RangeId(7),
            start: Bytes::from_static(b"aa"),
            end: Bytes::from_static(b"mm"),
            epoch: Epoch::default(),
            replicas: vec![],
        };
        let key = samples.dividing_key(&range, &Pairs)?;
        Some(String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn cuts_where_both_halves_get_their_part() {
        assert_eq!(
            cut(&[("aax", 20), ("bbx", 20), ("ccx", 20), ("ddx", 20)]),
            Some("cc".into())
        );
        assert_eq!(
            cut(&[("abx", 30), ("ccx", 15), ("ddx", 55)]),
            Some("dd".into())
        );
        // A hot key, and one that lies first: nothing to divide.
        assert_eq!(cut(&[("bbx", 90), ("ccx", 10)]), None);
        assert_eq!(cut(&[("aax", 100)]), None);
        // Different keys that must stay together.
        assert_eq!(cut(&[("ccx", 50), ("ccy", 50)]), None);
        assert_eq!(cut(&[("bbx", 10), ("ccx", 10)]), None, "too few");
        // Of another range: sampled before it was split off.
        assert_eq!(cut(&[("bbx", 40), ("zzx", 60)]), None);
    }

    #[test]
    fn only_the_newest_count() {
        let samples = Samples::default();
        (0..1_000).for_each(|i: usize| samples.add(i.to_be_bytes().to_vec().into()));
        assert_eq!(samples.0.lock().len(), KEPT);
        samples.clear();
        assert!(samples.0.lock().is_empty());
    }
}
