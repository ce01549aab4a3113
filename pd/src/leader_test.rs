//! The leader's soft state, from one heartbeat to the next.

use super::*;
use crate::operator::{ManualOperator, Progress};
use rangekv_proto::internal::{self as pb, StoreRecord};
use rangekv_proto::{Epoch, Replica, ReplicaRole};

/// Stores 1 to `n`, registered with incarnation 70 + id.
fn state(n: u64) -> PlacementState {
    let record = |store| StoreRecord {
        store,
        name: format!("n{store}"),
        incarnation: 70 + store,
        grpc_address: format!("10.0.0.{store}:50051"),
        ..Default::default()
    };
    PlacementState {
        catalog_version: 4,
        stores: (1..=n).map(record).collect(),
        ..Default::default()
    }
}

fn range(id: u64, version: u64) -> RangeDescriptor {
    let replica = |store| Replica {
        id: ReplicaId(id * 10 + store),
        store: StoreId(store),
        role: ReplicaRole::Voter,
    };
    RangeDescriptor {
        id: RangeId(id),
        start: id.to_be_bytes().to_vec().into(),
        end: (id + 1).to_be_bytes().to_vec().into(),
        epoch: Epoch {
            conf_version: 1,
            version,
        },
        replicas: (1..=3).map(replica).collect(),
    }
}

/// A full heartbeat of `store`, which leads `ranges` in `term`.
fn full(store: u64, term: u64, ranges: &[u64]) -> Heartbeat {
    let report = |id: &u64| RangeReport {
        range: Some((&range(*id, 1)).into()),
        leader_store: store,
        term,
        ..Default::default()
    };
    Heartbeat {
        store,
        incarnation: 70 + store,
        ranges: ranges.iter().map(report).collect(),
        full: true,
        ..Default::default()
    }
}

fn transfers(reply: &HeartbeatReply) -> Vec<(u64, u64)> {
    let to = |o: &pb::Order| match o.step {
        Some(pb::order::Step::TransferLeader(to)) => (o.range, to),
        _ => panic!("another order: {o:?}"),
    };
    reply.orders.iter().map(to).collect()
}

#[test]
fn a_stranger_is_refused_and_changes_nothing() {
    let mut leader = Leader::default();
    let mut state = state(3);
    state.stores[1].state = StoreState::Removed as u32;
    let mut refused = |heartbeat: Heartbeat| leader.heartbeat(0, 7, &heartbeat, &state).error;
    assert_eq!(
        refused(full(9, 6, &[2])),
        "store 9 is not registered; register it first"
    );
    assert!(refused(full(2, 6, &[2])).starts_with("store n2 (id 2) was removed from the cluster"));
    let wiped = Heartbeat {
        incarnation: 1,
        ..full(3, 6, &[2])
    };
    assert!(refused(wiped).starts_with("store n3 (id 3) is registered with another data directory"));
    assert!(leader.routes().is_empty() && leader.stores.is_empty());
}

#[test]
fn routes_since_what_was_seen() {
    let (mut leader, state) = (Leader::default(), state(3));
    let first = leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    assert_eq!(
        (first.routes_term, first.routes.len(), first.stores.len()),
        (7, 2, 3)
    );
    assert_eq!(first.catalog_version, 4);
    let since = |leader: &mut Leader, routes_term, routes_seen| {
        let heartbeat = Heartbeat {
            routes_term,
            routes_seen,
            ..full(2, 6, &[])
        };
        leader.heartbeat(10, 7, &heartbeat, &state).routes.len()
    };
    assert_eq!(since(&mut leader, 7, first.routes_seq), 0);
    assert_eq!(since(&mut leader, 7, first.routes_seq - 1), 1);
    assert_eq!(since(&mut leader, 6, first.routes_seq), 2);
    assert_eq!(since(&mut leader, 7, first.routes_seq + 99), 2);
}

#[test]
fn a_new_term_begins_with_nothing() {
    let (mut leader, state) = (Leader::default(), state(3));
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    let reply = leader.heartbeat(10, 8, &full(2, 6, &[4]), &state);
    assert_eq!((reply.routes_term, reply.routes.len()), (8, 1));
    assert!(!leader.is_live(10, StoreId(1), &Config::default()));
    let late = leader.heartbeat(20, 7, &full(1, 6, &[2, 3]), &state);
    assert_eq!(late.error, "the placement driver's term is 8, not 7");
    assert_eq!(leader.routes().len(), 1);
}

