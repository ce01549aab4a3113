//! Transactions: `WATCH`, and the commands of an `EXEC` as one evaluation.
//!
//! The router queues what follows `MULTI`, and sends it to the leader of the one range that holds
//! all keys:
//!
//! ```text
//! \0EXEC | number of watched keys | (record key | stamp) × number | (command) × any number
//! ```
//!
//! A command is encoded as one that travels alone ([`codec`]), with its own database and protocol.
//! Commands that the router answers itself have their place in the array kept by a null.
//!
//! Invariants:
//! - All commands are evaluated over one view, each over the writes of those before it, and
//!   nothing of another connection between them. The writes of all are one entry of the log.
//! - As in Redis a command that fails writes nothing, its error is its element of the reply, and
//!   the others take effect.
//! - Nothing is written, and the reply is a null, unless every watched key is certainly as it was
//!   when it was watched:
//!   1. The stamp says which evaluation of which leader answered the `WATCH` ([`Watches`]). Only
//!      that leader knows what was written since, in memory: any other one, or the same after a
//!      split or merge, refuses. A digest of the value would not do: a value that changed and
//!      changed back may have been read in between.
//!   2. Every record that an evaluation writes or removes counts, elements of collections and
//!      garbage too, also if it was written with what it held before, as in Redis. So `DEL` and a
//!      new value, and a write of the same connection before `MULTI`, are conflicts.
//!   3. `WATCH` removes what has expired, as part of its own evaluation. An expired record that
//!      `EXEC` meets has expired since, which no write tells: that is a conflict.
//! - A conflict that is none is possible: after a new leader, a split, a merge, when a leader
//!   has too many keys to remember, or when garbage below the key was swept. A conflict that is
//!   missed is not.
//!
//! [`Watches`]: crate::eval::Watches

use super::call::{Call, Outcome};
use super::codec::{self, Command};
use super::error::CommandError;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::spec::{self, Flags, Group, Route, Spec};
use super::value::Value;
use super::{Ran, WRITTEN_BYTES_MAX};
use crate::eval::{Context, Txn, View, SEED_STEP};
use bytes::Bytes;

/// The name of a transaction that travels.
pub const EXEC: &[u8] = b"\0EXEC";

/// Commands of one transaction. Their seeds must differ in their lowest 20 bits.
pub const COMMANDS_MAX: usize = 1 << 17;

/// Bytes of all replies to one transaction.
const REPLIES_BYTES_MAX: usize = 64 << 20;

/// What a transaction that only reads travels as.
pub static READS: Spec = sent_as(Flags::READONLY);

/// What one that may write travels as.
pub static WRITES: Spec = sent_as(Flags::WRITE);

const fn sent_as(flags: Flags) -> Spec {
    Spec {
        name: "exec",
        arity: -2,
        flags: flags.and(Flags::MOVABLE_KEYS),
        first_key: 0,
        last_key: 0,
        key_step: 0,
        count_at: 0,
        group: Group::Transactions,
        since: "1.2.0",
        route: Route::SingleRange,
        summary: "A transaction on its way to a range.",
    }
}

/// Whether the router answers a queued command, rather than the range. It stands in the
/// transaction nevertheless.
pub fn is_answered_by_router(args: &[Bytes]) -> bool {
    let spec = args.first().and_then(|name| spec::lookup(name));
    spec.is_none_or(|spec| matches!(spec.route, Route::Connection | Route::Node))
}

/// The arguments by which a transaction travels; `watched` are record keys with their stamps,
/// `commands` are encoded.
pub fn arguments(watched: &[(Bytes, Bytes)], commands: Vec<Bytes>) -> Vec<Bytes> {
    let mut args = Vec::with_capacity(2 + 2 * watched.len() + commands.len());
    args.push(Bytes::from_static(EXEC));
    args.push(watched.len().to_string().into());
    for (key, stamp) in watched {
        args.extend([key.clone(), stamp.clone()]);
    }
    args.extend(commands);
    args
}

/// Of [`arguments`]: keys and stamps in turn, and the commands. `None` if they are no such.
fn parts(args: &[Bytes]) -> Option<(&[Bytes], &[Bytes])> {
    let count = usize::try_from(parse_int(args.get(1)?)?).ok()?;
    args[2..].split_at_checked(count.checked_mul(2)?)
}

