//! What an observer is shown of a step while it runs.

use super::{LocalOperand, Program, Work};
use crate::error::Result;
use crate::layers::{Access, Pass, Role};
use crate::tensor::Element;
use std::collections::HashMap;
use std::ops::Range;

/// What is shown of a step while it runs. The threads of several devices call it at once.
pub trait Observer: Send + Sync {
    /// Returns the most values of a node's output, or of what a loss reads, that are shown on each device, 0 for none. All values of at least one sample are
    /// shown.
    fn most_values(&self, node: usize) -> usize;

    /// Shows a node's output on a device, or what a loss reads: its first samples.
    fn output(&self, node: usize, window: &LocalOperand, values: &[f64]);

    /// Shows the gradients of the whole batch on a device, before the optimiser reads them. `read` returns elements of
    /// [`Region::Gradients`](crate::placement::Region::Gradients).
    ///
    /// # Errors
    /// Those of `read`.
    fn gradients(&self, device: usize, read: &dyn Fn(Range<usize>) -> Result<Vec<f64>>) -> Result<()>;
}

/// What an observer is shown with an instruction.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// After it, a part of a node's output, or of what a loss reads.
    Output { node: usize, operand: LocalOperand, at: ArenaPart },
    /// Before it, the gradients.
    Gradients { byte: usize },
}

/// Where values are in the arena of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArenaPart {
    pub byte: usize,
    pub elements: usize,
    pub element: Element,
}

/// Returns the instructions of a program with which an observer is shown something, by their index.
pub(super) fn shown(program: &Program, gradients: usize, observer: &dyn Observer) -> HashMap<usize, Shown> {
    let mut outputs: HashMap<(usize, usize), (usize, &LocalOperand)> = HashMap::new();
    let mut updates: HashMap<usize, usize> = HashMap::new();
    for (index, step) in program.instructions.iter().enumerate() {
        match &step.work {
            Work::Phase { node, pass: Pass::Forward, operands, epilogue, .. } => {
                // An epilogue is the output of the node that it replaces.
                let node = epilogue.map_or(*node, |(_, replaced)| replaced);
                let writes = |(role, local): &&(Role, LocalOperand)| {
                    *role == Role::Y && matches!(local.access, Access::Write | Access::Update)
                };
                // A loss has metrics in place of an output.
                let is_loss = operands.iter().any(|(role, _)| *role == Role::Metrics);
                let reads = |(role, _): &&(Role, LocalOperand)| is_loss && *role == Role::X(0);
                if let Some((_, local)) = operands.iter().find(writes).or_else(|| operands.iter().find(reads)) {
                    outputs.insert((step.device, node), (index, local));
                }
            }
            Work::Update { bucket: None, .. } => drop(updates.entry(step.device).or_insert(index)),
            _ => {}
        }
    }
    let mut all = HashMap::new();
    for ((_, node), (index, local)) in outputs {
        let (most, rows) = (observer.most_values(node), local.window.len[0]);
        if most == 0 || local.window.elements() == 0 {
            continue;
        }
        let row = local.window.elements() / rows;
        let elements = (most / row).clamp(1, rows) * row;
        let buffer = &program.buffers[local.buffer];
        let byte = buffer.offset + local.offset * buffer.element.bytes();
        let at = ArenaPart { byte, elements, element: buffer.element };
        all.insert(index, Shown::Output { node, operand: local.clone(), at });
    }
    all.extend(updates.into_values().map(|index| (index, Shown::Gradients { byte: gradients })));
    all
}
