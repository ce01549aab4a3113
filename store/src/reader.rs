//! Reads on the caller's own thread, without asking the worker: read-then-validate.
//!
//! First note the range's generation, then read the state. If afterwards the generation is
//! unchanged and the lease has not run out, then this store led the range when it read, and
//! had applied everything acknowledged: the result is linearizable.
//! The two halves are two functions, so that a test can pause a thread between them.

use crate::bugs::{self, Bug};
use crate::engine::StateEngine;
use crate::event::Now;
use crate::load::FirstKey;
use crate::shared::{RangeCell, StoreShared};
use crate::worker::Evaluators;
use bytes::Bytes;
use rangekv_model::eval::{Context, Txn};
use rangekv_proto::{EvaluatorId, RangeId};
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;

/// Serves local reads of one store; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct LocalReader {
    shared: Arc<StoreShared>,
    engine: Arc<dyn StateEngine>,
    evaluators: Evaluators,
    seed: Arc<AtomicU64>,
}

/// A result that has not been validated.
pub struct PendingRead {
    cell: Arc<RangeCell>,
    generation: u64,
    reply: Bytes,
}

impl LocalReader {
    /// A reader of the store whose worker publishes to `shared`.
    pub fn new(
        shared: Arc<StoreShared>,
        engine: Arc<dyn StateEngine>,
        evaluators: Evaluators,
    ) -> Self {
        LocalReader {
            shared,
            engine,
            evaluators,
            seed: Arc::default(),
        }
    }

    /// Evaluates a read-only command. `None`: no lease, other bounds, or the command met an
    /// expired record, which only the worker may remove.
    pub fn begin(
        &self,
        range: RangeId,
        version: u64,
        evaluator: EvaluatorId,
        command: &Bytes,
        now: Now,
    ) -> Option<PendingRead> {
        let cell = self.shared.cell(range)?;
        let generation = cell.generation();
        if cell.version() != version || now.mono_ns >= cell.lease_until_ns() {
            return None;
        }
        let evaluate = self.evaluators.get(evaluator)?;
        let sampled = cell.is_sampled();
        let first = FirstKey::of(&*self.engine);
        let mut txn = match sampled {
            true => Txn::new(&first),
            false => Txn::new(&*self.engine),
        };
        let route = cell.route()?;
        let context = Context {
            now_ms: now.wall_ms,
            seed: self
                .seed
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed),
            start: crate::meta::user_start(&route.0.start),
            end: match bugs::active(Bug::ScanNotClipped) {
                true => &[],
                false => &route.0.end,
            },
        };
        let reply = evaluate.evaluate(&context, command, &mut txn);
        let read_only = txn.is_read_only();
        drop(txn);
        if let Some(key) = first.into_key() {
            cell.samples.add(key);
        }
        read_only.then_some(PendingRead {
            cell,
            generation,
            reply,
        })
    }
}

impl PendingRead {
    /// The reply, if the lease covered the whole read.
    pub fn validate(self, now: Now) -> Option<Bytes> {
        fence(Ordering::SeqCst);
        let valid =
            self.cell.generation() == self.generation && now.mono_ns < self.cell.lease_until_ns();
        valid.then(|| {
            self.cell.local_reads.fetch_add(1, Ordering::Relaxed);
            self.reply
        })
    }
}
