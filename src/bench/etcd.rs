//! The same loads against etcd: Put and linearizable Range over gRPC. Clients share HTTP/2
//! connections, as etcd's own clients do.

use super::load::Op;
use super::tasks::{Client, Failed, CONNECT_DEADLINE};
use bytes::Bytes;
use rangekv_proto::etcd::kv_client::KvClient;
use rangekv_proto::etcd::{PutRequest, RangeRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::Status;

/// Opens a connection to each of `endpoints`, or says why it can't.
pub async fn connect(endpoints: Vec<String>) -> Result<Vec<KvClient<Channel>>, String> {
    let mut clients = Vec::with_capacity(endpoints.len());
    for address in &endpoints {
        let failed = |error| format!("can't connect to {address}: {error}");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
        let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE);
        clients.push(KvClient::new(endpoint.connect().await.map_err(failed)?));
    }
    Ok(clients)
}

impl Client for KvClient<Channel> {
    async fn send(&mut self, op: Op, key: Bytes, value: Bytes) -> Result<bool, Failed> {
        let sent = match op {
            Op::Set => self.put(PutRequest { key, value }).await.map(|_| true),
            Op::Get => self
                .range(RangeRequest { key })
                .await
                .map(|reply| reply.get_ref().count > 0),
            other => Err(Status::unimplemented(format!(
                "etcd has no {}",
                other.name()
            ))),
        };
        sent.map_err(|status| Failed {
            kind: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        })
    }
}