/// The commands in [`arguments`]; `None` if they are no such.
pub fn commands(args: &[Bytes]) -> Option<Vec<Command>> {
    let (_, commands) = parts(args)?;
    let decode = |command| codec::decode_command(command).ok();
    commands.iter().map(decode).collect()
}

/// The record keys that a transaction reads or writes, watched ones included.
pub(crate) fn record_keys(args: &[Bytes]) -> Vec<Bytes> {
    let Some((watched, _)) = parts(args) else {
        return Vec::new();
    };
    let mut keys: Vec<Bytes> = watched.iter().step_by(2).cloned().collect();
    let sent = |command: &Command| !is_answered_by_router(&command.args);
    for command in commands(args).into_iter().flatten().filter(sent) {
        if let Some(spec) = spec::lookup(&command.args[0]) {
            keys.extend(spec::record_keys(spec, command.db, &command.args));
        }
    }
    keys
}

/// `WATCH key …`: the stamp of this evaluation, for the router.
pub(crate) fn watch(call: &mut Call<'_, '_>) -> Outcome {
    let mut stamp = None;
    for index in 1..call.args.len() {
        let key = call.key(index);
        call.read(&key);
        stamp = call.txn.watch(key);
    }
    let stamp = stamp.ok_or(CommandError::Of("ERR only a leader can watch keys"))?;
    Ok(reply::bulk(&stamp))
}

/// Evaluates a transaction.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let malformed = CommandError::Of("ERR malformed transaction");
    let (watched, _) = parts(call.args).ok_or(malformed.clone())?;
    let commands = commands(call.args).ok_or(malformed)?;
    if commands.len() > COMMANDS_MAX {
        return Err(CommandError::Of("ERR too many commands in a transaction"));
    }
    for pair in watched.chunks_exact(2) {
        let (key, stamp) = (&pair[0], &pair[1]);
        if !call.contains(key) {
            return Err(CommandError::OutsideRange);
        }
        if !call.txn.is_unchanged(key, stamp) || has_expired(call, key) {
            return Ok(reply::nil_array(call.protocol));
        }
    }
    call.txn.take_seeds(commands.len() as u32);
    let mut replies = Reply::new(call.protocol);
    replies.array(commands.len());
    let mut bytes = 0;
    for (command, n) in commands.iter().zip(0u64..) {
        if is_answered_by_router(&command.args) {
            replies.nil();
            continue;
        }
        let context = Context {
            seed: call.context.seed.wrapping_add(n.wrapping_mul(SEED_STEP)),
            ..*call.context
        };
        let mut txn = Txn::new(&*call.txn);
        let Ran { reply, misrouted } = super::run(&context, command, &mut txn);
        let writes = txn.into_writes();
        if misrouted {
            call.outside = true;
            return Err(CommandError::OutsideRange);
        }
        call.txn.extend(writes);
        bytes += reply.len();
        if bytes > REPLIES_BYTES_MAX {
            call.txn.clear();
            return Err(CommandError::Of(
                "ERR the replies to the transaction exceed 64 MiB, nothing was executed",
            ));
        }
        if call.txn.size().1 > 2 * WRITTEN_BYTES_MAX {
            call.txn.clear();
            return Err(CommandError::TooMuch);
        }
        replies.raw(&reply);
    }
    Ok(replies.finish())
}

