//! Where the placement state lies in the keyspace: range 1, `["", 0x10)`.
//!
//! ```text
//! 01 01                   cluster id, u64 big-endian
//! 01 02                   next id to hand out, u64 big-endian
//! 01 03                   catalog version, u64 big-endian
//! 01 04                   internal::DataFounding, protobuf; see data_founding.rs
//! 01 10 <store, u64 BE>   internal::StoreRecord, protobuf
//! 01 20 <name, UTF-8>     configuration value, UTF-8, in canonical form (see config.rs)
//! 01 30 <name, UTF-8>     internal::TableRecord, protobuf
//! ```
//!
//! An absent counter has its initial value: cluster 0 (not named yet), next id
//! [`FIRST_ALLOCATED_ID`](crate::bootstrap::FIRST_ALLOCATED_ID), catalog version 1.
//! Stores sort by id, configuration and tables by name. `00`, `02`…`0f`, and the unused second bytes
//! are left for later parts of the placement state.

use bytes::{BufMut, Bytes, BytesMut};
use rangekv_proto::StoreId;

/// Exclusive end of range 1, and the first key of user data.
pub const PLACEMENT_END: &[u8] = &[0x10];

/// Cluster id.
pub const CLUSTER: &[u8] = &[0x01, 0x01];
/// Next id to hand out.
pub const NEXT_ID: &[u8] = &[0x01, 0x02];
/// Catalog version.
pub const CATALOG_VERSION: &[u8] = &[0x01, 0x03];
/// Who lays out the data ranges.
pub const DATA_FOUNDING: &[u8] = &[0x01, 0x04];
/// First key of the store records.
pub const STORES: &[u8] = &[0x01, 0x10];
/// Exclusive end of the store records.
pub const STORES_END: &[u8] = &[0x01, 0x11];
/// First key of the configuration.
pub const CONFIG: &[u8] = &[0x01, 0x20];
/// Exclusive end of the configuration.
pub const CONFIG_END: &[u8] = &[0x01, 0x21];

/// First key of the table records.
pub const TABLES: &[u8] = &[0x01, 0x30];
/// Exclusive end of the table records.
pub const TABLES_END: &[u8] = &[0x01, 0x31];

/// The record of one store.
pub fn store(id: StoreId) -> Bytes {
    let mut key = BytesMut::with_capacity(STORES.len() + 8);
    key.put_slice(STORES);
    key.put_u64(id.0);
    key.freeze()
}

/// The reverse of [`store`].
pub fn decode_store(key: &[u8]) -> Option<StoreId> {
    let id = key.strip_prefix(STORES)?;
    Some(StoreId(u64::from_be_bytes(id.try_into().ok()?)))
}

/// The value of one configuration name.
pub fn config(name: &str) -> Bytes {
    [CONFIG, name.as_bytes()].concat().into()
}

/// The reverse of [`config`].
pub fn decode_config(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(CONFIG)?).ok()
}

/// The record of one table.
pub fn table(name: &str) -> Bytes {
    [TABLES, name.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stores_round_trip_in_order(a: u64, b: u64) {
            let (ka, kb) = (store(StoreId(a)), store(StoreId(b)));
            prop_assert_eq!(decode_store(&ka), Some(StoreId(a)));
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
            prop_assert!(&ka[..] >= STORES && &ka[..] < STORES_END && &ka[..] < PLACEMENT_END);
        }

        #[test]
        fn config_round_trips_in_order(a in ".*", b in ".*") {
            let (ka, kb) = (config(&a), config(&b));
            prop_assert_eq!(decode_config(&ka), Some(&a[..]));
            prop_assert_eq!(ka.cmp(&kb), a.as_bytes().cmp(b.as_bytes()));
            prop_assert!(&ka[..] >= CONFIG && &ka[..] < CONFIG_END && &ka[..] < PLACEMENT_END);
        }

        #[test]
        fn decoding_never_panics(key in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = (decode_store(&key), decode_config(&key));
        }
    }
}
