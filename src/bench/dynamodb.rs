//! The same loads against what speaks DynamoDB: PutItem, GetItem and UpdateItem on one table, over
//! HTTP/1.1 with a connection per client. Requests carry an Authorization header as an SDK's do,
//! but no valid signature.

use super::load::Op;
use super::tasks::{Client, Failed, CONNECT_DEADLINE};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{json, Value as Json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The table must be usable within this time.
const TABLE_DEADLINE: Duration = Duration::from_secs(15);
const AUTHORIZATION_OF_NOBODY: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-target, Signature=0";

/// One connection; its clones take turns.
#[derive(Clone)]
pub struct Connection {
    http: Arc<tokio::sync::Mutex<SendRequest<Full<Bytes>>>>,
    host: String,
    table: String,
}

/// Opens a connection per element of `endpoints`, and makes `table` if it is not there.
pub async fn connect(endpoints: Vec<String>, table: String) -> Result<Vec<Connection>, String> {
    let mut connections = Vec::with_capacity(endpoints.len());
    for address in endpoints {
        let failed = |error: String| format!("can't connect to {address}: {error}");
        let connecting = TcpStream::connect(&address);
        let stream = tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| failed("no answer".into()))?
            .map_err(|error| failed(error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let (http, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // It ends with the connection; requests say why.
        tokio::spawn(connection);
        connections.push(Connection {
            http: Arc::new(tokio::sync::Mutex::new(http)),
            host: address,
            table: table.clone(),
        });
    }
    if let Some(first) = connections.first_mut() {
        let made = first.make_table().await;
        made.map_err(|failed| format!("--table {table}: {}: {}", failed.kind, failed.message))?;
    }
    Ok(connections)
}

impl Connection {
    async fn make_table(&mut self) -> Result<(), Failed> {
        let table = json!({
            "TableName": self.table,
            "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
            "BillingMode": "PAY_PER_REQUEST",
        });
        match self.call("CreateTable", &table).await {
            Err(failed) if failed.kind != "ResourceInUseException" => return Err(failed),
            _ => {}
        }
        let until = Instant::now() + TABLE_DEADLINE;
        let name = json!({ "TableName": self.table });
        loop {
            let described = self.call("DescribeTable", &name).await?;
            if described["Table"]["TableStatus"] == "ACTIVE" {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Failed {
                    kind: "timeout".into(),
                    message: format!("the table is still {}", described["Table"]["TableStatus"]),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn call(&mut self, operation: &str, body: &Json) -> Result<Json, Failed> {
        let broken = |error: &dyn std::fmt::Display| Failed {
            kind: "connection".into(),
            message: error.to_string(),
        };
        let request = Request::post("/")
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/x-amz-json-1.0")
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header(AUTHORIZATION, AUTHORIZATION_OF_NOBODY)
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| broken(&error))?;
        let mut http = self.http.lock().await;
        http.ready().await.map_err(|error| broken(&error))?;
        let response = http
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        let json: Json = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        if status == StatusCode::OK {
            return Ok(json);
        }
        let kind = json["__type"].as_str().unwrap_or_default();
        let message = json["message"].as_str().or(json["Message"].as_str());
        Err(Failed {
            kind: kind.rsplit('#').next().unwrap_or_default().to_owned(),
            message: message.unwrap_or_default().to_owned(),
        })
    }
}

impl Client for Connection {
    async fn send(&mut self, op: Op, key: Bytes, value: Bytes) -> Result<bool, Failed> {
        let (key, value) = (
            String::from_utf8_lossy(&key),
            String::from_utf8_lossy(&value),
        );
        let key = json!({ "S": key });
        match op {
            Op::Set => {
                let item = json!({ "pk": key, "value": { "S": value } });
                let body = json!({ "TableName": self.table, "Item": item });
                self.call("PutItem", &body).await.map(|_| true)
            }
            Op::Get => {
                let body = json!({ "TableName": self.table, "Key": { "pk": key }, "ConsistentRead": true });
                let found = self.call("GetItem", &body).await?;
                Ok(!found["Item"].is_null())
            }
            Op::Incr => {
                let body = json!({
                    "TableName": self.table,
                    "Key": { "pk": key },
                    "UpdateExpression": "ADD n :one",
                    "ExpressionAttributeValues": { ":one": { "N": "1" } },
                });
                self.call("UpdateItem", &body).await.map(|_| true)
            }
            other => Err(Failed {
                kind: "unsupported".into(),
                message: format!("DynamoDB has no {}", other.name()),
            }),
        }
    }
}
