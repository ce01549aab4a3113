//! Whose turn it is to campaign, when the leader is lost.
//!
//! raft-rs draws one timeout per process and group, so that replicas whose clocks expire together
//! would campaign together, split the vote, and do so again. Here the survivors campaign in turn:
//!
//! - **A leader fell silent.** The voters beside it have ranks, which all know from the descriptor;
//!   each waits two ticks longer than the one before, so that a winner is heard before the next
//!   one begins. The first waits as well, until the others have noticed the silence too: before
//!   that they would not vote. Ranks differ from range to range: the ranges of a lost store go
//!   to all others.
//! - **An election failed, or one is won by nobody in time** (the first in line is down as well, or
//!   lags): each waits for a time that is drawn afresh, a quarter to three quarters of the least
//!   election timeout, twice as long after each further failure, up to whole timeouts as in Raft
//!   §5.2: so replicas that are far apart, or on slow disks, also elect somebody.
//! - **A process has just begun**, and knows no leader: a whole drawn timeout, as the leader may live.
//!
//! How long the leader must be silent first is not decided here: it is the least election timeout,
//! by raft's own clock or by the store's silence ([`super::quiesce`]).

use super::Replica;
use crate::event::Now;
use raft::StateRole;
use rangekv_proto::ReplicaRole;

/// Ticks between the turns of two voters, and before the first: more than their clocks are apart.
const TURN_TICKS: usize = 2;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Ticks until this replica campaigns; `None` = to be decided.
    in_ticks: Option<usize>,
    /// Elections that it has begun since it last heard a leader.
    failed: u32,
}

impl Turn {
    /// A process that has just begun.
    pub(super) fn after(ticks: usize) -> Turn {
        Turn {
            in_ticks: Some(ticks),
            failed: 0,
        }
    }

    /// Somebody else campaigns, in a new term.
    pub(super) fn pass(&mut self) {
        self.in_ticks = None;
    }
}

/// Ticks until the next try after `failed` of them, for a least timeout of `least` ticks and a
/// drawn timeout of `drawn` in `[least, 2 × least)`.
fn retry_ticks(failed: u32, least: usize, drawn: usize) -> usize {
    let extra = drawn.saturating_sub(least);
    let ticks = (least / 4).max(1) + extra / 2;
    (ticks << failed.min(8)).min(drawn)
}

impl Replica {
    /// Whether a leader is known that was heard within the least election timeout.
    pub(super) fn hears_leader(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Follower
            && raft.leader_id != 0
            && raft.election_elapsed < raft.election_timeout()
    }

    /// A tick without a leader: campaigns if it is this replica's turn.
    pub(super) fn wait_for_turn(&mut self, now: Now, draw: &mut dyn FnMut() -> usize) {
        let left = match self.turn.in_ticks {
            Some(ticks) => ticks,
            None if self.raw.raft.leader_id != 0 => TURN_TICKS * (1 + self.rank()),
            None => self.retry_ticks(draw),
        };
        self.turn.in_ticks = Some(left.saturating_sub(1));
        if left > 1 || self.has_promised(now) {
            return;
        }
        self.turn.in_ticks = Some(self.retry_ticks(draw));
        self.turn.failed += 1;
        self.first_campaign = false;
        self.refuse_unelected();
        let raft = &mut self.raw.raft;
        raft.election_elapsed = raft.randomized_election_timeout();
        self.raw.tick();
        let raft = &mut self.raw.raft;
        match raft.state {
            // It has no vote, or a membership change to apply first: it keeps nobody else from it.
            StateRole::Follower => raft.election_elapsed = raft.election_timeout(),
            _ => self.note_campaign(now),
        }
    }

    fn retry_ticks(&self, draw: &mut dyn FnMut() -> usize) -> usize {
        let least = self.raw.raft.election_timeout();
        retry_ticks(self.turn.failed, least, draw())
    }

    /// How many voters have their turn before this replica when its leader is lost.
    fn rank(&self) -> usize {
        let Some(d) = &self.descriptor else {
            return 0;
        };
        let leader = self.raw.raft.leader_id;
        let voters = d.replicas.iter().filter(|r| r.role != ReplicaRole::Learner);
        let mut others: Vec<u64> = voters.map(|r| r.id.0).filter(|id| *id != leader).collect();
        others.sort_unstable();
        let first = self.range.0 as usize % others.len().max(1);
        let own = others.iter().position(|id| *id == self.id.0);
        own.map_or(0, |own| (own + others.len() - first) % others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_from_failure_to_failure_up_to_whole_timeouts() {
        let between = |failed| (retry_ticks(failed, 20, 20), retry_ticks(failed, 20, 39));
        assert_eq!(between(0), (5, 14));
        assert_eq!(between(1), (10, 28));
        assert_eq!(between(2), (20, 39));
        assert_eq!(between(u32::MAX), (20, 39));
        assert_eq!(retry_ticks(0, 1, 1), 1);
    }
}
