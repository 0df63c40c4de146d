//! TCP between the processes of a job whose launcher has no MPI: for what processes tell each other, such as settings, parts of
//! checkpoints, and whether all go on. The tensors of GPUs cross through NCCL.
//!
//! Process 0 listens where the launcher says, and the others come to it with the token of the job. All frames go through process 0.

mod frame;
mod links;

use super::engine::{Engine, Incoming, Outgoing, PendingSum, Values};
use super::failure::{EngineFailure, Failed};
use super::process::Address;
use super::watch::{Attendee, Listener, Token, attend, lead_meeting};
use super::words::{in_seconds, name_ranks};
use crate::error::{Error, Result};
use frame::{Kind, LONGEST, bytes_of};
use links::{Links, State};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most bytes of a message that are sent before the receiver has taken them.
const AHEAD: usize = 2 * LONGEST;
/// How often one who waits looks at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// How long process 0 lets the others leave first.
const LEAVE: Duration = Duration::from_secs(1);

/// How processes are connected.
pub struct SocketOptions {
    /// The number of this process, and of all.
    pub place: (usize, usize),
    /// Where process 0 listens.
    pub address: Address,
    /// The secret of the job.
    pub token: Token,
    /// How long the start may take.
    pub start_timeout: Duration,
    /// How long a message or a sum may take.
    pub collective_timeout: Duration,
    /// What is called on a failure.
    pub failed: Failed,
}

/// The engine that moves data through TCP.
pub struct SocketEngine {
    links: Arc<Links>,
    groups: Mutex<Vec<Vec<usize>>>,
    paused: AtomicBool,
    timeout: Duration,
    failed: Failed,
}

impl SocketEngine {
    /// Connects this process with the others; returns when all have come.
    ///
    /// # Errors
    /// If they do not come in time, or cannot belong to one job.
    pub fn open(options: SocketOptions) -> Result<SocketEngine> {
        let SocketOptions { place: (rank, processes), address, token, start_timeout, .. } = options;
        let own = Attendee { rank, processes, token, start_timeout };
        let connections = match rank {
            0 => lead_meeting(&Listener::bind_first(&address.host, address.ports)?, &own)?,
            _ => vec![attend(&[address.host], address.ports, &own)?],
        };
        let failed = options.failed;
        let links = Links::begin(rank, processes, connections, &failed)?;
        let (groups, paused) = (Mutex::default(), AtomicBool::new(false));
        Ok(SocketEngine { links, groups, paused, timeout: options.collective_timeout, failed })
    }

    fn check(&self, process: usize) -> Result<()> {
        let (rank, processes) = (self.links.rank, self.links.processes);
        if process == rank || process >= processes {
            let message = format!("process {rank} of {processes} cannot exchange messages with process {process}");
            return Err(Error::Run(message));
        }
        Ok(())
    }

    /// Waits until something moves. Ends the process if nothing has for too long.
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        since: &mut Instant,
        missing: impl Fn(&State) -> (Vec<usize>, &'static str),
    ) -> MutexGuard<'a, State> {
        let (state, _) = self.links.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
        if self.paused.load(Ordering::Relaxed) {
            *since = Instant::now();
        }
        if since.elapsed() > self.timeout {
            let (peers, what) = missing(&state);
            drop(state);
            let message = format!("{what} {} within {}", name_ranks(&peers), in_seconds(self.timeout));
            self.failed.fail(EngineFailure { peers, waited: self.timeout, message });
        }
        state
    }

    /// Takes what has arrived of a message; returns the number of bytes.
    fn take(state: &mut State, message: &mut Incoming<'_>, filled: &mut usize) -> Result<usize> {
        let key = (message.process, message.tag);
        let mut taken = 0;
        while *filled < message.bytes.len()
            && let Some(part) = state.mail.get_mut(&key).and_then(|parts| parts.pop_front())
        {
            let Some(room) = message.bytes.get_mut(*filled..*filled + part.len()) else {
                let (process, expected) = (message.process, message.bytes.len());
                return Err(Error::Run(format!("process {process} sent a message of more than {expected} bytes")));
            };
            room.copy_from_slice(&part);
            *filled += part.len();
            taken += part.len();
        }
        Ok(taken)
    }

    /// Returns the next part of a message if it may be sent now.
    fn next_part<'a>(state: &mut State, message: &Outgoing<'a>, begun: &mut usize) -> Option<&'a [u8]> {
        let rest = &message.bytes[*begun..];
        let part = &rest[..rest.len().min(LONGEST)];
        let sent = state.sent.entry((message.process, message.tag)).or_default();
        if part.is_empty() || *sent > 0 && *sent + part.len() > AHEAD {
            return None;
        }
        *sent += part.len();
        *begun += part.len();
        Some(part)
    }

    /// Sums in the first process of a group, in the order of the processes.
    fn sum_at_first(&self, group: &[usize], tag: u16, own: &mut [f64]) -> Result<()> {
        let first = group[0];
        let mut bytes = bytes_of(own);
        if self.links.rank != first {
            self.exchange(&[Outgoing { process: first, tag, bytes: &bytes }], &mut [])?;
            self.exchange(&[], &mut [Incoming { process: first, tag, bytes: &mut bytes }])?;
            own.copy_from_slice(&frame::values_of(&bytes));
            return Ok(());
        }
        for &process in &group[1..] {
            self.exchange(&[], &mut [Incoming { process, tag, bytes: &mut bytes }])?;
            own.iter_mut().zip(frame::values_of(&bytes)).for_each(|(own, value)| *own += value);
        }
        let sum = bytes_of(own);
        let out: Vec<Outgoing> = group[1..].iter().map(|&process| Outgoing { process, tag, bytes: &sum }).collect();
        self.exchange(&out, &mut [])
    }
}

