//! What can be wrong with a command, in the words of Redis 7.2.
//!
//! Every replica would say the same: these are replies, not faults of a store.

use super::reply;
use bytes::Bytes;

/// An error reply. [`std::fmt::Display`] is its text, which begins with the code that clients
/// tell errors apart by.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// No row of the command table has this name.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand {
        /// As typed, at most 128 bytes.
        name: String,
        /// The first arguments, quoted, at most 128 bytes in all.
        args: String,
    },
    /// Too few or too many arguments for the named command.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// An option that the command does not have, or not together with another one.
    #[error("ERR syntax error")]
    Syntax,
    /// Not a decimal integer of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a floating-point number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The sum does not fit into 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The smallest integer has no negation.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// The sum is not a finite number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// Not positive, or too far in the future; for the named command.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// An option of `EXPIRE` and its kin that does not exist.
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    /// `NX` with another condition.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNxWithOthers,
    /// `GT` with `LT`.
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGtWithLt,
    /// Longer than [`STRING_BYTES_MAX`](super::string::STRING_BYTES_MAX).
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// A negative offset.
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// `RENAME` of a key that does not exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// `COPY` of a key onto itself.
    #[error("ERR source and destination objects are the same")]
    SameObject,
    /// No such database.
    #[error("ERR DB index is out of range")]
    DatabaseOutOfRange,
    /// An integer outside the bounds of its option.
    #[error("ERR value is out of range, value must between {min} and {max}")]
    OutOfRange {
        /// Least value allowed.
        min: i64,
        /// Greatest value allowed.
        max: i64,
    },
    /// A container command has no such subcommand.
    #[error("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")]
    UnknownSubcommand {
        /// The container, upper case.
        command: &'static str,
        /// As typed, at most 128 bytes.
        subcommand: String,
    },
    /// `OBJECT FREQ`: how often a key is used is not recorded.
    #[error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
         that when switching between policies at runtime LRU and LFU data will take some time to \
         adjust."
    )]
    NoFrequency,
    /// `LCS` of something else than strings.
    #[error("ERR The specified keys must contain string values")]
    LcsNotStrings,
    /// `LCS` with both `LEN` and `IDX`.
    #[error("ERR If you want both the length and indexes, please just use IDX.")]
    LcsLenWithIdx,
    /// `LCS` of strings whose product of lengths is too large.
    #[error("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")]
    LcsTooLarge,
    /// `COMMAND GETKEYS` of what is no command.
    #[error("ERR Invalid command specified")]
    GetKeysUnknown,
    /// `COMMAND GETKEYS` of a command without keys.
    #[error("ERR The command has no key arguments")]
    GetKeysNone,
    /// `COMMAND GETKEYS` with the wrong number of arguments.
    #[error("ERR Invalid number of arguments specified for command")]
    GetKeysArity,
    /// `ZUNION` and its kin of no keys; for the named command.
    #[error("ERR at least 1 input key is needed for '{0}' command")]
    NoInputKey(&'static str),
    /// What a single command has to say, in full.
    #[error("{0}")]
    Of(&'static str),
    /// More than one entry of the log should hold.
    #[error("ERR the command would write more than 64 MiB of elements at once; take smaller ranges or counts")]
    TooMuch,
    /// A command which the router answers was sent to a range: a defect of the sender.
    #[error("ERR '{0}' is not evaluated within a range")]
    NotEvaluated(&'static str),
    /// A key lies outside the range that was asked: a defect of the sender.
    #[error("ERR a key of this command lies outside the range it was sent to")]
    OutsideRange,
    /// A key that a pattern of `SORT` names lies in another range. Clients see this where the router
    /// does not evaluate the command itself.
    #[error(
        "CROSSSLOT a pattern of SORT names keys in other ranges, which can't be stored, nor be part \
         of a transaction; use a {{hash tag}} in key and pattern"
    )]
    PatternOutsideRange,
    /// The bytes of a command could not be decoded: a defect of the sender.
    #[error("ERR malformed command: {0}")]
    Malformed(#[from] super::codec::CodecError),
}

impl CommandError {
    /// For a command that is not in the table; quotes it as Redis does.
    pub fn unknown_command(args: &[Bytes]) -> Self {
        const QUOTED_BYTES_MAX: usize = 128;
        let name = args.first().map_or(String::new(), |name| printable(name));
        let mut quoted = String::new();
        for arg in args.iter().skip(1) {
            if quoted.len() >= QUOTED_BYTES_MAX {
                break;
            }
            let room = QUOTED_BYTES_MAX - quoted.len();
            let arg = &arg[..arg.len().min(room)];
            quoted.push_str(&format!("'{}' ", String::from_utf8_lossy(arg)));
        }
        CommandError::UnknownCommand { name, args: quoted }
    }

    /// The reply that says so; errors look the same in both protocol versions.
    pub fn to_reply(&self) -> Bytes {
        reply::error(&self.to_string())
    }
}

/// What a user typed, for an error message: at most 128 bytes of it.
pub(crate) fn printable(typed: &[u8]) -> String {
    const BYTES_MAX: usize = 128;
    String::from_utf8_lossy(&typed[..typed.len().min(BYTES_MAX)]).into_owned()
}
