//! Opening gRPC connections to other stores.

use super::frame::{FRAME_BYTES, MESSAGE_BYTES_MAX};
use rangekv_proto::internal::internal_client::InternalClient;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Connecting, and the answer to the first call of a connection, take no longer.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A connection without traffic is asked for a sign of life this often,
pub const KEEPALIVE: Duration = Duration::from_secs(1);
/// and is dead if none comes within this. Together they bound how long requests to a store
/// that hangs stay unanswered.
pub const KEEPALIVE_ANSWER: Duration = Duration::from_millis(1500);
/// Both ends accept messages of this size.
pub const GRPC_MESSAGE_BYTES_MAX: usize = FRAME_BYTES + MESSAGE_BYTES_MAX + (8 << 20);
/// What may be under way on a stream without the receiver having read it.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// The same for a connection.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// A client of the store at `address` (`host:port`), connected.
pub async fn dial(address: &str) -> Result<InternalClient<Channel>, tonic::Status> {
    Ok(InternalClient::new(connect(address).await?)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX))
}

/// A connection to the store at `address`, for any of its services.
pub async fn connect(address: &str) -> Result<Channel, tonic::Status> {
    let endpoint = endpoint(address)?;
    let connect = tokio::time::timeout(CONNECT_TIME_MAX, endpoint.connect());
    let unavailable = |why: String| tonic::Status::unavailable(format!("{address}: {why}"));
    connect
        .await
        .map_err(|_| unavailable(format!("no connection within {CONNECT_TIME_MAX:?}")))?
        .map_err(|e| unavailable(root_cause(&e)))
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::Status> {
    let invalid = |e| tonic::Status::invalid_argument(format!("{address:?} is no address: {e}"));
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(invalid)?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// What the system said, below "transport error" and its like.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

/// Waits between attempts: doubling, with a part that differs between processes.
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// From `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Backoff {
            min,
            max,
            next: min,
        }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next wait: between a half and the whole of the current step.
    pub fn step(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound_and_starts_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for step in [100, 200, 350, 350] {
            let wait = backoff.step();
            assert!(
                wait >= ms(step) / 2 && wait <= ms(step),
                "{wait:?} at {step}"
            );
        }
        backoff.reset();
        assert!(backoff.step() <= ms(100));
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_an_address() {
        let refused = dial("127.0.0.1:1").await.unwrap_err();
        assert!(
            refused
                .message()
                .starts_with("127.0.0.1:1: Connection refused"),
            "{refused}"
        );
        assert!(dial("not an address").await.is_err());
    }
}
