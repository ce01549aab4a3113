//! `WAIT` and `WAITAOF`: how many replicas hold a write.
//!
//! A write that was replied to is on the disks of a majority. How many more have it the leader of
//! its range knows: it is asked how far the others are, against the end of its log, behind which
//! the write must lie.

use crate::admin::groups::leader_status;
use crate::node::calls::Target;
use crate::node::running::Running;
use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::keys;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_proto::RangeId;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

/// One attempt to reach a leader takes no longer.
const ASK_TIME_MAX: Duration = Duration::from_secs(1);
/// The leader is asked again after this, then after twice as long, up to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(50);

/// When waiting is over.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Replicas besides the leader.
    pub replicas: u64,
    /// 1 = the leader's own disk too.
    pub local: Option<u64>,
}

/// Who holds a write on its disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Held {
    /// 1 = the leader.
    pub local: u64,
    /// Replicas besides the leader.
    pub replicas: u64,
}

impl Held {
    /// The reply to `WAIT`, or to `WAITAOF`, which tells both figures.
    pub fn reply(self, both: bool, protocol: Protocol) -> Bytes {
        if !both {
            return reply::int(self.replicas as i64);
        }
        let mut reply = Reply::new(protocol);
        reply
            .array(2)
            .int(self.local as i64)
            .int(self.replicas as i64);
        reply.finish()
    }

    fn is_enough(self, wanted: Wanted) -> bool {
        self.replicas >= wanted.replicas && self.local >= wanted.local.unwrap_or(0)
    }
}

/// Waits until as many hold the write at `key` as are wanted, for `timeout` at most (`None` = as
/// long as it takes), and no longer than `waiter`. Without a key there is nothing to hold, and
/// the replicas that keep up are counted.
pub(super) async fn wait(
    node: &Running,
    key: Option<Bytes>,
    wanted: Wanted,
    timeout: Option<Duration>,
    waiter: &Weak<()>,
) -> Held {
    let began = Instant::now();
    let key = key.unwrap_or_else(|| keys::slot_start(0));
    let mut target: Option<(RangeId, u64)> = None;
    let mut held = Held::default();
    let mut look = LOOK_MIN;
    loop {
        if let Some(now) = count(node, &key, &mut target).await {
            held = now;
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        let is_over = left.is_some_and(|left| left.is_zero());
        if held.is_enough(wanted) || is_over || waiter.strong_count() == 0 {
            return held;
        }
        tokio::time::sleep(left.map_or(look, |left| left.min(look))).await;
        look = (look * 2).min(LOOK_MAX);
    }
}

/// Who is up to `target`, which is the end of the leader's log when it is first asked. `None` =
/// the leader does not answer.
async fn count(node: &Running, key: &[u8], target: &mut Option<(RangeId, u64)>) -> Option<Held> {
    let range = node.calls.route(Target::Key(key))?.descriptor.id;
    let (status, _) = leader_status(node, range, ASK_TIME_MAX).await.ok()?;
    let index = match *target {
        Some((of, index)) if of == range => index,
        // Split off meanwhile, or merged: it began with all that its parent had.
        _ => status.last_index,
    };
    *target = Some((range, index));
    let has = |peer: &&rangekv_proto::internal::PeerProgress| peer.matched >= index;
    let (own, others): (Vec<_>, Vec<_>) = status
        .peers
        .iter()
        .filter(has)
        .partition(|peer| peer.replica == status.replica);
    Some(Held {
        local: own.len() as u64,
        replicas: others.len() as u64,
    })
}
