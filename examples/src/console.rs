//! What the programs print, and how they end.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use sft_core::{Error, Result};

/// Writes a line to standard output.
///
/// # Errors
/// A full disk or a closed pipe behind it.
pub fn say(line: impl Display) -> Result<()> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(|e| Error::file("standard output", e))
}

/// Writes a line to standard error, where that can be written.
pub fn tell(line: impl Display) {
    // There is no place left to complain in.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The exit code of a program: 1 where it failed, with a line on standard error that says why.
pub fn ended<E: Display>(done: Result<(), E>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
