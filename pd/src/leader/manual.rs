//! What people order by hand, through the same path as what the schedulers want.

use super::{Leader, HELD_MS};
use crate::config::Config;
use crate::operator::{Goal, ManualOperator, OperatorId, Proposal, Scheduler};
use crate::plan::{next, Next};
use crate::schedule::merge_ranges;
use crate::view::{ClusterView, RangeView};
use rangekv_proto::internal::PlacementState;
use rangekv_proto::{RangeId, ReplicaRole, StoreId, PLACEMENT_RANGE};
use std::collections::BTreeSet;

impl Leader {
    /// Begins what a person wants, in the place of what a scheduler wanted. What can be known to
    /// be impossible is refused, with the reason. The schedulers leave the range alone for
    /// [`HELD_MS`], save for repairing it: then they put the number of its voters right again.
    pub fn submit(
        &mut self,
        now_ms: u64,
        state: &PlacementState,
        wanted: ManualOperator,
    ) -> Result<OperatorId, String> {
        if !self.is_ready(state) {
            return Err(self.not_ready(state));
        }
        if let ManualOperator::Merge { left, right } = wanted {
            return self.submit_merge(now_ms, state, left, right);
        }
        let config = Config::of(state);
        let id = wanted.range();
        let route = self.routes.get(id);
        let route = route.ok_or_else(|| format!("there is no range {id}"))?;
        let range = self.range_view(now_ms, route, &config);
        let view = ClusterView {
            stores: self.store_views(now_ms, state, &config),
            ranges: Vec::new(),
            config,
        };
        if let Some(busy) = self
            .operators
            .of(id)
            .filter(|o| o.scheduler == Scheduler::Manual)
        {
            return Err(format!(
                "operator {} ({}) is under way for range {id}: {}",
                busy.id,
                busy.goal,
                busy.waits_for()
            ));
        }
        let goal = goal(&wanted, &range, &view)?;
        match next(&goal, &range, &view.stores) {
            Next::Fail(why) => return Err(why),
            Next::Done => return Err(format!("range {id} is so already: {goal}")),
            Next::Step(_) | Next::Wait(_) => {}
        }
        self.held.insert(id, now_ms.saturating_add(HELD_MS));
        let proposal = Proposal {
            range: id,
            goal,
            scheduler: Scheduler::Manual,
            reason: "ordered by hand".into(),
        };
        Ok(self.begin(now_ms, proposal))
    }

    /// Begins to merge two ranges: with what prepares it, if they don't lie on the same stores or
    /// aren't led by the same. The id is of this first operator.
    fn submit_merge(
        &mut self,
        now_ms: u64,
        state: &PlacementState,
        left: RangeId,
        right: RangeId,
    ) -> Result<OperatorId, String> {
        let view = self.view(now_ms, state);
        let known = |id: RangeId| {
            view.range(id)
                .ok_or_else(|| format!("there is no range {id}"))
        };
        let (l, r) = (known(left)?, known(right)?);
        if left == PLACEMENT_RANGE || right == PLACEMENT_RANGE {
            return Err("range 1 is never merged".into());
        }
        if l.range.end != r.range.start || l.range.end.is_empty() {
            return Err(format!(
                "range {right} doesn't begin where range {left} ends"
            ));
        }
        if l.range.is_joint() || r.range.is_joint() || l.learners().next().is_some() {
            return Err("a membership change is half done; try again in a moment".into());
        }
        if let Some(busy) = [l, r].iter().find(|range| range.goal.is_some()) {
            let id = busy.range.id;
            return Err(format!(
                "an operator is under way for range {id}; try again later"
            ));
        }
        let reason = format!("ranges {left} and {right} are to become one: ordered by hand");
        let proposal = merge_ranges::step(l, r, Scheduler::Manual, reason);
        let proposal = proposal.ok_or("nobody leads the ranges")?;
        self.merge_wanted = Some((left, right, now_ms.saturating_add(HELD_MS)));
        Ok(self.begin(now_ms, proposal))
    }

    /// The next operator of a merge that was wanted.
    pub(super) fn continue_merge(&mut self, now_ms: u64, state: &PlacementState) {
        let Some((left, right, until_ms)) = self.merge_wanted else {
            return;
        };
        let view = self.view(now_ms, state);
        let (l, r) = match (view.range(left), view.range(right)) {
            (Some(l), Some(r)) if now_ms < until_ms && l.range.end == r.range.start => (l, r),
            _ => return self.merge_wanted = None,
        };
        if l.goal.is_some() || r.goal.is_some() || l.backing_off || r.backing_off {
            return;
        }
        let reason = format!("ranges {left} and {right} are to become one: ordered by hand");
        if let Some(proposal) = merge_ranges::step(l, r, Scheduler::Manual, reason) {
            self.begin(now_ms, proposal);
        }
    }

