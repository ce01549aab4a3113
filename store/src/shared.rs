//! What a worker publishes to the threads that read without asking it.
//!
//! Per range one [`RangeCell`]: a generation, a lease, the epoch version. A reader reads the
//! state between two looks at the cell (read-then-validate, see [`crate::reader`]).
//!
//! Invariant I8: the worker clears a lease *before* any message leaves that may end it.

use crate::load::{Samples, SAMPLED};
use crate::metrics::Metrics;
use parking_lot::RwLock;
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, ReplicaId, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Bounds and members of a range, and who leads it, as this store knows.
pub type Route = (RangeDescriptor, Option<LeaderHint>);

/// One range's published state.
#[derive(Debug, Default)]
pub struct RangeCell {
    /// Changes whenever what a reader read before may no longer be valid.
    generation: AtomicU64,
    /// Monotonic ns until which local reads are linearizable; 0 = no lease.
    lease_until_ns: AtomicU64,
    /// `epoch.version`.
    version: AtomicU64,
    route: RwLock<Option<Arc<Route>>>,
    routes_generation: Arc<AtomicU64>,
    /// Other replicas that keep up, as the leader last saw; of use only while this store leads.
    keeping_up: RwLock<Vec<ReplicaId>>,
    /// Where the load falls.
    pub samples: Samples,
    /// Reads served on the callers' own threads since the start.
    pub local_reads: AtomicU64,
    /// Requests that the worker has evaluated since the start, and that wrote nothing.
    pub worker_reads: AtomicU64,
    /// Writes evaluated since the start.
    pub writes: AtomicU64,
}

impl RangeCell {
    /// The generation, to be compared after reading.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The epoch version that the range has now.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// End of the lease, monotonic ns; 0 = none.
    pub fn lease_until_ns(&self) -> u64 {
        self.lease_until_ns.load(Ordering::Acquire)
    }

    /// Extends the lease; never shortens it.
    pub fn extend_lease(&self, until_ns: u64) {
        if until_ns > self.lease_until_ns.load(Ordering::Relaxed) {
            self.lease_until_ns.store(until_ns, Ordering::Release);
        }
    }

    /// Ends the lease: no read that has not yet validated will.
    pub fn clear_lease(&self) {
        self.lease_until_ns.store(0, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Publishes bounds and leader.
    pub fn set_route(&self, descriptor: &RangeDescriptor, leader: Option<LeaderHint>) {
        let mut route = self.route.write();
        if self
            .version
            .swap(descriptor.epoch.version, Ordering::SeqCst)
            != descriptor.epoch.version
        {
            self.generation.fetch_add(1, Ordering::SeqCst);
            self.samples.clear();
        }
        *route = Some(Arc::new((descriptor.clone(), leader)));
        self.routes_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the key of the next request is to be sampled.
    pub fn is_sampled(&self) -> bool {
        (self.reads() + self.writes.load(Ordering::Relaxed)).is_multiple_of(SAMPLED)
    }

    /// All reads since the start, whoever served them.
    pub fn reads(&self) -> u64 {
        let served = |count: &AtomicU64| count.load(Ordering::Relaxed);
        served(&self.local_reads) + served(&self.worker_reads)
    }

    /// Publishes which other replicas keep up.
    pub fn set_keeping_up(&self, replicas: Vec<ReplicaId>) {
        *self.keeping_up.write() = replicas;
    }

    /// Other replicas that keep up, as the leader last saw.
    pub fn keeping_up(&self) -> Vec<ReplicaId> {
        self.keeping_up.read().clone()
    }

    /// Bounds and leader, as this store knows them; `None` while uninitialised.
    pub fn route(&self) -> Option<Arc<Route>> {
        self.route.read().clone()
    }
}

/// What all threads of a store share with its worker.
#[derive(Debug, Default)]
pub struct StoreShared {
    cells: RwLock<BTreeMap<RangeId, Arc<RangeCell>>>,
    /// Changes with every change of a route.
    routes_generation: Arc<AtomicU64>,
    /// Local reads of replicas that are gone.
    past_reads: AtomicU64,
    /// Stores that are heard, and are not about to stop.
    takers: RwLock<BTreeSet<StoreId>>,
    /// What the store counts and measures.
    pub metrics: Arc<Metrics>,
}

impl StoreShared {
    /// The cell of `range`, if this store has a replica of it.
    pub fn cell(&self, range: RangeId) -> Option<Arc<RangeCell>> {
        self.cells.read().get(&range).cloned()
    }

    /// The cell of `range`, made if absent.
    pub fn cell_or_insert(&self, range: RangeId) -> Arc<RangeCell> {
        let fresh = || {
            Arc::new(RangeCell {
                routes_generation: self.routes_generation.clone(),
                ..Default::default()
            })
        };
        self.cells
            .write()
            .entry(range)
            .or_insert_with(fresh)
            .clone()
    }

    /// The replica is gone.
    pub fn remove(&self, range: RangeId) {
        if let Some(cell) = self.cells.write().remove(&range) {
            cell.clear_lease();
            let reads = cell.local_reads.load(Ordering::Relaxed);
            self.past_reads.fetch_add(reads, Ordering::Relaxed);
        }
        self.routes_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Descriptors and leaders of all initialised replicas, by range id.
    pub fn routes(&self) -> Vec<Route> {
        self.cells
            .read()
            .values()
            .filter_map(|c| c.route())
            .map(|r| (*r).clone())
            .collect()
    }

    /// Reads answered on the callers' own threads since the start.
    pub fn local_reads(&self) -> u64 {
        let cells = self.cells.read();
        let present = cells
            .values()
            .map(|c| c.local_reads.load(Ordering::Relaxed));
        self.past_reads.load(Ordering::Relaxed) + present.sum::<u64>()
    }

    /// Publishes which other stores may be handed a leadership.
    pub fn set_takers(&self, takers: BTreeSet<StoreId>) {
        *self.takers.write() = takers;
    }

    /// Whether `store` may be handed a leadership: it was heard of within an election timeout, and
    /// has not said that it is about to stop.
    pub fn is_taker(&self, store: StoreId) -> bool {
        self.takers.read().contains(&store)
    }

    /// A number that changes with every change of [`routes`](Self::routes).
    pub fn routes_generation(&self) -> u64 {
        self.routes_generation.load(Ordering::Acquire)
    }
}
