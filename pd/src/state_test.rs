//! The placement state against a plain reference, and its refusals word for word.

use super::*;
use command::{AllocateIds, BumpCatalog, ReadState, RegisterStore, SetConfig, SetStoreState};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Range 1 in memory.
#[derive(Default, Clone)]
struct Range1(BTreeMap<Bytes, Bytes>);

impl View for Range1 {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        let inside = |k: &[u8]| k >= start && (end.is_empty() || k < end);
        let _ = self
            .0
            .iter()
            .filter(|(k, _)| inside(k))
            .try_for_each(|(k, v)| visit(k, v));
    }

    fn scan_reverse(&self, _: &[u8], _: &[u8], _: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        unreachable!("the placement state is read forwards");
    }
}

const RANGE_1: Context<'_> = Context {
    now_ms: 0,
    seed: 0,
    start: b"",
    end: keys::PLACEMENT_END,
};

impl Range1 {
    fn run_bytes(&mut self, command: Bytes) -> PlacementReply {
        let before = self.clone();
        let mut txn = Txn::new(&before);
        let reply = PlacementModel.evaluate(&RANGE_1, &command, &mut txn);
        let reply = PlacementReply::decode(reply).unwrap();
        let writes = txn.into_writes();
        assert!(
            reply.error.is_empty() || writes.is_empty(),
            "refused, yet wrote: {reply:?}"
        );
        for (key, value) in writes {
            assert!(&key[..] < keys::PLACEMENT_END, "wrote {key:?}");
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        reply
    }

    fn run(&mut self, kind: Kind) -> PlacementReply {
        self.run_bytes(encode(kind))
    }

    fn register(&mut self, record: StoreRecord) -> PlacementReply {
        self.run(Kind::RegisterStore(RegisterStore {
            record: Some(record),
            ..RegisterStore::default()
        }))
    }
}

fn store(id: u64, name: &str, incarnation: u64, address: &str) -> StoreRecord {
    StoreRecord {
        store: id,
        name: name.into(),
        incarnation,
        grpc_address: address.into(),
        ..Default::default()
    }
}

fn set_state(store: u64, state: StoreState) -> Kind {
    Kind::SetStoreState(SetStoreState {
        store,
        state: state as u32,
    })
}

fn set_config(name: &str, value: &str) -> Kind {
    Kind::SetConfig(SetConfig {
        name: name.into(),
        value: value.into(),
    })
}

#[test]
fn a_restart_with_the_same_addresses_writes_nothing() {
    let mut range = Range1::default();
    assert_eq!(range.register(store(5, "n5", 7, "a:1")).first_id, 5);
    let again = RegisterStore {
        record: Some(store(5, "n5", 7, "a:1")),
        ..RegisterStore::default()
    };
    let mut txn = Txn::new(&range);
    let reply = PlacementModel.evaluate(&RANGE_1, &encode(Kind::RegisterStore(again)), &mut txn);
    assert_eq!(PlacementReply::decode(reply).unwrap().first_id, 5);
    assert!(txn.is_read_only());
    let moved = range.register(store(5, "n5", 7, "b:1"));
    assert_eq!(moved.state.unwrap().stores[0].grpc_address, "b:1");
}

#[test]
fn a_wiped_store_returns_only_as_a_new_one() {
    let mut range = Range1::default();
    range.register(store(5, "n5", 7, "a:1"));
    let wiped = "store n5 (id 5) is registered with another data directory; \
                 remove it with `rangekv ctl store remove n5` and join again";
    assert_eq!(range.register(store(5, "n5", 8, "a:1")).error, wiped);
    assert_eq!(range.register(store(0, "n5", 8, "c:1")).error, wiped);
    assert_eq!(
        range.register(store(0, "other", 8, "a:1")).error,
        "address a:1 is held by store n5 (id 5); give this store another --address, or, if that \
         store is gone, remove it with `rangekv ctl store remove n5` and join again"
    );
    assert_eq!(range.run(set_state(5, StoreState::Removed)).error, "");
    assert_eq!(
        range.register(store(5, "n5", 7, "a:1")).error,
        "store n5 (id 5) was removed from the cluster and can't return; \
         start it with an empty data directory to join as a new store"
    );
    assert!(range
        .run(set_state(5, StoreState::Up))
        .error
        .contains("can't return"));
    assert_eq!(range.run(set_state(5, StoreState::Removed)).error, "");

    // The lost answer to a join is asked for again.
    for _ in 0..2 {
        assert_eq!(
            range.register(store(0, "n5", 8, "a:1")).first_id,
            FIRST_ALLOCATED_ID
        );
    }
    let state = range.run(Kind::ReadState(ReadState {})).state.unwrap();
    assert_eq!(state.stores.len(), 2);
    assert_eq!(store_named(&state, "n5").unwrap().store, FIRST_ALLOCATED_ID);
    assert_eq!(state.next_id, FIRST_ALLOCATED_ID + 1);
}

#[test]
fn draining_survives_a_restart_of_the_store() {
    let mut range = Range1::default();
    range.register(store(1, "n1", 7, "a:1"));
    range.run(set_state(1, StoreState::Draining));
    let state = range.register(store(1, "n1", 7, "b:1")).state.unwrap();
    assert_eq!(StoreState::of(&state.stores[0]), StoreState::Draining);
    range.run(set_state(1, StoreState::Up));
    let state = read_state(&range).unwrap();
    assert_eq!(StoreState::of(&state.stores[0]), StoreState::Up);
}

#[test]
fn the_first_registration_names_the_cluster() {
    let mut range = Range1::default();
    let mut register = |id, cluster| {
        let record = Some(store(id, &format!("n{id}"), 7, &format!("a:{id}")));
        range.run(Kind::RegisterStore(RegisterStore {
            record,
            cluster,
            data_ranges: 0,
        }))
    };
    assert_eq!(register(1, 0).state.unwrap().cluster, 0);
    assert_eq!(register(2, 0xabc).state.unwrap().cluster, 0xabc);
    assert_eq!(
        register(3, 0xdef).error,
        "store n3 belongs to cluster 0000000000000def, this is cluster 0000000000000abc; \
         start it with an empty data directory to join this one"
    );
    assert_eq!(register(3, 0).error, "");
}

#[test]
fn refusals() {
    let mut range = Range1::default();
    let allocate = |count| Kind::AllocateIds(AllocateIds { count });
    assert_eq!(
        range.run(allocate(0)).error,
        "0 ids at once; expected 1 to 1048576"
    );
    assert_eq!(range.run(allocate(u64::MAX)).first_id, 0);
    assert_eq!(
        range.register(store(100_000, "n", 1, "a:1")).error,
        "store id 100000 was never handed out"
    );
    assert_eq!(range.run(allocate(1)).first_id, 100_000);
    assert_eq!(
        range.register(store(100_000, "n", 1, "a:1")).first_id,
        100_000
    );
    assert!(range
        .register(store(1, "", 1, "a:2"))
        .error
        .starts_with("a store registers with"));
    assert!(range
        .register(store(1, "m", 0, "a:2"))
        .error
        .starts_with("a store registers with"));
    let removed = StoreRecord {
        state: 2,
        ..store(1, "m", 1, "a:2")
    };
    assert!(range
        .register(removed)
        .error
        .ends_with("SetStoreState does"));
    assert_eq!(
        range.run(set_state(9, StoreState::Up)).error,
        "there is no store 9"
    );
    assert!(range
        .run(set_config("nonsense", "1"))
        .error
        .contains("known names: heartbeat"));
    assert!(range
        .run(set_config("nonsense", "default"))
        .error
        .contains("known names: heartbeat"));

    let bump = |expected| Kind::BumpCatalog(BumpCatalog { expected });
    assert_eq!(range.run(bump(1)).state.unwrap().catalog_version, 2);
    assert_eq!(
        range.run(bump(1)).error,
        "catalog version is 2, not 1 as expected; read it and try again"
    );
    assert_eq!(range.run(bump(0)).state.unwrap().catalog_version, 3);

    let elsewhere = Context {
        start: keys::PLACEMENT_END,
        end: b"",
        ..RANGE_1
    };
    let mut txn = Txn::new(&range);
    let reply = PlacementModel.evaluate(&elsewhere, &encode(bump(0)), &mut txn);
    assert!(txn.is_read_only());
    let reply = PlacementReply::decode(reply).unwrap();
    assert_eq!(reply.error, "placement commands are for range 1 alone");
}

#[test]
fn configuration_is_stored_in_canonical_form_and_reset_by_default() {
    let mut range = Range1::default();
    let state = range
        .run(set_config("range-split-size", "64MiB"))
        .state
        .unwrap();
    assert_eq!(state.config["range-split-size"], "67108864");
    assert_eq!(config::Config::of(&state).range_split_bytes, 64 << 20);
    let state = range
        .run(set_config("range-split-size", "default"))
        .state
        .unwrap();
    assert!(state.config.is_empty());
    assert_eq!(config::effective(&state).count(), config::SETTINGS.len());
}

#[test]
fn a_corrupt_record_refuses_every_command_and_changes_nothing() {
    for (key, value) in [
        (keys::store(StoreId(1)), &b"\xff"[..]),
        (keys::store(StoreId(1)), &b""[..]),
        (Bytes::from_static(keys::NEXT_ID), &b"123"[..]),
    ] {
        let mut range = Range1::default();
        range.0.insert(key, Bytes::copy_from_slice(value));
        let reply = range.run(Kind::AllocateIds(AllocateIds { count: 1 }));
        assert!(reply.error.ends_with("is unreadable"), "{reply:?}");
    }
}

/// The state as one would write it without a keyspace: every rule once, in plain terms.
#[derive(Default)]
struct Reference {
    cluster: u64,
    handed_out: u64,
    catalog: u64,
    stores: BTreeMap<u64, StoreRecord>,
    config: BTreeMap<String, String>,
}

impl Reference {
    /// Whether `kind` is accepted, and the `first_id` of its reply.
    fn run(&mut self, kind: &Kind) -> Option<u64> {
        match kind {
            Kind::CreateTable(_)
            | Kind::UpdateTable(_)
            | Kind::RemoveTable(_)
            | Kind::ReadTables(_) => unreachable!("tables.rs has tests of its own"),
            Kind::ReadState(_) => Some(0),
            Kind::AllocateIds(AllocateIds { count }) => {
                let first = FIRST_ALLOCATED_ID + self.handed_out;
                (1..=ALLOCATE_IDS_MAX)
                    .contains(count)
                    .then(|| self.handed_out += count)?;
                Some(first)
            }
            Kind::SetConfig(SetConfig { name, value }) => {
                config::find(name)?;
                if value == "default" {
                    self.config.remove(name);
                } else {
                    self.config
                        .insert(name.clone(), config::check(name, value).ok()?);
                }
                Some(0)
            }
            Kind::BumpCatalog(BumpCatalog { expected }) => {
                let matches = [0, self.catalog + 1].contains(expected);
                matches.then(|| self.catalog += 1)?;
                Some(0)
            }
            Kind::SetStoreState(SetStoreState { store, state }) => {
                let known = self.stores.get_mut(store)?;
                if *state > 2 || (known.state == 2 && *state != 2) {
                    return None;
                }
                known.state = *state;
                Some(0)
            }
            Kind::RegisterStore(RegisterStore {
                record, cluster, ..
            }) => {
                let mut record = record.clone()?;
                if record.name.is_empty()
                    || record.grpc_address.is_empty()
                    || record.incarnation == 0
                    || record.state != 0
                    || (*cluster != 0 && self.cluster != 0 && *cluster != self.cluster)
                {
                    return None;
                }
                if record.store == 0 {
                    let again = self.stores.values().find(|s| {
                        s.state != 2 && s.name == record.name && s.incarnation == record.incarnation
                    });
                    record.store = again.map_or(0, |s| s.store);
                }
                if let Some(known) = self.stores.get(&record.store) {
                    if known.state == 2 || known.incarnation != record.incarnation {
                        return None;
                    }
                    record.state = known.state;
                } else if record.store >= FIRST_ALLOCATED_ID + self.handed_out {
                    return None;
                }
                let clash = self.stores.values().any(|s| {
                    s.state != 2
                        && s.store != record.store
                        && (s.name == record.name || s.grpc_address == record.grpc_address)
                });
                if clash {
                    return None;
                }
                if record.store == 0 {
                    record.store = FIRST_ALLOCATED_ID + self.handed_out;
                    self.handed_out += 1;
                }
                if self.cluster == 0 {
                    self.cluster = *cluster;
                }
                let id = record.store;
                self.stores.insert(id, record);
                Some(id)
            }
        }
    }

