//! Varints and length-prefixed bytes, for the hand codecs of this crate.

use bytes::{Buf, Bytes};
use std::fmt;

/// Bytes that are not what the codec writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Corrupt {}

/// Appends an unsigned LEB128 varint (1 to 10 bytes).
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what [`put_varint`] wrote.
pub fn get_varint(from: &mut Bytes) -> Result<u64, Corrupt> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if !from.has_remaining() {
            return Err(Corrupt("varint: ends early"));
        }
        let byte = from.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Corrupt("varint: longer than 10 bytes"))
}

/// Reads what [`put_bytes`] wrote, sharing the buffer.
pub fn get_bytes(from: &mut Bytes) -> Result<Bytes, Corrupt> {
    let len = get_varint(from)?;
    if len > from.len() as u64 {
        return Err(Corrupt("bytes: longer than what is left"));
    }
    Ok(from.split_to(len as usize))
}
