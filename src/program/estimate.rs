//! Estimates the time of a program by simulating its queues with the rates of a machine.
//!
//! The time of an instruction is the longest of its arithmetic at the machine's rate of products, its bytes at the rate
//! of memory, and its transfers at the rate of their link: between devices, or to or from the host. An instruction
//! starts when its queue is free and its events have been recorded. This is a model, not a measurement: use it to
//! compare plans.

use super::hardware::Hardware;
use super::rings::Ring;
use super::staged::uses_host;
use super::{Instruction, LocalOperand, Plan, Program, Work};
use crate::collectives::{Collective, NcclUse};
use crate::layers::{Pass, Role};
use crate::tensor::MatmulPrecision;

/// Returns the estimated seconds of one run of a program.
pub fn seconds(plan: &Plan, program: &Program, hardware: &Hardware) -> f64 {
    let mut finished: Vec<Vec<f64>> = Vec::new();
    for step in &program.instructions {
        let queue = step.queue_index();
        if finished.len() <= queue {
            finished.resize(queue + 1, Vec::new());
        }
        let own = finished[queue].last().copied().unwrap_or(0.0);
        let start = step.waits.iter().map(|&(q, count)| finished[q][count - 1]).fold(own, f64::max);
        finished[queue].push(start + step_seconds(plan, program, step, hardware));
    }
    finished.iter().filter_map(|queue| queue.last()).fold(0.0, |a, &b| a.max(b))
}

fn step_seconds(plan: &Plan, program: &Program, step: &Instruction, hardware: &Hardware) -> f64 {
    let bytes = step.uses.iter().map(|u| program.bytes(u)).sum::<usize>() as f64;
    let (flops, wire) = match &step.work {
        Work::Phase { node, pass, operands, .. } => (flops(plan, program, *node, *pass, operands), 0),
        Work::Sum { wire, .. } | Work::Collective { wire, .. } => (0.0, *wire),
        Work::Load { .. } | Work::Update { .. } => (0.0, 0),
    };
    let threads = if hardware.per_thread { plan.spec.target.threads() as f64 } else { 1.0 };
    let rate = hardware.flops_per_second[match plan.spec.products {
        MatmulPrecision::Full => 0,
        MatmulPrecision::Tf32 => 1,
        MatmulPrecision::Bf16 => 2,
    }];
    let arithmetic = flops / (rate * threads);
    let memory = bytes / hardware.memory_bytes_per_second;
    if let Some((collective, ring, bytes)) = nccl(plan, program, step, hardware) {
        return ring.seconds(collective, bytes);
    }
    let link = if uses_host(program, step, plan.spec.mesh.devices()) {
        program.bytes(&step.uses[0]) as f64 / hardware.host_bytes_per_second
    } else {
        wire as f64 / hardware.link_bytes_per_second
    };
    hardware.step_seconds + arithmetic.max(memory).max(link)
}

/// Returns what NCCL carries out in an instruction, if it does: the collective, its ring, and the bytes of the whole tensor.
pub(super) fn nccl(
    plan: &Plan,
    program: &Program,
    step: &Instruction,
    hardware: &Hardware,
) -> Option<(Collective, Ring, f64)> {
    let Work::Collective { collective, peers, parts, .. } = &step.work else { return None };
    if plan.spec.nccl == NcclUse::Never {
        return None;
    }
    // A process with several devices has a node for itself.
    let processes = plan.spec.processes.count();
    let each = plan.spec.mesh.devices() / processes;
    let of_node = if processes > 1 && each > 1 { each } else { hardware.devices_per_node };
    let ring = Ring::of(peers.iter().map(|peer| peer.device), of_node, hardware);
    let part = parts.first()?;
    let whole = match collective {
        Collective::AllReduce | Collective::ReduceScatter => part.from.1.elements(),
        _ => part.from.1.elements() * peers.len(),
    };
    // Gradients that are rounded cross as such.
    let element =
        part.scratch.map_or(program.buffers[part.to.0].element, |(buffer, _)| program.buffers[buffer].element);
    Some((*collective, ring, (whole * element.bytes()) as f64))
}

/// Returns the operations of a phase on its device. The device's share of the layer is its share of the samples times
/// that of the weight, or without a weight its share of the input.
fn flops(plan: &Plan, program: &Program, node: usize, pass: Pass, operands: &[(Role, LocalOperand)]) -> f64 {
    let node = &plan.network.nodes[node];
    let rows = program.variant.batch as f64;
    let share = |local: &LocalOperand| local.window.elements() as f64 / local.shape.elements().max(1) as f64;
    let find = |required: Role| operands.iter().find(|(role, _)| *role == required).map(|(_, local)| local);
    let input = [Role::X(0), Role::Dy].into_iter().find_map(find);
    let samples = input.map_or(0.0, |l| l.window.len.first().map_or(0.0, |&n| n as f64) / rows);
    let part = match find(Role::WEIGHT).filter(|weight| weight.shape.rank() > 1) {
        Some(weight) => samples * share(weight),
        None => input.map_or(0.0, share),
    };
    let passes = if pass == Pass::Backward { 2.0 } else { 1.0 };
    node.layer.cost(&node.input_shapes) as f64 * rows * part * passes
}
