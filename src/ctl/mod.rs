//! `rangekv ctl` and `rangekv probe`: the operator's side.
//!
//! [`wire`] is what both sides share, [`args`] the command line, [`client`] asks the stores,
//! [`table`] prints their answers for people; [`server`] is what a store answers. [`recover`] asks nobody: it
//! works on the directories of stores that don't run.

pub mod wire;

pub mod args;
mod client;
mod table;

pub mod recover;
pub mod server;

pub use client::{ctl, probe};

/// Lower-case hex digits, two per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hex`] wrote; `None` = it didn't.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| (digit as char).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip() {
        for bytes in [&b""[..], b"\0", b"\xff\x00", b"key"] {
            assert_eq!(unhex(&hex(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(unhex("FF"), Some(vec![255]));
        for text in ["f", "xy", "é0"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
