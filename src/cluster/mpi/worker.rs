//! The thread that makes all calls of MPI: it begins jobs, and looks after those that are under way.

use super::abi::Handle;
use super::calls::{Calls, Refusal};
use super::job::{Job, LARGEST_PIECE, Memory, Message, Number};
use super::pace::Pace;
use super::under_way::{Answer, Sum, UnderWay, Waiting};
use crate::cluster::EngineFailure;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// The bytes of a sum that MPI gets at once, for each process of the group. Open MPI and MPICH sum 100 MB in pieces of 8 or 16 MB
/// twice as fast as at once (2 and 4 processes); with many processes, small pieces would make many small messages.
const SUM_PIECE: usize = 4 << 20;

/// A group of processes.
#[derive(Debug)]
struct Group {
    /// The other processes.
    others: Vec<usize>,
    /// None where there is nothing to sum: this process is not in it, or alone.
    communicator: Option<Handle>,
    within: bool,
}

/// The thread's state. If the thread fails, it is not dropped: MPI may still use the memory of jobs.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    calls: &'a Calls,
    rank: usize,
    processes: usize,
    /// The communicators of messages, and of sums that were started.
    messages: Handle,
    sums: Handle,
    groups: Vec<Group>,
    timeout: Duration,
    paused: &'a AtomicBool,
    under_way: Vec<UnderWay>,
    pace: Pace,
}

impl<'a> Worker<'a> {
    /// Creates the communicators, once MPI has started.
    pub fn new(
        calls: &'a Calls,
        (rank, processes): (usize, usize),
        timeout: Duration,
        paused: &'a AtomicBool,
    ) -> Result<Self, Refusal> {
        let (messages, sums) = (calls.duplicate()?, calls.duplicate()?);
        let (groups, under_way, pace) = (Vec::new(), Vec::new(), Pace::new());
        Ok(Worker { calls, rank, processes, messages, sums, groups, timeout, paused, under_way, pace })
    }

