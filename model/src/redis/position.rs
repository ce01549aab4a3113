//! Where the elements of a list are: a record per element under a position, in order.
//!
//! A position is a whole number of 8 bytes and a fraction of none, or of some more 8-byte
//! chunks. The ends of a list grow by whole numbers, so that an index is a position as long as
//! every whole number between the ends is taken and nothing lies between them: then the list
//! is *dense*, and costs the same at every index. `LINSERT` takes a whole number that an `LREM`
//! left free, or a fraction, and writes that one record only. In a list that is not dense an
//! index is found by counting from the nearer end.
//!
//! The metadata has the whole parts of both ends. What lies beyond them is not part of the
//! list but garbage, which a trim leaves behind: a push writes over it.
//!
//! Invariant: no garbage lies between the ends, nor are there fractions among it.

use super::call::Call;
use super::collection::{position_bytes, position_of, Collection};
use super::keys::POSITIONS;
use crate::eval::{View, Visitor};
use bytes::Bytes;
use std::ops::ControlFlow;

/// An element: its position, and what it is.
pub(crate) type Element = (Vec<u8>, Bytes);

const WHOLE: usize = 8;
const CHUNK: usize = 8;
/// A fraction this long makes room: the elements about it get new positions.
const FRACTION_BYTES_MAX: usize = 4 * CHUNK;
/// Repeated insertions before or after the same element take steps of this size, of which a
/// chunk has room for 2^31.
const STEP: u64 = 1 << 32;

fn whole(position: &[u8]) -> i64 {
    let bytes = position.first_chunk::<WHOLE>();
    position_of(*bytes.expect("a position has eight bytes"))
}

/// Which of the two neighbours of a new element will have the next ones beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pivot {
    Left,
    Right,
}

/// A position strictly between two others.
fn between(left: &[u8], right: &[u8], pivot: Pivot) -> Vec<u8> {
    debug_assert!(left < right);
    let (low, high) = (whole(left), whole(right));
    if low + 1 < high || (low + 1 == high && right.len() > WHOLE) {
        return position_bytes(low + 1).to_vec();
    }
    let mut upper = (low == high).then(|| &right[WHOLE..]);
    let mut lower = &left[WHOLE..];
    let mut position = position_bytes(low).to_vec();
    loop {
        let (a, b) = (chunk(lower), upper.map_or(u64::MAX, chunk));
        if b - a >= 2 {
            let step = ((b - a) / 2).min(STEP);
            // Room is left where the next ones will be wanted.
            let new = match pivot {
                Pivot::Right => a + step,
                Pivot::Left => b - step,
            };
            position.extend_from_slice(&new.to_be_bytes());
            return position;
        }
        position.extend_from_slice(&a.to_be_bytes());
        upper = upper
            .filter(|_| a == b)
            .map(|upper| &upper[CHUNK.min(upper.len())..]);
        lower = &lower[CHUNK.min(lower.len())..];
    }
}

