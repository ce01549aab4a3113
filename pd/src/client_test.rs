//! Both ends of the heartbeat together, with and without losses.

use super::*;
use crate::bootstrap::{Bootstrap, Member};
use crate::config::ReplicationFactor;
use crate::leader::Leader;
use crate::operator::Step;
use proptest::prelude::*;
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId};

/// Three stores whose elections are ours to hold, and a placement driver.
struct Cluster {
    ranges: BTreeMap<RangeId, (RangeDescriptor, LeaderHint)>,
    stores: Vec<HeartbeatState>,
    leader: Leader,
    term: u64,
    state: PlacementState,
    now_ms: u64,
}

impl Cluster {
    fn new() -> Cluster {
        let name = |i| Member {
            name: format!("n{i}"),
            grpc_address: format!("h{i}:1"),
        };
        let members: Vec<Member> = (1..=3).map(name).collect();
        let plan = Bootstrap::plan(&members, 8, ReplicationFactor::Auto).unwrap();
        let record = |(id, m): &(StoreId, Member)| StoreRecord {
            store: id.0,
            name: m.name.clone(),
            incarnation: 70,
            grpc_address: m.grpc_address.clone(),
            ..Default::default()
        };
        // Store 1 was up first and leads everything.
        let led = |r: &RangeDescriptor| {
            (
                r.id,
                (
                    r.clone(),
                    LeaderHint {
                        store: StoreId(1),
                        term: 6,
                    },
                ),
            )
        };
        Cluster {
            ranges: plan.ranges.iter().map(led).collect(),
            stores: (1..=3)
                .map(|id| HeartbeatState::new(StoreId(id), 70))
                .collect(),
            leader: Leader::default(),
            term: 7,
            state: PlacementState {
                stores: plan.stores.iter().map(record).collect(),
                ..Default::default()
            },
            now_ms: 0,
        }
    }

    fn vitals(&self, store: StoreId) -> Vitals {
        let led = self
            .ranges
            .values()
            .filter(|(_, leader)| leader.store == store);
        let report = |(range, leader): &(RangeDescriptor, LeaderHint)| RangeReport {
            range: Some(range.into()),
            leader_store: leader.store.0,
            term: leader.term,
            ..Default::default()
        };
        Vitals {
            led: led.map(report).collect(),
            ..Vitals::default()
        }
    }

    /// One step of time: who is due sends. `lost` decides whether the heartbeat, and whether
    /// the reply is lost. Returns the number of reports sent.
    fn step(&mut self, mut lost: impl FnMut() -> bool) -> usize {
        self.now_ms += 50;
        let mut reports = 0;
        for i in 0..self.stores.len() {
            let store = StoreId(i as u64 + 1);
            if !self.stores[i].due(self.now_ms) {
                continue;
            }
            let vitals = self.vitals(store);
            let (ticket, heartbeat) = self.stores[i].build(self.now_ms, vitals);
            reports += heartbeat.ranges.len();
            if lost() {
                self.stores[i].failed(ticket);
                continue;
            }
            let reply = self
                .leader
                .heartbeat(self.now_ms, self.term, &heartbeat, &self.state);
            if lost() {
                continue;
            }
            let news = self.stores[i].reply(self.now_ms, ticket, &reply).unwrap();
            for order in news.orders {
                let Step::TransferLeader(to) = order.step else {
                    panic!("nothing else is to be done: {order:?}");
                };
                let (range, leader) = self.ranges.get_mut(&order.range).unwrap();
                assert_eq!((range.epoch, leader.store), (order.epoch, store));
                *leader = LeaderHint {
                    store: to,
                    term: leader.term + 1,
                };
                self.stores[i].changed();
                self.stores[to.0 as usize - 1].changed();
            }
        }
        reports
    }

    /// Whether everyone knows where everything is.
    fn agreed(&self) -> bool {
        let truth: Vec<Route> = self
            .ranges
            .values()
            .map(|(range, leader)| Route {
                range: range.clone(),
                leader: Some(*leader),
            })
            .collect();
        let knows = |routes: &Routes| routes.iter().cloned().collect::<Vec<_>>() == truth;
        knows(self.leader.routes()) && self.stores.iter().all(|s| knows(s.routes()))
    }
}

