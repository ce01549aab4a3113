//! Takes RESP replies apart, where parts of a fanned out command are merged.
//!
//! The replies come from our own model, yet nothing here trusts them: a reply of another
//! shape is `None`, which the caller turns into an error of its own.

use crate::resp::integer;
use bytes::Bytes;

/// The elements of a top-level array, each with its own framing.
pub fn array(reply: &Bytes) -> Option<Vec<Bytes>> {
    if reply.first() != Some(&b'*') {
        return None;
    }
    let (count, mut at) = header(reply, 0)?;
    // An element takes at least three bytes, so a false count can't reserve much.
    let count = usize::try_from(count).ok().filter(|n| *n <= reply.len())?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let end = skip(reply, at, 0)?;
        elements.push(reply.slice(at..end));
        at = end;
    }
    (at == reply.len()).then_some(elements)
}

/// Replies that stand one behind the other, as a client receives them: those that are
/// complete, and how many bytes they take. `None` if what follows is no reply.
pub fn sequence(replies: &Bytes) -> Option<(Vec<Bytes>, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(end) = skip(replies, at, 0) {
        found.push(replies.slice(at..end));
        at = end;
    }
    let known = b"+-:_#,($=!*~>%|";
    (at == replies.len() || known.contains(&replies[at])).then_some((found, at))
}

/// An integer reply.
pub fn int(reply: &[u8]) -> Option<i64> {
    let (value, end) = (reply.first() == Some(&b':')).then(|| header(reply, 0))??;
    (end == reply.len()).then_some(value)
}

/// What a bulk string carries; `Some(None)` for a null of either protocol.
pub fn bulk(reply: &Bytes) -> Option<Option<Bytes>> {
    match &reply[..] {
        b"$-1\r\n" | b"_\r\n" | b"*-1\r\n" => return Some(None),
        [b'$', ..] => {}
        _ => return None,
    }
    let (length, at) = header(reply, 0)?;
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    (end + 2 == reply.len()).then(|| Some(reply.slice(at..end)))
}

/// Whether the reply is an error.
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The number behind the type byte at `at`, and where the next line starts.
fn header(reply: &[u8], at: usize) -> Option<(i64, usize)> {
    let end = line_end(reply, at)?;
    Some((integer(&reply[at + 1..end])?, end + 2))
}

fn line_end(reply: &[u8], at: usize) -> Option<usize> {
    let end = at + reply.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
    (end > at).then_some(end)
}

/// Where the value at `at` ends.
fn skip(reply: &[u8], at: usize, depth: u32) -> Option<usize> {
    // Deep enough for any reply that we make, shallow enough for any stack.
    if depth > 64 {
        return None;
    }
    let children = |factor: i64| {
        let (count, mut at) = header(reply, at)?;
        for _ in 0..count.max(0).checked_mul(factor)? {
            at = skip(reply, at, depth + 1)?;
        }
        Some(at)
    };
    match reply.get(at)? {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(line_end(reply, at)? + 2),
        b'$' | b'=' | b'!' => {
            let (length, at) = header(reply, at)?;
            if length < 0 {
                return Some(at);
            }
            let end = at
                .checked_add(usize::try_from(length).ok()?)?
                .checked_add(2)?;
            (end <= reply.len()).then_some(end)
        }
        b'*' | b'~' | b'>' => children(1),
        b'%' => children(2),
        b'|' => skip(reply, children(2)?, depth + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn elements_of_an_array_keep_their_framing() {
        let reply =
            b("*6\r\n$3\r\na\r\n\r\n$-1\r\n:7\r\n*2\r\n+x\r\n_\r\n%1\r\n+k\r\n,1.5\r\n#t\r\n");
        let elements = array(&reply).unwrap();
        assert_eq!(elements.len(), 6);
        assert_eq!(bulk(&elements[0]), Some(Some(b("a\r\n"))));
        assert_eq!(bulk(&elements[1]), Some(None));
        assert_eq!(int(&elements[2]), Some(7));
        assert_eq!(elements[3], b("*2\r\n+x\r\n_\r\n"));
        assert_eq!(elements[4], b("%1\r\n+k\r\n,1.5\r\n"));
    }

    #[test]
    fn what_is_cut_off_or_trails_is_refused() {
        let reply = b("*2\r\n$3\r\nabc\r\n:7\r\n");
        for end in 0..reply.len() {
            assert_eq!(array(&reply.slice(..end)), None, "cut at {end}");
            assert_eq!(sequence(&reply.slice(..end)), Some((Vec::new(), 0)));
        }
        assert_eq!(
            sequence(&b("+OK\r\n:1\r\n$3\r\nab")),
            Some((vec![b("+OK\r\n"), b(":1\r\n")], 9))
        );
        assert_eq!(sequence(&b("+OK\r\nhello")), None);
        assert_eq!(array(&b("*0\r\n+x\r\n")), None);
        assert_eq!(array(&b("*999999999999\r\n")), None);
        assert_eq!(int(b":7\r\n:8\r\n"), None);
        assert_eq!(bulk(&b("$9\r\nabc\r\n")), None);
    }
}
