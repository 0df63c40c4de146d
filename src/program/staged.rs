//! Transfers between GPUs that cannot read each other's memory, through pinned host memory.
//!
//! A transfer with a source on another GPU becomes a copy to the host by the source's device, a copy from the host by
//! the transfer's own device, and the transfer itself on the copied data, so the order of additions is unchanged. All
//! copies to the host in a round precede all copies from it; otherwise each device would wait for its neighbour to
//! finish.

use super::ir::{Buffer, BufferId, Instruction, Program, Slice};
use crate::placement::MemoryUse;
use crate::tensor::Strided;

/// Sets every target to the sum of the sources, on a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sum {
    pub device: usize,
    pub sources: Vec<Slice>,
    pub targets: Vec<Slice>,
    /// Bytes that cross between devices.
    pub wire: usize,
    /// A suffix for the name of the collective that describes the copy.
    pub way: &'static str,
}

/// Returns true if an instruction reads or writes host memory.
pub(super) fn uses_host(program: &Program, step: &Instruction, devices: usize) -> bool {
    step.uses.iter().any(|u| program.buffers[u.buffer].device >= devices)
}

/// Lowers the transfers of a collective for devices on different GPUs, and adds the buffers that they need; `host` is the
/// number of the host memory.
///
/// # Panics
/// If a device writes to another GPU, as the one-pass algorithm does.
pub(super) fn through_host(sums: &[Sum], gpus: &[usize], host: usize, buffers: &mut Vec<Buffer>) -> Vec<Sum> {
    let mut all = Vec::new();
    let mut rest = sums;
    while !rest.is_empty() {
        let (round, later) = rest.split_at(round(rest, gpus, buffers));
        let (mut out, mut own) = (Vec::new(), Vec::new());
        for sum in round {
            let near = |&(buffer, _): &Slice| gpus[buffers[buffer].device] == gpus[sum.device];
            assert!(sum.targets.iter().all(near), "GPUs without peer access use ring collectives");
            let mut sum = sum.clone();
            let copy = sum.sources.len() == 1;
            for source in &mut sum.sources {
                let from = buffers[source.0].device;
                if gpus[from] == gpus[sum.device] {
                    continue;
                }
                let (elements, bytes) = (source.1.elements(), source.1.elements() * buffers[source.0].element.bytes());
                let copied = add(buffers, host, source.0, elements);
                out.push(Sum {
                    device: from,
                    sources: vec![*source],
                    targets: vec![copied],
                    wire: bytes,
                    way: " to the host",
                });
                sum.wire -= bytes;
                *source = copied;
                if copy {
                    sum.way = " from the host";
                    continue;
                }
                let arrived = add(buffers, sum.device, source.0, elements);
                own.push(Sum {
                    device: sum.device,
                    sources: vec![copied],
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

/// Returns how many transfers form a round: their sources may be copied out before the first of them runs, because none
/// reads from another GPU what an earlier one writes.
fn round(sums: &[Sum], gpus: &[usize], buffers: &[Buffer]) -> usize {
    let far = |sum: &Sum, piece: &Slice| gpus[buffers[piece.0].device] != gpus[sum.device];
    let depends = |number: usize| {
        let sum = &sums[number];
        let mut before = sums[..number].iter().flat_map(|t| &t.targets);
        before.any(|t| sum.sources.iter().any(|s| far(sum, s) && s.0 == t.0 && s.1.overlaps(t.1)))
    };
    (1..sums.len()).find(|&number| depends(number)).unwrap_or(sums.len())
}

/// Adds a buffer that stages elements of another one.
pub(super) fn add(buffers: &mut Vec<Buffer>, device: usize, of: BufferId, elements: usize) -> Slice {
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
