//! Routes by example, and against a random history told in any order.

use super::*;
use proptest::prelude::*;
use rangekv_proto::{Replica, ReplicaId, ReplicaRole, StoreId};

fn range(id: u64, start: &str, end: &str, version: u64, conf_version: u64) -> RangeDescriptor {
    RangeDescriptor {
        id: RangeId(id),
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: Bytes::copy_from_slice(end.as_bytes()),
        epoch: Epoch {
            conf_version,
            version,
        },
        replicas: vec![Replica {
            id: ReplicaId(id),
            store: StoreId(1),
            role: ReplicaRole::Voter,
        }],
    }
}

fn led(store: u64, term: u64) -> Option<LeaderHint> {
    Some(LeaderHint {
        store: StoreId(store),
        term,
    })
}

fn ids(routes: &Routes) -> Vec<u64> {
    routes.iter().map(|r| r.range.id.0).collect()
}

#[test]
fn a_split_supersedes_the_parent_until_the_parent_reports_again() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "", 1, 1), led(1, 6));
    let right = routes.merge(&range(3, "m", "", 2, 1), led(1, 6));
    assert_eq!(right.superseded, [RangeId(2)]);
    assert_eq!(routes.lookup(b"b"), None);
    let old = routes.merge(&range(2, "a", "", 1, 1), led(1, 6));
    assert_eq!(old.stale, Some(Stale::Overlap(RangeId(3))));
    assert!(routes.merge(&range(2, "a", "m", 2, 1), led(1, 6)).changed);
    assert_eq!(ids(&routes), [2, 3]);
    assert_eq!(routes.lookup(b"lzzz").unwrap().range.id, RangeId(2));
    assert_eq!(routes.lookup(b"m").unwrap().range.id, RangeId(3));
    assert_eq!(routes.lookup(b""), None);
}

#[test]
fn a_merge_removes_what_it_absorbed() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "m", 4, 1), led(1, 6));
    routes.merge(&range(3, "m", "t", 2, 9), led(1, 6));
    routes.merge(&range(4, "t", "", 2, 1), led(1, 6));
    let merged = routes.merge(&range(3, "a", "t", 5, 9), led(1, 6));
    assert_eq!(merged.superseded, [RangeId(2)]);
    assert_eq!(ids(&routes), [3, 4]);
}

#[test]
fn a_merge_given_up_and_one_done_later_leave_the_union_alone() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "m", 2, 1), led(1, 6));
    routes.merge(&range(3, "m", "", 2, 1), led(1, 6));
    // Given up: the right one's version has grown, nothing else.
    assert!(routes.merge(&range(3, "m", "", 3, 1), led(1, 6)).changed);
    assert_eq!(ids(&routes), [2, 3]);
    // Done: above both.
    let union = range(2, "a", "", 4, 1);
    assert_eq!(routes.merge(&union, led(1, 6)).superseded, [RangeId(3)]);
    let late = routes.merge(&range(3, "m", "", 3, 1), led(2, 9));
    assert_eq!(late.stale, Some(Stale::Overlap(RangeId(2))));
    assert_eq!(ids(&routes), [2]);
    assert_eq!(routes.lookup(b"z").unwrap().range, union);
}

#[test]
fn both_parts_of_the_epoch_must_not_go_back() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "", 3, 5), led(1, 6));
    for (version, conf_version) in [(2, 5), (3, 4), (4, 4), (2, 6)] {
        let merged = routes.merge(&range(2, "a", "", version, conf_version), led(1, 6));
        assert!(matches!(merged.stale, Some(Stale::Epoch(_))) && !merged.changed);
    }
    assert!(routes.merge(&range(2, "a", "", 3, 6), led(1, 6)).changed);
    assert!(routes.merge(&range(2, "a", "", 4, 6), led(1, 6)).changed);
}

#[test]
fn leader_and_descriptor_are_news_apart_from_each_other() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "", 3, 5), led(1, 7));
    // The overtaken leader has applied a change that the new one hasn't.
    assert!(routes.merge(&range(2, "a", "", 3, 6), led(2, 6)).changed);
    assert_eq!(routes.get(RangeId(2)).unwrap().leader, led(1, 7));
    // A new leader that hasn't applied it yet.
    let merged = routes.merge(&range(2, "a", "", 3, 5), led(3, 8));
    assert!(merged.changed && merged.stale.is_some());
    let route = routes.get(RangeId(2)).unwrap();
    assert_eq!(
        (route.range.epoch.conf_version, route.leader),
        (6, led(3, 8))
    );
    // One leader per term: who comes second is not believed.
    assert!(!routes.merge(&range(2, "a", "", 3, 6), led(4, 8)).changed);
    assert!(!routes.merge(&range(2, "a", "", 3, 6), None).changed);
}

