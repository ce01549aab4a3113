//! Log collection: forgetting entries that neither a crash nor a lagging replica needs.
//!
//! Invariant I4: nothing above the *durable* applied index is ever forgotten.

use super::Worker;
use crate::meta::{self, Applied};
use crate::replica::Replica;

impl Worker {
    /// Compacts what may go, and moves small live logs off old segments.
    pub(super) fn collect_log(&mut self) {
        let generation = self.engine.durable_generation();
        let new_durable = self.durable_generation.replace(generation) != Some(generation);
        let total = self.log.total_bytes();
        let crowded = total > self.config.log_total_bytes_max;
        let mut wants_flush = crowded && !self.unburied.is_empty();
        if new_durable {
            self.bury_merged();
        }
        for (range, r) in &mut self.replicas {
            if r.descriptor.is_none() {
                continue;
            }
            if new_durable {
                let durable = self.engine.get_durable(&meta::applied_key(*range));
                let index = durable
                    .and_then(|v| Applied::decode(&v))
                    .map_or(0, |a| a.index);
                r.durable_applied = r.durable_applied.max(index);
            }
            let bytes = r.raw.store().entries_bytes();
            let wanted = std::mem::take(&mut r.compact_wanted);
            if bytes <= self.config.log_keep_bytes && !crowded && !wanted {
                continue;
            }
            let mut target = r.durable_applied.min(r.raw.store().applied.index);
            if bytes <= self.config.log_max_bytes && !crowded {
                target = target.min(least_matched(r));
            }
            let (truncated, _) = r.raw.store().truncated();
            if target > truncated {
                r.raw.mut_store().compact(target);
                let (index, term) = r.raw.store().truncated();
                self.log.compact(*range, index, term);
            }
            wants_flush |= r.raw.store().entries_bytes() > self.config.log_keep_bytes
                && r.durable_applied < r.raw.store().applied.index;
        }
        if wants_flush {
            self.engine.flush_in_background();
        }
        for range in self.log.pinning_groups() {
            match self.replicas.get(&range) {
                Some(r) => self.log.rewrite(range, &r.raw.store().to_group_log()),
                None => {
                    if let Some(log) = self.dormant.get(&range) {
                        self.log.rewrite(range, log);
                    }
                }
            }
        }
    }
}

/// The least index that all members are known to have; a leader alone knows.
fn least_matched(r: &Replica) -> u64 {
    if !r.is_leader() {
        return u64::MAX;
    }
    r.raw
        .raft
        .prs()
        .iter()
        .filter(|(id, _)| **id != r.id.0)
        .map(|(_, p)| p.matched)
        .min()
        .unwrap_or(u64::MAX)
}
