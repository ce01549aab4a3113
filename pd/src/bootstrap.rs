//! The first descriptors of a new cluster, from its list of members.
//!
//! Pure and deterministic: whoever has the same list computes the same plan.
//!
//! Invariants, checked by the property tests below:
//! - The ranges tile the keyspace: the first starts at "", each starts where the one before
//!   ends, the last ends at "".
//! - Range 1 is `["", 0x10)`, on the first members: an odd number of them, five at most, all voters.
//! - Data ranges are cut where Redis slots start, as evenly as integers allow. What
//!   lies outside the slots falls to the first and the last one.
//! - Replica ids are unique, and every id lies below [`FIRST_ALLOCATED_ID`].
//! - The replicas that stores hold of data ranges differ by at most one in number; the
//!   leaderships that they are to take by at most two, and by one with the default layout.
//! - A range's preferred leader is its first replica, so that a store which only receives
//!   descriptors knows it too.

use crate::config::ReplicationFactor;
use crate::keys;
use bytes::Bytes;
use rangekv_model::redis::keys as redis;
use rangekv_proto::internal as pb;
use rangekv_proto::{
    Epoch, RangeDescriptor, RangeId, Replica, ReplicaId, ReplicaRole, StoreId, PLACEMENT_RANGE,
};
use std::collections::BTreeSet;
use std::fmt;

/// Ids below are for bootstrap; `AllocateIds` hands out this one first.
pub const FIRST_ALLOCATED_ID: u64 = 100_000;

/// Data ranges at bootstrap, at most: one per Redis slot.
pub const DATA_RANGES_MAX: usize = redis::SLOTS as usize;

/// Members that one bootstrap accepts; more can join later.
pub const MEMBERS_MAX: usize = 1_000;

/// Data ranges of a cluster whose bootstrap doesn't say otherwise: one for each store to lead,
/// and some to move when stores join. Not more: fewer ranges fold more commands into an entry
/// (docs/PERFORMANCE.md), and ranges that grow are split.
pub const fn default_data_ranges(members: usize) -> usize {
    if members < 3 {
        3
    } else {
        members
    }
}

/// A member of a new cluster, as `name=address` names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Unique name, e.g. `n1`.
    pub name: String,
    /// gRPC address, `host:port`, as others reach it.
    pub grpc_address: String,
}

/// The initial layout of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bootstrap {
    /// Members in the order given; the store ids are 1, 2, …
    pub stores: Vec<(StoreId, Member)>,
    /// All ranges in key order, and in the order of their ids.
    pub ranges: Vec<RangeDescriptor>,
}

/// Why a list of members makes no cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootstrapError {
    /// None, or more than [`MEMBERS_MAX`].
    MemberCount(usize),
    /// A name or address that is empty.
    EmptyMember(Member),
    /// A name or address that stands twice.
    Duplicate(String),
    /// None, or more than [`DATA_RANGES_MAX`].
    RangeCount(usize),
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemberCount(n) => {
                write!(f, "{n} bootstrap members; expected 1 to {MEMBERS_MAX}")
            }
            Self::EmptyMember(m) => write!(
                f,
                "bootstrap member \"{}={}\" lacks its name or its address; expected name=host:port",
                m.name, m.grpc_address
            ),
            Self::Duplicate(what) => {
                write!(f, "\"{what}\" stands twice among the bootstrap members")
            }
            Self::RangeCount(n) => write!(
                f,
                "{n} initial data ranges; expected 1 to {DATA_RANGES_MAX}"
            ),
        }
    }
}

impl std::error::Error for BootstrapError {}

impl Bootstrap {
    /// Lays out `data_ranges` data ranges and range 1 over `members`.
    pub fn plan(
        members: &[Member],
        data_ranges: usize,
        factor: ReplicationFactor,
    ) -> Result<Bootstrap, BootstrapError> {
        if !(1..=DATA_RANGES_MAX).contains(&data_ranges) {
            return Err(BootstrapError::RangeCount(data_ranges));
        }
        Self::lay_out(members, data_ranges, factor)
    }

