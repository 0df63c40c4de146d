//! The report on a network at its initial values.

use super::values::{ValueSummary, mean_and_std};
use crate::layers::Activation;
use crate::train::watch::saturation;
use serde::Serialize;

/// The report on a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitReport {
    /// The name of the network.
    pub network: String,
    /// The seed.
    pub seed: u64,
    /// The number of samples in the batch.
    pub samples: usize,
    /// The loss of the batch.
    pub loss: f64,
    /// The layers other than losses, in the order of the network.
    pub layers: Vec<LayerReport>,
    /// Sentences on what is unusual; empty if nothing is.
    pub verdict: Vec<String>,
}

/// The report on a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// Its name.
    pub name: String,
    /// Its key in the file.
    pub kind: &'static str,
    /// The shape of its output for one sample: (H, W, C).
    pub shape: [usize; 3],
    /// The number of layers with weights from the images up to this one, if a layer with weights reads its output; then it is a
    /// hidden layer.
    pub hidden_depth: Option<usize>,
    /// Its outputs.
    pub activations: ActivationSummary,
    /// The gradient of the loss with respect to its outputs.
    pub gradients: ValueSummary,
    /// Its parameters.
    pub parameters: Vec<ParameterSummary>,
}

/// The outputs of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActivationSummary {
    /// The values.
    #[serde(flatten)]
    pub values: ValueSummary,
    /// The share of values that are saturated: above 0.99 in size for tanh, within 0.01 of 0 or 1 for sigmoid, and where the
    /// function is flat for hard_sigmoid, hard_swish (0) and relu6 (6; its zeros are counted as such, as those of relu).
    /// None for other layers.
    pub saturated: Option<f64>,
    /// The share of values that are 0.
    pub zeros: f64,
    /// The share of units (channels, or after flatten features) that are 0 for all samples.
    pub dead: f64,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterSummary {
    /// Its name.
    pub name: String,
    /// The number of its values.
    pub values: usize,
    /// The standard deviation of its initial values.
    pub std: f64,
    /// The standard deviation of its gradient.
    pub gradient_std: f64,
}

impl ActivationSummary {
    /// Summarises the outputs of a layer with this key.
    pub(super) fn of(key: &str, shape: Activation, outputs: &[f64]) -> Self {
        let share = |is: &dyn Fn(f64) -> bool| outputs.iter().filter(|&&y| is(y)).count() as f64 / outputs.len() as f64;
        let units = if shape.flat { shape.features() } else { shape.c };
        let mut alive = vec![false; units];
        outputs.iter().enumerate().for_each(|(at, &y)| alive[at % units] |= y != 0.0);
        ActivationSummary {
            values: ValueSummary::of(outputs),
            saturated: saturation(key).map(|is_saturated| share(&is_saturated)),
            zeros: share(&|y| y == 0.0),
            dead: alive.iter().filter(|&&alive| !alive).count() as f64 / units as f64,
        }
    }
}

impl ParameterSummary {
    pub(super) fn of(name: &str, values: &[f64], gradient: &[f64]) -> Self {
        let (std, gradient_std) = (mean_and_std(values).1, mean_and_std(gradient).1);
        ParameterSummary { name: name.to_string(), values: values.len(), std, gradient_std }
    }
}
