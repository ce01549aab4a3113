//! The first thing on each link between stores, and in the metadata of each of their gRPC
//! streams: who calls, and whom. So a link of the wrong cluster, or to a store that has moved,
//! ends before its first frame.

use super::identity::Identity;
use rangekv_proto::StoreId;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::Status;

const CLUSTER: &str = "rangekv-cluster";
const FROM: &str = "rangekv-store";
const INCARNATION: &str = "rangekv-incarnation";
const TO: &str = "rangekv-to";
const TO_INCARNATION: &str = "rangekv-to-incarnation";

/// Who calls, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Both stores' cluster.
    pub cluster: u64,
    /// The caller.
    pub from: StoreId,
    /// The caller's incarnation.
    pub incarnation: u64,
    /// Whom it means to call.
    pub to: StoreId,
    /// The incarnation that is registered for it; 0 = none is known.
    pub to_incarnation: u64,
}

impl Greeting {
    /// From this store to another.
    pub fn new(me: &Identity, to: StoreId, to_incarnation: u64) -> Self {
        Greeting {
            cluster: me.cluster,
            from: me.store_id(),
            incarnation: me.incarnation,
            to,
            to_incarnation,
        }
    }

    /// Bytes of a greeting on a link.
    pub const BYTES: usize = 5 * 8;

    /// As it stands on a link: the fields in their order, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = [
            self.cluster,
            self.from.0,
            self.incarnation,
            self.to.0,
            self.to_incarnation,
        ];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut fields = bytes
            .chunks_exact(8)
            .map(|field| u64::from_le_bytes(field.try_into().expect("eight bytes")));
        let mut next = || fields.next().expect("five fields");
        Greeting {
            cluster: next(),
            from: StoreId(next()),
            incarnation: next(),
            to: StoreId(next()),
            to_incarnation: next(),
        }
    }

    /// Writes it into a request's metadata.
    pub fn put(&self, metadata: &mut MetadataMap) {
        for (name, value) in [
            (CLUSTER, self.cluster),
            (FROM, self.from.0),
            (INCARNATION, self.incarnation),
            (TO, self.to.0),
            (TO_INCARNATION, self.to_incarnation),
        ] {
            metadata.insert(name, MetadataValue::from(value));
        }
    }

    /// Reads a caller's greeting.
    pub fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        let number = |name: &str| {
            let text = metadata.get(name).and_then(|v| v.to_str().ok());
            text.and_then(|v| v.parse().ok()).ok_or_else(|| {
                Status::invalid_argument(format!("a stream between stores begins with {name}"))
            })
        };
        Ok(Greeting {
            cluster: number(CLUSTER)?,
            from: StoreId(number(FROM)?),
            incarnation: number(INCARNATION)?,
            to: StoreId(number(TO)?),
            to_incarnation: number(TO_INCARNATION)?,
        })
    }

    /// Refuses who is not meant for `me`.
    pub fn check(&self, me: &Identity) -> Result<(), Status> {
        let greeting = self;
        if greeting.cluster != me.cluster {
            return Err(Status::failed_precondition(format!(
                "store {} ({}) belongs to cluster {:016x}, not to {:016x}",
                me.store, me.name, me.cluster, greeting.cluster
            )));
        }
        if greeting.to != me.store_id() {
            return Err(Status::failed_precondition(format!(
                "this is store {} ({}), not store {}",
                me.store, me.name, greeting.to
            )));
        }
        if greeting.to_incarnation != 0 && greeting.to_incarnation != me.incarnation {
            return Err(Status::failed_precondition(wiped(&me.name, greeting.to)));
        }
        Ok(())
    }
}

/// What to say when a store's place is claimed by another data directory than the one it had.
pub fn wiped(name: &str, store: StoreId) -> String {
    format!(
        "store {store} is registered with another data directory than the one of {name:?}: it was \
         wiped, or --data-dir names the wrong one. Its votes are lost with the old directory, so it \
         can't have its place back: remove it (`rangekv ctl store remove {store}` on another store), \
         then start {name} with --join to add it as a new store"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_foreign_clusters_wrong_stores_and_silence() {
        let me = Identity {
            cluster: 7,
            store: 2,
            name: "n2".into(),
            incarnation: 5,
            placement: false,
        };
        let caller = Identity {
            cluster: 7,
            store: 1,
            name: "n1".into(),
            incarnation: 4,
            placement: false,
        };
        let check = |greeting: Greeting| {
            let mut metadata = MetadataMap::new();
            greeting.put(&mut metadata);
            assert_eq!(Greeting::read(&metadata).unwrap(), greeting);
            assert_eq!(Greeting::from_bytes(&greeting.to_bytes()), greeting);
            greeting.check(&me).map_err(|e| e.message().to_string())
        };
        let greeting = Greeting::new(&caller, StoreId(2), 5);
        check(greeting).unwrap();
        check(Greeting {
            to_incarnation: 0,
            ..greeting
        })
        .unwrap();
        let foreign = check(Greeting {
            cluster: 8,
            ..greeting
        })
        .unwrap_err();
        assert!(
            foreign.contains("belongs to cluster 0000000000000007"),
            "{foreign}"
        );
        let astray = check(Greeting {
            to: StoreId(3),
            ..greeting
        })
        .unwrap_err();
        assert_eq!(astray, "this is store 2 (n2), not store 3");
        let wiped = check(Greeting {
            to_incarnation: 4,
            ..greeting
        })
        .unwrap_err();
        assert!(wiped.contains("ctl store remove 2"), "{wiped}");
        assert!(Greeting::read(&MetadataMap::new()).is_err());
    }
}
