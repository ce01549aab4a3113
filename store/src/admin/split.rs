//! Splits a range in two at a key.
//!
//! Propose: the leader checks the epoch (as for any request), that the key lies strictly
//!   inside, that each replica gets a new id, and that no membership change is under way.
//!   From here until the entry is applied nothing else is proposed in this range (E3).
//! Apply: shrink the left range, create the right one, raise `version` on both, all in the
//!   entry's own write batch, so that a restart sees both or neither. No data moves.
//! After apply: the worker starts the right replica; on the leader's store it campaigns at once.
//!
//! Invariant: left.end == right.start; together they cover the parent exactly.

use super::invalid;
use crate::bugs::{self, Bug};
use crate::meta::{self, Applied};
use crate::payload;
use crate::replica::ready::Round;
use crate::replica::{Ctx, Replica, Waiter};
use prost::Message as _;
use rangekv_proto::internal::admin_command::Split;
use rangekv_proto::{
    RangeDescriptor, RangeId, ReplicaId, RequestError, INITIAL_INDEX, INITIAL_TERM,
};

impl Replica {
    pub(super) fn propose_split(&mut self, ctx: &mut Ctx<'_>, waiter: Waiter, split: Split) {
        let d = self
            .descriptor
            .as_ref()
            .expect("only an initialised replica leads");
        if d.id == rangekv_proto::PLACEMENT_RANGE {
            return invalid(
                waiter,
                "range 1 is the placement driver's own and is never split",
            );
        }
        if !d.contains(&split.key) || split.key == d.start {
            return invalid(
                waiter,
                format!(
                    "split key {:?} does not lie strictly inside range {} [{:?}, {:?})",
                    split.key, d.id, d.start, d.end
                ),
            );
        }
        if split.new_replicas.len() != d.replicas.len() || split.new_range == 0 {
            return invalid(
                waiter,
                format!(
                    "split of {} replicas names {} new ids",
                    d.replicas.len(),
                    split.new_replicas.len()
                ),
            );
        }
        if d.is_joint() || self.raw.raft.has_pending_conf() {
            return waiter.complete(Err(RequestError::Busy {
                reason: format!("range {} is changing its members", d.id),
                retry_after_ms: 100,
            }));
        }
        if self.is_pinned() {
            return waiter.complete(Err(RequestError::Busy {
                reason: format!("range {} is part of a merge", d.id),
                retry_after_ms: 100,
            }));
        }
        let data = payload::encode_split(&split);
        let (left, right) = divide(d, &split);
        let reply = rangekv_proto::internal::HeartbeatReply {
            routes: [&left, &right]
                .map(|d| rangekv_proto::internal::Route {
                    range: Some(d.into()),
                    leader: None,
                })
                .into(),
            ..Default::default()
        };
        match self.propose(ctx, |raw| raw.propose(Vec::new(), data)) {
            Some(index) => {
                self.raise_barrier(index);
                self.reply_at(ctx, index, waiter, reply.encode_to_vec().into(), true);
            }
            None => waiter.complete(Err(RequestError::NotLeader {
                range: self.range,
                leader: None,
            })),
        }
    }

    pub(crate) fn apply_split(&mut self, split: &Split, round: &mut Round<'_>) {
        let parent = self
            .descriptor
            .clone()
            .expect("an uninitialised replica has no entries");
        let (left, right) = divide(&parent, split);
        assert!(
            left.start == parent.start && left.end == right.start && right.end == parent.end,
            "split covers its parent"
        );

        // A reader that saw the old bounds must not validate (I8). No lease moves to the right
        // range: its leader earns its own.
        self.cell().clear_lease();
        round.batch.put(
            meta::descriptor_key(left.id),
            meta::encode_descriptor(self.id, &left),
        );

        // This store's replica of the right range has the id at this replica's place.
        let place = parent.replicas.iter().position(|r| r.id == self.id);
        let child = place.map(|i| right.replicas[i].id);
        let destroyed = round
            .tombstones
            .get(&right.id)
            .is_some_and(|t| child.is_none_or(|c| t.replica >= c));
        match child {
            Some(child) if !destroyed => {
                let applied = Applied {
                    index: INITIAL_INDEX,
                    term: INITIAL_TERM,
                    clock_ms: self.applied.clock_ms,
                };
                round.batch.put(
                    meta::descriptor_key(right.id),
                    meta::encode_descriptor(child, &right),
                );
                round
                    .batch
                    .put(meta::applied_key(right.id), applied.encode());
                round.born.push(right);
            }
            // Replayed after a crash, when the right replica has come and gone.
            _ => round.batch.delete_ranges.push(meta::data_bounds(&right)),
        }
        self.lower_barrier();
        self.remember_split(divide(&parent, split).1);
        self.set_descriptor(left);
    }
}

/// Left and right of a split.
fn divide(parent: &RangeDescriptor, split: &Split) -> (RangeDescriptor, RangeDescriptor) {
    let mut left = parent.clone();
    if !bugs::active(Bug::SplitWithoutEpoch) {
        left.epoch.version += 1;
    }
    let mut right = left.clone();
    left.end = split.key.clone();
    right.start = split.key.clone();
    right.id = RangeId(split.new_range);
    for (replica, id) in right.replicas.iter_mut().zip(&split.new_replicas) {
        replica.id = ReplicaId(*id);
    }
    (left, right)
}
