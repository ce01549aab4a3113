//! What the AWS SDK asks of its surroundings: HTTP without TLS, over the hyper that is beneath
//! our own servers, and sleep. The SDK's own crates for that would change what the others are
//! compiled with, so that a build after the tests would begin anew.

use aws_sdk_dynamodb::config::{AsyncSleep, SharedHttpClient, Sleep};
use aws_smithy_runtime_api::client::http::{
    http_client_fn, HttpConnector, HttpConnectorFuture, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Kept connections.
#[derive(Clone, Debug)]
struct Plain(Client<Tcp, Full<Bytes>>);

/// A client's HTTP.
pub fn plain() -> SharedHttpClient {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let connector = SharedHttpConnector::new(Plain(client));
    http_client_fn(move |_, _| connector.clone())
}

impl HttpConnector for Plain {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let user = |error: &str| ConnectorError::user(error.to_owned().into());
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (head, body) = request.into_parts();
            let body = body
                .bytes()
                .ok_or_else(|| user("a body that is a stream"))?;
            let body = Full::new(Bytes::copy_from_slice(body));
            let response = client
                .request(hyper::Request::from_parts(head, body))
                .await
                .map_err(|error| ConnectorError::io(error.into()))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await;
            let body = body.map_err(|error| ConnectorError::io(error.into()))?;
            let response = hyper::Response::from_parts(head, body.to_bytes().into());
            HttpResponse::try_from(response)
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Sleeps no longer than this. Waiters of the SDK look again after 20 seconds and more.
#[derive(Debug)]
pub struct AtMost(pub Duration);

impl AsyncSleep for AtMost {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(duration.min(self.0)))
    }
}
