//! The key layout of the Redis model, byte by byte.
//!
//! ```text
//! 20 | slot, 2 bytes big-endian | database, 1 byte | escaped user key | 00 01 | sub-key
//! ```
//!
//! - `20` sets Redis apart: everything below `10` belongs to the placement driver, and what
//!   lies at or above [`slot_start`]`(SLOTS)` = `20 40 00` to other models.
//! - The slot is CRC16/XMODEM of the hash tag (or of the whole key) modulo 16384, as the
//!   Redis Cluster specification says. Keys of one `{tag}` are therefore neighbours.
//! - In the user key `00` becomes `00 FF`; `00 01` ends it. Since no escaped key contains
//!   `00 01`, no record key is a prefix of another key's record, and order is kept.
//! - Nothing after the terminator is the key's own record, its metadata. What a collection
//!   consists of follows with non-empty sub-keys, so that metadata and elements of one
//!   user key are neighbours: all its records lie in `[prefix, after_user_key(prefix))`.
//!
//! Sub-keys of collections:
//!
//! ```text
//! version, 8 bytes big-endian | 10 | hash, 6 bytes | member or field
//!                             | 20 | position, 8 bytes | fraction
//!                             | 30 | score, 8 bytes | member
//!                             | 40 + level | nothing, or score, 8 bytes | member
//! ```
//!
//! - The version is that of the collection's metadata. Elements of any other version are
//!   garbage: what a deleted or replaced collection left behind, for [`sweep`](super::sweep).
//! - `10`: hash fields, set members, and members of sorted sets, in the order of
//!   [`member_hash`]: a place in it is a cursor of `HSCAN` and its kin that no change to
//!   other elements moves, and a random place is near a random element.
//! - `20`: list elements; see [`position`](super::position).
//! - `30`: members of sorted sets in their order: the score's bits, made to compare as
//!   numbers do ([`score_bytes`]), then the member.
//! - `41` and above: how many members lie between two of them; see [`rank`](super::rank).
//! - A sub-key of a version stays between those of its neighbours, so that a collection can be
//!   cut within itself should a range ever have to.
//!
//! Invariants: `decode(record_key(db, k)) == (slot(k), db, k)`; within a slot and database
//! record keys order as user keys do.

use bytes::Bytes;
use std::borrow::Cow;

/// First byte of every Redis record.
pub const TAG: u8 = 0x20;
/// Hash slots of Redis Cluster: 0 to 16383.
pub const SLOTS: u16 = 16384;
/// Databases that `SELECT` offers: 0 to 15.
pub const DATABASES: u8 = 16;

const HEADER: usize = 4;
const TERMINATOR: [u8; 2] = [0x00, 0x01];
/// What stands in place of the terminator's last byte in the first key after a user key's.
const AFTER_TERMINATOR: u8 = 0x02;

const CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// The part of a user key that decides its slot: what stands between the first `{` and the
/// next `}`, or the whole key if there is no such pair or nothing between (Redis Cluster
/// specification, "Hash tags").
pub fn hash_tag(user_key: &[u8]) -> &[u8] {
    let Some(open) = user_key.iter().position(|&b| b == b'{') else {
        return user_key;
    };
    let inside = &user_key[open + 1..];
    match inside.iter().position(|&b| b == b'}') {
        Some(length) if length > 0 => &inside[..length],
        _ => user_key,
    }
}

/// The hash slot of a user key, below [`SLOTS`].
pub fn slot(user_key: &[u8]) -> u16 {
    crc16(hash_tag(user_key)) % SLOTS
}

/// The key of a user key's own record, in one allocation of exactly its size. It is also the
/// prefix of the records of its elements.
pub fn record_key(db: u8, user_key: &[u8]) -> Bytes {
    debug_assert!(db < DATABASES, "database {db} of {DATABASES}");
    let zeros = user_key.iter().filter(|&&b| b == 0).count();
    let mut key = Vec::with_capacity(HEADER + user_key.len() + zeros + TERMINATOR.len());
    key.push(TAG);
    key.extend_from_slice(&slot(user_key).to_be_bytes());
    key.push(db);
    if zeros == 0 {
        key.extend_from_slice(user_key);
    } else {
        for &byte in user_key {
            key.push(byte);
            if byte == 0 {
                key.push(0xFF);
            }
        }
    }
    key.extend_from_slice(&TERMINATOR);
    key.into()
}

/// The first possible key of a slot, where ranges are cut. `slot` is at most [`SLOTS`], whose
/// start is the exclusive end of all Redis records.
pub fn slot_start(slot: u16) -> Bytes {
    debug_assert!(slot <= SLOTS, "slot {slot} of {SLOTS}");
    let [high, low] = slot.to_be_bytes();
    Bytes::copy_from_slice(&[TAG, high, low])
}

/// The first possible key of a database within a slot; for `db` = [`DATABASES`], a key after
/// all of the slot's records.
pub fn database_start(slot: u16, db: u8) -> Bytes {
    let [high, low] = slot.to_be_bytes();
    Bytes::copy_from_slice(&[TAG, high, low, db])
}

