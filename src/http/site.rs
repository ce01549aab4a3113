//! Paths and what answers them.
//!
//! A request is counted, answered, and its answer given the headers that all have. Paths that
//! nobody knows are 404, methods that a path does not take 405, both in JSON.

use super::answer::{bytes_response, Answer, Failure};
use super::door::DoorCounters;
use super::query::Query;
use super::snapshot::{ask, Snapshot, Snapshots};
use super::{events, health, membership, metrics, page, placement, raft};
use crate::ctl::server::Failure as CtlFailure;
use crate::ctl::wire::CtlCommand;
use crate::node::peers::Introduction;
use crate::node::running::Running;
use crate::node::seat::Seat;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{header, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, MethodRouter};
use axum::Router;
use rangekv_proto::PLACEMENT_RANGE;
use rangekv_router::session::Door;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Bytes that a request's body may have; a setting has few.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Paths beside [`placement::PATHS`].
const PATHS: &[&str] = &[
    "/",
    "/assets/{name}",
    "/events",
    "/health",
    "/health/detailed",
    "/ready",
    "/identity",
    "/metrics",
    "/cluster",
    "/partitions",
    "/partitions/stats",
    "/partitions/key",
    "/raft/state",
];

/// What all requests share.
pub struct Site {
    seat: Arc<Seat>,
    running: Arc<OnceLock<Arc<Running>>>,
    redis: OnceLock<Arc<Door>>,
    snapshots: Snapshots,
    stopping: AtomicBool,
    started: Instant,
    /// What is counted here.
    pub door: Arc<DoorCounters>,
    /// What is counted at the DynamoDB door.
    pub dynamo: Arc<DoorCounters>,
    /// Connections that follow [`events`].
    pub viewers: AtomicUsize,
}

type Shared = State<Arc<Site>>;

impl Site {
    /// Answers for `seat`; for `running` as soon as it is set.
    pub fn new(
        seat: Arc<Seat>,
        running: Arc<OnceLock<Arc<Running>>>,
        started: Instant,
    ) -> Arc<Self> {
        let paths = PATHS.iter().chain(placement::PATHS).copied();
        Arc::new(Site {
            seat,
            running,
            redis: OnceLock::new(),
            snapshots: Snapshots::default(),
            stopping: AtomicBool::new(false),
            started,
            door: DoorCounters::status(paths.collect()),
            dynamo: crate::dynamo::counters(),
            viewers: AtomicUsize::new(0),
        })
    }

    /// The Redis door is open.
    pub fn set_redis(&self, door: Arc<Door>) {
        if self.redis.set(door).is_err() {
            unreachable!("a store opens its doors once");
        }
    }

    /// This store was asked to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The Redis door, once it is open.
    pub fn redis(&self) -> Option<&Arc<Door>> {
        self.redis.get()
    }

    /// The store, once it has its place.
    pub fn running(&self) -> Option<&Arc<Running>> {
        self.running.get()
    }

    /// Since the process started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn node(&self) -> Result<&Arc<Running>, Failure> {
        self.running().ok_or_else(|| {
            let notice = self.seat.notice().map(|n| format!(": {n}"));
            Failure::unavailable(format!(
                "{} waits for its place in a cluster{}",
                self.seat.name(),
                notice.unwrap_or_default()
            ))
        })
    }

    /// The cluster as it was a moment ago.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, Failure> {
        self.snapshots.get(self.node()?).await
    }

    fn vitals(&self) -> health::Vitals {
        let stopping = self.stopping.load(Ordering::Relaxed);
        match self.running() {
            Some(node) => health::Vitals::of(node, stopping),
            None => health::Vitals {
                node: self.seat.name(),
                uptime_ms: self.uptime().as_millis() as u64,
                stopping,
                notice: self.seat.notice(),
                ..health::Vitals::default()
            },
        }
    }
}

