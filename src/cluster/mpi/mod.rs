//! MPI, loaded at run time: one binary for Open MPI, MPICH and the standard ABI.
//!
//! One thread makes all calls (`worker.rs`); it never blocks in one, so that a process that is lost or stopped is noticed by a deadline:
//! MPI itself waits for ever.

mod abi;
mod library;
mod worker;

pub use worker::EngineFailure;

use crate::cluster::{Engine, Incoming, Outgoing, PendingSum, Values};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use worker::{Bytes, Job, Message, Number, Worker};

/// How long the end of MPI may take.
const FINISH: Duration = Duration::from_secs(5);

/// What is called when the processes cannot go on; it ends the process.
pub type Failed = Box<dyn Fn(&EngineFailure) + Send>;

/// How MPI is started.
pub struct MpiOptions {
    /// Whether MPICH is tried before Open MPI.
    pub is_mpich: bool,
    /// The number of this process and of all, as the launcher says.
    pub expected: (usize, usize),
    /// The launcher, as messages name it.
    pub launcher: String,
    /// How long the start may take.
    pub start_timeout: Duration,
    /// How long a message or a sum may take.
    pub timeout: Duration,
    /// What is called on a failure.
    pub failed: Failed,
}

/// The engine that moves data through MPI.
#[derive(Debug)]
pub struct MpiEngine {
    name: String,
    rank: usize,
    processes: usize,
    jobs: Mutex<Option<Sender<Job>>>,
    paused: Arc<AtomicBool>,
}

/// What the thread reports once MPI runs: its name, the number of this process and of all.
type Started = Result<(String, usize, usize)>;

impl MpiEngine {
    /// Loads a library, starts MPI on a thread of its own, and checks that it sees the processes that the launcher started.
    ///
    /// # Errors
    /// If there is no library, it does not start in time, or it sees other processes.
    pub fn open(options: MpiOptions) -> Result<MpiEngine> {
        let (start_timeout, expected, launcher) = (options.start_timeout, options.expected, options.launcher.clone());
        let (ready, started) = channel();
        let (jobs, received) = channel();
        let paused = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&paused);
        let work = move || run(options, &ready, &received, &of_thread);
        std::thread::Builder::new()
            .name("mpi".to_string())
            .spawn(work)
            .map_err(|error| Error::Run(format!("cannot start the thread of MPI: {error}")))?;
        let (name, rank, processes) = started.recv_timeout(start_timeout).unwrap_or_else(|_| {
            Err(Error::Run(format!(
                "MPI did not start within {start_timeout:?}: other processes of the job have not started or have ended; look at their messages"
            )))
        })?;
        if (rank, processes) != expected {
            return Err(Error::Usage(format!(
                "MPI reports process {rank} of {processes}, {launcher} process {} of {}: the launcher and {name} do not know each other; with \
                 Slurm, start with srun --mpi=pmix (Open MPI) or srun --mpi=pmi2 (MPICH), otherwise with the mpirun of {name}",
                expected.0, expected.1
            )));
        }
        Ok(MpiEngine { name, rank, processes, jobs: Mutex::new(Some(jobs)), paused })
    }

    fn ask<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<Receiver<T>> {
        let ended = || Error::Run("the exchange with other processes has ended".to_string());
        let (done, answer) = channel();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job(done)).map_err(|_| ended())?;
        Ok(answer)
    }

    /// Asks for a job that uses memory of the caller, and waits for its end.
    fn wait(&self, job: impl FnOnce(Sender<()>) -> Job) -> Result<()> {
        if self.ask(job)?.recv().is_err() {
            // The thread has failed, and ends the process; until then MPI may still use the memory.
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

/// Starts MPI and serves jobs: the whole life of the thread.
fn run(options: MpiOptions, ready: &Sender<Started>, jobs: &Receiver<Job>, paused: &AtomicBool) {
    let refused = |refusal: String| Error::Run(format!("MPI does not start: {refusal}"));
    let start = || {
        let mpi = library::load(options.is_mpich)?;
        mpi.start().map_err(refused)?;
        let place = mpi.place().map_err(refused)?;
        let copies = if place == options.expected {
            [mpi.copy().map_err(refused)?, mpi.copy().map_err(refused)?]
        } else {
            [0; 2]
        };
        Ok((mpi, place, copies))
    };
    let (mpi, (rank, processes), [messages, started]) = match start() {
        Ok(started) => started,
        Err(error) => {
            // Who no longer waits has failed.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if (rank, processes) != options.expected {
        let _ = mpi.finish();
    }
    if ready.send(Ok((mpi.name.clone(), rank, processes))).is_err() || (rank, processes) != options.expected {
        return;
    }
    let (groups, timeout) = (Vec::new(), options.timeout);
    let mut worker = Worker { mpi: &mpi, rank, processes, messages, started, groups, timeout, paused };
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.serve(jobs)));
    let panicked = |_| EngineFailure {
        peers: Vec::new(),
        waited: Duration::ZERO,
        message: "the thread of MPI panicked; this is a bug in peristyle".to_string(),
    };
    match served.map_err(panicked).and_then(|served| served) {
        Ok(None) => {}
        Ok(Some(done)) => {
            if let Err(refusal) = mpi.finish() {
                tracing::warn!("{refusal}");
            }
            let _ = done.send(());
        }
        Err(failure) => (options.failed)(&failure),
    }
}

impl Engine for MpiEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn processes(&self) -> usize {
        self.processes
    }

    fn prepare(&self, groups: &[Vec<usize>]) -> Result<()> {
        self.wait(|done| Job::Prepare { groups: groups.to_vec(), done })
    }

    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()> {
        let sent = outgoing.iter().filter(|message| !message.bytes.is_empty());
        let sent: Vec<Message> = sent
            .map(|&Outgoing { process, tag, bytes }| {
                // MPI reads it only.
                Message { process, tag, bytes: Bytes { start: bytes.as_ptr().cast_mut(), len: bytes.len() } }
            })
            .collect();
        let received = incoming.iter_mut().filter(|message| !message.bytes.is_empty());
        let received: Vec<Message> = received
            .map(|message| {
                let bytes = Bytes { start: message.bytes.as_mut_ptr(), len: message.bytes.len() };
                Message { process: message.process, tag: message.tag, bytes }
            })
            .collect();
        if sent.is_empty() && received.is_empty() {
            return Ok(());
        }
        self.wait(|done| Job::Exchange { sent, received, done })
    }

    fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        let (values, number) = match values {
            Values::F32(values) => (Bytes { start: values.as_mut_ptr().cast(), len: size_of_val(values) }, Number::F32),
            Values::F64(values) => (Bytes { start: values.as_mut_ptr().cast(), len: size_of_val(values) }, Number::F64),
        };
        if values.len == 0 {
            return Ok(());
        }
        self.wait(|done| Job::Sum { group, values, number, done })
    }

    fn start_sum(&self, values: Vec<f64>) -> PendingSum {
        // Without a thread there is no sender, and the one who waits for the sum is told.
        PendingSum(self.ask(|done| Job::StartSum { values, done }).unwrap_or_else(|_| channel().1))
    }

    fn pause_deadlines(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn finish(&self) {
        let Ok(answer) = self.ask(|done| Job::Finish { done }) else { return };
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = answer.recv_timeout(FINISH);
    }
}
