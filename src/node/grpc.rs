//! The gRPC port: the service between stores, those for operators, health, reflection; and the links of
//! other stores, told from gRPC by their first byte.

use super::dial::{CONNECTION_WINDOW, CONNECT_TIME_MAX, GRPC_MESSAGE_BYTES_MAX, STREAM_WINDOW};
use super::frame::MAGIC;
use super::service::{Here, Service};
use crate::grpc::distribution;
use crate::grpc::raft_admin::Groups;
use crate::http::wrong_port::tell_http_clients;
use anyhow::Context;
use rangekv_proto::admin::distribution_server::DistributionServer;
use rangekv_proto::admin::raft_admin_server::RaftAdminServer;
use rangekv_proto::internal::internal_server::InternalServer;
use rangekv_proto::FILE_DESCRIPTOR_SET;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tonic_health::ServingStatus;
use tonic_reflection::pb::{v1, v1alpha};

/// A caller that says nothing is asked for a sign of life this often,
const SERVER_KEEPALIVE: Duration = Duration::from_secs(10);
/// and has this long for it. Stores notice much sooner that another one is dead, from the calling
/// end; but a client in Python, say, hears nothing between two of its calls.
const SERVER_KEEPALIVE_ANSWER: Duration = Duration::from_secs(60);

/// What the health service tells of: the process as a whole, and the services for operators.
const SERVICES: [&str; 3] = ["", "RaftAdmin", "Distribution"];

/// Accepted connections that gRPC has yet to take.
const ACCEPTED_MAX: usize = 64;

type Accepted = std::io::Result<TcpStream>;

/// Serves until dropped. HTTP clients are told where `http` is. The reporter says how the store is; at
/// first, that it is not serving.
pub async fn serve(
    listener: TcpListener,
    here: Here,
    http: &str,
) -> anyhow::Result<(
    HealthReporter,
    impl std::future::Future<Output = anyhow::Result<()>>,
)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::NotServing).await;
    // Each version of the reflection lists the other one, too.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET)
    };
    let (grpc, incoming) = mpsc::channel(ACCEPTED_MAX);
    let service = Service::new(here.clone());
    let accepting = accept(listener, service.clone(), grpc);
    let internal = InternalServer::new(service)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let routes = Routes::new(internal)
        .add_service(RaftAdminServer::new(Groups::new(here.clone())))
        .add_service(DistributionServer::new(distribution::Routes::new(here)))
        .add_service(health)
        .add_service(reflection().build_v1().context("gRPC reflection")?)
        .add_service(reflection().build_v1alpha().context("gRPC reflection")?);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(SERVER_KEEPALIVE))
        .http2_keepalive_timeout(Some(SERVER_KEEPALIVE_ANSWER))
        .accept_http1(true)
        .add_routes(tell_http_clients(routes, http))
        .serve_with_incoming(ReceiverStream::new(incoming));
    let serving = async {
        tokio::select! {
            ended = server => ended.context("the gRPC port"),
            () = accepting => unreachable!("it accepts for ever"),
        }
    };
    Ok((reporter, serving))
}

/// Deals out connections: gRPC's to `grpc`, links to the service itself.
async fn accept(listener: TcpListener, service: Service, grpc: mpsc::Sender<Accepted>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (service, grpc) = (service.clone(), grpc.clone());
                    connections.spawn(serve_one(stream, service, grpc));
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections on the gRPC port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_one(stream: TcpStream, service: Service, grpc: mpsc::Sender<Accepted>) {
    let mut first = [0];
    let peeked = tokio::time::timeout(CONNECT_TIME_MAX, stream.peek(&mut first)).await;
    let tuned = stream.set_nodelay(true);
    match (peeked, tuned) {
        (Ok(Ok(1)), Ok(())) if first[0] == MAGIC[0] => service.link(stream).await,
        // gRPC waits for ever for who says nothing.
        (Ok(Ok(1)) | Err(_), Ok(())) => {
            if grpc.send(Ok(stream)).await.is_err() {
                tracing::debug!("the gRPC port is closed");
            }
        }
        (peeked, tuned) => tracing::debug!(?peeked, ?tuned, "a connection broke at once"),
    }
}

/// Says how the store is.
pub async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
