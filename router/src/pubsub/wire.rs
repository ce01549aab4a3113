//! What nodes ask each other about Pub/Sub, and the messages that subscribers get.
//!
//! ```text
//! ask    = kind:u8 | field*        answer = kind:u8 | field* or u64*
//! field  = length:u32 | bytes
//! ```
//! Integers are little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A question, or a message, of one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Leave a message with your subscribers: how many got it?
    Publish {
        /// `SPUBLISH`.
        shard: bool,
        /// To whom.
        channel: Bytes,
        /// What.
        payload: Bytes,
    },
    /// Which channels have subscribers?
    Channels {
        /// Shard channels.
        shard: bool,
        /// A glob pattern; `None` = all.
        pattern: Option<Bytes>,
    },
    /// Which patterns have subscribers?
    Patterns,
    /// How many subscribers do channels have?
    Subscribers {
        /// Shard channels.
        shard: bool,
        /// Which.
        channels: Vec<Bytes>,
    },
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a message: subscribers that got it.
    Count(u64),
    /// Channels or patterns, ascending.
    Names(Vec<Bytes>),
    /// In the order of the question.
    Counts(Vec<u64>),
}

const PUBLISH: u8 = 0;
const CHANNELS: u8 = 2;
const SUBSCRIBERS: u8 = 4;
const PATTERNS: u8 = 6;
const COUNT: u8 = 0;
const NAMES: u8 = 1;
const COUNTS: u8 = 2;

impl Ask {
    /// As another node reads it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Ask::Publish {
                shard,
                channel,
                payload,
            } => {
                out.reserve(9 + channel.len() + payload.len());
                out.put_u8(PUBLISH + u8::from(*shard));
                put(&mut out, channel);
                put(&mut out, payload);
            }
            Ask::Channels { shard, pattern } => {
                out.put_u8(CHANNELS + u8::from(*shard));
                pattern.iter().for_each(|pattern| put(&mut out, pattern));
            }
            Ask::Subscribers { shard, channels } => {
                out.put_u8(SUBSCRIBERS + u8::from(*shard));
                channels.iter().for_each(|channel| put(&mut out, channel));
            }
            Ask::Patterns => out.put_u8(PATTERNS),
        }
        out.freeze()
    }

    /// The reverse of [`encode`](Self::encode); `None` = not that.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let kind = rest.try_get_u8().ok()?;
        let mut fields = fields(rest)?;
        let shard = kind % 2 == 1;
        let kind = kind - u8::from(shard);
        Some(match (kind, fields.len()) {
            (PUBLISH, 2) => {
                let payload = fields.pop()?;
                let channel = fields.pop()?;
                Ask::Publish {
                    shard,
                    channel,
                    payload,
                }
            }
            (CHANNELS, 0 | 1) => Ask::Channels {
                shard,
                pattern: fields.pop(),
            },
            (SUBSCRIBERS, _) => Ask::Subscribers {
                shard,
                channels: fields,
            },
            (PATTERNS, 0) if !shard => Ask::Patterns,
            _ => return None,
        })
    }
}

impl Answer {
    /// As another node reads it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Answer::Count(count) => {
                out.put_u8(COUNT);
                out.put_u64_le(*count);
            }
            Answer::Names(names) => {
                out.put_u8(NAMES);
                names.iter().for_each(|name| put(&mut out, name));
            }
            Answer::Counts(counts) => {
                out.put_u8(COUNTS);
                counts.iter().for_each(|count| out.put_u64_le(*count));
            }
        }
        out.freeze()
    }

    /// The reverse of [`encode`](Self::encode); `None` = not that.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        match rest.try_get_u8().ok()? {
            COUNT if rest.len() == 8 => Some(Answer::Count(rest.get_u64_le())),
            NAMES => Some(Answer::Names(fields(rest)?)),
            COUNTS if rest.len().is_multiple_of(8) => {
                let count = rest.len() / 8;
                Some(Answer::Counts(
                    (0..count).map(|_| rest.get_u64_le()).collect(),
                ))
            }
            _ => None,
        }
    }

    /// Adds another node's answer to the same question; whether it was one.
    pub fn add(&mut self, other: Answer) -> bool {
        match (self, other) {
            (Answer::Count(mine), Answer::Count(other)) => *mine += other,
            (Answer::Names(mine), Answer::Names(other)) => {
                mine.extend(other);
                mine.sort_unstable();
                mine.dedup();
            }
            (Answer::Counts(mine), Answer::Counts(other)) if mine.len() == other.len() => {
                mine.iter_mut().zip(other).for_each(|(mine, n)| *mine += n);
            }
            _ => return false,
        }
        true
    }
}

/// A push of RESP3, of bulk strings. In RESP2 it is the same with `*` as the first byte.
pub fn push(elements: &[&[u8]]) -> Bytes {
    let bytes: usize = elements.iter().map(|e| e.len() + 16).sum();
    let mut out = BytesMut::with_capacity(16 + bytes);
    header(&mut out, b'>', elements.len());
    for element in elements {
        bulk(&mut out, element);
    }
    out.freeze()
}

/// Appends `$length` and a bulk string.
pub(crate) fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a type byte and a number.
pub(crate) fn header(out: &mut BytesMut, kind: u8, number: usize) {
    out.put_u8(kind);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn fields(mut rest: Bytes) -> Option<Vec<Bytes>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let length = rest.try_get_u32_le().ok()? as usize;
        if length > rest.len() {
            return None;
        }
        fields.push(rest.split_to(length));
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn asks_and_answers_round_trip_and_nothing_cut_short_is_one_of_more_fields() {
        let mut asks = vec![Ask::Patterns];
        for shard in [false, true] {
            asks.extend([
                Ask::Publish {
                    shard,
                    channel: b(""),
                    payload: b("\r\n\0x"),
                },
                Ask::Channels {
                    shard,
                    pattern: None,
                },
                Ask::Channels {
                    shard,
                    pattern: Some(b("a*")),
                },
                Ask::Subscribers {
                    shard,
                    channels: vec![b("a"), b(""), b("a")],
                },
            ]);
        }
        for ask in asks {
            let bytes = ask.encode();
            assert_eq!(Ask::decode(&bytes), Some(ask.clone()));
            for end in 0..bytes.len() {
                assert_ne!(Ask::decode(&bytes.slice(..end)), Some(ask.clone()));
            }
        }
        for answer in [
            Answer::Count(u64::MAX),
            Answer::Names(vec![b("a"), b("")]),
            Answer::Counts(vec![0, 7]),
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Some(answer));
        }
        assert_eq!(Ask::decode(&b("\u{9}")), None);
        assert_eq!(Answer::decode(&b("\0\0")), None);
    }

    #[test]
    fn answers_of_several_nodes_add_up() {
        let mut names = Answer::Names(vec![b("a"), b("c")]);
        assert!(names.add(Answer::Names(vec![b("b"), b("c")])));
        assert_eq!(names, Answer::Names(vec![b("a"), b("b"), b("c")]));
        let mut counts = Answer::Counts(vec![1, 2]);
        assert!(counts.add(Answer::Counts(vec![3, 4])));
        assert_eq!(counts, Answer::Counts(vec![4, 6]));
        assert!(!counts.add(Answer::Counts(vec![1])));
        assert!(!counts.add(Answer::Count(1)));
    }

    #[test]
    fn a_push_is_resp() {
        assert_eq!(
            &push(&[b"message", b"", b"x"])[..],
            b">3\r\n$7\r\nmessage\r\n$0\r\n\r\n$1\r\nx\r\n"
        );
    }
}
