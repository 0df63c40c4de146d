//! MPI, loaded at run time: one binary for Open MPI, MPICH and the ABI of MPI 5, built without any of them.
//!
//! One thread makes all calls (`worker.rs`). MPI itself waits for ever for a process that is lost, so the thread never blocks in a
//! message or a sum; where a call must block, the one who asked for it watches the time.
//!
//! To add a library with another ABI, add its table to `abi.rs` and its file name to `library.rs`.

mod abi;
mod calls;
mod functions;
mod job;
mod library;
mod pace;
mod thread;
mod under_way;
mod worker;

pub use library::Prefers;
pub use thread::MpiOptions;

use crate::cluster::failure::{EngineFailure, Failed};
use crate::cluster::words::in_seconds;
use crate::cluster::{Engine, Incoming, Outgoing, PendingSum, Values};
use crate::error::{Error, Result};
use job::{Job, Memory, Message, Number};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the end of MPI may take once all processes have come to it.
const FINISH: Duration = Duration::from_secs(5);
/// How often a caller looks at the clock while the thread is in a call that blocks.
const WATCH: Duration = Duration::from_millis(50);

/// The engine that moves data through MPI.
///
/// Dropped without [`Engine::finish`], it leaves MPI as it is: the launcher notices that the process ends, and ends the others.
pub struct MpiEngine {
    name: String,
    rank: usize,
    processes: usize,
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    paused: Arc<AtomicBool>,
    timeout: Duration,
    failed: Failed,
}

impl MpiEngine {
    /// Loads a library, starts MPI on a thread of its own, and checks that it sees the processes that the launcher started.
    ///
    /// # Errors
    /// If there is no library, it does not start in time, or it sees other processes.
    pub fn open(options: MpiOptions) -> Result<MpiEngine> {
        let (timeout, failed, paused) = (options.collective_timeout, options.failed.clone(), Arc::default());
        let (jobs, received) = channel();
        let (started, thread) = thread::start(options, received, Arc::clone(&paused))?;
        let thread::Started { name, rank, processes } = started;
        Ok(MpiEngine { name, rank, processes, jobs, thread: Mutex::new(Some(thread)), paused, timeout, failed })
    }

    /// Asks the thread for a job.
    fn ask<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<Receiver<T>> {
        let (done, answer) = channel();
        self.jobs.send(job(done)).map_err(|_| ended())?;
        Ok(answer)
    }

    /// Asks for a job that uses memory of the caller, and waits until it no longer does.
    fn lend(&self, job: impl FnOnce(Sender<Result<()>>) -> Job) -> Result<()> {
        // An answer is only dropped if the job was never begun, so that the memory is not in use.
        self.ask(job)?.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// Returns what the thread sends or receives.
    fn message(&self, process: usize, tag: u16, memory: Memory) -> Result<Message> {
        if process == self.rank || process >= self.processes {
            let (rank, processes) = (self.rank, self.processes);
            let message = format!("process {rank} of {processes} cannot exchange messages with process {process}");
            return Err(Error::Run(message));
        }
        debug_assert!(tag < 1 << 15, "MPI only guarantees tags below 2^15");
        Ok(Message { process, tag, memory })
    }
}

/// Returns the error of a call after the end of the engine.
fn ended() -> Error {
    Error::Run("the exchange with other processes has ended".to_string())
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
        let answer = self.ask(|done| Job::Prepare { groups: groups.to_vec(), done })?;
        let mut begun = Instant::now();
        loop {
            match answer.recv_timeout(WATCH) {
                Ok(prepared) => return prepared,
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) if self.paused.load(Ordering::Relaxed) => begun = Instant::now(),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() > self.timeout => {
                    let peers = (0..self.processes).filter(|&process| process != self.rank).collect();
                    let message =
                        format!("not all processes prepared their groups within {}", in_seconds(self.timeout));
                    self.failed.fail(EngineFailure { peers, waited: self.timeout, message })
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()> {
        let sent = outgoing.iter().filter(|message| !message.bytes.is_empty());
        let received = incoming.iter_mut().filter(|message| !message.bytes.is_empty());
        let outgoing = sent
            .map(|sent| self.message(sent.process, sent.tag, Memory::read(sent.bytes)))
            .collect::<Result<Vec<_>>>()?;
        let incoming = received
            .map(|received| self.message(received.process, received.tag, Memory::written(received.bytes)))
            .collect::<Result<Vec<_>>>()?;
        if outgoing.is_empty() && incoming.is_empty() {
            return Ok(());
        }
        self.lend(|done| Job::Exchange { outgoing, incoming, done })
    }

    fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        let (memory, number) = match values {
            Values::F32(values) => (Memory::written(values), Number::F32),
            Values::F64(values) => (Memory::written(values), Number::F64),
        };
        self.lend(|done| Job::Sum { group, number, memory, done })
    }

    fn start_sum(&self, values: Vec<f64>) -> PendingSum {
        // Without the thread there is no sender, which the one who waits for the sum learns.
        PendingSum(self.ask(|done| Job::StartSum { values, done }).unwrap_or_else(|_| channel().1))
    }

    fn pause_deadlines(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn finish(&self) {
        let Ok(answer) = self.ask(|done| Job::Finish { done }) else { return };
        // First all processes come to it, for which there is the deadline of sums; then MPI ends.
        if answer.recv().is_err() || answer.recv_timeout(FINISH).is_err() {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The thread has nothing left to do. It does not panic outside of what it catches.
        let _ = thread.map(JoinHandle::join);
    }
}

impl fmt::Debug for MpiEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MpiEngine { name, rank, processes, paused, timeout, .. } = self;
        f.debug_struct("MpiEngine")
            .field("name", name)
            .field("rank", rank)
            .field("processes", processes)
            .field("paused", paused)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}
