//! The end of a process that aborts, as Rust does when memory has run out.

use crate::error::{Error, Result};
use signal_hook::consts::SIGABRT;
use signal_hook::low_level;

/// What is printed after Rust's own line, such as `memory allocation of 4096 bytes failed`.
const MESSAGE: &[u8] =
    b"\nperistyle: aborted; if memory ran out, use a smaller batch, fewer devices or fewer threads. Checkpoints are \
whole: continue with --resume\n";

/// Makes an abort end with a sentence and exit code 1.
///
/// # Errors
/// If the operating system rejects the handler.
pub fn report_aborts() -> Result<()> {
    let report = || {
        let _ = rustix::io::write(rustix::stdio::stderr(), MESSAGE);
        low_level::exit(1);
    };
    // SAFETY: writing to a file descriptor and ending the process are safe in a signal handler; nothing is allocated.
    let registered = unsafe { low_level::register(SIGABRT, report) };
    registered.map(|_| ()).map_err(|e| Error::Run(format!("cannot handle aborts: {e}")))
}
