//! Random choices of a command, all from the seed of its context.
//!
//! Elements stand in the order of a hash, so that the first after a random place is a random
//! one, if not quite evenly: what follows a wide gap comes more often. One among the next
//! [`NEIGHBOURS`] is therefore taken, as Redis takes one among a sample of its buckets. From a
//! small collection the choice is even.

use super::call::Call;
use super::collection::Collection;
use super::error::CommandError;
use super::keys;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Among how many elements after a random place one is chosen.
const NEIGHBOURS: usize = 15;
/// Choices of one command: Redis has no bound, and no memory left when it is asked for 2^62.
const REPEATED_MAX: usize = 10_000_000;
/// Up to this size all elements are looked at.
const SMALL: usize = 64;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        keys::mix(self.0)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// A member or field with its value.
pub(crate) type Element = (Bytes, Bytes);

/// One element of a collection that has some.
pub(crate) fn one(call: &Call<'_, '_>, of: &Collection, random: &mut Random) -> Element {
    let limit = if of.len() <= SMALL { SMALL } else { NEIGHBOURS };
    let mut found = Vec::with_capacity(limit);
    let from = match of.len() {
        0..=SMALL => 0,
        _ => random.next() >> (64 - keys::HASH_BITS),
    };
    // Past the end it goes on at the beginning.
    for from in [from, 0] {
        of.members(&*call.txn, from, &mut |_, member, value| {
            found.push((
                Bytes::copy_from_slice(member),
                Bytes::copy_from_slice(value),
            ));
            match found.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        if found.len() >= limit.min(of.len()) {
            break;
        }
    }
    assert!(!found.is_empty(), "a collection that exists has elements");
    found.swap_remove(random.below(found.len()))
}

/// `count` different elements, or all if there are no more.
pub(crate) fn distinct(
    call: &Call<'_, '_>,
    of: &Collection,
    count: usize,
    random: &mut Random,
) -> Vec<Element> {
    // As in Redis: to find most of them by chance would take long.
    if of.len() <= SMALL || count.saturating_mul(3) >= of.len() {
        let mut all = of.all_members(&*call.txn);
        let count = count.min(all.len());
        for at in 0..count {
            let other = at + random.below(all.len() - at);
            all.swap(at, other);
        }
        all.truncate(count);
        return all;
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        let element = one(call, of, random);
        if seen.insert(element.0.clone()) {
            found.push(element);
        }
    }
    found
}

/// `count` elements, each chosen anew.
fn repeated(
    call: &Call<'_, '_>,
    of: &Collection,
    count: usize,
    random: &mut Random,
) -> Vec<Element> {
    if count.saturating_mul(3) >= of.len() || of.len() <= SMALL {
        let all = of.all_members(&*call.txn);
        return (0..count)
            .map(|_| all[random.below(all.len())].clone())
            .collect();
    }
    (0..count).map(|_| one(call, of, random)).collect()
}

/// What `count` asks for: that many different elements or, if it is negative, that many choices.
pub(crate) fn choose(
    call: &Call<'_, '_>,
    of: &Collection,
    count: i64,
    random: &mut Random,
) -> Result<Vec<Element>, CommandError> {
    if count >= 0 {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        return Ok(distinct(call, of, count, random));
    }
    let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count > REPEATED_MAX {
        return Err(CommandError::Of("ERR value is out of range"));
    }
    Ok(repeated(call, of, count, random))
}
