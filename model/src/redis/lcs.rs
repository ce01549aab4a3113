//! `LCS`: the longest common subsequence of two strings, by the table of lengths for all
//! pairs of prefixes that every textbook has.
//!
//! Time and memory grow with the product of the lengths; as in Redis the table may take as
//! many bytes as the longest string.

use super::call::{Call, Outcome};
use super::codec::Protocol;
use super::error::CommandError;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::string::STRING_BYTES_MAX;
use bytes::Bytes;

/// What the options ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    length_only: bool,
    indexes: bool,
    with_match_length: bool,
    match_length_min: i64,
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN n] [WITHMATCHLEN]` within one range.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let (first, second) = (call.key(1), call.key(2));
    let not_strings = |_| CommandError::LcsNotStrings;
    let a = call.read_string(&first).map_err(not_strings)?;
    let b = call.read_string(&second).map_err(not_strings)?;
    let a = a.as_ref().map_or(&b""[..], |value| value.payload());
    let b = b.as_ref().map_or(&b""[..], |value| value.payload());
    compare(call.protocol, call.args, a, b)
}

/// The reply to `LCS` for values that were fetched from different ranges.
///
/// `args` is the whole command, its name first; a missing key counts as an empty string. If
/// one of the keys held something else than a string, the answer is
/// [`CommandError::LcsNotStrings`] instead.
pub fn lcs(protocol: Protocol, args: &[Bytes], a: &[u8], b: &[u8]) -> Bytes {
    compare(protocol, args, a, b).unwrap_or_else(|error| error.to_reply())
}

fn compare(protocol: Protocol, args: &[Bytes], a: &[u8], b: &[u8]) -> Outcome {
    let options = parse_options(args.get(3..).unwrap_or_default())?;
    let table = Table::fill(a, b)?;
    if options.indexes {
        return Ok(reply_matches(protocol, &options, &table, a, b));
    }
    if options.length_only {
        return Ok(reply::int(i64::from(table.length())));
    }
    let mut common = Vec::with_capacity(table.length() as usize);
    table.trace(a, b, |i, _| common.push(a[i]));
    common.reverse();
    Ok(reply::bulk(&common))
}

fn parse_options(args: &[Bytes]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        match &option.to_ascii_lowercase()[..] {
            b"idx" => options.indexes = true,
            b"len" => options.length_only = true,
            b"withmatchlen" => options.with_match_length = true,
            b"minmatchlen" => {
                let length = rest.next().ok_or(CommandError::Syntax)?;
                options.match_length_min = parse_int(length).ok_or(CommandError::NotInteger)?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    if options.indexes && options.length_only {
        return Err(CommandError::LcsLenWithIdx);
    }
    Ok(options)
}

/// A run of bytes that both strings have in common: `a[a..a + length] == b[b..b + length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    length: usize,
}

fn reply_matches(
    protocol: Protocol,
    options: &Options,
    table: &Table,
    a: &[u8],
    b: &[u8],
) -> Bytes {
    let mut matches: Vec<Match> = Vec::new();
    table.trace(a, b, |i, j| match matches.last_mut() {
        Some(last) if last.a == i + 1 && last.b == j + 1 => {
            *last = Match {
                a: i,
                b: j,
                length: last.length + 1,
            };
        }
        _ => matches.push(Match {
            a: i,
            b: j,
            length: 1,
        }),
    });
    matches.retain(|m| m.length as i64 >= options.match_length_min);
    let mut reply = Reply::new(protocol);
    reply.map(2).bulk(b"matches").array(matches.len());
    for Match { a, b, length } in matches {
        reply.array(if options.with_match_length { 3 } else { 2 });
        for start in [a, b] {
            reply
                .array(2)
                .int(start as i64)
                .int((start + length - 1) as i64);
        }
        if options.with_match_length {
            reply.int(length as i64);
        }
    }
    reply.bulk(b"len").int(i64::from(table.length()));
    reply.finish()
}

/// The lengths of the longest common subsequences of all pairs of prefixes, row by row.
struct Table {
    lengths: Vec<u32>,
    width: usize,
}

impl Table {
    fn fill(a: &[u8], b: &[u8]) -> Result<Table, CommandError> {
        let width = b.len() + 1;
        let cells = (a.len() as u64 + 1) * width as u64;
        if cells * size_of::<u32>() as u64 > STRING_BYTES_MAX {
            return Err(CommandError::LcsTooLarge);
        }
        let mut lengths = vec![0u32; cells as usize];
        for (i, &byte) in a.iter().enumerate() {
            let (above, row) = lengths[i * width..][..2 * width].split_at_mut(width);
            for (j, &other) in b.iter().enumerate() {
                row[j + 1] = if byte == other {
                    above[j] + 1
                } else {
                    above[j + 1].max(row[j])
                };
            }
        }
        Ok(Table { lengths, width })
    }

    /// Of the whole strings.
    fn length(&self) -> u32 {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// Calls `each` with the positions in `a` and `b` of one longest common subsequence, last
    /// byte first. Among several it is the one that Redis takes: on a tie, leave the end of
    /// `b` first.
    fn trace(&self, a: &[u8], b: &[u8], mut each: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                each(i, j);
            } else if self.lengths[(i - 1) * self.width + j] > self.lengths[i * self.width + j - 1]
            {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(a: &str, b: &str, options: &str) -> String {
        let args: Vec<Bytes> = format!("LCS k1 k2 {options}")
            .split_whitespace()
            .map(|arg| arg.to_owned().into())
            .collect();
        let reply = lcs(Protocol::Resp2, &args, a.as_bytes(), b.as_bytes());
        String::from_utf8_lossy(&reply).replace("\r\n", " ")
    }

    #[test]
    fn the_documented_example() {
        let (a, b) = ("ohmytext", "mynewtext");
        assert_eq!(ask(a, b, ""), "$6 mytext ");
        assert_eq!(ask(a, b, "LEN"), ":6 ");
        assert_eq!(
            ask(a, b, "IDX"),
            "*4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6 "
        );
        assert_eq!(
            ask(a, b, "IDX MINMATCHLEN 4 WITHMATCHLEN"),
            "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6 "
        );
    }

    #[test]
    fn edges() {
        assert_eq!(ask("", "", ""), "$0  ");
        assert_eq!(ask("", "a", "IDX"), "*4 $7 matches *0 $3 len :0 ");
        assert_eq!(ask("a", "a", "MINMATCHLEN"), "-ERR syntax error ");
        assert_eq!(
            ask("a", "a", "MINMATCHLEN x"),
            "-ERR value is not an integer or out of range "
        );
        assert!(ask("a", "a", "LEN IDX").contains("please just use IDX"));
        let long = "x".repeat(20_000);
        assert!(ask(&long, &long, "LEN").contains("Insufficient memory"));
    }
}
