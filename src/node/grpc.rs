//! The gRPC port: the service between stores, health, reflection.

use super::dial::{
    CONNECTION_WINDOW, GRPC_MESSAGE_BYTES_MAX, KEEPALIVE, KEEPALIVE_ANSWER, STREAM_WINDOW,
};
use super::service::Service;
use crate::http::wrong_port::tell_http_clients;
use anyhow::Context;
use rangekv_proto::internal::internal_server::InternalServer;
use rangekv_proto::FILE_DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tonic_health::ServingStatus;

/// Serves until dropped. HTTP clients are told where `http` is. The reporter says how the store is; at first, that it is not serving.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    http: &str,
) -> anyhow::Result<(
    HealthReporter,
    impl std::future::Future<Output = anyhow::Result<()>>,
)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let internal = InternalServer::new(service)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let routes = Routes::new(internal)
        .add_service(health)
        .add_service(reflection().build_v1().context("gRPC reflection")?)
        .add_service(reflection().build_v1alpha().context("gRPC reflection")?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .accept_http1(true)
        .add_routes(tell_http_clients(routes, http))
        .serve_with_incoming(incoming);
    Ok((reporter, async { server.await.context("the gRPC port") }))
}
