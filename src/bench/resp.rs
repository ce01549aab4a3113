//! Finds the ends of RESP replies in a stream that may be cut anywhere.
//!
//! The scanner keeps no reply: it counts them, tells errors and nulls from the rest, and
//! remembers the head of an error's text. Hence one read buffer serves all connections of a
//! thread. Knows RESP2 and RESP3, save for pushes and attributes, which nobody sends to a client
//! that did not ask for them.

/// Longest part of an error's text that is kept.
const ERROR_BYTES_MAX: usize = 120;

/// A length line is at most a sign and 19 digits.
const LENGTH_BYTES_MAX: usize = 20;

/// What a complete reply was.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Reply<'a> {
    /// Anything but an error or a null.
    Value,
    /// Null bulk, null array, or RESP3 null.
    Null,
    /// An error: its text, cut at [`ERROR_BYTES_MAX`].
    Error(&'a [u8]),
}

/// The bytes are not RESP; where a reply ends is unknown from here on.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct NotResp(pub String);

/// State between two reads of one connection.
#[derive(Default)]
pub struct ReplyScanner {
    state: State,
    /// Elements still to come before the reply that was begun is complete; 0 = between replies.
    pending: u64,
    /// What the reply's outermost element is.
    outcome: Outcome,
    error: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Type,
    /// A line whose text doesn't matter; the flag: it is the outermost error, keep it.
    Text { keep: bool },
    /// A number, which is the length of what the type byte says.
    Length {
        of: u8,
        value: u64,
        negative: bool,
        digits: usize,
    },
    /// The line feed after a length's carriage return.
    LengthEnd { of: u8, value: u64, negative: bool },
    /// Bytes of a bulk string and its line end; the flag as in `Text`.
    Skip { left: u64, keep: bool },
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Outcome {
    #[default]
    Value,
    Null,
    Error,
}

impl ReplyScanner {
    /// Whether no reply is half read.
    pub fn is_between_replies(&self) -> bool {
        self.pending == 0 && matches!(self.state, State::Type)
    }

