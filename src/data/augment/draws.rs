//! The random numbers of an augmentation.

use super::axes::ColorAxes;
use crate::device::Random;

/// The random numbers of one augmentation of one image, and the colours of the training set.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    random: Random,
    /// The counter of its first number.
    first: u64,
    colors: ColorAxes,
}

impl Draws {
    /// Returns the numbers of a stream from a counter on, with the colours of independent, uniform pixels.
    pub(in crate::data) fn new(random: Random, first: u64) -> Self {
        Draws { random, first, colors: ColorAxes::UNIFORM }
    }

    /// Returns the same numbers with other colours.
    pub(super) fn with_colors(self, colors: ColorAxes) -> Self {
        Draws { colors, ..self }
    }

    /// Returns number `index`, uniform in [0, 1).
    pub fn uniform(&self, index: u64) -> f64 {
        self.random.uniform(self.first + index)
    }

    /// Returns number `index`, a whole number uniform in 0..end.
    pub fn below(&self, index: u64, end: u64) -> u64 {
        self.random.below(self.first + index, end)
    }

    /// Returns number `index`, standard normal.
    pub fn normal(&self, index: u64) -> f64 {
        self.random.normal(self.first + index)
    }

    /// Returns the axes of the colours of the training set; those of independent, uniform pixels if no augmentation of the run uses them.
    pub fn colors(&self) -> ColorAxes {
        self.colors
    }
}
