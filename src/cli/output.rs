//! Results on standard output.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints `result` and a line end. A reader that has read enough (`| head`) is no error.
pub fn print(result: impl Display) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{result}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("can't write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}
