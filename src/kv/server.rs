//! HTTP of the KV door: paths, methods, sizes.

use super::request::{key, pair, put};
use super::strings;
use crate::http::answer::{Answer, Failure};
use crate::http::query::Query;
use crate::node::options::Listen;
use crate::node::running::Running;
use crate::node::seat::Seat;
use crate::trace::Tracer;
use axum::body::{to_bytes, Body};
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use serde_json::{json, Map, Value};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Keys of a list, if none are asked for, and at most.
const KEYS_DEFAULT: u64 = 1_000;
const KEYS_MAX: u64 = 10_000;

/// What requests need.
#[derive(Clone)]
struct Door {
    seat: Arc<Seat>,
    node: Arc<OnceLock<Arc<Running>>>,
}

/// Listens where `listen` says. If nobody asked for that very address and another process has
/// it, the store goes on without this door.
pub async fn bind(listen: &Listen, asked_for: bool) -> anyhow::Result<Option<TcpListener>> {
    match crate::node::listen::bind("KV", "--kv-http-address", listen).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if asked_for => Err(error),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "no KV over HTTP");
            Ok(None)
        }
    }
}

/// Serves until `closing` ends; requests that were read are answered.
pub async fn run(
    listener: TcpListener,
    seat: Arc<Seat>,
    node: Arc<OnceLock<Arc<Running>>>,
    closing: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = axum::Router::new()
        .fallback(serve)
        .with_state(Door { seat, node });
    axum::serve(listener, app)
        .with_graceful_shutdown(closing)
        .await
}

async fn serve(State(door): State<Door>, request: Request) -> Response<Body> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match traced(&door, request).await {
        Ok(value) => Answer::json(&value).response(&method, &headers),
        Err(failure) => failure.response(),
    }
}

/// [`answer`], which may be traced.
async fn traced(door: &Door, request: Request) -> Result<Value, Failure> {
    let name = match request.uri().path() {
        "/kv/set" => "set",
        "/kv/get" => "get",
        "/kv/delete" => "delete",
        "/kv/list" => "list",
        _ => "unknown",
    };
    let tracer = door.node.get().and_then(|node| node.tracer.as_ref());
    Tracer::sampled(tracer, "kv", name, Failure::word, answer(door, request)).await
}

async fn answer(door: &Door, request: Request) -> Result<Value, Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (method, allowed) = match path {
        "/kv/set" | "/kv/delete" => (Method::POST, "POST"),
        "/kv/get" | "/kv/list" => (Method::GET, "GET"),
        _ => {
            return Err(Failure::NotFound(format!(
                "{path:?}: expected /kv/set, /kv/get, /kv/delete or /kv/list"
            )))
        }
    };
    if parts.method != method {
        return Err(Failure::MethodNotAllowed {
            asked: format!("{} {path}", parts.method),
            allowed,
        });
    }
    let query = Query::parse(parts.uri.query());
    match path {
        "/kv/set" => {
            let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|e| {
                let why =
                    format!("the body is longer than {BODY_BYTES_MAX} bytes, or broke off: {e}");
                Failure::BadRequest(why)
            })?;
            let (key, value) = pair(&body)?;
            strings::set(door.node()?, &key, &value).await?;
            Ok(success(&key, |_| ()))
        }
        "/kv/get" => {
            let key = key(&query)?;
            match strings::get(door.node()?, &key).await? {
                Some(value) => Ok(success(&key, |answer| put(answer, "value", &value))),
                None => Err(Failure::NotFound(format!(
                    "there is no key {:?}",
                    String::from_utf8_lossy(&key)
                ))),
            }
        }
        "/kv/delete" => {
            let key = key(&query)?;
            let deleted = strings::delete(door.node()?, &key).await?;
            Ok(success(&key, |answer| {
                answer.insert("deleted".into(), deleted.into());
            }))
        }
        _ => {
            let limit = query.number("limit", KEYS_MAX)?.unwrap_or(KEYS_DEFAULT);
            let cursor = match query.text("cursor") {
                Some(text) if !text.is_empty() => {
                    let bytes = URL_SAFE_NO_PAD.decode(&text).map_err(|e| {
                        let why = format!("cursor={text:?} is none that was given out: {e}");
                        Failure::BadRequest(why)
                    })?;
                    Some(bytes.into())
                }
                _ => None,
            };
            let node = door.node()?;
            // At least one: a cursor that does not move would be asked for again and again.
            let page = strings::list(node, cursor, limit.max(1) as usize).await?;
            let (mut keys, mut binary) = (Vec::new(), Vec::new());
            for key in &page.keys {
                let mut one = Map::new();
                put(&mut one, "key", key);
                keys.extend(one.remove("key"));
                binary.extend(one.remove("key_base64"));
            }
            Ok(json!({
                "status": "success",
                "node": node.identity.name,
                "count": page.keys.len(),
                "keys": keys,
                "keys_base64": binary,
                "cursor": page.next.map(|at| URL_SAFE_NO_PAD.encode(at)),
            }))
        }
    }
}

fn success(key: &[u8], more: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut answer = Map::new();
    answer.insert("status".into(), "success".into());
    put(&mut answer, "key", key);
    more(&mut answer);
    Value::Object(answer)
}

impl Door {
    /// This store, once it has its seat in a cluster.
    fn node(&self) -> Result<&Running, Failure> {
        self.node.get().map(|node| &**node).ok_or_else(|| {
            let why = self
                .seat
                .notice()
                .unwrap_or_else(|| "no member of a cluster has given it a place yet".into());
            Failure::unavailable(format!(
                "{} is waiting to be initialised: {why}",
                self.seat.name()
            ))
        })
    }
}
