//! The Redis model against a real `redis-server`: random command sequences must get the same
//! replies, byte for byte, in both protocol versions.
//!
//! `RANGEKV_SEED=n` replays one sequence, `RANGEKV_SEQUENCES=n` changes how many are run,
//! `RANGEKV_FAILURES=n` how many that fail are told before it ends. A sequence that fails is
//! shrunk before it is printed. Without a `redis-server` there is
//! nothing to compare with, and the test says so.
//!
//! Known differences, kept out of the sequences or compared loosely:
//! - Time left and moments that count from now: the two clocks are read a little apart
//!   ([`same_reply`]).
//! - Expiries shorter than a sequence takes: tested with a clock of our own, beside the code.
//! - `EXPIRETIME` of moments less than 500 ms before `i64::MAX` ms: Redis's rounding
//!   overflows (undefined in C), ours does not. No such moment is set.
//! - Redis 7.0 writes doubles with 17 digits, 7.2 and ours with as few as it takes: they are
//!   compared as numbers ([`reply::Tree::same_numbers`]).
//! - `OBJECT ENCODING`: 7.2 also stores small sets and lists as `listpack`, 7.0 does not.
//! - The order of members and fields is nobody's promise: replies are compared sorted. Of random
//!   members only how many they are is compared; `SPOP` of a part would part the two.
//! - `ZRANK … WITHSCORE` came with 7.2.
//! - A HyperLogLog whose runs are damaged: Redis changes some registers before it says so, ours
//!   writes nothing.
//! - `LPOS … RANK -9223372036854775808`: an error since 7.2.
//! - `SORT` takes an `errno` that is left over from another command for its own
//!   ([`is_stale_error`]).
//! - `SORT` makes a sorted set a `skiplist`, which shows in `OBJECT ENCODING` and in a negative
//!   zero; ours changes nothing.
//! - Cursors that were never given out.
//! - `BITFIELD … SET` of numbers next to `i64::MIN`: Redis's check for overflow overflows itself
//!   (undefined in C), ours does not.
//! - `BITCOUNT` and `BITPOS`: since 7.2 their arguments are looked at before the key.
//! - Text that is not UTF-8 within an error: ours replaces it. No such text becomes part of one.
//! - `OBJECT HELP`, `REFCOUNT`, `IDLETIME`: our own words, and nothing that is stored.

#![allow(
    clippy::disallowed_methods,
    reason = "runs a real server, waits for it"
)]

mod compare;
mod grammar;
mod reply;
#[allow(dead_code, reason = "the router's test uses more of it")]
mod server;

use bytes::Bytes;
use compare::{is_stale_error, same_but_for_zeros, same_reply, show, sorts};
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
    seed: u64,
    protocol: Protocol,
    db: u8,
}

impl Model {
    fn new(setting: &Setting) -> Self {
        Model {
            records: BTreeMap::new(),
            seed: 0,
            protocol: setting.protocol,
            db: setting.db,
        }
    }

