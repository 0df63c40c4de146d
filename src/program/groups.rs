//! The groups of devices that collectives connect.

use super::exchange::DeviceCollective;
use super::{Plan, Work};
use crate::collectives::NcclUse;

impl Plan {
    /// Returns the groups of devices among which a library sums, in the order in which they are first needed. Each needs a group of processes
    /// of its own, although these may be the same: two devices of a process may sum at the same time.
    pub(super) fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = Vec::new();
        let steps = self.programs.iter().flat_map(|program| &program.instructions);
        for step in steps.filter(|_| !self.spec.deterministic && self.spec.nccl == NcclUse::Never) {
            for (collective, _) in DeviceCollective::of(&step.work) {
                let group = collective.summed(&self.spec.processes);
                groups.extend(group.filter(|group| !groups.contains(group)));
            }
        }
        groups
    }

    /// Returns the elements of scratch memory that the messages of each device of this process need.
    pub fn scratch_of_messages(&self) -> Vec<usize> {
        let mut all = vec![0; self.own.len()];
        for step in self.programs.iter().flat_map(|program| &program.instructions) {
            for (collective, part) in DeviceCollective::of(&step.work) {
                let own = &mut all[part.device - self.own.start];
                *own = (*own).max(collective.scratch());
            }
        }
        all
    }

    /// Returns the groups of devices among which NCCL carries out collectives, in the order in which they are first needed.
    pub(super) fn nccl_groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for step in self.programs.iter().flat_map(|program| &program.instructions) {
            if let Work::Collective { peers, .. } = &step.work {
                let devices: Vec<usize> = peers.iter().map(|peer| peer.device).collect();
                if self.spec.nccl != NcclUse::Never && !groups.contains(&devices) {
                    groups.push(devices);
                }
            }
        }
        groups
    }
}
