//! What losses have in common: where they run, and the way from the metrics of samples to those of a batch.

use super::{Launch, LayerContext, Metric, MetricKind, Operands, Role, Split};
use crate::device::{Operand, Target};
use crate::error::Result;
use crate::gpu::kernels::sum_metrics;
use crate::gpu::{Grid, int};
use crate::tensor::{Dim, Layout, Placement};

/// The splits of a loss, which needs all outputs of a sample.
pub(super) const SPLITS: &[Split] = &[Split::Batch, Split::None];

/// Returns the placement of its input along the columns axis.
pub(super) fn input_placement(incoming: Placement, split: Option<Split>) -> Placement {
    match (split, incoming) {
        (Some(Split::Batch), _) | (None, Placement::Shard(Dim::BATCH)) => Placement::Shard(Dim::BATCH),
        _ => Placement::Replicate,
    }
}

/// Returns the layout of its metrics: every device has those of its samples.
pub(super) fn metrics_layout(cx: &LayerContext) -> Layout {
    let columns = if cx.place == Placement::Shard(Dim::BATCH) { Placement::Partial } else { Placement::Replicate };
    Layout::new(Placement::Partial, columns)
}

/// Returns the scratch memory of a phase: on a GPU, the forward phase writes the metrics of each sample to it.
pub(super) fn scratch(phase: &str, shapes: &Operands, target: Target, metrics: &[Metric]) -> usize {
    match (phase, target) {
        ("forward", Target::Gpu { .. }) => metrics.len() * shapes[Role::X(0)].len(0).max(1),
        _ => 0,
    }
}

/// Sums what the forward phase has written for each sample: (rows, metrics), means first.
///
/// # Errors
/// If the device reports an error.
pub(super) fn launch_sums(launch: &Launch, metrics: &[Metric]) -> Result<()> {
    let means = metrics.iter().filter(|metric| metric.kind == MetricKind::Mean).count();
    assert!(metrics[..means].iter().all(|metric| metric.kind == MetricKind::Mean), "means come first");
    let (rows, to) = (launch.operand(Role::X(0)).len(0), launch.write(Role::Metrics));
    let (each, [n, count, means]) = (launch.scratch().into(), [int(rows)?, int(metrics.len())?, int(means)?]);
    // SAFETY: the scratch memory has `count` values for each of `n` rows, and there are as many metrics.
    unsafe { sum_metrics(&launch.issue, Grid::new(1, 1, 1), each, to, n, count, means, launch.mean_scale()) }
}

/// Returns the number of values per sample.
pub(super) fn width(operand: &Operand) -> usize {
    operand.shape.elements() / operand.shape.0[0]
}
