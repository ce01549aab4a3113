//! The Redis model: commands as pure functions over an ordered view of records.
//!
//! A command comes in as [`codec`] encodes it and leaves as RESP bytes in the client's own
//! protocol version ([`reply`]), so that the router forwards it without parsing. Behaviour,
//! error texts and their precedence are those of Redis 7.2.
//!
//! Invariants:
//! - A key is absent from the millisecond of its expiry on ([`value`]); evaluations that meet
//!   an expired record remove it, read-only commands too.
//! - `GET` reads one record; `SET` without options reads none.
//! - A command whose reply is an error has written nothing, save for such removals.
//! - All records of one user key are neighbours ([`keys`]), and a split never parts them.
//! - A collection has a record per element beside its [metadata](meta); what it costs to use an
//!   element does not depend on how many there are ([`collection`]).
//! - A [transaction](exec) is one evaluation: all of it takes effect, or nothing.
//! - Deleting or replacing a collection is one write; [`sweep`] removes the elements.
//!
//! Left out on purpose: memory limits and eviction, and recording when a key was last used.

mod bignum;
mod bitfield;
mod bitmap;
mod call;
pub mod codec;
pub mod collection;
pub mod command_docs;
mod counter;
pub mod error;
pub mod exec;
mod expire;
mod extended;
mod float;
pub mod glob;
#[cfg(test)]
mod harness;
mod hash;
mod hyperloglog;
pub mod keys;
mod keyspace;
pub mod lcs;
mod list;
mod memory;
pub mod meta;
pub mod number;
mod object;
pub mod paging;
pub mod position;
mod random;
pub mod rank;
pub mod records;
mod registers;
pub mod reply;
mod scan;
mod set;
mod set_algebra;
mod set_options;
mod sort;
pub mod spec;
pub mod string;
mod string_edit;
pub mod sweep;
pub mod value;
mod zset;
mod zset_algebra;
mod zset_pop;
mod zset_range;

use crate::dynamo::DynamoModel;
use crate::eval::{Context, Evaluator, Txn};
use bytes::Bytes;
use call::{Call, Outcome};
use error::CommandError;
use expire::Unit::{Milliseconds, Seconds};
pub use lcs::lcs;
use spec::Group;
use value::Kind;

/// Evaluates Redis commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisModel;

impl Evaluator for RedisModel {
    fn evaluate(&self, context: &Context<'_>, command: &Bytes, txn: &mut Txn<'_>) -> Bytes {
        let command = match codec::decode_command(command) {
            Ok(command) => command,
            Err(error) => return CommandError::from(error).to_reply(),
        };
        let Ran { reply, .. } = run(context, &command, txn);
        let (records, bytes) = txn.size();
        if records > WRITTEN_RECORDS_FREE && bytes > WRITTEN_BYTES_MAX {
            txn.clear();
            return CommandError::TooMuch.to_reply();
        }
        reply
    }

    fn unit<'k>(&self, record: &'k [u8]) -> &'k [u8] {
        keys::user_key_prefix(record).unwrap_or(record)
    }

    fn split_key(&self, start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
        split_key(start, end, near)
    }
}

/// What one command may write, keys and values together: it becomes one entry of the log, which
/// every replica has to take in at once. `SUNIONSTORE` or `RENAME` of a huge collection would.
const WRITTEN_BYTES_MAX: usize = 64 << 20;
/// Commands that write no more records than this are bounded by what the client had to send.
const WRITTEN_RECORDS_FREE: usize = 1000;

/// What came of a command.
struct Ran {
    reply: Bytes,
    /// It was not for this range, and has no effect.
    misrouted: bool,
}

