//! What the owner of a watch says of its process.

use super::listener::host_name;
use super::loss::{Loss, Whereabouts};
use super::message::Join;
use super::progress::JobProgress;
use super::token::Token;
use crate::error::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most processes of a job.
pub const MOST_PROCESSES: usize = 256;
/// The version that all processes of a job must have.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The range of timeouts.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86400);
/// How long the last words of a process may take to arrive.
pub(super) const FAREWELL: Duration = Duration::from_millis(900);

/// How a process is watched, and watches others.
pub struct WatchOptions {
    /// The number of this process, from 0.
    pub rank: usize,
    /// The number of processes, at most [`MOST_PROCESSES`].
    pub processes: usize,
    /// The time of silence after which a process is lost; the same on all. The default of the trainer is 10 s.
    pub timeout: Duration,
    /// How long the start may take.
    pub start_timeout: Duration,
    /// How far this process has come.
    pub progress: Arc<JobProgress>,
    /// Is called once, from a thread of the watch, when the job has lost a process: perhaps this one, if the others lost it.
    pub failed: Box<dyn Fn(Loss) + Send + Sync>,
}

impl fmt::Debug for WatchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchOptions(process {} of {})", self.rank, self.processes)
    }
}

impl WatchOptions {
    /// Checks the options; returns what this process says of itself.
    pub(super) fn introduce(&self, token: &Token) -> Result<Join> {
        introduce(token, (self.rank, self.processes), [self.timeout, self.start_timeout])
    }
}

/// Checks the place and the times of a process; returns what it says of itself.
pub(super) fn introduce(
    token: &Token,
    (rank, processes): (usize, usize),
    [timeout, start_timeout]: [Duration; 2],
) -> Result<Join> {
    if !(1..=MOST_PROCESSES).contains(&processes) || rank >= processes {
        return Err(Error::Usage(format!(
            "process {rank} of {processes} cannot be watched, expected at most {MOST_PROCESSES} processes and a rank below their number"
        )));
    }
    for (name, time) in [("timeout", timeout), ("start timeout", start_timeout)] {
        if !TIMEOUTS.contains(&time) {
            return Err(Error::Usage(format!("the {name} of the watch is {time:?}, expected 0.1 s to 7 days")));
        }
    }
    Ok(Join {
        token: token.clone(),
        rank,
        processes,
        version: VERSION.to_string(),
        timeout_milliseconds: timeout.as_millis() as u64,
        member: Whereabouts { host: host_name(), pid: std::process::id() },
    })
}
