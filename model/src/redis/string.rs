//! Commands on strings: reading and writing them whole.

use super::call::{Call, Outcome};
use super::reply;
use super::value;

/// The longest string, in bytes, as Redis's default for `proto-max-bulk-len`.
pub const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// `GET key`.
pub(crate) fn get(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    Ok(match call.read_string(&key)? {
        Some(value) => reply::bulk(value.payload()),
        None => reply::nil(call.protocol),
    })
}

/// `SET key value`.
pub(crate) fn set(call: &mut Call<'_, '_>) -> Outcome {
    call.put(call.key(1), value::string(0, None, &[&call.args[2]]));
    Ok(reply::ok())
}
