//! The thread that makes all calls of MPI: it starts what is asked for, and looks at what is under way.

use super::abi::Handle;
use super::library::{Mpi, Refusal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// The most bytes of a message, or values of a sum, that are passed to MPI at once: it counts in 32 bits.
const MOST: usize = 1 << 30;
/// How long the thread looks again at once, before it sleeps between two looks.
const SPIN: Duration = Duration::from_micros(50);
/// The shortest and the longest sleep.
const SLEEPS: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(200)];

/// Memory of a caller, who waits until nothing uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    pub start: *mut u8,
    pub len: usize,
}

// SAFETY: the caller that owns the memory waits for the end of the job, so only MPI uses it meanwhile.
unsafe impl Send for Bytes {}

/// A message to or from a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub process: usize,
    pub tag: u16,
    pub bytes: Bytes,
}

/// The type of summed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    F64,
}

/// What the thread is asked for, and how it answers.
#[derive(Debug)]
pub(super) enum Job {
    Exchange { sent: Vec<Message>, received: Vec<Message>, done: Sender<()> },
    Sum { group: usize, values: Bytes, number: Number, done: Sender<()> },
    StartSum { values: Vec<f64>, done: Sender<Vec<f64>> },
    Prepare { groups: Vec<Vec<usize>>, done: Sender<()> },
    Finish { done: Sender<()> },
}

/// Why the processes cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFailure {
    /// The processes that were waited for; none if it is an error of the library.
    pub peers: Vec<usize>,
    /// How long they were waited for.
    pub waited: Duration,
    /// What happened.
    pub message: String,
}

/// How a job that has ended is answered.
#[derive(Debug)]
enum Answer {
    Done(Sender<()>),
    Values(Vec<f64>, Sender<Vec<f64>>),
}

/// A job that is under way.
#[derive(Debug)]
struct UnderWay {
    requests: Vec<Handle>,
    answer: Answer,
    /// The processes that it needs, and what of them.
    peers: Vec<usize>,
    what: &'static str,
    begun: Instant,
}

/// The thread's state.
pub(super) struct Worker<'a> {
    pub mpi: &'a Mpi,
    pub rank: usize,
    pub processes: usize,
    /// The communicator of messages, and that of started sums.
    pub messages: Handle,
    pub started: Handle,
    /// The communicator and the processes of each group.
    pub groups: Vec<(Option<Handle>, Vec<usize>)>,
    pub timeout: Duration,
    pub paused: &'a AtomicBool,
}