    /// Stops an operator. A joint configuration that it may have entered is left all the same.
    pub fn cancel(&mut self, now_ms: u64, operator: OperatorId) -> Result<(), String> {
        let found = self.operators.running().find(|o| o.id == operator);
        let range = found.map(|o| o.range);
        let range = range.ok_or_else(|| format!("operator {operator} is not under way"))?;
        self.merge_wanted = None;
        self.operators
            .cancel(now_ms, range, "stopped by hand".into());
        Ok(())
    }
}

fn goal(wanted: &ManualOperator, range: &RangeView, view: &ClusterView) -> Result<Goal, String> {
    let mut voters: BTreeSet<StoreId> = range.voters().map(|r| r.store).collect();
    let mut learners: BTreeSet<StoreId> = range.learners().map(|r| r.store).collect();
    let id = range.range.id;
    if range.range.is_joint() {
        return Err(format!(
            "range {id} is in a membership change; try again in a moment"
        ));
    }
    match wanted {
        ManualOperator::TransferLeader { to, .. } => {
            known(view, *to)?;
            return Ok(Goal::Lead(*to));
        }
        ManualOperator::Split { key, .. } => {
            let inside = key.is_empty() || (range.range.contains(key) && *key != range.range.start);
            return match (inside, id == PLACEMENT_RANGE) {
                (_, true) => Err("range 1 is never split".into()),
                (false, _) => Err(format!("the key doesn't lie strictly inside range {id}")),
                (true, false) => Ok(Goal::Split(key.clone())),
            };
        }
        ManualOperator::Merge { .. } => return Err("a merge is of two ranges".into()),
        ManualOperator::MoveReplica { from, to, .. } => {
            let role = holds(range, view, *from)?;
            vacant(range, view, *to)?;
            let set = match role {
                ReplicaRole::Learner => &mut learners,
                _ => &mut voters,
            };
            set.remove(from);
            set.insert(*to);
        }
        ManualOperator::AddReplica { store, voter, .. } => {
            vacant(range, view, *store)?;
            match voter {
                true => voters.insert(*store),
                false => learners.insert(*store),
            };
        }
        ManualOperator::RemoveReplica { store, .. } => {
            holds(range, view, *store)?;
            voters.remove(store);
            learners.remove(store);
        }
        ManualOperator::Promote { store, .. } => {
            if holds(range, view, *store)? != ReplicaRole::Learner {
                return Err(format!(
                    "the replica on {} votes already",
                    view.name(*store)
                ));
            }
            learners.remove(store);
            voters.insert(*store);
        }
        ManualOperator::Demote { store, .. } => {
            if holds(range, view, *store)? == ReplicaRole::Learner {
                return Err(format!("the replica on {} has no vote", view.name(*store)));
            }
            voters.remove(store);
            learners.insert(*store);
        }
    }
    match voters.is_empty() {
        true => Err(format!("range {id} would be left without a voter")),
        false => Ok(Goal::Place { voters, learners }),
    }
}

fn known(view: &ClusterView, store: StoreId) -> Result<(), String> {
    let known = view.store(store).map(drop);
    known.ok_or_else(|| format!("there is no store {store}"))
}

fn holds(range: &RangeView, view: &ClusterView, store: StoreId) -> Result<ReplicaRole, String> {
    let replica = range.range.replica_on(store).map(|r| r.role);
    replica.ok_or_else(|| {
        let name = view.name(store);
        format!("{name} has no replica of range {}", range.range.id)
    })
}

fn vacant(range: &RangeView, view: &ClusterView, store: StoreId) -> Result<(), String> {
    known(view, store)?;
    let (id, name) = (range.range.id, view.name(store));
    let to = view.store(store).expect("just known");
    if range.range.replica_on(store).is_some() {
        return Err(format!("{name} has a replica of range {id} already"));
    }
    match () {
        () if !view.belongs(id, store) && to.placement => {
            Err(format!("{name} is a placement node, which holds no data"))
        }
        () if !view.belongs(id, store) => Err(format!(
            "{name} is a store, and range {id} lies on placement nodes"
        )),
        () if !to.live => Err(format!("{name} is silent")),
        () if to.draining => Err(format!("{name} is draining")),
        () if to.full => Err(format!("{name} is short of disk")),
        () => Ok(()),
    }
}
