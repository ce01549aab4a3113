//! The layout of DynamoDB items in the keyspace, byte by byte.
//!
//! ```text
//! 0x40 | table id, 4 bytes | hash of the partition key, 2 bytes | partition key | sort key
//! ```
//!
//! All integers are big-endian. The hash spreads a table over its ranges; items of one partition
//! lie together, in the order of their sort keys. A key attribute is encoded so that the byte
//! order is DynamoDB's order, and so that no encoding is a prefix of another: strings (UTF-8) and
//! binaries with 0x00 escaped as 00 FF and 00 01 at the end, numbers as
//! [`Number::encode_ordered`](super::number::Number::encode_ordered) has it. The table's schema
//! tells which type a key attribute has, so that no type is stored.
//!
//! Beside an item lie the records of transactions whose first item it is (`token.rs`):
//!
//! ```text
//! key of the item | 0x00 0x02 | digest of the transaction's token, 16 bytes
//! ```
//!
//! Since no item's key is a prefix of another's, nothing comes between an item and these records.
//! No split does either: a cut that is wanted among them is made before the item.
//!
//! Secondary indexes, when they come, are further table ids.

use super::number::Number;
use super::schema::{KeySchema, KeyType};
use super::value::Value;
use bytes::Bytes;
use std::ops::Range;

/// First byte of every key of this model.
pub const TAG: u8 = 0x40;

/// Bytes before the partition key: tag, table, hash.
pub const PREFIX: usize = 7;

/// First key behind this model's.
pub const END: [u8; 1] = [TAG + 1];

/// Stands between an item's key and the digest of a token.
const TOKEN: [u8; 2] = [0x00, 0x02];

/// Bytes that a token's key has more than its item's.
const TOKEN_BYTES: usize = TOKEN.len() + 16;

/// First key of a table.
pub fn table_start(table: u32) -> Bytes {
    let mut key = vec![TAG];
    key.extend(table.to_be_bytes());
    key.into()
}

/// First key behind a table.
pub fn table_end(table: u32) -> Bytes {
    match table.checked_add(1) {
        Some(next) => table_start(next),
        None => Bytes::from_static(&END),
    }
}

/// First key of a table whose hash is `hash` or more; of the next table for 0x1_0000.
pub fn hash_start(table: u32, hash: u32) -> Bytes {
    match u16::try_from(hash) {
        Err(_) => table_end(table),
        Ok(hash) => {
            let mut key = table_start(table).to_vec();
            key.extend(hash.to_be_bytes());
            key.into()
        }
    }
}

/// The keys of segment `segment` of `total` of a table.
pub fn segment(table: u32, segment: u32, total: u32) -> Range<Bytes> {
    let cut = |n: u32| (u64::from(n) * 0x1_0000 / u64::from(total)) as u32;
    hash_start(table, cut(segment))..hash_start(table, cut(segment + 1))
}

/// The table of a key; `None` if it is no key of this model.
pub fn table_of(key: &[u8]) -> Option<u32> {
    let id = key.strip_prefix(&[TAG])?.get(..4)?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

/// The key under which all items of a partition lie: those that begin with it.
pub fn partition(table: u32, partition_key: &Value) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode(partition_key, &mut encoded);
    let mut key = table_start(table).to_vec();
    key.extend(hash(&encoded).to_be_bytes());
    key.extend(encoded);
    key
}

/// The key of an item.
pub fn item(table: u32, partition_key: &Value, sort_key: Option<&Value>) -> Bytes {
    let mut key = partition(table, partition_key);
    if let Some(sort_key) = sort_key {
        encode(sort_key, &mut key);
    }
    key.into()
}

/// The key of what is known of a transaction with this token, whose first item has the key `item`.
pub fn token(item: &[u8], token: &str) -> Bytes {
    let digest = digest(token.as_bytes()).to_be_bytes();
    [item, &TOKEN, &digest].concat().into()
}

/// The item beside which `key` lies, if it looks like the key of a token. An item's key may by
/// chance; what is answered then lies in front of that item, and is no key of another.
pub fn beside(key: &[u8]) -> Option<&[u8]> {
    let at = key.len().checked_sub(TOKEN_BYTES)?;
    let (item, rest) = key.split_at(at);
    (key.first() == Some(&TAG) && at > PREFIX && rest.starts_with(&TOKEN)).then_some(item)
}

/// The records of tokens beside an item.
pub fn tokens(item: &[u8]) -> Range<Bytes> {
    let start = [item, &TOKEN].concat();
    let end = after_prefix(&start);
    start.into()..end
}

/// Key attributes of a stored key: partition key and, if the table has one, sort key.
pub fn decode(schema: &KeySchema, key: &[u8]) -> Option<(Value, Option<Value>)> {
    let mut rest = key.get(PREFIX..)?;
    let partition_key = decode_value(schema.partition.kind, &mut rest)?;
    let sort_key = match &schema.sort {
        Some(sort) => Some(decode_value(sort.kind, &mut rest)?),
        None => None,
    };
    rest.is_empty().then_some((partition_key, sort_key))
}

/// The first key behind all that begin with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            break;
        }
        end.pop();
    }
    end.into()
}

/// Appends a key attribute. Others than strings, numbers and binaries never get here.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::S(s) => escape(s.as_bytes(), out),
        Value::B(b) => escape(b, out),
        Value::N(n) => n.encode_ordered(out),
        other => panic!("a key attribute of type {}", other.type_name()),
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    escape_open(bytes, out);
    out.extend([0x00, 0x01]);
}

