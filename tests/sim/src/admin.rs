//! The hand that reshapes ranges while all else goes on: splits, transfers, membership changes.
//!
//! It decides from what a leader (or who takes itself for one) last said, so that its commands
//! are often stale; stores must refuse those. Ids come from a simulated allocator and are never
//! given out twice.
//!
//! It follows the rules that the placement driver must follow, no others: a joint configuration
//! is left before the next change; demotion is by exchange, unless no store is ever lost for good.

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::Rng;
use rangekv_model::redis::keys::slot_start;
use rangekv_proto::internal::admin_command::{
    Change, ChangeKind, ChangeReplicas, Kind, Split, TransferLeader,
};
use rangekv_proto::internal::AdminCommand;
use rangekv_proto::{
    Body, LeaderHint, RangeDescriptor, RangeId, Replica, ReplicaRole, Request, StoreId,
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
        self.next_id += 1;
        self.next_id
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
