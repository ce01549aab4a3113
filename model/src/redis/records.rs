//! Reads of keys that lie in several ranges: each range answers the records of its keys, and the
//! router evaluates the command over all of them, with the code that a range would have used.
//!
//! ```text
//! \0RECORDS | the command's name | (user key) × any number          →  [record key, record, …]
//! \0NAMED | (user key, `-` or `+` and a field) × any number          →  [record key, record, …]
//! ```
//!
//! The latter is what the patterns of a `SORT` name: strings, or fields of hashes.
//!
//! Elements come along where the command may need them: those of sets, the members of sorted sets
//! with their scores, and for `SORT` those of lists. Of other collections the metadata says that the type is wrong.
//! Each range's part is one evaluation, and what has expired there is absent; the parts are of
//! different moments.

use super::call::{Call, Outcome};
use super::codec::{encode_command, Protocol};
use super::collection::Collection;
use super::error::CommandError;
use super::meta::Meta;
use super::reply::Reply;
use super::value::Kind;
use super::{keys, sort, RedisModel};
use crate::eval::{Context, Evaluator, Txn, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The name of the command.
pub const RECORDS: &[u8] = b"\0RECORDS";

/// The name of the command that asks for what the patterns of a `SORT` name.
pub const NAMED: &[u8] = b"\0NAMED";

/// Keys and fields that the patterns of one `SORT` may name.
const NAMED_MAX: usize = 1 << 17;

/// Bytes of the records that one range answers.
const BYTES_MAX: usize = 64 << 20;

const TOO_LARGE: CommandError = CommandError::Of(
    "ERR the keys lie in different ranges and hold more than 64 MiB, use a {hash tag}",
);

const TOO_MANY: CommandError = CommandError::Of(
    "ERR the patterns name more than 131072 keys in different ranges, use a {hash tag}",
);

/// The command that asks a range for the records of some keys of the command `name`.
pub fn arguments(name: &Bytes, user_keys: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let mut args = vec![Bytes::from_static(RECORDS), name.clone()];
    args.extend(user_keys);
    args
}

/// Whether a command that a range has answered like this is to be evaluated over records that are
/// fetched from several ranges: a `SORT` that stores nothing.
pub fn names_other_ranges(args: &[Bytes], reply: &Bytes) -> bool {
    reply[..] == CommandError::PatternOutsideRange.to_reply()[..]
        && sort::destination_at(args).is_none()
}

/// Pairs of a user key and a field, as `\0NAMED` has them.
pub type Pairs = Vec<(Bytes, Bytes)>;

/// What the patterns of a `SORT` name, given the records of its source; or its error reply.
pub fn named(records: &BTreeMap<Bytes, Bytes>, db: u8, args: &[Bytes]) -> Result<Pairs, Bytes> {
    let named = sort::named(records, db, args).map_err(|error| error.to_reply())?;
    if named.len() > NAMED_MAX {
        return Err(TOO_MANY.to_reply());
    }
    let field = |field: Option<Bytes>| match field {
        None => Bytes::from_static(b"-"),
        Some(field) => [b"+", &field[..]].concat().into(),
    };
    Ok(named
        .into_iter()
        .map(|(key, of)| (key, field(of)))
        .collect())
}

/// The command that asks a range for what some pairs name.
pub fn named_arguments<'a>(pairs: impl Iterator<Item = &'a (Bytes, Bytes)>) -> Vec<Bytes> {
    let mut args = vec![Bytes::from_static(NAMED)];
    for (key, field) in pairs {
        args.extend([key.clone(), field.clone()]);
    }
    args
}

/// The reply to a command whose keys have these records, wherever they lie.
pub fn evaluate_over(
    records: &BTreeMap<Bytes, Bytes>,
    protocol: Protocol,
    db: u8,
    args: &[Bytes],
) -> Bytes {
    // What has expired was left out, and nothing else of these commands asks for the time.
    let context = Context {
        now_ms: 0,
        seed: 0,
        start: b"",
        end: b"",
    };
    let command = encode_command(protocol, db, args);
    RedisModel.evaluate(&context, &command, &mut Txn::new(records))
}

/// Evaluates the command.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let name = call.args[1].to_ascii_lowercase();
    let mut found: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut bytes = 0;
    for index in 2..call.args.len() {
        let key = call.key(index);
        if found.contains_key(&key) {
            continue;
        }
        let Some(value) = call.read(&key) else {
            continue;
        };
        let record = call.txn.get(&key).unwrap_or_default();
        bytes += key.len() + record.len();
        found.insert(key.clone(), record);
        let sorts = name.starts_with(b"sort");
        let wanted = match value.kind {
            Kind::Set if matches!(name.first(), Some(b's' | b'z')) => keys::MEMBERS,
            Kind::SortedSet if sorts => keys::SCORES,
            Kind::SortedSet if name.first() == Some(&b'z') => keys::MEMBERS,
            Kind::List if sorts => keys::POSITIONS,
            _ => continue,
        };
        let Some(meta) = Meta::parse(&value) else {
            continue;
        };
        let set = Collection::new(key, meta);
        let (start, end) = (set.sub_key(wanted, &[]), set.sub_key(wanted + 1, &[]));
        call.txn.scan(&start, &end, &mut |key, record| {
            bytes += key.len() + record.len();
            if bytes > BYTES_MAX {
                return ControlFlow::Break(());
            }
            let (key, record) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(record));
            found.insert(key, record);
            ControlFlow::Continue(())
        });
        if bytes > BYTES_MAX {
            return Err(TOO_LARGE);
        }
    }
    records(&found, bytes)
}

