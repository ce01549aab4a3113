//! Commands on keys whatever they hold: `DEL`, `UNLINK`, `EXISTS`, `TOUCH`, `TYPE`.

use super::call::{Call, Outcome};
use super::keys;
use super::number;
use super::reply;
use bytes::Bytes;

/// `DEL key …`, `UNLINK key …`: how many there were. There is nothing to free in the
/// background that a command would have to wait for, so that both are the same.
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

/// The database that `COPY … DB` names, if it names one that exists.
pub(crate) fn copy_destination(args: &[Bytes]) -> Option<u8> {
    let options = args.get(3..)?;
    let at = options
        .iter()
        .rposition(|option| option.eq_ignore_ascii_case(b"db"))?;
    let db = number::parse_int(options.get(at + 1)?)?;
    u8::try_from(db).ok().filter(|&db| db < keys::DATABASES)
}
