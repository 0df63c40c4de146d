//! The operands of the update, and their roles.

use crate::cpu::Args;

/// The role of an operand of the update. The norms have one element per segment, the metrics those of the loss layer, and
/// each of the two counts one element; the others are whole flat regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateRole {
    /// The weights.
    Weights,
    /// The gradients.
    Gradients,
    /// The squared norm of each segment's gradient.
    Norms,
    /// The metrics of the batch.
    Metrics,
    /// The number of devices on which the loss or a gradient is not finite. Unless it is 0, nothing is updated.
    NonFiniteGradients,
    /// The number of devices on which the update made a weight that is not finite.
    NonFiniteWeights,
    /// The bf16 copy of the weights.
    LowPrecision,
    /// A slot of a transform.
    Slot(Slot),
}

/// The arguments of a stage on a CPU device.
pub type UpdateArgs<'a> = Args<'a, UpdateRole>;

/// A value that a transform of a chain keeps for each weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The transform's index in the chain.
    pub transform: usize,
    /// The slot's name.
    pub name: &'static str,
}
