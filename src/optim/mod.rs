//! Turns gradients into updates: a chain of transforms, and the schedules of the learning rate. Does not depend on
//! networks or layers; works on flat regions in which each parameter's part is a [`Segment`].
//!
//! To add a transform: write `optim/x.rs` with a struct that implements [`Transform`], add one line to the list in
//! `transforms!` below, and add its [`Opcode`] to `optim/device.rs` and `kernels/optim.cu`. To add a schedule: write
//! its struct in `optim/schedule.rs`, and add it to the lists there.

mod chain;
mod clip_by_global_norm;
mod device;
mod momentum;
pub mod schedule;
mod weight_decay;

pub use chain::{Chain, Segment, Slot, UpdateArgs, UpdatePass, UpdateRole};
pub use clip_by_global_norm::ClipByGlobalNorm;
pub use device::{DeviceChain, Opcode};
pub use momentum::Momentum;
pub use schedule::{Interval, Schedule};
pub use weight_decay::WeightDecay;

use crate::cpu::Ranges;
use crate::error::Fault;
use crate::tensor::{Dual, Real};
use serde::Deserialize;
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
    fn of(transform: usize, ranges: &mut Ranges<'a, T, UpdateRole>) -> Self {
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
use by_block;

/// The element types that blocks hold.
trait Blocks: Real {
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

/// The list of transforms: the key in the file, and the type.
macro_rules! transforms {
    ($($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all transforms.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of the transform named `kind`. Returns `None` if there is no such transform.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn Transform>, D::Error>> {
            match kind {
                $($kind => Some(<$type>::deserialize(settings).map(|t| Box::new(t) as Box<dyn Transform>)),)*
                _ => None,
            }
        }

        /// Returns the examples of all transforms.
        pub fn all_examples() -> Vec<Box<dyn Transform>> {
            let mut all: Vec<Box<dyn Transform>> = Vec::new();
            $(all.extend(<$type>::examples().into_iter().map(|t| Box::new(t) as Box<dyn Transform>));)*
            all
        }
    };
}

transforms! {
    "clip_by_global_norm" => ClipByGlobalNorm,
    "momentum" => Momentum,
    "weight_decay" => WeightDecay,
}

#[cfg(test)]
mod tests;
