//! Examines a network at its initial values: how activations and gradients spread from layer to layer.
//!
//! Layers run one after another on the CPU, in f64 and in training mode, on the first samples of the training data; the
//! gradients are those of the loss of this batch, the mean over its samples. The fields of the report have the names of the
//! keys in the JSON.

mod examine;
mod picture;
mod report;
mod values;
mod verdict;

pub use examine::InitialNetwork;
pub use picture::svg;
pub use report::{ActivationSummary, InitReport, LayerReport, ParameterSummary};
pub use values::{Histogram, ValueSummary};
pub use verdict::{FACTOR, MOST_DEAD, MOST_SATURATED};
