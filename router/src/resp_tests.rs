//! Requests, whole and in pieces.

use super::*;
use proptest::prelude::*;

/// Feeds `stream` in pieces of the given sizes (cycled), and returns what came out.
fn feed(
    stream: &[u8],
    pieces: &[usize],
    limits: Limits,
) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut parser = Parser::new(limits);
    let mut buffer = BytesMut::new();
    let mut args = Vec::new();
    let mut commands = Vec::new();
    let mut rest = stream;
    let mut sizes = pieces.iter().cycle();
    loop {
        loop {
            match parser.next(&mut buffer, &mut args) {
                Ok(true) => commands.push(args.iter().map(|a| a.to_vec()).collect()),
                Ok(false) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
        if rest.is_empty() {
            return (commands, None);
        }
        let size = (*sizes.next().unwrap_or(&1)).clamp(1, rest.len());
        buffer.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
    }
}

fn whole(stream: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    feed(stream, &[usize::MAX], Limits::default())
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn errors_have_redis_texts() {
    let long = vec![b'1'; 70_000];
    let mut mbulk = b"*".to_vec();
    mbulk.extend_from_slice(&long);
    let mut bulk = b"*1\r\n$".to_vec();
    bulk.extend_from_slice(&long);
    for (stream, text) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\nx", "expected '$', got 'x'"),
        (b"*1\r\n\r\n", "expected '$', got '\\x0d'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$abc\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$67108864\r\n", "request exceeds 67108864 bytes"),
        (&mbulk, "too big mbulk count string"),
        (&bulk, "too big bulk count string"),
        (&long, "too big inline request"),
        (b"GET \"x\r\n", "unbalanced quotes in request"),
        (b"GET \"x\"y\r\n", "unbalanced quotes in request"),
        (b"GET 'x\r\n", "unbalanced quotes in request"),
    ] {
        let (commands, error) = whole(stream);
        assert!(commands.is_empty());
        let expected = format!("ERR Protocol error: {text}");
        assert_eq!(error.map(|e| e.to_string()), Some(expected));
    }
}

#[test]
fn inline_commands_are_split_as_redis_does() {
    let cases: [(&[u8], &[&[u8]]); 6] = [
        (b"PING\r\n", &[b"PING"]),
        (b"\r\n\n  SET  a\tb \n", &[b"SET", b"a", b"b"]),
        (
            b"SET k \"a b\\n\\x41\\\"\"\r\n",
            &[b"SET", b"k", b"a b\nA\""],
        ),
        (b"SET k 'a\\'b\\n'\r\n", &[b"SET", b"k", b"a'b\\n"]),
        (b"ECHO \"\"\r\n", &[b"ECHO", b""]),
        (b"ECHO a\"b c\"\r\n", &[b"ECHO", b"ab c"]),
    ];
    for (stream, expected) in cases {
        let (commands, error) = whole(stream);
        assert_eq!(error, None);
        assert_eq!(
            commands,
            vec![expected.iter().map(|a| a.to_vec()).collect::<Vec<_>>()]
        );
    }
}

#[test]
fn empty_commands_are_skipped_between_others() {
    let (commands, error) = whole(b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n\r\n*0\r\nECHO x\r\n");
    assert_eq!(error, None);
    assert_eq!(
        commands,
        vec![
            vec![b"PING".to_vec()],
            vec![b"ECHO".to_vec(), b"x".to_vec()]
        ]
    );
}

#[test]
fn a_long_run_of_empty_commands_needs_no_stack() {
    let mut stream = b"*0\r\n\n".repeat(200_000);
    stream.extend_from_slice(b"PING\r\n");
    assert_eq!(whole(&stream), (vec![vec![b"PING".to_vec()]], None));
}

#[test]
fn a_request_beyond_the_limit_is_refused_while_it_arrives() {
    let limits = Limits {
        request_bytes_max: 100,
        ..Limits::default()
    };
    let args: Vec<Vec<u8>> = (0..30).map(|_| b"abc".to_vec()).collect();
    let (commands, error) = feed(&encode(&args), &[7], limits);
    assert!(commands.is_empty());
    assert_eq!(error, Some(ProtocolError::RequestTooBig(100)));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut parser = Parser::new(Limits::default());
    let mut buffer = BytesMut::new();
    let mut args = Vec::new();
    buffer.extend_from_slice(b"*1048576\r\n$60000000\r\n");
    assert_eq!(parser.next(&mut buffer, &mut args), Ok(false));
    assert!(parser.found.capacity() < 64 && args.capacity() < 64 && buffer.capacity() < 4096);
}

#[test]
fn integers_are_strict() {
    for (text, value) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-0", None),
        ("01", None),
        ("+1", None),
        ("", None),
        ("-", None),
        ("1 ", None),
    ] {
        assert_eq!(integer(text.as_bytes()), value, "{text:?}");
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let arg = prop::collection::vec(any::<u8>(), 0..40);
    let multibulk = prop::collection::vec(arg, 1..6).prop_map(|args| encode(&args));
    let inline = "[a-z]{1,8}( [a-z0-9]{1,8}){0,4}\r?\n".prop_map(String::into_bytes);
    let empty = prop_oneof![Just(b"*0\r\n".to_vec()), Just(b"\r\n".to_vec())];
    let piece = prop_oneof![6 => multibulk, 3 => inline, 1 => empty];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_commands(
        stream in stream(),
        pieces in prop::collection::vec(1usize..30, 1..8),
    ) {
        prop_assert_eq!(whole(&stream), feed(&stream, &pieces, Limits::default()));
    }

    #[test]
    fn garbage_never_panics_and_splits_alike(
        stream in prop::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'"'),
                Just(b'\''), Just(b'\\'), Just(b'1'), Just(b'3'), Just(b'-'), any::<u8>()],
            0..200),
        pieces in prop::collection::vec(1usize..9, 1..8),
    ) {
        prop_assert_eq!(whole(&stream), feed(&stream, &pieces, Limits::default()));
    }
}
