//! Which range holds a key and who leads it, as far as this process knows.
//!
//! Filled from the placement driver and from the local store, repaired from errors. It may
//! be stale at any time: every request carries what it was routed by, and a store refuses
//! what no longer holds.
//!
//! Invariants of a [`RangeCache`]:
//! - Routes are sorted by start key and do not overlap; there may be gaps.
//! - The epoch at a key never goes back: of two overlapping descriptors the one with the
//!   greater version stays, at equal versions the one with the greater `conf_version`.
//! - The term of a range's leader hint never goes back, save that a hint which has been
//!   disproved is forgotten.

use crate::bugs::{self, Bug};
use parking_lot::RwLock;
use rangekv_proto::{LeaderHint, RangeDescriptor, RangeId, RequestError, StoreId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A range and its leader. A hint of term 0 is a guess, which any real one replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The range.
    pub descriptor: RangeDescriptor,
    /// Who leads it, if known.
    pub leader: Option<LeaderHint>,
}

/// Where a request was sent that came back with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The range.
    pub range: RangeId,
    /// `epoch.version` that the request carried.
    pub version: u64,
    /// The store that was asked.
    pub store: StoreId,
    /// The term that the request carried; 0 = any.
    pub term: u64,
}

/// The routes known, as an immutable value: a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct RangeCache {
    routes: Vec<Arc<Route>>,
}

impl RangeCache {
    /// The route of the range that holds `key`.
    pub fn lookup(&self, key: &[u8]) -> Option<&Arc<Route>> {
        let after = self
            .routes
            .partition_point(|r| r.descriptor.start[..] <= *key);
        let route = &self.routes[after.checked_sub(1)?];
        route.descriptor.contains(key).then_some(route)
    }

    /// The routes that overlap `[start, end)` (`end` empty = unbounded), in key order.
    pub fn span(&self, start: &[u8], end: &[u8]) -> &[Arc<Route>] {
        let from = self
            .routes
            .partition_point(|r| !r.descriptor.end.is_empty() && r.descriptor.end[..] <= *start);
        let to = match end {
            [] => self.routes.len(),
            _ => self
                .routes
                .partition_point(|r| r.descriptor.start[..] < *end),
        };
        &self.routes[from..to.max(from)]
    }

    /// All routes in key order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Takes in what someone knows; whether anything was news.
    pub fn apply(&mut self, descriptor: RangeDescriptor, leader: Option<LeaderHint>) -> bool {
        // A descriptor of an empty or inverted span would break the order of the routes.
        if !descriptor.end.is_empty() && descriptor.end <= descriptor.start {
            return false;
        }
        let age = |d: &RangeDescriptor| (d.epoch.version, d.epoch.conf_version);
        let from = self.routes.partition_point(|r| {
            !r.descriptor.end.is_empty() && r.descriptor.end <= descriptor.start
        });
        let count = self.span(&descriptor.start, &descriptor.end).len();
        let overlapped = &self.routes[from..from + count];
        if !overlapped.is_empty() && bugs::active(Bug::RangeCacheNeverInvalidated) {
            return false;
        }
        if let [known] = overlapped {
            if known.descriptor == descriptor {
                return leader.is_some_and(|hint| self.set_leader(from, hint));
            }
        }
        if overlapped
            .iter()
            .any(|known| age(&known.descriptor) >= age(&descriptor))
        {
            return false;
        }
        // Leadership outlives a change of bounds, as long as the leader is still a member.
        let known = overlapped
            .iter()
            .filter(|r| r.descriptor.id == descriptor.id)
            .find_map(|r| r.leader)
            .filter(|hint| descriptor.replica_on(hint.store).is_some());
        // The first leader of a split's right side is most likely the one of the left.
        let guess = overlapped
            .iter()
            .find_map(|r| r.leader)
            .filter(|hint| descriptor.replica_on(hint.store).is_some())
            .map(|hint| LeaderHint {
                store: hint.store,
                term: 0,
            });
        let leader = match (leader, known) {
            (Some(new), Some(old)) if old.term > new.term => Some(old),
            (Some(new), _) => Some(new),
            (None, known) => known.or(guess),
        };
        self.routes
            .splice(from..from + count, [Arc::new(Route { descriptor, leader })]);
        true
    }

