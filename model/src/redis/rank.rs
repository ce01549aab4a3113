//! Members of a sorted set in their order, and how many lie before a place in it.
//!
//! Ordered records alone answer ranges by score, but to count them takes as many steps as there
//! are. So some members stand out, chosen by a hash: one of `SPACING` on level 1, of these
//! one of `SPACING` on level 2, and so on. For each member that stands out on a level, and for
//! the beginning of the set (the *head*), a record says how many members there are from it up
//! to the next one on that level. It is a skip list whose widths are records: a rank is found
//! by walking the top level, then the one below from where that ended, and so on down to the
//! members themselves.
//!
//! Why this and not blocks of a fixed size or a tree: an insertion never moves or splits
//! anything. It adds 1 to one record per level in use (none below some 64 members, two or
//! three at a million), whose keys follow from the member alone; and removing in any order
//! leaves exactly what never having added would have. Levels in use grow with the logarithm of
//! the size, and a walk on a level takes `SPACING` steps on average. A greater spacing would
//! save writes, which every `ZADD` pays, at the price of steps, which only ranks pay.
//!
//! The hash is salted with a number that clients do not see, so that nobody can pick members
//! which all stand on one level.
//!
//! Invariants: on each level up to `height` the counts add up to the size; a member stands out
//! on a level only if it does on all below; the head has a record on each level in use.

use super::collection::Collection;
use super::keys::{self, COUNTS, LEVELS, SCORES};
use crate::eval::{Txn, View};
use bytes::Bytes;
use std::ops::ControlFlow;

/// One of so many members stands out on the next level; a power of two.
const SPACING: u64 = 64;

/// A place in the order: score and member. Its bytes order as the members do.
pub(crate) fn place(score: f64, member: &[u8]) -> Vec<u8> {
    [&keys::score_bytes(score), member].concat()
}

/// The levels on which a member stands out: 0 = on none.
fn level(set: &Collection, member: &[u8]) -> u8 {
    let bits = keys::mix(keys::member_hash(member) ^ set.meta.salt);
    let levels = bits.trailing_zeros() / SPACING.trailing_zeros();
    (levels as u8).min(LEVELS)
}

fn count_of(record: &[u8]) -> u64 {
    let bytes = record.first_chunk::<8>();
    u64::from_be_bytes(*bytes.expect("a count has eight bytes"))
}

fn put_count(txn: &mut Txn<'_>, key: Vec<u8>, count: u64) {
    txn.put(key, Bytes::copy_from_slice(&count.to_be_bytes()));
}

/// The last record on `level` at or before (`inclusive`) a place: its key and count.
fn predecessor(
    set: &Collection,
    view: &dyn View,
    level: u8,
    place: &[u8],
    inclusive: bool,
) -> (Vec<u8>, u64) {
    let head = set.sub_key(COUNTS + level, &[]);
    let past: &[u8] = if inclusive { &[0] } else { &[] };
    let end = set.sub_key(COUNTS + level, &[place, past]);
    let mut found = None;
    view.scan_reverse(&head, &end, &mut |key, record| {
        found = Some((key.to_vec(), count_of(record)));
        ControlFlow::Break(())
    });
    found.expect("the head of a level in use has a record")
}

/// Notes a member that is new at a place; its score record is not needed yet. Keeps `height`.
/// To be called before the set's size is changed.
pub(crate) fn insert(set: &mut Collection, txn: &mut Txn<'_>, place: &[u8], member: &[u8]) {
    let own = level(set, member);
    while set.meta.height < own {
        set.meta.height += 1;
        let head = set.sub_key(COUNTS + set.meta.height, &[]);
        put_count(txn, head, set.meta.size);
    }
    for level in 1..=set.meta.height {
        let (before, count) = predecessor(set, txn, level, place, false);
        if level > own {
            put_count(txn, before, count + 1);
            continue;
        }
        // The stretch is cut in two. What of it lies before the member is counted on the
        // level below, which is right already.
        let from = set.tail(&before).to_vec();
        let left = match level {
            1 => count_between(set, txn, &from, place),
            _ => sum_between(set, txn, level - 1, &from, place),
        };
        put_count(txn, before, left);
        let key = set.sub_key(COUNTS + level, &[place]);
        put_count(txn, key, count - left + 1);
    }
}

