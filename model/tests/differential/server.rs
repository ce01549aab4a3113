//! A `redis-server` of our own, on a socket in a directory of its own.

use bytes::Bytes;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ended, and its directory removed, when dropped.
pub struct Server {
    process: Child,
    directory: PathBuf,
    stream: BufReader<UnixStream>,
    other: BufReader<UnixStream>,
}

impl Server {
    /// Starts one and connects to it. Fails if there is no `redis-server`.
    pub fn start() -> std::io::Result<Server> {
        const START_SECONDS_MAX: u64 = 30;
        let name = format!("rangekv-differential-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        let socket = directory.join("s");
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => {
                    let other = UnixStream::connect(&socket)?;
                    return Ok(Server {
                        process,
                        directory,
                        stream: BufReader::new(stream),
                        other: BufReader::new(other),
                    });
                }
                Err(error) if Instant::now() > deadline => {
                    process.kill()?;
                    process.wait()?;
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The other of its two connections takes the place of the one that is used.
    pub fn change_connection(&mut self) {
        std::mem::swap(&mut self.stream, &mut self.other);
    }

    /// Empties it.
    pub fn reset(&mut self, protocol: u8, db: u8) {
        let words = |text: String| text.split(' ').map(|word| word.to_owned().into()).collect();
        self.run(&[
            words(format!("HELLO {protocol}")),
            words("FLUSHALL".to_owned()),
            words(format!("SELECT {db}")),
        ]);
    }

    /// Sends all commands at once; their replies as they came.
    pub fn run(&mut self, commands: &[Vec<Bytes>]) -> Vec<Bytes> {
        let mut out = Vec::new();
        for command in commands {
            out.extend(format!("*{}\r\n", command.len()).bytes());
            for arg in command {
                out.extend(format!("${}\r\n", arg.len()).bytes());
                out.extend_from_slice(arg);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&out).unwrap();
        let read = |_| {
            let mut reply = Vec::new();
            read_reply(&mut self.stream, &mut reply);
            reply.into()
        };
        commands.iter().map(read).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the directory is temporary anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Reads one whole reply into `reply`, calling `bulk` with each bulk string.
fn read_reply(from: &mut impl BufRead, reply: &mut Vec<u8>) {
    let start = reply.len();
    from.read_until(b'\n', reply).unwrap();
    let line = String::from_utf8_lossy(&reply[start..]).into_owned();
    let length = || line[1..].trim_end().parse::<i64>().unwrap();
    let elements = match line.as_bytes().first() {
        Some(b'$' | b'=') if length() >= 0 => {
            let body = reply.len();
            let size = length() as usize;
            reply.resize(body + size + 2, 0);
            from.read_exact(&mut reply[body..]).unwrap();
            0
        }
        Some(b'*' | b'~' | b'>') => length().max(0),
        Some(b'%') => length() * 2,
        Some(_) => 0,
        None => panic!("the server closed the connection"),
    };
    for _ in 0..elements {
        read_reply(from, reply);
    }
}
