//! A blocking RESP2 client that knows whether a command was sent.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection attempt may take: over loopback only a dead door takes long.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, without the dash.
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`, or null.
    Bulk(Option<Vec<u8>>),
    /// `*2`, or null.
    Array(Option<Vec<Reply>>),
}

/// Why there is no reply.
#[derive(Debug)]
pub enum CallError {
    /// The command can't have reached the server.
    NotSent(io::Error),
    /// It may have, and what became of it is unknown.
    Lost(io::Error),
}

/// One node's Redis port, connected to when needed.
pub struct Door {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Door {
    /// `timeout` bounds the wait for each reply.
    pub fn new(address: SocketAddr, timeout: Duration) -> Door {
        Door {
            address,
            timeout,
            connection: None,
        }
    }

    /// Sends one command and waits for its reply. After a failure the next call connects anew:
    /// replies must not get out of step.
    pub fn call(&mut self, args: &[&[u8]]) -> Result<Reply, CallError> {
        self.send(args)?;
        self.receive()
    }

    /// Sends one command without waiting.
    pub fn send(&mut self, args: &[&[u8]]) -> Result<(), CallError> {
        if !self.connection.as_ref().is_some_and(is_open) {
            self.connection = Some(self.connect().map_err(CallError::NotSent)?);
        }
        let stream = self.connection.as_mut().expect("connected").get_mut();
        stream.write_all(&encode(args)).map_err(|e| {
            self.connection = None;
            CallError::Lost(e)
        })
    }

    /// The reply to the oldest command that was sent and not yet answered.
    pub fn receive(&mut self) -> Result<Reply, CallError> {
        let lost = || io::Error::from(io::ErrorKind::NotConnected);
        let connection = self
            .connection
            .as_mut()
            .ok_or_else(|| CallError::Lost(lost()))?;
        read(connection).map_err(|e| {
            self.connection = None;
            CallError::Lost(e)
        })
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(BufReader::new(stream))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(f, "+{text}"),
            Reply::Error(text) => write!(f, "-{text}"),
            Reply::Integer(n) => write!(f, ":{n}"),
            Reply::Bulk(None) | Reply::Array(None) => write!(f, "(nil)"),
            Reply::Bulk(Some(bytes)) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Reply::Array(Some(items)) => f.debug_list().entries(items).finish(),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotSent(e) => write!(f, "not sent: {e}"),
            CallError::Lost(e) => write!(f, "lost: {e}"),
        }
    }
}

/// Whether the server has not ended the connection, as far as is known here: what is sent after
/// it has is lost, but surely not executed.
fn is_open(connection: &BufReader<TcpStream>) -> bool {
    let stream = connection.get_ref();
    let peek = || {
        stream.set_nonblocking(true)?;
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        peeked
    };
    match peek() {
        Ok(bytes) => bytes > 0,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}

/// For messages.
pub fn describe(reply: &Result<Reply, CallError>) -> String {
    match reply {
        Ok(reply) => format!("{reply:?}"),
        Err(e) => e.to_string(),
    }
}

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(format!("${}\r\n", arg.len()).bytes());
        out.extend(*arg);
        out.extend(b"\r\n");
    }
    out
}

fn read(from: &mut impl BufRead) -> io::Result<Reply> {
    let line = read_line(from)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| not_resp(&line))?;
    let number = || rest.parse::<i64>().map_err(|_| not_resp(&line));
    Ok(match kind {
        "+" => Reply::Simple(rest.into()),
        "-" => Reply::Error(rest.into()),
        ":" => Reply::Integer(number()?),
        "$" if number()? < 0 => Reply::Bulk(None),
        "$" => {
            let length = number()? as usize;
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            if bytes.split_off(length) != b"\r\n" {
                return Err(not_resp(&line));
            }
            Reply::Bulk(Some(bytes))
        }
        "*" if number()? < 0 => Reply::Array(None),
        "*" => Reply::Array(Some(
            (0..number()?)
                .map(|_| read(from))
                .collect::<Result<_, _>>()?,
        )),
        _ => return Err(not_resp(&line)),
    })
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.into()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(not_resp(&line)),
    }
}

fn not_resp(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP2: {line:?}"))
}

#[test]
fn reads_what_a_server_says() {
    for (wire, want) in [
        ("+OK\r\n", r#"+OK"#),
        ("-CLUSTERDOWN no leader\r\n", "-CLUSTERDOWN no leader"),
        (":-7\r\n", ":-7"),
        ("$-1\r\n", "(nil)"),
        ("$4\r\na\r\nb\r\n", r#""a\r\nb""#),
        ("*2\r\n$1\r\na\r\n*1\r\n:1\r\n", r#"["a", [:1]]"#),
    ] {
        assert_eq!(format!("{:?}", read(&mut wire.as_bytes()).unwrap()), want);
    }
    for wire in ["", "$4\r\nab", "?\r\n", "\r\n", ":x\r\n", "$1\r\nabc"] {
        assert!(read(&mut wire.as_bytes()).is_err(), "{wire:?}");
    }
    assert_eq!(encode(&[b"GET", b"k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
}
