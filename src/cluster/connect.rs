//! Connects the processes of a job.

use super::engine::Engine;
use super::process::Process;
use crate::error::{Error, Result};

/// Connects this process with the others of its job.
///
/// # Errors
/// If there is no way to exchange data with them.
pub fn connect(process: &Process) -> Result<Box<dyn Engine>> {
    Err(Error::Usage(format!("this is {process}, but several processes cannot exchange data yet")))
}
