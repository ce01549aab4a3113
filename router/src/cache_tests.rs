//! What the range cache learns, and what it forgets.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use rangekv_proto::{Epoch, Replica, ReplicaId, ReplicaRole};

fn range(id: u64, start: &str, end: &str, version: u64, conf: u64) -> RangeDescriptor {
    let replica = |n: u64| Replica {
        id: ReplicaId(id * 10 + n),
        store: StoreId(n),
        role: ReplicaRole::Voter,
    };
    RangeDescriptor {
        id: RangeId(id),
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: Bytes::copy_from_slice(end.as_bytes()),
        epoch: Epoch {
            conf_version: conf,
            version,
        },
        replicas: vec![replica(1), replica(2), replica(3)],
    }
}

fn hint(store: u64, term: u64) -> Option<LeaderHint> {
    Some(LeaderHint {
        store: StoreId(store),
        term,
    })
}

fn asked(range: u64, store: u64, term: u64) -> Asked {
    Asked {
        range: RangeId(range),
        version: 1,
        store: StoreId(store),
        term,
    }
}

fn show(cache: &RangeCache) -> String {
    let route = |r: &Arc<Route>| {
        let d = &r.descriptor;
        let leader = match r.leader {
            Some(l) => format!("{}@{}", l.store, l.term),
            None => "?".into(),
        };
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        format!(
            "{}[{},{})v{} {leader}",
            d.id,
            text(&d.start),
            text(&d.end),
            d.epoch.version
        )
    };
    cache
        .routes()
        .iter()
        .map(route)
        .collect::<Vec<_>>()
        .join("  ")
}

#[test]
fn a_split_and_a_merge_replace_what_they_overlap() {
    let mut cache = RangeCache::default();
    assert!(cache.apply(range(1, "", "", 1, 1), hint(2, 7)));
    assert!(cache.apply(range(1, "", "m", 2, 1), None));
    assert_eq!(show(&cache), "1[,m)v2 2@7");
    assert!(cache.lookup(b"z").is_none());
    assert!(cache.apply(range(2, "m", "", 2, 1), None));
    assert_eq!(show(&cache), "1[,m)v2 2@7  2[m,)v2 ?");
    // What the split replaced does not come back.
    assert!(!cache.apply(range(1, "", "", 1, 9), hint(3, 9)));
    assert!(cache.apply(range(1, "", "", 3, 1), None));
    assert_eq!(show(&cache), "1[,)v3 2@7");
    assert!(!cache.apply(range(2, "m", "", 2, 1), hint(1, 9)));
}

#[test]
fn who_asks_for_a_merged_range_learns_what_absorbed_it() {
    let mut cache = RangeCache::default();
    cache.apply(range(1, "", "g", 4, 1), hint(2, 7));
    cache.apply(range(2, "g", "p", 9, 3), hint(3, 6));
    cache.apply(range(3, "p", "", 4, 1), hint(1, 5));
    let current = vec![range(1, "", "p", 10, 1)];
    assert!(cache.on_error(&asked(2, 3, 6), &RequestError::EpochNotMatch { current }));
    assert_eq!(show(&cache), "1[,p)v10 2@7  3[p,)v4 1@5");
    // The range that is no more does not come back, whoever still speaks of it.
    assert!(!cache.apply(range(2, "g", "p", 9, 3), hint(3, 9)));
    assert!(!cache.on_error(
        &asked(2, 3, 6),
        &RequestError::EpochNotMatch {
            current: vec![range(2, "g", "p", 9, 3)]
        }
    ));
    assert_eq!(show(&cache), "1[,p)v10 2@7  3[p,)v4 1@5");
}

#[test]
fn the_right_side_of_a_split_is_first_sought_where_the_left_is_led() {
    let mut cache = RangeCache::default();
    cache.apply(range(1, "", "", 1, 1), hint(2, 7));
    cache.apply(range(2, "m", "", 2, 1), None);
    assert_eq!(show(&cache), "2[m,)v2 2@0");
    cache.apply(range(2, "m", "", 2, 1), hint(3, 5));
    assert_eq!(show(&cache), "2[m,)v2 3@5");
}

