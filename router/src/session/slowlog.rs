//! `SLOWLOG`: commands that took longer than `slowlog-log-slower-than` microseconds.
//!
//! What Redis measures is how long a command kept the one thread that executes commands. Here it
//! is how long it was under way: from the turn in which it was read to the one in which its reply
//! stood in the connection's buffer, other stores and the sync of the log included. A command
//! that is answered on the connection's own thread is timed by itself.

use super::clients::Client;
use super::connection::{arity, help, unknown_subcommand};
use super::Session;
use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_model::redis::number;
use rangekv_model::redis::reply::{self, Reply};
use std::collections::VecDeque;

/// Arguments of an entry; the last one says how many more there were.
const ARGS_MAX: usize = 32;
/// Bytes of an argument of an entry.
const ARG_BYTES_MAX: usize = 128;
/// Entries that `SLOWLOG GET` answers if it is not told how many.
const GET_DEFAULT: i64 = 10;

const HELP: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    Answers the latest entries, 10 by default; -1 = all. An entry is: id, Unix time,",
    "    microseconds, arguments, client's address, client's name.",
    "LEN",
    "    Answers how many entries there are.",
    "RESET",
    "    Removes all entries.",
    "HELP",
    "    Prints this help.",
];

/// The latest slow commands of all connections of a door.
#[derive(Default)]
pub(super) struct SlowLog(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    next_id: i64,
    /// The latest first.
    entries: VecDeque<Entry>,
}

struct Entry {
    id: i64,
    unix_s: i64,
    took_us: u64,
    args: Vec<Vec<u8>>,
    address: String,
    name: String,
}

impl SlowLog {
    fn add(&self, args: &[Bytes], unix_s: i64, took_us: u64, client: &Client, max_len: usize) {
        let mut log = self.0.lock();
        let entry = Entry {
            id: log.next_id,
            unix_s,
            took_us,
            args: shortened(args),
            address: client.address.clone(),
            name: client.name(),
        };
        log.next_id += 1;
        log.entries.push_front(entry);
        log.entries.truncate(max_len);
    }

    /// Keeps the latest `max_len` entries.
    pub(super) fn trim(&self, max_len: usize) {
        self.0.lock().entries.truncate(max_len);
    }
}

fn shortened(args: &[Bytes]) -> Vec<Vec<u8>> {
    let short = |arg: &Bytes| match arg.len().checked_sub(ARG_BYTES_MAX) {
        None | Some(0) => arg.to_vec(),
        Some(more) => {
            let said = format!("... ({more} more bytes)");
            [&arg[..ARG_BYTES_MAX], said.as_bytes()].concat()
        }
    };
    match args.len() > ARGS_MAX {
        false => args.iter().map(short).collect(),
        true => {
            let more = args.len() - (ARGS_MAX - 1);
            let said = format!("... ({more} more arguments)").into_bytes();
            let kept = args[..ARGS_MAX - 1].iter().map(short);
            kept.chain([said]).collect()
        }
    }
}

impl Session {
    /// When the command that is about to begin begins, by the wall clock; `None` = it doesn't
    /// matter. In a pipeline that is when the one before was answered.
    pub(super) fn start_lap(&mut self) -> Option<u64> {
        let lap = self.lap_us.take();
        let matters = self.door.settings.logs_slow();
        matters.then(|| lap.unwrap_or_else(|| self.door.node.unix_micros()))
    }

    /// Logs a command that was answered at once, if it was begun at `began_us` and is slow.
    pub(super) fn end_lap(&mut self, began_us: Option<u64>, args: &[Bytes]) {
        if let Some(began_us) = began_us {
            let now_us = self.door.node.unix_micros();
            self.note(|| args.to_vec(), now_us.saturating_sub(began_us));
            self.lap_us = Some(now_us);
        }
    }

    /// Logs a command if it is slow.
    pub(super) fn note(&self, args: impl FnOnce() -> Vec<Bytes>, took_us: u64) {
        let settings = &self.door.settings;
        let (is_slow, is_latency) = (settings.is_slow(took_us), settings.is_latency(took_us));
        if !is_slow && !is_latency {
            return;
        }
        let args = args();
        let unix_s = (self.door.node.unix_micros() / 1_000_000) as i64;
        if is_slow {
            let (client, max_len) = (&self.client, settings.slow_max_len());
            self.door.slow.add(&args, unix_s, took_us, client, max_len);
        }
        if is_latency {
            let name = args.first().map_or(&b""[..], |name| name);
            self.door.latency.add(name, unix_s, took_us / 1000);
        }
    }

    pub(super) fn slowlog_command(&self, args: &[Bytes]) -> Result<Bytes, Bytes> {
        let sub = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        match (sub.as_str(), &args[2..]) {
            ("get", []) => Ok(self.slowlog_get(GET_DEFAULT)),
            ("get", [count]) => {
                let text = "ERR count should be greater than or equal to -1";
                let count = number::parse_int(count).filter(|count| *count >= -1);
                Ok(self.slowlog_get(count.ok_or_else(|| reply::error(text))?))
            }
            ("len", []) => Ok(reply::int(self.door.slow.0.lock().entries.len() as i64)),
            ("reset", []) => {
                self.door.slow.trim(0);
                Ok(reply::ok())
            }
            ("help", []) => Ok(help(HELP, self.state.protocol)),
            ("get", [_, _, ..]) => Err(reply::error(&format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try SLOWLOG HELP.",
                String::from_utf8_lossy(&args[1])
            ))),
            (name @ ("len" | "reset" | "help"), _) => Err(arity(&format!("slowlog|{name}"))),
            _ => Err(unknown_subcommand("SLOWLOG", &args[1])),
        }
    }

    fn slowlog_get(&self, count: i64) -> Bytes {
        let log = self.door.slow.0.lock();
        let count = usize::try_from(count).map_or(log.entries.len(), |n| n.min(log.entries.len()));
        let mut reply = Reply::new(self.state.protocol);
        reply.array(count);
        for entry in log.entries.iter().take(count) {
            reply.array(6).int(entry.id).int(entry.unix_s);
            reply.int(i64::try_from(entry.took_us).unwrap_or(i64::MAX));
            reply.array(entry.args.len());
            for arg in &entry.args {
                reply.bulk(arg);
            }
            reply.bulk(entry.address.as_bytes());
            reply.bulk(entry.name.as_bytes());
        }
        reply.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_shortened_as_redis_does() {
        let arg = |n: usize| Bytes::from(vec![b'x'; n]);
        let said = |args: &[Bytes]| -> Vec<String> {
            let text = |arg: Vec<u8>| String::from_utf8(arg).unwrap();
            shortened(args).into_iter().map(text).collect()
        };
        let long = said(&[arg(128), arg(130)]);
        assert_eq!(long[0], "x".repeat(128));
        assert_eq!(long[1], format!("{}... (2 more bytes)", "x".repeat(128)));
        assert_eq!(said(&vec![arg(1); 32]).len(), 32);
        let many = said(&vec![arg(1); 40]);
        assert_eq!((many.len(), &many[31][..]), (32, "... (9 more arguments)"));
    }
}
