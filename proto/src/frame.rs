//! Requests and responses of a `Frame`, one behind the other in one buffer.
//!
//! ```text
//! request  = token | range | version | term | kind:u8 | (mark:u64) | length | bytes
//! response = token | kind:u8 | length | bytes
//! ```
//! Integers are LEB128 varints. Kinds of requests: 0 a command, 1 one that only reads (both
//! begin with the evaluator's byte), 2 admin, 3 heartbeat, 4 Pub/Sub. Kinds of responses: 0 a reply, 1 an
//! `Error` in protobuf. A request that is traced has 64 added to its kind, and its mark, little-endian,
//! behind it; only stores that say that they understand this get it. Most of what stores say to each other are requests and responses: here
//! one costs a few appended bytes, and to read it a slice of the frame.

use crate::internal as pb;
use crate::types::*;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

const COMMAND: u8 = 0;
const READ: u8 = 1;
const ADMIN: u8 = 2;
const HEARTBEAT: u8 = 3;
const PUBSUB: u8 = 4;
/// Added to the kind of a traced request.
const TRACED: u8 = 64;
const REPLY: u8 = 0;
const ERROR: u8 = 1;

/// Bytes of a frame that are not what [`put_request`] and [`put_response`] write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed frame: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Appends a request under the token that its response will carry.
pub fn put_request(out: &mut BytesMut, token: u64, request: &Request) {
    put_varint(out, token);
    put_varint(out, request.range.0);
    put_varint(out, request.version);
    put_varint(out, request.term);
    let (kind, evaluator, body) = match &request.body {
        Body::Command {
            evaluator,
            read_only,
            command,
        } => (
            if *read_only { READ } else { COMMAND },
            Some(evaluator.0),
            command,
        ),
        Body::Admin(bytes) => (ADMIN, None, bytes),
        Body::Heartbeat(bytes) => (HEARTBEAT, None, bytes),
        Body::PubSub(bytes) => (PUBSUB, None, bytes),
    };
    match request.mark.is_some() {
        false => out.put_u8(kind),
        true => {
            out.put_u8(kind | TRACED);
            out.put_u64_le(request.mark.0);
        }
    }
    put_varint(out, (body.len() + usize::from(evaluator.is_some())) as u64);
    if let Some(evaluator) = evaluator {
        out.put_u8(evaluator);
    }
    out.extend_from_slice(body);
}

/// Takes the next request and its token off the front of `from`, whose memory it shares.
pub fn get_request(from: &mut Bytes) -> Result<(u64, Request), Malformed> {
    let token = get_varint(from)?;
    let range = RangeId(get_varint(from)?);
    let version = get_varint(from)?;
    let term = get_varint(from)?;
    let kind = get_byte(from)?;
    let mark = match kind & TRACED {
        0 => Mark::NONE,
        _ => Mark(from.try_get_u64_le().map_err(|_| Malformed("ends early"))?),
    };
    let kind = kind & !TRACED;
    let mut bytes = get_bytes(from)?;
    let body = match kind {
        COMMAND | READ => Body::Command {
            evaluator: EvaluatorId(get_byte(&mut bytes)?),
            read_only: kind == READ,
            command: bytes,
        },
        ADMIN => Body::Admin(bytes),
        HEARTBEAT => Body::Heartbeat(bytes),
        PUBSUB => Body::PubSub(bytes),
        _ => return Err(Malformed("unknown kind of request")),
    };
    let request = Request {
        range,
        version,
        term,
        mark,
        body,
    };
    Ok((token, request))
}

/// Appends a response.
pub fn put_response(out: &mut BytesMut, token: u64, response: &Response) {
    put_varint(out, token);
    match response {
        Ok(reply) => {
            out.put_u8(REPLY);
            put_varint(out, reply.len() as u64);
            out.extend_from_slice(reply);
        }
        Err(error) => {
            let error = pb::Error::from(error);
            out.put_u8(ERROR);
            put_varint(out, error.encoded_len() as u64);
            error.encode(out).expect("a buffer grows");
        }
    }
}

