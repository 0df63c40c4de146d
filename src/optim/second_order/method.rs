//! The interface of a second-order method, and the function that it minimises.

use crate::error::{Fault, Result};
use crate::settings::Settings;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A function of many variables: the loss of one batch as a function of the trained weights.
pub trait Objective {
    /// Returns the value and the gradient at a point.
    ///
    /// # Errors
    /// When it cannot be computed; values that are not finite are no error.
    fn evaluate(&mut self, w: &[f64]) -> Result<(f64, Vec<f64>)>;

    /// Returns the product of the Hessian at a point with a vector.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn product(&mut self, w: &[f64], v: &[f64]) -> Result<Vec<f64>>;
}

/// The point from which an update starts.
#[derive(Debug, Clone, Copy)]
pub struct StartPoint<'a> {
    /// The trained weights.
    pub w: &'a [f64],
    /// The value of the function.
    pub value: f64,
    /// Its gradient.
    pub gradient: &'a [f64],
    /// The learning rate: the step length that is tried first, in units of the method's own step.
    pub lr: f64,
}

/// What a method keeps from update to update.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MethodState {
    /// Numbers, by name.
    pub numbers: BTreeMap<String, f64>,
    /// Vectors of one value per trained weight, in the order of [`Method::vector_name`].
    pub vectors: Vec<Vec<f64>>,
}

/// An update that a method chose.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodStep {
    /// The weights after it; those before it, if the method found no better ones.
    pub w: Vec<f64>,
    /// What is reported of it, by name.
    pub report: Vec<(&'static str, f64)>,
}

/// A second-order method.
pub trait Method: Settings + Debug + Send + Sync {
    /// Returns its key in the file.
    fn key(&self) -> &'static str;

    /// Checks its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the L2 penalty d: d/2 times the sum of the squared weights is added to the loss.
    fn weight_decay(&self) -> f64;

    /// Returns whether it uses products with the Hessian.
    fn uses_products(&self) -> bool {
        false
    }

    /// Returns the most weights that it can train.
    fn most_weights(&self) -> usize {
        usize::MAX
    }

    /// Returns the bytes that it needs for so many weights, besides the point and its gradient.
    fn bytes(&self, weights: usize) -> u64;

    /// Returns the name of a vector of its state in files.
    fn vector_name(&self, index: usize) -> String {
        index.to_string()
    }

    /// Chooses an update.
    ///
    /// # Errors
    /// Those of the function.
    fn step(&self, state: &mut MethodState, function: &mut dyn Objective, start: StartPoint) -> Result<MethodStep>;

    /// Returns a few methods of this kind, for the shared test suite.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}
