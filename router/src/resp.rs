//! Reads requests of the Redis protocol (RESP2 and RESP3 clients send the same) off a byte
//! stream, and takes replies apart where a command was fanned out and is put together again.
//!
//! Invariants:
//! - However the stream is cut into reads, the same commands come out.
//! - Memory is bounded by a constant times the bytes *received*: nothing is reserved for a
//!   length that a client merely claims.
//! - Each byte is looked at once: a parse that runs out of bytes resumes where it stopped.
//! - An argument is a slice of the buffer that the bytes were received into, never a copy
//!   (an inline argument with escapes is the exception).
//!
//! A malformed stream can't be resynchronized: the connection answers the error and closes.

use bytes::{Bytes, BytesMut};
use std::fmt;

/// What a client may send at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of one command.
    pub args_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of one command, with its framing.
    pub request_bytes_max: usize,
    /// Bytes of an inline command, and of any line that carries a length.
    pub inline_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            args_max: 1_048_576,
            bulk_bytes_max: 512 << 20,
            request_bytes_max: 64 << 20,
            inline_bytes_max: 64 << 10,
        }
    }
}

/// Why a stream is no RESP. `Display` is Redis's error text, without the leading `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*<count>` is no number, or exceeds [`Limits::args_max`].
    MultibulkLength,
    /// `$<length>` is no number, negative, or exceeds [`Limits::bulk_bytes_max`].
    BulkLength,
    /// An argument begins with something other than `$`.
    ExpectedDollar(u8),
    /// No line end within [`Limits::inline_bytes_max`] of a `*`.
    MultibulkLine,
    /// No line end within [`Limits::inline_bytes_max`] of a `$`.
    BulkLine,
    /// No line end within [`Limits::inline_bytes_max`] of an inline command.
    InlineTooBig,
    /// An inline command opens a quote and does not close it.
    UnbalancedQuotes,
    /// The command exceeds [`Limits::request_bytes_max`].
    RequestTooBig(usize),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            // A control character would break the error's own line.
            Self::ExpectedDollar(got) if got.is_ascii_control() || !got.is_ascii() => {
                write!(f, "expected '$', got '\\x{got:02x}'")
            }
            Self::ExpectedDollar(got) => write!(f, "expected '$', got '{}'", *got as char),
            Self::MultibulkLine => f.write_str("too big mbulk count string"),
            Self::BulkLine => f.write_str("too big bulk count string"),
            Self::InlineTooBig => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::RequestTooBig(limit) => write!(f, "request exceeds {limit} bytes"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Where the parse of the command at the front of the buffer stands.
///
/// Offsets are relative to the front of the buffer, and hold because bytes are only ever
/// appended between two calls.
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    /// Bytes understood so far.
    at: usize,
    /// Bytes searched for a line end so far.
    searched: usize,
    /// Arguments announced and not yet read; `None` = the header is not read yet.
    missing: Option<usize>,
    /// Length of the argument being read, once its header is read.
    bulk: Option<usize>,
    /// `(start, end)` of the arguments read.
    found: Vec<(u32, u32)>,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        // Offsets are kept in 32 bits.
        let request_bytes_max = limits.request_bytes_max.min(u32::MAX as usize / 2);
        Parser {
            limits: Limits {
                request_bytes_max,
                ..limits
            },
            ..Parser::default()
        }
    }

    /// Takes the next command off the front of `buffer` into `args` (which is cleared).
    /// `false`: more bytes are needed. Empty lines and empty arrays are skipped, as Redis does.
    pub fn next(
        &mut self,
        buffer: &mut BytesMut,
        args: &mut Vec<Bytes>,
    ) -> Result<bool, ProtocolError> {
        args.clear();
        loop {
            let Some(&first) = buffer.first() else {
                return Ok(false);
            };
            if self.missing.is_none() && first != b'*' {
                match self.inline(buffer, args)? {
                    Some(complete) => return Ok(complete),
                    None => continue,
                }
            }
            let complete = self.multibulk(buffer)?;
            if !complete {
                if buffer.len() > self.limits.request_bytes_max {
                    return Err(ProtocolError::RequestTooBig(self.limits.request_bytes_max));
                }
                return Ok(false);
            }
            if self.at > self.limits.request_bytes_max {
                return Err(ProtocolError::RequestTooBig(self.limits.request_bytes_max));
            }
            let request = buffer.split_to(self.at).freeze();
            args.extend(
                self.found
                    .drain(..)
                    .map(|(a, b)| request.slice(a as usize..b as usize)),
            );
            self.at = 0;
            self.searched = 0;
            self.missing = None;
            // A million-argument command should not pin its offsets for good.
            if self.found.capacity() > 4096 {
                self.found = Vec::new();
            }
            if !args.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Whether the whole command at the front is there.
    fn multibulk(&mut self, buffer: &[u8]) -> Result<bool, ProtocolError> {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                let Some(line) = self.line(buffer, ProtocolError::MultibulkLine)? else {
                    return Ok(false);
                };
                let count = integer(&buffer[line.0 + 1..line.1])
                    .filter(|count| *count <= self.limits.args_max as i64)
                    .ok_or(ProtocolError::MultibulkLength)?;
                self.missing = Some(count.max(0) as usize);
                count.max(0) as usize
            }
        };
        while missing > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => {
                    let Some(&first) = buffer.get(self.at) else {
                        return Ok(false);
                    };
                    if first != b'$' {
                        return Err(ProtocolError::ExpectedDollar(first));
                    }
                    let Some(line) = self.line(buffer, ProtocolError::BulkLine)? else {
                        return Ok(false);
                    };
                    let length = integer(&buffer[line.0 + 1..line.1])
                        .filter(|n| *n >= 0 && *n <= self.limits.bulk_bytes_max as i64)
                        .ok_or(ProtocolError::BulkLength)?
                        as usize;
                    // Refuse at once what could never be accepted, rather than receive it.
                    if length.saturating_add(self.at) > self.limits.request_bytes_max {
                        return Err(ProtocolError::RequestTooBig(self.limits.request_bytes_max));
                    }
                    self.bulk = Some(length);
                    length
                }
            };
            // Redis does not look at the two bytes behind an argument either.
            if buffer.len() < self.at + length + 2 {
                return Ok(false);
            }
            self.found.push((self.at as u32, (self.at + length) as u32));
            self.at += length + 2;
            self.searched = self.at;
            self.bulk = None;
            missing -= 1;
            self.missing = Some(missing);
        }
        Ok(true)
    }

    /// The line at `at` without its `\r\n`, if it is complete; moves `at` behind it.
    fn line(
        &mut self,
        buffer: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<(usize, usize)>, ProtocolError> {
        let start = self.at;
        let from = self.searched.max(start);
        match buffer[from..].iter().position(|b| *b == b'\r') {
            Some(found) => {
                let end = from + found;
                if end - start > self.limits.inline_bytes_max {
                    return Err(too_long);
                }
                if buffer.len() < end + 2 {
                    self.searched = end;
                    return Ok(None);
                }
                self.at = end + 2;
                self.searched = self.at;
                Ok(Some((start, end)))
            }
            None => {
                if buffer.len() - start > self.limits.inline_bytes_max {
                    return Err(too_long);
                }
                self.searched = buffer.len();
                Ok(None)
            }
        }
    }

    /// `Some(false)`: more bytes are needed; `None`: the line was empty, go on behind it.
    fn inline(
        &mut self,
        buffer: &mut BytesMut,
        args: &mut Vec<Bytes>,
    ) -> Result<Option<bool>, ProtocolError> {
        let Some(found) = buffer[self.searched..].iter().position(|b| *b == b'\n') else {
            if buffer.len() > self.limits.inline_bytes_max {
                return Err(ProtocolError::InlineTooBig);
            }
            self.searched = buffer.len();
            return Ok(Some(false));
        };
        let end = self.searched + found;
        if end > self.limits.inline_bytes_max {
            return Err(ProtocolError::InlineTooBig);
        }
        self.searched = 0;
        let mut line = buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        split_inline(&line, args)?;
        Ok((!args.is_empty()).then_some(true))
    }
}