#[test]
fn changes_since_a_sequence_number() {
    let mut routes = Routes::default();
    routes.merge(&range(2, "a", "m", 1, 1), led(1, 6));
    routes.merge(&range(3, "m", "", 1, 1), led(1, 6));
    let seen = routes.seq();
    assert_eq!(routes.changed_since(0).count(), 2);
    assert_eq!(routes.changed_since(seen).count(), 0);
    routes.merge(&range(2, "a", "m", 1, 1), led(2, 7));
    let changed: Vec<_> = routes.changed_since(seen).map(|r| r.range.id.0).collect();
    assert_eq!(changed, [2]);
    assert_eq!(routes.changed_since(u64::MAX).count(), 0);
}

#[test]
fn a_range_without_keys_is_refused() {
    let mut routes = Routes::default();
    assert_eq!(
        routes.merge(&range(2, "m", "m", 1, 1), None).stale,
        Some(Stale::Empty)
    );
    assert_eq!(
        routes.merge(&range(2, "m", "a", 1, 1), None).stale,
        Some(Stale::Empty)
    );
    assert!(routes.is_empty());
}

/// What may happen to a random range of a cluster.
#[derive(Clone, Debug)]
enum Change {
    Split(u8),
    Merge,
    Membership,
    Election(u64),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any::<u8>().prop_map(Change::Split),
        2 => Just(Change::Merge),
        2 => Just(Change::Membership),
        2 => (1u64..4).prop_map(Change::Election),
    ]
}

/// A true history: the ranges as they are in the end, and everything that was ever reported.
fn play(changes: &[(prop::sample::Index, Change)]) -> (Vec<Route>, Vec<Route>) {
    let mut now = vec![Route {
        range: range(1, "", "", 1, 1),
        leader: led(1, 6),
    }];
    let mut told = now.clone();
    let mut next_id = 2;
    for (at, change) in changes {
        let i = at.index(now.len());
        match change {
            Change::Split(key) => {
                let key = Bytes::copy_from_slice(&[*key]);
                if !now[i].range.contains(&key) || now[i].range.start == key {
                    continue;
                }
                now[i].range.epoch.version += 1;
                let mut right = now[i].clone();
                now[i].range.end = key.clone();
                right.range.start = key;
                right.range.id = RangeId(next_id);
                next_id += 1;
                told.extend([now[i].clone(), right.clone()]);
                now.insert(i + 1, right);
            }
            Change::Merge if i + 1 < now.len() => {
                let right = now.remove(i + 1);
                let version = right.range.epoch.version.max(now[i].range.epoch.version) + 1;
                now[i].range.epoch.version = version;
                now[i].range.end = right.range.end;
                told.push(now[i].clone());
            }
            Change::Merge => {}
            Change::Membership => {
                now[i].range.epoch.conf_version += 1;
                told.push(now[i].clone());
            }
            Change::Election(store) => {
                let term = now[i].leader.unwrap().term + 1;
                now[i].leader = led(*store, term);
                told.push(now[i].clone());
            }
        }
    }
    (now, told)
}

proptest! {
    #[test]
    fn any_order_of_reports_ends_in_the_truth(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_change()), 0..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let (now, told) = play(&changes);
        let mut routes = Routes::default();
        let mut copy = Routes::default();
        let mut seen = 0;
        // Old news in any order, some of it several times, some never…
        for at in order {
            let route = at.get(&told);
            routes.merge(&route.range, route.leader);
            routes.check_invariants();
            // …while a store follows by differences.
            if at.index(3) == 0 {
                follow(&mut copy, &routes, &mut seen);
            }
        }
        for route in &now {
            routes.merge(&route.range, route.leader);
            routes.check_invariants();
        }
        // What is past changes nothing any more.
        for route in told.iter().chain(told.iter().rev()) {
            prop_assert!(!routes.merge(&route.range, route.leader).changed, "{:?}", route);
        }
        follow(&mut copy, &routes, &mut seen);
        prop_assert_eq!(routes.iter().cloned().collect::<Vec<_>>(), now.clone());
        prop_assert_eq!(copy.iter().cloned().collect::<Vec<_>>(), now);
    }

    #[test]
    fn nonsense_keeps_the_invariants(
        told in prop::collection::vec((0u64..6, "[a-d]?", "[a-d]?", 0u64..4, 0u64..4, 0u64..9), 0..60),
    ) {
        let mut routes = Routes::default();
        for (id, start, end, version, conf_version, term) in told {
            routes.merge(&range(id, &start, &end, version, conf_version), led(1, term));
            routes.check_invariants();
        }
    }
}

fn follow(copy: &mut Routes, routes: &Routes, seen: &mut u64) {
    for route in routes.changed_since(*seen) {
        copy.merge(&route.range, route.leader);
    }
    *seen = routes.seq();
    copy.check_invariants();
}