    fn state(&self) -> PlacementState {
        PlacementState {
            cluster: self.cluster,
            catalog_version: self.catalog + 1,
            next_id: FIRST_ALLOCATED_ID + self.handed_out,
            stores: self.stores.values().cloned().collect(),
            config: self.config.clone().into_iter().collect(),
        }
    }
}

/// Few names, addresses and incarnations, so that they clash.
fn any_register() -> impl Strategy<Value = Kind> {
    let id = prop_oneof![
        Just(0u64),
        1u64..5,
        FIRST_ALLOCATED_ID..FIRST_ALLOCATED_ID + 4
    ];
    (
        id,
        "[a-d]?",
        0u64..3,
        "[w-z]?",
        prop_oneof![9 => Just(0u32), 1 => 1u32..4],
        0u64..3,
    )
        .prop_map(|(id, name, incarnation, address, state, cluster)| {
            let record = Some(StoreRecord {
                state,
                ..store(id, &name, incarnation, &address)
            });
            Kind::RegisterStore(RegisterStore {
                record,
                cluster,
                data_ranges: 0,
            })
        })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let id = prop_oneof![0u64..5, FIRST_ALLOCATED_ID..FIRST_ALLOCATED_ID + 4];
    let name = prop_oneof![
        Just("replication-factor".to_owned()),
        Just("range-split-size".to_owned()),
        Just("nonsense".to_owned())
    ];
    let value = prop_oneof![
        Just("auto"),
        Just("3"),
        Just("4"),
        Just("1GiB"),
        Just("default")
    ];
    prop_oneof![
        8 => any_register(),
        3 => (id, 0u32..4).prop_map(|(store, state)| {
            Kind::SetStoreState(SetStoreState { store, state })
        }),
        2 => prop_oneof![0u64..4, Just(u64::MAX), Just(ALLOCATE_IDS_MAX)]
            .prop_map(|count| Kind::AllocateIds(AllocateIds { count })),
        1 => (name, value).prop_map(|(name, value)| set_config(&name, value)),
        1 => (0u64..4).prop_map(|expected| Kind::BumpCatalog(BumpCatalog { expected })),
        1 => Just(Kind::ReadState(ReadState {})),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_reference(kinds in prop::collection::vec(any_kind(), 1..60)) {
        let mut range = Range1::default();
        let mut reference = Reference::default();
        let mut windows: Vec<(u64, u64)> = Vec::new();
        for kind in kinds {
            let before = read_state(&range).unwrap();
            let reply = range.run(kind.clone());
            let expected = reference.run(&kind);
            let accepted = reply.error.is_empty().then_some(reply.first_id);
            prop_assert_eq!(accepted, expected, "{:?}: {:?}", kind, reply);
            let after = read_state(&range).unwrap();
            prop_assert_eq!(&after, &reference.state());
            if let (Some(first), Kind::AllocateIds(a)) = (accepted, &kind) {
                windows.push((first, first + a.count));
            } else if accepted.is_some() {
                prop_assert_eq!(reply.state.as_ref(), Some(&after));
            }
            prop_assert!(after.catalog_version >= before.catalog_version);
            prop_assert!(after.next_id >= before.next_id);
        }
        for pair in windows.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].0, "id windows overlap: {:?}", pair);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8),
    ) {
        let mut range = Range1::default();
        for command in commands {
            range.run_bytes(command.into());
        }
    }

    #[test]
    fn damaged_commands_never_panic(kind in any_kind(), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = encode(kind).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
        }
        Range1::default().run_bytes(bytes.into());
    }
}

