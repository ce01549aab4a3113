//! HTTP of the DynamoDB door: headers, sizes, checksums. Requests are the router's.
//!
//! Signatures are accepted and not verified.

use super::ranges::{uuid, Ranges};
use crate::http::door::{Counted, DoorCounters};
use crate::node::options::Listen;
use crate::node::running::Running;
use crate::node::seat::Seat;
use crate::trace::Tracer;
use axum::body::{to_bytes, Body};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use rangekv_router::dynamo::error::{DynamoError, Exception};
use rangekv_router::dynamo::{answer, Caller, OPERATIONS, REQUEST_BYTES_MAX};
use rangekv_router::metrics::DoorMetrics;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::net::TcpListener;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const CRC32: HeaderName = HeaderName::from_static("x-amz-crc32");

/// What requests need.
#[derive(Clone)]
struct Door {
    seat: Arc<Seat>,
    node: Arc<OnceLock<Arc<Running>>>,
    ranges: Arc<OnceLock<Ranges>>,
    counters: Arc<DoorCounters>,
}

impl Door {
    /// The cluster, once this store has its seat in one.
    fn ranges(&self) -> Result<&Ranges, DynamoError> {
        match self.node.get() {
            Some(node) => Ok(self.ranges.get_or_init(|| Ranges::new(node.clone()))),
            None => {
                let why = self
                    .seat
                    .notice()
                    .unwrap_or_else(|| "no member of a cluster has given it a place yet".into());
                let why = format!("{} is waiting to be initialised: {why}", self.seat.name());
                Err(DynamoError::new(Exception::Unavailable, why))
            }
        }
    }
}

/// Connections at the same time.
const CONNECTIONS_MAX: u64 = 10_000;

/// What this door counts: requests by operation, errors by exception.
pub fn counters() -> Arc<DoorCounters> {
    let metrics = DoorMetrics::new(OPERATIONS.to_vec(), Exception::SHORT_NAMES);
    DoorCounters::new(metrics, CONNECTIONS_MAX)
}

/// Listens where `listen` says. If nobody asked for that very address and another process has
/// it, the store goes on without this door.
pub async fn bind(listen: &Listen, asked_for: bool) -> anyhow::Result<Option<TcpListener>> {
    match crate::node::listen::bind("DynamoDB", "--dynamo-address", listen).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if asked_for => Err(error),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "no DynamoDB door");
            Ok(None)
        }
    }
}

/// Serves until `closing` ends; requests that were read are answered.
pub async fn run(
    listener: TcpListener,
    seat: Arc<Seat>,
    node: Arc<OnceLock<Arc<Running>>>,
    counters: Arc<DoorCounters>,
    closing: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let door = Door {
        seat,
        node,
        ranges: Arc::default(),
        counters: counters.clone(),
    };
    let app = axum::Router::new().fallback(serve).with_state(door);
    axum::serve(Counted::new(listener, counters), app)
        .with_graceful_shutdown(closing)
        .await
}

async fn serve(State(door): State<Door>, request: Request) -> Response<Body> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *request.method() {
        Method::POST => post(&door, request).await,
        Method::OPTIONS => preflight(request.headers()),
        Method::GET => {
            let host = text(request.headers(), &header::HOST);
            let body = format!("healthy: {host} ");
            let mut response = Response::new(Body::from(body));
            let plain = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            response
        }
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&uuid()) {
        headers.insert(REQUEST_ID, id);
    }
    if origin.is_some() {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        let exposed =
            HeaderValue::from_static("x-amzn-RequestId,x-amzn-ErrorType,x-amz-crc32,Date");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// What a browser asks before it sends a request of another site.
fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE, OPTIONS"),
    );
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("172800"),
    );
    response
}

async fn post(door: &Door, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let caller = Caller {
        region: region(&text(&parts.headers, &header::AUTHORIZATION)),
        host: text(&parts.headers, &header::HOST),
    };
    let target = text(&parts.headers, &TARGET);
    let began = Instant::now();
    let stripe = door.counters.metrics.stripe(0);
    let operation = target.rsplit('.').next().unwrap_or_default();
    let index = OPERATIONS.iter().position(|known| *known == operation);
    stripe.requests(index.unwrap_or(usize::MAX), 1);
    let work = async {
        match to_bytes(body, REQUEST_BYTES_MAX).await {
            Ok(body) => match door.ranges() {
                Ok(ranges) => answer(ranges, &caller, &target, &body).await,
                Err(error) => Err(error),
            },
            Err(_) => Err(DynamoError::serialization(format!(
                "the request is longer than {REQUEST_BYTES_MAX} bytes, or broke off"
            ))),
        }
    };
    let tracer = door.node.get().and_then(|node| node.tracer.as_ref());
    let name = index.map_or("unknown", |index| OPERATIONS[index]);
    let word = |error: &DynamoError| error.kind.short_name();
    let answered = Tracer::sampled(tracer, "dynamodb", name, word, work).await;
    stripe.answered(began.elapsed().as_micros() as u64, 1);
    if let Err(error) = &answered {
        stripe.error(
            door.counters
                .metrics
                .kind(error.kind.short_name().as_bytes()),
        );
    }
    match answered {
        Ok(body) => response(StatusCode::OK, body),
        Err(error) => {
            if error.kind == Exception::Internal {
                tracing::warn!(target, error = error.message, "a DynamoDB request failed");
            }
            let status = StatusCode::from_u16(error.kind.status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response(status, error.to_json().to_string())
        }
    }
}

fn response(status: StatusCode, body: String) -> Response<Body> {
    let checksum = HeaderValue::from(crc32fast::hash(body.as_bytes()));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response.headers_mut().insert(CRC32, checksum);
    response
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The region in the credential scope of a signature, version 4.
fn region(authorization: &str) -> String {
    let scope = authorization
        .split_once("Credential=")
        .and_then(|(_, rest)| rest.split([',', ' ']).next());
    let region = scope.and_then(|scope| scope.split('/').nth(2));
    match region {
        Some(region) if !region.is_empty() => region.to_owned(),
        _ => "us-east-1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::region;

    #[test]
    fn the_region_of_a_signature() {
        let signed = "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-3/dynamodb/aws4_request, SignedHeaders=host, Signature=x";
        assert_eq!(region(signed), "eu-west-3");
        assert_eq!(region(""), "us-east-1");
    }
}
