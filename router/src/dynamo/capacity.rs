//! Capacity units: what DynamoDB would charge for a request.
//!
//! ("Read and write capacity consumption", Amazon DynamoDB Developer Guide.) Every read of ours is
//! strongly consistent; what was not asked to be is charged half, as there.

use super::error::DynamoError;
use super::request::Parameters;
use serde_json::{json, Value as Json};

/// `ReturnConsumedCapacity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nothing.
    None,
    /// By table.
    Total,
    /// By table and index.
    Indexes,
}

impl Wanted {
    /// What `request` asks for.
    pub fn of(request: &Parameters<'_>) -> Result<Wanted, DynamoError> {
        let choice = request.choice("ReturnConsumedCapacity", &["NONE", "TOTAL", "INDEXES"])?;
        Ok(match choice {
            "TOTAL" => Wanted::Total,
            "INDEXES" => Wanted::Indexes,
            _ => Wanted::None,
        })
    }

    /// `ConsumedCapacity` of one table; `None` if it was not asked for.
    pub fn json(self, table: &str, units: f64) -> Option<Json> {
        match self {
            Wanted::None => None,
            Wanted::Total => Some(json!({ "TableName": table, "CapacityUnits": units })),
            Wanted::Indexes => Some(json!({
                "TableName": table,
                "CapacityUnits": units,
                "Table": { "CapacityUnits": units },
            })),
        }
    }

    /// `ConsumedCapacity` of a transaction's part.
    pub fn transaction_json(self, table: &str, units: f64, reads: bool) -> Option<Json> {
        let mut json = self.json(table, units)?;
        let kind = if reads {
            "ReadCapacityUnits"
        } else {
            "WriteCapacityUnits"
        };
        json[kind] = units.into();
        Some(json)
    }
}

/// Units for reading `bytes`.
pub fn read(bytes: u64, consistent: bool) -> f64 {
    let units = bytes.div_ceil(4096).max(1) as f64;
    if consistent {
        units
    } else {
        units / 2.0
    }
}

/// Units for writing an item that had and has so many bytes.
pub fn write(old_bytes: u32, new_bytes: u32) -> f64 {
    f64::from(old_bytes.max(new_bytes).div_ceil(1024).max(1))
}
