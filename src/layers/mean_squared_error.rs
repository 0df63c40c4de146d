//! Mean squared error: the loss of a network that predicts values.
//!
//! loss = 1/(N D) sum over n, d of (x[n, d] - t[n, d])^2, with N the *global* batch and D = H * W * C the outputs for one
//! sample, as PyTorch's `MSELoss`; Caffe's `EuclideanLoss` is D / 2 times as large. Backward:
//! dx = 2 (x - t) / (N D).
//!
//! x: (N, H, W, C); targets: (N, D) values or distributions, or (N, 1) class indices c: t[n, d] is 1 if d = c, otherwise
//! 0, and of one output (D = 1) c itself. metrics: the loss, and the mean of |x - t| (`mae`).

use super::layer::unknown_phase;
use super::loss::{self, SPLITS, input_placement, launch_sums, metrics_layout, width};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, LossTargets, Metric, MetricKind, Operands};
use super::{Phase, Role, Split, by_precision};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{Grid, int};
use crate::settings::settings;
use crate::tensor::{Mesh, Placement, Real};

settings! {
    /// The `mean_squared_error` layer.
    pub struct MeanSquaredError {}
}

impl Layer for MeanSquaredError {
    fn key(&self) -> &'static str {
        "mean_squared_error"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] =
            &[Metric { name: "loss", kind: MetricKind::Mean }, Metric { name: "mae", kind: MetricKind::Mean }];
        METRICS
    }
    fn targets(&self, x: Activation) -> Option<LossTargets> {
        let outputs = x.features();
        let classes = if outputs == 1 { usize::MAX } else { outputs };
        Some(LossTargets { classes: Some(classes), distributions: Some(outputs), values: Some(outputs) })
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        4 * inputs[0].features() as u64
    }
    fn splits(&self) -> &'static [Split] {
        SPLITS
    }
    fn preferred_input(&self, _: Activation, incoming: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        Some(input_placement(incoming, split))
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let metrics = metrics_layout(cx);
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).read(Role::Target, x).write(Role::Metrics, metrics),
            Phase::new("backward").read(Role::X(0), x).read(Role::Target, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(args),
            "backward" => backward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        loss::scratch(phase, shapes, target, self.metrics())
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let x = launch.operand(Role::X(0));
        let (rows, outputs) = (x.len(0), width(x));
        let (x, targets) = (launch.any(Role::X(0)), launch.read(Role::Target));
        let (d, target_width) = (int(outputs)?, int(width(launch.operand(Role::Target)))?);
        match phase {
            "forward" => {
                let (each, share) = (launch.scratch(), (1.0 / outputs as f64) as f32);
                let grid = Grid::new(rows, 1, 1);
                // SAFETY: x is (rows, outputs), targets (rows, target_width), scratch (rows, 2).
                unsafe {
                    any::mean_squared_error_forward(&launch.issue, grid, x, targets, each, d, target_width, share)?;
                }
                launch_sums(launch, self.metrics())
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (dx, n) = (launch.any_mut(Role::Dx(0)), launch.count(Role::Dx(0)));
                let (grid, scale) =
                    (Grid::cover(rows * outputs, 256), (2.0 * launch.loss_scale() / outputs as f64) as f32);
                // SAFETY: x and dx are (rows, outputs), targets (rows, target_width).
                unsafe {
                    any::mean_squared_error_backward(&launch.issue, grid, x, targets, dx, n, d, target_width, scale)
                }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (MeanSquaredError {}, vec![Activation::new(1, 1, 7)]),
            (MeanSquaredError {}, vec![Activation::new(1, 1, 1)]),
        ]
    }
}

/// Returns the target of output `d` of a sample, given its row of targets.
#[inline(always)]
fn target_of<T: Real>(target: &[T], outputs: usize, d: usize) -> T {
    if target.len() == outputs { target[d] } else { T::from_f64(f64::from(u8::from(target[0].to_f64() as usize == d))) }
}

fn forward<T: Real>(args: &Args) {
    let (outputs, width) = (width(args.operand(Role::X(0))), width(args.operand(Role::Target)));
    let (x, targets) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Target));
    let (mut squares, mut sizes) = (T::ZERO, T::ZERO);
    for (x, target) in x.chunks_exact(outputs).zip(targets.chunks_exact(width)) {
        // Summed by sample: a sum of all would lose more digits.
        let (mut own_squares, mut own_sizes) = (T::ZERO, T::ZERO);
        for (d, &x) in x.iter().enumerate() {
            let difference = x - target_of(target, outputs, d);
            own_squares += difference * difference;
            own_sizes += difference.max(-difference);
        }
        squares += own_squares;
        sizes += own_sizes;
    }
    let metrics = args.write::<T>(Role::Metrics);
    let count = T::from_f64(args.divisor as f64 * outputs as f64);
    (metrics[0], metrics[1]) = (squares / count, sizes / count);
}

fn backward<T: Real>(args: &Args) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let (outputs, width) = (width(args.operand(Role::X(0))), width(args.operand(Role::Target)));
    let (x, targets) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Target));
    let scale = T::from_f64(2.0 * args.loss_scale() / outputs as f64);
    args.chunks(args.write::<T>(Role::Dx(0)), outputs, |n, dx, _| {
        let (x, target) = (&x[n * outputs..][..outputs], &targets[n * width..][..width]);
        vectorized(
            #[inline(always)]
            || {
                for (d, (dx, &x)) in dx.iter_mut().zip(x).enumerate() {
                    *dx = (x - target_of(target, outputs, d)) * scale;
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn class_numbers_are_compared_as_distributions_and_by_one_output_as_values() {
        let layer = MeanSquaredError {};
        let mut three = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 3)], &Setup::of_rows(2)).unwrap();
        three.values_mut(Role::X(0)).copy_from_slice(&[0.5, 2.0, -1.0, 0.0, 0.0, 4.0]);
        three.values_mut(Role::Target).copy_from_slice(&[1.0, 2.0]);
        three.forward().unwrap();
        three.backward().unwrap();
        // Differences 0.5, 1, -1 and 0, 0, 3.
        assert_eq!(three.values(Role::Metrics), [(0.25 + 1.0 + 1.0 + 9.0) / 6.0, 5.5 / 6.0]);
        let third = 2.0 / 6.0;
        assert_eq!(three.values(Role::Dx(0)), [0.5 * third, third, -third, 0.0, 0.0, 3.0 * third]);

        let mut one = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 1)], &Setup::of_rows(2)).unwrap();
        one.values_mut(Role::X(0)).copy_from_slice(&[0.5, 2.0]);
        one.values_mut(Role::Target).copy_from_slice(&[3.0, 1.0]);
        one.forward().unwrap();
        one.backward().unwrap();
        assert_eq!(one.values(Role::Metrics), [(6.25 + 1.0) / 2.0, 3.5 / 2.0]);
        assert_eq!(one.values(Role::Dx(0)), [-2.5, 1.0]);
    }
}
