//! `LATENCY`: when commands took `latency-monitor-threshold` milliseconds or more, which is off
//! (0) until `CONFIG SET` says otherwise.
//!
//! There are two kinds of events, as in Redis: `fast-command`, of those that take constant or
//! logarithmic time, and `command`. How time is taken [`super::slowlog`] says.

use super::connection::{arity, help, unknown_subcommand};
use super::Session;
use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::{self, Flags};
use std::collections::{BTreeMap, VecDeque};

/// Seconds of which an event's worst latencies are kept, as in Redis.
const SAMPLES_MAX: usize = 160;

const HELP: &[&str] = &[
    "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "HISTORY <event>",
    "    Answers Unix times and milliseconds of an event: command or fast-command.",
    "LATEST",
    "    Answers of each event when it was last, its milliseconds then, and the most ever.",
    "RESET [<event> ...]",
    "    Forgets events; all of them if none is named.",
    "HELP",
    "    Prints this help.",
];

/// What took long, by kind of event.
#[derive(Default)]
pub(super) struct Latency(Mutex<BTreeMap<&'static str, Event>>);

#[derive(Default)]
struct Event {
    max_ms: u64,
    /// Unix second and the most milliseconds in it; the oldest first.
    samples: VecDeque<(i64, u64)>,
}

impl Latency {
    /// A command of this name took `took_ms`.
    pub(super) fn add(&self, name: &[u8], unix_s: i64, took_ms: u64) {
        let is_fast = spec::lookup(name).is_some_and(|spec| spec.flags.contains(Flags::FAST));
        let event = if is_fast { "fast-command" } else { "command" };
        let mut events = self.0.lock();
        let event = events.entry(event).or_default();
        event.max_ms = event.max_ms.max(took_ms);
        match event.samples.back_mut() {
            Some((second, ms)) if *second == unix_s => *ms = took_ms.max(*ms),
            _ => event.samples.push_back((unix_s, took_ms)),
        }
        if event.samples.len() > SAMPLES_MAX {
            event.samples.pop_front();
        }
    }
}

impl Session {
    pub(super) fn latency_command(&self, args: &[Bytes]) -> Result<Bytes, Bytes> {
        let sub = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        let mut events = self.door.latency.0.lock();
        let mut reply = Reply::new(self.state.protocol);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match (sub.as_str(), &args[2..]) {
            ("latest", []) => {
                reply.array(events.len());
                for (name, event) in &*events {
                    let (at, ms) = event.samples.back().copied().unwrap_or_default();
                    reply.array(4).bulk(name.as_bytes()).int(at);
                    reply.int(number(ms)).int(number(event.max_ms));
                }
            }
            ("history", [name]) => {
                let event = events.iter().find(|(n, _)| name[..] == *n.as_bytes());
                let samples = event.map(|(_, event)| &event.samples);
                reply.array(samples.map_or(0, VecDeque::len));
                for (at, ms) in samples.into_iter().flatten() {
                    reply.array(2).int(*at).int(number(*ms));
                }
            }
            ("reset", names) => {
                let before = events.len();
                let is_named = |event: &str| names.iter().any(|n| n[..] == *event.as_bytes());
                events.retain(|event, _| !names.is_empty() && !is_named(event));
                return Ok(reply::int((before - events.len()) as i64));
            }
            ("help", []) => return Ok(help(HELP, self.state.protocol)),
            (name @ ("latest" | "history" | "help"), _) => {
                return Err(arity(&format!("latency|{name}")));
            }
            _ => return Err(unknown_subcommand("LATENCY", &args[1])),
        }
        Ok(reply.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_keeps_its_worst_and_old_seconds_go() {
        let latency = Latency::default();
        for (second, ms) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            latency.add(b"GET", second, ms);
        }
        latency.add(b"keys", 3, 40);
        {
            let events = latency.0.lock();
            assert_eq!(events["fast-command"].samples, [(1, 9), (2, 3)]);
            assert_eq!(events["fast-command"].max_ms, 9);
            assert_eq!(events["command"].samples, [(3, 40)]);
        }
        for second in 0..1000 {
            latency.add(b"keys", second + 10, 1);
        }
        let events = latency.0.lock();
        assert_eq!(events["command"].samples.len(), SAMPLES_MAX);
        assert_eq!(events["command"].max_ms, 40);
    }
}
