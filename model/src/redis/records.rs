//! Reads of keys that lie in several ranges: each range answers the records of its keys, and the
//! router evaluates the command over all of them, with the code that a range would have used.
//!
//! ```text
//! \0RECORDS | the command's name | (user key) × any number  →  [record key, record, …]
//! ```
//!
//! Elements come along where the command may need them: those of sets, and the members of sorted
//! sets with their scores. Of other collections the metadata says that the type is wrong.
//! Each range's part is one evaluation, and what has expired there is absent; the parts are of
//! different moments.

use super::call::{Call, Outcome};
use super::codec::{encode_command, Protocol};
use super::collection::Collection;
use super::error::CommandError;
use super::meta::Meta;
use super::reply::Reply;
use super::value::Kind;
use super::{keys, RedisModel};
use crate::eval::{Context, Evaluator, Txn, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The name of the command.
pub const RECORDS: &[u8] = b"\0RECORDS";

/// Bytes of the records that one range answers.
const BYTES_MAX: usize = 64 << 20;

const TOO_LARGE: CommandError = CommandError::Of(
    "ERR the keys lie in different ranges and hold more than 64 MiB, use a {hash tag}",
);

/// The command that asks a range for the records of some keys of the command `name`.
pub fn arguments(name: &Bytes, user_keys: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let mut args = vec![Bytes::from_static(RECORDS), name.clone()];
    args.extend(user_keys);
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
        let wanted = match value.kind {
            Kind::Set => matches!(name.first(), Some(b's' | b'z')),
            Kind::SortedSet => name.first() == Some(&b'z'),
            _ => false,
        };
        let Some(meta) = Meta::parse(&value).filter(|_| wanted) else {
            continue;
        };
        let set = Collection::new(key, meta);
        let (start, end) = (
            set.sub_key(keys::MEMBERS, &[]),
            set.sub_key(keys::MEMBERS + 1, &[]),
        );
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
    if bytes > BYTES_MAX {
        return Err(TOO_LARGE);
    }
    let mut reply = Reply::with_capacity(Protocol::Resp2, bytes + 32 * found.len() + 16);
    reply.array(2 * found.len());
    for (key, record) in &found {
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
