//! A cluster in memory: one keyspace, some ranges, a catalog.

use bytes::Bytes;
use futures::executor::block_on;
use parking_lot::Mutex;
use prost::Message;
use rangekv_model::dynamo::command::{Command, Reply};
use rangekv_model::dynamo::{keys, DynamoModel};
use rangekv_model::eval::{Context, Evaluator, Txn};
use rangekv_pd::state::{encode, PlacementModel};
use rangekv_proto::internal::placement_command::{Kind, ReadTables};
use rangekv_proto::internal::{PlacementReply, TableRecord};
use rangekv_proto::RangeId;
use rangekv_router::dynamo::backend::{Backend, Place};
use rangekv_router::dynamo::error::DynamoError;
use rangekv_router::dynamo::{answer, Caller, TARGET};
use serde_json::{json, Value as Json};
use std::collections::BTreeMap;

type Records = BTreeMap<Bytes, Bytes>;

#[derive(Default)]
pub struct Cluster {
    records: Mutex<Records>,
    placement: Mutex<Records>,
    /// Where ranges begin; the first always at the beginning.
    pub cuts: Mutex<Vec<Bytes>>,
    /// The range to which nothing gets through.
    pub away: Mutex<Option<RangeId>>,
    /// Milliseconds since the cluster began.
    pub elapsed_ms: Mutex<u64>,
}

/// When clusters begin, in milliseconds since the Unix epoch.
const BEGAN_MS: u64 = 1_700_000_000_000;

fn evaluate(
    model: &dyn Evaluator,
    records: &mut Records,
    command: &Bytes,
    start: &[u8],
    end: &[u8],
    now_ms: u64,
) -> Bytes {
    let before = records.clone();
    let mut txn = Txn::new(&before);
    let context = Context {
        now_ms,
        seed: 1,
        start,
        end,
    };
    let reply = model.evaluate(&context, command, &mut txn);
    for (key, value) in txn.into_writes() {
        match value {
            Some(value) => records.insert(key, value),
            None => records.remove(&key),
        };
    }
    reply
}

impl Cluster {
    fn place(&self, kind: Kind) -> PlacementReply {
        let command = encode(kind);
        let records = &mut *self.placement.lock();
        let reply = evaluate(
            &PlacementModel,
            records,
            &command,
            b"",
            &[0x10],
            self.now_ms(),
        );
        PlacementReply::decode(reply).unwrap()
    }

    fn range_at(&self, key: &[u8]) -> (RangeId, Bytes, Bytes) {
        let cuts = self.cuts.lock();
        let at = cuts.iter().filter(|cut| &cut[..] <= key).count();
        let bound = |i: usize| cuts.get(i).cloned().unwrap_or_default();
        let start = at.checked_sub(1).map_or(Bytes::new(), bound);
        (RangeId(at as u64), start, bound(at))
    }

    /// Cuts a table into so many ranges.
    pub fn split(&self, table: &str, parts: u32) {
        let id = block_on(self.table(table)).unwrap().unwrap().id;
        let mut cuts = self.cuts.lock();
        cuts.extend((1..parts).map(|i| keys::segment(id, i, parts).start));
        cuts.sort();
    }

    /// Cuts a range in two at `key`.
    pub fn cut(&self, key: Bytes) {
        let mut cuts = self.cuts.lock();
        cuts.push(key);
        cuts.sort();
    }

    /// The answer to a request, or the exception's name and message.
    pub fn ask(&self, operation: &str, request: Json) -> Result<Json, (String, String)> {
        let caller = Caller {
            region: "eu-north-1".into(),
            host: "localhost:8000".into(),
        };
        let body = request.to_string();
        let target = format!("{TARGET}{operation}");
        let answered = block_on(answer(self, &caller, &target, body.as_bytes()));
        let parsed = answered.map(|body| match body.is_empty() {
            true => Json::Null,
            false => serde_json::from_str(&body).unwrap(),
        });
        parsed.map_err(|error| {
            let json = error.to_json();
            let name = json["__type"].as_str().unwrap_or_default();
            let name = name.rsplit('#').next().unwrap_or_default();
            (name.to_owned(), error.message)
        })
    }

    pub fn ok(&self, operation: &str, request: Json) -> Json {
        self.ask(operation, request.clone())
            .unwrap_or_else(|e| panic!("{operation} {request}: {e:?}"))
    }

    /// The exception's name and message.
    pub fn refused(&self, operation: &str, request: Json) -> (String, String) {
        match self.ask(operation, request.clone()) {
            Err(error) => error,
            Ok(answer) => panic!("{operation} {request}: {answer}"),
        }
    }

    /// A cluster with table `tab`: partition key `pk` (S), sort key `sk` (N), in three ranges.
    pub fn with_table() -> Cluster {
        let cluster = Cluster::default();
        cluster.ok("CreateTable", create("tab", "pk", Some("sk")));
        cluster.split("tab", 3);
        cluster
    }
}

pub fn create(name: &str, partition: &str, sort: Option<&str>) -> Json {
    let mut definitions = vec![json!({ "AttributeName": partition, "AttributeType": "S" })];
    let mut schema = vec![json!({ "AttributeName": partition, "KeyType": "HASH" })];
    if let Some(sort) = sort {
        definitions.push(json!({ "AttributeName": sort, "AttributeType": "N" }));
        schema.push(json!({ "AttributeName": sort, "KeyType": "RANGE" }));
    }
    json!({
        "TableName": name,
        "AttributeDefinitions": definitions,
        "KeySchema": schema,
        "BillingMode": "PAY_PER_REQUEST",
    })
}

impl Backend for Cluster {
    async fn command(
        &self,
        place: Place,
        _: bool,
        command: &Command,
    ) -> Result<Reply, DynamoError> {
        let (range, start, end) = match &place {
            Place::At(key) => self.range_at(key),
            Place::Before(key) => {
                let mut below = key.to_vec();
                // The greatest key that matters: nothing lies between it and `key`.
                match below.last_mut() {
                    Some(last) if *last > 0 => {
                        *last -= 1;
                        below.extend([0xff; 64]);
                    }
                    _ => drop(below.pop()),
                }
                self.range_at(&below)
            }
        };
        if *self.away.lock() == Some(range) {
            let why = "no leader".to_string();
            return Err(rangekv_router::retry::DoorError::Unavailable(why).into());
        }
        let records = &mut *self.records.lock();
        let reply = evaluate(
            &DynamoModel,
            records,
            &command.encode(),
            &start,
            &end,
            self.now_ms(),
        );
        Ok(Reply::decode(&reply).unwrap())
    }

    fn range_of(&self, key: &[u8]) -> Option<RangeId> {
        Some(self.range_at(key).0)
    }

    async fn table(&self, name: &str) -> Result<Option<TableRecord>, DynamoError> {
        Ok(self.tables().await?.into_iter().find(|t| t.name == name))
    }

    async fn tables(&self) -> Result<Vec<TableRecord>, DynamoError> {
        Ok(self.place(Kind::ReadTables(ReadTables {})).tables)
    }

    async fn change(&self, kind: Kind) -> Result<Result<TableRecord, String>, DynamoError> {
        let mut reply = self.place(kind);
        Ok(match reply.error.is_empty() {
            true => Ok(reply.tables.remove(0)),
            false => Err(reply.error),
        })
    }

    fn table_size(&self, _: &TableRecord) -> (u64, u64) {
        (0, 0)
    }

    fn now_ms(&self) -> u64 {
        BEGAN_MS + *self.elapsed_ms.lock()
    }

    fn uuid(&self) -> String {
        "00000000-0000-4000-8000-000000000000".into()
    }
}
