//! The options of `SET` and `GETEX`, in any order.
//!
//! As in Redis an option may be repeated, and then the last one counts; options that
//! contradict each other are a syntax error, whichever comes first.

use super::error::CommandError;
use super::expire::Unit;
use bytes::Bytes;

/// Which of the two commands is parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    Set,
    GetEx,
}

/// When `SET` sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// `NX`: only if the key does not exist.
    Absent,
    /// `XX`: only if it does.
    Present,
}

/// `EX`, `PX`, `EXAT` or `PXAT`, with its number as typed: whether that is valid is decided
/// after all options are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expiry<'a> {
    pub unit: Unit,
    /// `EXAT`, `PXAT`: counted from the Unix epoch instead of from now.
    pub absolute: bool,
    pub number: &'a Bytes,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Options<'a> {
    pub condition: Option<Condition>,
    /// `GET`: answer the old value.
    pub get: bool,
    /// `KEEPTTL`.
    pub keep_expiry: bool,
    /// `PERSIST`.
    pub persist: bool,
    pub expiry: Option<Expiry<'a>>,
}

/// Parses what follows the key and value of `SET`, or the key of `GETEX`.
pub(crate) fn parse(of: Of, args: &[Bytes]) -> Result<Options<'_>, CommandError> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        let mut buffer = [0u8; 7];
        let name = buffer.get_mut(..option.len()).ok_or(CommandError::Syntax)?;
        name.copy_from_slice(option);
        name.make_ascii_lowercase();
        match (of, &*name) {
            (Of::Set, b"nx") => options.set_condition(Condition::Absent)?,
            (Of::Set, b"xx") => options.set_condition(Condition::Present)?,
            (Of::Set, b"get") => options.get = true,
            (Of::Set, b"keepttl") if options.expiry.is_none() => options.keep_expiry = true,
            (Of::GetEx, b"persist") if options.expiry.is_none() => options.persist = true,
            (_, b"ex") => options.set_expiry(Unit::Seconds, false, rest.next())?,
            (_, b"px") => options.set_expiry(Unit::Milliseconds, false, rest.next())?,
            (_, b"exat") => options.set_expiry(Unit::Seconds, true, rest.next())?,
            (_, b"pxat") => options.set_expiry(Unit::Milliseconds, true, rest.next())?,
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(options)
}

impl<'a> Options<'a> {
    fn set_condition(&mut self, condition: Condition) -> Result<(), CommandError> {
        if self.condition.is_some_and(|before| before != condition) {
            return Err(CommandError::Syntax);
        }
        self.condition = Some(condition);
        Ok(())
    }

    fn set_expiry(
        &mut self,
        unit: Unit,
        absolute: bool,
        number: Option<&'a Bytes>,
    ) -> Result<(), CommandError> {
        let number = number.ok_or(CommandError::Syntax)?;
        let another = |before: Expiry<'_>| (before.unit, before.absolute) != (unit, absolute);
        if self.keep_expiry || self.persist || self.expiry.is_some_and(another) {
            return Err(CommandError::Syntax);
        }
        self.expiry = Some(Expiry {
            unit,
            absolute,
            number,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(of: Of, line: &str) -> bool {
        let args: Vec<Bytes> = line
            .split_whitespace()
            .map(|arg| arg.to_owned().into())
            .collect();
        parse(of, &args).is_ok()
    }

    #[test]
    fn what_contradicts_is_a_syntax_error() {
        for (line, expected) in [
            ("", true),
            ("nx", true),
            ("NX nx", true),
            ("nx xx", false),
            ("xx nx", false),
            ("nx get", true),
            ("ex", false),
            ("ex 1 ex 2", true),
            ("ex 1 px 2", false),
            ("ex 1 exat 2", false),
            ("keepttl ex 1", false),
            ("ex 1 keepttl", false),
            ("keepttl keepttl xx get", true),
            ("persist", false),
            ("ex notanumber", true),
            ("ex nx", true),
            ("nosuchoption", false),
        ] {
            assert_eq!(fits(Of::Set, line), expected, "SET k v {line}");
        }
        for (line, expected) in [
            ("", true),
            ("persist", true),
            ("persist persist", true),
            ("persist ex 1", false),
            ("pxat 1 persist", false),
            ("nx", false),
            ("get", false),
            ("keepttl", false),
        ] {
            assert_eq!(fits(Of::GetEx, line), expected, "GETEX k {line}");
        }
    }
}