impl Worker<'_> {
    /// Serves jobs until one is to finish, and all before it have ended, or nobody can ask for more; then returns who waits for that.
    pub fn serve(&mut self, jobs: &Receiver<Job>) -> Result<Option<Sender<()>>, EngineFailure> {
        let mut under_way: Vec<UnderWay> = Vec::new();
        let served = self.serve_with(jobs, &mut under_way);
        // After a failure, MPI may still write to the values of sums.
        std::mem::forget(under_way);
        served
    }

    fn serve_with(
        &mut self,
        jobs: &Receiver<Job>,
        under_way: &mut Vec<UnderWay>,
    ) -> Result<Option<Sender<()>>, EngineFailure> {
        let (mut moved, mut sleep, mut last) = (Instant::now(), SLEEPS[0], None);
        loop {
            if under_way.is_empty() && last.is_some() {
                return Ok(last);
            }
            let next = if under_way.is_empty() {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else if moved.elapsed() < SPIN {
                std::thread::yield_now();
                jobs.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            } else {
                let next = jobs.recv_timeout(sleep);
                sleep = (sleep * 2).min(SLEEPS[1]);
                next
            };
            match next {
                Ok(Job::Finish { done }) => last = Some(done),
                Ok(job) => {
                    (moved, sleep) = (Instant::now(), SLEEPS[0]);
                    under_way.extend(self.start(job).map_err(library)?);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // After the last job, the others have still to end.
                Err(RecvTimeoutError::Disconnected) if last.is_some() => std::thread::sleep(SLEEPS[0]),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
            let mut index = 0;
            while index < under_way.len() {
                if self.has_ended(&mut under_way[index])? {
                    (moved, sleep) = (Instant::now(), SLEEPS[0]);
                    answer(under_way.swap_remove(index).answer);
                } else {
                    index += 1;
                }
            }
        }
    }

    /// Looks at the requests of a job. Returns whether all have ended.
    fn has_ended(&self, job: &mut UnderWay) -> Result<bool, EngineFailure> {
        let mut index = 0;
        while index < job.requests.len() {
            if self.mpi.has_ended(&mut job.requests[index]).map_err(library)? {
                job.requests.swap_remove(index);
            } else {
                index += 1;
            }
        }
        if self.paused.load(Ordering::Relaxed) {
            job.begun = Instant::now();
        }
        if !job.requests.is_empty() && job.begun.elapsed() > self.timeout {
            let numbers: Vec<String> = job.peers.iter().map(usize::to_string).collect();
            let message = format!("{} {} did not end within {:?}", job.what, numbers.join(", "), self.timeout);
            return Err(EngineFailure { peers: job.peers.clone(), waited: self.timeout, message });
        }
        Ok(job.requests.is_empty())
    }

    fn start(&mut self, job: Job) -> Result<Option<UnderWay>, Refusal> {
        let begun = Instant::now();
        Ok(match job {
            Job::Exchange { sent, received, done } => {
                let mut requests = Vec::with_capacity(sent.len() + received.len());
                for Message { process, tag, bytes } in &received {
                    for (start, len) in pieces(*bytes) {
                        // SAFETY: the caller waits for the end of the job, and lends the memory to it alone.
                        requests.push(unsafe { self.mpi.receive(start, len, *process, *tag, self.messages) }?);
                    }
                }
                for Message { process, tag, bytes } in &sent {
                    for (start, len) in pieces(*bytes) {
                        // SAFETY: the caller waits for the end of the job, and does not change the memory meanwhile.
                        requests.push(unsafe { self.mpi.send(start, len, *process, *tag, self.messages) }?);
                    }
                }
                let mut peers: Vec<usize> = received.iter().chain(&sent).map(|message| message.process).collect();
                peers.sort_unstable();
                peers.dedup();
                let what = "the exchange of messages with processes";
                Some(UnderWay { requests, answer: Answer::Done(done), peers, what, begun })
            }
            Job::Sum { group, values, number, done } => {
                let (communicator, peers) = self.groups.get(group).cloned().unwrap_or_default();
                let communicator = communicator.ok_or("a sum of a group that this process is not in")?;
                let (of, size) = match number {
                    Number::F32 => (self.mpi.abi.float, size_of::<f32>()),
                    Number::F64 => (self.mpi.abi.double, size_of::<f64>()),
                };
                let mut requests = Vec::new();
                for (start, len) in pieces(values) {
                    // SAFETY: as above; pieces are multiples of 8 bytes.
                    requests.push(unsafe { self.mpi.sum(start, len / size, of, communicator) }?);
                }
                let what = "the sum of processes";
                Some(UnderWay { requests, answer: Answer::Done(done), peers, what, begun })
            }
            Job::StartSum { mut values, done } => {
                let start = values.as_mut_ptr().cast();
                // SAFETY: the values stay where they are until the request has ended, and nothing else uses them.
                let request = unsafe { self.mpi.sum(start, values.len(), self.mpi.abi.double, self.started) }?;
                let (peers, what) = ((0..self.processes).collect(), "the sum of processes");
                Some(UnderWay { requests: vec![request], answer: Answer::Values(values, done), peers, what, begun })
            }
            Job::Prepare { groups, done } => {
                self.groups.clear();
                for group in groups {
                    let communicator = self.mpi.group(group.contains(&self.rank), self.rank)?;
                    self.groups.push((communicator, group));
                }
                answer(Answer::Done(done));
                None
            }
            Job::Finish { .. } => None,
        })
    }
}

/// Makes a failure of what a call returned.
fn library(message: Refusal) -> EngineFailure {
    EngineFailure { peers: Vec::new(), waited: Duration::ZERO, message }
}

fn answer(answer: Answer) {
    // Who no longer waits does not need it.
    match answer {
        Answer::Done(done) => drop(done.send(())),
        Answer::Values(values, done) => drop(done.send(values)),
    }
}

/// Returns the parts of memory that MPI can count.
fn pieces(bytes: Bytes) -> impl Iterator<Item = (*mut u8, usize)> {
    let piece = move |at: usize| (bytes.start.wrapping_add(at), MOST.min(bytes.len - at));
    (0..bytes.len).step_by(MOST).map(piece)
}