/// Takes the next response and its token off the front of `from`. An error that makes no
/// sense to this version leaves the outcome unknown.
pub fn get_response(from: &mut Bytes) -> Result<(u64, Response), Malformed> {
    let token = get_varint(from)?;
    let kind = get_byte(from)?;
    let bytes = get_bytes(from)?;
    let response = match kind {
        REPLY => Ok(bytes),
        ERROR => Err(pb::Error::decode(bytes)
            .map_err(|_| Malformed("error"))?
            .into()),
        _ => return Err(Malformed("unknown kind of response")),
    };
    Ok((token, response))
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn get_varint(from: &mut Bytes) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for (at, &byte) in from.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if (bits << (7 * at)) >> (7 * at) != bits {
            return Err(Malformed("number too large"));
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            from.advance(at + 1);
            return Ok(value);
        }
    }
    Err(Malformed("number cut short"))
}

fn get_byte(from: &mut Bytes) -> Result<u8, Malformed> {
    from.try_get_u8().map_err(|_| Malformed("ends early"))
}

fn get_bytes(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = get_varint(from)?;
    if length > from.len() as u64 {
        return Err(Malformed("longer than what is left"));
    }
    Ok(from.split_to(length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let bodies = [
            Body::Command {
                evaluator: EvaluatorId(200),
                read_only: false,
                command: Bytes::from(vec![b'c'; 300]),
            },
            Body::Command {
                evaluator: EvaluatorId::PLACEMENT,
                read_only: true,
                command: Bytes::new(),
            },
            Body::Admin(Bytes::from_static(b"a")),
            Body::Heartbeat(Bytes::new()),
            Body::PubSub(Bytes::from_static(b"p")),
        ];
        let request = |(n, body)| Request {
            range: RangeId(u64::MAX - n as u64),
            version: 127 + n as u64,
            term: n as u64,
            mark: Mark(n as u64 % 2 * u64::MAX),
            body,
        };
        bodies.into_iter().enumerate().map(request).collect()
    }

    #[test]
    fn requests_round_trip() {
        let mut out = BytesMut::new();
        for (token, request) in requests().iter().enumerate() {
            put_request(&mut out, token as u64 * 1_000_000, request);
        }
        let mut bytes = out.freeze();
        for (token, request) in requests().iter().enumerate() {
            let (found_token, found) = get_request(&mut bytes).unwrap();
            assert_eq!(found_token, token as u64 * 1_000_000);
            assert_eq!(format!("{found:?}"), format!("{request:?}"));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn responses_round_trip() {
        let responses = [
            Ok(Bytes::from_static(b"+OK\r\n")),
            Ok(Bytes::new()),
            Err(RequestError::NotLeader {
                range: RangeId(7),
                leader: Some(LeaderHint {
                    store: StoreId(2),
                    term: 9,
                }),
            }),
            Err(RequestError::EpochNotMatch {
                current: Vec::new(),
            }),
            Err(RequestError::OutcomeUnknown("who knows".into())),
        ];
        let mut out = BytesMut::new();
        for response in &responses {
            put_response(&mut out, u64::MAX, response);
        }
        let mut bytes = out.freeze();
        for response in responses {
            assert_eq!(get_response(&mut bytes), Ok((u64::MAX, response)));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_senseless_is_refused() {
        for request in requests() {
            let mut out = BytesMut::new();
            put_request(&mut out, 300, &request);
            let whole = out.freeze();
            for length in 0..whole.len() {
                assert!(get_request(&mut whole.slice(..length)).is_err(), "{length}");
            }
        }
        let mut unknown = Bytes::from_static(&[1, 1, 1, 1, 9, 0]);
        assert_eq!(
            get_request(&mut unknown).unwrap_err(),
            Malformed("unknown kind of request")
        );
        let mut large = Bytes::from_static(&[0xff; 11]);
        assert!(get_response(&mut large).is_err());
        let mut large =
            Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
        assert_eq!(get_response(&mut large), Err(Malformed("number too large")));
    }
}
