//! What the door needs of the cluster: a trait that the binary wires to its ranges, and that
//! tests wire to a map.

use super::error::{DynamoError, Exception};
use bytes::Bytes;
use rangekv_model::dynamo::command::{Command, Reply};
use rangekv_proto::internal::placement_command::Kind;
use rangekv_proto::internal::TableRecord;
use rangekv_proto::RangeId;
use std::future::Future;

/// Which range a command goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The one that holds this key.
    At(Bytes),
    /// The one that holds the keys just before this one.
    Before(Bytes),
}

/// See the module's documentation.
pub trait Backend: Send + Sync + 'static {
    /// Evaluates a command on the leader of a range, with the door's retry policy.
    fn command(
        &self,
        place: Place,
        read_only: bool,
        command: &Command,
    ) -> impl Future<Output = Result<Reply, DynamoError>> + Send;

    /// The range that holds `key`, as far as is known: a hint for grouping.
    fn range_of(&self, key: &[u8]) -> Option<RangeId>;

    /// The table of this name, no older than a second.
    fn table(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<TableRecord>, DynamoError>> + Send;

    /// All tables, by name.
    fn tables(&self) -> impl Future<Output = Result<Vec<TableRecord>, DynamoError>> + Send;

    /// Changes the catalog. The outer error: nobody could be asked. The inner: refused, and why.
    fn change(
        &self,
        kind: Kind,
    ) -> impl Future<Output = Result<Result<TableRecord, String>, DynamoError>> + Send;

    /// Items and bytes of a table, as last counted.
    fn table_size(&self, table: &TableRecord) -> (u64, u64);

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// A fresh random UUID.
    fn uuid(&self) -> String;
}

/// An answer that only another version of this program gives.
pub fn not_understood(reply: &Reply) -> DynamoError {
    let why = match reply {
        Reply::Failed(why) => why.clone(),
        other => format!("an unexpected answer from a range: {other:?}"),
    };
    DynamoError::new(Exception::Internal, why)
}
