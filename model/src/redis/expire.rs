//! When keys cease to exist: `EXPIRE`, `TTL` and their kin, and the expiry options of `SET`
//! and `GETEX`.
//!
//! An expiry is kept as an absolute time in milliseconds, so that it means the same on every
//! replica and after every change of leader. One that has come already deletes the key at once.

use super::call::{Call, Outcome};
use super::error::{printable, CommandError};
use super::number::parse_int;
use super::reply;
use super::set_options::Expiry;
use super::value::Value;
use bytes::Bytes;

/// What a command counts time in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

/// The moment that an expiry option names, in milliseconds since the Unix epoch: a positive
/// number no greater than `i64::MAX`.
pub(crate) fn deadline_ms(call: &Call<'_, '_>, expiry: &Expiry<'_>) -> Result<u64, CommandError> {
    let number = parse_int(expiry.number).ok_or(CommandError::NotInteger)?;
    let deadline = (number > 0)
        .then_some(number)
        .and_then(|number| absolute_ms(call, number, expiry.unit, expiry.absolute))
        .ok_or(CommandError::InvalidExpire(call.name))?;
    Ok(deadline.unsigned_abs())
}

/// `None` if it does not fit. May lie before the epoch if `number` is negative.
fn absolute_ms(call: &Call<'_, '_>, number: i64, unit: Unit, absolute: bool) -> Option<i64> {
    let number = match unit {
        Unit::Seconds => number.checked_mul(1000)?,
        Unit::Milliseconds => number,
    };
    if absolute {
        return Some(number);
    }
    number.checked_add(i64::try_from(call.context.now_ms).ok()?)
}

/// Gives an existing key another expiry, or deletes it if that has come.
pub(crate) fn set_expiry(call: &mut Call<'_, '_>, key: Bytes, value: &Value<Bytes>, at_ms: u64) {
    if at_ms <= call.context.now_ms {
        call.delete(key);
    } else {
        call.put(key, value.with_expiry(Some(at_ms)));
    }
}

/// What must hold of the old expiry for `EXPIRE` to set the new one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Conditions {
    /// `NX`: there is none.
    absent: bool,
    /// `XX`: there is one.
    present: bool,
    /// `GT`: it is earlier; a key without expiry counts as one that never expires.
    later: bool,
    /// `LT`: it is later, or there is none.
    earlier: bool,
}

impl Conditions {
    fn parse(options: &[Bytes]) -> Result<Conditions, CommandError> {
        let mut conditions = Conditions::default();
        for option in options {
            match &option.to_ascii_lowercase()[..] {
                b"nx" => conditions.absent = true,
                b"xx" => conditions.present = true,
                b"gt" => conditions.later = true,
                b"lt" => conditions.earlier = true,
                _ => return Err(CommandError::UnsupportedOption(printable(option))),
            }
        }
        let Conditions {
            absent,
            present,
            later,
            earlier,
        } = conditions;
        if absent && (present || later || earlier) {
            return Err(CommandError::ExpireNxWithOthers);
        }
        if later && earlier {
            return Err(CommandError::ExpireGtWithLt);
        }
        Ok(conditions)
    }

    fn hold(self, old: Option<i64>, new: i64) -> bool {
        !(self.absent && old.is_some()
            || self.present && old.is_none()
            || self.later && old.is_none_or(|old| new <= old)
            || self.earlier && old.is_some_and(|old| new >= old))
    }
}

/// `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`: 1 if the expiry was set.
pub(crate) fn expire(call: &mut Call<'_, '_>, unit: Unit, absolute: bool) -> Outcome {
    let conditions = Conditions::parse(&call.args[3..])?;
    let number = parse_int(&call.args[2]).ok_or(CommandError::NotInteger)?;
    let at =
        absolute_ms(call, number, unit, absolute).ok_or(CommandError::InvalidExpire(call.name))?;
    let key = call.key(1);
    let Some(value) = call.read(&key) else {
        return Ok(reply::int(0));
    };
    let old = value.expires_at_ms.map(|old| old as i64);
    if !conditions.hold(old, at) {
        return Ok(reply::int(0));
    }
    // A moment before the epoch is as past as the epoch itself.
    set_expiry(call, key, &value, u64::try_from(at).unwrap_or(0));
    Ok(reply::int(1))
}

/// `TTL`, `PTTL`: the time left; `EXPIRETIME`, `PEXPIRETIME` (`absolute`): the moment. -1 if
/// the key does not expire, -2 if there is no such key. Seconds are rounded to the nearest.
pub(crate) fn ttl(call: &mut Call<'_, '_>, unit: Unit, absolute: bool) -> Outcome {
    let key = call.key(1);
    let Some(value) = call.read(&key) else {
        return Ok(reply::int(-2));
    };
    let Some(at) = value.expires_at_ms else {
        return Ok(reply::int(-1));
    };
    let now = if absolute { 0 } else { call.context.now_ms };
    let left = at - now;
    Ok(reply::int(match unit {
        Unit::Seconds => (left + 500) / 1000,
        Unit::Milliseconds => left,
    } as i64))
}

