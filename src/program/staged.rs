//! GPUs that cannot read each other's memory: what crosses between them goes through pinned memory of the host.
//!
//! A transfer with a source on another GPU becomes a copy to the host by the source's device, a copy from there by the
//! transfer's own, and the transfer itself with what has arrived, so the order of additions stays. What goes out of a
//! round does so before anything comes in: else each device would wait until its neighbour is done.

use super::ir::{Buffer, BufferId, Instruction, Program, Slice};
use crate::placement::MemoryUse;
use crate::tensor::Strided;

/// Target = sum of the sources, for every target, done by a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sum {
    pub device: usize,
    pub sources: Vec<Slice>,
    pub targets: Vec<Slice>,
    /// Bytes that cross between devices.
    pub wire: usize,
    /// What it does beside the collective's own name.
    pub way: &'static str,
}

/// Returns true when a step reads or writes the host's memory.
pub(super) fn uses_host(program: &Program, step: &Instruction, devices: usize) -> bool {
    step.uses.iter().any(|u| program.buffers[u.buffer].device == devices)
}

/// Lowers the transfers of a collective for devices of different GPUs; adds the buffers that they need. The host is the
/// device after the last.
///
/// # Panics
/// When a device writes to another GPU, as the one-pass form does.
pub(super) fn through_host(sums: &[Sum], gpus: &[usize], buffers: &mut Vec<Buffer>) -> Vec<Sum> {
    let mut all = Vec::new();
    let mut rest = sums;
    while !rest.is_empty() {
        let (round, later) = rest.split_at(round(rest, gpus, buffers));
        let (mut out, mut own) = (Vec::new(), Vec::new());
        for sum in round {
            let near = |&(buffer, _): &Slice| gpus[buffers[buffer].device] == gpus[sum.device];
            assert!(sum.targets.iter().all(near), "GPUs that cannot reach each other sum around a ring");
            let mut sum = sum.clone();
            let copy = sum.sources.len() == 1;
            for source in &mut sum.sources {
                let from = buffers[source.0].device;
                if gpus[from] == gpus[sum.device] {
                    continue;
                }
                let (elements, bytes) = (source.1.elements(), source.1.elements() * buffers[source.0].element.bytes());
                let host = add(buffers, gpus.len(), source.0, elements);
                out.push(Sum {
                    device: from,
                    sources: vec![*source],
                    targets: vec![host],
                    wire: bytes,
                    way: " to the host",
                });
                sum.wire -= bytes;
                *source = host;
                if copy {
                    sum.way = " from the host";
                    continue;
                }
                let arrived = add(buffers, sum.device, source.0, elements);
                own.push(Sum {
                    device: sum.device,
                    sources: vec![host],
                    targets: vec![arrived],
                    wire: 0,
                    way: " from the host",
                });
                *source = arrived;
            }
            own.push(sum);
        }
        all.extend(out);
        all.extend(own);
        rest = later;
    }
    all
}

/// Returns how many of the transfers may have their sources copied out before the first of them is done: none reads
/// from another GPU what one before it writes.
fn round(sums: &[Sum], gpus: &[usize], buffers: &[Buffer]) -> usize {
    let far = |sum: &Sum, piece: &Slice| gpus[buffers[piece.0].device] != gpus[sum.device];
    let depends = |number: usize| {
        let sum = &sums[number];
        let mut before = sums[..number].iter().flat_map(|t| &t.targets);
        before.any(|t| sum.sources.iter().any(|s| far(sum, s) && s.0 == t.0 && s.1.overlaps(t.1)))
    };
    (1..sums.len()).find(|&number| depends(number)).unwrap_or(sums.len())
}

/// Adds a buffer for the elements of another.
fn add(buffers: &mut Vec<Buffer>, device: usize, of: BufferId, elements: usize) -> Slice {
    let Buffer { element, ref name, .. } = buffers[of];
    let purpose = MemoryUse::Communication;
    buffers.push(Buffer {
        device,
        elements,
        element,
        purpose,
        region: None,
        name: format!("{name} staged"),
        offset: 0,
    });
    (buffers.len() - 1, Strided::contiguous(0, elements))
}
