//! Cuts an expression into tokens.

use std::ops::Range;

/// A token and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its bytes in the text.
    pub at: Range<usize>,
}

/// See [`Token`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Name, keyword or function.
    Word,
    /// `#name`.
    Name,
    /// `:value`.
    Value,
    /// Digits.
    Index,
    /// `=` `<>` `(` and the like.
    Symbol,
    /// What belongs to no token.
    Unknown,
    /// Behind the text.
    End,
}

/// The tokens of `text`, the last of which is [`TokenKind::End`].
pub fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let word_end = |from: usize| from + bytes[from..].iter().take_while(|b| is_word(b)).count();
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' | b':' => {
                at = word_end(at + 1);
                match (bytes[start], at - start) {
                    (_, 1) => TokenKind::Unknown,
                    (b'#', _) => TokenKind::Name,
                    _ => TokenKind::Value,
                }
            }
            b'0'..=b'9' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                TokenKind::Index
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                at = word_end(at);
                TokenKind::Word
            }
            b'<' | b'>' => {
                let two = bytes.get(at..at + 2);
                at += if matches!(two, Some(b"<>" | b"<=" | b">=")) {
                    2
                } else {
                    1
                };
                TokenKind::Symbol
            }
            b'=' | b'(' | b')' | b'[' | b']' | b',' | b'.' | b'+' | b'-' => {
                at += 1;
                TokenKind::Symbol
            }
            _ => {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                TokenKind::Unknown
            }
        };
        tokens.push(Token {
            kind,
            at: start..at,
        });
    }
    tokens.push(Token {
        kind: TokenKind::End,
        at: text.len()..text.len(),
    });
    tokens
}
