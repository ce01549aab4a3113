//! What an HTTP client hears that was given the gRPC port. (The other way round, see
//! [`site`](super::site).)

use super::answer::Failure;
use axum::extract::{Request, State};
use axum::http::Version;
use axum::middleware::{from_fn_with_state, Next};
use axum::response::Response;
use std::sync::Arc;
use tonic::service::Routes;

/// gRPC is HTTP/2: what comes as HTTP/1 is answered with the address of the HTTP port, `http`,
/// which is empty if there is none.
pub fn tell_http_clients(routes: Routes, http: &str) -> Routes {
    let there = match http {
        "" => "this store has no HTTP port".to_owned(),
        address => format!("status over HTTP is at http://{address}/"),
    };
    let message: Arc<str> = format!("this is the gRPC port of a RangeKV store; {there}").into();
    let router = routes.into_axum_router();
    router.layer(from_fn_with_state(message, answer)).into()
}

async fn answer(State(message): State<Arc<str>>, request: Request, next: Next) -> Response {
    match request.version() < Version::HTTP_2 {
        true => Failure::Misdirected(message.to_string()).response(),
        false => next.run(request).await,
    }
}
