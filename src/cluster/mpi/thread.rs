//! The life of the thread of MPI, from its start to its end.

use super::calls::{Calls, Refusal};
use super::job::Job;
use super::library::{self, Prefers};
use super::worker::Worker;
use crate::cluster::failure::{EngineFailure, Failed};
use crate::cluster::words::in_seconds;
use crate::error::{Error, Result};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long MPI may take to end where it sees other processes than expected.
const REFUSE: Duration = Duration::from_secs(2);

/// How MPI is started.
#[derive(Clone)]
pub struct MpiOptions {
    /// The number of this process and of all, as the launcher says.
    pub expected: Option<(usize, usize)>,
    /// The launcher, as messages name it: `a Slurm step`.
    pub launcher: String,
    /// Which library is tried first.
    pub prefers: Prefers,
    /// How long the start may take.
    pub start_timeout: Duration,
    /// How long a message, a sum or the preparation of groups may take.
    pub collective_timeout: Duration,
    /// What is called on a failure, possibly by two threads at the same time.
    pub failed: Failed,
}

impl fmt::Debug for MpiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MpiOptions { expected, launcher, prefers, start_timeout, collective_timeout, failed: _ } = self;
        f.debug_struct("MpiOptions")
            .field("expected", expected)
            .field("launcher", launcher)
            .field("prefers", prefers)
            .field("start_timeout", start_timeout)
            .field("collective_timeout", collective_timeout)
            .finish_non_exhaustive()
    }
}

/// What the thread reports once MPI runs.
#[derive(Debug)]
pub(super) struct Started {
    pub name: String,
    pub rank: usize,
    pub processes: usize,
}

/// Starts the thread, and waits until MPI runs.
///
/// # Errors
/// If there is no library, it does not start in time, or it sees other processes.
pub(super) fn start(
    options: MpiOptions,
    jobs: Receiver<Job>,
    paused: Arc<AtomicBool>,
) -> Result<(Started, JoinHandle<()>)> {
    let limit = options.start_timeout;
    let (ready, reports) = channel();
    let thread = std::thread::Builder::new().name("mpi".to_string());
    let thread = thread
        .spawn(move || live(&options, &ready, &jobs, &paused))
        .map_err(|error| Error::Run(format!("the thread of MPI cannot be started: {error}")))?;
    match reports.recv_timeout(limit) {
        Ok(Ok(started)) => Ok((started, thread)),
        Ok(Err(error)) => {
            // The thread ends MPI, if it runs. A process that ends before that is taken for one that was lost.
            let _ = reports.recv_timeout(REFUSE);
            Err(error)
        }
        Err(_) => Err(Error::Run(format!(
            "MPI did not start within {}: other processes of the job have not started or have ended; see their messages",
            in_seconds(limit)
        ))),
    }
}

fn live(options: &MpiOptions, ready: &Sender<Result<Started>>, jobs: &Receiver<Job>, paused: &AtomicBool) {
    let calls = match library::load(options.prefers) {
        Ok(calls) => calls,
        Err(error) => return refuse(ready, error),
    };
    let (place, worker) = match begin(&calls, options, paused) {
        Ok((place, Some(worker))) => (place, worker),
        Ok((place, None)) => {
            refuse(ready, mismatch(&calls.name, options, place));
            let _ = calls.finish();
            return;
        }
        Err(why) => return refuse(ready, Error::Run(format!("MPI does not start: {why}"))),
    };
    let (rank, processes) = place;
    // Who no longer waits has already failed.
    if ready.send(Ok(Started { name: calls.name.clone(), rank, processes })).is_ok() {
        serve(worker, &calls, options, jobs);
    }
}

/// Starts MPI. Returns the place of this process among all, and what serves jobs if that is as expected.
fn begin<'a>(
    calls: &'a Calls,
    options: &MpiOptions,
    paused: &'a AtomicBool,
) -> Result<((usize, usize), Option<Worker<'a>>), Refusal> {
    calls.start()?;
    let place = calls.place()?;
    if options.expected.is_some_and(|expected| expected != place) {
        return Ok((place, None));
    }
    Ok((place, Some(Worker::new(calls, place, options.collective_timeout, paused)?)))
}

fn refuse(ready: &Sender<Result<Started>>, error: Error) {
    // Who no longer waits has already failed.
    let _ = ready.send(Err(error));
}

fn mismatch(name: &str, options: &MpiOptions, (rank, processes): (usize, usize)) -> Error {
    let (expected, of) = options.expected.unwrap_or_default();
    Error::Usage(format!(
        "MPI reports process {rank} of {processes}, {} process {expected} of {of}: the launcher and the MPI library do not recognize each \
         other; with Slurm, start with `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH), otherwise with the mpirun of {name}",
        options.launcher
    ))
}

fn serve(mut worker: Worker, calls: &Calls, options: &MpiOptions, jobs: &Receiver<Job>) {
    let failure = match catch_unwind(AssertUnwindSafe(|| worker.serve(jobs))) {
        Ok(Ok(Some(done))) => {
            let _ = calls.finish();
            // Who no longer waits does not need it.
            let _ = done.send(());
            return;
        }
        Ok(Ok(None)) => return worker.abandon(),
        Ok(Err(failure)) => failure,
        Err(_) => EngineFailure::of_call("the thread of MPI panicked, which is a bug".to_string()),
    };
    // MPI may still use the memory of jobs, so their callers never go on.
    std::mem::forget(worker);
    options.failed.fail(failure)
}