    fn run(&mut self, args: &[Bytes]) -> Bytes {
        self.seed += 1;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let context = Context {
            now_ms: since_epoch.as_millis() as u64,
            seed: self.seed,
            start: &keys::slot_start(0),
            end: &keys::slot_start(keys::SLOTS),
        };
        let command = encode_command(self.protocol, self.db, args);
        let mut txn = Txn::new(&self.records);
        let reply = RedisModel.evaluate(&context, &command, &mut txn);
        let writes = txn.into_writes();
        let may_write = reply[0] != b'-'
            && spec::lookup(&args[0]).is_some_and(|s| {
                // Counting is written down.
                s.flags.contains(spec::Flags::WRITE) || s.name == "pfcount"
            });
        for (key, written) in writes {
            match written {
                Some(record) => {
                    assert!(may_write, "{} wrote", show(args));
                    if keys::is_metadata(&key) {
                        assert!(!value::Value::parse(&record).is_expired(context.now_ms));
                    }
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
        let mut keys = reply::parse(&reply).bulks();
        assert!(keys.remove(0).is_empty(), "one page is enough");
        keys.sort();
        keys
    }
}

/// What differs, or nothing.
fn compare(server: &mut Server, setting: &Setting, commands: &[Command]) -> Option<String> {
    let mut model = Model::new(setting);
    server.reset(setting.protocol.version(), setting.db);
    let theirs = server.run(commands);
    for (index, (command, theirs)) in commands.iter().zip(theirs).enumerate() {
        let ours = model.run(command);
        if is_stale_error(command, &ours, &theirs) {
            return None;
        }
        let sorted = || sorts(commands[..index].iter().map(|c| &c[..]));
        let same = same_reply(command, &ours, &theirs)
            || sorted() && same_but_for_zeros(command, &ours, &theirs);
        if !same {
            return Some(format!(
                "command {index}: {}\n  ours   {:?}\n  theirs {theirs:?}",
                show(command),
                ours
            ));
        }
    }
    let sorted = sorts(commands.iter().map(|c| &c[..]));
    compare_what_is_left(server, &mut model, sorted)
}

/// Compares all keys and what they hold.
fn compare_what_is_left(server: &mut Server, model: &mut Model, sorted: bool) -> Option<String> {
    let command = |words: &[&[u8]]| -> Command {
        words
            .iter()
            .map(|word| Bytes::copy_from_slice(word))
            .collect()
    };
    let listing = server.run(&[command(&[b"KEYS", b"*"])]);
    let mut theirs = reply::parse(&listing[0]).bulks();
    theirs.sort();
    let types: Vec<Command> = theirs.iter().map(|key| command(&[b"TYPE", key])).collect();
    let kinds = server.run(&types);
    // Some may have expired.
    let exist: Vec<(Bytes, Bytes)> = theirs
        .into_iter()
        .zip(kinds)
        .filter(|(_, kind)| &kind[..] != b"+none\r\n")
        .collect();
    let ours = model.user_keys();
    if !ours.iter().eq(exist.iter().map(|(key, _)| key)) {
        return Some(format!("keys\n  ours   {ours:?}\n  theirs {exist:?}"));
    }
    let dumps: Vec<Command> = exist
        .iter()
        .map(|(key, kind)| match &kind[..] {
            b"+hash\r\n" => command(&[b"HGETALL", key]),
            b"+set\r\n" => command(&[b"SMEMBERS", key]),
            b"+zset\r\n" => command(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]),
            b"+list\r\n" => command(&[b"LRANGE", key, b"0", b"-1"]),
            _ => command(&[b"GET", key]),
        })
        .collect();
    let theirs = server.run(&dumps);
    dumps.iter().zip(theirs).find_map(|(dump, theirs)| {
        let ours = model.run(dump);
        let same =
            same_reply(dump, &ours, &theirs) || sorted && same_but_for_zeros(dump, &ours, &theirs);
        (!same).then(|| format!("{}: ours {ours:?}, theirs {theirs:?}", show(dump)))
    })
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
    let failures_max = number_from_environment("RANGEKV_FAILURES").unwrap_or(1) as usize;
    let failures: Vec<String> = seeds
        .filter_map(|seed| run(&mut server, seed))
        .take(failures_max)
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs the sequence of a seed: what went wrong, as short as it can be.
fn run(server: &mut Server, seed: u64) -> Option<String> {
    let setting = Setting::of(seed);
    let mut rng = Rng::new(seed);
    let commands: Vec<Command> = (0..COMMANDS_PER_SEQUENCE)
        .map(|_| grammar::command(&mut rng, seed))
        .collect();
    compare(server, &setting, &commands)?;
    let commands = shrink(server, &setting, commands);
    let difference = compare(server, &setting, &commands);
    let sequence: Vec<String> = commands.iter().map(|c| show(c)).collect();
    Some(format!(
        "RANGEKV_SEED={seed}, {:?}, database {}:\n{}\n{}",
        setting.protocol,
        setting.db,
        sequence.join("\n"),
        difference.unwrap_or("and not the same difference every time".to_owned())
    ))
}
