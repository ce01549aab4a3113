//! Opens what a store keeps: state engine, raft log, and the worker over both.

use super::clock;
use super::seat::Seat;
use anyhow::Context;
use rangekv_model::dynamo::DynamoModel;
use rangekv_model::eval::Evaluator;
use rangekv_model::redis::RedisModel;
use rangekv_pd::bootstrap::preferred_leader;
use rangekv_pd::state::PlacementModel;
use rangekv_proto::{EvaluatorId, RangeDescriptor, RangeId, StoreId};
use rangekv_store::config::{Config, DrawElectionTicks};
use rangekv_store::engine::cached::Cached;
use rangekv_store::engine::rocks::{RocksConfig, RocksEngine};
use rangekv_store::engine::StateEngine;
use rangekv_store::event::Event;
use rangekv_store::log::disk::FileDisk;
use rangekv_store::log::segmented::{LogConfig, SegmentedLog};
use rangekv_store::shared::StoreShared;
use rangekv_store::worker::{Evaluators, Worker};
use std::sync::Arc;

/// The worker walks all cached records when a replica goes or gets a snapshot: some tens of milliseconds.
const RECORDS_BYTES_MAX: u64 = 128 << 20;

/// A store over its data, not yet running.
pub struct Opened {
    /// Owns the replicas.
    pub worker: Worker,
    /// Holds the applied state.
    pub engine: Arc<dyn StateEngine>,
    /// What the worker publishes.
    pub shared: Arc<StoreShared>,
    /// The data models.
    pub evaluators: Evaluators,
    /// It has made its first ranges just now.
    pub is_new: bool,
}

/// Opens the data of a store that has its seat, and creates its initial ranges if that was
/// not done yet. Blocks on the disk. A quarter of `cache_bytes`, up to [`RECORDS_BYTES_MAX`], is for single
/// records that are read again and again, the rest for blocks of files, with their indexes and filters.
pub fn open(seat: &Seat, cache_bytes: u64) -> anyhow::Result<Opened> {
    let me = seat
        .identity()
        .context("a store without a seat holds no data")?;
    let (state, log) = seat.with_data(|data| (data.state(), data.log()));
    // First: it locks its directory, the log does not.
    let records_bytes = (cache_bytes / 4).min(RECORDS_BYTES_MAX);
    let config = RocksConfig {
        block_cache_bytes: usize::try_from(cache_bytes - records_bytes)?,
        ..RocksConfig::default()
    };
    let engine = Arc::new(RocksEngine::open(&state, &config)?);
    let engine: Arc<dyn StateEngine> = Arc::new(Cached::new(engine, records_bytes, rand::random()));
    let (log, recovered) = SegmentedLog::open(FileDisk::open(&log)?, LogConfig::default())?;
    let evaluators = Evaluators::new([
        (
            EvaluatorId::PLACEMENT,
            Arc::new(PlacementModel) as Arc<dyn Evaluator>,
        ),
        (EvaluatorId::REDIS, Arc::new(RedisModel)),
        (EvaluatorId::DYNAMO, Arc::new(DynamoModel)),
    ]);
    let shared = Arc::new(StoreShared::default());
    let config = Config::new(StoreId(me.store), rand::random());
    let draw = draw_election_ticks(config.election_ticks);
    let mut worker = Worker::recover(
        config,
        draw,
        engine.clone(),
        Box::new(log),
        recovered,
        shared.clone(),
        evaluators.clone(),
        clock::now(),
    )?;
    let initial = seat.with_data(|data| data.initial_ranges())?;
    if !initial.is_empty() {
        // Durable when it returns; skips what an interrupted start has made already.
        worker.handle(clock::now(), Event::Initialise(initial.clone()));
        seat.with_data(|data| data.forget_initial_ranges())?;
    }
    // Nobody waits for an election timeout where it is known who shall lead: in new ranges the
    // first replica, so that leaders are spread, and in ranges of one replica that one.
    let preferred = initial
        .iter()
        .filter(|d| preferred_leader(d) == Some(me.store_id()));
    let mut campaigns: Vec<RangeId> = preferred.map(|d| d.id).collect();
    campaigns.extend(
        shared
            .routes()
            .iter()
            .map(|(d, _)| d)
            .filter_map(only_replica),
    );
    for range in campaigns {
        campaign(&mut worker, range);
    }
    Ok(Opened {
        worker,
        engine,
        shared,
        evaluators,
        is_new: !initial.is_empty(),
    })
}

/// The range, if it has one replica, which then is this store's.
fn only_replica(d: &RangeDescriptor) -> Option<RangeId> {
    (d.replicas.len() == 1).then_some(d.id)
}

fn campaign(worker: &mut Worker, range: RangeId) {
    let now = clock::now();
    worker.with_replica(now, range, |replica, _| match replica.raw.campaign() {
        Ok(()) => {
            replica.note_campaign(now);
            replica.after_step(now);
        }
        Err(error) => tracing::warn!(group = range.0, %error, "no campaign"),
    });
}

fn draw_election_ticks(least: usize) -> DrawElectionTicks {
    Box::new(move |_| rand::random_range(least..2 * least))
}
