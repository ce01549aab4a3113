//! `CLUSTER MEET`: gives a store that waits for a cluster its place in this one.
//!
//! The other way round a store asks for its place itself, with `--join`; both end in the same
//! registration and the same offer.

use crate::admin::failure::Failure;
use crate::node::calls::identify;
use crate::node::dial::dial;
use crate::node::join;
use crate::node::running::Running;
use bytes::Bytes;
use rangekv_model::redis::reply;
use rangekv_proto::internal::{Identity, JoinRequest};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A Redis port has this long to say whose it is.
const ASK_TIME_MAX: Duration = Duration::from_secs(1);
/// More of an `INFO` is not read.
const INFO_BYTES_MAX: usize = 64 << 10;

/// Meets the store whose Redis port, or port for other stores, is `port`.
pub(super) async fn meet(
    node: &Running,
    host: &str,
    port: u16,
    bus_port: Option<u16>,
) -> Result<Bytes, Failure> {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let address = format!("{host}:{port}");
    let bus = bus_port.map(|port| format!("{host}:{port}"));
    let known = node.book.all().into_values().any(|entry| {
        entry.redis == address || entry.grpc == address || bus.as_ref() == Some(&entry.grpc)
    });
    if known {
        return Ok(reply::ok());
    }
    let me = &node.seat.addresses().grpc;
    let (grpc, identity) = find(&address, bus).await.map_err(|why| {
        Failure::Refused(format!(
            "no RangeKV store answers at {address}: {why}; start it with `--join {me}`, and it \
             comes by itself"
        ))
    })?;
    let ours = node.identity.cluster;
    match identity.cluster {
        0 => {}
        cluster if cluster == ours => return Ok(reply::ok()),
        cluster => {
            return Err(Failure::Refused(format!(
                "{} at {address} belongs to another cluster, {cluster:016x}; to join this one it \
                 must be started with an empty data directory and `--join {me}`",
                identity.name
            )));
        }
    }
    if identity.founding != 0 {
        return Err(Failure::Refused(format!(
            "{} at {address} is about to make a cluster of its own; start it with `--join {me}` \
             instead",
            identity.name
        )));
    }
    let request = JoinRequest {
        identity: Some(identity),
        ..JoinRequest::default()
    };
    let unavailable = |status: tonic::Status| Failure::Unavailable(status.message().into());
    let seat = join::answer(&node.calls, &node.book, request).await;
    let seat = seat.map_err(unavailable)?;
    if !seat.error.is_empty() {
        return Err(Failure::Refused(seat.error));
    }
    let Some(offer) = seat.initialise else {
        let why = "the placement driver's leader can't say yet";
        return Err(Failure::Unavailable(why.into()));
    };
    let mut store = dial(&grpc).await.map_err(unavailable)?;
    let reply = store.initialise_store(offer).await.map_err(|status| {
        Failure::Unknown(format!("whether it took its place: {}", status.message()))
    })?;
    let reply = reply.into_inner();
    match reply.accepted {
        true => Ok(reply::ok()),
        false => Err(Failure::Refused(reply.reason)),
    }
}

/// Where the store takes a place, and who it is.
async fn find(address: &str, bus: Option<String>) -> Result<(String, Identity), String> {
    if let Some(bus) = bus {
        let identity = identify(&bus).await;
        let identity = identity.map_err(|status| status.message().to_owned())?;
        return Ok((bus, identity));
    }
    let grpc = match grpc_by_redis(address).await {
        Ok(Some(grpc)) => grpc,
        // Perhaps the port that stores use.
        Ok(None) | Err(_) => address.to_owned(),
    };
    let identity = identify(&grpc).await;
    let identity = identity.map_err(|status| status.message().to_owned())?;
    Ok((grpc, identity))
}

/// What the Redis port of a store, waiting or not, says of its port for other stores; `None` =
/// it is the Redis port of something else.
async fn grpc_by_redis(address: &str) -> std::io::Result<Option<String>> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n")
            .await?;
        let mut said = Vec::new();
        while said.len() < INFO_BYTES_MAX && stream.read_buf(&mut said).await? > 0 {
            if let Some(grpc) = grpc_in(&String::from_utf8_lossy(&said)) {
                return Ok(Some(grpc));
            }
        }
        Ok(None)
    };
    timeout(ASK_TIME_MAX, ask).await?
}

fn grpc_in(info: &str) -> Option<String> {
    let (_, rest) = info.split_once("\r\nrangekv_grpc:")?;
    let (address, _) = rest.split_once("\r\n")?;
    Some(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_address_once_its_line_is_whole() {
        let whole = "$9\r\n# Server\r\nrangekv_grpc:10.0.0.4:50051\r\n\r\n";
        assert_eq!(grpc_in(whole).as_deref(), Some("10.0.0.4:50051"));
        assert_eq!(grpc_in(&whole[..whole.len() - 4]), None);
    }
}