/// A placement node, or a store, that registers with its cluster's number, 0 = as a new one.
fn register_as(
    range: &mut Range1,
    record: StoreRecord,
    role: StoreRole,
    cluster: u64,
) -> PlacementReply {
    range.run(Kind::RegisterStore(RegisterStore {
        record: Some(StoreRecord {
            role: role as u32,
            ..record
        }),
        cluster,
        data_ranges: 2,
    }))
}

#[test]
fn the_first_store_of_placement_nodes_begins_with_all_data() {
    let mut range = Range1::default();
    let early = register_as(&mut range, store(0, "n1", 11, "n1:1"), StoreRole::Store, 0);
    assert!(early.ranges.is_empty(), "nobody has made the cluster yet");
    for id in 1..=3 {
        let record = store(id, &format!("pd{id}"), id, &format!("pd{id}:1"));
        let reply = register_as(&mut range, record, StoreRole::Placement, 7);
        assert_eq!((reply.error.as_str(), reply.ranges.len()), ("", 0));
    }
    let n1 = register_as(&mut range, store(0, "n1", 11, "n1:1"), StoreRole::Store, 0);
    assert_eq!(n1.ranges.len(), 2);
    assert_eq!(n1.ranges[0].start, keys::PLACEMENT_END);
    assert!(n1.ranges[1].end.is_empty());
    let again = register_as(&mut range, store(0, "n1", 11, "n1:1"), StoreRole::Store, 0);
    assert_eq!(again.ranges, n1.ranges, "asked twice");
    let n2 = register_as(&mut range, store(0, "n2", 12, "n2:1"), StoreRole::Store, 0);
    assert!(n2.ranges.is_empty(), "laid out once");

    // It had no seat when its directory was wiped and it was removed: the next one begins anew.
    range.run(set_state(n1.first_id, StoreState::Removed));
    let n3 = register_as(&mut range, store(0, "n3", 13, "n3:1"), StoreRole::Store, 0);
    assert_eq!(n3.ranges.len(), 2);
    let ids = |reply: &PlacementReply| -> Vec<u64> { reply.ranges.iter().map(|r| r.id).collect() };
    assert!(
        ids(&n3).iter().all(|id| !ids(&n1).contains(id)),
        "ids are never reused"
    );

    // With its seat it is the only one who knows the data: lost is lost.
    register_as(
        &mut range,
        store(n3.first_id, "n3", 13, "n3:1"),
        StoreRole::Store,
        7,
    );
    range.run(set_state(n3.first_id, StoreState::Removed));
    let n4 = register_as(&mut range, store(0, "n4", 14, "n4:1"), StoreRole::Store, 0);
    assert!(n4.first_id > 0 && n4.ranges.is_empty());
}

