//! A device's part in a collective between processes: messages, sums, messages.

use super::sum::SumTask;
use crate::cluster::{Received, Sent, Team};
use crate::device::MemorySlice;
use crate::error::Result;

/// Messages that are sent and received at the same time. Each is one run of elements in memory.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Copies that make one run of the elements of a message.
    pub pack: Vec<SumTask>,
    /// The messages to other devices.
    pub outgoing: Vec<(usize, MemorySlice)>,
    /// The messages from other devices.
    pub incoming: Vec<(usize, MemorySlice)>,
    /// Copies that put the elements of messages in their places.
    pub unpack: Vec<SumTask>,
}

impl Round {
    fn run(&self, device: usize, team: &Team) -> Result<()> {
        self.pack.iter().for_each(SumTask::run);
        // SAFETY: the events that order the instruction order these reads, and no message of this round overlaps another one
        // that is received.
        let outgoing: Vec<Sent> = self.outgoing.iter().map(|(to, slice)| (*to, unsafe { slice.bytes() })).collect();
        // SAFETY: as above.
        let mut incoming: Vec<Received> =
            self.incoming.iter().map(|(from, slice)| (*from, unsafe { slice.bytes_mut() })).collect();
        team.exchange(device, &outgoing, &mut incoming)?;
        self.unpack.iter().for_each(SumTask::run);
        Ok(())
    }
}

/// What a device does in a collective: it exchanges terms, adds, and exchanges sums.
#[derive(Debug, Clone)]
pub struct ExchangeTask {
    /// The device, among those of all processes.
    pub device: usize,
    /// The terms.
    pub terms: Round,
    /// The additions.
    pub sums: Vec<SumTask>,
    /// The sums.
    pub totals: Round,
}

impl ExchangeTask {
    /// Carries it out; returns when the last message has arrived.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn run(&self, team: &Team) -> Result<()> {
        self.terms.run(self.device, team)?;
        self.sums.iter().for_each(SumTask::run);
        self.totals.run(self.device, team)
    }
}
