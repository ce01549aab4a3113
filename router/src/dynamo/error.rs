//! Errors in DynamoDB's dialect.

use crate::retry::DoorError;
use serde_json::{json, Value as Json};

/// What went wrong with a request, and the HTTP status that goes with it.
#[derive(Clone, PartialEq, Debug)]
pub struct DynamoError {
    /// The exception.
    pub kind: Exception,
    /// For people, and for tests of client libraries.
    pub message: String,
    /// The item that failed a condition, or the reasons of a cancellation.
    pub detail: Option<(&'static str, Json)>,
}

/// The exceptions that we answer with ("Error handling", Amazon DynamoDB API Reference).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// The request can't be read.
    Serialization,
    /// No such operation.
    UnknownOperation,
    /// The request contradicts the rules.
    Validation,
    /// No such table.
    ResourceNotFound,
    /// The table exists, or is being made or deleted.
    ResourceInUse,
    /// The item does not fulfil the condition.
    ConditionalCheckFailed,
    /// A part of a transaction failed.
    TransactionCanceled,
    /// The token stands for a transaction with other content.
    IdempotentParameterMismatch,
    /// Too much at once; nothing was done.
    Throttling,
    /// No leader could be reached; nothing was done.
    Unavailable,
    /// The outcome is unknown, or this is our fault.
    Internal,
}

impl Exception {
    fn name(self) -> &'static str {
        match self {
            Exception::Serialization => "com.amazon.coral.service#SerializationException",
            Exception::UnknownOperation => "com.amazon.coral.service#UnknownOperationException",
            Exception::Validation => "com.amazon.coral.validate#ValidationException",
            Exception::ResourceNotFound => {
                "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"
            }
            Exception::ResourceInUse => "com.amazonaws.dynamodb.v20120810#ResourceInUseException",
            Exception::ConditionalCheckFailed => {
                "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
            }
            Exception::TransactionCanceled => {
                "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
            }
            Exception::IdempotentParameterMismatch => {
                "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException"
            }
            Exception::Throttling => "com.amazon.coral.availability#ThrottlingException",
            Exception::Unavailable => "com.amazon.coral.availability#ServiceUnavailableException",
            Exception::Internal => "com.amazonaws.dynamodb.v20120810#InternalServerError",
        }
    }

    /// All that [`Exception::short_name`] may be.
    pub const SHORT_NAMES: &[&str] = &[
        "SerializationException",
        "UnknownOperationException",
        "ValidationException",
        "ResourceNotFoundException",
        "ResourceInUseException",
        "ConditionalCheckFailedException",
        "TransactionCanceledException",
        "IdempotentParameterMismatchException",
        "ThrottlingException",
        "ServiceUnavailableException",
        "InternalServerError",
    ];

    /// The name without its name space.
    pub fn short_name(self) -> &'static str {
        let name = self.name();
        name.rsplit('#').next().unwrap_or(name)
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Exception::Internal => 500,
            Exception::Unavailable => 503,
            _ => 400,
        }
    }
}

impl DynamoError {
    /// An error without further detail.
    pub fn new(kind: Exception, message: impl Into<String>) -> Self {
        DynamoError {
            kind,
            message: message.into(),
            detail: None,
        }
    }

    /// The request contradicts the rules.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(Exception::Validation, message)
    }

    /// The request can't be read.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new(Exception::Serialization, message)
    }

    /// The body of the response.
    pub fn to_json(&self) -> Json {
        let mut body = json!({ "__type": self.kind.name() });
        // The older services of AWS write it with a capital.
        let key = match self.kind {
            Exception::Serialization => "Message",
            _ => "message",
        };
        if self.kind != Exception::UnknownOperation {
            body[key] = self.message.clone().into();
        }
        if let Some((name, detail)) = &self.detail {
            body[*name] = detail.clone();
        }
        body
    }
}

impl From<DoorError> for DynamoError {
    fn from(error: DoorError) -> Self {
        let kind = match &error {
            DoorError::Unavailable(_) => Exception::Unavailable,
            DoorError::Busy(_) => Exception::Throttling,
            DoorError::OutcomeUnknown(_) | DoorError::Invalid(_) => Exception::Internal,
        };
        DynamoError::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Exception;

    #[test]
    fn each_exception_is_counted_by_its_name() {
        let all = [
            Exception::Serialization,
            Exception::UnknownOperation,
            Exception::Validation,
            Exception::ResourceNotFound,
            Exception::ResourceInUse,
            Exception::ConditionalCheckFailed,
            Exception::TransactionCanceled,
            Exception::IdempotentParameterMismatch,
            Exception::Throttling,
            Exception::Unavailable,
            Exception::Internal,
        ];
        assert_eq!(all.map(Exception::short_name), Exception::SHORT_NAMES);
    }
}
