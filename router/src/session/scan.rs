//! `SCAN`: a cursor that any node understands, whatever ranges, leaders and keys do meanwhile.
//!
//! A cursor is `slot << 48 | hash`, below 2^62, so that clients which read it as a signed
//! 64-bit integer can. No node remembers anything about it.
//!
//! - `hash` = 0: go on at the first key of `slot`. A page visits keys in record order, which is
//!   by slot, and returns those of the slots that it saw the end of; what it saw of the last
//!   slot is left for the next page. `COUNT` is a hint: at least one whole slot is returned.
//! - `hash` > 0: go on within `slot`, which holds more keys than one reply should, in the order
//!   of a 48-bit hash of the user key. Each call reads the whole slot and returns the keys
//!   with the least hashes from `hash` on, those of equal hash together.
//!
//! Redis's guarantee holds: a key that is there from the first call to the last is returned,
//! since what a cursor has passed depends on the key alone, not on its neighbours, which
//! come and go. It is returned once, save when a cursor is used twice.
//!
//! Bounds: a reply carries at most `max(COUNT, 4096)` keys beyond `COUNT`. With n keys in a
//! slot (a database of 100 million has 6,100) a scan of that slot reads about n²/4096 keys:
//! a million keys under one hash tag cost 244 passes over them; a greater `COUNT` divides that.
//! Ordinals or prefixes of keys would be cheaper there, but an ordinal shifts when a key
//! before it is deleted, and a prefix that fits into 48 bits does not tell such keys apart.

use super::walk::integer;
use bytes::Bytes;
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::{codec::Protocol, keys};
use std::collections::BTreeMap;

const HASH_BITS: u32 = 48;
const HASH_MASK: u64 = (1 << HASH_BITS) - 1;
/// Keys of one slot that are returned at once, however small `COUNT` is.
const SLOT_KEYS_MAX: usize = 4096;
/// Records visited by one page at most.
const PAGE_RECORDS_MAX: u32 = 10_000;
/// Pages that find nothing to return before the client is answered, with a new cursor.
const PAGES_MAX: u32 = 64;

/// One call of `SCAN`.
#[derive(Debug)]
pub(super) struct Scan {
    slot: u16,
    pattern: Bytes,
    kind: Bytes,
    count: usize,
    keys_max: usize,
    page_records: u32,
    pages: u32,
    order: Order,
    cursor: u64,
    result: Vec<Bytes>,
}

#[derive(Debug)]
enum Order {
    /// By slot: what was found, in that order.
    Slots(Vec<Bytes>),
    /// Within one slot: what was found by hash, from `from` on and up to `below`.
    Hashes {
        from: u64,
        below: u64,
        found: BTreeMap<u64, Vec<Bytes>>,
        count: usize,
    },
}

impl Scan {
    /// Reads the arguments; the error reply if they are wrong.
    pub fn new(args: &[Bytes]) -> Result<Self, Bytes> {
        let cursor = std::str::from_utf8(&args[1])
            .ok()
            .and_then(|c| c.parse::<u64>().ok());
        let cursor = cursor.ok_or_else(|| reply::error("ERR invalid cursor"))?;
        let (slot, from) = ((cursor >> HASH_BITS), cursor & HASH_MASK);
        if slot >= u64::from(keys::SLOTS) {
            return Err(reply::error("ERR invalid cursor"));
        }
        let (mut pattern, mut kind, mut count) = (Bytes::new(), Bytes::new(), 10);
        for option in args[2..].chunks(2) {
            let [name, value] = option else {
                return Err(CommandError::Syntax.to_reply());
            };
            if name.eq_ignore_ascii_case(b"count") {
                count = integer(value)?;
                if count < 1 {
                    return Err(CommandError::Syntax.to_reply());
                }
            } else if name.eq_ignore_ascii_case(b"match") {
                pattern = if value[..] == b"*"[..] {
                    Bytes::new()
                } else {
                    value.clone()
                };
            } else if name.eq_ignore_ascii_case(b"type") {
                kind = value.clone();
            } else {
                return Err(CommandError::Syntax.to_reply());
            }
        }
        // More than fits into memory is as good as that: no reply is longer than this.
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(1 << 20);
        let order = match from {
            0 => Order::Slots(Vec::new()),
            from => Order::hashes(from),
        };
        Ok(Scan {
            slot: slot as u16,
            pattern,
            kind,
            count,
            keys_max: count.max(SLOT_KEYS_MAX),
            page_records: (count as u32).clamp(16, PAGE_RECORDS_MAX),
            pages: 0,
            order,
            cursor: 0,
            result: Vec::new(),
        })
    }