    /// Learns what `error`, the answer to a request sent as `asked`, tells; whether
    /// anything was news.
    pub fn on_error(&mut self, asked: &Asked, error: &RequestError) -> bool {
        match error {
            RequestError::NotLeader {
                range,
                leader: Some(hint),
            } => {
                let Some(i) = self.index_of(*range) else {
                    return false;
                };
                let asked_the_hint = hint.store == asked.store && hint.term <= asked.term;
                if asked_the_hint {
                    return self.suspect(asked);
                }
                match self.routes[i].leader {
                    // The store that our hint names has just said that it does not lead.
                    Some(known)
                        if known.store == asked.store
                            && known.term <= asked.term.max(hint.term) =>
                    {
                        self.replace_leader(i, Some(*hint))
                    }
                    _ => self.set_leader(i, *hint),
                }
            }
            RequestError::NotLeader { leader: None, .. }
            | RequestError::RangeNotFound { .. }
            | RequestError::Unavailable(_)
            | RequestError::OutcomeUnknown(_) => self.suspect(asked),
            RequestError::EpochNotMatch { current } => {
                let mut news = false;
                for descriptor in current {
                    news |= self.apply(descriptor.clone(), None);
                }
                news
            }
            RequestError::Busy { .. } | RequestError::Invalid(_) => false,
        }
    }

    /// Forgets the leader hint by which a request was sent that was not answered as by a leader.
    pub fn suspect(&mut self, asked: &Asked) -> bool {
        let Some(i) = self.index_of(asked.range) else {
            return false;
        };
        match self.routes[i].leader {
            Some(hint) if hint.store == asked.store && hint.term <= asked.term => {
                self.replace_leader(i, None)
            }
            _ => false,
        }
    }

    /// Panics unless the routes are in order and disjoint.
    pub fn check_invariants(&self) {
        for pair in self.routes.windows(2) {
            let (left, right) = (&pair[0].descriptor, &pair[1].descriptor);
            assert!(
                !left.end.is_empty() && left.end <= right.start,
                "routes overlap: {left:?} and {right:?}"
            );
        }
    }

    // Errors are rare, and ranges thousands at most: no second index is kept by id.
    fn index_of(&self, range: RangeId) -> Option<usize> {
        self.routes.iter().position(|r| r.descriptor.id == range)
    }

    fn set_leader(&mut self, i: usize, hint: LeaderHint) -> bool {
        match self.routes[i].leader {
            Some(known) if known.term >= hint.term => false,
            _ => self.replace_leader(i, Some(hint)),
        }
    }

    fn replace_leader(&mut self, i: usize, leader: Option<LeaderHint>) -> bool {
        let kept = bugs::active(Bug::RangeCacheNeverInvalidated) && self.routes[i].leader.is_some();
        if self.routes[i].leader == leader || kept {
            return false;
        }
        let descriptor = self.routes[i].descriptor.clone();
        self.routes[i] = Arc::new(Route { descriptor, leader });
        true
    }
}

/// The cache of a process, shared by all its connections.
///
/// Readers keep a [`Snapshot`] and look at one atomic to see whether it is current, so that
/// the hot path takes no lock. Writers copy the vector of routes: changes are rare.
#[derive(Debug, Default)]
pub struct SharedCache {
    // A lock around a pointer: held for the copy of an `Arc`, or while a change is made.
    current: RwLock<Arc<RangeCache>>,
    generation: AtomicU64,
}

/// What a connection routes by until it looks again.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The routes.
    pub cache: Arc<RangeCache>,
    /// Grows with every change.
    pub generation: u64,
}

impl SharedCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current routes.
    pub fn snapshot(&self) -> Snapshot {
        // Read first: a change in between makes the snapshot look older than it is, never newer.
        let generation = self.generation.load(Ordering::Acquire);
        Snapshot {
            cache: self.current.read().clone(),
            generation,
        }
    }

    /// Makes `snapshot` current; cheap if it is.
    #[inline]
    pub fn refresh(&self, snapshot: &mut Snapshot) {
        if self.generation.load(Ordering::Acquire) != snapshot.generation {
            *snapshot = self.snapshot();
        }
    }

    /// Takes in routes, from the placement driver or the local store.
    pub fn apply_routes(
        &self,
        routes: impl IntoIterator<Item = (RangeDescriptor, Option<LeaderHint>)>,
    ) -> bool {
        self.update(|cache| {
            let mut news = false;
            for (descriptor, leader) in routes {
                news |= cache.apply(descriptor, leader);
            }
            news
        })
    }

    /// As [`RangeCache::on_error`].
    pub fn on_error(&self, asked: &Asked, error: &RequestError) -> bool {
        self.update(|cache| cache.on_error(asked, error))
    }

    /// As [`RangeCache::suspect`].
    pub fn suspect(&self, asked: &Asked) -> bool {
        self.update(|cache| cache.suspect(asked))
    }

    fn update(&self, change: impl FnOnce(&mut RangeCache) -> bool) -> bool {
        let mut current = self.current.write();
        let mut next = RangeCache::clone(&current);
        let news = change(&mut next);
        if news {
            if cfg!(debug_assertions) {
                next.check_invariants();
            }
            *current = Arc::new(next);
            self.generation.fetch_add(1, Ordering::Release);
        }
        news
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
