//! Connects the processes of a job.

use super::engine::Engine;
use super::failure::Failed;
use super::mpi::{MpiEngine, MpiOptions, Prefers};
use super::process::{Address, Launcher, Process};
use super::sockets::{SocketEngine, SocketOptions};
use super::timeouts::Timeouts;
use super::watch::Token;
use crate::error::{Error, Result};

/// The variable with the secret of a job.
const TOKEN: &str = "PERISTYLE_TOKEN";

/// What moves the tensors of a job between its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// MPI, by way of host memory.
    Mpi,
    /// NCCL, between GPUs; processes also need to tell each other other things.
    Nccl,
    /// Nothing is moved: the processes have something else to do together.
    Nothing,
}

/// Connects this process with the others of its job; `failed` is called when they cannot go on, and ends the process.
///
/// # Errors
/// If there is no way to exchange data with them.
pub fn connect(process: &Process, mover: Mover, timeouts: Timeouts, failed: Failed) -> Result<Box<dyn Engine>> {
    let has_mpi = matches!(process.launcher, Launcher::OpenMpi | Launcher::Mpich | Launcher::Slurm);
    if mover == Mover::Mpi && !has_mpi {
        return Err(Error::Usage(format!(
            "this is {process}, which has no MPI to exchange the tensors of CPU devices; start with mpirun or with srun --mpi=pmix, or use \
             a GPU in each process, which NCCL connects"
        )));
    }
    // Of the steps of Slurm, those for MPI have more to tell than that there is one.
    let of_slurm = process.launcher == Launcher::Slurm && mover == Mover::Nothing;
    if mover != Mover::Mpi
        && !of_slurm
        && let Some(address) = process.address.clone()
    {
        let engine = SocketEngine::open(SocketOptions {
            place: (process.rank, process.processes),
            address,
            token: token(process)?,
            start_timeout: timeouts.start,
            collective_timeout: timeouts.collective,
            failed,
        })?;
        return Ok(Box::new(engine));
    }
    if !has_mpi {
        return Err(Error::Usage(format!(
            "this is {process}, but nothing says where process 0 listens; set MASTER_ADDR and MASTER_PORT in all processes, or [cluster] \
             address"
        )));
    }
    let prefers = if process.launcher == Launcher::Mpich { Prefers::Mpich } else { Prefers::OpenMpi };
    let engine = MpiEngine::open(MpiOptions {
        prefers,
        expected: Some((process.rank, process.processes)),
        launcher: process.launcher.to_string(),
        start_timeout: timeouts.start,
        collective_timeout: timeouts.collective,
        failed,
    })?;
    Ok(Box::new(engine))
}

/// Returns the token of the job of a process. Without a secret it only keeps jobs apart.
fn token(process: &Process) -> Result<Token> {
    let address = process.address.as_ref().map(|Address { host, ports }| format!("{host}:{}", ports.start()));
    let job = format!("{} {} {}", process.job, process.processes, address.unwrap_or_default());
    let Some(text) = std::env::var_os(TOKEN).filter(|text| !text.is_empty()) else {
        return Ok(Token::default().of_job(&job));
    };
    let secret: Token =
        text.to_string_lossy().trim().parse().map_err(|error| Error::Usage(format!("{TOKEN}: {error}")))?;
    Ok(secret.of_job(&job))
}
