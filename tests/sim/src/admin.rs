//! The hand that reshapes ranges while all else goes on: splits, merges, transfers, membership changes.
//!
//! It decides from what a leader (or who takes itself for one) last said, so that its commands
//! are often stale; stores must refuse those. Ids come from a simulated allocator and are never
//! given out twice.
//!
//! It follows the rules that the placement driver must follow, no others: a joint configuration
//! is left before the next change; demotion is by exchange, unless no store is ever lost for good.

use crate::nemesis::Trouble;
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::Rng;
use rangekv_model::redis::keys::slot_start;
use rangekv_proto::internal::admin_command::{
    Change, ChangeKind, ChangeReplicas, Kind, Merge, Split, TransferLeader,
};
use rangekv_proto::internal::AdminCommand;
use rangekv_proto::{
    Body, LeaderHint, Mark, RangeDescriptor, RangeId, Replica, ReplicaRole, Request, StoreId,
    PLACEMENT_RANGE,
};

/// A range as its leader shows it.
pub type Led = (RangeDescriptor, LeaderHint);

/// See the module's documentation.
pub struct Admin {
    rng: SmallRng,
    next_id: u64,
    /// No more splits beyond this many ranges.
    ranges_max: usize,
}

fn encode(kind: Kind) -> Bytes {
    AdminCommand { kind: Some(kind) }.encode_to_vec().into()
}

fn request(led: &Led, kind: Kind) -> (StoreId, Request) {
    let (descriptor, hint) = led;
    let request = Request {
        range: descriptor.id,
        version: descriptor.epoch.version,
        term: 0,
        mark: Mark::NONE,
        body: Body::Admin(encode(kind)),
    };
    (hint.store, request)
}

fn voters(d: &RangeDescriptor) -> impl Iterator<Item = &Replica> {
    d.replicas.iter().filter(|r| r.role == ReplicaRole::Voter)
}

impl Admin {
    /// An admin that gives out ids from `first_id` on.
    pub fn new(mut rng: SmallRng, first_id: u64) -> Admin {
        let ranges_max = rng.random_range(4..14);
        Admin {
            rng,
            next_id: first_id,
            ranges_max,
        }
    }

    fn allocate(&mut self) -> u64 {
        self.allocate_many(1)
    }

    /// The first of `count` ids.
    pub fn allocate_many(&mut self, count: u64) -> u64 {
        self.next_id += count;
        self.next_id + 1 - count
    }

    /// A split at or near one of `keys`.
    pub fn split(&mut self, ranges: &[Led], keys: &[Bytes]) -> Option<(StoreId, Request)> {
        if ranges.len() >= self.ranges_max {
            return None;
        }
        let key = keys.choose(&mut self.rng)?;
        let led = ranges.iter().find(|(d, _)| d.contains(key))?;
        let descriptor = &led.0;
        let slot = u16::from_be_bytes([key[1], key[2]]);
        let at = match self.rng.random_range(0..4) {
            0 => key.clone(),
            1 => slot_start(slot),
            2 => slot_start((slot + 1).min(16_383)),
            // Anywhere; often refused.
            _ => slot_start(self.rng.random_range(0..16_384)),
        };
        if !descriptor.contains(&at) || at == descriptor.start {
            return None;
        }
        let new_range = RangeId(self.allocate());
        let new_replicas = descriptor
            .replicas
            .iter()
            .map(|_| self.allocate())
            .collect();
        Some(request(
            led,
            Kind::Split(Split {
                key: at,
                new_range: new_range.0,
                new_replicas,
            }),
        ))
    }

    /// A step towards a merge of some two neighbours: the merge, if they lie on the same stores and
    /// are led by the same one, else what brings them together.
    pub fn merge(
        &mut self,
        ranges: &[Led],
        stores: &[StoreId],
    ) -> Option<((StoreId, Request), Trouble)> {
        let mut sorted: Vec<&Led> = ranges
            .iter()
            .filter(|(d, _)| d.id != PLACEMENT_RANGE)
            .collect();
        sorted.sort_by(|a, b| a.0.start.cmp(&b.0.start));
        let pairs: Vec<&[&Led]> = sorted
            .windows(2)
            .filter(|pair| pair[0].0.end == pair[1].0.start)
            .collect();
        let [left, right] = pairs.choose(&mut self.rng)? else {
            return None;
        };
        let (t, s) = (&left.0, &right.0);
        let on = |d: &RangeDescriptor, store| d.replica_on(store).is_some();
        let together = t.replicas.iter().all(|r| on(s, r.store))
            && s.replicas.iter().all(|r| on(t, r.store))
            && [t, s].iter().all(|d| voters(d).count() == d.replicas.len());
        let at_once = self.rng.random_bool(0.05);
        if together && left.1.store == right.1.store || at_once {
            // At times the epoch is another one: refused.
            let past = u64::from(self.rng.random_bool(0.05));
            let merge = Kind::Merge(Merge {
                source: s.id.0,
                source_conf_version: s.epoch.conf_version,
                source_version: s.epoch.version.saturating_sub(past),
            });
            return Some((request(left, merge), Trouble::Merge));
        }
        if together {
            let to = Kind::TransferLeader(TransferLeader {
                store: left.1.store.0,
            });
            return Some((request(right, to), Trouble::Transfer));
        }
        self.approach(left, right, stores)
            .map(|command| (command, Trouble::Membership))
    }