#[test]
fn leaders_spread_and_then_all_is_quiet() {
    let mut cluster = Cluster::new();
    for _ in 0..200 {
        cluster.step(|| false);
    }
    assert!(cluster.agreed());
    let mut led = BTreeMap::new();
    cluster
        .ranges
        .values()
        .for_each(|(_, l)| *led.entry(l.store.0).or_insert(0) += 1);
    assert_eq!(led, BTreeMap::from([(1, 3), (2, 3), (3, 3)]));
    // Ten seconds in which nothing changes: heartbeats, but nothing to report.
    let reports: usize = (0..200).map(|_| cluster.step(|| false)).sum();
    assert_eq!(reports, 0);
    assert_eq!(cluster.stores[2].stores().len(), 3);
}

#[test]
fn a_new_placement_leader_is_told_everything_at_once() {
    let mut cluster = Cluster::new();
    for _ in 0..200 {
        cluster.step(|| false);
    }
    cluster.term += 1;
    // One interval to notice, one gap to report in full, one interval to hear of the others.
    for _ in 0..45 {
        cluster.step(|| false);
    }
    assert!(cluster.agreed());
    assert!(cluster.leader.is_ready(&cluster.state));
    assert_eq!(cluster.leader.term(), 8);
}

#[test]
fn a_change_is_reported_at_once_and_a_small_one_not_at_all() {
    let mut state = HeartbeatState::new(StoreId(1), 70);
    let acknowledge = |state: &mut HeartbeatState, now_ms, vitals| {
        let (ticket, heartbeat) = state.build(now_ms, vitals);
        let reply = HeartbeatReply {
            routes_term: 7,
            ..Default::default()
        };
        state.reply(now_ms, ticket, &reply).unwrap();
        (heartbeat.full, heartbeat.ranges.len())
    };
    let vitals = |size_bytes, term| Vitals {
        led: vec![RangeReport {
            range: Some(rangekv_proto::internal::RangeDescriptor {
                id: 2,
                ..Default::default()
            }),
            leader_store: 1,
            term,
            size_bytes,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert!(state.due(0));
    assert_eq!(acknowledge(&mut state, 0, vitals(0, 6)), (true, 1));
    assert!(!state.due(999) && state.due(1_000));
    assert_eq!(
        acknowledge(&mut state, 1_000, vitals(1 << 20, 6)),
        (false, 0)
    );
    assert_eq!(
        acknowledge(&mut state, 2_000, vitals(3 << 20, 6)),
        (false, 1)
    );
    state.changed();
    assert!(!state.due(2_049) && state.due(2_050));
    assert_eq!(
        acknowledge(&mut state, 2_050, vitals(3 << 20, 7)),
        (false, 1)
    );
    assert!(!state.due(2_100));
    // Led no longer: only a full report can say so.
    assert_eq!(acknowledge(&mut state, 3_100, Vitals::default()), (true, 0));
    assert_eq!(
        acknowledge(&mut state, 4_100, Vitals::default()),
        (false, 0)
    );
}

#[test]
fn what_was_not_answered_is_reported_again() {
    let mut state = HeartbeatState::new(StoreId(1), 70);
    let (lost, _) = state.build(0, Vitals::default());
    assert!(!state.due(1_999) && state.due(2_000));
    let (ticket, again) = state.build(2_000, Vitals::default());
    assert!(again.full);
    state.failed(lost);
    assert!(!state.due(2_500), "the second one is still under way");
    state.failed(ticket);
    assert!(!state.due(2_199) && state.due(2_200));
    let (ticket, _) = state.build(2_200, Vitals::default());
    let refusal = HeartbeatReply {
        error: "no".into(),
        routes_term: 9,
        ..Default::default()
    };
    assert_eq!(state.reply(2_200, ticket, &refusal), Err("no".into()));
    assert!(state.build(3_200, Vitals::default()).1.full);
}

proptest! {
    #[test]
    fn everyone_agrees_once_the_losses_end(
        losses in prop::collection::vec(any::<bool>(), 0..400),
        elections in prop::collection::vec((0usize..300, 1u64..4, 1u64..10), 0..20),
        takeovers in prop::collection::vec(0usize..300, 0..4),
    ) {
        let mut cluster = Cluster::new();
        let mut losses = losses.into_iter();
        for step in 0..300 {
            for (_, store, range) in elections.iter().filter(|(at, ..)| *at == step) {
                let (_, leader) = cluster.ranges.get_mut(&RangeId(*range)).unwrap();
                *leader = LeaderHint { store: StoreId(*store), term: leader.term + 1 };
            }
            cluster.term += takeovers.iter().filter(|at| **at == step).count() as u64;
            cluster.step(|| losses.next().unwrap_or(false));
        }
        // Enough for transfers to be ordered, to arrive, and to be heard of.
        for _ in 0..2_000 {
            cluster.step(|| false);
        }
        prop_assert!(cluster.agreed());
    }
}
