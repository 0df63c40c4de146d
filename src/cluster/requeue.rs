//! Queues a job of Slurm again.

use crate::error::{Error, Result};
use std::process::Command;

/// Queues the job of an environment again, which ends it; returns its number, or none outside a job.
///
/// # Errors
/// If Slurm refuses.
pub fn requeue(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
    let failed = |why: String| Error::Run(format!("scontrol requeue {job}: {why}; submit the job again"));
    let output =
        Command::new("scontrol").args(["requeue", &job]).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(Some(job)),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}