/// Evaluates `\0NAMED`.
pub(crate) fn evaluate_named(call: &mut Call<'_, '_>) -> Outcome {
    let mut found: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut bytes = 0;
    for index in (1..call.args.len()).step_by(2) {
        let (key, field) = (call.key(index), call.args.get(index + 1));
        let Some(value) = call.read(&key) else {
            continue;
        };
        let record = call.txn.get(&key).unwrap_or_default();
        if let (Kind::Hash, Some([b'+', field @ ..])) = (value.kind, field.map(|f| &f[..])) {
            if let Some(meta) = Meta::parse(&value) {
                let element = Collection::new(key.clone(), meta).member_key(field);
                if let Some(value) = call.txn.get(&element) {
                    bytes += element.len() + value.len();
                    found.insert(element.into(), value);
                }
            }
        }
        bytes += key.len() + record.len();
        found.insert(key, record);
        if bytes > BYTES_MAX {
            break;
        }
    }
    records(&found, bytes)
}

fn records(found: &BTreeMap<Bytes, Bytes>, bytes: usize) -> Outcome {
    if bytes > BYTES_MAX {
        return Err(TOO_LARGE);
    }
    let mut reply = Reply::with_capacity(Protocol::Resp2, bytes + 32 * found.len() + 16);
    reply.array(2 * found.len());
    for (key, record) in found {
        reply.bulk(key).bulk(record);
    }
    Ok(reply.finish())
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::*;

    /// Records of a command's keys, each asked for apart.
    fn gathered(keyspace: &mut Keyspace, name: &str, user_keys: &[&str]) -> BTreeMap<Bytes, Bytes> {
        let mut all = BTreeMap::new();
        for key in user_keys {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let name = Bytes::copy_from_slice(name.as_bytes());
            let reply = keyspace.run_args(&arguments(&name, std::iter::once(key)));
            let mut rest = &reply[..];
            let mut bulks = Vec::new();
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let number = std::str::from_utf8(&rest[1..end - 1]).unwrap();
                let number: usize = number.parse().unwrap();
                rest = match rest[0] {
                    b'$' => {
                        let (bulk, after) = rest[end + 1..].split_at(number);
                        bulks.push(Bytes::copy_from_slice(bulk));
                        &after[2..]
                    }
                    kind => {
                        assert_eq!(kind, b'*');
                        &rest[end + 1..]
                    }
                };
            }
            all.extend(
                bulks
                    .chunks_exact(2)
                    .map(|pair| (pair[0].clone(), pair[1].clone())),
            );
        }
        all
    }

    #[test]
    fn gathered_records_answer_as_the_range_would() {
        let mut keyspace = Keyspace::new();
        for line in [
            "SADD s a b c d",
            "SADD t b c x",
            "SADD u c",
            "ZADD z 1 a 2 b 3 c",
            "ZADD y 5 b 0.5 c 7 q",
            "RPUSH l a",
            "SET str x",
            "PFADD p a b c",
            "PFADD q c d",
            "SADD gone a b",
            "PEXPIRE gone 1",
        ] {
            keyspace.run(line);
        }
        keyspace.now_ms += 1;
        for line in [
            "SINTER s t u",
            "SUNION s t none gone",
            "SDIFF s t gone",
            "SDIFF none s",
            "SINTER s gone",
            "SINTER s l",
            "SINTERCARD 2 s t LIMIT 1",
            "SINTERCARD 3 s t",
            "ZUNION 3 z y s WITHSCORES",
            "ZINTER 2 z y WEIGHTS 2 3 AGGREGATE MAX WITHSCORES",
            "ZDIFF 2 z y",
            "ZINTERCARD 2 z y",
            "ZUNION 2 z l",
            "ZUNION 2 z str",
            "ZINTER 2 z y FOO",
            "PFCOUNT p q",
            "PFCOUNT p q none",
            "PFCOUNT p s",
        ] {
            let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
            let spec = super::super::spec::lookup(&args[0]).unwrap();
            let names: Vec<&str> = line.split(' ').collect();
            let user_keys: Vec<&str> = super::super::spec::keys(spec, &args)
                .map(|at| names[at])
                .collect();
            let records = gathered(&mut keyspace, spec.name, &user_keys);
            let whole = evaluate_over(&records, Protocol::Resp2, 0, &args);
            assert_eq!(whole, keyspace.run_args(&args), "{line}");
        }
    }
}
