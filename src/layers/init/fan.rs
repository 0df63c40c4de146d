//! Settings that several kinds of initial values have.

use super::InitialElement;
use crate::settings::values;
use serde::Deserialize;

/// The number that the variance of weights is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fan {
    /// The number of inputs of one output, which preserves the variance of the forward pass.
    In,
    /// The number of outputs of one input, which preserves that of the backward pass.
    Out,
    /// The mean of both.
    Average,
}

values! {
    Fan, "\"in\", \"out\" or \"average\"", fan => match fan {
        Fan::In => "\"in\"",
        Fan::Out => "\"out\"",
        Fan::Average => "\"average\"",
    }.to_string();
    Distribution, "\"normal\" or \"uniform\"", distribution => match distribution {
        Distribution::Normal => "\"normal\"",
        Distribution::Uniform => "\"uniform\"",
    }.to_string();
}

impl Fan {
    /// Returns the number for a parameter, at least 1.
    pub fn of(self, at: InitialElement) -> f64 {
        let (inputs, outputs) = (at.fan_in as f64, at.fan_out as f64);
        match self {
            Fan::In => inputs,
            Fan::Out => outputs,
            Fan::Average => (inputs + outputs) / 2.0,
        }
        .max(1.0)
    }
}

/// A distribution with mean 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// The normal distribution.
    Normal,
    /// The uniform distribution.
    Uniform,
}

impl Distribution {
    /// Returns an element with a variance.
    pub fn draw(self, at: InitialElement, variance: f64) -> f64 {
        match self {
            Distribution::Normal => variance.sqrt() * at.random.normal(at.index),
            Distribution::Uniform => (3.0 * variance).sqrt() * (2.0 * at.random.uniform(at.index) - 1.0),
        }
    }
}