/// All paths.
pub fn routes(site: Arc<Site>) -> Router {
    let pd = |name: &str| format!("/pd/api/v1/{name}");
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/events", get(events::follow))
        .route("/health", of_store(|site| health::health(&site.vitals())))
        .route("/ready", of_store(|site| health::ready(&site.vitals())))
        .route(
            "/identity",
            of_store(|site| Answer::json(&Introduction::of(&site.seat))),
        )
        .route("/health/detailed", get(health_detailed))
        .route("/metrics", get(get_metrics))
        .route("/cluster", of(|s, _| Ok(membership::cluster(s))))
        .route("/partitions", of(|s, _| Ok(membership::partitions(s))))
        .route("/partitions/stats", of(|s, _| Ok(membership::stats(s))))
        .route("/partitions/key", of(membership::of_key))
        .route("/raft/state", get(raft_state))
        .route(&pd("status"), of(|s, _| Ok(placement::status(s))))
        .route(&pd("stores"), of(|s, _| Ok(placement::stores(s))))
        .route(&pd("ranges"), of(|s, _| Ok(placement::ranges(s))))
        .route(&pd("ranges/{id}"), get(one_range))
        .route(&pd("operators"), of(|s, _| placement::operators(s)))
        .route(&pd("history"), of(|s, _| placement::history(s)))
        .route(&pd("schedulers"), of(|s, _| placement::schedulers(s)))
        .route(
            &pd("config"),
            of(|s, _| placement::config(s))
                .post(set_config)
                .put(set_config),
        )
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(site.clone(), count))
        .with_state(site)
}

