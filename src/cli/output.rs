//! The output of commands: results to standard output, notes and messages to standard error.
//!
//! Names, paths and values pass through here on their way to a terminal, so all text but JSON is made [`printable`].

use crate::error::{Error, Result, printable};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Prints lines to standard output.
///
/// # Errors
/// When it cannot be written, as on a full disk or to a pipe whose reader has ended.
pub(super) fn print(text: &str) -> Result<()> {
    write(&lines(text))
}

/// Prints JSON to standard output, unchanged: it is data, and has escapes of its own.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(text: &str) -> Result<()> {
    write(text)
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Error::io(Path::new("standard output"), "write", error))
}

/// Prints notes to standard error.
pub(super) fn notes(notes: &[String]) {
    notes.iter().for_each(|note| message(&format!("note: {note}")));
}

/// Prints a line to standard error.
pub(super) fn message(line: &str) {
    write_error(&(printable(line) + "\n"));
}

/// Prints a line to standard error that the next one overwrites, for a terminal.
pub(super) fn passing(line: &str) {
    write_error(&format!("\r{:<32}\r", printable(line)));
}

/// Prints several lines to standard error.
pub(super) fn messages(text: &str) {
    write_error(&(lines(text.trim_end()) + "\n"));
}

/// Prints the error that ends the program; nothing if the reader of standard output has ended, as in `| head -1`.
pub(super) fn failure(error: &Error) {
    let closed = matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe);
    if !closed {
        messages(&format!("peristyle: {}", error.with_causes()));
    }
}

/// Writes to standard error; the text is lost if that cannot be written.
fn write_error(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}
