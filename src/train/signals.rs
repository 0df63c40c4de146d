//! Signals: SIGINT and SIGTERM make a run stop after the current step; if the second signal is a SIGINT, it ends the
//! process at once. A second SIGTERM does not: `timeout` and schedulers send it to a process and again to its group,
//! and the checkpoint being written would be lost.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a run that a second SIGINT ends: 128 + SIGINT, as in shells.
const INTERRUPTED: i32 = 128 + SIGINT;

/// A flag that stops the run once a signal has arrived.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Installs signal handlers that set the flag instead of ending the process.
    ///
    /// # Errors
    /// When the operating system rejects the handlers.
    pub fn listen() -> Result<Self> {
        let stop = Stop::default();
        // The order matters: the second SIGINT must find the flag that the first one set.
        register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&stop.0))
            .and_then(|_| register(SIGINT, Arc::clone(&stop.0)))
            .and_then(|_| register(SIGTERM, Arc::clone(&stop.0)))
            .map_err(|e| Error::Run(format!("cannot install signal handlers: {e}")))?;
        Ok(stop)
    }

    /// Returns true once a signal has arrived or [`Stop::request`] was called.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the flag, as a signal does.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::process::Command;

    const CHILD: &str = "PERISTYLE_TEST_SIGNALS";

    #[test]
    fn the_first_signal_asks_and_the_second_interrupt_ends() {
        if let Ok(first) = std::env::var(CHILD) {
            let stop = Stop::listen().unwrap();
            assert!(!stop.requested());
            raise(first.parse().unwrap()).unwrap();
            assert!(stop.requested());
            raise(SIGTERM).unwrap();
            raise(SIGINT).unwrap();
            unreachable!("the second SIGINT ends the process");
        }
        for first in [SIGINT, SIGTERM] {
            let name = "train::signals::tests::the_first_signal_asks_and_the_second_interrupt_ends";
            let mut child = Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", name]).env(CHILD, first.to_string()).output().unwrap();
            assert_eq!(output.status.code(), Some(INTERRUPTED), "{output:?}");
        }
    }
}
