//! What the data means: pure functions over an ordered key-value view.

pub mod dynamo;
pub mod eval;
pub mod redis;
