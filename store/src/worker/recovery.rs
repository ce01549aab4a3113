//! Starting a worker over what a crash, or a clean stop, has left.
//!
//! Per range the state tells how far it has applied and the log tells term, vote and entries
//!:
//! - the log has the applied entry: go on from there; raft applies again what is committed;
//! - the log ends below it: a snapshot was installed and the log was not reset before the crash.
//!   The state is right; the log begins anew;
//! - the log knows nothing of the range: fine at the initial index (a split that never voted),
//!   amnesia otherwise: this store may have voted and would not remember. It refuses to start;
//! - the log has a tombstone of this replica: its destruction is finished;
//! - the state says that the range was merged into another: its log gets its tombstone.

use super::{Durable, Evaluators, Taken, Worker};
use crate::config::{Config, DrawElectionTicks};
use crate::engine::StateEngine;
use crate::event::Now;
use crate::log::{GroupLog, RaftLog, Recovered};
use crate::meta::{self, Applied};
use crate::shared::StoreShared;
use crate::trace::Traces;
use rangekv_proto::{RangeId, INITIAL_INDEX, INITIAL_TERM};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Why a store can't start over its data.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state engine's records of its own don't decode.
    #[error("the state engine is damaged: {0}; replace this store")]
    State(String),
    /// The log lost what this store had promised.
    #[error(
        "the raft log has no term and vote for range {range}, whose state has applied entry {applied}: \
         the log directory was lost or replaced, and this store could vote twice; replace this store"
    )]
    Amnesia {
        /// The range.
        range: RangeId,
        /// Its applied index.
        applied: u64,
    },
}

impl Worker {
    /// A worker over recovered state. Starts no round.
    #[allow(clippy::too_many_arguments)]
    pub fn recover(
        config: Config,
        draw: DrawElectionTicks,
        engine: Arc<dyn StateEngine>,
        log: Box<dyn RaftLog>,
        recovered: Recovered,
        shared: Arc<StoreShared>,
        evaluators: Evaluators,
        now: Now,
    ) -> Result<Worker, StartError> {
        let next_tick_ns = now.mono_ns + config.tick_ms * 1_000_000;
        let mut worker = Worker {
            config,
            draw,
            engine,
            log,
            shared,
            evaluators,
            replicas: BTreeMap::new(),
            tombstones: recovered.tombstones,
            dormant: recovered.groups,
            parked: BTreeMap::new(),
            dirty: BTreeSet::new(),
            awake: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            outbox: Vec::new(),
            born: Vec::new(),
            noted: Vec::new(),
            attending: BTreeSet::new(),
            installing: BTreeSet::new(),
            poked: false,
            after_sync: Vec::new(),
            merged: BTreeMap::new(),
            unburied: BTreeSet::new(),
            in_round: false,
            durable: Durable::Yes,
            unsynced: BTreeSet::new(),
            next_tick_ns,
            ticks: 0,
            vote_ban_until_ns: 0,
            disk_full: false,
            draining: false,
            durable_generation: None,
            counter: 0,
            stopwatch: None,
            taken: Taken::default(),
            staged_ns: None,
            staged_before: VecDeque::new(),
            answers: Vec::new(),
            traces: Traces::default(),
        };
        let merged = meta::all_merged(&*worker.engine).map_err(StartError::State)?;
        worker.recover_merged(merged);
        for (id, descriptor, applied) in
            meta::all_ranges(&*worker.engine).map_err(StartError::State)?
        {
            let range = descriptor.id;
            if worker
                .tombstones
                .get(&range)
                .is_some_and(|t| t.replica >= id)
            {
                worker.delete_state(&descriptor);
                continue;
            }
            if applied.index == INITIAL_INDEX
                && worker
                    .dormant
                    .get(&range)
                    .is_none_or(|l| l.truncated_index == 0)
            {
                worker.start_at_initial(now, id, descriptor, applied);
                continue;
            }
            let log = worker.dormant.remove(&range).unwrap_or_default();
            if log.hard_state.term == 0 {
                return Err(StartError::Amnesia {
                    range,
                    applied: applied.index,
                });
            }
            let log = worker.repair(range, log, applied);
            worker.insert(now, range, id, log, applied, Some(descriptor));
        }
        worker.ban_votes(now);
        Ok(worker)
    }

    fn repair(&mut self, range: RangeId, mut log: GroupLog, applied: Applied) -> GroupLog {
        let last = log.truncated_index + log.entries.len() as u64;
        let term_at_applied = if applied.index == log.truncated_index {
            Some(log.truncated_term)
        } else {
            applied
                .index
                .checked_sub(log.truncated_index + 1)
                .and_then(|i| log.entries.get(i as usize))
                .map(|e| e.term)
        };
        if term_at_applied != Some(applied.term) {
            tracing::warn!(
                group = range.0,
                applied = applied.index,
                last,
                "the log begins anew at the applied index"
            );
            log.entries.clear();
            log.truncated_index = applied.index;
            log.truncated_term = applied.term;
            log.hard_state.term = log.hard_state.term.max(applied.term).max(INITIAL_TERM);
            log.hard_state.commit = applied.index;
            self.log
                .reset(range, applied.index, applied.term, &log.hard_state);
        }
        let last = log.truncated_index + log.entries.len() as u64;
        log.hard_state.commit = log.hard_state.commit.max(applied.index);
        assert!(
            log.hard_state.commit <= last,
            "range {range}: commit {} beyond the log's end {last}",
            log.hard_state.commit
        );
        log
    }
}