impl Engine for SocketEngine {
    fn name(&self) -> &str {
        "TCP"
    }

    fn rank(&self) -> usize {
        self.links.rank
    }

    fn processes(&self) -> usize {
        self.links.processes
    }

    fn prepare(&self, groups: &[Vec<usize>]) -> Result<()> {
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = groups.to_vec();
        Ok(())
    }

    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()> {
        outgoing.iter().map(|message| message.process).try_for_each(|process| self.check(process))?;
        incoming.iter().map(|message| message.process).try_for_each(|process| self.check(process))?;
        let (mut begun, mut filled) = (vec![0; outgoing.len()], vec![0; incoming.len()]);
        let (mut state, mut since) = (self.links.state(), Instant::now());
        loop {
            if state.ended {
                return Err(Error::Run("the exchange with other processes has ended".to_string()));
            }
            let mut moved = false;
            let mut earlier: Vec<(usize, u16)> = Vec::new();
            for (message, filled) in incoming.iter_mut().zip(&mut filled).filter(|(m, f)| **f < m.bytes.len()) {
                // Messages with one tag arrive in order.
                let key = (message.process, message.tag);
                if earlier.contains(&key) {
                    continue;
                }
                let taken = SocketEngine::take(&mut state, message, filled)?;
                if taken > 0 {
                    drop(state);
                    self.links.send(Kind::Taken, message.tag, message.process, &bytes_of(&[taken as f64]));
                    state = self.links.state();
                    moved = true;
                }
                if *filled < message.bytes.len() {
                    earlier.push(key);
                }
            }
            earlier.clear();
            for (message, begun) in outgoing.iter().zip(&mut begun).filter(|(m, b)| **b < m.bytes.len()) {
                let key = (message.process, message.tag);
                if earlier.contains(&key) {
                    continue;
                }
                while let Some(part) = SocketEngine::next_part(&mut state, message, begun) {
                    drop(state);
                    self.links.send(Kind::Bytes, message.tag, message.process, part);
                    state = self.links.state();
                    moved = true;
                }
                if *begun < message.bytes.len() {
                    earlier.push(key);
                }
            }
            let mut senders: Vec<usize> = incoming
                .iter()
                .zip(&filled)
                .filter(|(message, filled)| **filled < message.bytes.len())
                .map(|(message, _)| message.process)
                .collect();
            if senders.is_empty() && earlier.is_empty() {
                return Ok(());
            }
            if moved {
                since = Instant::now();
                continue;
            }
            senders.sort_unstable();
            senders.dedup();
            let receivers: Vec<usize> = earlier.iter().map(|(process, _)| *process).collect();
            state = self.wait(state, &mut since, |_| match senders.is_empty() {
                true => (receivers.clone(), "a message was not taken by"),
                false => (senders.clone(), "no message came from"),
            });
        }
    }

    fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        let members = self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(group).cloned();
        let Some(members) = members.filter(|members| members.contains(&self.rank()) && members.len() > 1) else {
            return Ok(());
        };
        // Below the tag of a team's own messages.
        let tag = (1 << 15) - 2 - group as u16;
        match values {
            Values::F64(values) => self.sum_at_first(&members, tag, values),
            Values::F32(values) => {
                let mut wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
                self.sum_at_first(&members, tag, &mut wide)?;
                values.iter_mut().zip(wide).for_each(|(value, wide)| *value = wide as f32);
                Ok(())
            }
        }
    }

    fn start_sum(&self, values: Vec<f64>) -> PendingSum {
        let (done, sum) = channel();
        self.links.add(values, done);
        PendingSum(sum)
    }

    fn pause_deadlines(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn finish(&self) {
        let rank = self.rank();
        if rank != 0 {
            self.links.send(Kind::End, 0, 0, &[]);
        }
        let missing = |state: &State| -> Vec<usize> {
            let expected = if rank == 0 { 1..self.processes() } else { 0..1 };
            expected.filter(|&process| !state.at_end[process]).collect()
        };
        let (mut state, mut since) = (self.links.state(), Instant::now());
        while !state.ended && !missing(&state).is_empty() {
            state = self.wait(state, &mut since, |state| (missing(state), "the end of the job was not reached by"));
        }
        if rank == 0 && !state.ended {
            drop(state);
            (1..self.processes()).for_each(|process| self.links.send(Kind::End, 0, process, &[]));
            let begun = Instant::now();
            state = self.links.state();
            while state.closed + 1 < self.processes() && begun.elapsed() < LEAVE {
                state = self.links.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        drop(state);
        self.links.close();
    }
}

impl fmt::Debug for SocketEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketEngine")
            .field("links", &self.links)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
