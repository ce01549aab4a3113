//! Plans from invented surveys.

use super::*;
use bytes::Bytes;
use rangekv_proto::{Epoch, RangeId, Replica, ReplicaId, ReplicaRole};

/// Range `id` of `version` on `stores`, replica 10 × id + store on each.
fn range(
    id: u64,
    bounds: (&'static str, &'static str),
    version: u64,
    stores: &[u64],
) -> RangeDescriptor {
    RangeDescriptor {
        id: RangeId(id),
        start: Bytes::from_static(bounds.0.as_bytes()),
        end: Bytes::from_static(bounds.1.as_bytes()),
        epoch: Epoch {
            conf_version: 1,
            version,
        },
        replicas: stores
            .iter()
            .map(|s| Replica {
                id: ReplicaId(10 * id + s),
                store: StoreId(*s),
                role: ReplicaRole::Voter,
            })
            .collect(),
    }
}

/// A replica of `range` on `store` whose log ends with entry `last` of `last_term`.
fn replica(range: &RangeDescriptor, store: u64, last_term: u64, last: u64) -> ReplicaFound {
    ReplicaFound {
        range: range.id.0,
        replica: 10 * range.id.0 + store,
        committed_range: hex(&range.encode()),
        final_range: hex(&range.encode()),
        term: last_term,
        applied: last - 1,
        committed: last - 1,
        last,
        last_term,
        splits: false,
        refused: String::new(),
    }
}

fn survey(store: u64, replicas: Vec<ReplicaFound>) -> Survey {
    Survey {
        format: FORMAT,
        cluster: "7".into(),
        store,
        name: format!("n{store}"),
        incarnation: format!("{store}"),
        stores: (1..=5).map(|id| (id, format!("n{id}"))).collect(),
        highest_id: 10 * store,
        replicas,
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

fn fates(plan: &Plan) -> Vec<(u64, Fate)> {
    plan.ranges
        .iter()
        .map(|r| (r.range, r.fate.clone()))
        .collect()
}

const ALL: (&str, &str) = ("", "");

#[test]
fn the_most_advanced_log_lives_on() {
    let r1 = range(1, ("", "b"), 1, &[1, 2, 3, 4, 5]);
    let r2 = range(2, ("b", ""), 1, &[1, 2, 3, 4, 5]);
    let surveys = [
        survey(1, vec![replica(&r1, 1, 9, 40), replica(&r2, 1, 6, 99)]),
        survey(2, vec![replica(&r1, 2, 9, 41), replica(&r2, 2, 7, 50)]),
    ];
    let plan = plan(&surveys, &names("n3,n4,5")).unwrap();
    let on_two = Fate::Recovered {
        on: 2,
        ends_on: vec![1],
    };
    assert_eq!(
        fates(&plan),
        [(1, on_two.clone()), (2, on_two)],
        "term before index"
    );
    assert_eq!(plan.highest_id, 20);
    assert_eq!(plan.lost.values().collect::<Vec<_>>(), ["n3", "n4", "n5"]);
    let text = describe(&plan, &surveys);
    for said in [
        "n1: replica 11, term 9, last entry 40",
        "1 entries that are not known",
        "n1, n2",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("NOBODY"), "{text}");
    assert_eq!(
        super::plan(&surveys, &names("n5,n4,n3")).unwrap(),
        plan,
        "decided once"
    );
}

#[test]
fn a_majority_that_is_left_is_left_alone() {
    let r2 = range(2, ALL, 1, &[1, 2, 3]);
    let surveys = [
        survey(1, vec![replica(&r2, 1, 5, 9)]),
        survey(2, vec![replica(&r2, 2, 5, 9)]),
    ];
    let plan = plan(&surveys, &names("n3")).unwrap();
    assert_eq!(fates(&plan), [(2, Fate::Healthy)]);
    assert!(describe(&plan, &surveys).contains("nothing is to be recovered"));
}

#[test]
fn nobody_is_forgotten_and_nobody_is_both() {
    let r2 = range(2, ALL, 1, &[1, 2, 3, 4, 5]);
    let surveys = [survey(1, vec![replica(&r2, 1, 5, 9)])];
    for (lost, said) in [
        (
            "n3,n4,n5",
            "range 2 has a replica on n2, whose survey is missing",
        ),
        ("n1,n3,n4,n5", "its survey is given"),
        ("n9", "no store is called so; there are n1, n2"),
    ] {
        let error = plan(&surveys, &names(lost)).unwrap_err().to_string();
        assert!(error.contains(said), "{lost}: {error}");
    }
    let mut other = survey(2, vec![]);
    other.cluster = "8".into();
    let error = plan(&[surveys[0].clone(), other], &names("n3")).unwrap_err();
    assert!(error.to_string().contains("cluster 8"), "{error}");
    let twice = [surveys[0].clone(), surveys[0].clone()];
    assert!(plan(&twice, &names("n3")).is_err());
}

#[test]
fn what_was_cut_or_absorbed_since_does_not_come_back() {
    // One has applied the split of 2 at m, the other lags behind and holds all of it.
    let whole = range(2, ALL, 1, &[1, 2, 3, 4, 5]);
    let right = range(3, ("m", ""), 2, &[1, 2, 3, 4, 5]);
    let surveys = [
        survey(1, vec![replica(&right, 1, 5, 9)]),
        survey(2, vec![replica(&whole, 2, 5, 8)]),
    ];
    let plan = plan(&surveys, &names("n3,n4,n5")).unwrap();
    let fates = fates(&plan);
    assert_eq!(fates[0], (2, Fate::Refused));
    assert!(matches!(fates[1].1, Fate::Recovered { on: 1, .. }));
    // In a merge nothing is decided by one log.
    let mut merging = replica(&whole, 1, 5, 9);
    merging.refused = "it was being merged with a neighbour".into();
    let plan = super::plan(&[survey(1, vec![merging])], &names("n2,n3,n4,n5")).unwrap();
    assert_eq!(plan.ranges[0].fate, Fate::Refused);
}

#[test]
fn keys_that_nobody_holds_are_named() {
    let r2 = range(2, ("b", "m"), 1, &[1, 2, 3]);
    let surveys = [survey(1, vec![replica(&r2, 1, 5, 9)])];
    assert_eq!(gaps(&surveys), ["[, 62)", "[6d, the end)"]);
}