    /// `left` absorbs `right`.
    pub fn absorb(&self, left: &Led, right: &Led) -> (StoreId, Request) {
        let source = &right.0;
        let merge = Kind::Merge(Merge {
            source: source.id.0,
            source_conf_version: source.epoch.conf_version,
            source_version: source.epoch.version,
        });
        request(left, merge)
    }

    /// `store` leads the range.
    pub fn lead(&self, led: &Led, store: StoreId) -> (StoreId, Request) {
        request(led, Kind::TransferLeader(TransferLeader { store: store.0 }))
    }

    /// The next step by which a replica moves; `None` when it has.
    pub fn move_step(
        &mut self,
        led: &Led,
        from: StoreId,
        to: StoreId,
    ) -> Option<(StoreId, Request)> {
        let d = &led.0;
        if d.is_joint() {
            return Some(Self::change(led, Vec::new(), true));
        }
        let changes = match (d.replica_on(from), d.replica_on(to)) {
            (Some(_), None) => return self.add_learner(led, &[to]),
            (Some(old), Some(new)) if old.role == ReplicaRole::Voter => {
                vec![one(ChangeKind::Promote, new), one(ChangeKind::Demote, old)]
            }
            (Some(old), Some(_)) => vec![one(ChangeKind::RemoveLearner, old)],
            (None, _) => return None,
        };
        Some(Self::change(led, changes, false))
    }

    /// The next step of `right`'s members towards the stores of `left`.
    fn approach(
        &mut self,
        left: &Led,
        right: &Led,
        stores: &[StoreId],
    ) -> Option<(StoreId, Request)> {
        if let Some(repair) = self
            .repair_range(left, stores)
            .or_else(|| self.repair_range(right, stores))
        {
            return Some(repair);
        }
        for (a, b) in [(left, right), (right, left)] {
            // Learners are in the way of a merge.
            let learner = a.0.replicas.iter().find(|r| r.role == ReplicaRole::Learner);
            if let Some(learner) = learner.filter(|r| b.0.replica_on(r.store).is_none()) {
                let remove = vec![one(ChangeKind::RemoveLearner, learner)];
                return Some(Self::change(a, remove, false));
            }
        }
        let (t, s) = (&left.0, &right.0);
        let learner = s.replicas.iter().find(|r| r.role == ReplicaRole::Learner);
        let astray = s.replicas.iter().find(|r| t.replica_on(r.store).is_none());
        match (learner, astray) {
            (Some(learner), Some(astray)) if astray.store != right.1.store => {
                let exchange = vec![
                    one(ChangeKind::Promote, learner),
                    one(ChangeKind::Demote, astray),
                ];
                Some(Self::change(right, exchange, false))
            }
            (Some(learner), None) => {
                let promote = vec![one(ChangeKind::Promote, learner)];
                Some(Self::change(right, promote, false))
            }
            (Some(_), Some(_)) => {
                let to = voters(s).find(|r| t.replica_on(r.store).is_some())?;
                let to = Kind::TransferLeader(TransferLeader { store: to.store.0 });
                Some(request(right, to))
            }
            (None, _) => {
                let missing = t.replicas.iter().map(|r| r.store);
                let missing: Vec<StoreId> = missing
                    .filter(|store| s.replica_on(*store).is_none() && stores.contains(store))
                    .collect();
                match missing.is_empty() {
                    false => self.add_learner(right, &missing),
                    // The left one has to follow, then.
                    true => {
                        let missing: Vec<StoreId> = s.replicas.iter().map(|r| r.store).collect();
                        self.add_learner(left, &missing)
                    }
                }
            }
        }
    }

    /// A transfer to any voter.
    pub fn transfer(&mut self, ranges: &[Led]) -> Option<(StoreId, Request)> {
        let led = ranges.choose(&mut self.rng)?;
        let others: Vec<&Replica> = voters(&led.0).filter(|r| r.store != led.1.store).collect();
        let to = others.choose(&mut self.rng)?;
        Some(request(
            led,
            Kind::TransferLeader(TransferLeader { store: to.store.0 }),
        ))
    }

