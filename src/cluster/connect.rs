//! Connects the processes of a job.

use super::engine::Engine;
use super::mpi::{Failure, MpiEngine, MpiOptions};
use super::process::{Launcher, Process};
use crate::error::Result;
use std::time::Duration;

/// How long processes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until all have started.
    pub start: Duration,
    /// For a message or a sum.
    pub collective: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { start: Duration::from_secs(30), collective: Duration::from_secs(600) }
    }
}

/// Connects this process with the others of its job; `failed` is called when they cannot go on, and ends the process.
///
/// # Errors
/// If there is no way to exchange data with them.
pub fn connect(
    process: &Process,
    timeouts: Timeouts,
    failed: impl Fn(&Failure) + Send + 'static,
) -> Result<Box<dyn Engine>> {
    let engine = MpiEngine::open(MpiOptions {
        library: if process.launcher == Launcher::Mpich { "libmpi.so.12" } else { "libmpi.so.40" },
        expected: (process.rank, process.processes),
        launcher: process.launcher.to_string(),
        start_timeout: timeouts.start,
        timeout: timeouts.collective,
        failed: Box::new(failed),
    })?;
    Ok(Box::new(engine))
}
