//! How a command travels from the router to the leader that evaluates it.
//!
//! ```text
//! protocol (2 or 3), 1 byte | database, 1 byte | argc, varint | (length, varint | bytes) × argc
//! ```
//!
//! The protocol travels along because the reply is RESP in the client's own version, which
//! the router forwards without parsing. Varints are LEB128: 7 bits per byte, low bits first.
//! Arguments are slices of the request's one buffer; nothing is copied.

use super::keys::DATABASES;
use bytes::Bytes;
use std::ops::Deref;

/// The version of RESP that a client speaks (`HELLO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Protocol {
    /// RESP2, which every connection begins with.
    #[default]
    Resp2,
    /// RESP3: maps, sets, nulls, doubles and push messages have types of their own.
    Resp3,
}

impl Protocol {
    /// The version number, as in `HELLO 3`.
    pub fn version(self) -> u8 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// Arguments that are kept without an allocation; `SET key value EX 10` has five.
const INLINE_ARGS: usize = 5;

/// The arguments of a command, its name first; reads as a slice.
#[derive(Clone, Debug)]
pub struct Args(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Inline([Bytes; INLINE_ARGS], usize),
    Heap(Vec<Bytes>),
}

impl Args {
    fn with_capacity(count: usize) -> Self {
        Args(if count <= INLINE_ARGS {
            Repr::Inline([const { Bytes::new() }; INLINE_ARGS], 0)
        } else {
            Repr::Heap(Vec::with_capacity(count))
        })
    }

    /// Appends within the capacity given to [`with_capacity`](Self::with_capacity).
    fn push(&mut self, arg: Bytes) {
        match &mut self.0 {
            Repr::Inline(args, length) => {
                args[*length] = arg;
                *length += 1;
            }
            Repr::Heap(args) => args.push(arg),
        }
    }
}

impl Deref for Args {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        match &self.0 {
            Repr::Inline(args, length) => &args[..*length],
            Repr::Heap(args) => args,
        }
    }
}

/// A decoded command.
#[derive(Clone, Debug)]
pub struct Command {
    /// In which the reply is written.
    pub protocol: Protocol,
    /// The connection's database, below [`DATABASES`].
    pub db: u8,
    /// The name and what follows it; never empty.
    pub args: Args,
}

/// Why bytes are not a command. Only a defect of the sender can cause it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes end in the middle of a command.
    #[error("command is cut short at byte {at}")]
    Truncated {
        /// Offset at which more was expected.
        at: usize,
    },
    /// Neither RESP2 nor RESP3.
    #[error("unknown protocol {0}")]
    Protocol(u8),
    /// Not below [`DATABASES`].
    #[error("no database {0}")]
    Database(u8),
    /// A varint that exceeds 64 bits.
    #[error("number too large at byte {at}")]
    Varint {
        /// Offset of its first byte.
        at: usize,
    },
    /// A command without a name.
    #[error("command without arguments")]
    Empty,
    /// Bytes after the last argument.
    #[error("{0} bytes after the last argument")]
    Trailing(usize),
}

/// Encodes a command in one allocation of exactly its size.
///
/// `args` begins with the command's name and is not empty; `db` is below [`DATABASES`].
pub fn encode_command(protocol: Protocol, db: u8, args: &[Bytes]) -> Bytes {
    debug_assert!(!args.is_empty() && db < DATABASES);
    let sizes = args.iter().map(|a| varint_size(a.len()) + a.len());
    let size = 2 + varint_size(args.len()) + sizes.sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&[protocol.version(), db]);
    push_varint(&mut out, args.len());
    for arg in args {
        push_varint(&mut out, arg.len());
        out.extend_from_slice(arg);
    }
    debug_assert_eq!(out.len(), size);
    out.into()
}

/// Decodes what [`encode_command`] wrote; the arguments share the memory of `bytes`.
pub fn decode_command(bytes: &Bytes) -> Result<Command, CodecError> {
    let (protocol, db) = match bytes[..] {
        [protocol, db, ..] => (protocol, db),
        _ => return Err(CodecError::Truncated { at: bytes.len() }),
    };
    let protocol = match protocol {
        2 => Protocol::Resp2,
        3 => Protocol::Resp3,
        other => return Err(CodecError::Protocol(other)),
    };
    if db >= DATABASES {
        return Err(CodecError::Database(db));
    }
    let mut at = 2;
    let count = read_varint(bytes, &mut at)?;
    if count == 0 {
        return Err(CodecError::Empty);
    }
    // Each argument takes at least a byte, which bounds what is allocated by what was sent.
    if count > bytes.len() - at {
        return Err(CodecError::Truncated { at: bytes.len() });
    }
    let mut args = Args::with_capacity(count);
    for _ in 0..count {
        let length = read_varint(bytes, &mut at)?;
        if length > bytes.len() - at {
            return Err(CodecError::Truncated { at: bytes.len() });
        }
        args.push(bytes.slice(at..at + length));
        at += length;
    }
    if at != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - at));
    }
    Ok(Command { protocol, db, args })
}

fn varint_size(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Result<usize, CodecError> {
    let start = *at;
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(CodecError::Truncated { at: *at })?;
        *at += 1;
        let part = u64::from(byte & 0x7F);
        if (part << shift) >> shift != part {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(value).map_err(|_| CodecError::Varint { at: start });
        }
    }
    Err(CodecError::Varint { at: start })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_as_documented() {
        let args = [Bytes::from("GET"), Bytes::from(vec![b'k'; 200])];
        let encoded = encode_command(Protocol::Resp3, 7, &args);
        assert_eq!(&encoded[..9], b"\x03\x07\x02\x03GET\xC8\x01");
        assert_eq!(encoded.len(), 9 + 200);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for (bytes, expected) in [
            (&b""[..], CodecError::Truncated { at: 0 }),
            (b"\x02\x00", CodecError::Truncated { at: 2 }),
            (b"\x04\x00\x01\x00", CodecError::Protocol(4)),
            (b"\x02\x10\x01\x00", CodecError::Database(16)),
            (b"\x02\x00\x00", CodecError::Empty),
            (b"\x02\x00\x01\x03GE", CodecError::Truncated { at: 6 }),
            (b"\x02\x00\x01\x03GETx", CodecError::Trailing(1)),
            (
                b"\x02\x00\xFF\xFF\xFF\xFF\x7F",
                CodecError::Truncated { at: 7 },
            ),
            (
                b"\x02\x00\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F",
                CodecError::Varint { at: 2 },
            ),
        ] {
            let bytes = Bytes::from_static(bytes);
            assert_eq!(decode_command(&bytes).unwrap_err(), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn commands_round_trip(
            resp3: bool,
            db in 0..DATABASES,
            args in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..12),
        ) {
            let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
            let args: Vec<Bytes> = args.into_iter().map(Bytes::from).collect();
            let command = decode_command(&encode_command(protocol, db, &args)).unwrap();
            prop_assert_eq!(command.protocol, protocol);
            prop_assert_eq!(command.db, db);
            prop_assert_eq!(&command.args[..], &args[..]);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_command(&Bytes::from([&[2, 0][..], &bytes].concat()));
        }
    }
}
