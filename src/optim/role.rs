//! The operands of the update, and their roles.

use crate::cpu::Args;

/// The role of an operand of the update. The norms have one element per segment; the others are whole flat regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateRole {
    /// The weights.
    Weights,
    /// The gradients.
    Gradients,
    /// The squared norm of each segment's gradient.
    Norms,
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