/// Whether there is a record at a key whose time has come.
fn has_expired(call: &Call<'_, '_>, key: &[u8]) -> bool {
    let record = call.txn.get(key);
    record.is_some_and(|record| Value::parse(record).is_expired(call.context.now_ms))
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::super::{keys, RedisModel};
    use super::*;
    use crate::eval::{Evaluator, Watches};
    use codec::{encode_command, Protocol};
    use std::collections::{BTreeMap, BTreeSet};

    fn encoded(line: &str) -> Bytes {
        let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
        encode_command(Protocol::Resp2, 0, &args)
    }

    fn exec(keyspace: &mut Keyspace, lines: &[&str]) -> String {
        let args = arguments(&[], lines.iter().map(|line| encoded(line)).collect());
        String::from_utf8_lossy(&keyspace.run_args(&args)).replace("\r\n", " ")
    }

    #[test]
    fn commands_see_those_before_them_and_errors_are_elements() {
        let mut keyspace = Keyspace::new();
        let lines = ["SET k 1", "INCR k", "LPUSH k x", "PING", "GET k"];
        assert_eq!(
            exec(&mut keyspace, &lines),
            "*5 +OK :2 -WRONGTYPE Operation against a key holding the wrong kind of value $-1 \
             $1 2 "
        );
        assert_eq!(keyspace.writes, 1);
        assert_eq!(exec(&mut keyspace, &[]), "*0 ");
    }

    #[test]
    fn a_key_outside_the_range_undoes_all() {
        let mut keyspace = Keyspace::new();
        keyspace.end = keys::slot_start(keys::slot(b"mykey"));
        let reply = exec(&mut keyspace, &["SET foo 1", "SET mykey 1"]);
        assert!(reply.starts_with("-ERR a key of this command"), "{reply}");
        assert_eq!(keyspace.writes, 0);
        let lines = ["SET foo 1", "RPUSH foo1 a", "SORT foo1 BY mykey*"];
        let args = arguments(&[], lines.map(encoded).to_vec());
        assert_eq!(record_keys(&args).len(), 3);
    }

    #[test]
    fn collections_made_in_one_transaction_have_versions_of_their_own() {
        let mut keyspace = Keyspace::new();
        let lines: Vec<String> = (0..100)
            .flat_map(|_| ["DEL s".to_owned(), "SADD s a b".to_owned()])
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut versions = BTreeSet::new();
        exec(&mut keyspace, &lines);
        for key in keyspace.records.keys() {
            versions.extend(keys::element_version(key));
        }
        assert_eq!(versions.len(), 100);
        assert_eq!(keyspace.run("SCARD s"), ":2 ");
    }

    /// Says of no key but one that it is unchanged.
    struct Only(Bytes);

    impl Watches for Only {
        fn stamp(&self) -> Bytes {
            Bytes::from_static(b"now")
        }
        fn unchanged(&self, unit: &[u8], stamp: &[u8]) -> bool {
            unit == self.0 && stamp == b"now"
        }
    }

    #[test]
    fn what_is_watched_is_compared_before_anything_is_done() {
        let key = |name: &str| keys::record_key(0, name.as_bytes());
        let memory = Only(key("k"));
        let expiring = super::super::value::string(0, Some(1000), &[b"x"]);
        let records = BTreeMap::from([(key("k"), expiring)]);
        let ask = |now_ms, command: &Bytes, memory: Option<&Only>| {
            let context = Context {
                now_ms,
                seed: 0,
                start: &keys::slot_start(0),
                end: &keys::slot_start(keys::SLOTS),
            };
            let mut txn = Txn::new(&records);
            if let Some(memory) = memory {
                txn = txn.with_watches(memory);
            }
            let reply = RedisModel.evaluate(&context, command, &mut txn);
            let (watched, read_only) = (txn.take_watched(), txn.is_read_only());
            (reply, watched, read_only, txn.into_writes().len())
        };
        let watch = ask(999, &encoded("WATCH k l"), Some(&memory));
        assert_eq!(
            watch,
            (
                "$3\r\nnow\r\n".into(),
                vec![key("k"), key("l")],
                true,
                0usize
            )
        );
        // What has expired is gone before the stamp is given.
        assert_eq!(ask(1000, &encoded("WATCH k"), Some(&memory)).3, 1);
        // Nobody remembers: the reply must not be used.
        assert!(!ask(999, &encoded("WATCH k"), None).2);

        let exec = |watched: &[(&str, &str)]| {
            let watched: Vec<(Bytes, Bytes)> = watched
                .iter()
                .map(|(name, stamp)| (key(name), Bytes::copy_from_slice(stamp.as_bytes())))
                .collect();
            let args = arguments(&watched, vec![encoded("SET m 1")]);
            encode_command(Protocol::Resp2, 0, &args)
        };
        for (now_ms, watched, done) in [
            (999, &[("k", "now")][..], true),
            (1000, &[("k", "now")], false),
            (999, &[("k", "then")], false),
            (999, &[("k", "now"), ("l", "now")], false),
            (999, &[], true),
        ] {
            let (reply, _, _, writes) = ask(now_ms, &exec(watched), Some(&memory));
            let expected = if done { "*1\r\n+OK\r\n" } else { "*-1\r\n" };
            assert_eq!((&reply[..], writes > 0), (expected.as_bytes(), done));
        }
        assert!(!ask(999, &exec(&[("k", "now")]), None).2);
    }
}
