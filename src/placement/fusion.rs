//! On GPUs, a relu costs no pass of its own where a layer next to it reads or writes the same tensors: the layer before
//! it applies it to its output, and a layer before or after it takes in its backward pass.

use super::planner::Planner;
use crate::device::Epilogue;
use crate::layers::{Phase, ReluMask, Role};
use crate::network::Source;

impl Planner<'_> {
    /// Returns the epilogue that a phase can apply to its output, and the node that it replaces. That node must be the
    /// only consumer of the output, and its own output must have the same layout.
    pub(super) fn epilogue(&self, index: usize, phase: &Phase) -> Option<(Epilogue, usize)> {
        let (network, mesh) = (self.network, self.spec.mesh);
        if !self.spec.target.is_gpu() || phase.epilogues.is_empty() {
            return None;
        }
        let [next] = self.consumers[index][..] else { return None };
        let mut operands = self.resolved[next].phases.forward.iter().flat_map(|phase| &phase.operands);
        let layout = operands.find(|operand| operand.role == Role::Y)?.layout.on_mesh(mesh);
        let same = self.placed.tensors[self.outputs[index]].layout == layout;
        let epilogue = network.nodes[next].layer.as_epilogue()?;
        (same && phase.epilogues.contains(&epilogue)).then_some((epilogue, next))
    }

    /// Gives a phase the backward pass of a relu next to its layer, and returns the relu. The relu before a layer must
    /// have no other consumer, and its output the layout in which the phase writes its gradient.
    pub(super) fn take_relu(&mut self, index: usize, phase: &Phase) -> Option<usize> {
        let network = self.network;
        if !self.spec.target.is_gpu() {
            return None;
        }
        match phase.mask.as_ref()?.0 {
            ReluMask::After => self.nodes[index].masks,
            ReluMask::Before => {
                let Source::Node(relu) = network.nodes[index].inputs[0] else { return None };
                let dx = phase.operands.iter().find(|operand| operand.role == Role::Dx(0))?;
                let same = self.placed.tensors[self.outputs[relu]].layout == dx.layout.on_mesh(self.spec.mesh);
                let single = self.consumers[relu] == [index] && self.needs_gradient(Source::Node(relu));
                let is_relu = network.nodes[relu].layer.as_epilogue() == Some(Epilogue::Relu);
                self.nodes[relu].masked = is_relu && single && same;
                self.nodes[relu].masked.then_some(relu)
            }
        }
    }

    /// Leaves the backward pass of a relu to the node after it, which has taken it, or to the one before it, which
    /// computes its forward pass, if all of that node's phases that read the gradient can. Returns false if nobody
    /// takes it.
    pub(super) fn give_to_neighbour(&mut self, index: usize) -> bool {
        if self.nodes[index].masked {
            return true;
        }
        let Source::Node(before) = self.network.nodes[index].inputs[0] else { return false };
        if !self.nodes[index].fused {
            return false;
        }
        let reads_dy = |phase: &&Phase| phase.operands.iter().any(|operand| operand.role == Role::Dy);
        let mut readers = self.resolved[before].phases.backward.iter().filter(reads_dy).peekable();
        let can = |phase: &Phase| matches!(phase.mask, Some((ReluMask::After, _)));
        if readers.peek().is_none() || !readers.all(can) {
            return false;
        }
        self.nodes[before].masks = Some(index);
        true
    }

    /// Leaves the backward pass of a relu to the sum of its gradients, if there are several, in the layout of its
    /// output. Returns false otherwise.
    pub(super) fn give_to_sum(&mut self, index: usize) -> bool {
        let node = &self.network.nodes[index];
        let is_relu = node.layer.as_epilogue() == Some(Epilogue::Relu);
        if !self.spec.target.is_gpu() || !is_relu || self.nodes[index].dy.len() < 2 {
            return false;
        }
        let y = self.outputs[index];
        let layout = self.placed.tensors[y].layout;
        if self.nodes[index].dy.iter().any(|&term| self.placed.tensors[term].layout != layout) {
            return false;
        }
        let terms = std::mem::take(&mut self.nodes[index].dy);
        let sum = self.add(&format!("{}.dy", node.name), terms, Some(y));
        self.nodes[index].dy = vec![sum];
        true
    }
}
