//! A link: the TCP connection that one store opens to another. Raft envelopes and requests go
//! up, responses come down; see [`super::frame`] for the bytes.
//!
//! Not gRPC, though it shares its port. A stream of gRPC cost half of all CPU that a replicated
//! SET took, for tasks that are woken, copies and flow control (docs/PERFORMANCE.md). Here a
//! frame is one `writev` of the thread that has something to say, and the thread that works with
//! what comes reads it itself (`rangekv_router::poll::ports`): the worker, or one of the door's.
//! Tasks of the runtime open links, and watch them.
//!
//! Both ends say something every second, and give up an end that is silent: a store that hangs
//! is noticed within [`SILENCE_MAX`].

use super::dial::CONNECT_TIME_MAX;
use super::frame::{Frame, Reader, MAGIC};
use super::greeting::Greeting;
use rangekv_router::poll::ports::{Entrance, Next, Port};
use rangekv_router::poll::Readiness;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// An end of which nothing is heard for this long hangs, or is gone.
pub const SILENCE_MAX: Duration = Duration::from_millis(2500);
/// How often an end looks whether it has heard something; every second time it says something.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a reason to refuse a link.
const WHY_BYTES_MAX: u32 = 64 << 10;

/// Said by a store that understands requests that are traced; others say nothing, and get none.
const TRACES: &str = "traces";

/// What the other end understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Requests that are traced.
    pub traces: bool,
}

/// Opens a link; an error says why there is none.
pub async fn open(
    address: &str,
    greeting: &Greeting,
) -> Result<(tokio::net::TcpStream, Understood), String> {
    let opening = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
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
    let answer = tokio::time::timeout(CONNECT_TIME_MAX, read_answer(&mut stream))
        .await
        .map_err(|_| in_time("connected, but no answer"))?
        .map_err(|e| format!("{address}: {e}"))?;
    answer.map(|understood| (stream, understood))
}

/// Reads what [`open`] sends, on a connection that begins with the first byte of [`MAGIC`].
pub async fn read_greeting(stream: &mut tokio::net::TcpStream) -> io::Result<Greeting> {
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

/// Accepts a link, and says what is understood here besides what every store understands, or says
/// why not.
pub async fn answer(stream: &mut tokio::net::TcpStream, refusal: Option<&str>) -> io::Result<()> {
    let text = refusal.unwrap_or(TRACES);
    let mut bytes = vec![u8::from(refusal.is_some())];
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    stream.write_all(&bytes).await
}

/// What the other end understands, or why it refuses the link.
async fn read_answer(stream: &mut tokio::net::TcpStream) -> io::Result<Result<Understood, String>> {
    let refused = stream.read_u8().await? != 0;
    let length = stream.read_u32_le().await?;
    if length > WHY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    Ok(match refused {
        true => Err(text.into_owned()),
        // A newer store may say more.
        false => Ok(Understood {
            traces: text.split(',').any(|word| word == TRACES),
        }),
    })
}

/// The sending end of a link: requests and Raft's messages, or responses.
pub trait Sending: Send + Sync {
    /// The socket of this session has become writable.
    fn resume(&self, session: u64);
    /// The other side is to hear something.
    fn show_life(&self);
}

/// A link that is open on both ends.
pub struct Open {
    /// Does not block.
    pub stream: Arc<TcpStream>,
    /// Writes to it,
    pub sending: Arc<dyn Sending>,
    /// in this session.
    pub session: u64,
}

/// The socket of an opened link, outside of tokio's epoll; it stays non-blocking.
pub fn socket(stream: tokio::net::TcpStream) -> io::Result<Arc<TcpStream>> {
    Ok(Arc::new(stream.into_std()?))
}

/// Runs a link until it ends, and says why: the thread behind `entrance` reads it, and hands
/// frames to `take`.
pub async fn run(
    link: Open,
    entrance: &Entrance,
    take: impl FnMut(Frame) + Send + 'static,
) -> io::Error {
    let (ended, end) = oneshot::channel();
    // However this ends: the port hears it.
    let _hang_up = HangUp(link.stream.clone());
    let reads = Arc::new(AtomicU64::new(0));
    let sending = link.sending.clone();
    entrance.add(Box::new(LinkPort {
        link,
        reader: Reader::default(),
        take: Box::new(take),
        reads: reads.clone(),
        ready: Readiness::default(),
        ended: Some(ended),
    }));
    let watching = async {
        let mut silent = Duration::ZERO;
        let (mut heard, mut looked) = (0, entrance.looks());
        for look in 0u64.. {
            if look.is_multiple_of(2) {
                sending.show_life();
            }
            tokio::time::sleep(LOOK).await;
            // Counted in looks, not by the clock: if this process was paused, one look passes.
            // If the thread that reads is busy elsewhere, none does.
            if entrance.looks() != looked {
                looked = entrance.looks();
                silent += LOOK;
            }
            let now = reads.load(Ordering::Relaxed);
            if now != heard {
                (heard, silent) = (now, Duration::ZERO);
            }
            if silent >= SILENCE_MAX {
                break;
            }
        }
        let why = format!("nothing was heard for {SILENCE_MAX:?}");
        io::Error::new(io::ErrorKind::TimedOut, why)
    };
    tokio::select! {
        ended = end => ended.unwrap_or_else(|_| io::Error::other("nobody reads any more")),
        silent = watching => silent,
    }
}

struct HangUp(Arc<TcpStream>);

impl Drop for HangUp {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The receiving end of a link, for the thread that polls it.
struct LinkPort {
    link: Open,
    reader: Reader,
    take: Box<dyn FnMut(Frame) + Send>,
    /// Grows with everything that is received.
    reads: Arc<AtomicU64>,
    ready: Readiness,
    ended: Option<oneshot::Sender<io::Error>>,
}

impl LinkPort {
    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        match self.ready.read(&*self.link.stream, scratch)? {
            Some(0) if self.reader.is_cut_short() => {
                return Err(io::ErrorKind::UnexpectedEof.into())
            }
            Some(0) => return Err(io::Error::other("closed by the other side")),
            Some(count) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.reader.push(&scratch[..count]);
            }
            None => return Ok(()),
        }
        while let Some(frame) = self.reader.next()? {
            (self.take)(frame);
        }
        Ok(())
    }
}

