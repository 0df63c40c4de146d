//! What moves data between the processes of a job.

use crate::error::{Error, Result};
use std::fmt::Debug;
use std::sync::mpsc::Receiver;

/// Bytes for another process.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The process.
    pub process: usize,
    /// Tells messages between two processes apart; below 2^15.
    pub tag: u16,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Room for the bytes of another process.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The process.
    pub process: usize,
    /// As in [`Outgoing::tag`].
    pub tag: u16,
    /// The room, as long as the message.
    pub bytes: &'a mut [u8],
}

/// Values that are summed over processes.
#[derive(Debug)]
pub enum Values<'a> {
    /// In single precision.
    F32(&'a mut [f32]),
    /// In double precision.
    F64(&'a mut [f64]),
}

/// A sum over all processes that goes on meanwhile.
#[derive(Debug)]
pub struct PendingSum(pub Receiver<Vec<f64>>);

impl PendingSum {
    /// Waits for the sum.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn wait(self) -> Result<Vec<f64>> {
        self.0.recv().map_err(|_| Error::Run("the exchange with other processes has ended".to_string()))
    }
}

/// Moves data between the processes of a job. Calls block; several threads may call at the same time. A call that other
/// processes never answer does not return: the engine ends the process.
pub trait Engine: Debug + Send + Sync {
    /// Returns the name of what moves the data: `Open MPI 4.1.4`.
    fn name(&self) -> &str;

    /// Returns the number of this process, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of processes.
    fn processes(&self) -> usize;

    /// Creates the groups of processes whose sums [`Engine::sum`] can compute, in place of earlier ones. All processes call it
    /// at the same time, with the same groups; each is a sorted list. Two groups may have the same processes: sums of different groups may
    /// be under way at the same time, those of one group follow each other.
    ///
    /// # Errors
    /// If the engine refuses.
    fn prepare(&self, groups: &[Vec<usize>]) -> Result<()>;

    /// Sends and receives messages, all at the same time; returns when the last has arrived. Messages between two processes
    /// with one tag arrive in the order in which they are sent. An empty message is not sent.
    ///
    /// # Errors
    /// If the engine has ended.
    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()>;

    /// Replaces values by their sums over a group, as an index into those prepared.
    ///
    /// # Errors
    /// If the engine has ended.
    fn sum(&self, group: usize, values: Values<'_>) -> Result<()>;

    /// Starts a sum over all processes, independent of all other messages and sums.
    fn start_sum(&self, values: Vec<f64>) -> PendingSum;

    /// Sets whether calls may take as long as they need: another process is busy with something else.
    fn pause_deadlines(&self, paused: bool);

    /// Ends the engine in an orderly way once all processes have called it; later calls fail.
    fn finish(&self);
}
