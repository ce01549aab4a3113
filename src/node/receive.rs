//! Receives a range snapshot: checks every chunk, stages the records, tells the worker.

use super::chunks::Decoder;
use super::mailbox::Mailbox;
use crate::trace::Tracer;
use rangekv_proto::internal::{SnapshotAck, SnapshotChunk};
use rangekv_proto::RangeId;
use rangekv_store::engine::StateEngine;
use rangekv_store::event::Event;
use rangekv_store::metrics::{Direction, Metrics};
use rangekv_store::wire::{self, Envelope};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// The sender sends a chunk within this, or has given up.
const STALL_MAX: Duration = Duration::from_secs(20);

/// Takes snapshots from other stores, a few at a time.
pub struct SnapshotReceiver {
    engine: Arc<dyn StateEngine>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
    /// Each writes a file: more at once would only slow each other down.
    slots: Arc<Semaphore>,
}

impl SnapshotReceiver {
    /// Receives at most `at_once` snapshots at the same time.
    pub fn new(
        engine: Arc<dyn StateEngine>,
        mailbox: Arc<Mailbox>,
        metrics: Arc<Metrics>,
        tracer: Option<Arc<Tracer>>,
        at_once: usize,
    ) -> Self {
        SnapshotReceiver {
            engine,
            mailbox,
            metrics,
            tracer,
            slots: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Receives one. Accepted means: complete, checked, and handed to the worker.
    pub async fn receive(&self, chunks: Streaming<SnapshotChunk>) -> Result<SnapshotAck, Status> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return Ok(refused("other snapshots are being received"));
        };
        let (engine, mailbox, runtime) =
            (self.engine.clone(), self.mailbox.clone(), Handle::current());
        let metrics = self.metrics.clone();
        let work = self
            .tracer
            .as_ref()
            .map(|tracer| tracer.begin("snapshot receive"));
        // Staging writes files: not on a thread that serves connections.
        let staging = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let staged = stage(&*engine, &mailbox, &metrics, &runtime, chunks);
            if let Some(mut work) = work {
                if let Ok((range, records)) = &staged {
                    work = work
                        .with("rangekv.range", range.0 as i64)
                        .with("rangekv.records", *records as i64);
                }
                work.end(staged.as_ref().err().cloned());
            }
            staged
        });
        match staging.await {
            Ok(Ok(_)) => Ok(SnapshotAck {
                accepted: true,
                reason: String::new(),
            }),
            Ok(Err(reason)) => Ok(refused(reason)),
            Err(panicked) => Err(Status::internal(panicked.to_string())),
        }
    }
}

fn refused(reason: impl Into<String>) -> SnapshotAck {
    SnapshotAck {
        accepted: false,
        reason: reason.into(),
    }
}

/// The range, and how many records there are.
fn stage(
    engine: &dyn StateEngine,
    mailbox: &Mailbox,
    metrics: &Metrics,
    runtime: &Handle,
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<(RangeId, u64), String> {
    let mut next = || {
        let chunk = async { tokio::time::timeout(STALL_MAX, chunks.message()).await };
        let chunk = runtime.block_on(chunk);
        chunk
            .map_err(|_| format!("no chunk within {STALL_MAX:?}"))?
            .map_err(|status| status.message().to_string())
    };
    let received = metrics.snapshot_bytes.of(Direction::Received);
    let mut chunk = next()?.ok_or("a snapshot without chunks")?;
    let envelope = one_envelope(&chunk)?;
    let mut decoder = Decoder::default();
    let mut stager = engine.stage().map_err(|e| e.to_string())?;
    loop {
        received.add(chunk.records.len() as u64);
        for (key, value) in decoder.records(&chunk).map_err(|e| e.to_string())? {
            stager.add(key, value).map_err(|e| e.to_string())?;
        }
        match next()? {
            Some(following) => chunk = following,
            None => break,
        }
    }
    if !decoder.is_complete() {
        return Err("the stream ended before the last chunk".into());
    }
    let staged = stager.finish().map_err(|e| e.to_string())?;
    let (range, records) = (envelope.range, staged.records());
    tracing::info!(group = range.0, records, "snapshot received");
    mailbox.push(Event::SnapshotReceived { envelope, staged });
    Ok((range, records))
}

fn one_envelope(first: &SnapshotChunk) -> Result<Envelope, String> {
    let mut envelopes = wire::decode(first.envelope.clone()).map_err(|e| e.to_string())?;
    match (envelopes.pop(), envelopes.is_empty()) {
        (Some(envelope), true) => Ok(envelope),
        _ => Err("the first chunk carries one envelope".into()),
    }
}
