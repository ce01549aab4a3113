//! The multi-Raft engine. Knows nothing of Redis or DynamoDB.

pub mod engine;
pub mod log;
