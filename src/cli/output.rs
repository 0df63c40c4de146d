//! The output of commands: results to standard output, notes to standard error.

/// Prints to standard output; a closed pipe ends the output, not the program.
pub(super) fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints notes to standard error.
pub(super) fn notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}
