//! A link: the TCP connection that one store opens to another. Raft envelopes and requests go
//! up, responses come down; see [`super::frame`] for the bytes.
//!
//! Not gRPC, though it shares its port. A stream of gRPC cost half of all CPU that a replicated
//! SET took, for tasks that are woken, copies and flow control (docs/PERFORMANCE.md). Here a
//! frame is one `writev` of the thread that has something to say.
//!
//! Both ends say something every second, and give up an end that is silent: a store that hangs
//! is noticed within [`SILENCE_MAX`].

use super::dial::CONNECT_TIME_MAX;
use super::frame::{Frame, Reader, MAGIC};
use super::greeting::Greeting;
use super::outlet::{Outlet, Source};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::TcpStream;

/// An end of which nothing is heard for this long hangs, or is gone.
pub const SILENCE_MAX: Duration = Duration::from_millis(2500);
/// How often an end looks whether it has heard something; every second time it says something.
const LOOK: Duration = Duration::from_millis(500);
/// How often a link that pauses looks whether it may go on.
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes of a reason to refuse a link.
const WHY_BYTES_MAX: u32 = 64 << 10;

/// Opens a link; an error says why there is none.
pub async fn open(address: &str, greeting: &Greeting) -> Result<TcpStream, String> {
    let opening = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(MAGIC).await?;
        stream.write_all(&greeting.to_bytes()).await?;
        Ok::<_, io::Error>(stream)
    };
    let in_time = |what: &str| format!("{address}: {what} within {CONNECT_TIME_MAX:?}");
    let mut stream = tokio::time::timeout(CONNECT_TIME_MAX, opening)
        .await
        .map_err(|_| in_time("no connection"))?
        .map_err(|e| format!("{address}: {e}"))?;
    let refusal = tokio::time::timeout(CONNECT_TIME_MAX, read_answer(&mut stream))
        .await
        .map_err(|_| in_time("connected, but no answer"))?
        .map_err(|e| format!("{address}: {e}"))?;
    match refusal {
        None => Ok(stream),
        Some(why) => Err(why),
    }
}

/// Reads what [`open`] sends, on a connection that begins with the first byte of [`MAGIC`].
pub async fn read_greeting(stream: &mut TcpStream) -> io::Result<Greeting> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != *MAGIC {
        let why = format!("a link of another version: {magic:02x?}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut greeting = [0; Greeting::BYTES];
    stream.read_exact(&mut greeting).await?;
    Ok(Greeting::from_bytes(&greeting))
}

/// Accepts a link, or says why not.
pub async fn answer(stream: &mut TcpStream, refusal: Option<&str>) -> io::Result<()> {
    let why = refusal.unwrap_or_default();
    let mut bytes = vec![u8::from(refusal.is_some())];
    bytes.extend_from_slice(&(why.len() as u32).to_le_bytes());
    bytes.extend_from_slice(why.as_bytes());
    stream.write_all(&bytes).await
}

/// Why the link was refused; `None`: it was not.
async fn read_answer(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let refused = stream.read_u8().await? != 0;
    let length = stream.read_u32_le().await?;
    if length > WHY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer"));
    }
    let mut why = vec![0; length as usize];
    stream.read_exact(&mut why).await?;
    Ok(refused.then(|| String::from_utf8_lossy(&why).into_owned()))
}

/// Runs a link until it ends: hands frames to `take`, and keeps `outlet` writing. When `take`
/// says so, nothing more is read until `too_much` does not hold any more.
pub async fn run<S: Source>(
    mut reader: Reader,
    writer: &OwnedWriteHalf,
    outlet: &Outlet<S>,
    mut take: impl FnMut(Frame) -> bool,
    too_much: impl Fn() -> bool,
) -> io::Result<()> {
    let reads = reader.reads();
    let pausing = AtomicBool::new(false);
    let reading = async {
        while let Some(frame) = reader.next().await? {
            if take(frame) {
                pausing.store(true, Ordering::Relaxed);
                while too_much() {
                    tokio::time::sleep(PAUSE).await;
                }
                pausing.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let watching = async {
        let (mut heard, mut silent) = (reads.load(Ordering::Relaxed), Duration::ZERO);
        for look in 0u64.. {
            if look.is_multiple_of(2) {
                outlet.show_life();
            }
            tokio::time::sleep(LOOK).await;
            // Counted in looks, not by the clock: if this process was paused, one look passes.
            silent += LOOK;
            let now = reads.load(Ordering::Relaxed);
            if now != heard || pausing.load(Ordering::Relaxed) {
                (heard, silent) = (now, Duration::ZERO);
            }
            if silent >= SILENCE_MAX {
                break;
            }
        }
        let why = format!("nothing was heard for {SILENCE_MAX:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    };
    tokio::select! {
        ended = reading => ended,
        silent = watching => silent,
        broken = outlet.keep_writing(writer) => Err(broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::StoreId;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn greetings_and_refusals_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let greeting = Greeting {
            cluster: u64::MAX,
            from: StoreId(1),
            incarnation: 2,
            to: StoreId(3),
            to_incarnation: 4,
        };
        for refusal in [None, Some("who are you")] {
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let greeted = read_greeting(&mut stream).await.unwrap();
                answer(&mut stream, refusal).await.unwrap();
                (greeted, stream)
            };
            let (opened, (greeted, _stream)) = tokio::join!(open(&address, &greeting), answering);
            assert_eq!(greeted, greeting);
            assert_eq!(opened.err().as_deref(), refusal);
        }
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_an_address() {
        let greeting = Greeting::from_bytes(&[0; Greeting::BYTES]);
        let refused = open("127.0.0.1:1", &greeting).await.unwrap_err();
        assert!(refused.starts_with("127.0.0.1:1: "), "{refused}");
        assert!(open("not an address", &greeting).await.is_err());
    }
}
