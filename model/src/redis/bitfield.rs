//! `BITFIELD`, `BITFIELD_RO`: integers of 1 to 64 bits at any place in a string.
//!
//! Sums are computed in 128 bits, where nothing overflows, and then fitted.

use super::bitmap::{parse_offset, writable};
use super::call::{Call, Outcome};
use super::error::CommandError;
use super::number::{integer, parse_int};
use super::reply::Reply;
use super::value::{self, RAW};

/// What happens to a number that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Width {
    signed: bool,
    bits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Get,
    Set(i64),
    Increase(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Operation {
    width: Width,
    offset: u64,
    action: Action,
    overflow: Overflow,
}

impl Width {
    fn parse(text: &[u8]) -> Result<Width, CommandError> {
        let width = match text {
            [b'i', bits @ ..] => parse_int(bits).map(|bits| (true, bits, 64)),
            [b'u', bits @ ..] => parse_int(bits).map(|bits| (false, bits, 63)),
            _ => None,
        };
        match width {
            Some((signed, bits, max)) if (1..=max).contains(&bits) => Ok(Width {
                signed,
                bits: bits as u32,
            }),
            _ => Err(CommandError::Of(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
                 supported but i64 is.",
            )),
        }
    }

    fn bounds(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The number that these bits stand for.
    fn read(self, raw: u64) -> i128 {
        let sign = 1u64 << (self.bits - 1);
        match self.signed && raw & sign != 0 {
            true => i128::from(raw) - (1 << self.bits),
            false => i128::from(raw),
        }
    }

    /// A number that fits in its place; `None` if it does not and may not be made to.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = self.bounds();
        if (min..=max).contains(&number) {
            return Some(number);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(number.clamp(min, max)),
            Overflow::Wrap => {
                let mask = (1i128 << self.bits) - 1;
                Some(self.read((number & mask) as u64))
            }
        }
    }
}

fn parse(call: &Call<'_, '_>) -> Result<Vec<Operation>, CommandError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = &call.args[2..];
    while let [name, arguments @ ..] = rest {
        let taken = match &name.to_ascii_lowercase()[..] {
            b"overflow" if !arguments.is_empty() => {
                overflow = match &arguments[0].to_ascii_lowercase()[..] {
                    b"wrap" => Overflow::Wrap,
                    b"sat" => Overflow::Saturate,
                    b"fail" => Overflow::Fail,
                    _ => return Err(CommandError::Of("ERR Invalid OVERFLOW type specified")),
                };
                rest = &arguments[1..];
                continue;
            }
            b"get" if arguments.len() >= 2 => 2,
            b"set" | b"incrby" if arguments.len() >= 3 => 3,
            _ => return Err(CommandError::Syntax),
        };
        let width = Width::parse(&arguments[0])?;
        let offset = match &arguments[1][..] {
            [b'#', index @ ..] => parse_offset(index, i64::from(width.bits))?,
            offset => parse_offset(offset, 1)?,
        };
        let action = match name[0].to_ascii_lowercase() {
            b'g' => Action::Get,
            b's' => Action::Set(integer(&arguments[2])?),
            _ => Action::Increase(integer(&arguments[2])?),
        };
        operations.push(Operation {
            width,
            offset,
            action,
            overflow,
        });
        rest = &arguments[taken..];
    }
    Ok(operations)
}

/// The bits from `offset` on; those beyond the end are 0.
fn get_bits(bytes: &[u8], offset: u64, bits: u32) -> u64 {
    (offset..offset + u64::from(bits)).fold(0, |raw, at| {
        let byte = bytes.get((at >> 3) as usize).copied().unwrap_or(0);
        raw << 1 | u64::from(byte >> (7 - (at & 7)) & 1)
    })
}

fn set_bits(bytes: &mut [u8], offset: u64, bits: u32, raw: u64) {
    for n in 0..u64::from(bits) {
        let (at, bit) = (offset + n, (raw >> (u64::from(bits) - 1 - n) & 1) as u8);
        let shift = 7 - (at & 7);
        let byte = &mut bytes[(at >> 3) as usize];
        *byte = *byte & !(1 << shift) | bit << shift;
    }
}

/// `BITFIELD key [GET type offset | [OVERFLOW …] SET type offset value | INCRBY …] …`.
pub(crate) fn evaluate(call: &mut Call<'_, '_>) -> Outcome {
    let operations = parse(call)?;
    let written = |operation: &&Operation| operation.action != Action::Get;
    let last_bit = |operation: &Operation| operation.offset + u64::from(operation.width.bits) - 1;
    let last = operations.iter().filter(written).map(last_bit).max();
    if last.is_some() && call.name == "bitfield_ro" {
        return Err(CommandError::Of(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    let key = call.key(1);
    let value = call.read_string(&key)?;
    let length = last.map_or(0, |last| (last >> 3) as usize + 1);
    let (mut bytes, expires_at_ms) = writable(value.as_ref(), length);
    let mut reply = Reply::new(call.protocol);
    reply.array(operations.len());
    for Operation {
        width,
        offset,
        action,
        overflow,
    } in operations
    {
        let old = width.read(get_bits(&bytes, offset, width.bits));
        let wanted = match action {
            Action::Get => {
                reply.int(old as i64);
                continue;
            }
            // An unsigned field takes a negative number for the large one of the same bits.
            Action::Set(number) if !width.signed => i128::from(number as u64),
            Action::Set(number) => i128::from(number),
            Action::Increase(by) => old + i128::from(by),
        };
        let Some(new) = width.fit(wanted, overflow) else {
            reply.nil();
            continue;
        };
        set_bits(&mut bytes, offset, width.bits, new as u64);
        reply.int(match action {
            Action::Set(_) => old as i64,
            _ => new as i64,
        });
    }
    if last.is_some() {
        call.put(key, value::string(RAW, expires_at_ms, &[&bytes]));
    }
    Ok(reply.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_round_trip(offset in 0u64..40, bits in 1u32..=64, raw: u64, fill: u8) {
            let raw = raw >> (64 - bits);
            let mut bytes = vec![fill; 16];
            set_bits(&mut bytes, offset, bits, raw);
            prop_assert_eq!(get_bits(&bytes, offset, bits), raw);
            // Nothing else is touched.
            let old = get_bits(&[fill; 16], offset, bits);
            set_bits(&mut bytes, offset, bits, old);
            prop_assert_eq!(bytes, vec![fill; 16]);
        }

        #[test]
        fn what_is_fitted_fits(signed: bool, bits in 1u32..=63, number: i64) {
            let width = Width { signed, bits };
            let (min, max) = width.bounds();
            for overflow in [Overflow::Wrap, Overflow::Saturate] {
                let fitted = width.fit(i128::from(number), overflow).unwrap();
                prop_assert!((min..=max).contains(&fitted));
            }
        }
    }
}