    /// A change of the members of some range. `stores` are those that may hold replicas;
    /// replicas elsewhere are to be replaced.
    pub fn change_members(
        &mut self,
        ranges: &[Led],
        stores: &[StoreId],
        careful: bool,
    ) -> Option<(StoreId, Request)> {
        let led = ranges.choose(&mut self.rng)?;
        self.repair_range(led, stores)
            .or_else(|| self.disturb_range(led, stores, careful))
    }

    /// The next step that makes some range as it should be at rest: in no joint configuration,
    /// with no replica on a store that is lost, with at least three voters. `None` if all are.
    pub fn repair(&mut self, ranges: &[Led], stores: &[StoreId]) -> Vec<(StoreId, Request)> {
        ranges
            .iter()
            .filter_map(|led| self.repair_range(led, stores))
            .collect()
    }

    fn change(led: &Led, changes: Vec<Change>, leave_joint: bool) -> (StoreId, Request) {
        let conf_version = led.0.epoch.conf_version;
        request(
            led,
            Kind::ChangeReplicas(ChangeReplicas {
                conf_version,
                changes,
                leave_joint,
            }),
        )
    }

    fn repair_range(&mut self, led: &Led, stores: &[StoreId]) -> Option<(StoreId, Request)> {
        let d = &led.0;
        if d.is_joint() {
            return Some(Self::change(led, Vec::new(), true));
        }
        let learner = d
            .replicas
            .iter()
            .find(|r| r.role == ReplicaRole::Learner && stores.contains(&r.store));
        let lost = d.replicas.iter().find(|r| !stores.contains(&r.store));
        let wanted = 3;
        if let Some(lost) = lost {
            if lost.role == ReplicaRole::Learner {
                return Some(Self::change(
                    led,
                    vec![one(ChangeKind::RemoveLearner, lost)],
                    false,
                ));
            }
            if lost.store == led.1.store {
                return None;
            }
            if let Some(learner) = learner {
                let exchange = vec![
                    one(ChangeKind::Promote, learner),
                    one(ChangeKind::Demote, lost),
                ];
                return Some(Self::change(led, exchange, false));
            }
            return self.add_learner(led, stores);
        }
        if voters(d).count() < wanted && stores.len() >= wanted {
            return match learner {
                Some(learner) => Some(Self::change(
                    led,
                    vec![one(ChangeKind::Promote, learner)],
                    false,
                )),
                None => self.add_learner(led, stores),
            };
        }
        None
    }

    fn add_learner(&mut self, led: &Led, stores: &[StoreId]) -> Option<(StoreId, Request)> {
        let free: Vec<StoreId> = stores
            .iter()
            .copied()
            .filter(|s| led.0.replica_on(*s).is_none())
            .collect();
        let store = *free.choose(&mut self.rng)?;
        let add = Change {
            kind: ChangeKind::AddLearner as i32,
            replica: self.allocate(),
            store: store.0,
        };
        Some(Self::change(led, vec![add], false))
    }

    fn disturb_range(
        &mut self,
        led: &Led,
        stores: &[StoreId],
        careful: bool,
    ) -> Option<(StoreId, Request)> {
        let d = &led.0;
        if d.id == PLACEMENT_RANGE && careful {
            return None;
        }
        let learners: Vec<&Replica> = d
            .replicas
            .iter()
            .filter(|r| r.role == ReplicaRole::Learner)
            .collect();
        let others: Vec<&Replica> = voters(d).filter(|r| r.store != led.1.store).collect();
        let learner = learners.choose(&mut self.rng).copied();
        let other = others.choose(&mut self.rng).copied();
        match (self.rng.random_range(0..10), learner, other) {
            // A replacement, in a joint configuration.
            (0..=4, Some(learner), Some(other)) => {
                let exchange = vec![
                    one(ChangeKind::Promote, learner),
                    one(ChangeKind::Demote, other),
                ];
                Some(Self::change(led, exchange, false))
            }
            (5, Some(learner), _) => Some(Self::change(
                led,
                vec![one(ChangeKind::Promote, learner)],
                false,
            )),
            (6 | 7, Some(learner), _) => Some(Self::change(
                led,
                vec![one(ChangeKind::RemoveLearner, learner)],
                false,
            )),
            (8, _, Some(other)) if !careful && voters(d).count() > 2 => Some(Self::change(
                led,
                vec![one(ChangeKind::Demote, other)],
                false,
            )),
            (_, None, _) => self.add_learner(led, stores).or_else(|| {
                // No store is free: on three stores, make one so.
                let other = other.filter(|_| !careful && voters(d).count() > 2)?;
                Some(Self::change(
                    led,
                    vec![one(ChangeKind::Demote, other)],
                    false,
                ))
            }),
            _ => None,
        }
    }
}

fn one(kind: ChangeKind, replica: &Replica) -> Change {
    Change {
        kind: kind as i32,
        replica: replica.id.0,
        store: replica.store.0,
    }
}
