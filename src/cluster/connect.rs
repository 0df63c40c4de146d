//! Connects the processes of a job.

use super::engine::Engine;
use super::mpi::{EngineFailure, MpiEngine, MpiOptions, Prefers};
use super::process::{Launcher, Process};
use super::timeouts::Timeouts;
use crate::error::{Error, Result};
use std::sync::Arc;

/// Connects this process with the others of its job; `failed` is called when they cannot go on, and ends the process.
///
/// # Errors
/// If there is no way to exchange data with them.
pub fn connect(
    process: &Process,
    timeouts: Timeouts,
    failed: impl Fn(EngineFailure) + Send + Sync + 'static,
) -> Result<Box<dyn Engine>> {
    if !matches!(process.launcher, Launcher::OpenMpi | Launcher::Mpich | Launcher::Slurm) {
        return Err(Error::Usage(format!(
            "this is {process}, but that launcher has no MPI, by which processes exchange data; start with mpirun or with srun --mpi=pmix"
        )));
    }
    let prefers = if process.launcher == Launcher::Mpich { Prefers::Mpich } else { Prefers::OpenMpi };
    let engine = MpiEngine::open(MpiOptions {
        prefers,
        expected: Some((process.rank, process.processes)),
        launcher: process.launcher.to_string(),
        start_timeout: timeouts.start,
        collective_timeout: timeouts.collective,
        failed: Arc::new(failed),
    })?;
    Ok(Box::new(engine))
}
