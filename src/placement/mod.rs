//! Where it lives: a layout for every tensor on the mesh, and the redistributions between them.
//!
//! [`place`] turns a network into the list of operations of one step, the same for every device. Between phases one
//! table (`builder.rs`) inserts what is missing: partial to replicate is an all-reduce, partial to shard a
//! reduce-scatter, shard to replicate an all-gather, replicate to shard a local slice, shard to another shard an
//! all-to-all. Knows no bytes, queues or events.

mod builder;
mod flat;
mod resolve;
mod spec;
mod update;

pub use builder::place;
pub use flat::{Bucket, Flat, FlatRange};
pub use resolve::{Resolved, resolve};
pub use spec::{Peers, Spec};

use crate::collectives::Collective;
use crate::device::Epilogue;
use crate::layers::{Access, Mode, Pass, Role};
use crate::optim::UpdateRole;
use crate::tensor::{Axis, Element, Layout, Precision, Shape};

/// A tensor of the step, as an index into [`Placed::tensors`].
pub type TensorId = usize;

/// What a tensor's bytes are for.
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
    /// The parameters in bf16, at the same offsets: what writes parameters, the optimiser or the host, writes both.
    Bf16Weights,
    /// Their gradients, at the same offsets.
    Gradients,
    /// A state slot of the optimiser, at the same offsets.
    Slot(usize),
    /// Running statistics.
    Statistics,
    /// The loss and counts of the last batch.
    Metrics,
    /// Where the host puts batches for a GPU while an earlier step runs: images and targets, twice.
    InputStaging,
}

impl Region {
    /// Returns how its elements lie in memory when the program computes in `precision`.
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
            Region::Slot(number) => write!(f, "slot({number})"),
            Region::Statistics => f.write_str("statistics"),
            Region::Metrics => f.write_str("metrics"),
            Region::InputStaging => f.write_str("input_staging"),
        }
    }
}

/// Where a tensor's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a buffer of its own, for as long as the step needs it.
    Own,
    /// Where another tensor is: a view, or the result of an operation in place.
    Alias(TensorId),
    /// At an element offset of a region.
    Fixed(Region, usize),
}

/// A logical tensor in one layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name for plans.
    pub name: String,
    /// Shape of the whole.
    pub shape: Shape,
    /// What each device holds.
    pub layout: Layout,
    /// Where it is.
    pub home: Home,
    /// What it is for.
    pub purpose: MemoryUse,
    /// How its elements lie in memory.
    pub element: Element,
}

/// What a batch brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The images.
    Images,
    /// The targets.
    Targets,
}

/// An operation of the step, done by every device on its part.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Brings the device's window of the batch.
    Load {
        /// What.
        input: Input,
        /// Where to.
        to: TensorId,
    },
    /// A phase of a layer.
    Phase {
        /// The node.
        node: usize,
        /// Forward or backward.
        pass: Pass,
        /// Which of its phases.
        phase: &'static str,
        /// The operands; those that nobody requires are absent.
        operands: Vec<(Role, TensorId, Access)>,
        /// What it does to its output, and the node whose output that is.
        epilogue: Option<(Epilogue, usize)>,
    },
    /// A redistribution along one axis.
    Move {
        /// Which one.
        collective: Collective,
        /// Along which axis.
        axis: Axis,
        /// The tensor as it is.
        from: TensorId,
        /// The tensor as it is wanted.
        to: TensorId,
    },
    /// A copy in another element type.
    Cast {
        /// The tensor as it is.
        from: TensorId,
        /// The copy, in the same layout.
        to: TensorId,
    },
    /// The sum of gradients of several consumers.
    Add {
        /// The terms, all in the same layout.
        terms: Vec<TensorId>,
        /// The sum.
        to: TensorId,
    },
    /// A stage of the optimiser's chain.
    Optim {
        /// Which of the chain's stages.
        stage: usize,
        /// The operands.
        operands: Vec<(UpdateRole, TensorId, Access)>,
    },
}

/// Which step a list of operations is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// Training or evaluation.
    pub mode: Mode,
    /// Samples in the global batch.
    pub batch: usize,
    /// Whether the optimiser runs; without it a training step leaves the gradients to be read.
    pub update: bool,
}

/// The operations of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placed {
    /// Which step they are.
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
