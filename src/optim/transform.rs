//! The interface of a transform, and the elements that it transforms.

use super::role::{Slot, UpdateRole};
use crate::cpu::{Ranges, vectorized};
use crate::error::Fault;
use crate::gpu::kernels::TransformSettings;
use crate::settings::Settings;
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
    /// The number of this update since the transform joined the chain, from 1.
    pub update: u64,
    /// The learning rate of the parameter.
    pub lr: f64,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
    /// The norms that the transform requires.
    pub norms: Norms<'a, T>,
}

/// A norm that a transform requires, at its point in the chain: the Euclidean norm over all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Those of the gradients: of each parameter's, and of all together.
    Gradients,
    /// Those of the weights: of each parameter's.
    Weights,
    /// Those of each unit's gradient and weights, besides the other two. A unit is the weights of one output, or a whole vector.
    Units,
}

/// The sums of squares of each segment's gradients and weights; empty if no transform of the stage requires them.
#[derive(Debug, Clone, Copy)]
pub struct Norms<'a, T> {
    pub(super) gradients: &'a [T],
    pub(super) weights: &'a [T],
    pub(super) segment: usize,
    /// The first segment of the layer, and the one after its last.
    pub(super) layer: [usize; 2],
    /// Those of the units.
    pub(super) units: UnitNorms<'a, T>,
}

/// The sums of squares of units, and where the elements of a block are among them.
#[derive(Debug, Clone, Copy)]
pub struct UnitNorms<'a, T> {
    pub(super) gradients: &'a [T],
    pub(super) weights: &'a [T],
    /// The unit of the first element, and how many of its elements come before the block.
    pub(super) first: usize,
    pub(super) before: usize,
    /// The number of consecutive elements of a unit.
    pub(super) run: usize,
}

/// Consecutive elements of one unit.
#[derive(Debug, Clone, Copy)]
pub struct UnitRun<T> {
    /// The number of elements.
    pub len: usize,
    /// The norm of the whole unit's gradient.
    pub gradient: T,
    /// The norm of its weights.
    pub weights: T,
}

impl<T: Real> Norms<'_, T> {
    /// Returns the norm of the gradients of all parameters together.
    pub fn global(&self) -> T {
        self.gradients.iter().fold(T::ZERO, |sum, &norm| sum + norm).sqrt()
    }

    /// Returns the norm of this parameter's gradient.
    pub fn gradient(&self) -> T {
        self.gradients[self.segment].sqrt()
    }

    /// Returns the units of a block of `len` elements, in order.
    pub fn units(&self, len: usize) -> impl Iterator<Item = UnitRun<T>> {
        let UnitNorms { gradients, weights, first, before, run } = self.units;
        let end = move |unit: usize| ((unit + 1) * run - before).min(len);
        let units = if len == 0 { 0 } else { (before + len).div_ceil(run) };
        (0..units).map(move |unit| UnitRun {
            len: end(unit) - if unit == 0 { 0 } else { end(unit - 1) },
            gradient: gradients[first + unit].sqrt(),
            weights: weights[first + unit].sqrt(),
        })
    }

    /// Returns the norm of the gradients of the parameters of the same layer.
    pub fn layer(&self) -> T {
        self.gradients[self.layer[0]..self.layer[1]].iter().fold(T::ZERO, |sum, &norm| sum + norm).sqrt()
    }

    /// Returns the norm of this parameter's weights.
    pub fn weights(&self) -> T {
        self.weights[self.segment].sqrt()
    }
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
pub trait Transform: Settings + Debug + Send + Sync {
    /// Returns its key in the file.
    fn key(&self) -> &'static str;

    /// Checks its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns true if it leaves every gradient as it is, as `momentum = 0.0` does: it is left out of the chain, so that
    /// sweeps of a setting can include 0.
    fn is_identity(&self) -> bool {
        false
    }

    /// Returns the names of its slots: the values that it keeps for each weight from step to step.
    fn slots(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the norms that it requires, which are first summed over all devices.
    fn norms(&self) -> &'static [Norm] {
        &[]
    }

    /// Returns the largest global norm of the gradients that it leaves as it is, if it clips them by that.
    fn max_norm(&self) -> Option<f64> {
        None
    }

    /// Returns the decay d of the weights if it adds d w to the gradient, otherwise 0.
    fn decay(&self) -> f64 {
        0.0
    }

    /// Returns true if it decays weights, by a rate that is multiplied per parameter.
    fn uses_decay_mult(&self) -> bool {
        self.decay() != 0.0
    }

    /// Transforms the gradient of a block.
    fn apply(&self, block: Block);

    /// Returns its settings as kernels/optim/x.cuh declares them.
    fn on_gpu(&self) -> TransformSettings;

    /// Returns a few transforms of this kind, for the shared test suite.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}

/// Returns true if a number is above 0 and neither 0 nor infinite in single precision.
pub fn is_single(x: f64) -> bool {
    x > 0.0 && x as f32 > 0.0 && (x as f32).is_finite()
}

/// Returns x to the power n by repeated squaring, which unlike `powi` gives the same bits on every machine.
pub fn power(mut x: f64, mut n: u64) -> f64 {
    let mut product = 1.0;
    while n > 0 {
        if n % 2 == 1 {
            product *= x;
        }
        x *= x;
        n /= 2;
    }
    product
}

/// Returns 1, 0 or -1.
#[inline(always)]
pub(super) fn sign<T: Real>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        T::ZERO
    }
}

/// Scales gradients with this norm to the largest norm that is left as it is.
pub(super) fn limit<T: Real>(g: &mut [T], norm: T, most: T) {
    if norm > most {
        let factor = most / norm;
        vectorized(
            #[inline(always)]
            || g.iter_mut().for_each(|g| *g *= factor),
        );
    }
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
