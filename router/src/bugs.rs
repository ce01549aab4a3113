//! Deliberate bugs, for showing that the simulation finds their kind; see `store/src/bugs.rs`.
//!
//! Without the feature `planted-bugs` every question is answered `false` at compile time.

/// A bug that can be switched on in a build with the feature `planted-bugs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Bug {
    /// A route that is known is never replaced by a newer one, nor its leader forgotten.
    RangeCacheNeverInvalidated,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 1] = [Bug::RangeCacheNeverInvalidated];

    /// Its name in snake case.
    pub fn name(self) -> &'static str {
        match self {
            Bug::RangeCacheNeverInvalidated => "range_cache_never_invalidated",
        }
    }
}

#[cfg(feature = "planted-bugs")]
mod selector {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, or all off.
    pub fn set(bug: Option<Bug>) {
        ACTIVE.with(|a| a.set(bug));
    }

    /// Whether `bug` is on.
    pub fn active(bug: Bug) -> bool {
        ACTIVE.with(|a| a.get()) == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use selector::{active, set};

/// Always false: this build has no planted bugs.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn active(_: Bug) -> bool {
    false
}
