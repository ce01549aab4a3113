//! `MEMORY USAGE`: how many bytes the records of a key have, keys and values together, on each
//! replica, before the engine compresses them.
//!
//! Of a large collection only some records are read, as in Redis: as many as `SAMPLES` says, and
//! never more than [`RECORDS_MAX`]. The others are taken to be as large.

use super::call::{Call, Outcome};
use super::error::{printable, CommandError};
use super::keys;
use super::meta::Meta;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::value::Kind;
use crate::eval::View;
use std::ops::ControlFlow;

/// Records that are read if `SAMPLES` is not given.
const SAMPLES_DEFAULT: u64 = 1_000;
/// Records that are read at most, also for `SAMPLES 0`, which asks for all: bounds how long a
/// worker is kept.
const RECORDS_MAX: u64 = 100_000;

const HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Answers the bytes of a key's records; estimated if it has more than <count>.",
    "HELP",
    "    Prints this help.",
];

/// `MEMORY USAGE key [SAMPLES count]`, `MEMORY HELP`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let subcommand = call.args[1].to_ascii_lowercase();
    match (&subcommand[..], call.args.len()) {
        (b"usage", 3..) => usage(call),
        (b"help", 2) => {
            let mut reply = Reply::new(call.protocol);
            reply.array(HELP.len());
            for line in HELP {
                reply.simple(line);
            }
            Ok(reply.finish())
        }
        (b"usage" | b"help", _) => {
            let name = String::from_utf8_lossy(&subcommand);
            Err(CommandError::Arity(format!("memory|{name}")))
        }
        _ => Err(CommandError::UnknownSubcommand {
            command: "MEMORY",
            subcommand: printable(&call.args[1]),
        }),
    }
}

fn usage(call: &mut Call<'_, '_>) -> Outcome {
    let mut samples = SAMPLES_DEFAULT;
    for option in call.args[3..].chunks(2) {
        let [name, count] = option else {
            return Err(CommandError::Syntax);
        };
        if !name.eq_ignore_ascii_case(b"samples") {
            return Err(CommandError::Syntax);
        }
        let count = parse_int(count).ok_or(CommandError::NotInteger)?;
        samples = match u64::try_from(count).map_err(|_| CommandError::Syntax)? {
            0 => RECORDS_MAX,
            count => count.min(RECORDS_MAX),
        };
    }
    let key = call.key(2);
    let Some(value) = call.read(&key) else {
        return Ok(reply::nil(call.protocol));
    };
    let meta = Meta::parse(&value);
    let own = (key.len() + value.record_len()) as u64;
    let elements = meta.map_or(0, |meta| elements(call, &key, &meta, samples));
    let bytes = own.saturating_add(elements);
    Ok(reply::int(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

/// Bytes of the records of a collection's elements.
fn elements(call: &Call<'_, '_>, key: &[u8], meta: &Meta, samples: u64) -> u64 {
    let start = keys::version_prefix(key, meta.version);
    let end = keys::version_prefix(key, meta.version + 1);
    let (mut read, mut bytes, mut more) = (0u64, 0u64, false);
    call.txn.scan(&start, &end, &mut |key, record| {
        if read == samples {
            more = true;
            return ControlFlow::Break(());
        }
        read += 1;
        bytes += (key.len() + record.len()) as u64;
        ControlFlow::Continue(())
    });
    if !more {
        return bytes;
    }
    // A member of a sorted set has a record by name and one by score, of about the same size.
    let records = match meta.kind {
        Kind::SortedSet => meta.size.saturating_mul(2),
        _ => meta.size,
    };
    let estimate = u128::from(bytes) * u128::from(records) / u128::from(read.max(1));
    u64::try_from(estimate).unwrap_or(u64::MAX).max(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;

    #[test]
    fn bytes_of_records_exact_when_few_and_near_when_many() {
        let mut keyspace = Keyspace::new();
        let mut ask = |line: &str| -> String { keyspace.run(line) };
        assert_eq!(ask("MEMORY USAGE none"), "$-1 ");
        ask("SET k 12345");
        let number = |reply: String| -> i64 { reply[1..].trim_end().parse().unwrap() };
        let small = number(ask("MEMORY USAGE k"));
        ask("SET k 1234567890");
        assert_eq!(number(ask("memory usage k")), small + 5);
        for kind in ["SADD", "ZADD", "RPUSH"] {
            ask("DEL many");
            for n in 0..1500 {
                match kind {
                    "ZADD" => ask(&format!("ZADD many {n} member-{n:06}")),
                    _ => ask(&format!("{kind} many member-{n:06}")),
                };
            }
            let all = number(ask("MEMORY USAGE many SAMPLES 0"));
            let some = number(ask("MEMORY USAGE many SAMPLES 100"));
            assert!(all > 1500 * 13, "{kind}: {all}");
            assert!(
                (all - some).abs() * 4 < all,
                "{kind}: {all}, estimated {some}"
            );
        }
        assert_eq!(ask("MEMORY USAGE k SAMPLES"), "-ERR syntax error ");
        assert_eq!(ask("MEMORY USAGE k SAMPLES -1"), "-ERR syntax error ");
        let unknown = "-ERR unknown subcommand 'DOCTOR'. Try MEMORY HELP. ";
        assert_eq!(ask("MEMORY DOCTOR"), unknown);
    }
}
