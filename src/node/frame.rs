//! Frames on a link between stores: framing, writing, reading.
//!
//! ```text
//! link     = MAGIC | greeting | frame*                      (from the store that opens it)
//! answer   = refused:u8 | length:u32 | text | frame*        (from the other)
//! frame    = raft:u32 | requests:u32 | responses:u32 | bytes of each
//! ```
//! The integers are lengths, little-endian. The answer's text says why it refuses, or, in words between
//! commas, what the store understands that older ones do not. Raft envelopes are in the codec of
//! `store/src/wire.rs`, requests and responses in that of `proto/src/frame.rs`. A frame of
//! nothing is a sign of life.
//!
//! `MAGIC` tells a link from gRPC, whose connections begin with the `P` of HTTP/2's preface (or
//! with the record type 22 of TLS), and which shares the port.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;

/// The first bytes of a link. The last one is the version of all of this.
pub const MAGIC: &[u8; 8] = b"\xa7RKVLNK\x01";
/// A frame is closed once it holds this much. One message more may exceed it.
pub const FRAME_BYTES: usize = 4 << 20;
/// No single message is larger: both ends accept frames of [`FRAME_BYTES`] plus one of these.
pub const MESSAGE_BYTES_MAX: usize = 240 << 20;
/// A frame that claims more is not ours.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + MESSAGE_BYTES_MAX + (8 << 20);
const HEADER_BYTES: usize = 12;
/// Frames are received into blocks of this size, one behind the other: what keeps a slice of a
/// frame for long (the log does) keeps its block. A new block is begun
const BLOCK_BYTES: usize = 64 << 10;
/// when the old one is full. A block for a frame that is larger grows by this.
const GROW_BYTES: usize = 1 << 20;

/// Encoded messages that wait to be sent, in buffers of a frame's size and what exceeds it.
pub struct Messages {
    frame_bytes: usize,
    /// Full buffers, and how many messages are in each.
    full: VecDeque<(BytesMut, usize)>,
    last: BytesMut,
    count: usize,
    /// Of all that wait.
    bytes: usize,
}

impl Default for Messages {
    fn default() -> Self {
        Messages::in_frames_of(FRAME_BYTES)
    }
}

