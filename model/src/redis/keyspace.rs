//! Commands on keys whatever they hold: `DEL`, `UNLINK`, `EXISTS`, `TOUCH`, `TYPE`, `RENAME`,
//! `RENAMENX`, `COPY`.

use super::call::{Call, Outcome};
use super::collection::Collection;
use super::error::CommandError;
use super::keys;
use super::meta::Meta;
use super::number;
use super::reply;
use super::value::{Kind, Value};
use bytes::Bytes;

/// `DEL key …`, `UNLINK key …`: how many there were. What collections leave behind is removed
/// in the background either way.
pub(crate) fn del(call: &mut Call<'_, '_>) -> Outcome {
    let mut deleted = 0;
    for index in 1..call.args.len() {
        let key = call.key(index);
        if call.read(&key).is_some() {
            call.delete(key);
            deleted += 1;
        }
    }
    Ok(reply::int(deleted))
}

/// `EXISTS key …`, `TOUCH key …`: how many there are; a key named twice counts twice.
pub(crate) fn exists(call: &mut Call<'_, '_>) -> Outcome {
    let mut found = 0;
    for index in 1..call.args.len() {
        let key = call.key(index);
        found += i64::from(call.read(&key).is_some());
    }
    Ok(reply::int(found))
}

/// `TYPE key`: `none` if there is no such key.
pub(crate) fn type_of(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    Ok(reply::simple(
        call.read(&key).map_or("none", |value| value.kind.name()),
    ))
}

/// `RENAME key newkey`: the value moves with its expiry, over whatever was there.
pub(crate) fn rename(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let value = call.read(&key).ok_or(CommandError::NoSuchKey)?;
    relocate(call, key, &value)?;
    Ok(reply::ok())
}

/// `RENAMENX key newkey`: 0 if the new name is taken, be it by the key itself.
pub(crate) fn renamenx(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let value = call.read(&key).ok_or(CommandError::NoSuchKey)?;
    if call.read(&call.key(2)).is_some() {
        return Ok(reply::int(0));
    }
    relocate(call, key, &value)?;
    Ok(reply::int(1))
}

fn relocate(call: &mut Call<'_, '_>, key: Bytes, value: &Value<Bytes>) -> Result<(), CommandError> {
    let destination = call.key(2);
    if destination != key {
        write_copy(call, &key, destination, value)?;
        call.delete(key);
    }
    Ok(())
}

/// Writes a whole value under another key: of a collection, all elements. A value of a type
/// that only a later version knows is refused, since its elements could not be moved along.
fn write_copy(
    call: &mut Call<'_, '_>,
    from: &Bytes,
    to: Bytes,
    value: &Value<Bytes>,
) -> Result<(), CommandError> {
    if let Some(meta) = Meta::parse(value) {
        Collection::new(from.clone(), meta).copy_to(call, &to);
        return Ok(());
    }
    if value.kind != Kind::String {
        return Err(CommandError::WrongType);
    }
    call.put(to, value.with_expiry(value.expires_at_ms));
    Ok(())
}

/// `COPY source destination [DB database] [REPLACE]`: 1 if it was copied.
pub(crate) fn copy(call: &mut Call<'_, '_>) -> Outcome {
    let mut replace = false;
    let mut db = call.db;
    let mut rest = call.args[3..].iter();
    while let Some(option) = rest.next() {
        if option.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if option.eq_ignore_ascii_case(b"db") {
            db = parse_database(rest.next().ok_or(CommandError::Syntax)?)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (key, destination) = (call.key(1), keys::record_key(db, &call.args[2]));
    if key == destination {
        return Err(CommandError::SameObject);
    }
    let Some(value) = call.read(&key) else {
        return Ok(reply::int(0));
    };
    if !replace && call.read(&destination).is_some() {
        return Ok(reply::int(0));
    }
    write_copy(call, &key, destination, &value)?;
    Ok(reply::int(1))
}

/// A database number, below [`keys::DATABASES`].
fn parse_database(text: &[u8]) -> Result<u8, CommandError> {
    let (min, max) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let number = number::parse_int(text).ok_or(CommandError::NotInteger)?;
    if number < min || number > max {
        return Err(CommandError::OutOfRange { min, max });
    }
    match u8::try_from(number) {
        Ok(db) if db < keys::DATABASES => Ok(db),
        _ => Err(CommandError::DatabaseOutOfRange),
    }
}

/// The database that the last `DB` option of a `COPY` names, if it names one that exists.
pub(crate) fn copy_destination(args: &[Bytes]) -> Option<u8> {
    let options = args.get(3..)?;
    let is_db = |option: &Bytes| option.eq_ignore_ascii_case(b"db");
    let at = options.iter().rposition(is_db)?;
    parse_database(options.get(at + 1)?).ok()
}
