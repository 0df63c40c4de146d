//! A job that is under way.

use super::abi::Handle;
use super::calls::{Calls, Request};
use super::job::{LARGEST_PIECE, Message, Pieces};
use crate::cluster::EngineFailure;
use crate::cluster::words::{in_seconds, name_ranks};
use crate::error::Result;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiting {
    /// A message of so many bytes from a process.
    Receive { from: usize, bytes: usize },
    /// That a process takes a message.
    Send { to: usize },
    /// The values of other processes.
    Sum,
}

/// How a job is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// For messages, and for sums in the caller's memory.
    Done(Sender<Result<()>>),
    /// For a sum in memory of its own.
    Values(Vec<f64>, Sender<Vec<f64>>),
    /// For the sum at which processes meet before they end MPI.
    Met(Vec<f64>, Sender<()>),
}

/// A sum, of which MPI gets one piece after the other.
#[derive(Debug)]
pub(super) struct Sum {
    /// The communicator.
    pub over: Handle,
    /// The other processes.
    pub others: Vec<usize>,
    /// The type of the values, and its size in bytes.
    pub number: (Handle, usize),
    /// What has not been begun.
    pub pieces: Pieces,
}

/// A job that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// What MPI has not completed.
    pub requests: Vec<(Request, Waiting)>,
    /// None for messages.
    pub sum: Option<Sum>,
    /// When the job or the last piece of a sum was begun, or deadlines were last suspended.
    pub begun: Instant,
    answer: Answer,
}

impl UnderWay {
    /// Creates a job without requests.
    pub fn new(sum: Option<Sum>, answer: Answer) -> Self {
        UnderWay { requests: Vec::new(), sum, begun: Instant::now(), answer }
    }

    /// Returns whether a sum over a communicator has pieces that were not begun.
    pub fn has_more(&self, over: Handle) -> bool {
        self.sum.as_ref().is_some_and(|sum| sum.over == over && !sum.pieces.is_empty())
    }

    fn others(&self) -> &[usize] {
        self.sum.as_ref().map_or(&[], |sum| &sum.others)
    }

    /// Begins to receive and to send messages.
    pub fn begin_messages(
        &mut self,
        calls: &Calls,
        over: Handle,
        outgoing: &[Message],
        incoming: &[Message],
    ) -> Result<(), EngineFailure> {
        // Where a message arrives before its room is there, MPI copies it once more.
        for &Message { process, tag, memory } in incoming {
            for piece in memory.pieces(LARGEST_PIECE) {
                // SAFETY: the caller waits for the end of the job, and lends the memory to it alone.
                let request = unsafe { calls.receive(piece, process, tag, over) };
                let waiting = Waiting::Receive { from: process, bytes: piece.len() };
                self.requests.push((request.map_err(|why| EngineFailure::with(process, why))?, waiting));
            }
        }
        for &Message { process, tag, memory } in outgoing {
            for piece in memory.pieces(LARGEST_PIECE) {
                // SAFETY: the caller waits for the end of the job, and does not change the memory meanwhile.
                let request = unsafe { calls.send(piece, process, tag, over) };
                let waiting = Waiting::Send { to: process };
                self.requests.push((request.map_err(|why| EngineFailure::with(process, why))?, waiting));
            }
        }
        Ok(())
    }

    /// Looks at the requests, and removes those that have ended. Returns whether there are any of those.
    pub fn look(&mut self, calls: &Calls) -> Result<bool, EngineFailure> {
        let (before, mut index) = (self.requests.len(), 0);
        while index < self.requests.len() {
            let (request, waiting) = &mut self.requests[index];
            let (ended, waiting) = (calls.ended(request), *waiting);
            let ended = ended.map_err(|why| match waiting {
                Waiting::Receive { from: process, .. } | Waiting::Send { to: process } => {
                    EngineFailure::with(process, why)
                }
                Waiting::Sum => EngineFailure::of_sum(self.others(), why),
            })?;
            match (ended, waiting) {
                (Some(count), Waiting::Receive { from, bytes }) if count != bytes => {
                    let message = format!("process {from} sent a message of {count} bytes, expected {bytes}");
                    return Err(EngineFailure { peers: vec![from], waited: Duration::ZERO, message });
                }
                (Some(_), _) => drop(self.requests.swap_remove(index)),
                (None, _) => index += 1,
            }
        }
        Ok(self.requests.len() < before)
    }

    /// Answers a job without requests. Who no longer waits does not need it.
    pub fn end(self) {
        match self.answer {
            Answer::Done(done) => drop(done.send(Ok(()))),
            Answer::Values(values, done) => drop(done.send(values)),
            Answer::Met(_, done) => drop(done.send(())),
        }
    }

    /// Gives a job up while MPI may use its memory. Who waits for a sum learns that it never comes.
    pub fn abandon(self) {
        match self.answer {
            Answer::Values(values, _) | Answer::Met(values, _) => std::mem::forget(values),
            // The memory is that of the caller, who keeps waiting.
            Answer::Done(done) => std::mem::forget(done),
        }
    }

    /// Returns the failure of a job that takes too long.
    pub fn failure(&self, waited: Duration) -> EngineFailure {
        let limit = in_seconds(waited);
        let of = |kind: fn(&Waiting) -> Option<usize>| {
            let mut processes: Vec<usize> = self.requests.iter().filter_map(|(_, waiting)| kind(waiting)).collect();
            processes.sort_unstable();
            processes.dedup();
            processes
        };
        let senders = of(|waiting| if let Waiting::Receive { from, .. } = *waiting { Some(from) } else { None });
        let receivers = of(|waiting| if let Waiting::Send { to } = *waiting { Some(to) } else { None });
        let others = name_ranks(self.others());
        let (peers, message) = match (&self.sum, &self.answer) {
            (Some(_), Answer::Met(..)) => (self.others().to_vec(), format!("waited {limit} at the end for {others}")),
            (Some(_), _) => (self.others().to_vec(), format!("the sum with {others} did not end within {limit}")),
            (None, _) if senders.is_empty() => {
                let message = format!("{} took no message within {limit}", name_ranks(&receivers));
                (receivers, message)
            }
            (None, _) => {
                let message = format!("no message from {} within {limit}", name_ranks(&senders));
                (senders, message)
            }
        };
        EngineFailure { peers, waited, message }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Memory;
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn late_jobs_name_the_processes_they_wait_for() {
        let sum = |others| {
            let pieces = Memory::read(&[]).pieces(8);
            Some(Sum { over: 0, others, number: (0, 8), pieces })
        };
        let late = UnderWay::new(sum(vec![0, 1, 3]), Answer::Values(Vec::new(), channel().0));
        let failure = late.failure(Duration::from_secs(600));
        assert_eq!(failure.message, "the sum with processes 0, 1 and 3 did not end within 600 s");
        assert_eq!(failure.peers, [0, 1, 3]);
        let end = UnderWay::new(sum(vec![1]), Answer::Met(Vec::new(), channel().0));
        assert_eq!(end.failure(Duration::from_secs(2)).message, "waited 2 s at the end for process 1");
    }
}