/// As a string or binary that may go on: all that begin with `bytes` begin with this.
pub fn escape_open(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
}

fn decode_value(kind: KeyType, rest: &mut &[u8]) -> Option<Value> {
    if kind == KeyType::N {
        let (number, length) = Number::decode_ordered(rest)?;
        *rest = &rest[length..];
        return Some(Value::N(number));
    }
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match (rest.get(at)?, rest.get(at + 1)) {
            (0, Some(0x01)) => break,
            (0, Some(0xff)) => {
                bytes.push(0);
                at += 2;
            }
            (0, _) => return None,
            (byte, _) => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    *rest = &rest[at + 2..];
    Some(match kind {
        KeyType::S => Value::S(String::from_utf8(bytes).ok()?),
        _ => Value::B(bytes.into()),
    })
}

/// FNV-1a, 64 bits, folded. Fixed for ever: stored keys contain it.
fn hash(bytes: &[u8]) -> u16 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as u16
}

/// FNV-1a, 128 bits. Fixed for ever: stored keys contain it.
pub(super) fn digest(bytes: &[u8]) -> u128 {
    let offset = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    bytes.iter().fold(offset, |digest, byte| {
        (digest ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::codec::tests::decimals;
    use crate::dynamo::schema::KeyAttribute;
    use proptest::prelude::*;

    fn keys_of(kind: KeyType) -> BoxedStrategy<Value> {
        match kind {
            KeyType::S => "[\\x00\\x01a-b\u{ff}]{0,5}".prop_map(Value::S).boxed(),
            KeyType::N => decimals().prop_map(Value::N).boxed(),
            KeyType::B => prop::collection::vec(
                prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()],
                0..5,
            )
            .prop_map(|b| Value::B(b.into()))
            .boxed(),
        }
    }

    fn pairs() -> impl Strategy<Value = (KeyType, Value, Value)> {
        prop_oneof![Just(KeyType::S), Just(KeyType::N), Just(KeyType::B)]
            .prop_flat_map(|kind| (Just(kind), keys_of(kind), keys_of(kind)))
    }

    #[test]
    fn hashes_are_what_they_were() {
        assert_eq!(hash(b""), hash(&[]));
        let key = item(
            7,
            &Value::S("a\0b".into()),
            Some(&Value::N(Number::parse("-1").unwrap())),
        );
        let body = &key[PREFIX..];
        assert_eq!(&key[..5], [0x40, 0, 0, 0, 7]);
        assert_eq!(body, [b'a', 0, 0xff, b'b', 0, 1, 0, 0xbf, 0xff, 0xf4, 0xff]);
    }

    #[test]
    fn hashes_spread() {
        let mut buckets = [0; 16];
        for i in 0..16_000 {
            let key = partition(1, &Value::S(format!("user-{i}")));
            buckets[usize::from(key[5] >> 4)] += 1;
        }
        assert!(
            buckets.iter().all(|n| (850..1150).contains(n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn segments_cover_a_table() {
        for total in [1, 2, 3, 7, 1000] {
            let mut end = hash_start(5, 0);
            for i in 0..total {
                let segment = segment(5, i, total);
                assert_eq!(segment.start, end);
                end = segment.end;
            }
            assert_eq!(end, table_end(5));
        }
    }

    #[test]
    fn digests_are_what_they_were() {
        // The test vectors of FNV's authors.
        assert_eq!(digest(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(digest(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
        assert_eq!(digest(b"foobar"), 0x343e1662793c64bf6f0d3597ba446f18);
    }

    proptest! {
        #[test]
        fn tokens_lie_beside_their_item((kind, a, b) in pairs(), text in "[a-z0-9-]{1,36}") {
            let (x, y) = (item(1, &a, None), item(1, &b, None));
            let schema = KeySchema { partition: KeyAttribute { name: "k".into(), kind }, sort: None };
            let key = token(&x, &text);
            prop_assert_eq!(beside(&key), Some(&x[..]));
            prop_assert_eq!(decode(&schema, &key), None);
            prop_assert!(tokens(&x).contains(&key) && tokens(&x).start > x);
            if x < y {
                prop_assert!(tokens(&x).end <= y);
            }
        }

        #[test]
        fn keys_have_the_order_of_values((kind, a, b) in pairs(), (sort_kind, c, d) in pairs()) {
            let attribute = |kind| KeyAttribute { name: "k".into(), kind };
            let schema = KeySchema { partition: attribute(kind), sort: Some(attribute(sort_kind)) };
            let (x, y) = (item(1, &a, Some(&c)), item(1, &a, Some(&d)));
            prop_assert_eq!(Some(x.cmp(&y)), c.compare(&d));
            prop_assert!(x.starts_with(&partition(1, &a)));
            prop_assert_eq!(item(1, &b, Some(&c)).starts_with(&partition(1, &a)), a == b);
            prop_assert_eq!(decode(&schema, &x), Some((a, Some(c))));
        }

        #[test]
        fn no_key_panics(key in prop::collection::vec(any::<u8>(), 0..24), (kind, _, _) in pairs()) {
            let schema = KeySchema { partition: KeyAttribute { name: "k".into(), kind }, sort: None };
            let _ = decode(&schema, &key);
        }
    }
}