    /// Lays out range 1 alone, over placement nodes: the data ranges come with the first store
    /// (data_founding.rs).
    pub fn plan_placement(members: &[Member]) -> Result<Bootstrap, BootstrapError> {
        Self::lay_out(members, 0, ReplicationFactor::Auto)
    }

    fn lay_out(
        members: &[Member],
        data_ranges: usize,
        factor: ReplicationFactor,
    ) -> Result<Bootstrap, BootstrapError> {
        check_members(members)?;
        let stores: Vec<StoreId> = (1..=members.len() as u64).map(StoreId).collect();
        let factor = factor.replicas(stores.len());
        let mut next_replica = 1;
        let mut describe = |id: RangeId, start: Bytes, end: Bytes, on: &[StoreId]| {
            let replicas = on.iter().map(|&store| {
                let id = ReplicaId(next_replica);
                next_replica += 1;
                Replica {
                    id,
                    store,
                    role: ReplicaRole::Voter,
                }
            });
            let replicas = replicas.collect();
            RangeDescriptor {
                id,
                start,
                end,
                epoch: Epoch {
                    conf_version: 1,
                    version: 1,
                },
                replicas,
            }
        };

        let placement = &stores[..ReplicationFactor::Auto.replicas(stores.len())];
        let data_start = Bytes::from_static(keys::PLACEMENT_END);
        let mut ranges = vec![describe(
            PLACEMENT_RANGE,
            Bytes::new(),
            data_start.clone(),
            placement,
        )];

        // How many ranges each store is to lead; range 1 is the first store's.
        let mut leads = vec![0usize; stores.len()];
        leads[0] = 1;
        let mut start = data_start;
        for i in 0..data_ranges {
            let end = data_end(i, data_ranges);
            // The next `factor` stores in turn, so that their replica counts stay within one.
            let mut on: Vec<usize> = (0..factor)
                .map(|j| (i * factor + j) % stores.len())
                .collect();
            let leader = (0..factor)
                .min_by_key(|&j| leads[on[j]])
                .expect("factor is at least 1");
            on.rotate_left(leader);
            leads[on[0]] += 1;
            let on: Vec<StoreId> = on.into_iter().map(|s| stores[s]).collect();
            ranges.push(describe(RangeId(2 + i as u64), start, end.clone(), &on));
            start = end;
        }
        assert!(
            next_replica <= FIRST_ALLOCATED_ID,
            "replica ids up to {next_replica}"
        );
        Ok(Bootstrap {
            stores: stores.into_iter().zip(members.iter().cloned()).collect(),
            ranges,
        })
    }

    /// The store that first campaigns for `range`; `None` if there is no such range.
    pub fn preferred_leader(&self, range: RangeId) -> Option<StoreId> {
        preferred_leader(self.ranges.iter().find(|r| r.id == range)?)
    }

    /// What `store` needs to take its place; `incarnation` is that of its data directory.
    pub fn initialise(
        &self,
        cluster: u64,
        store: StoreId,
        incarnation: u64,
    ) -> Option<pb::Initialise> {
        let (_, member) = self.stores.iter().find(|(id, _)| *id == store)?;
        Some(pb::Initialise {
            cluster,
            store: store.0,
            name: member.name.clone(),
            incarnation,
            ranges: self
                .ranges
                .iter()
                .filter(|r| r.replica_on(store).is_some())
                .map(Into::into)
                .collect(),
            stores: self
                .stores
                .iter()
                .map(|(id, m)| pb::StoreAddress {
                    store: id.0,
                    name: m.name.clone(),
                    grpc_address: m.grpc_address.clone(),
                })
                .collect(),
        })
    }
}

/// Where data range `i` of `data_ranges` ends: at a slot, and the last one nowhere.
fn data_end(i: usize, data_ranges: usize) -> Bytes {
    match i + 1 {
        last if last == data_ranges => Bytes::new(),
        cut => redis::slot_start((cut * DATA_RANGES_MAX / data_ranges) as u16),
    }
}

