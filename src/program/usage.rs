//! The memory of a device's arena by purpose.

use super::{AllocatedRegion, Plan};
use crate::placement::{MemoryUse, Region};

/// The bytes of one device's arena by purpose. A byte that serves several purposes in turn counts for the first of
/// activations, workspace and communication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The whole arena.
    pub arena: usize,
    /// Parameters.
    pub weights: usize,
    /// Gradients of parameters.
    pub gradients: usize,
    /// The optimiser's state.
    pub optimizer: usize,
    /// Running statistics and metrics.
    pub statistics: usize,
    /// Inputs, outputs and their gradients.
    pub activations: usize,
    /// Scratch memory of phases.
    pub workspace: usize,
    /// Redistributed copies and buffers of collectives.
    pub communication: usize,
}

impl Plan {
    /// Returns the bytes of a device's arena by purpose.
    pub fn usage(&self, device: usize) -> Usage {
        let mut usage = Usage { arena: self.arena[device], ..Usage::default() };
        for &AllocatedRegion { region, elements, .. } in &self.regions.all {
            let field = match region {
                Region::Weights | Region::Bf16Weights => &mut usage.weights,
                Region::Gradients | Region::PartGradients => &mut usage.gradients,
                Region::Slot(_) => &mut usage.optimizer,
                Region::Statistics | Region::Metrics => &mut usage.statistics,
                Region::InputStaging => &mut usage.activations,
            };
            *field += elements * region.element(self.spec.precision).bytes();
        }
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for purpose in [MemoryUse::Activations, MemoryUse::Workspace, MemoryUse::Communication] {
            let before = total(&covered);
            let own = self
                .programs
                .iter()
                .flat_map(|p| &p.buffers)
                .filter(|b| b.device == device && b.region.is_none() && b.purpose == purpose && b.elements > 0);
            covered.extend(own.map(|b| (b.offset, b.offset + b.bytes())));
            covered = merged(covered);
            let field = match purpose {
                MemoryUse::Activations => &mut usage.activations,
                MemoryUse::Workspace => &mut usage.workspace,
                _ => &mut usage.communication,
            };
            *field = total(&covered) - before;
        }
        usage
    }
}

fn total(ranges: &[(usize, usize)]) -> usize {
    ranges.iter().map(|(start, end)| end - start).sum()
}

fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut out: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}