impl Port for LinkPort {
    fn socket(&self) -> BorrowedFd<'_> {
        self.link.stream.as_fd()
    }

    fn turn(&mut self, ready: Readiness, scratch: &mut [u8]) -> Next {
        if ready.write {
            self.link.sending.resume(self.link.session);
        }
        self.ready.note(ready);
        if self.ready.read {
            if let Err(error) = self.receive(scratch) {
                if let Some(ended) = self.ended.take() {
                    // Nobody listens if the other end was silent.
                    let _ = ended.send(error);
                }
                return Next::Close;
            }
        }
        match self.ready.read {
            true => Next::Turn,
            false => Next::Wait,
        }
    }
}

/// The other end of a sending end, for tests.
#[cfg(test)]
pub mod testing {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;
    use std::thread::JoinHandle;

    /// See [`opened`]. Dropping it ends the link.
    pub struct Far {
        near: Arc<TcpStream>,
        stream: TcpStream,
        reader: Reader,
        over: Arc<AtomicBool>,
        resuming: Option<JoinHandle<()>>,
    }

    impl Far {
        /// The next frame, or the end.
        pub fn next(&mut self) -> Option<Frame> {
            let mut piece = [0; 4096];
            loop {
                if let Some(frame) = self.reader.next().unwrap() {
                    return Some(frame);
                }
                match self.stream.read(&mut piece).unwrap() {
                    0 => return None,
                    count => self.reader.push(&piece[..count]),
                }
            }
        }

        /// The near end goes.
        pub fn hang_up(&mut self) {
            let _ = self.near.shutdown(Shutdown::Both);
        }
    }

    impl Drop for Far {
        fn drop(&mut self) {
            self.over.store(true, Ordering::Relaxed);
            if let Some(resuming) = self.resuming.take() {
                resuming.join().unwrap();
            }
        }
    }

    /// Gives a connection to `open`, and resumes `sending` whatever its socket says.
    pub fn opened(sending: Arc<dyn Sending>, open: impl FnOnce(Arc<TcpStream>) -> u64) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Arc::new(near);
        let session = open(near.clone());
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let resuming = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                sending.resume(session);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Far {
            near,
            stream: listener.accept().unwrap().0,
            reader: Reader::default(),
            over,
            resuming: Some(resuming),
        }
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
            let understood = opened.as_ref().ok().map(|(_, understood)| *understood);
            let all = Understood { traces: true };
            assert_eq!(understood, refusal.is_none().then_some(all));
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