/// All data ranges, `data_ranges` of them, with one replica each, on `store`. Takes twice as
/// many ids, from `first_id` on.
pub fn data_ranges_on(store: StoreId, data_ranges: usize, first_id: u64) -> Vec<RangeDescriptor> {
    assert!((1..=DATA_RANGES_MAX).contains(&data_ranges));
    let mut start = Bytes::from_static(keys::PLACEMENT_END);
    let describe = |i| {
        let end = data_end(i, data_ranges);
        RangeDescriptor {
            id: RangeId(first_id + i as u64),
            start: std::mem::replace(&mut start, end.clone()),
            end,
            epoch: Epoch {
                conf_version: 1,
                version: 1,
            },
            replicas: vec![Replica {
                id: ReplicaId(first_id + (data_ranges + i) as u64),
                store,
                role: ReplicaRole::Voter,
            }],
        }
    };
    (0..data_ranges).map(describe).collect()
}

/// The store that campaigns first for a range just bootstrapped, so that leaders are spread
/// from the first minute; the others wait out their election timeout.
pub fn preferred_leader(range: &RangeDescriptor) -> Option<StoreId> {
    range.replicas.first().map(|r| r.store)
}

fn check_members(members: &[Member]) -> Result<(), BootstrapError> {
    if !(1..=MEMBERS_MAX).contains(&members.len()) {
        return Err(BootstrapError::MemberCount(members.len()));
    }
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for m in members {
        if m.name.is_empty() || m.grpc_address.is_empty() {
            return Err(BootstrapError::EmptyMember(m.clone()));
        }
        if !names.insert(&m.name) {
            return Err(BootstrapError::Duplicate(m.name.clone()));
        }
        if !addresses.insert(&m.grpc_address) {
            return Err(BootstrapError::Duplicate(m.grpc_address.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn members(n: usize) -> Vec<Member> {
        let member = |i| Member {
            name: format!("n{i}"),
            grpc_address: format!("10.0.0.{i}:50051"),
        };
        (1..=n).map(member).collect()
    }

    fn plan(n: usize, ranges: usize) -> Bootstrap {
        Bootstrap::plan(&members(n), ranges, ReplicationFactor::Auto).unwrap()
    }

    /// Largest minus smallest number of times that a store is named.
    fn spread(n: usize, named: impl Iterator<Item = StoreId>) -> usize {
        let mut counts: BTreeMap<StoreId, usize> =
            (1..=n as u64).map(|s| (StoreId(s), 0)).collect();
        named.for_each(|s| *counts.get_mut(&s).unwrap() += 1);
        counts.values().max().unwrap() - counts.values().min().unwrap()
    }

    fn check(n: usize, data_ranges: usize) {
        let plan = plan(n, data_ranges);
        assert_eq!(plan.ranges.len(), data_ranges + 1);
        assert_eq!(plan.ranges[0].start, "");
        assert_eq!(plan.ranges[0].end, keys::PLACEMENT_END);
        let placement = ReplicationFactor::Auto.replicas(n);
        assert_eq!(plan.ranges[0].replicas.len(), placement);
        assert_eq!(plan.ranges.last().unwrap().end, "");
        let factor = [1, 1, 3, 3, 5].get(n - 1).copied().unwrap_or(5);
        for (i, pair) in plan.ranges.windows(2).enumerate() {
            assert_eq!(pair[0].end, pair[1].start);
            assert!(pair[0].start < pair[0].end, "range {} is empty", pair[0].id);
            assert_eq!(pair[1].id, RangeId(i as u64 + 2));
            assert_eq!(pair[1].replicas.len(), factor);
        }
        let mut ids = BTreeSet::new();
        for range in &plan.ranges {
            assert_eq!(
                range.epoch,
                Epoch {
                    conf_version: 1,
                    version: 1
                }
            );
            let on: BTreeSet<StoreId> = range.replicas.iter().map(|r| r.store).collect();
            assert_eq!(
                on.len(),
                range.replicas.len(),
                "two replicas on a store: {range:?}"
            );
            for r in &range.replicas {
                assert!(ids.insert(r.id), "replica {} twice", r.id);
                assert!(r.id.0 < FIRST_ALLOCATED_ID && r.role == ReplicaRole::Voter);
            }
        }
        let held = plan.ranges[1..]
            .iter()
            .flat_map(|r| r.replicas.iter().map(|r| r.store));
        assert!(
            spread(n, held) <= 1,
            "replicas of {n} stores, {data_ranges} ranges"
        );
        let led = plan
            .ranges
            .iter()
            .map(|r| plan.preferred_leader(r.id).unwrap());
        let most = if data_ranges == default_data_ranges(n) && (3..=5).contains(&n) {
            1
        } else {
            2
        };
        assert!(
            spread(n, led) <= most,
            "leaders of {n} stores, {data_ranges} ranges"
        );
    }

    #[test]
    fn every_small_cluster() {
        for n in 1..=12 {
            for data_ranges in 1..=50 {
                check(n, data_ranges);
            }
        }
    }

    #[test]
    fn every_slot_a_range() {
        check(5, DATA_RANGES_MAX);
        check(7, DATA_RANGES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_clusters(n in 1usize..40, data_ranges in 1usize..2000) {
            check(n, data_ranges);
        }
    }

    #[test]
    fn placement_nodes_hold_range_1_alone() {
        for n in 1..=7 {
            let plan = Bootstrap::plan_placement(&members(n)).unwrap();
            assert_eq!(plan.ranges.len(), 1);
            assert_eq!(plan.ranges[0].id, PLACEMENT_RANGE);
            assert_eq!(plan.ranges[0].end, keys::PLACEMENT_END);
            let voters = ReplicationFactor::Auto.replicas(n);
            assert_eq!(plan.ranges[0].replicas.len(), voters);
        }
    }

    #[test]
    fn the_first_store_holds_all_data() {
        for count in [1, 2, 3, 5, 1000, DATA_RANGES_MAX] {
            let ranges = data_ranges_on(StoreId(9), count, 500);
            assert_eq!(ranges.len(), count);
            assert_eq!(ranges[0].start, keys::PLACEMENT_END);
            assert_eq!(ranges[count - 1].end, "");
            assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
            assert!(ranges.iter().all(|r| r.end.is_empty() || r.start < r.end));
            let ids: BTreeSet<u64> = ranges.iter().map(|r| r.id.0).collect();
            let replicas: BTreeSet<u64> = ranges.iter().map(|r| r.replicas[0].id.0).collect();
            let all: BTreeSet<u64> = ids.union(&replicas).copied().collect();
            assert_eq!(all, (500..500 + 2 * count as u64).collect());
            assert!(ranges.iter().all(|r| r.replicas[0].store == StoreId(9)));
        }
    }

    #[test]
    fn five_stores() {
        let plan = plan(5, default_data_ranges(5));
        assert_eq!(plan.ranges.len(), 6);
        assert_eq!(plan.ranges[1].start, &[0x10][..]);
        assert_eq!(plan.ranges[1].end, &[0x20, 0x0c, 0xcc][..]);
        assert_eq!(plan.ranges[5].start, &[0x20, 0x33, 0x33][..]);
        let init = plan.initialise(77, StoreId(2), 9).unwrap();
        assert_eq!(
            (init.cluster, init.store, init.name.as_str()),
            (77, 2, "n2")
        );
        assert_eq!((init.ranges.len(), init.stores.len()), (6, 5));
        assert_eq!(plan.initialise(77, StoreId(6), 9), None);
    }

    #[test]
    fn refusals_quote_the_entry() {
        let refused = |m: &[Member], ranges| {
            Bootstrap::plan(m, ranges, ReplicationFactor::Auto)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused(&[], 1), "0 bootstrap members; expected 1 to 1000");
        assert_eq!(
            refused(&members(3), 0),
            "0 initial data ranges; expected 1 to 16384"
        );
        let mut twice = members(2);
        twice[1].name = "n1".into();
        assert_eq!(
            refused(&twice, 1),
            "\"n1\" stands twice among the bootstrap members"
        );
        twice[1].name = String::new();
        assert!(refused(&twice, 1).starts_with("bootstrap member \"=10.0.0.2:50051\" lacks"));
    }
}
