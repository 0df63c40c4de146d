//! The settings of batch normalisation, and the tensors that its phases share.

use crate::layers::{Operands, Role};
use serde::Deserialize;

/// In training, the count, mean and M2 of each channel in each part of the batch.
pub(super) const PART: Role = Role::Saved(0);
/// In training, the mean and 1 / sqrt(var + epsilon) of each channel, saved for the backward pass.
pub(super) const SAVED: Role = Role::Saved(1);
/// In the backward pass, the sums of dy and of dy xhat.
pub(super) const SUMS: Role = Role::Saved(2);

/// The `batch_norm` layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchNorm {
    /// Weight of the current batch in the running statistics, 0 to 1; 0.1 by default.
    pub momentum: f64,
    /// Constant added to the variance, above 0; 1e-5 by default.
    pub epsilon: f64,
    /// Whether the layer has a weight and a bias; true by default.
    pub affine: bool,
}

impl Default for BatchNorm {
    fn default() -> Self {
        BatchNorm { momentum: 0.1, epsilon: 1e-5, affine: true }
    }
}

/// Returns the number of channels on this device.
pub(super) fn width(operands: &Operands) -> usize {
    // Every phase reads or writes one of these; the first two are (parts, kinds, P, C).
    let statistics = [SAVED, PART, Role::Statistic(0)].into_iter().find_map(|role| operands.get(role));
    let o = statistics.expect("every phase has an operand with statistics");
    if o.shape.rank() == 4 { o.len(2) * o.len(3) } else { o.elements() }
}
