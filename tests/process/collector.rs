//! A collector of OpenTelemetry within a test: takes spans by OTLP over gRPC, and keeps them.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{any_value, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Attributes by name; numbers as text.
pub type Attributes = BTreeMap<String, String>;

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Of the process that sent it.
    pub resource: Attributes,
    /// Its own.
    pub attributes: Attributes,
    /// The rest.
    pub span: Span,
}

impl Received {
    /// The node that sent it.
    pub fn node(&self) -> &str {
        &self.resource["service.instance.id"]
    }

    /// One of its own attributes; nothing if it has none of that name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", |value| value)
    }
}

/// Spans of all who send.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Received>>>);

/// A collector that runs until it is dropped.
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    spans: Spans,
    _runtime: Runtime,
}

impl Collector {
    /// At a port that the kernel chooses.
    pub fn start() -> Collector {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Collector {
            address,
            spans,
            _runtime: runtime,
        }
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.0.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let resource = attributes(&resource.attributes);
            for span in of_resource.scope_spans.into_iter().flat_map(|s| s.spans) {
                spans.push(Received {
                    resource: resource.clone(),
                    attributes: attributes(&span.attributes),
                    span,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(all: &[KeyValue]) -> Attributes {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|v| v.value.as_ref());
        match value {
            Some(any_value::Value::StringValue(text)) => text.clone(),
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            other => panic!("{}: {other:?}", attribute.key),
        }
    };
    all.iter().map(|a| (a.key.clone(), text(a))).collect()
}
