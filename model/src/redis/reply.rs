//! Replies as RESP bytes in the client's own protocol version.
//!
//! The router forwards them without parsing. The commonest are static; a bulk string takes
//! one allocation of exactly its size. Nested replies are written front to back by [`Reply`],
//! which turns what RESP3 added into its RESP2 equivalent. The source is the Redis
//! documentation's "Redis serialization protocol specification".

use super::codec::Protocol;
use super::float;
use bytes::Bytes;

/// `+OK`.
pub fn ok() -> Bytes {
    Bytes::from_static(b"+OK\r\n")
}

/// A status such as `+string`; `text` is a single line.
pub fn simple(text: &'static str) -> Bytes {
    debug_assert!(!text.contains(['\r', '\n']));
    Bytes::from(["+", text, "\r\n"].concat())
}

/// `:value`.
pub fn int(value: i64) -> Bytes {
    match value {
        -2 => Bytes::from_static(b":-2\r\n"),
        -1 => Bytes::from_static(b":-1\r\n"),
        0 => Bytes::from_static(b":0\r\n"),
        1 => Bytes::from_static(b":1\r\n"),
        2 => Bytes::from_static(b":2\r\n"),
        3 => Bytes::from_static(b":3\r\n"),
        _ => {
            let mut out = Vec::with_capacity(24);
            push_line(&mut out, b':', value);
            out.into()
        }
    }
}

/// `$length`, then `payload`.
pub fn bulk(payload: &[u8]) -> Bytes {
    if payload.is_empty() {
        return Bytes::from_static(b"$0\r\n\r\n");
    }
    let mut out = Vec::with_capacity(bulk_size(payload));
    push_bulk(&mut out, payload);
    // A vector that is exactly full becomes `Bytes` without another allocation.
    debug_assert_eq!(out.len(), out.capacity());
    out.into()
}

/// The null of RESP3, the null bulk string of RESP2.
pub fn nil(protocol: Protocol) -> Bytes {
    Bytes::from_static(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    })
}

/// The null of RESP3, the null array of RESP2.
pub fn nil_array(protocol: Protocol) -> Bytes {
    Bytes::from_static(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    })
}

/// A double: see [`Reply::double`].
pub(crate) fn double(protocol: Protocol, value: f64) -> Bytes {
    let mut reply = Reply::with_capacity(protocol, 32);
    reply.double(value);
    reply.finish()
}

/// An array of no elements.
pub fn empty_array() -> Bytes {
    Bytes::from_static(b"*0\r\n")
}

/// `-message`. The message begins with its code (`ERR …`); line ends within it become spaces,
/// as in Redis, so that what a user typed cannot forge a second reply.
pub fn error(message: &str) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 3);
    push_error(&mut out, message);
    out.into()
}

/// Writes a nested reply front to back. The caller announces the length of each array or map
/// before its elements, and then writes just as many.
#[derive(Debug)]
pub struct Reply {
    protocol: Protocol,
    out: Vec<u8>,
}

impl Reply {
    /// A reply that has nothing in it yet.
    pub fn new(protocol: Protocol) -> Self {
        Self::with_capacity(protocol, 64)
    }

    /// As [`new`](Self::new), with room for `bytes`.
    pub fn with_capacity(protocol: Protocol, bytes: usize) -> Self {
        let out = Vec::with_capacity(bytes);
        Reply { protocol, out }
    }

    /// Begins an array of `length` elements.
    pub fn array(&mut self, length: usize) -> &mut Self {
        self.header(b'*', length)
    }