/// `PERSIST`: 1 if there was an expiry to remove.
pub(crate) fn persist(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    match call.read(&key) {
        Some(value) if value.expires_at_ms.is_some() => {
            call.put(key, value.with_expiry(None));
            Ok(reply::int(1))
        }
        _ => Ok(reply::int(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::Keyspace;
    use super::super::{keys, paging};
    use super::*;

    #[test]
    fn a_key_is_absent_from_its_expiry_on_and_whoever_meets_it_removes_it() {
        for (line, absent) in [
            ("GET k", "$-1 "),
            ("EXISTS k", ":0 "),
            ("TTL k", ":-2 "),
            ("TYPE k", "+none "),
            ("STRLEN k", ":0 "),
            ("MGET k", "*1 $-1 "),
            ("DEL k", ":0 "),
            ("RENAME k l", "-ERR no such key "),
            ("COPY k l", ":0 "),
            ("PERSIST k", ":0 "),
            ("SET k v XX", "$-1 "),
            ("OBJECT ENCODING k", "$-1 "),
        ] {
            let mut keyspace = Keyspace::new();
            keyspace.run("SET k v PX 1000");
            keyspace.now_ms += 999;
            assert_eq!(keyspace.run("PTTL k"), ":1 ", "{line}");
            assert_eq!(keyspace.writes, 0);
            keyspace.now_ms += 1;
            assert_eq!(keyspace.run(line), absent, "{line}");
            assert!(keyspace.records.is_empty(), "{line}");
        }
    }

    #[test]
    fn an_expired_key_makes_room_for_another() {
        for (line, reply) in [
            ("SETNX k w", ":1 "),
            ("SET k w NX", "+OK "),
            ("GETSET k w", "$-1 "),
            ("MSETNX k w", ":1 "),
            ("APPEND k w", ":1 "),
            ("SET k w KEEPTTL", "+OK "),
        ] {
            let mut keyspace = Keyspace::new();
            keyspace.run("SET k v PX 1000");
            keyspace.now_ms += 1000;
            assert_eq!(keyspace.run(line), reply);
            assert_eq!(keyspace.run("GET k"), "$1 w ");
            assert_eq!(keyspace.run("TTL k"), ":-1 ", "{line}");
        }
    }

    #[test]
    fn an_expiry_in_the_past_deletes_at_once() {
        for line in [
            "EXPIRE k 0",
            "EXPIRE k -1",
            "PEXPIREAT k 1000000",
            "EXPIREAT k 1",
            "GETEX k PXAT 999999",
            "SET k w PXAT 1000000",
        ] {
            let mut keyspace = Keyspace::new();
            keyspace.run("SET k v");
            keyspace.run(line);
            assert!(keyspace.records.is_empty(), "{line}");
        }
    }

    #[test]
    fn time_left_is_rounded_to_the_nearest_second() {
        let mut keyspace = Keyspace::new();
        keyspace.run("SET k v PX 10499");
        assert_eq!(keyspace.run("TTL k"), ":10 ");
        assert_eq!(keyspace.run("PEXPIRETIME k"), ":1010499 ");
        keyspace.run("PEXPIRE k 10500");
        assert_eq!(keyspace.run("TTL k"), ":11 ");
        assert_eq!(keyspace.run("EXPIRETIME k"), ":1011 ");
    }

    #[test]
    fn walks_skip_expired_keys_without_removing_them() {
        let mut keyspace = Keyspace::new();
        keyspace.run("MSET a 1 b 2");
        keyspace.run("PEXPIRE a 5");
        keyspace.now_ms += 5;
        let count = [paging::COUNT, b"", b"10"].map(Bytes::from_static);
        assert_eq!(&keyspace.run_args(&count)[..], b"*2\r\n$0\r\n\r\n:1\r\n");
        assert_eq!(keyspace.writes, 0);
        assert!(keyspace.records.contains_key(&keys::record_key(0, b"a")));
    }

    fn parse(line: &str) -> Result<Conditions, CommandError> {
        let args: Vec<Bytes> = line
            .split_whitespace()
            .map(|arg| arg.to_owned().into())
            .collect();
        Conditions::parse(&args)
    }

    #[test]
    fn conditions_compare_with_the_old_expiry() {
        for (line, old, new, expected) in [
            ("", None, 5, true),
            ("nx", None, 5, true),
            ("nx", Some(1), 5, false),
            ("xx", None, 5, false),
            ("xx", Some(1), 5, true),
            ("gt", None, 5, false),
            ("gt", Some(5), 5, false),
            ("GT", Some(4), 5, true),
            ("lt", None, 5, true),
            ("lt", Some(5), 5, false),
            ("lt", Some(6), 5, true),
            ("xx lt", None, 5, false),
            ("lt xx", Some(6), 5, true),
        ] {
            assert_eq!(
                parse(line).unwrap().hold(old, new),
                expected,
                "{line} {old:?}"
            );
        }
    }

    #[test]
    fn conditions_that_contradict() {
        for line in ["nx xx", "nx gt", "lt nx"] {
            assert_eq!(parse(line), Err(CommandError::ExpireNxWithOthers), "{line}");
        }
        assert_eq!(parse("gt lt"), Err(CommandError::ExpireGtWithLt));
        assert_eq!(
            parse("gt foo lt"),
            Err(CommandError::UnsupportedOption("foo".to_owned()))
        );
    }
}