    /// Serves jobs until one is to finish, and returns who waits for that; or until nobody can ask for more.
    pub fn serve(&mut self, jobs: &Receiver<Job>) -> Result<Option<Sender<()>>, EngineFailure> {
        loop {
            let idle = self.under_way.is_empty();
            let rest = if idle { self.pace.idle_rest() } else { self.pace.rest() };
            match jobs.recv_timeout(rest) {
                Ok(Job::Finish { done }) => {
                    self.meet(done.clone())?;
                    return Ok(Some(done));
                }
                Ok(job) => {
                    self.begin(job)?;
                    self.pace.moved();
                }
                Err(RecvTimeoutError::Timeout) if idle => {
                    self.calls.work(self.rank, self.messages).map_err(EngineFailure::of_call)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
            self.look()?;
        }
    }

    /// Ends what is under way, and waits until all processes come to this. One that calls `MPI_Finalize` earlier could only wait
    /// there, without a deadline; and if it did not wait, the launcher would end the others.
    fn meet(&mut self, done: Sender<()>) -> Result<(), EngineFailure> {
        let mut values = vec![0.0];
        let memory = Memory::written(&mut values);
        self.sum(self.calls.abi.world, self.others(), Number::F64, memory, Answer::Met(values, done))?;
        while !self.under_way.is_empty() {
            std::thread::sleep(self.pace.rest());
            self.look()?;
        }
        Ok(())
    }

    /// Forgets what is under way, where MPI may still use memory.
    pub fn abandon(self) {
        // Those who wait for a sum learn that it never comes.
        self.under_way.into_iter().for_each(UnderWay::abandon);
    }

    /// Lets MPI work, and answers jobs that have ended.
    fn look(&mut self) -> Result<(), EngineFailure> {
        let (paused, mut index) = (self.paused.load(Ordering::Relaxed), 0);
        while index < self.under_way.len() {
            if self.under_way[index].look(self.calls)? {
                self.pace.moved();
            }
            self.advance(index)?;
            let job = &mut self.under_way[index];
            let waits = !job.requests.is_empty();
            if !waits && job.sum.as_ref().is_none_or(|sum| sum.pieces.is_empty()) {
                // The order of the others remains: it is that of their pieces.
                self.under_way.remove(index).end();
                continue;
            }
            if paused || !waits {
                job.begun = Instant::now();
            } else if job.begun.elapsed() > self.timeout {
                return Err(job.failure(self.timeout));
            }
            index += 1;
        }
        Ok(())
    }

    /// Begins the next piece of a sum when that before has ended. All processes must begin those of a communicator in the same
    /// order, so all of one sum come before those of the next.
    fn advance(&mut self, index: usize) -> Result<(), EngineFailure> {
        let (earlier, job) = self.under_way.split_at_mut(index);
        let UnderWay { requests, sum: Some(sum), begun, .. } = &mut job[0] else { return Ok(()) };
        if !requests.is_empty() || earlier.iter().any(|job| job.has_more(sum.over)) {
            return Ok(());
        }
        let Some(piece) = sum.pieces.next() else { return Ok(()) };
        let (of, size) = sum.number;
        // SAFETY: the caller waits for the end of the job and lends its values to it alone, or the job has them itself. A piece has
        // whole values.
        let request = unsafe { self.calls.sum(piece.cast(), piece.len() / size, of, sum.over) };
        let request = request.map_err(|why| EngineFailure::of_sum(&sum.others, why))?;
        requests.push((request, Waiting::Sum));
        *begun = Instant::now();
        self.pace.moved();
        Ok(())
    }

    fn others(&self) -> Vec<usize> {
        (0..self.processes).filter(|&process| process != self.rank).collect()
    }

    fn begin(&mut self, job: Job) -> Result<(), EngineFailure> {
        match job {
            Job::Exchange { outgoing, incoming, done } => self.exchange(&outgoing, &incoming, done),
            Job::Sum { group, number, memory, done } => {
                let Some(found) = self.groups.get(group).filter(|group| group.within) else {
                    let rank = self.rank;
                    let message =
                        format!("process {rank} cannot sum over group {group}, which it is not in or has not prepared");
                    // Who no longer waits does not need it.
                    let _ = done.send(Err(Error::Run(message)));
                    return Ok(());
                };
                match found.communicator {
                    Some(over) => {
                        let others = found.others.clone();
                        self.sum(over, others, number, memory, Answer::Done(done))
                    }
                    None => {
                        let _ = done.send(Ok(()));
                        Ok(())
                    }
                }
            }
            Job::StartSum { mut values, done } => {
                // Values stay where they are when their vector moves.
                let memory = Memory::written(&mut values);
                self.sum(self.sums, self.others(), Number::F64, memory, Answer::Values(values, done))
            }
            Job::Prepare { groups, done } => {
                self.prepare(groups).map_err(EngineFailure::of_call)?;
                let _ = done.send(Ok(()));
                Ok(())
            }
            Job::Finish { .. } => unreachable!("`serve` ends with it"),
        }
    }

    fn exchange(
        &mut self,
        outgoing: &[Message],
        incoming: &[Message],
        done: Sender<Result<()>>,
    ) -> Result<(), EngineFailure> {
        let mut job = UnderWay::new(None, Answer::Done(done));
        let begun = job.begin_messages(self.calls, self.messages, outgoing, incoming);
        // Also if it fails: the memory of the requests before is kept.
        self.under_way.push(job);
        begun
    }

    fn sum(
        &mut self,
        over: Handle,
        others: Vec<usize>,
        number: Number,
        memory: Memory,
        answer: Answer,
    ) -> Result<(), EngineFailure> {
        let number = match number {
            Number::F32 => (self.calls.abi.float, size_of::<f32>()),
            Number::F64 => (self.calls.abi.double, size_of::<f64>()),
        };
        let pieces = memory.pieces(LARGEST_PIECE.min(SUM_PIECE * (others.len() + 1)));
        let sum = Sum { over, others, number, pieces };
        self.under_way.push(UnderWay::new(Some(sum), answer));
        self.advance(self.under_way.len() - 1)
    }

    fn prepare(&mut self, groups: Vec<Vec<usize>>) -> Result<(), Refusal> {
        for group in self.groups.drain(..) {
            group.communicator.map_or(Ok(()), |communicator| self.calls.free(communicator))?;
        }
        for mut group in groups {
            let communicator = if group.len() > 1 { self.calls.group(self.rank, &group)? } else { None };
            let within = group.contains(&self.rank);
            group.retain(|&process| process != self.rank);
            self.groups.push(Group { others: group, communicator, within });
        }
        Ok(())
    }
}