#[test]
fn a_leader_hint_is_replaced_by_one_of_a_greater_term_only() {
    let mut cache = RangeCache::default();
    cache.apply(range(1, "", "", 1, 1), hint(2, 7));
    assert!(!cache.apply(range(1, "", "", 1, 1), hint(1, 6)));
    assert!(!cache.apply(range(1, "", "", 1, 1), None));
    assert!(cache.apply(range(1, "", "", 1, 2), hint(1, 6)));
    assert_eq!(show(&cache), "1[,)v1 2@7");
    assert!(cache.apply(range(1, "", "", 1, 2), hint(1, 8)));
    assert_eq!(show(&cache), "1[,)v1 1@8");
}

#[test]
fn errors_repair_the_hint_that_they_disprove() {
    let not_leader = |leader| RequestError::NotLeader {
        range: RangeId(1),
        leader,
    };
    let mut cache = RangeCache::default();
    cache.apply(range(1, "", "", 1, 1), hint(2, 7));
    // An answer to a question from long ago disproves nothing.
    assert!(!cache.on_error(&asked(1, 2, 6), &not_leader(None)));
    assert!(!cache.on_error(&asked(1, 3, 7), &not_leader(hint(1, 6))));
    assert!(cache.on_error(&asked(1, 2, 7), &not_leader(None)));
    assert_eq!(show(&cache), "1[,)v1 ?");
    assert!(cache.on_error(&asked(1, 3, 0), &not_leader(hint(1, 8))));
    assert_eq!(show(&cache), "1[,)v1 1@8");
    // The named store leads, in a later term than the request carried.
    assert!(cache.on_error(&asked(1, 1, 8), &not_leader(hint(1, 9))));
    assert_eq!(show(&cache), "1[,)v1 1@9");
    // It denies what it claims: forget it.
    assert!(cache.on_error(&asked(1, 1, 9), &not_leader(hint(1, 9))));
    assert_eq!(show(&cache), "1[,)v1 ?");
    cache.apply(range(1, "", "", 1, 1), hint(3, 10));
    assert!(cache.on_error(&asked(1, 3, 10), &RequestError::Unavailable("gone".into())));
    assert_eq!(show(&cache), "1[,)v1 ?");
    let current = vec![range(1, "", "m", 2, 1), range(5, "m", "", 2, 1)];
    assert!(cache.on_error(&asked(1, 1, 0), &RequestError::EpochNotMatch { current }));
    assert_eq!(show(&cache), "1[,m)v2 ?  5[m,)v2 ?");
}

#[test]
fn a_snapshot_is_refreshed_when_something_changed() {
    let shared = SharedCache::new();
    let mut snapshot = shared.snapshot();
    assert!(shared.apply_routes([(range(1, "", "", 1, 1), None)]));
    assert!(snapshot.cache.lookup(b"k").is_none());
    shared.refresh(&mut snapshot);
    assert!(snapshot.cache.lookup(b"k").is_some());
    let generation = snapshot.generation;
    assert!(!shared.apply_routes([(range(1, "", "", 1, 1), None)]));
    shared.refresh(&mut snapshot);
    assert_eq!(snapshot.generation, generation);
}

proptest! {
    /// Whatever order news arrives in: disjoint, and no key's version goes back.
    #[test]
    fn routes_stay_disjoint_and_never_grow_older(
        news in prop::collection::vec((1u64..6, 0u8..9, 1u8..9, 1u64..6, 1u64..4, 0u64..4), 0..40)
    ) {
        let mut cache = RangeCache::default();
        for (id, start, length, version, conf, term) in news {
            let before: Vec<_> = (0..20u8).map(|k| cache.lookup(&[k]).cloned()).collect();
            let mut descriptor = range(id, "", "", version, conf);
            descriptor.start = Bytes::from(vec![start]);
            descriptor.end = Bytes::from(vec![start + length]);
            cache.apply(descriptor, (term > 0).then_some(LeaderHint { store: StoreId(1), term }));
            cache.check_invariants();
            for (k, before) in before.into_iter().enumerate() {
                let after = cache.lookup(&[k as u8]);
                if let (Some(before), Some(after)) = (before, after) {
                    prop_assert!(after.descriptor.epoch.version >= before.descriptor.epoch.version);
                }
            }
        }
    }
}
