//! The Redis model against a real `redis-server`: random command sequences must get the same
//! replies, byte for byte, in both protocol versions.
//!
//! `RANGEKV_SEED=n` replays one sequence, `RANGEKV_SEQUENCES=n` changes how many are run. A
//! sequence that fails is shrunk before it is printed. Without a `redis-server` there is
//! nothing to compare with, and the test says so.
//!
//! Known differences, kept out of the sequences or compared loosely:
//! - Time left and moments that count from now: the two clocks are read a little apart
//!   ([`same_reply`]).
//! - Expiries shorter than a sequence takes: tested with a clock of our own, beside the code.
//! - `EXPIRETIME` of moments less than 500 ms before `i64::MAX` ms: Redis's rounding
//!   overflows (undefined in C), ours does not. No such moment is set.
//! - A list stands for "another type". Version 1 of the model has only strings, so that what
//!   a command tells about the list or moves of it is not asked ([`grammar`]).
//! - Text that is not UTF-8 within an error: ours replaces it. No such text becomes part of one.
//! - `OBJECT HELP`, `REFCOUNT`, `IDLETIME`: our own words, and nothing that is stored.

#![allow(
    clippy::disallowed_methods,
    reason = "runs a real server, waits for it"
)]

mod grammar;
mod server;

use bytes::Bytes;
use grammar::Rng;
use rangekv_model::eval::{Context, Evaluator, Txn};
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_model::redis::{keys, paging, spec, value, RedisModel};
use server::Server;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

type Command = Vec<Bytes>;

const COMMANDS_PER_SEQUENCE: usize = 40;
const SEQUENCES: u64 = 3000;
/// How far apart times may be that count from now: a busy machine may pause us.
const CLOCK_SKEW_MS_MAX: i64 = 10_000;

/// A key which in both holds something else than a string.
const LIST: &[u8] = b"list";

struct Setting {
    protocol: Protocol,
    db: u8,
}

impl Setting {
    fn of(seed: u64) -> Self {
        let protocol = if seed.is_multiple_of(2) {
            Protocol::Resp2
        } else {
            Protocol::Resp3
        };
        let db = if seed.is_multiple_of(3) { 3 } else { 0 };
        Setting { protocol, db }
    }
}

/// The model above a map, in the place of a server.
struct Model {
    records: BTreeMap<Bytes, Bytes>,
    protocol: Protocol,
    db: u8,
}

impl Model {
    fn new(setting: &Setting) -> Self {
        // A type byte that the model does not know.
        let list = Bytes::from_static(b"\xEE\0");
        Model {
            records: [(keys::record_key(setting.db, LIST), list)].into(),
            protocol: setting.protocol,
            db: setting.db,
        }
    }

    fn run(&mut self, args: &[Bytes]) -> Bytes {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let context = Context {
            now_ms: since_epoch.as_millis() as u64,
            seed: 0,
            start: &keys::slot_start(0),
            end: &keys::slot_start(keys::SLOTS),
        };
        let command = encode_command(self.protocol, self.db, args);
        let mut txn = Txn::new(&self.records);
        let reply = RedisModel.evaluate(&context, &command, &mut txn);
        let writes = txn.into_writes();
        let may_write = reply[0] != b'-'
            && spec::lookup(&args[0]).is_some_and(|s| s.flags.contains(spec::Flags::WRITE));
        for (key, written) in writes {
            match written {
                Some(record) => {
                    assert!(may_write, "{} wrote", show(args));
                    assert!(!value::Value::parse(&record).is_expired(context.now_ms));
                    self.records.insert(key, record);
                }
                None => {
                    self.records.remove(&key);
                }
            }
        }
        reply
    }

    /// All user keys of the database, in order.
    fn user_keys(&mut self) -> Vec<Bytes> {
        let page = [paging::KEYS, b"", b"1000", b"", b""].map(Bytes::from_static);
        let reply = self.run(&page);
        let mut keys = server::bulks(&reply);
        assert!(keys.remove(0).is_empty(), "one page is enough");
        keys.sort();
        keys
    }
}