#[test]
fn scheduling_waits_for_full_reports_of_a_quorum() {
    let (mut leader, state) = (Leader::default(), state(3));
    let partial = Heartbeat {
        full: false,
        ..full(2, 6, &[])
    };
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3, 4]), &state);
    leader.heartbeat(1_000, 7, &partial, &state);
    assert_eq!(
        leader.reasons()[0].text,
        "1 stores have reported in full since this leader took over; waiting for 2"
    );
    assert_eq!(leader.operators().count(), 0);
    leader.heartbeat(1_500, 7, &full(2, 6, &[]), &state);
    let reply = leader.heartbeat(2_000, 7, &full(1, 6, &[2, 3, 4]), &state);
    // Store 3 has not been heard of: it gets nothing.
    assert_eq!(transfers(&reply), [(2, 2)]);
    assert_eq!(reply.orders[0].reason, "n1 leads 3 ranges, n2 leads 0");
}

#[test]
fn an_order_is_given_again_until_it_is_given_up_and_then_not_for_a_while() {
    let (mut leader, mut state) = (Leader::default(), state(2));
    let cooldown = ("leader-transfer-cooldown".into(), "10000".into());
    state.config.extend([cooldown]);
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    // Ordered in store 2's round, and kept for store 1.
    let other = leader.heartbeat(1_000, 7, &full(2, 6, &[]), &state);
    assert_eq!(transfers(&other), []);
    let heartbeat = |leader: &mut Leader, now_ms, outcomes: &[u64]| {
        leader.heartbeat(now_ms, 7, &full(2, 6, &[]), &state);
        let outcome = |operator: &u64| pb::OrderOutcome {
            operator: *operator,
            error: "no".into(),
        };
        let heartbeat = Heartbeat {
            outcomes: outcomes.iter().map(outcome).collect(),
            ..full(1, 6, &[2, 3])
        };
        transfers(&leader.heartbeat(now_ms, 7, &heartbeat, &state))
    };
    assert_eq!(heartbeat(&mut leader, 1_100, &[]), [(2, 2)]);
    let id = leader.operators().next().unwrap().id.0;
    assert_eq!(heartbeat(&mut leader, 2_100, &[]), []);
    assert_eq!(
        heartbeat(&mut leader, 6_200, &[]),
        [(2, 2)],
        "lost, it seems"
    );
    assert_eq!(heartbeat(&mut leader, 7_000, &[id]), []);
    assert_eq!(heartbeat(&mut leader, 7_600, &[]), [(2, 2)], "it failed");
    assert_eq!(heartbeat(&mut leader, 22_000, &[]), [], "given up");
    let ended = leader.history().next().unwrap();
    assert_eq!(
        ended.progress,
        Progress::TimedOut("transfer the leader to store 2: no".into())
    );
    assert_eq!(heartbeat(&mut leader, 31_000, &[]), []);
    assert_eq!(heartbeat(&mut leader, 33_000, &[]), [(2, 2)]);
}

#[test]
fn an_order_is_for_the_range_as_it_is_now() {
    let (mut leader, state) = (Leader::default(), state(2));
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    leader.heartbeat(1_000, 7, &full(2, 6, &[]), &state);
    let mut heartbeat = full(1, 6, &[2, 3]);
    heartbeat.ranges[0].range = Some((&range(2, 2)).into());
    let reply = leader.heartbeat(1_100, 7, &heartbeat, &state);
    assert_eq!(
        (transfers(&reply), reply.orders[0].version),
        (vec![(2, 2)], 2)
    );
}

