//! What stands in a key's own record.
//!
//! ```text
//! type, 1 byte | flags, 1 byte | expiry, 8 bytes big-endian, if flagged | payload
//! ```
//!
//! - Type: `01` string, whose payload is the string; `02` hash, `03` list, `04` set, `05` sorted
//!   set, whose payloads are in [`meta`](super::meta) and whose elements are records of their own.
//! - Flags: bit 0, there is an expiry; bits 1 and 2, what `OBJECT ENCODING` answers (for strings
//!   [`RAW`] and [`TEXT`], for collections see [`meta`](super::meta)); bit 3, a list has elements
//!   between two positions; the others are 0.
//! - Expiry: milliseconds since the Unix epoch. From that moment on the key does not exist,
//!   whether or not its record has been removed yet.
//!
//! A record that does not parse is taken for one of an unknown type: a newer version of this
//! program may have written it, and commands answer `WRONGTYPE`.

use bytes::Bytes;

/// The type bytes.
const STRING: u8 = 0x01;
const HASH: u8 = 0x02;
const LIST: u8 = 0x03;
const SET: u8 = 0x04;
const SORTED_SET: u8 = 0x05;
/// Flag: an expiry follows.
const EXPIRES: u8 = 1;
/// Flag: the string was changed by `APPEND` or `SETRANGE`. Its only effect is that
/// `OBJECT ENCODING` answers `raw`, as Redis does.
pub const RAW: u8 = 1 << 1;
/// Flag: the string was written by `INCRBYFLOAT`. Its only effect is that `OBJECT ENCODING`
/// does not answer `int`, as Redis does not.
pub const TEXT: u8 = 1 << 2;

const HEADER: usize = 2;
const EXPIRY: usize = 8;

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A byte string.
    String,
    /// Fields with values.
    Hash,
    /// A sequence.
    List,
    /// Members without order.
    Set,
    /// Members ordered by score.
    SortedSet,
    /// A type byte which this version does not know.
    Unknown,
}

impl Kind {
    /// The name that `TYPE` answers and `SCAN … TYPE` takes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::Unknown => "unknown",
        }
    }

    /// Whether its elements are records of their own.
    pub fn is_collection(self) -> bool {
        matches!(self, Kind::Hash | Kind::List | Kind::Set | Kind::SortedSet)
    }

    fn byte(self) -> u8 {
        match self {
            Kind::String => STRING,
            Kind::Hash => HASH,
            Kind::List => LIST,
            Kind::Set => SET,
            Kind::SortedSet => SORTED_SET,
            Kind::Unknown => unreachable!("only records of known types are written"),
        }
    }
}

/// A parsed record, which shares the memory of the bytes it was parsed from when these are
/// `Bytes`, and borrows when they are a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value<B> {
    /// Type of the value.
    pub kind: Kind,
    /// [`RAW`], [`TEXT`], what a collection keeps there, or 0.
    pub flags: u8,
    /// Milliseconds since the Unix epoch at which the key ceases to exist.
    pub expires_at_ms: Option<u64>,
    payload_at: usize,
    bytes: B,
}

impl<B: AsRef<[u8]>> Value<B> {
    /// Parses a record.
    pub fn parse(bytes: B) -> Self {
        let (kind, flags, expires_at_ms, payload_at) = parse_header(bytes.as_ref());
        Value {
            kind,
            flags,
            expires_at_ms,
            payload_at,
            bytes,
        }
    }

    /// What follows the header; for a string, the string.
    pub fn payload(&self) -> &[u8] {
        &self.bytes.as_ref()[self.payload_at..]
    }

    /// Bytes of the record.
    pub fn record_len(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// Whether the key has ceased to exist at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// The same record with another expiry.
    pub fn with_expiry(&self, expires_at_ms: Option<u64>) -> Bytes {
        let kind = self.bytes.as_ref().first().copied().unwrap_or(STRING);
        encode(kind, self.flags, expires_at_ms, &[self.payload()])
    }
}

fn parse_header(bytes: &[u8]) -> (Kind, u8, Option<u64>, usize) {
    let unknown = (Kind::Unknown, 0, None, bytes.len());
    let [kind, flags, rest @ ..] = bytes else {
        return unknown;
    };
    let (expiry, payload_at) = if flags & EXPIRES == 0 {
        (None, HEADER)
    } else {
        match rest.first_chunk::<EXPIRY>() {
            Some(at) => (Some(u64::from_be_bytes(*at)), HEADER + EXPIRY),
            None => return unknown,
        }
    };
    let kind = match *kind {
        STRING => Kind::String,
        HASH => Kind::Hash,
        LIST => Kind::List,
        SET => Kind::Set,
        SORTED_SET => Kind::SortedSet,
        _ => Kind::Unknown,
    };
    (kind, flags & !EXPIRES, expiry, payload_at)
}

/// A string record: the concatenation of `parts`, in one allocation of exactly its size.
/// `flags` is [`RAW`], [`TEXT`] or 0.
pub fn string(flags: u8, expires_at_ms: Option<u64>, parts: &[&[u8]]) -> Bytes {
    encode(STRING, flags, expires_at_ms, parts)
}

/// The metadata record of a collection.
pub(crate) fn collection(
    kind: Kind,
    flags: u8,
    expires_at_ms: Option<u64>,
    payload: &[u8],
) -> Bytes {
    debug_assert!(kind.is_collection(), "{kind:?}");
    encode(kind.byte(), flags, expires_at_ms, &[payload])
}

fn encode(kind: u8, flags: u8, expires_at_ms: Option<u64>, parts: &[&[u8]]) -> Bytes {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let expiry = if expires_at_ms.is_some() { EXPIRY } else { 0 };
    let mut out = Vec::with_capacity(HEADER + expiry + payload);
    out.push(kind);
    match expires_at_ms {
        Some(at) => {
            out.push(flags | EXPIRES);
            out.extend_from_slice(&at.to_be_bytes());
        }
        None => out.push(flags & !EXPIRES),
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_as_documented() {
        assert_eq!(&string(0, None, &[b"a", b"b"])[..], b"\x01\0ab");
        assert_eq!(
            &string(RAW, Some(258), &[b"x"])[..],
            b"\x01\x03\0\0\0\0\0\0\x01\x02x"
        );
    }

    #[test]
    fn unknown_types_and_damaged_records_have_no_payload_to_misread() {
        for bytes in [&b""[..], b"\x01", b"\x01\x01\0\0", b"\x09\0abc"] {
            assert_eq!(Value::parse(bytes).kind, Kind::Unknown, "{bytes:02x?}");
        }
    }

    #[test]
    fn expiry_is_the_first_moment_of_absence() {
        let record = string(0, Some(100), &[]);
        let value = Value::parse(&record);
        assert_eq!(
            [99, 100, 101].map(|now| value.is_expired(now)),
            [false, true, true]
        );
        assert!(!Value::parse(&value.with_expiry(None)).is_expired(u64::MAX));
    }

    proptest! {
        #[test]
        fn records_round_trip(raw: bool, expiry: Option<u64>, other: Option<u64>, payload: Vec<u8>) {
            let flags = if raw { RAW } else { 0 };
            let record = string(flags, expiry, &[&payload]);
            let value = Value::parse(&record);
            prop_assert_eq!(value.kind, Kind::String);
            prop_assert_eq!(value.flags, flags);
            prop_assert_eq!(value.expires_at_ms, expiry);
            prop_assert_eq!(value.payload(), &payload[..]);
            prop_assert_eq!(value.with_expiry(other), string(flags, other, &[&payload]));
        }
    }
}
