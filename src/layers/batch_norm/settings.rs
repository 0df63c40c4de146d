//! The settings of batch normalisation, and the tensors that its phases share.

use crate::layers::{Operands, Role};
use crate::settings::{POSITIVE, Range, settings, values};
use serde::Deserialize;

/// In training, the count, mean and M2 of each channel in each part of the batch.
pub(super) const PART: Role = Role::Saved(0);
/// In training, the mean and 1 / sqrt(var + epsilon) of each channel, saved for the backward pass.
pub(super) const SAVED: Role = Role::Saved(1);
/// In the backward pass, the sums of dy and of dy xhat.
pub(super) const SUMS: Role = Role::Saved(2);

const SHARE: Range<f64> = Range { text: "0 to 1", contains: |share| (0.0..=1.0).contains(share) };

/// The statistics by which `batch_norm` normalises in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormStatistics {
    /// Those of the batch.
    Batch,
    /// The running ones, which do not change.
    Running,
}

values! {
    NormStatistics, "\"batch\" or \"running\"", statistics => match statistics {
        NormStatistics::Batch => "\"batch\"".to_string(),
        NormStatistics::Running => "\"running\"".to_string(),
    };
}

settings! {
    /// The `batch_norm` layer.
    pub struct BatchNorm {
        /// Weight of the current batch in the running statistics.
        pub momentum: f64 = 0.1, in SHARE;
        /// Constant added to the variance.
        pub epsilon: f64 = 1e-5, in POSITIVE;
        /// Whether the layer has a weight and a bias.
        pub affine: bool = true;
        /// The statistics by which training normalises: those of the batch, or the running ones, which then stay as they are, as
        /// when a trained network is fine-tuned.
        pub statistics: NormStatistics = NormStatistics::Batch;
        /// Whether the running statistics are the means over all batches, in place of averages with `momentum`; not with
        /// `train.accumulate`.
        pub cumulative: bool = false;
    }
}

/// Returns the number of channels on this device.
pub(super) fn width(operands: &Operands) -> usize {
    // Every phase reads or writes one of these; the first two are (parts, kinds, P, C).
    let statistics = [SAVED, PART, Role::Statistic(0)].into_iter().find_map(|role| operands.get(role));
    let o = statistics.expect("every phase has an operand with statistics");
    if o.shape.rank() == 4 { o.len(2) * o.len(3) } else { o.elements() }
}
