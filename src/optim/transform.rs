//! The interface of a transform, and the elements that it transforms.

use super::opcode::Opcode;
use super::role::{Slot, UpdateRole};
use crate::cpu::Ranges;
use crate::error::Fault;
use crate::tensor::{Dual, Real};
use std::fmt::Debug;

/// The input of a transform: some consecutive elements of one parameter.
#[derive(Debug)]
pub struct Elements<'a, T> {
    /// The gradient left by the previous transforms, to be replaced by the transformed one.
    pub g: &'a mut [T],
    /// The weights.
    pub w: &'a [T],
    /// The transform's slots, which are initially zero and keep their values from step to step.
    pub slots: Slots<'a, T>,
    /// For each segment, the sum of squares of its parameter's whole gradient at this point in the chain; empty for
    /// transforms that do not need it.
    pub norms: &'a [T],
    /// The parameter's index in `norms`.
    pub segment: usize,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
}

/// The same elements of every slot of one transform.
#[derive(Debug)]
pub struct Slots<'a, T> {
    ranges: Ranges<'a, T, UpdateRole>,
    transform: usize,
}

impl<'a, T: Real> Slots<'a, T> {
    pub(super) fn of(transform: usize, ranges: &mut Ranges<'a, T, UpdateRole>) -> Self {
        let is_own = |role| matches!(role, UpdateRole::Slot(slot) if slot.transform == transform);
        Slots { ranges: ranges.lend(is_own), transform }
    }

    /// Takes the elements of a slot, by its name in [`Transform::slots`].
    ///
    /// # Panics
    /// If the transform has no such slot, or has already taken it.
    pub fn take(&mut self, name: &'static str) -> &'a mut [T] {
        self.ranges.write(UpdateRole::Slot(Slot { transform: self.transform, name }))
    }
}

/// Elements in the precision of the step.
#[derive(Debug)]
pub enum Block<'a> {
    /// Single precision.
    F32(Elements<'a, f32>),
    /// Double precision.
    F64(Elements<'a, f64>),
    /// Dual numbers.
    Dual(Elements<'a, Dual>),
}

/// One transform of the gradient.
pub trait Transform: Debug + Send + Sync {
    /// Returns its key in the file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault>;

    /// Returns true if it leaves every gradient as it is, as `momentum = 0.0` does: it is left out of the chain, so that
    /// sweeps of a setting can include 0.
    fn is_identity(&self) -> bool {
        false
    }

    /// Returns the names of its slots: the values that it keeps for each weight from step to step.
    fn slots(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns true if it reads the norms of the gradients, which must first be summed over all devices.
    fn needs_norm(&self) -> bool {
        false
    }

    /// Transforms the gradient of a block.
    fn apply(&self, block: Block);

    /// Returns the operation that the interpreter on a GPU executes.
    fn code(&self) -> Opcode;

    /// Returns a few transforms of this kind, for the shared test suite.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}

/// Returns true if a number is above 0 and neither 0 nor infinite in single precision.
pub fn is_single(x: f64) -> bool {
    x > 0.0 && x as f32 > 0.0 && (x as f32).is_finite()
}

/// Calls a function generic over the element type with the elements of a block.
macro_rules! by_block {
    ($block:expr, $elements:ident => $call:expr) => {
        match $block {
            $crate::optim::Block::F32($elements) => $call,
            $crate::optim::Block::F64($elements) => $call,
            $crate::optim::Block::Dual($elements) => $call,
        }
    };
}
pub(super) use by_block;

/// The element types that blocks hold.
pub(super) trait Blocks: Real {
    fn block(elements: Elements<Self>) -> Block;
}

impl Blocks for f32 {
    fn block(elements: Elements<Self>) -> Block {
        Block::F32(elements)
    }
}

impl Blocks for f64 {
    fn block(elements: Elements<Self>) -> Block {
        Block::F64(elements)
    }
}

impl Blocks for Dual {
    fn block(elements: Elements<Self>) -> Block {
        Block::Dual(elements)
    }
}