#[test]
fn a_member_that_never_registers_is_given_up_in_time_where_another_can_take_its_place() {
    let round = |leader: &mut Leader, now_ms, state: &PlacementState| {
        leader.heartbeat(now_ms, 7, &full(1, 6, &[2]), state);
        leader.heartbeat(now_ms, 7, &full(2, 6, &[]), state);
        for spare in state.stores.iter().filter(|s| s.store == 4) {
            leader.heartbeat(now_ms, 7, &full(spare.store, 6, &[]), state);
        }
    };
    // Members come when they come.
    let (mut leader, two) = (Leader::default(), state(2));
    for now_ms in (0..600_000).step_by(1_000) {
        round(&mut leader, now_ms, &two);
        assert_eq!(leader.operators().count(), 0);
    }
    assert_eq!(leader.under_replicated(599_000, &two).len(), 1);
    let (mut leader, mut with_spare) = (Leader::default(), state(4));
    with_spare.stores.retain(|s| s.store != 3);
    let down_max = Config::default().max_store_down_ms;
    for now_ms in (0..down_max).step_by(1_000) {
        round(&mut leader, now_ms, &with_spare);
        assert_eq!(leader.operators().count(), 0);
    }
    round(&mut leader, down_max, &with_spare);
    let reasons: Vec<_> = leader.operators().map(|o| o.reason.clone()).collect();
    assert_eq!(reasons, ["store 3 is gone"]);
}

#[test]
fn a_leader_that_stood_still_gives_nobody_up() {
    let (mut leader, mut state) = (Leader::default(), state(4));
    state
        .config
        .extend([("max-store-down-time".into(), "10000".into())]);
    let round = |leader: &mut Leader, now_ms, stores: std::ops::RangeInclusive<u64>| {
        for store in stores {
            let led: &[u64] = if store == 1 { &[2] } else { &[] };
            leader.heartbeat(now_ms, 7, &full(store, 6, led), &state);
        }
        leader
            .view(now_ms, &state)
            .stores
            .iter()
            .filter(|s| s.lost)
            .count()
    };
    assert_eq!(round(&mut leader, 0, 1..=4), 0);
    // Paused for a minute: the others may have reported all the while, to nobody.
    assert_eq!(round(&mut leader, 60_000, 1..=1), 0);
    assert!(!leader.is_ready(&state));
    // Who was heard in full before has only to be heard, as it takes its reports for known.
    let news = |store| Heartbeat {
        full: false,
        ..full(store, 6, &[])
    };
    leader.heartbeat(60_100, 7, &news(2), &state);
    leader.heartbeat(60_200, 7, &news(4), &state);
    assert!(leader.is_ready(&state));
    // Store 3 is silent indeed.
    for now_ms in (61_000..69_000).step_by(1_000) {
        assert_eq!(round(&mut leader, now_ms, 1..=2), 0);
    }
    assert_eq!(round(&mut leader, 69_000, 4..=4), 0);
    assert_eq!(round(&mut leader, 71_000, 1..=2), 1);
}

#[test]
fn a_member_that_was_removed_is_told_so() {
    let (mut leader, state) = (Leader::default(), state(3));
    let mut report = full(1, 6, &[2]);
    let mut range = range(2, 1);
    range.epoch.conf_version = 5;
    range.replicas.remove(2);
    report.ranges[0].range = Some((&range).into());
    leader.heartbeat(0, 7, &report, &state);
    let replica = |range, replica, conf_version| ReplicaReport {
        range,
        replica,
        conf_version,
    };
    let asks = Heartbeat {
        // Removed; a member; newer than what is known; of a range that isn't.
        replicas: vec![
            replica(2, 23, 1),
            replica(2, 22, 1),
            replica(2, 29, 5),
            replica(9, 1, 1),
        ],
        ..full(3, 6, &[])
    };
    let reply = leader.heartbeat(10, 7, &asks, &state);
    assert_eq!(reply.gone, [replica(2, 23, 5)]);
}

