//! What an error from a store means for a request: again, when and where, or give up.
//!
//! One rule: an error which proves that nothing was proposed is retried until the deadline;
//! an unknown outcome is surfaced at once, because a plain SET that is sent again may undo
//! a later writer. A read-only request has no effect and may be sent again after anything.
//!
//! Pure: time is an argument, in milliseconds of any monotonic clock.

use crate::cache::Asked;
use rangekv_proto::RequestError;
use std::fmt;

/// The policy's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Wait before the first retry that can't go somewhere better at once.
    pub backoff_min_ms: u64,
    /// The wait doubles up to this.
    pub backoff_max_ms: u64,
    /// Retries without a wait, in a row: two stores that point at each other must not spin.
    pub immediate_max: u32,
    /// Sends of a request to a busy range before the client is told: a client that is never
    /// told never slows down.
    pub busy_tries_max: u32,
    /// After how long an unanswered read-only request is taken for lost.
    pub read_try_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            backoff_min_ms: 2,
            backoff_max_ms: 250,
            immediate_max: 4,
            busy_tries_max: 4,
            read_try_ms: 2000,
        }
    }
}

/// A request that came back with an error.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Now.
    pub now_ms: u64,
    /// When the client must have an answer.
    pub deadline_ms: u64,
    /// How often it has been sent, this time included: at least 1.
    pub tries: u32,
    /// How many of the last retries went without a wait.
    pub at_once: u32,
    /// It has no effect.
    pub read_only: bool,
    /// Where it was sent.
    pub asked: Asked,
    /// The error taught the route cache something.
    pub news: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it again at `when_ms`.
    RetryAt {
        /// Not before.
        when_ms: u64,
        /// To whom.
        ask: Ask,
    },
    /// Answer the client.
    GiveUp(DoorError),
}

/// To whom a retry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whom the repaired cache names.
    Route,
    /// The leader if the cache has learned one by then, else the next replica in turn.
    Another,
}

/// Why a client gets no result. Each door has its own words for these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorError {
    /// Nothing was proposed, and no leader could be reached in time.
    Unavailable(String),
    /// The write may or may not take effect, even later.
    OutcomeUnknown(String),
    /// Nothing was proposed: the range has too much to do.
    Busy(String),
    /// The request is wrong.
    Invalid(String),
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
            Self::OutcomeUnknown(why) => write!(f, "outcome unknown: {why}"),
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Invalid(why) => write!(f, "invalid: {why}"),
        }
    }
}

impl std::error::Error for DoorError {}

impl Policy {
    /// Decides about a request that came back with `error`.
    pub fn next(&self, error: &RequestError, attempt: &Attempt) -> Action {
        let now = attempt.now_ms;
        match error {
            RequestError::NotLeader {
                leader: Some(hint), ..
            } => {
                let elsewhere = hint.store != attempt.asked.store || hint.term > attempt.asked.term;
                if elsewhere && attempt.at_once < self.immediate_max {
                    self.at(now, Ask::Route, error, attempt)
                } else {
                    self.at(
                        now + self.backoff_ms(attempt.tries),
                        Ask::Another,
                        error,
                        attempt,
                    )
                }
            }
            RequestError::EpochNotMatch { .. } => {
                if attempt.news && attempt.at_once < self.immediate_max {
                    self.at(now, Ask::Route, error, attempt)
                } else {
                    self.at(
                        now + self.backoff_ms(attempt.tries),
                        Ask::Another,
                        error,
                        attempt,
                    )
                }
            }
            RequestError::NotLeader { leader: None, .. }
            | RequestError::RangeNotFound { .. }
            | RequestError::Unavailable(_) => self.at(
                now + self.backoff_ms(attempt.tries),
                Ask::Another,
                error,
                attempt,
            ),
            RequestError::OutcomeUnknown(_) if attempt.read_only => self.at(
                now + self.backoff_ms(attempt.tries),
                Ask::Another,
                error,
                attempt,
            ),
            RequestError::OutcomeUnknown(why) => {
                Action::GiveUp(DoorError::OutcomeUnknown(why.clone()))
            }
            RequestError::Busy {
                reason,
                retry_after_ms,
            } => {
                if attempt.tries >= self.busy_tries_max {
                    return Action::GiveUp(DoorError::Busy(reason.clone()));
                }
                let wait = u64::from(*retry_after_ms).max(1);
                match self.at(now + wait, Ask::Route, error, attempt) {
                    Action::GiveUp(_) => Action::GiveUp(DoorError::Busy(reason.clone())),
                    retry => retry,
                }
            }
            RequestError::Invalid(why) => Action::GiveUp(DoorError::Invalid(why.clone())),
        }
    }

    /// What a request that was never sent waits for a route: as if it had been refused.
    pub fn backoff_ms(&self, tries: u32) -> u64 {
        let doublings = tries.saturating_sub(1).min(16);
        (self.backoff_min_ms << doublings).min(self.backoff_max_ms)
    }

    fn at(&self, when_ms: u64, ask: Ask, error: &RequestError, attempt: &Attempt) -> Action {
        if when_ms >= attempt.deadline_ms {
            return Action::GiveUp(DoorError::Unavailable(error.to_string()));
        }
        Action::RetryAt { when_ms, ask }
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