/// The first chunk of a fraction; 0 if there is none, which is before all others.
fn chunk(fraction: &[u8]) -> u64 {
    fraction
        .first_chunk::<CHUNK>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn key(list: &Collection, position: &[u8]) -> Vec<u8> {
    list.sub_key(POSITIONS, &[position])
}

fn first_key(list: &Collection) -> Vec<u8> {
    key(list, &position_bytes(list.meta.first))
}

fn is_dense(list: &Collection) -> bool {
    !list.meta.fractional && list.meta.last - list.meta.first + 1 == list.meta.size as i64
}

/// Visits elements with their positions, from the first on or backwards from the last.
pub(crate) fn visit(list: &Collection, view: &dyn View, reverse: bool, visit: Visitor<'_>) {
    visit_from(list, view, None, reverse, visit);
}

fn visit_from(
    list: &Collection,
    view: &dyn View,
    from: Option<Vec<u8>>,
    reverse: bool,
    visit: Visitor<'_>,
) {
    let (start, end) = (first_key(list), list.live_end());
    let mut visit = |key: &[u8], value: &[u8]| visit(list.tail(key), value);
    match (reverse, from) {
        (false, from) => view.scan(&from.unwrap_or(start), &end, &mut visit),
        (true, Some(from)) => view.scan_reverse(&start, &[&from[..], &[0]].concat(), &mut visit),
        (true, None) => view.scan_reverse(&start, &end, &mut visit),
    }
}

/// The elements from index `start` to `stop`, both inclusive and within the list.
pub(crate) fn range(list: &Collection, view: &dyn View, start: u64, stop: u64) -> Vec<Element> {
    let count = (stop - start + 1) as usize;
    let mut found = Vec::with_capacity(count.min(1 << 16));
    let (from_end, mut skip) = match list.meta.size - 1 - stop {
        after if after < start => (true, after),
        _ => (false, start),
    };
    let mut from = None;
    if is_dense(list) {
        let position = match from_end {
            true => list.meta.last - skip as i64,
            false => list.meta.first + skip as i64,
        };
        from = Some(key(list, &position_bytes(position)));
        skip = 0;
    }
    visit_from(list, view, from, from_end, &mut |position, value| {
        if skip > 0 {
            skip -= 1;
            return ControlFlow::Continue(());
        }
        found.push((position.to_vec(), Bytes::copy_from_slice(value)));
        match found.len() < count {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert_eq!(
        found.len(),
        count,
        "elements of a list of {}",
        list.meta.size
    );
    if from_end {
        found.reverse();
    }
    found
}

/// Adds an element at an end.
pub(crate) fn push(call: &mut Call<'_, '_>, list: &mut Collection, left: bool, value: Bytes) {
    let end = match left {
        true => {
            list.meta.first -= 1;
            list.meta.first
        }
        false => {
            list.meta.last += 1;
            list.meta.last
        }
    };
    call.txn.put(key(list, &position_bytes(end)), value);
    list.meta.size += 1;
}

/// Removes up to `count` elements from an end, the outermost first.
pub(crate) fn pop(
    call: &mut Call<'_, '_>,
    list: &mut Collection,
    left: bool,
    count: usize,
) -> Vec<Bytes> {
    let size = list.meta.size;
    let count = (count as u64).min(size);
    if count == 0 {
        return Vec::new();
    }
    let mut popped = match left {
        true => range(list, &*call.txn, 0, count - 1),
        false => range(list, &*call.txn, size - count, size - 1),
    };
    if !left {
        popped.reverse();
    }
    remove(call, list, popped.iter().map(|(position, _)| &position[..]));
    popped.into_iter().map(|(_, value)| value).collect()
}

/// Removes elements by their positions.
pub(crate) fn remove<'p>(
    call: &mut Call<'_, '_>,
    list: &mut Collection,
    positions: impl Iterator<Item = &'p [u8]>,
) {
    let dense = is_dense(list);
    let (mut first, mut last) = (list.meta.first, list.meta.last);
    for position in positions {
        call.txn.delete(key(list, position));
        list.meta.size -= 1;
        // Follows what is removed from an end inwards.
        match whole(position) {
            at if at == first => first += 1,
            at if at == last => last -= 1,
            _ => {}
        }
    }
    if list.meta.size == 0 {
        list.meta.last = list.meta.first - 1;
        return;
    }
    if dense && last - first + 1 == list.meta.size as i64 {
        (list.meta.first, list.meta.last) = (first, last);
        return;
    }
    for reverse in [false, true] {
        let mut end = None;
        visit(list, &*call.txn, reverse, &mut |position, _| {
            end = Some(whole(position));
            ControlFlow::Break(())
        });
        let end = end.expect("a list that exists has elements");
        match reverse {
            false => list.meta.first = end,
            true => list.meta.last = end,
        }
    }
}

/// Keeps the elements from index `start` to `stop`, both inclusive and within the list.
pub(crate) fn trim(call: &mut Call<'_, '_>, list: &mut Collection, start: u64, stop: u64) {
    /// More than this is left behind as garbage.
    const DELETED_MAX: u64 = 64;
    let removed = list.meta.size - (stop - start + 1);
    if removed == 0 {
        return;
    }
    if list.meta.fractional || removed <= DELETED_MAX {
        let mut doomed = Vec::new();
        if start > 0 {
            doomed = range(list, &*call.txn, 0, start - 1);
        }
        if stop + 1 < list.meta.size {
            let mut tail = range(list, &*call.txn, stop + 1, list.meta.size - 1);
            tail.reverse();
            doomed.append(&mut tail);
        }
        return remove(call, list, doomed.iter().map(|(position, _)| &position[..]));
    }
    let end = |index| {
        let found = range(list, &*call.txn, index, index);
        whole(&found[0].0)
    };
    (list.meta.first, list.meta.last) = (end(start), end(stop));
    list.meta.size = stop - start + 1;
}

/// Replaces an element.
pub(crate) fn set(call: &mut Call<'_, '_>, list: &Collection, position: &[u8], value: Bytes) {
    call.txn.put(key(list, position), value);
}

/// Adds an element between two neighbours.
pub(crate) fn insert(
    call: &mut Call<'_, '_>,
    list: &mut Collection,
    (left, right): (&[u8], &[u8]),
    pivot: Pivot,
    value: Bytes,
) {
    let mut position = between(left, right, pivot);
    if position.len() > WHOLE + FRACTION_BYTES_MAX {
        let left = spread(call, list, left);
        let mut right = None;
        visit_from(
            list,
            &*call.txn,
            Some(key(list, &left)),
            false,
            &mut |at, _| {
                if at > &left[..] {
                    right = Some(at.to_vec());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            },
        );
        let right = right.expect("the right neighbour is still there");
        position = between(&left, &right, pivot);
    }
    list.meta.fractional |= position.len() > WHOLE;
    call.txn.put(key(list, &position), value);
    list.meta.size += 1;
}

/// Gives the elements that share a whole number with `left` fractions of one chunk, evenly
/// spread; where `left` is then.
fn spread(call: &mut Call<'_, '_>, list: &Collection, left: &[u8]) -> Vec<u8> {
    let base = &left[..WHOLE];
    let mut crowded: Vec<Element> = Vec::new();
    visit_from(
        list,
        &*call.txn,
        Some(key(list, base)),
        false,
        &mut |at, value| {
            if !at.starts_with(base) {
                return ControlFlow::Break(());
            }
            if at.len() > WHOLE {
                crowded.push((at.to_vec(), Bytes::copy_from_slice(value)));
            }
            ControlFlow::Continue(())
        },
    );
    let step = u64::MAX / (crowded.len() as u64 + 2);
    let mut moved = left.to_vec();
    for (position, _) in &crowded {
        call.txn.delete(key(list, position));
    }
    for (n, (position, value)) in crowded.into_iter().enumerate() {
        let fraction = (n as u64 + 1) * step;
        let to = [base, &fraction.to_be_bytes()].concat();
        call.txn.put(key(list, &to), value);
        if position == left {
            moved = to;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_between_lie_between(choices: Vec<(prop::sample::Index, bool)>) {
            let mut positions = vec![position_bytes(-1).to_vec(), position_bytes(0).to_vec()];
            for (index, right) in choices {
                let at = index.index(positions.len() - 1);
                let pivot = if right { Pivot::Right } else { Pivot::Left };
                let new = between(&positions[at], &positions[at + 1], pivot);
                prop_assert!(positions[at] < new && new < positions[at + 1]);
                positions.insert(at + 1, new);
            }
        }

        #[test]
        fn whole_parts_round_trip(a: i64, b: i64) {
            prop_assert_eq!(whole(&position_bytes(a)), a);
            prop_assert_eq!(position_bytes(a).cmp(&position_bytes(b)), a.cmp(&b));
        }
    }

    #[test]
    fn insertions_at_one_place_stay_short() {
        for pivot in [Pivot::Left, Pivot::Right] {
            let (mut left, mut right) = (position_bytes(0).to_vec(), position_bytes(1).to_vec());
            for _ in 0..10_000 {
                let new = between(&left, &right, pivot);
                assert_eq!(new.len(), WHOLE + CHUNK);
                match pivot {
                    Pivot::Left => right = new,
                    Pivot::Right => left = new,
                }
            }
        }
    }
}