/// A path that shows the cluster.
fn of(
    show: impl Fn(&Snapshot, &Query) -> Result<Answer, Failure> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Site>> {
    get(
        |State(site): Shared, method: Method, uri: Uri, headers: HeaderMap| async move {
            answer(&method, &headers, async {
                let snapshot = site.snapshot().await?;
                show(&snapshot, &Query::parse(uri.query()))
            })
            .await
        },
    )
}

/// A path that shows this store.
fn of_store(
    show: impl Fn(&Site) -> Answer + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Site>> {
    get(
        |State(site): Shared, method: Method, headers: HeaderMap| async move {
            show(&site).response(&method, &headers)
        },
    )
}

async fn answer(
    method: &Method,
    headers: &HeaderMap,
    answering: impl Future<Output = Result<Answer, Failure>>,
) -> Response {
    match answering.await {
        Ok(answer) => answer.response(method, headers),
        Err(failure) => failure.response(),
    }
}

async fn health_detailed(State(site): Shared, method: Method, headers: HeaderMap) -> Response {
    let vitals = site.vitals();
    let answer = match site.running() {
        Some(node) => {
            // A stuck worker would not answer.
            let snapshot = match vitals.stuck {
                true => None,
                false => site.snapshot().await.ok(),
            };
            health::detailed(node, &vitals, snapshot.as_deref()).await
        }
        None => health::detailed_without_place(&vitals),
    };
    answer.response(&method, &headers)
}

async fn raft_state(State(site): Shared, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    answer(&method, &headers, async {
        let group = Query::parse(uri.query()).number("group", u64::MAX)?;
        let snapshot = site.snapshot().await?;
        raft::state(site.node()?, &snapshot, group.unwrap_or(PLACEMENT_RANGE.0)).await
    })
    .await
}

async fn one_range(
    State(site): Shared,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(&method, &headers, async {
        let range = placement::range_id(&id)?;
        let snapshot = site.snapshot().await?;
        let detail = ask(site.node()?, &CtlCommand::RangeShow { range }).await;
        let detail = detail.map_err(|failure| match failure {
            CtlFailure::Unavailable(why) | CtlFailure::Unknown(why) => unavailable(&snapshot, why),
            refused => Failure::NotFound(refused.to_string()),
        })?;
        let detail = serde_json::from_value(detail).map_err(|e| unavailable(&snapshot, e))?;
        Ok(placement::range(&snapshot, detail))
    })
    .await
}

async fn set_config(
    State(site): Shared,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&method, &headers, async {
        let body = read(body).await?;
        let content_type = headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let command = placement::set_config(content_type, &body)?;
        match ask(site.node()?, &command).await {
            Ok(setting) => Ok(Answer::json(&setting)),
            Err(CtlFailure::Unavailable(why) | CtlFailure::Unknown(why)) => {
                match site.snapshot().await {
                    Ok(snapshot) => Err(unavailable(&snapshot, why)),
                    Err(_) => Err(Failure::unavailable(why)),
                }
            }
            Err(refused) => Err(Failure::BadRequest(refused.to_string())),
        }
    })
    .await
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    read.map_err(|error| {
        Failure::BadRequest(format!(
            "the body: {error}; expected {BODY_BYTES_MAX} bytes at most"
        ))
    })
}

fn unavailable(snapshot: &Snapshot, why: impl ToString) -> Failure {
    Failure::Unavailable {
        why: why.to_string(),
        leader: Some(snapshot.leader()).filter(|leader| !leader.is_null()),
    }
}

async fn get_metrics(
    State(site): Shared,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = Query::parse(uri.query());
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let as_text = match wants_text(query.text("format").as_deref(), accept) {
        Ok(as_text) => as_text,
        Err(failure) => return failure.response(),
    };
    let families = match metrics::gather(&site).await {
        Ok(families) => families,
        Err(error) => return Failure::unavailable(error.to_string()).response(),
    };
    if !as_text {
        return Answer::json(&metrics::json(&families)).response(&method, &headers);
    }
    match metrics::text(families) {
        Ok(text) => bytes_response(StatusCode::OK, metrics::CONTENT_TYPE, text.into_bytes()),
        Err(error) => Failure::unavailable(format!("the metrics: {error}")).response(),
    }
}

/// Whether `/metrics` is text: if the URL says so, or else what the client prefers.
fn wants_text(format: Option<&str>, accept: Option<&str>) -> Result<bool, Failure> {
    match format {
        Some("prometheus" | "openmetrics" | "text") => return Ok(true),
        Some("json") => return Ok(false),
        Some(other) => {
            return Err(Failure::BadRequest(format!(
                "format={other:?}: expected prometheus or json"
            )))
        }
        None => {}
    }
    let weight = |kind: &[&str]| -> f32 {
        let parts = accept.unwrap_or("*/*").split(',').filter_map(|part| {
            let mut words = part.split(';').map(str::trim);
            kind.contains(&words.next()?).then_some(())?;
            let quality = words.find_map(|word| word.strip_prefix("q="));
            Some(quality.map_or(Ok(1.0), str::parse).unwrap_or(0.0))
        });
        parts.fold(0.0, f32::max)
    };
    let text = weight(&["text/plain", "application/openmetrics-text", "text/*"]);
    Ok(text > weight(&["application/json", "application/*"]))
}

async fn method_not_allowed(method: Method, matched: Option<MatchedPath>, uri: Uri) -> Response {
    let takes_settings = matched.is_some_and(|path| path.as_str().ends_with("/config"));
    let failure = Failure::MethodNotAllowed {
        asked: format!("{method} {}", uri.path()),
        allowed: match takes_settings {
            true => "GET, HEAD, POST, PUT",
            false => "GET, HEAD",
        },
    };
    failure.response()
}

async fn not_found(uri: Uri) -> Response {
    let mut paths: Vec<&str> = PATHS.iter().chain(placement::PATHS).copied().collect();
    paths.retain(|path| !path.starts_with("/assets/"));
    let failure = Failure::NotFound(format!(
        "{:?} is no path of this store; there are {}",
        uri.path(),
        paths.join(", ")
    ));
    failure.response()
}

/// Counts a request and its answer; tells gRPC clients where they are.
async fn count(State(site): Shared, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let stripe = site.door.metrics.stripe(0);
    let matched = request.extensions().get::<MatchedPath>();
    let known = matched.and_then(|path| {
        let mut paths = PATHS.iter().chain(placement::PATHS);
        paths.position(|known| *known == path.as_str())
    });
    stripe.requests(known.unwrap_or(usize::MAX), 1);
    let response = match is_grpc(request.headers()) {
        true => not_grpc(&site),
        false => next.run(request).await,
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        stripe.error(site.door.metrics.kind(status.as_str().as_bytes()));
    }
    stripe.answered(began.elapsed().as_micros() as u64, 1);
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a gRPC call: UNIMPLEMENTED, with a message that names the right port.
fn not_grpc(site: &Site) -> Response {
    let grpc = &site.seat.addresses().grpc;
    let message = format!("this is the HTTP port of a RangeKV store; gRPC is at {grpc}");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
        ("grpc-message", &message),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_json_unless_text_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (format, accept, text) in [
            (None, None, false),
            (None, Some("*/*"), false),
            (None, Some("text/plain"), true),
            (None, Some(prometheus), true),
            (None, Some("application/json, text/plain;q=0.5"), false),
            (
                None,
                Some("text/html,application/xhtml+xml,*/*;q=0.8"),
                false,
            ),
            (Some("prometheus"), Some("*/*"), true),
            (Some("json"), Some("text/plain"), false),
        ] {
            assert_eq!(
                wants_text(format, accept),
                Ok(text),
                "{format:?} {accept:?}"
            );
        }
        let refused = wants_text(Some("xml"), None);
        assert!(matches!(refused, Err(Failure::BadRequest(why)) if why.contains("\"xml\"")));
    }
}
