//! Why something that an operator asked for was not done.

use rangekv_proto::RequestError;
use rangekv_router::retry::DoorError;
use std::fmt;

/// See the module's documentation. Each says in words what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It makes no sense.
    Invalid(String),
    /// What it is about does not exist, or not here.
    NotFound(String),
    /// It was decided by something that has changed.
    Stale(String),
    /// The cluster is not in a state in which it could be done.
    Refused(String),
    /// Another store, or a later moment, may do better; nothing was done.
    Unavailable(String),
    /// It may or may not take effect.
    Unknown(String),
}

impl Failure {
    /// What to tell people.
    pub fn message(&self) -> &str {
        match self {
            Self::Invalid(why)
            | Self::NotFound(why)
            | Self::Stale(why)
            | Self::Refused(why)
            | Self::Unavailable(why)
            | Self::Unknown(why) => why,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Invalid(why) => Failure::Refused(why),
            DoorError::OutcomeUnknown(why) => Failure::Unknown(why),
            error => Failure::Unavailable(error.to_string()),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Invalid(why) => Failure::Refused(why),
            RequestError::OutcomeUnknown(why) => Failure::Unknown(why),
            error => Failure::Unavailable(error.to_string()),
        }
    }
}
