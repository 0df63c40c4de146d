//! The output of commands: results to standard output, notes and messages to standard error.

/// Prints to standard output; a closed pipe ends the output, not the program.
pub(super) fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints notes to standard error.
pub(super) fn notes(notes: &[String]) {
    notes.iter().for_each(|note| message(&format!("note: {note}")));
}

/// Prints a line to standard error; it is lost if that cannot be written, as on a full disk.
pub(super) fn message(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
