//! The interface of a kind of initial values.

use crate::device::Random;
use crate::error::Fault;
use crate::settings::Settings;
use crate::tensor::Shape;
use std::fmt::Debug;

/// An element of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct InitialElement<'a> {
    /// The random sequence of the parameter.
    pub random: &'a Random,
    /// The index of the element in the logical memory.
    pub index: u64,
    /// The number of inputs of one output.
    pub fan_in: usize,
    /// The number of outputs of one input.
    pub fan_out: usize,
}

/// A kind of initial values.
pub trait Initializer: Settings + Debug + Send + Sync {
    /// Returns its key in the file.
    fn key(&self) -> &'static str;

    /// Checks its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the value of an element.
    fn value(&self, at: InitialElement) -> f64;

    /// Returns the values of all elements, if they depend on one another. The first dim of the shape is the outputs.
    fn whole(&self, _shape: &Shape, _random: &Random) -> Option<Vec<f64>> {
        None
    }

    /// Returns the values of all elements, one for each of `outputs`, if they follow from the weight, the first parameter of the layer.
    fn of_weight(&self, _weight: &dyn Fn() -> Vec<f64>, _outputs: usize) -> Option<Vec<f64>> {
        None
    }

    /// Returns the value if it is the same for all elements.
    fn constant(&self) -> Option<f64> {
        None
    }

    /// Returns whether the weights are then scaled so that the outputs of the layer have unit variance.
    fn scales_outputs(&self) -> bool {
        false
    }

    /// Returns a few of this kind, for the shared tests.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}
