//! The size of a plan, before it is made.

use crate::collectives::{Collective, CollectiveAlgorithm, NcclUse};
use crate::error::Problem;
use crate::network::Network;
use crate::optim::Chain;
use crate::placement::{self, Op, Placed, Spec};
use crate::tensor::Axis;

/// The largest number of uses of buffers in the programs of a run: planning takes about 3 microseconds and 300 bytes for
/// each.
pub const MOST_USES: usize = 1 << 22;

/// Returns about how many uses of buffers the programs of a network have on all devices together.
///
/// # Errors
/// Every split that does not fit its layer.
pub fn num_uses(network: &Network, chain: &Chain, spec: &Spec) -> Result<usize, Vec<Problem>> {
    let place = |&variant| placement::place(network, chain, spec, variant);
    spec.variants.iter().map(place).try_fold(0, |sum, placed| Ok(sum + uses(&placed?, spec)))
}

fn uses(placed: &Placed, spec: &Spec) -> usize {
    // Of a collective that is left whole, each device has its own tensor and scratch memory, and perhaps copies on the host.
    let is_whole = |axis: Axis| {
        spec.nccl == NcclUse::Always || spec.mesh.groups(axis).iter().any(|group| !spec.processes.is_one(group))
    };
    let whole = Axis::INNER_FIRST.map(|axis| (axis, is_whole(axis)));
    let is_whole = |axis: Axis| whole.iter().any(|(other, whole)| *other == axis && *whole);
    let on_device = |op: &Op| match op {
        Op::Move { collective, axis, .. } if *collective != Collective::Slice && is_whole(*axis) => 6,
        Op::Move { collective, axis, .. } => {
            let n = spec.mesh.size(*axis);
            match (collective, spec.algorithm) {
                (Collective::Slice, _) => 2,
                (Collective::AllReduce, CollectiveAlgorithm::Ring) => 5 * n,
                (Collective::ReduceScatter, CollectiveAlgorithm::Ring) => 3 * n,
                (Collective::ReduceScatter, CollectiveAlgorithm::OnePass) => n + 1,
                _ => 2 * n,
            }
        }
        Op::Phase { operands, .. } => operands.len() + 1,
        Op::Update { operands, .. } => operands.len(),
        Op::Add { terms, mask, .. } => terms.len() + 1 + usize::from(mask.is_some()),
        Op::Load { .. } => 2,
    };
    placed.ops.iter().map(on_device).sum::<usize>() * spec.mesh.devices()
}
