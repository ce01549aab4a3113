//! Listening, and what others are told about it.

use super::book::AddressBook;
use super::identity::{DataDir, Identity};
use super::options::{FirstStart, Listen, Options};
use anyhow::Context;
use tokio::net::TcpListener;

/// Binds; the error names the flag to change.
pub async fn bind(what: &str, flag: &str, listen: &Listen) -> anyhow::Result<TcpListener> {
    TcpListener::bind(&listen.bind).await.with_context(|| {
        format!(
            "the {what} port {} can't be listened on: is another process using it? Choose another with {flag}",
            listen.bind
        )
    })
}

/// The address to tell others.
pub fn advertised(listener: &TcpListener, listen: &Listen, remote: bool) -> anyhow::Result<String> {
    Ok(listen.advertised(listener.local_addr()?.port(), remote)?)
}

/// Whether there are members on other machines, to whom this one's loopback means nothing.
pub fn has_remote_members(options: &Options, data: &DataDir, book: &AddressBook) -> bool {
    let me = data.identity().map(Identity::store_id);
    let known = book.all();
    let others = known.iter().filter(|(store, _)| Some(**store) != me);
    let mut addresses: Vec<&str> = others.map(|(_, e)| e.grpc.as_str()).collect();
    if data.identity().is_none() {
        match &options.first_start {
            FirstStart::Bootstrap(members) => {
                addresses.extend(members.iter().map(|m| m.address.as_str()));
            }
            FirstStart::Join(others) | FirstStart::Peers(others) => {
                addresses.extend(others.iter().map(String::as_str));
            }
            FirstStart::Single | FirstStart::Wait => {}
        }
    }
    addresses.iter().any(|a| !is_loopback(a))
}

fn is_loopback(address: &str) -> bool {
    ["127.", "localhost:", "[::1]:"]
        .iter()
        .any(|own| address.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_by_any_name() {
        for (address, own) in [
            ("127.0.0.1:50051", true),
            ("localhost:1", true),
            ("[::1]:1", true),
            ("10.0.0.11:50051", false),
            ("node1:50051", false),
        ] {
            assert_eq!(is_loopback(address), own, "{address}");
        }
    }
}
