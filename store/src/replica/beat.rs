//! When a leader sends heartbeats: only to followers that hear nothing else from it.
//!
//! An entry does for a follower all that a heartbeat does: it restarts the election clock, carries a
//! commit index, and its acknowledgement counts for check-quorum. With a thousand busy groups the
//! heartbeats and their answers would be half of all messages. So a tick is silent if entries were
//! proposed since the one before, and every follower has acknowledged what was there at that one:
//! then all were sent something since, and what is sent to them arrives. Whoever lags, or is probed
//! or sent a snapshot, or misses one acknowledgement, has the heartbeats of Raft §5.2 again.
//!
//! raft's own clock goes on: check-quorum and the end of a transfer happen on their ticks.

use super::Replica;
use raft::ProgressState;

/// What a leader's followers have heard lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    /// Ticks since all of them were reached.
    silent_ticks: usize,
    /// Last log index at the tick before.
    last_index: u64,
}

impl Replica {
    /// One tick of a leader.
    pub(super) fn tick_leader(&mut self) {
        let raft = &self.raw.raft;
        let (last, heartbeat_ticks) = (raft.raft_log.last_index(), raft.heartbeat_timeout());
        let before = self.lead.as_ref().map_or(0, |lead| lead.beat.last_index);
        let reached = last > before && before > 0 && self.all_have(before);
        if let Some(lead) = self.lead.as_mut() {
            lead.beat.last_index = last;
            lead.beat.silent_ticks = match reached {
                true => 0,
                false => lead.beat.silent_ticks + 1,
            };
            if lead.beat.silent_ticks >= heartbeat_ticks {
                self.heartbeat();
            }
        }
        let raft = &mut self.raw.raft;
        if raft.election_elapsed + 1 < raft.election_timeout() {
            raft.election_elapsed += 1;
        } else {
            self.raw.tick();
        }
    }

    /// Whether all followers are sent what is proposed, and have acknowledged `index`.
    fn all_have(&self, index: u64) -> bool {
        let mut followers = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != self.id.0);
        followers.all(|(_, p)| p.state == ProgressState::Replicate && p.matched >= index)
    }

    /// A heartbeat to all followers, now.
    pub(super) fn heartbeat(&mut self) {
        if let Some(lead) = self.lead.as_mut() {
            lead.beat.silent_ticks = 0;
        }
        self.raw.ping();
    }
}