/// What differs, or nothing.
fn compare(server: &mut Server, setting: &Setting, commands: &[Command]) -> Option<String> {
    let mut model = Model::new(setting);
    server.reset(setting.protocol.version(), setting.db, LIST);
    let theirs = server.run(commands);
    for (index, (command, theirs)) in commands.iter().zip(theirs).enumerate() {
        let ours = model.run(command);
        if !same_reply(command, &ours, &theirs) {
            return Some(format!(
                "command {index}: {}\n  ours   {:?}\n  theirs {theirs:?}",
                show(command),
                ours
            ));
        }
    }
    // What is left behind, as far as it exists.
    let listing = [vec![Bytes::from("KEYS"), Bytes::from("*")]];
    let mut theirs = server::bulks(&server.run(&listing)[0]);
    theirs.sort();
    let gets: Vec<Command> = theirs
        .iter()
        .map(|key| vec![Bytes::from("GET"), key.clone()])
        .collect();
    let kept = server.run(&gets);
    let exist: Vec<Bytes> = theirs
        .into_iter()
        .zip(&kept)
        .filter(|(_, reply)| ![b"$-1\r\n", &b"_\r\n"[..]].contains(&&reply[..]))
        .map(|(key, _)| key)
        .collect();
    let ours = model.user_keys();
    if ours != exist {
        return Some(format!("keys\n  ours   {ours:?}\n  theirs {exist:?}"));
    }
    gets.iter().zip(kept).find_map(|(get, theirs)| {
        let ours = model.run(get);
        (ours != theirs).then(|| format!("{}: ours {ours:?}, theirs {theirs:?}", show(get)))
    })
}

fn same_reply(command: &[Bytes], ours: &[u8], theirs: &[u8]) -> bool {
    if ours == theirs {
        return true;
    }
    let skew = match &command[0].to_ascii_lowercase()[..] {
        b"ttl" | b"expiretime" => CLOCK_SKEW_MS_MAX / 1000,
        b"pttl" | b"pexpiretime" => CLOCK_SKEW_MS_MAX,
        _ => return false,
    };
    let number = |reply: &[u8]| {
        let text = std::str::from_utf8(reply).ok()?;
        text.strip_prefix(':')?.trim_end().parse::<i64>().ok()
    };
    match (number(ours), number(theirs)) {
        // Small numbers say that there is no key or no expiry.
        (Some(a), Some(b)) => a > 0 && b > 0 && a.abs_diff(b) <= skew.unsigned_abs(),
        _ => false,
    }
}

/// Removes ever smaller pieces while what is left still fails.
fn shrink(server: &mut Server, setting: &Setting, mut commands: Vec<Command>) -> Vec<Command> {
    let mut size = commands.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < commands.len() {
            let mut fewer = commands.clone();
            fewer.drain(at..(at + size).min(commands.len()));
            if compare(server, setting, &fewer).is_some() {
                commands = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    commands
}

fn show(command: &[Bytes]) -> String {
    let args: Vec<String> = command.iter().map(|arg| format!("{arg:?}")).collect();
    args.join(" ")
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn the_model_answers_as_redis_does() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(why) => {
            eprintln!("skipped: cannot start redis-server: {why}");
            return;
        }
    };
    let seeds = match number_from_environment("RANGEKV_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("RANGEKV_SEQUENCES").unwrap_or(SEQUENCES),
    };
    for seed in seeds {
        let setting = Setting::of(seed);
        let mut rng = Rng::new(seed);
        let commands: Vec<Command> = (0..COMMANDS_PER_SEQUENCE)
            .map(|_| grammar::command(&mut rng))
            .collect();
        if compare(&mut server, &setting, &commands).is_none() {
            continue;
        }
        let commands = shrink(&mut server, &setting, commands);
        let difference = compare(&mut server, &setting, &commands);
        let sequence: Vec<String> = commands.iter().map(|c| show(c)).collect();
        panic!(
            "RANGEKV_SEED={seed}, {:?}, database {}:\n{}\n{}",
            setting.protocol,
            setting.db,
            sequence.join("\n"),
            difference.unwrap_or("and not the same difference every time".to_owned())
        );
    }
}
