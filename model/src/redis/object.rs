//! `OBJECT`: how a value is stored.
//!
//! Redis tells about its memory; here the answers follow from the value alone, as a Redis
//! would have stored it. When a key was last used is not recorded: writing it down would
//! turn every read into a write.

use super::call::{Call, Outcome};
use super::error::{printable, CommandError};
use super::meta::Meta;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::value::{Kind, Value, RAW, TEXT};
use super::{hash, list, set, zset};
use bytes::Bytes;

/// Longer strings are not kept beside their header (`OBJ_ENCODING_EMBSTR_SIZE_LIMIT`).
const EMBEDDED_BYTES_MAX: usize = 44;
/// Redis shares the integers from 0 up to here, and answers this reference count for them.
const SHARED_INTEGERS: i64 = 10_000;
const SHARED_REFERENCES: i64 = 2_147_483_647;

const HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Answers how the value of a key is represented.",
    "FREQ <key>",
    "    Answers how often a key is used, which is not recorded.",
    "IDLETIME <key>",
    "    Answers 0, since the time of the last use is not recorded.",
    "REFCOUNT <key>",
    "    Answers how many references to the value there would be.",
    "HELP",
    "    Prints this help.",
];

/// `OBJECT ENCODING|FREQ|IDLETIME|REFCOUNT key`, `OBJECT HELP`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let subcommand = call.args[1].to_ascii_lowercase();
    let argc = match &subcommand[..] {
        b"encoding" | b"freq" | b"idletime" | b"refcount" => 3,
        b"help" => 2,
        _ => {
            return Err(CommandError::UnknownSubcommand {
                command: "OBJECT",
                subcommand: printable(&call.args[1]),
            })
        }
    };
    if call.args.len() != argc {
        let name = String::from_utf8_lossy(&subcommand);
        return Err(CommandError::Arity(format!("object|{name}")));
    }
    if &subcommand[..] == b"help" {
        let mut reply = Reply::new(call.protocol);
        reply.array(HELP.len());
        for line in HELP {
            reply.simple(line);
        }
        return Ok(reply.finish());
    }
    let key = call.key(2);
    let Some(value) = call.read(&key) else {
        return Ok(reply::nil(call.protocol));
    };
    match &subcommand[..] {
        b"encoding" => Ok(reply::bulk(encoding(&value).as_bytes())),
        b"refcount" => Ok(reply::int(references(&value))),
        b"freq" => Err(CommandError::NoFrequency),
        _ => Ok(reply::int(0)),
    }
}

fn encoding(value: &Value<Bytes>) -> &'static str {
    let payload = value.payload();
    if let Some(meta) = Meta::parse(value) {
        return match meta.kind {
            Kind::Hash => hash::encoding(meta.encoding),
            Kind::Set => set::encoding(meta.encoding),
            Kind::SortedSet => zset::encoding(meta.encoding),
            _ => list::encoding(meta.encoding),
        };
    }
    match value.kind {
        _ if value.kind != Kind::String => "unknown",
        Kind::String if value.flags & RAW != 0 => "raw",
        Kind::String if value.flags & TEXT == 0 && parse_int(payload).is_some() => "int",
        Kind::String if payload.len() <= EMBEDDED_BYTES_MAX => "embstr",
        _ => "raw",
    }
}

fn references(value: &Value<Bytes>) -> i64 {
    match parse_int(value.payload()) {
        _ if value.kind != Kind::String => 1,
        Some(0..SHARED_INTEGERS) if encoding(value) == "int" => SHARED_REFERENCES,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::value;
    use super::*;

    #[test]
    fn encodings_follow_from_the_value() {
        let long = "x".repeat(45);
        for (flags, text, expected, shared) in [
            (0, "12", "int", true),
            (0, "10000", "int", false),
            (0, "-1", "int", false),
            (0, "012", "embstr", false),
            (0, "", "embstr", false),
            (0, &long[1..], "embstr", false),
            (0, &long, "raw", false),
            (RAW, "12", "raw", false),
            (TEXT, "12", "embstr", false),
        ] {
            let value = Value::parse(value::string(flags, None, &[text.as_bytes()]));
            assert_eq!(encoding(&value), expected, "{text:?}");
            assert_eq!(references(&value) > 1, shared, "{text:?}");
        }
    }
}