    /// Begins a map of `pairs` keys, each followed by its value; in RESP2 an array of twice
    /// as many elements.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs * 2),
            Protocol::Resp3 => self.header(b'%', pairs),
        }
    }

    /// Begins a set of `length` elements; in RESP2 an array.
    pub fn set(&mut self, length: usize) -> &mut Self {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', length),
            Protocol::Resp3 => self.header(b'~', length),
        }
    }

    /// Begins an array of `length` elements, each of which is two if they come in pairs: then
    /// [`pair`](Self::pair) begins each. In RESP2 pairs are not arrays of their own.
    pub fn pairs(&mut self, length: usize, paired: bool) -> &mut Self {
        match self.protocol {
            Protocol::Resp2 if paired => self.array(length * 2),
            _ => self.array(length),
        }
    }

    /// Begins an element of [`pairs`](Self::pairs).
    pub fn pair(&mut self, paired: bool) -> &mut Self {
        match self.protocol {
            Protocol::Resp3 if paired => self.array(2),
            _ => self,
        }
    }

    /// Begins an out-of-band message of `length` elements; in RESP2 an array.
    pub fn push(&mut self, length: usize) -> &mut Self {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', length),
            Protocol::Resp3 => self.header(b'>', length),
        }
    }

    /// A bulk string.
    pub fn bulk(&mut self, payload: &[u8]) -> &mut Self {
        push_bulk(&mut self.out, payload);
        self
    }

    /// A status; `text` is a single line.
    pub fn simple(&mut self, text: &str) -> &mut Self {
        debug_assert!(!text.contains(['\r', '\n']));
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// An integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        push_line(&mut self.out, b':', value);
        self
    }

    /// A null; in RESP2 a null bulk string.
    pub fn nil(&mut self) -> &mut Self {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
        self
    }

    /// A null; in RESP2 a null array.
    pub fn nil_array(&mut self) -> &mut Self {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
        self
    }

    /// A boolean; in RESP2 the integer 1 or 0.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
        self
    }

    /// A double in the fewest digits that read back as the same value; in RESP2 a bulk
    /// string of them.
    pub fn double(&mut self, value: f64) -> &mut Self {
        let text = float::text(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
                self
            }
        }
    }

    /// A text with a three-letter format (`txt`, `mkd`); in RESP2 a bulk string of the text.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) -> &mut Self {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                push_line(&mut self.out, b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
                self
            }
        }
    }

    /// An error; see [`error`].
    pub fn error(&mut self, message: &str) -> &mut Self {
        push_error(&mut self.out, message);
        self
    }

    /// A whole reply that was made elsewhere in the same protocol version, such as an
    /// element of an array that was answered by another range.
    pub fn raw(&mut self, reply: &[u8]) -> &mut Self {
        self.out.extend_from_slice(reply);
        self
    }

    /// The bytes.
    pub fn finish(self) -> Bytes {
        self.out.into()
    }

    fn header(&mut self, kind: u8, length: usize) -> &mut Self {
        push_line(&mut self.out, kind, length as i64);
        self
    }
}

fn push_error(out: &mut Vec<u8>, message: &str) {
    out.push(b'-');
    out.extend(message.bytes().map(|b| match b {
        b'\r' | b'\n' => b' ',
        other => other,
    }));
    out.extend_from_slice(b"\r\n");
}

fn push_bulk(out: &mut Vec<u8>, payload: &[u8]) {
    push_line(out, b'$', payload.len() as i64);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

fn bulk_size(payload: &[u8]) -> usize {
    let digits = payload.len().checked_ilog10().unwrap_or(0) as usize + 1;
    1 + digits + 2 + payload.len() + 2
}

fn push_line(out: &mut Vec<u8>, kind: u8, value: i64) {
    out.push(kind);
    push_int(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the decimal digits of `value`, without the machinery of `format!`: this is part of
/// nearly every reply.
pub(crate) fn push_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Resp2, Resp3};

    #[test]
    fn single_replies() {
        assert_eq!(&ok()[..], b"+OK\r\n");
        assert_eq!(&simple("string")[..], b"+string\r\n");
        for value in [-3, -2, -1, 0, 1, 2, 3, 4, 10, 1234567, i64::MAX, i64::MIN] {
            assert_eq!(int(value), format!(":{value}\r\n"));
        }
        for length in [0, 1, 9, 10, 99, 100, 1000] {
            let payload = "x".repeat(length);
            assert_eq!(
                bulk(payload.as_bytes()),
                format!("${length}\r\n{payload}\r\n")
            );
        }
        assert_eq!(&nil(Resp2)[..], b"$-1\r\n");
        assert_eq!(&nil(Resp3)[..], b"_\r\n");
        assert_eq!(&nil_array(Resp2)[..], b"*-1\r\n");
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(&error("ERR a\r\n+OK\r\n")[..], b"-ERR a  +OK  \r\n");
    }

    #[test]
    fn nested_replies_in_both_versions() {
        let write = |protocol| {
            let mut reply = Reply::new(protocol);
            reply.map(1).bulk(b"k").set(1).simple("s").push(1).nil();
            reply.array(4).boolean(true).double(1.5).int(-7);
            reply.verbatim(b"txt", b"hi").nil_array().error("ERR no");
            reply.finish()
        };
        assert_eq!(
            &write(Resp2)[..],
            b"*2\r\n$1\r\nk\r\n*1\r\n+s\r\n*1\r\n$-1\r\n*4\r\n:1\r\n$3\r\n1.5\r\n:-7\r\n\
              $2\r\nhi\r\n*-1\r\n-ERR no\r\n"
        );
        assert_eq!(
            &write(Resp3)[..],
            b"%1\r\n$1\r\nk\r\n~1\r\n+s\r\n>1\r\n_\r\n*4\r\n#t\r\n,1.5\r\n:-7\r\n\
              =6\r\ntxt:hi\r\n_\r\n-ERR no\r\n"
        );
    }
}