/// Splits an inline command as Redis's `sdssplitargs` does: blanks separate, double quotes
/// know escapes, single quotes only `\'`, and a closing quote must end its argument.
fn split_inline(line: &Bytes, args: &mut Vec<Bytes>) -> Result<(), ProtocolError> {
    let blank = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0);
    let bytes = &line[..];
    let mut i = 0;
    loop {
        while i < bytes.len() && blank(bytes[i]) {
            i += 1;
        }
        if i >= bytes.len() {
            return Ok(());
        }
        let start = i;
        while i < bytes.len() && !blank(bytes[i]) && !matches!(bytes[i], b'"' | b'\'') {
            i += 1;
        }
        if i >= bytes.len() || blank(bytes[i]) {
            args.push(line.slice(start..i));
            continue;
        }
        let mut arg = bytes[start..i].to_vec();
        while i < bytes.len() && !blank(bytes[i]) {
            let byte = bytes[i];
            i += 1;
            match byte {
                b'"' => i = double_quoted(bytes, i, &mut arg)?,
                b'\'' => i = single_quoted(bytes, i, &mut arg)?,
                other => arg.push(other),
            }
            if matches!(byte, b'"' | b'\'') && bytes.get(i).is_some_and(|b| !blank(*b)) {
                return Err(ProtocolError::UnbalancedQuotes);
            }
        }
        args.push(Bytes::from(arg));
    }
}

fn double_quoted(bytes: &[u8], mut i: usize, arg: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let hex = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16)).map(|d| d as u8);
    loop {
        match bytes.get(i) {
            None => return Err(ProtocolError::UnbalancedQuotes),
            Some(b'"') => return Ok(i + 1),
            Some(b'\\') => {
                let Some(&escaped) = bytes.get(i + 1) else {
                    return Err(ProtocolError::UnbalancedQuotes);
                };
                if escaped == b'x' {
                    if let (Some(high), Some(low)) = (hex(bytes.get(i + 2)), hex(bytes.get(i + 3)))
                    {
                        arg.push(high * 16 + low);
                        i += 4;
                        continue;
                    }
                }
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                i += 2;
            }
            Some(other) => {
                arg.push(*other);
                i += 1;
            }
        }
    }
}

fn single_quoted(bytes: &[u8], mut i: usize, arg: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    loop {
        match bytes.get(i) {
            None => return Err(ProtocolError::UnbalancedQuotes),
            Some(b'\'') => return Ok(i + 1),
            Some(b'\\') if bytes.get(i + 1) == Some(&b'\'') => {
                arg.push(b'\'');
                i += 2;
            }
            Some(other) => {
                arg.push(*other);
                i += 1;
            }
        }
    }
}

/// A decimal as Redis's `string2ll` takes it: no plus sign, no blanks, no leading zeros.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some(value)
}

#[cfg(test)]
#[path = "resp_tests.rs"]
mod tests;