#[test]
fn by_hand() {
    use ManualOperator::{AddReplica, MoveReplica, RemoveReplica, TransferLeader};
    let (mut leader, state) = (Leader::default(), state(4));
    let id = RangeId(2);
    let to = |store| TransferLeader {
        range: id,
        to: StoreId(store),
    };
    let too_early = leader.submit(0, &state, to(2)).unwrap_err();
    assert!(too_early.contains("waiting for 3"), "{too_early}");
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    for store in 2..=4 {
        leader.heartbeat(0, 7, &full(store, 6, &[]), &state);
    }
    let move_to = |from, to| MoveReplica {
        range: id,
        from: StoreId(from),
        to: StoreId(to),
    };
    let store = StoreId(4);
    for (wanted, why) in [
        (to(9), "there is no store 9"),
        (to(4), "n4 has no replica of it"),
        (to(1), "range 2 is so already: leader to store 1"),
        (move_to(4, 3), "n4 has no replica of range 2"),
        (move_to(2, 3), "n3 has a replica of range 2 already"),
        (
            TransferLeader {
                range: RangeId(7),
                to: StoreId(1),
            },
            "there is no range 7",
        ),
        (
            RemoveReplica { range: id, store },
            "n4 has no replica of range 2",
        ),
    ] {
        assert_eq!(leader.submit(10, &state, wanted), Err(why.into()));
    }
    let first = leader.submit(10, &state, move_to(3, 4)).unwrap();
    let add = AddReplica {
        range: RangeId(3),
        store,
        voter: false,
    };
    let second = leader.submit(10, &state, add).unwrap();
    assert!(second > first);
    let busy = leader.submit(20, &state, to(2)).unwrap_err();
    assert!(busy.contains("is under way for range 2"), "{busy}");
    let reply = leader.heartbeat(20, 7, &full(1, 6, &[2, 3]), &state);
    let steps: Vec<String> = reply
        .orders
        .iter()
        .map(|o| {
            crate::operator::Order::try_from(o)
                .unwrap()
                .step
                .to_string()
        })
        .collect();
    assert_eq!(steps, ["add a learner on store 4"; 2]);
    let why = leader.why(30, &state, id);
    assert!(
        why[0]
            .text
            .contains("is under way: voters on 1 2 4; add a learner"),
        "{why:?}"
    );
    leader.cancel(40, first).unwrap();
    assert!(leader
        .cancel(40, first)
        .unwrap_err()
        .contains("is not under way"));
    assert_eq!(
        leader.history().last().unwrap().progress,
        Progress::Cancelled("stopped by hand".into())
    );
}

#[test]
fn a_range_that_its_leader_no_longer_reports_is_left_alone() {
    let (mut leader, state) = (Leader::default(), state(3));
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    let led = |leader: &Leader| {
        let view = leader.view(0, &state);
        view.ranges
            .iter()
            .map(|r| r.leader.map(|s| s.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(led(&leader), [Some(1), Some(1)]);
    leader.heartbeat(1, 7, &full(1, 6, &[3]), &state);
    assert_eq!(led(&leader), [None, Some(1)]);
    // An overtaken leader is not believed; a new one is.
    leader.heartbeat(2, 7, &full(3, 5, &[2, 3]), &state);
    assert_eq!(led(&leader), [None, Some(1)]);
    leader.heartbeat(3, 7, &full(3, 7, &[2]), &state);
    assert_eq!(led(&leader), [Some(3), Some(1)]);
}

#[test]
fn reports_of_others_and_without_a_range_are_ignored() {
    let (mut leader, state) = (Leader::default(), state(5));
    let mut heartbeat = full(1, 6, &[2, 3]);
    heartbeat.ranges[0].range = None;
    heartbeat.ranges[1].leader_store = 2;
    leader.heartbeat(0, 7, &heartbeat, &state);
    // Store 5 holds no replica of range 4.
    leader.heartbeat(0, 7, &full(5, 6, &[4]), &state);
    assert!(leader.routes().is_empty());
}

#[test]
fn a_store_that_serves_is_not_removed() {
    let (mut leader, state) = (Leader::default(), state(3));
    leader.heartbeat(0, 7, &full(1, 6, &[2, 3]), &state);
    let check =
        |leader: &Leader, now_ms, store| leader.check_removal(now_ms, StoreId(store), &state);
    assert!(check(&leader, 0, 3).unwrap_err().contains("waiting for 2"));
    leader.heartbeat(0, 7, &full(2, 6, &[]), &state);
    assert_eq!(
        check(&leader, 100, 2).unwrap_err(),
        "store 2 is up and holds 2 replicas; drain it first, or stop it"
    );
    assert_eq!(check(&leader, 100, 3), Ok(()));
    assert_eq!(check(&leader, 60_000, 2), Ok(()));
}
