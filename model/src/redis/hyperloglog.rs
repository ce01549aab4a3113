//! HyperLogLogs: `PFADD PFCOUNT PFMERGE`, over the encoding in [`registers`].
//!
//! They are strings, byte for byte those that Redis would hold, so that they can be copied
//! from one to the other with `GET` and `SET`. `PFCOUNT` of one key writes down what it counted
//! until the next change, as in Redis: the first one after a change is therefore a write.

use super::call::{Call, Outcome};
use super::error::CommandError;
use super::registers::{self, Sketch};
use super::reply;
use super::value::{self, Kind, RAW};
use bytes::Bytes;

/// The sketch at a key, with its expiry.
fn open(
    call: &mut Call<'_, '_>,
    key: &Bytes,
) -> Result<Option<(Sketch, Option<u64>)>, CommandError> {
    let Some(value) = call.read(key) else {
        return Ok(None);
    };
    if value.kind != Kind::String {
        return Err(CommandError::WrongType);
    }
    let sketch = Sketch::parse(value.payload()).ok_or(CommandError::Of(
        "WRONGTYPE Key is not a valid HyperLogLog string value.",
    ))?;
    Ok(Some((sketch, value.expires_at_ms)))
}

fn save(call: &mut Call<'_, '_>, key: Bytes, sketch: &Sketch, expires_at_ms: Option<u64>) {
    call.put(key, value::string(RAW, expires_at_ms, &[sketch.bytes()]));
}

const CORRUPTED: CommandError = CommandError::Of("INVALIDOBJ Corrupted HLL object detected");

/// `PFADD key element …`: 1 if the estimate may have changed.
pub(crate) fn pfadd(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.key(1);
    let found = open(call, &key)?;
    let mut changed = found.is_none();
    let (mut sketch, expires_at_ms) = found.unwrap_or_else(|| (Sketch::new(), None));
    for element in &call.args[2..] {
        let (index, count) = registers::place_of(element);
        changed |= sketch.raise(index, count).ok_or(CORRUPTED)?;
    }
    if changed {
        sketch.forget_count();
        save(call, key, &sketch, expires_at_ms);
    }
    Ok(reply::int(i64::from(changed)))
}

/// `PFCOUNT key …`: the estimated size of the union.
pub(crate) fn pfcount(call: &mut Call<'_, '_>) -> Outcome {
    if call.args.len() == 2 {
        let key = call.key(1);
        let Some((mut sketch, expires_at_ms)) = open(call, &key)? else {
            return Ok(reply::int(0));
        };
        if let Some(count) = sketch.remembered_count() {
            return Ok(reply::int(count as i64));
        }
        let registers = sketch.registers().ok_or(CORRUPTED)?;
        let count = registers::estimate(&registers);
        sketch.remember_count(count);
        save(call, key, &sketch, expires_at_ms);
        return Ok(reply::int(count as i64));
    }
    let (max, _) = union(call, 1)?;
    Ok(reply::int(registers::estimate(&max) as i64))
}

/// The greatest of each register over the keys from an argument on, and whether any is dense.
fn union(call: &mut Call<'_, '_>, from: usize) -> Result<(Vec<u8>, bool), CommandError> {
    let mut max = vec![0; registers::COUNT];
    let mut dense = false;
    for index in from..call.args.len() {
        let key = call.key(index);
        let Some((sketch, _)) = open(call, &key)? else {
            continue;
        };
        dense |= sketch.is_dense();
        let registers = sketch.registers().ok_or(CORRUPTED)?;
        for (max, register) in max.iter_mut().zip(registers) {
            *max = register.max(*max);
        }
    }
    Ok((max, dense))
}

/// `PFMERGE destination source …`: the union, the destination's own elements among it.
pub(crate) fn pfmerge(call: &mut Call<'_, '_>) -> Outcome {
    let (max, dense) = union(call, 1)?;
    let key = call.key(1);
    let found = open(call, &key)?;
    let (mut sketch, expires_at_ms) = found.unwrap_or_else(|| (Sketch::new(), None));
    if dense {
        sketch.make_dense().ok_or(CORRUPTED)?;
    }
    for (index, register) in max
        .iter()
        .enumerate()
        .filter(|(_, register)| **register > 0)
    {
        sketch.raise(index, *register).ok_or(CORRUPTED)?;
    }
    sketch.forget_count();
    save(call, key, &sketch, expires_at_ms);
    Ok(reply::ok())
}