fn run(context: &Context<'_>, command: &codec::Command, txn: &mut Txn<'_>) -> Ran {
    let mut call = Call {
        context,
        protocol: command.protocol,
        db: command.db,
        name: "",
        args: &command.args,
        txn,
        outside: false,
    };
    let outcome = dispatch(&mut call);
    let (error, misrouted) = match (call.outside, call.name) {
        (false, _) => {
            let reply = outcome.unwrap_or_else(|error| error.to_reply());
            let misrouted = false;
            return Ran { reply, misrouted };
        }
        (true, "sort" | "sort_ro") => (CommandError::PatternOutsideRange, false),
        (true, _) => (CommandError::OutsideRange, true),
    };
    call.txn.clear();
    let reply = error.to_reply();
    Ran { reply, misrouted }
}

fn dispatch(call: &mut Call<'_, '_>) -> Outcome {
    let name = &call.args[0];
    if name.first() == Some(&0) {
        return paging::evaluate(call);
    }
    let Some(spec) = spec::lookup(name) else {
        return Err(CommandError::unknown_command(call.args));
    };
    if !spec.accepts(call.args.len()) {
        return Err(CommandError::Arity(spec.name.to_owned()));
    }
    call.name = spec.name;
    match spec.group {
        Group::Hash => return dispatch_hash(call),
        Group::List => return dispatch_list(call),
        Group::Set => return dispatch_set(call),
        Group::SortedSet => return dispatch_sorted_set(call),
        Group::Bitmap => return dispatch_bitmap(call),
        Group::HyperLogLog => return dispatch_hyperloglog(call),
        _ => {}
    }
    // The hottest first: the compiler tries them in this order.
    match spec.name {
        "get" => string::get(call),
        "set" => string::set(call),
        "mget" => string::mget(call),
        "mset" => string::mset(call),
        "msetnx" => string::msetnx(call),
        "setnx" => string::setnx(call),
        "setex" => string::setex(call, Seconds),
        "psetex" => string::setex(call, Milliseconds),
        "getset" => string::getset(call),
        "getdel" => string::getdel(call),
        "getex" => string::getex(call),
        "incr" => counter::incr(call, 1),
        "decr" => counter::incr(call, -1),
        "incrby" => counter::incrby(call),
        "decrby" => counter::decrby(call),
        "incrbyfloat" => counter::incrbyfloat(call),
        "append" => string_edit::append(call),
        "strlen" => string_edit::strlen(call),
        "getrange" | "substr" => string_edit::getrange(call),
        "setrange" => string_edit::setrange(call),
        "lcs" => lcs::evaluate(call),
        "del" | "unlink" => keyspace::del(call),
        "exists" | "touch" => keyspace::exists(call),
        "type" => keyspace::type_of(call),
        "rename" => keyspace::rename(call),
        "renamenx" => keyspace::renamenx(call),
        "copy" => keyspace::copy(call),
        "expire" => expire::expire(call, Seconds, false),
        "pexpire" => expire::expire(call, Milliseconds, false),
        "expireat" => expire::expire(call, Seconds, true),
        "pexpireat" => expire::expire(call, Milliseconds, true),
        "ttl" => expire::ttl(call, Seconds, false),
        "pttl" => expire::ttl(call, Milliseconds, false),
        "expiretime" => expire::ttl(call, Seconds, true),
        "pexpiretime" => expire::ttl(call, Milliseconds, true),
        "persist" => expire::persist(call),
        "object" => object::evaluate(call),
        "memory" => memory::evaluate(call),
        "sort" | "sort_ro" => sort::evaluate(call),
        "watch" => exec::watch(call),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_hash(call: &mut Call<'_, '_>) -> Outcome {
    match call.name {
        "hget" => hash::hget(call),
        "hset" | "hmset" => hash::hset(call),
        "hsetnx" => hash::hsetnx(call),
        "hmget" => hash::hmget(call),
        "hgetall" | "hkeys" | "hvals" => hash::hgetall(call),
        "hlen" => hash::hlen(call),
        "hexists" | "hstrlen" => hash::hexists(call),
        "hdel" => hash::hdel(call),
        "hincrby" => hash::hincrby(call),
        "hincrbyfloat" => hash::hincrbyfloat(call),
        "hrandfield" => hash::hrandfield(call),
        "hscan" => scan::evaluate(call, Kind::Hash),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_list(call: &mut Call<'_, '_>) -> Outcome {
    match call.name {
        "lpush" | "rpush" | "lpushx" | "rpushx" => list::push(call),
        "lpop" | "rpop" => list::pop(call),
        "lrange" => list::lrange(call),
        "llen" => list::llen(call),
        "lindex" => list::lindex(call),
        "lset" => list::lset(call),
        "linsert" => list::linsert(call),
        "lrem" => list::lrem(call),
        "ltrim" => list::ltrim(call),
        "lpos" => list::lpos(call),
        "lmove" | "rpoplpush" => list::lmove(call),
        "lmpop" => list::lmpop(call),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_set(call: &mut Call<'_, '_>) -> Outcome {
    use set_algebra::Operation::{Difference, Intersection, Union};
    match call.name {
        "sadd" => set::sadd(call),
        "srem" => set::srem(call),
        "sismember" => set::sismember(call),
        "smismember" => set::smismember(call),
        "scard" => set::scard(call),
        "smembers" => set::smembers(call),
        "smove" => set::smove(call),
        "spop" => set::spop(call),
        "srandmember" => set::srandmember(call),
        "sinter" => set_algebra::evaluate(call, Intersection),
        "sunion" => set_algebra::evaluate(call, Union),
        "sdiff" => set_algebra::evaluate(call, Difference),
        "sinterstore" => set_algebra::store(call, Intersection),
        "sunionstore" => set_algebra::store(call, Union),
        "sdiffstore" => set_algebra::store(call, Difference),
        "sintercard" => set_algebra::intercard(call),
        "sscan" => scan::evaluate(call, Kind::Set),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_sorted_set(call: &mut Call<'_, '_>) -> Outcome {
    use set_algebra::Operation::{Difference, Intersection, Union};
    use zset_algebra::Answer::{Count, Members, Stored};
    match call.name {
        "zadd" => zset::zadd(call),
        "zincrby" => zset::zincrby(call),
        "zrem" => zset::zrem(call),
        "zcard" => zset::zcard(call),
        "zscore" => zset::zscore(call),
        "zmscore" => zset::zmscore(call),
        "zrank" | "zrevrank" => zset::zrank(call),
        "zrange" | "zrevrange" | "zrangebyscore" | "zrevrangebyscore" | "zrangebylex"
        | "zrevrangebylex" => zset_range::zrange(call),
        "zrangestore" => zset_range::zrangestore(call),
        "zcount" | "zlexcount" => zset_range::zcount(call),
        "zremrangebyrank" | "zremrangebyscore" | "zremrangebylex" => zset_range::zremrange(call),
        "zpopmin" | "zpopmax" => zset_pop::zpop(call),
        "zmpop" => zset_pop::zmpop(call),
        "zrandmember" => zset_pop::zrandmember(call),
        "zunion" => zset_algebra::evaluate(call, Union, Members),
        "zinter" => zset_algebra::evaluate(call, Intersection, Members),
        "zdiff" => zset_algebra::evaluate(call, Difference, Members),
        "zunionstore" => zset_algebra::evaluate(call, Union, Stored),
        "zinterstore" => zset_algebra::evaluate(call, Intersection, Stored),
        "zdiffstore" => zset_algebra::evaluate(call, Difference, Stored),
        "zintercard" => zset_algebra::evaluate(call, Intersection, Count),
        "zscan" => scan::evaluate(call, Kind::SortedSet),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_bitmap(call: &mut Call<'_, '_>) -> Outcome {
    match call.name {
        "getbit" => bitmap::getbit(call),
        "setbit" => bitmap::setbit(call),
        "bitcount" => bitmap::bitcount(call),
        "bitpos" => bitmap::bitpos(call),
        "bitop" => bitmap::bitop(call),
        "bitfield" | "bitfield_ro" => bitfield::evaluate(call),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

fn dispatch_hyperloglog(call: &mut Call<'_, '_>) -> Outcome {
    match call.name {
        "pfadd" => hyperloglog::pfadd(call),
        "pfcount" => hyperloglog::pfcount(call),
        "pfmerge" => hyperloglog::pfmerge(call),
        other => Err(CommandError::NotEvaluated(other)),
    }
}

/// Where to cut `[start, end)` (`end` empty = the end of the keyspace) close to `near`: at the
/// start of a slot if one lies strictly inside, so that slots stay whole as long as possible;
/// within a single slot at or after `near`, but never among the records of one user key.
fn split_key(start: &[u8], end: &[u8], near: &[u8]) -> Option<Bytes> {
    let inside = |key: &[u8]| key > start && (end.is_empty() || key < end);
    let slot = keys::slot_at(near);
    let slots = [slot, slot.saturating_add(1), slot];
    let after = slots[..2]
        .iter()
        .map(|&slot| keys::slot_start(slot.min(keys::SLOTS)));
    if let Some(boundary) = after.filter(|key| &key[..] >= near).find(|key| inside(key)) {
        return Some(boundary);
    }
    let before = keys::slot_start(slots[2]);
    if inside(&before) {
        return Some(before);
    }
    match keys::user_key_prefix(near) {
        // A range may hold items of tables as well: between any two of them.
        None if near.first() != Some(&keys::TAG) => DynamoModel.split_key(start, end, near),
        Some(prefix) if prefix.len() < near.len() => {
            let (own, next) = (Bytes::copy_from_slice(prefix), keys::after_user_key(prefix));
            [next, own].into_iter().find(|key| inside(key))
        }
        _ => Some(Bytes::copy_from_slice(near)).filter(|key| inside(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::Keyspace;
    use proptest::prelude::*;

    #[test]
    fn get_reads_one_record_and_set_none() {
        let mut keyspace = Keyspace::new();
        for (line, reads, writes) in [
            ("SET k v", 0, 1),
            ("GET k", 1, 0),
            ("SET k v EX 10", 0, 1),
            ("SETEX k 10 v", 0, 1),
            ("MSET k v l w", 0, 2),
            ("INCR n", 1, 1),
            ("MGET k l m", 3, 0),
        ] {
            keyspace.run(line);
            assert_eq!((keyspace.reads, keyspace.writes), (reads, writes), "{line}");
        }
    }

    #[test]
    fn every_command_of_the_data_is_evaluated() {
        for spec in spec::all() {
            use spec::Route::{Connection, Keyspace as Walk, Node};
            let evaluated = !matches!(spec.route, Connection | Node | Walk);
            let argc = usize::from(spec.arity.unsigned_abs());
            let args = vec![spec.name; argc].join(" ");
            let reply = Keyspace::new().run(&args);
            let refused = reply.contains("not evaluated within a range");
            assert_eq!(evaluated, !refused, "{args}: {reply}");
        }
    }

    #[test]
    fn what_is_wrong_before_any_key_is_looked_at() {
        let mut keyspace = Keyspace::new();
        for (line, expected) in [
            ("GET", "-ERR wrong number of arguments for 'get' command "),
            (
                "gEt a b",
                "-ERR wrong number of arguments for 'get' command ",
            ),
            (
                "MSET a 1 b",
                "-ERR wrong number of arguments for 'mset' command ",
            ),
            (
                "FOO a b",
                "-ERR unknown command 'FOO', with args beginning with: 'a' 'b'  ",
            ),
            ("SET k v EX 0", "-ERR invalid expire time in 'set' command "),
        ] {
            assert_eq!(keyspace.run(line), expected);
        }
        let args = [Bytes::from("GET")];
        let mut short = codec::encode_command(codec::Protocol::Resp2, 0, &args).to_vec();
        short.pop();
        let view = std::collections::BTreeMap::new();
        let context = Context {
            now_ms: 0,
            seed: 0,
            start: b"",
            end: b"",
        };
        let reply = RedisModel.evaluate(&context, &short.into(), &mut Txn::new(&view));
        assert!(reply.starts_with(b"-ERR malformed command"));
    }

    #[test]
    fn keys_outside_the_range_are_refused_without_effect() {
        let mut keyspace = Keyspace::new();
        keyspace.run("SET foo 1");
        keyspace.end = keys::slot_start(keys::slot(b"mykey"));
        assert_eq!(keyspace.run("GET foo"), "$1 1 ");
        for line in ["GET mykey", "MSET foo 2 mykey 2", "RENAME foo mykey"] {
            assert!(keyspace.run(line).contains("outside the range"), "{line}");
            assert_eq!(keyspace.writes, 0);
        }
    }

    #[test]
    fn splits_prefer_the_start_of_a_slot() {
        let key = |key: &str| keys::record_key(0, key.as_bytes());
        let slot = keys::slot_start;
        let foo = keys::slot(b"foo");
        let (start, end) = (slot(0), slot(keys::SLOTS));
        for (start, end, near, expected) in [
            // The whole keyspace: the next slot, or the one named.
            (start.clone(), end.clone(), key("foo"), Some(slot(foo + 1))),
            (start.clone(), end.clone(), slot(foo), Some(slot(foo))),
            (Bytes::new(), Bytes::new(), key("foo"), Some(slot(foo + 1))),
            // The last slot of the range: before it.
            (start.clone(), slot(foo + 1), key("foo"), Some(slot(foo))),
            // A single slot: at the key.
            (slot(foo), slot(foo + 1), key("foo"), Some(key("foo"))),
            (slot(foo), slot(foo + 1), slot(foo), None),
            (key("foo"), slot(foo + 1), key("foo"), None),
            // Outside of Redis.
            (
                Bytes::from("\x10"),
                Bytes::new(),
                Bytes::from("\x11"),
                Some(slot(0)),
            ),
            (
                slot(5),
                Bytes::new(),
                Bytes::from("\x40"),
                Some(end.clone()),
            ),
            // Where items of tables lie: at any of them.
            (
                end.clone(),
                Bytes::new(),
                Bytes::from("\x40\x01"),
                Some(Bytes::from("\x40\x01")),
            ),
            (end.clone(), Bytes::new(), Bytes::from("\x50"), None),
        ] {
            assert_eq!(
                RedisModel.split_key(&start, &end, &near),
                expected,
                "[{start:?}, {end:?}) near {near:?}"
            );
        }
    }

    #[test]
    fn splits_never_part_the_records_of_a_key() {
        let foo = keys::slot(b"foo");
        let (start, end) = (keys::slot_start(foo), keys::slot_start(foo + 1));
        let record = keys::record_key(0, b"foo");
        let after = keys::after_user_key(&record);
        let element = Bytes::from([&record[..], b"element"].concat());
        let split = |start: &[u8], end: &[u8]| RedisModel.split_key(start, end, &element);
        assert_eq!(split(&start, &end), Some(after.clone()));
        assert_eq!(split(&start, &after), Some(record.clone()));
        assert_eq!(split(&record, &after), None);
    }

    proptest! {
        #[test]
        fn splits_lie_inside_and_beside_keys(
            mut cuts in proptest::collection::vec("[a-c]{1,2}", 2),
            near in "[a-c]{1,2}",
            sub in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            // One slot, so that the cut has to be found among its keys.
            cuts.sort();
            let key = |name: &str| keys::record_key(0, format!("{{t}}{name}").as_bytes());
            let (start, end) = (key(&cuts[0]), key(&cuts[1]));
            let near = [&key(&near)[..], &sub].concat();
            if let Some(cut) = RedisModel.split_key(&start, &end, &near) {
                prop_assert!(start < cut && cut < end);
                let prefix = keys::user_key_prefix(&cut);
                prop_assert!(prefix.is_none_or(|prefix| prefix.len() == cut.len()));
            }
        }
    }
}
