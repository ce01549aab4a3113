//! The way from the door to the cluster's ranges and its catalog.

use super::catalog::Catalog;
use super::count::Counts;
use crate::node::calls::Target;
use crate::node::running::Running;
use rand::Rng;
use rangekv_model::dynamo::command::{Command, Reply};
use rangekv_proto::internal::placement_command::Kind;
use rangekv_proto::internal::TableRecord;
use rangekv_proto::{EvaluatorId, RangeId};
use rangekv_router::dynamo::backend::{Backend, Place};
use rangekv_router::dynamo::error::{DynamoError, Exception};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A request has its answer within this time.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Clone)]
pub struct Ranges {
    /// This node.
    pub node: Arc<Running>,
    catalog: Arc<Catalog>,
    counts: Arc<Counts>,
}

impl Ranges {
    /// The cluster, as this node reaches it.
    pub fn new(node: Arc<Running>) -> Ranges {
        Ranges {
            node,
            catalog: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Keeps the figures of a table.
    pub fn counted(&self, table: u32, items: u64, bytes: u64) {
        self.counts.put(table, items, bytes);
    }
}

impl Backend for Ranges {
    async fn command(
        &self,
        place: Place,
        read_only: bool,
        command: &Command,
    ) -> Result<Reply, DynamoError> {
        let target = match &place {
            Place::At(key) => Target::Key(key),
            Place::Before(key) => Target::Before(key),
        };
        let (evaluator, command) = (EvaluatorId::DYNAMO, command.encode());
        let call =
            self.node
                .calls
                .evaluate(target, evaluator, read_only, command, REQUEST_TIME_MAX);
        let reply = call.await?;
        Reply::decode(&reply).ok_or_else(|| {
            let why = "the range's leader is of another version: its answer is not understood";
            DynamoError::new(Exception::Internal, why)
        })
    }

    fn range_of(&self, key: &[u8]) -> Option<RangeId> {
        let route = self.node.calls.route(Target::Key(key))?;
        Some(route.descriptor.id)
    }

    async fn table(&self, name: &str) -> Result<Option<TableRecord>, DynamoError> {
        self.catalog.table(&self.node.calls, name).await
    }

    async fn tables(&self) -> Result<Vec<TableRecord>, DynamoError> {
        self.catalog.read(&self.node.calls).await
    }

    async fn change(&self, kind: Kind) -> Result<Result<TableRecord, String>, DynamoError> {
        self.catalog.change(&self.node.calls, kind).await
    }

    fn table_size(&self, table: &TableRecord) -> (u64, u64) {
        self.counts.of(self, table)
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn uuid(&self) -> String {
        uuid()
    }
}

/// Version 4 of RFC 9562.
pub fn uuid() -> String {
    let bits: u128 = rand::rng().random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