impl Messages {
    /// None yet; a buffer is full once it holds `frame_bytes`.
    pub fn in_frames_of(frame_bytes: usize) -> Self {
        Messages {
            frame_bytes,
            full: VecDeque::new(),
            last: BytesMut::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Adds a message, which `encode` appends to a buffer.
    pub fn push(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.last.len() >= self.frame_bytes {
            let full = (
                std::mem::take(&mut self.last),
                std::mem::take(&mut self.count),
            );
            self.full.push_back(full);
        }
        let before = self.last.len();
        encode(&mut self.last);
        self.bytes += self.last.len() - before;
        self.count += 1;
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The first buffer, and how many messages are in it.
    pub fn take(&mut self) -> (Bytes, usize) {
        let (first, count) = match self.full.pop_front() {
            Some(full) => full,
            None => (self.last.split(), std::mem::take(&mut self.count)),
        };
        self.bytes -= first.len();
        (first.freeze(), count)
    }
}

/// A frame on its way into the socket.
pub struct Parts(VecDeque<Bytes>);

impl Parts {
    /// A frame of these messages; the buffers of each kind follow one another.
    pub fn new(raft: Vec<Bytes>, requests: Bytes, responses: Bytes) -> Self {
        let length = |bytes: usize| (bytes as u32).to_le_bytes();
        let raft_bytes: usize = raft.iter().map(Bytes::len).sum();
        debug_assert!(raft_bytes + requests.len() + responses.len() <= FRAME_BYTES_MAX);
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length(raft_bytes));
        header[4..8].copy_from_slice(&length(requests.len()));
        header[8..].copy_from_slice(&length(responses.len()));
        let header = Bytes::copy_from_slice(&header);
        let parts = std::iter::once(header)
            .chain(raft)
            .chain([requests, responses]);
        Parts(parts.filter(|part| !part.is_empty()).collect())
    }

    /// A frame of nothing.
    pub fn sign_of_life() -> Self {
        Parts::new(Vec::new(), Bytes::new(), Bytes::new())
    }

    /// Bytes not yet written.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Writes what the socket takes; whether that was all.
    pub fn write(&mut self, mut link: &TcpStream) -> io::Result<bool> {
        while !self.0.is_empty() {
            // More buffers than one call takes are rare.
            let mut slices = [IoSlice::new(&[]); 16];
            for (slice, part) in slices.iter_mut().zip(&self.0) {
                *slice = IoSlice::new(part);
            }
            let count = self.0.len().min(slices.len());
            match link.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.0.front_mut() {
            if written < first.len() {
                return first.advance(written);
            }
            written -= first.len();
            self.0.pop_front();
        }
    }
}

/// A received frame.
#[derive(Debug, Default)]
pub struct Frame {
    /// Envelopes.
    pub raft: Bytes,
    /// Requests.
    pub requests: Bytes,
    /// Responses.
    pub responses: Bytes,
}

/// Cuts frames out of what a link brings.
#[derive(Default)]
pub struct Reader(BytesMut);

impl Reader {
    /// Adds what was received.
    pub fn push(&mut self, received: &[u8]) {
        if self.0.capacity() - self.0.len() < received.len() {
            let more = match self.0.len() {
                0..BLOCK_BYTES => BLOCK_BYTES,
                _ => GROW_BYTES,
            };
            self.0.reserve(more.max(received.len()));
        }
        self.0.extend_from_slice(received);
    }

    /// The next frame, if it is whole. An error: this is no link of ours.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        take_frame(&mut self.0)
    }

    /// Whether part of a frame is there.
    pub fn is_cut_short(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The frame at the front of `buffer`, if it is whole.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    let (raft, requests, responses) = (length(0), length(4), length(8));
    let all = HEADER_BYTES + raft + requests + responses;
    if all > HEADER_BYTES + FRAME_BYTES_MAX {
        let why = format!("a frame of {all} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if buffer.len() < all {
        return Ok(None);
    }
    let mut bytes = buffer.split_to(all).freeze();
    bytes.advance(HEADER_BYTES);
    Ok(Some(Frame {
        raft: bytes.split_to(raft),
        requests: bytes.split_to(requests),
        responses: bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn messages_are_cut_into_buffers() {
        let mut messages = Messages::default();
        assert!(messages.is_empty());
        for byte in 0..3 {
            let message = vec![byte; FRAME_BYTES / 2 + 1];
            messages.push(|buffer| buffer.extend_from_slice(&message));
        }
        let (first, count) = messages.take();
        assert_eq!((first.len(), count), (FRAME_BYTES + 2, 2));
        assert_eq!(messages.bytes(), FRAME_BYTES / 2 + 1);
        let (second, count) = messages.take();
        assert_eq!((&second[..], count), (&vec![2; FRAME_BYTES / 2 + 1][..], 1));
        assert!(messages.is_empty() && messages.take().0.is_empty());
    }

    #[test]
    fn frames_cross_a_link_in_any_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut receiver = listener.accept().unwrap().0;
        let raft: Vec<Bytes> = (0..40).map(|n| Bytes::from(vec![n; 7])).collect();
        let large = Bytes::from(vec![7; 9 << 20]);
        let (sent, sent_large) = (raft.clone(), large.clone());
        let writing = std::thread::spawn(move || {
            let requests = Bytes::from_static(b"rq");
            let mut parts = Parts::new(sent, requests, sent_large);
            assert!(parts.write(&sender).unwrap());
            assert!(Parts::sign_of_life().write(&sender).unwrap());
        });
        let (mut reader, mut frames) = (Reader::default(), Vec::new());
        let mut piece = vec![0; 100_003];
        loop {
            match receiver.read(&mut piece).unwrap() {
                0 => break,
                count => reader.push(&piece[..count]),
            }
            while let Some(frame) = reader.next().unwrap() {
                frames.push(frame);
            }
        }
        writing.join().unwrap();
        assert!(!reader.is_cut_short());
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].raft[..], raft.concat());
        assert_eq!(&frames[0].requests[..], b"rq");
        assert_eq!(frames[0].responses, large);
        assert!(frames[1].raft.is_empty() && frames[1].requests.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused_and_what_is_cut_short_waits() {
        let mut buffer = BytesMut::from(&[0xff; HEADER_BYTES][..]);
        assert!(take_frame(&mut buffer).is_err());
        let mut buffer = BytesMut::from(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]);
        assert!(take_frame(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(b"r");
        assert_eq!(&take_frame(&mut buffer).unwrap().unwrap().raft[..], b"r");
    }
}