#[test]
fn a_cluster_of_stores_is_given_no_ranges_when_others_join() {
    let mut range = Range1::default();
    register_as(&mut range, store(1, "n1", 1, "n1:1"), StoreRole::Store, 7);
    let pd = register_as(
        &mut range,
        store(0, "pd1", 2, "pd1:1"),
        StoreRole::Placement,
        0,
    );
    let registered = store(pd.first_id, "pd1", 2, "pd1:1");
    register_as(&mut range, registered.clone(), StoreRole::Placement, 7);
    let n2 = register_as(&mut range, store(0, "n2", 3, "n2:1"), StoreRole::Store, 0);
    assert_eq!((n2.error.as_str(), n2.ranges.len()), ("", 0));

    // What a store is for never changes, also for versions that know no roles.
    let refused = register_as(&mut range, registered, StoreRole::Store, 7);
    assert_eq!(
        refused.error,
        format!(
            "pd1 (id {}) is registered as a placement node, not as a store; start it with `rangekv pd`",
            pd.first_id
        )
    );
    let refused = range.run(Kind::RegisterStore(RegisterStore {
        record: Some(store(0, "n9", 9, "n9:1")),
        cluster: 0,
        data_ranges: 16_385,
    }));
    assert_eq!(
        refused.error,
        "16385 initial data ranges; expected 1 to 16384"
    );
}