/// Forgets a member at a place. To be called before the set's size is changed.
pub(crate) fn remove(set: &Collection, txn: &mut Txn<'_>, place: &[u8], member: &[u8]) {
    let own = level(set, member);
    for level in 1..=set.meta.height {
        let mut moved = 0;
        if level <= own {
            let key = set.sub_key(COUNTS + level, &[place]);
            moved = count_of(&txn.get(&key).expect("a member that stands out has a count"));
            txn.delete(key);
        }
        let (before, count) = predecessor(set, txn, level, place, false);
        put_count(txn, before, count + moved - 1);
    }
}

/// How many members have a place in `[from, to)`, by looking at each.
fn count_between(set: &Collection, view: &dyn View, from: &[u8], to: &[u8]) -> u64 {
    let (start, end) = (set.sub_key(SCORES, &[from]), set.sub_key(SCORES, &[to]));
    let mut count = 0;
    view.scan(&start, &end, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    count
}

/// The sum of the counts on `level` in `[from, to)`.
fn sum_between(set: &Collection, view: &dyn View, level: u8, from: &[u8], to: &[u8]) -> u64 {
    let start = set.sub_key(COUNTS + level, &[from]);
    let end = set.sub_key(COUNTS + level, &[to]);
    let mut sum = 0;
    view.scan(&start, &end, &mut |_, record| {
        sum += count_of(record);
        ControlFlow::Continue(())
    });
    sum
}

/// How many members stand before a place.
pub(crate) fn rank_of(set: &Collection, view: &dyn View, place: &[u8]) -> u64 {
    let mut rank = 0;
    let mut from = Vec::new();
    for level in (1..=set.meta.height).rev() {
        let start = set.sub_key(COUNTS + level, &[&from]);
        let end = set.sub_key(COUNTS + level, &[place]);
        // Of the last one before the place: what follows it is counted on the level below.
        let mut last = None;
        view.scan(&start, &end, &mut |key, record| {
            rank += last.unwrap_or(0);
            last = Some(count_of(record));
            from.clear();
            from.extend_from_slice(set.tail(key));
            ControlFlow::Continue(())
        });
        // None lies before the place only if the place is the beginning itself.
        if last.is_none() {
            return rank;
        }
    }
    rank + count_between(set, view, &from, place)
}

/// The place of the member at a rank, counted from 0; `None` if the set has no so many.
pub(crate) fn place_at(set: &Collection, view: &dyn View, rank: u64) -> Option<Vec<u8>> {
    if rank >= set.meta.size {
        return None;
    }
    let mut left = rank;
    let mut from = Vec::new();
    for level in (1..=set.meta.height).rev() {
        let start = set.sub_key(COUNTS + level, &[&from]);
        let end = set.sub_key(COUNTS + level + 1, &[]);
        view.scan(&start, &end, &mut |key, record| {
            let count = count_of(record);
            if left < count {
                from = set.tail(key).to_vec();
                return ControlFlow::Break(());
            }
            left -= count;
            ControlFlow::Continue(())
        });
    }
    let (start, end) = (set.sub_key(SCORES, &[&from]), set.sub_key(SCORES + 1, &[]));
    let mut found = None;
    view.scan(&start, &end, &mut |key, _| {
        if left == 0 {
            found = Some(set.tail(key).to_vec());
            return ControlFlow::Break(());
        }
        left -= 1;
        ControlFlow::Continue(())
    });
    assert!(found.is_some(), "rank {rank} of {} members", set.meta.size);
    found
}

/// Asserts that counts and members agree, for tests.
#[cfg(test)]
pub(crate) fn check(set: &Collection, view: &dyn View) {
    let mut places = Vec::new();
    let (start, end) = (set.sub_key(SCORES, &[]), set.sub_key(SCORES + 1, &[]));
    view.scan(&start, &end, &mut |key, _| {
        places.push(set.tail(key).to_vec());
        ControlFlow::Continue(())
    });
    assert_eq!(places.len() as u64, set.meta.size);
    for own in 1..=LEVELS {
        let mut expected: Vec<(Vec<u8>, u64)> = Vec::new();
        if own <= set.meta.height {
            expected.push((Vec::new(), 0));
        }
        for place in &places {
            if level(set, &place[8..]) >= own {
                expected.push((place.clone(), 0));
            }
            if let Some((_, count)) = expected.last_mut() {
                *count += 1;
            }
        }
        let mut found = Vec::new();
        let start = set.sub_key(COUNTS + own, &[]);
        view.scan(
            &start,
            &set.sub_key(COUNTS + own + 1, &[]),
            &mut |key, record| {
                found.push((set.tail(key).to_vec(), count_of(record)));
                ControlFlow::Continue(())
            },
        );
        assert_eq!(found, expected, "level {own}");
    }
}
