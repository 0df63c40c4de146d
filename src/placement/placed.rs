//! The result of placement: the tensors and the operations of one step.

use super::flat::Flat;
use crate::collectives::Collective;
use crate::data::BatchPart;
use crate::device::Epilogue;
use crate::layers::{Access, Mode, Pass, Role};
use crate::optim::UpdateRole;
use crate::tensor::{Axis, Element, Layout, Precision, Shape};

/// A tensor of the step, as an index into [`Placed::tensors`].
pub type TensorId = usize;

/// The purpose of a tensor's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryUse {
    /// Parameters.
    Weights,
    /// Gradients of parameters.
    Gradients,
    /// State of the optimiser.
    Optimizer,
    /// Running statistics and metrics.
    Statistics,
    /// Inputs, outputs of layers, their gradients, and what layers keep for the backward pass.
    Activations,
    /// Scratch memory of one phase.
    Workspace,
    /// Copies in another layout, buffers of collectives.
    Communication,
}

/// Memory that outlives a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Region {
    /// All parameters of a device.
    Weights,
    /// The bf16 copy of the parameters, at the same offsets. Whatever writes the parameters, the optimiser or the host,
    /// writes both.
    Bf16Weights,
    /// Their gradients, at the same offsets.
    Gradients,
    /// The gradients of the earlier parts of a batch that is divided, at the same offsets.
    PartGradients,
    /// A state slot of the optimiser, at the same offsets.
    Slot(usize),
    /// Running statistics.
    Statistics,
    /// The metrics of the last batch, as [`Network::metrics`](crate::network::Network::metrics) lists them; then the number
    /// of devices on which one of them or a gradient was not finite, and of those on which a weight was not finite after
    /// the update. If [`Spec::keeps_norms`](super::Spec::keeps_norms), the norms by which the chain clips follow.
    Metrics,
    /// Two input buffers of a GPU, each for images and targets: the host fills one while an earlier step runs.
    InputStaging,
}

impl Region {
    /// The number of elements of [`Region::Metrics`] after those of the network.
    pub const COUNTS: usize = 2;

    /// Returns its element type when the program computes in `precision`.
    pub fn element(self, precision: Precision) -> Element {
        if self == Region::Bf16Weights { Element::Bf16 } else { Element::Real(precision) }
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Region::Weights => f.write_str("weights"),
            Region::Bf16Weights => f.write_str("bf16_weights"),
            Region::Gradients => f.write_str("gradients"),
            Region::PartGradients => f.write_str("part_gradients"),
            Region::Slot(number) => write!(f, "slot({number})"),
            Region::Statistics => f.write_str("statistics"),
            Region::Metrics => f.write_str("metrics"),
            Region::InputStaging => f.write_str("input_staging"),
        }
    }
}

/// The location of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a buffer of its own, for as long as the step needs it.
    Own,
    /// In the memory of another tensor: a view, or the result of an in-place operation.
    Alias(TensorId),
    /// At an element offset in a region.
    Fixed(Region, usize),
}

/// A logical tensor in one layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name in plans.
    pub name: String,
    /// Shape of the whole tensor.
    pub shape: Shape,
    /// Its layout, which determines the part that each device holds.
    pub layout: Layout,
    /// Its location.
    pub home: Home,
    /// Its purpose.
    pub purpose: MemoryUse,
    /// Its element type.
    pub element: Element,
}

/// One of the two tensors of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The images.
    Images,
    /// The targets.
    Targets,
}

/// An operation of the step, which every device executes on its part.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Loads the device's window of the batch.
    Load {
        /// The tensor of the batch.
        input: Input,
        /// The destination.
        to: TensorId,
    },
    /// A phase of a layer.
    Phase {
        /// The node.
        node: usize,
        /// Forward or backward.
        pass: Pass,
        /// The name of the phase.
        phase: &'static str,
        /// The operands, without those that no operation needs.
        operands: Vec<(Role, TensorId, Access)>,
        /// The epilogue that it applies to its output, and the node that this replaces.
        epilogue: Option<(Epilogue, usize)>,
    },
    /// A redistribution along one axis.
    Move {
        /// The collective.
        collective: Collective,
        /// The axis.
        axis: Axis,
        /// The source.
        from: TensorId,
        /// The result.
        to: TensorId,
    },
    /// The sum of gradients of several consumers.
    Add {
        /// The terms, all in the same layout.
        terms: Vec<TensorId>,
        /// The sum.
        to: TensorId,
        /// The output of a relu, in the same layout, if the sum is 0 where that is not positive.
        mask: Option<TensorId>,
    },
    /// A stage of the optimiser's chain.
    Update {
        /// The index of the stage.
        stage: usize,
        /// The bucket of gradients that is checked while the backward pass continues; `None` if the stage works on all
        /// gradients.
        bucket: Option<usize>,
        /// The operands.
        operands: Vec<(UpdateRole, TensorId, Access)>,
    },
}

/// The kind of step that a list of operations performs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// Training or evaluation.
    pub mode: Mode,
    /// The samples that it runs on, over all devices.
    pub batch: usize,
    /// The samples that the loss is divided by: those of the whole batch of an update.
    pub divisor: usize,
    /// The part of that batch.
    pub part: BatchPart,
    /// Whether the optimiser runs. If not, a training step only leaves gradients to be read or added to.
    pub update: bool,
}

impl Variant {
    /// Returns a training step on a whole batch.
    pub fn train(batch: usize) -> Self {
        Variant { mode: Mode::Train, batch, divisor: batch, part: BatchPart::Whole, update: true }
    }

    /// Returns a training step on a whole batch that only leaves gradients to be read.
    pub fn gradients(batch: usize) -> Self {
        Variant { update: false, ..Self::train(batch) }
    }

    /// Returns an evaluation of a batch.
    pub fn eval(batch: usize) -> Self {
        Variant { mode: Mode::Eval, ..Self::gradients(batch) }
    }

    /// Returns the step of a part of a training batch of `whole` samples, the last of which updates the weights if
    /// `update`.
    pub fn of_part(rows: usize, whole: usize, part: BatchPart, update: bool) -> Self {
        Variant { divisor: whole, part, update: update && part.is_last(), ..Self::train(rows) }
    }
}

/// The operations of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placed {
    /// The kind of step.
    pub variant: Variant,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// The flat regions of parameters.
    pub flat: Flat,
    /// Layout and offset of each running statistic in its region.
    pub statistics: Vec<(Layout, usize)>,
}

impl Placed {
    /// Returns the tensor whose memory a tensor uses.
    pub fn root(&self, mut id: TensorId) -> TensorId {
        while let Home::Alias(of) = self.tensors[id].home {
            id = of;
        }
        id
    }
}
