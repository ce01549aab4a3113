//! The DynamoDB model: items of tables, read and changed by expressions.
//!
//! Evaluation is in `evaluate.rs`, the key layout in `keys.rs`, stored records in `codec.rs`,
//! commands and replies in `command.rs`, what is known of repeated transactions in `token.rs`; `expr/` has the expressions. JSON and the validation of
//! requests are the front door's.

pub mod codec;
pub mod command;
mod evaluate;
pub mod expr;
pub mod keys;
pub mod number;
pub mod schema;
pub mod token;
pub mod value;

pub use evaluate::{DynamoModel, NESTED_TOO_DEEP};
