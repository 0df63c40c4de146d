//! A watch over the processes of a job, because what moves their data may wait for ever for one that is lost, stopped or cut off.
//!
//! Every process has a connection with process 0, over which both ends send signs of life several times within the timeout. A connection
//! that closes without a goodbye is a loss at once, silence is one after the timeout. Process 0 names the lost process to all others; they
//! all find out by themselves if process 0 is lost. The watch decides that a job ends and who is to blame; it moves no data, and ending
//! the process is left to its owner.
//!
//! The token keeps other jobs and strangers out. It crosses the network as plain text, like everything here: the network must be trusted.
//!
//! To add a message, add it to `message.rs`, and say in `reader.rs` what its arrival means.

mod door;
mod join;
mod listener;
mod lock;
mod loss;
mod meeting;
mod message;
mod options;
mod overdue;
mod peer;
mod progress;
mod pulse;
mod reader;
mod shared;
mod silence;
mod token;

pub use listener::{Listener, host_name};
pub use loss::{Loss, Whereabouts};
pub use meeting::{Attendee, Connection, attend, lead_meeting};
pub use options::{MOST_PROCESSES, WatchOptions};
pub use progress::{JobProgress, Reached};
pub use token::Token;

use crate::error::{Error, Result};
use message::{Inbox, Message};
use overdue::Overdue;
use peer::Peer;
use shared::Shared;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stack of a thread of the watch, on which `failed` is called.
const STACK: usize = 1 << 20;

/// The watch of one process over the others of its job.
///
/// [`Watch::finish`] or [`Watch::fail`] ends it. Without either, as in a panic, the others lose this process when it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    /// Begins the watch in process 0; returns when all others have joined.
    ///
    /// # Errors
    /// If they do not join in time: the error names those that are missing; or if one that joins runs another version of the program or
    /// cannot belong to the job: it ends with the same error.
    pub fn lead(listener: Listener, token: &Token, options: WatchOptions) -> Result<Watch> {
        let own = options.introduce(token)?;
        if options.rank != 0 {
            return Err(Error::Usage(format!("process {} cannot lead the watch, expected process 0", options.rank)));
        }
        let joined = door::open(&listener, &own, options.start_timeout)?;
        let mut members = vec![own.member];
        members.extend(joined.iter().map(|joined| joined.member.clone()));
        let connections = joined.into_iter().map(|joined| (joined.rank, joined.stream, joined.inbox));
        Watch::begin(options, members, connections.collect())
    }

    /// Begins the watch in another process; returns when all have joined. Process 0 is tried at each of its addresses in turn, again and
    /// again.
    ///
    /// # Errors
    /// If process 0 cannot be reached in time, or refuses this process.
    pub fn follow(candidates: &[String], port: u16, token: &Token, options: WatchOptions) -> Result<Watch> {
        let own = options.introduce(token)?;
        if options.rank == 0 || candidates.is_empty() {
            return Err(Error::Usage(format!(
                "process {} of {} cannot follow {} addresses of process 0, expected another process than 0 and at least one address",
                options.rank,
                options.processes,
                candidates.len()
            )));
        }
        let welcomed = join::join(candidates, port..=port, &own, options.start_timeout)?;
        Watch::begin(options, welcomed.members, vec![(0, welcomed.stream, welcomed.inbox)])
    }

    fn begin(
        options: WatchOptions,
        members: Vec<Whereabouts>,
        connections: Vec<(usize, TcpStream, Inbox)>,
    ) -> Result<Watch> {
        let failed =
            |error: std::io::Error| Error::Run(format!("cannot begin the watch over the other processes: {error}"));
        let (mut peers, mut inboxes) = (Vec::new(), Vec::new());
        for (rank, stream, inbox) in connections {
            peers.push(Peer::new(rank, stream).map_err(failed)?);
            inboxes.push(inbox);
        }
        let watch = Watch { shared: Arc::new(Shared::new(options, members, peers)) };
        if watch.shared.leads() {
            watch.shared.send(&Message::Welcome { members: watch.shared.members.clone() }, |_| true);
        }
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let shared = Arc::clone(&watch.shared);
            let name = format!("watch {}", shared.peers[number].rank);
            let thread = std::thread::Builder::new().name(name).stack_size(STACK);
            thread.spawn(move || shared.read(number, inbox)).map_err(failed)?;
        }
        let shared = Arc::clone(&watch.shared);
        let thread = std::thread::Builder::new().name("watch".to_string()).stack_size(STACK);
        thread.spawn(move || shared.pulse()).map_err(failed)?;
        Ok(watch)
    }

    /// Returns where each process runs, by rank.
    pub fn hosts(&self) -> &[Whereabouts] {
        &self.shared.members
    }

    /// Returns how far each process had come when it was last heard, by rank. Only process 0 hears all; others have none of each other.
    pub fn progress(&self) -> Vec<Option<Reached>> {
        self.shared.progress()
    }

    /// Declares that this process ends by an error of its own, which completes the sentence "process 3 ended with an error: ". All others
    /// lose it for that reason; `failed` is not called here. Returns when they have heard, or after 1 s.
    pub fn fail(&self, reason: &str) {
        self.shared.fail(reason);
    }

    /// Declares that this process has `waited` too long for the collective with this number. Process 0 finds out who has not begun it, by
    /// the numbers of all processes, and all lose that one, this process included. Returns at once.
    pub fn report_timeout(&self, sequence: u64, name: &str, waited: Duration) {
        self.shared.report(Overdue::new(self.shared.options.rank, sequence, name, waited, Instant::now()));
    }

    /// Says goodbye and ends the watch; the end of this process is then no loss for the others. Takes at most 1 s.
    pub fn finish(&self) {
        self.shared.finish();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

#[cfg(test)]
mod tests;