/// The slot and database that a record key names, without looking at its user key. `None` if
/// it is not a Redis record or too short to say.
pub fn slot_and_database(key: &[u8]) -> Option<(u16, u8)> {
    match key {
        [TAG, high, low, db, ..] => {
            let slot = u16::from_be_bytes([*high, *low]);
            (slot < SLOTS && *db < DATABASES).then_some((slot, *db))
        }
        _ => None,
    }
}

/// The slot in which `key` lies or, for a key outside the Redis keyspace, 0 before it and
/// [`SLOTS`] after it. Unlike [`slot_and_database`] this also holds for bounds of ranges,
/// which may be shorter than a record key.
pub fn slot_at(key: &[u8]) -> u16 {
    match key {
        [] => 0,
        [first, ..] if *first < TAG => 0,
        [first, ..] if *first > TAG => SLOTS,
        [_, high, low, ..] => u16::from_be_bytes([*high, *low]).min(SLOTS),
        [_, high] => u16::from_be_bytes([*high, 0]).min(SLOTS),
        [_] => 0,
    }
}

/// The part of a record key that all records of its user key share: up to and including the
/// terminator. `None` if `key` is not a Redis record.
pub fn user_key_prefix(key: &[u8]) -> Option<&[u8]> {
    slot_and_database(key)?;
    let mut at = HEADER;
    loop {
        at += key[at..].iter().position(|&b| b == 0)?;
        match key.get(at + 1)? {
            0xFF => at += 2,
            0x01 => return Some(&key[..at + 2]),
            _ => return None,
        }
    }
}

/// Whether `key` is a user key's own record, rather than an element's or no record at all.
pub fn is_metadata(key: &[u8]) -> bool {
    user_key_prefix(key).is_some_and(|prefix| prefix.len() == key.len())
}

/// Slot, database and user key of a record, be it metadata or an element. `None` if `key` is
/// not a Redis record. The user key is borrowed unless it contains zero bytes.
pub fn decode(key: &[u8]) -> Option<(u16, u8, Cow<'_, [u8]>)> {
    let (slot, db) = slot_and_database(key)?;
    let prefix = user_key_prefix(key)?;
    let escaped = &prefix[HEADER..prefix.len() - TERMINATOR.len()];
    if !escaped.contains(&0) {
        return Some((slot, db, Cow::Borrowed(escaped)));
    }
    let mut user_key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        user_key.push(byte);
        if byte == 0 {
            bytes.next();
        }
    }
    Some((slot, db, Cow::Owned(user_key)))
}

/// The first possible key after all records of the user key whose prefix (see
/// [`user_key_prefix`]) is given: where a scan goes on that skips the elements.
pub fn after_user_key(prefix: &[u8]) -> Bytes {
    debug_assert!(prefix.ends_with(&TERMINATOR), "not a prefix: {prefix:02x?}");
    let mut key = prefix.to_vec();
    if let Some(last) = key.last_mut() {
        *last = AFTER_TERMINATOR;
    }
    key.into()
}

/// As [`after_user_key`], for any record of the user key. `None` if it is not a Redis record.
pub fn next_user_key_prefix(record: &[u8]) -> Option<Bytes> {
    user_key_prefix(record).map(after_user_key)
}

/// Length of the version that every sub-key begins with.
pub const VERSION_BYTES: usize = 8;
/// Sub-keys of members and fields.
pub const MEMBERS: u8 = 0x10;
/// Sub-keys of list elements.
pub const POSITIONS: u8 = 0x20;
/// Sub-keys of members in the order of their scores.
pub const SCORES: u8 = 0x30;
/// Plus the level, 1 to [`LEVELS`]: sub-keys of counts.
pub const COUNTS: u8 = 0x40;
/// Levels of counts that a sorted set has at most.
pub const LEVELS: u8 = 10;
/// Bits of [`member_hash`].
pub const HASH_BITS: u32 = 48;

/// Where a member stands among the elements of its collection: 0 to 2^48 - 1. FNV-1a, then
/// MurmurHash3's finalizer; part of the format.
pub fn member_hash(member: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in member {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash) >> (64 - HASH_BITS)
}

/// MurmurHash3's finalizer: every bit of the result depends on every bit of `hash`.
pub fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Eight bytes that order as scores do; the two zeros are one.
pub fn score_bytes(score: f64) -> [u8; 8] {
    debug_assert!(!score.is_nan(), "NaN has no place among scores");
    let bits = (score + 0.0).to_bits();
    let sign = 1 << 63;
    let ordered = if bits & sign == 0 { bits | sign } else { !bits };
    ordered.to_be_bytes()
}

/// The score whose [`score_bytes`] these are.
pub fn score_of(bytes: [u8; 8]) -> f64 {
    let ordered = u64::from_be_bytes(bytes);
    let sign = 1 << 63;
    f64::from_bits(if ordered & sign == 0 {
        !ordered
    } else {
        ordered & !sign
    })
}

/// The start of the sub-keys of one version: the record key, and the version.
pub fn version_prefix(record: &[u8], version: u64) -> Vec<u8> {
    [record, &version.to_be_bytes()].concat()
}