    /// Where the first page begins.
    pub fn start(&self) -> Bytes {
        keys::slot_start(self.slot)
    }

    /// How many records the next page visits at most.
    pub fn page_records(&self) -> u32 {
        match self.order {
            Order::Slots(_) => self.page_records,
            Order::Hashes { .. } => PAGE_RECORDS_MAX,
        }
    }

    /// `MATCH`; empty = all.
    pub fn pattern(&self) -> Bytes {
        self.pattern.clone()
    }

    /// `TYPE`; empty = any.
    pub fn kind(&self) -> Bytes {
        self.kind.clone()
    }

    /// Takes in a page, after which the walk would go on at `next` (`None` = at its end).
    /// Where it does go on; `None` = the reply is ready.
    pub fn on_page(&mut self, user_keys: Vec<Bytes>, next: Option<Bytes>) -> Option<Bytes> {
        self.pages += 1;
        let reached = next
            .as_ref()
            .map_or(keys::SLOTS, |next| keys::slot_at(next));
        match &mut self.order {
            Order::Slots(found) => {
                found.extend(user_keys);
                if reached > self.slot {
                    let enough = found.len() >= self.count || self.pages >= PAGES_MAX;
                    if enough || next.is_none() {
                        let mut found = std::mem::take(found);
                        found.retain(|key| keys::slot(key) < reached);
                        return self.finish(found, reached, 0);
                    }
                } else if found.len() > self.keys_max {
                    self.order = Order::hashes(1);
                    return Some(self.start());
                }
                self.page_records = (self.page_records * 2).min(PAGE_RECORDS_MAX);
                next
            }
            Order::Hashes {
                from,
                below,
                found,
                count,
            } => {
                for key in user_keys {
                    let hash = hash(&key);
                    if keys::slot(&key) == self.slot && (*from..*below).contains(&hash) {
                        found.entry(hash).or_default().push(key);
                        *count += 1;
                    }
                }
                while let Some(last) = found.last_entry() {
                    if *count - last.get().len() < self.keys_max {
                        break;
                    }
                    *below = *last.key();
                    *count -= last.remove().len();
                }
                if reached == self.slot {
                    return next;
                }
                let below = *below;
                let found = std::mem::take(found).into_values().flatten().collect();
                match below > HASH_MASK {
                    true => self.finish(found, self.slot + 1, 0),
                    false => self.finish(found, self.slot, below),
                }
            }
        }
    }

    /// The reply, when [`on_page`](Self::on_page) said that it is ready.
    pub fn reply(&mut self) -> Bytes {
        // Bulk strings and arrays are the same in both protocol versions.
        let mut reply = Reply::new(Protocol::Resp2);
        reply
            .array(2)
            .bulk(self.cursor.to_string().as_bytes())
            .array(self.result.len());
        for key in self.result.drain(..) {
            reply.bulk(&key);
        }
        reply.finish()
    }

    fn finish(&mut self, found: Vec<Bytes>, slot: u16, hash: u64) -> Option<Bytes> {
        self.result = found;
        self.cursor = match slot {
            keys::SLOTS => 0,
            slot => u64::from(slot) << HASH_BITS | hash,
        };
        None
    }
}

impl Order {
    fn hashes(from: u64) -> Self {
        Order::Hashes {
            from,
            below: HASH_MASK + 1,
            found: BTreeMap::new(),
            count: 0,
        }
    }
}

/// Where a key stands within its slot: 1 to 2^48 − 1. Part of what a cursor means, so it is
/// the same on every node and in every version: FNV-1a, then MurmurHash3's finalizer.
fn hash(user_key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in user_key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((hash ^ (hash >> 33)) & HASH_MASK).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_part_of_the_cursor_format() {
        // As computed by an independent implementation of the two published algorithms.
        assert_eq!(hash(b""), 0x1f60_ba99_2926);
        assert_eq!(hash(b"user:1000"), 0x27d0_40be_722c);
    }
}