    /// Consumes what was read, calls `on_reply` once per reply that it completes.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_reply: impl FnMut(Reply<'_>),
    ) -> Result<(), NotResp> {
        while let Some(&byte) = bytes.first() {
            match self.state {
                State::Type => {
                    bytes = &bytes[1..];
                    self.begin_element(byte)?;
                }
                State::Text { keep } => {
                    let end = bytes.iter().position(|&b| b == b'\n');
                    let line = &bytes[..end.unwrap_or(bytes.len())];
                    if keep {
                        self.keep_error(line);
                    }
                    match end {
                        None => bytes = &[],
                        Some(at) => {
                            bytes = &bytes[at + 1..];
                            self.end_element(&mut on_reply);
                        }
                    }
                }
                State::Length {
                    of,
                    value,
                    negative,
                    digits,
                } => {
                    bytes = &bytes[1..];
                    self.state = match byte {
                        b'-' if digits == 0 && !negative => State::Length {
                            of,
                            value,
                            negative: true,
                            digits,
                        },
                        b'0'..=b'9' if digits < LENGTH_BYTES_MAX - 1 => State::Length {
                            of,
                            value: value * 10 + u64::from(byte - b'0'),
                            negative,
                            digits: digits + 1,
                        },
                        b'\r' if digits > 0 => State::LengthEnd {
                            of,
                            value,
                            negative,
                        },
                        _ => return Err(unexpected("a length", byte)),
                    };
                }
                State::LengthEnd {
                    of,
                    value,
                    negative,
                } => {
                    bytes = &bytes[1..];
                    if byte != b'\n' {
                        return Err(unexpected("a line feed", byte));
                    }
                    self.begin_sized(of, value, negative, &mut on_reply);
                }
                State::Skip { left, keep } => {
                    let taken = left.min(bytes.len() as u64) as usize;
                    if keep {
                        self.keep_error(&bytes[..taken]);
                    }
                    bytes = &bytes[taken..];
                    if left == taken as u64 {
                        self.end_element(&mut on_reply);
                    } else {
                        self.state = State::Skip {
                            left: left - taken as u64,
                            keep,
                        };
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_element(&mut self, kind: u8) -> Result<(), NotResp> {
        let outermost = self.pending == 0;
        if outermost {
            self.pending = 1;
            self.outcome = match kind {
                b'-' | b'!' => Outcome::Error,
                b'_' => Outcome::Null,
                _ => Outcome::Value,
            };
            self.error.clear();
        }
        let keep = outermost && self.outcome == Outcome::Error;
        self.state = match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => State::Text { keep },
            b'$' | b'*' | b'%' | b'~' | b'=' | b'!' => State::Length {
                of: kind,
                value: 0,
                negative: false,
                digits: 0,
            },
            _ => return Err(unexpected("a reply", kind)),
        };
        Ok(())
    }

    fn begin_sized(
        &mut self,
        of: u8,
        value: u64,
        negative: bool,
        on_reply: &mut impl FnMut(Reply<'_>),
    ) {
        let outermost = self.pending == 1;
        if negative {
            if outermost && matches!(of, b'$' | b'*') {
                self.outcome = Outcome::Null;
            }
            return self.end_element(on_reply);
        }
        match of {
            b'$' | b'=' | b'!' => {
                // Two more for the line end.
                let keep = of == b'!' && self.outcome == Outcome::Error;
                self.state = State::Skip {
                    left: value.saturating_add(2),
                    keep,
                };
            }
            _ => {
                let elements = if of == b'%' {
                    value.saturating_mul(2)
                } else {
                    value
                };
                self.pending = self.pending.saturating_add(elements);
                self.end_element(on_reply);
            }
        }
    }

    fn end_element(&mut self, on_reply: &mut impl FnMut(Reply<'_>)) {
        self.state = State::Type;
        self.pending -= 1;
        if self.pending == 0 {
            on_reply(match self.outcome {
                Outcome::Value => Reply::Value,
                Outcome::Null => Reply::Null,
                Outcome::Error => Reply::Error(self.error.trim_ascii()),
            });
        }
    }

    fn keep_error(&mut self, text: &[u8]) {
        let room = ERROR_BYTES_MAX - self.error.len();
        self.error.extend_from_slice(&text[..text.len().min(room)]);
    }
}

fn unexpected(expected: &str, byte: u8) -> NotResp {
    NotResp(format!(
        "expected {expected}, got '{}'",
        byte.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(reply: Reply<'_>) -> String {
        match reply {
            Reply::Value => "value".into(),
            Reply::Null => "null".into(),
            Reply::Error(text) => format!("error {}", String::from_utf8_lossy(text)),
        }
    }

    fn scan(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut scanner = ReplyScanner::default();
        let mut replies = Vec::new();
        for piece in pieces {
            scanner
                .feed(piece, |reply| replies.push(name(reply)))
                .unwrap();
        }
        (replies, scanner.is_between_replies())
    }

    /// Every kind of reply that a server may send, and what it counts as.
    const STREAM: &[(&[u8], &str)] = &[
        (b"+OK\r\n", "value"),
        (b":42\r\n", "value"),
        (b":-1\r\n", "value"),
        (b"$5\r\nhello\r\n", "value"),
        (b"$0\r\n\r\n", "value"),
        (b"$12\r\n-ERR\r\n+OK\r\n.\r\n", "value"),
        (b"$-1\r\n", "null"),
        (b"*-1\r\n", "null"),
        (b"_\r\n", "null"),
        (b"*0\r\n", "value"),
        (b"*3\r\n:1\r\n$-1\r\n*2\r\n+a\r\n-ERR inner\r\n", "value"),
        (b"%1\r\n+key\r\n*2\r\n:1\r\n:2\r\n", "value"),
        (b"~1\r\n#t\r\n", "value"),
        (b",1.5\r\n", "value"),
        (b"-ERR unknown command\r\n", "error ERR unknown command"),
        (b"!9\r\nERR wrong\r\n", "error ERR wrong"),
        (
            b"-MOVED 3999 127.0.0.1:6381\r\n",
            "error MOVED 3999 127.0.0.1:6381",
        ),
    ];

    #[test]
    fn whole_stream_in_one_read() {
        let bytes: Vec<u8> = STREAM.iter().flat_map(|(b, _)| b.iter().copied()).collect();
        let expected: Vec<&str> = STREAM.iter().map(|(_, e)| *e).collect();
        assert_eq!(
            scan(&[&bytes]),
            (expected.iter().map(|e| e.to_string()).collect(), true)
        );
    }

    #[test]
    fn every_reply_cut_at_every_byte() {
        for (bytes, expected) in STREAM {
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(
                    scan(&[head]).0,
                    [""; 0],
                    "{:?} cut at {cut}",
                    bytes.escape_ascii()
                );
                assert_eq!(scan(&[head, tail]), (vec![expected.to_string()], true));
            }
        }
    }

    #[test]
    fn stream_byte_by_byte() {
        let bytes: Vec<u8> = STREAM.iter().flat_map(|(b, _)| b.iter().copied()).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(scan(&pieces).0.len(), STREAM.len());
    }

    #[test]
    fn half_a_reply_is_not_between_replies() {
        assert!(!scan(&[b"$5\r\nhel"]).1);
        assert!(!scan(&[b"*2\r\n:1\r\n"]).1);
    }

    #[test]
    fn long_error_is_cut_but_its_end_is_found() {
        let long = [b"-ERR ".as_slice(), &[b'x'; 500], b"\r\n+OK\r\n"].concat();
        let (replies, _) = scan(&[&long[..200], &long[200..]]);
        assert_eq!(replies[0].len(), "error ".len() + ERROR_BYTES_MAX);
        assert_eq!(replies[1], "value");
    }

    #[test]
    fn refuses_what_is_not_resp() {
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"$x\r\n",
            b"$5\n",
            b"$\r\n",
            b"$--1\r\n",
            b"\0",
        ] {
            let mut scanner = ReplyScanner::default();
            let result = scanner.feed(bytes, |_| {});
            assert!(result.is_err(), "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