/// The version of an element's record, if the key is one's.
pub fn element_version(key: &[u8]) -> Option<u64> {
    let prefix = user_key_prefix(key)?;
    let version = key[prefix.len()..].first_chunk::<VERSION_BYTES>()?;
    Some(u64::from_be_bytes(*version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        for (key, expected) in [
            ("mykey", 14687),
            ("foo", 12182),
            ("{user:1000}:name", 1649),
            ("123456789", 12739),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key:?}");
        }
    }

    #[test]
    fn hash_tags_are_the_first_pair_of_braces() {
        for (key, expected) in [
            ("{a}b", "a"),
            ("x{a}{b}", "a"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar", "foo{bar"),
            ("}{a}", "a"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), expected.as_bytes(), "{key:?}");
        }
    }

    #[test]
    fn layout_is_as_documented() {
        assert_eq!(
            &record_key(3, b"f\0o")[..],
            [
                &[TAG][..],
                &slot(b"f\0o").to_be_bytes(),
                &[3, b'f', 0, 0xFF, b'o', 0, 1]
            ]
            .concat()
        );
        assert_eq!(&slot_start(SLOTS)[..], [0x20, 0x40, 0x00]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for key in [
            &b""[..],
            b"\x20",
            b"\x20\0\0\0",
            b"\x20\0\0\0abc",
            b"\x20\0\0\0abc\0",
            b"\x20\0\0\0abc\0\x02",
            b"\x20\0\0\x10abc\0\x01",
            b"\x20\x40\0\0abc\0\x01",
            b"\x21\0\0\0abc\0\x01",
        ] {
            assert_eq!(decode(key), None, "{key:02x?}");
        }
    }

    #[test]
    fn bounds_have_a_slot_too() {
        for (key, expected) in [
            (&b""[..], 0),
            (b"\x10", 0),
            (b"\x20", 0),
            (b"\x20\x01", 256),
            (b"\x20\x00\x07", 7),
            (b"\x20\x40\x00", SLOTS),
            (b"\x30", SLOTS),
        ] {
            assert_eq!(slot_at(key), expected, "{key:02x?}");
        }
    }

    fn user_key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(0u8),
            Just(1),
            Just(2),
            Just(0xFF),
            Just(b'a'),
            any::<u8>()
        ];
        proptest::collection::vec(byte, 0..12)
    }

    proptest! {
        #[test]
        fn keys_round_trip(db in 0..DATABASES, key in user_key(), sub in user_key()) {
            let record = record_key(db, &key);
            let (found_slot, found_db, found) = decode(&record).unwrap();
            prop_assert_eq!((found_slot, found_db, &found[..]), (slot(&key), db, &key[..]));
            prop_assert!(is_metadata(&record));
            let element = [&record[..], &sub].concat();
            prop_assert_eq!(user_key_prefix(&element), Some(&record[..]));
            prop_assert_eq!(is_metadata(&element), sub.is_empty());
            prop_assert!(element[..] < after_user_key(&record)[..]);
            prop_assert_eq!(next_user_key_prefix(&element), Some(after_user_key(&record)));
            prop_assert!(slot_start(found_slot) < record);
            prop_assert!(record < slot_start(found_slot + 1));
            prop_assert!(database_start(found_slot, db) < record);
            prop_assert!(record < database_start(found_slot, db + 1));
            prop_assert_eq!(slot_at(&record), found_slot);
        }

        #[test]
        fn records_order_as_slot_database_and_user_key(
            a in (0..DATABASES, user_key()), b in (0..DATABASES, user_key()), sub in user_key()
        ) {
            let order = (slot(&a.1), a.0, &a.1).cmp(&(slot(&b.1), b.0, &b.1));
            prop_assert_eq!(record_key(a.0, &a.1).cmp(&record_key(b.0, &b.1)), order);
            if order.is_lt() {
                let element = [&record_key(a.0, &a.1)[..], &sub].concat();
                prop_assert!(element[..] < record_key(b.0, &b.1)[..]);
                prop_assert!(after_user_key(&record_key(a.0, &a.1)) <= record_key(b.0, &b.1));
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Some((_, db, key)) = decode(&[&[TAG, 0, 1, 2][..], &bytes].concat()) {
                prop_assert_eq!(db, 2);
                prop_assert!(key.len() <= bytes.len());
            }
        }

        #[test]
        fn scores_order_as_numbers_and_round_trip(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(score_bytes(a).partial_cmp(&score_bytes(b)), a.partial_cmp(&b));
            prop_assert_eq!(score_of(score_bytes(a)), a);
            prop_assert_eq!(score_bytes(-0.0), score_bytes(0.0));
        }

        #[test]
        fn elements_of_a_version_are_neighbours(key in user_key(), a: u64, b: u64, sub in user_key()) {
            let record = record_key(0, &key);
            let element = [&version_prefix(&record, a)[..], &sub].concat();
            prop_assert_eq!(element_version(&element), Some(a));
            prop_assert_eq!(element_version(&record), None);
            if a < b {
                prop_assert!(element < version_prefix(&record, b));
            }
        }
    }
}
