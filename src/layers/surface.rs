//! Functions of two variables, as the loss of a network with two outputs: to watch how an optimiser descends. Of the outputs
//! (x, y) of one sample:
//!
//! | function | f(x, y) | |
//! | --- | --- | --- |
//! | `quadratic` | (x^2 / k + y^2) / 2 | a canyon along x; the condition number of its Hessian is k |
//! | `saddle` | (x^2 - y^2) / 2 | a minimum along x, a maximum along y |
//! | `ravine` | ((1 - x)^2 + k (y - x^2)^2) / 2 | a curved valley with its minimum at (1, 1) (Rosenbrock 1960, <https://doi.org/10.1093/comjnl/3.3.175>) |
//! | `cliff` | (x^2 + y^2) / 20 + 1 / (1 + exp(-k x)) | a plateau for x > 0, and a step down at x = 0 whose steepest slope is about k / 4 |
//!
//! k is `condition`. loss = 1/N sum over n of f, with N the *global* batch; the metrics `x` and `y` are the means of the outputs. With the
//! source `point`, whose only sample is the number 1, and a dense layer of two units without a bias, the weights are the point.
//!
//! x: (N, 1, 1, 2); targets: (N, 1), not used.

use super::layer::unknown_phase;
use super::loss::{self, SPLITS, input_placement, launch_sums, metrics_layout};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, LossTargets, Metric, MetricKind, Operands};
use super::{Phase, Role, Split, by_precision};
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{int, threads};
use crate::settings::{Range, settings, values};
use crate::tensor::{Mesh, Placement, Real};
use serde::Deserialize;

const CONDITION: Range<f64> = Range { text: "a number from 1 to 1e6", contains: |k| (1.0..=1e6).contains(k) };

/// A function of two variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SurfaceFunction {
    /// A canyon.
    Quadratic,
    /// A saddle point.
    Saddle,
    /// A curved valley.
    Ravine,
    /// A plateau that ends in a cliff.
    Cliff,
}

values! {
    SurfaceFunction, "\"quadratic\", \"saddle\", \"ravine\" or \"cliff\"", function => match function {
        SurfaceFunction::Quadratic => "\"quadratic\"",
        SurfaceFunction::Saddle => "\"saddle\"",
        SurfaceFunction::Ravine => "\"ravine\"",
        SurfaceFunction::Cliff => "\"cliff\"",
    }.to_string();
}

settings! {
    /// The `surface` layer: a function of two variables, as a loss.
    pub struct Surface {
        /// The function.
        pub function: SurfaceFunction = SurfaceFunction::Quadratic, example "\"ravine\"";
        /// The condition number of the quadratic, the factor of the ravine's walls, or the steepness of the cliff.
        pub condition: f64 = 5.0, in CONDITION;
    }
}

impl Surface {
    /// Returns f(x, y), and its derivatives by x and by y.
    #[inline(always)]
    fn at<T: Real>(&self, x: T, y: T) -> [T; 3] {
        let [k, half] = [self.condition, 0.5].map(T::from_f64);
        match self.function {
            SurfaceFunction::Quadratic => [half * (x * x / k + y * y), x / k, y],
            SurfaceFunction::Saddle => [half * (x * x - y * y), x, -y],
            SurfaceFunction::Ravine => {
                let (far, wall) = (T::ONE - x, y - x * x);
                let two = T::ONE + T::ONE;
                [half * (far * far + k * wall * wall), -far - two * k * wall * x, k * wall]
            }
            SurfaceFunction::Cliff => {
                let (share, step) = (T::from_f64(0.1), T::ONE / (T::ONE + (-k * x).exp()));
                [half * share * (x * x + y * y) + step, share * x + k * step * (T::ONE - step), share * y]
            }
        }
    }
}

impl Layer for Surface {
    fn key(&self) -> &'static str {
        "surface"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        match inputs[0].features() {
            2 => Ok(inputs[0]),
            other => {
                let message = format!("{other} outputs for each sample, expected 2: the variables of the function");
                Err(Fault::at("inputs", message))
            }
        }
    }
    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] = &[
            Metric { name: "loss", kind: MetricKind::Mean },
            Metric { name: "x", kind: MetricKind::Mean },
            Metric { name: "y", kind: MetricKind::Mean },
        ];
        METRICS
    }
    fn targets(&self, _: Activation) -> Option<LossTargets> {
        Some(LossTargets { classes: None, distributions: None, values: Some(1) })
    }
    fn cost(&self, _: &[Activation]) -> u64 {
        20
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
            Phase::new("forward").read(Role::X(0), x).write(Role::Metrics, metrics),
            Phase::new("backward").read(Role::X(0), x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(self, args),
            "backward" => backward::<T>(self, args),
            _ => unknown_phase(phase),
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        loss::scratch(phase, shapes, target, self.metrics())
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let rows = launch.operand(Role::X(0)).len(0);
        let (x, function, k, n) = (launch.any(Role::X(0)), self.function as i32, self.condition as f32, int(rows)?);
        let grid = threads(rows);
        match phase {
            "forward" => {
                // SAFETY: x is (rows, 2), scratch (rows, 3).
                unsafe { any::surface_forward(&launch.issue, grid, x, launch.scratch(), n, function, k)? };
                launch_sums(launch, self.metrics())
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (dx, scale) = (launch.any_mut(Role::Dx(0)), launch.loss_scale() as f32);
                // SAFETY: x and dx are (rows, 2).
                unsafe { any::surface_backward(&launch.issue, grid, x, dx, n, function, k, scale) }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let example = |function, condition| (Surface { function, condition }, vec![Activation::new(1, 1, 2)]);
        vec![
            example(SurfaceFunction::Quadratic, 5.0),
            example(SurfaceFunction::Saddle, 1.0),
            example(SurfaceFunction::Ravine, 3.0),
            example(SurfaceFunction::Cliff, 4.0),
        ]
    }
}

fn forward<T: Real>(surface: &Surface, args: &Args) {
    let mut sums = [T::ZERO; 3];
    for point in args.read::<T>(Role::X(0)).chunks_exact(2) {
        let [value, ..] = surface.at(point[0], point[1]);
        [value, point[0], point[1]].into_iter().zip(&mut sums).for_each(|(value, sum)| *sum += value);
    }
    let count = T::from_f64(args.divisor as f64);
    args.write::<T>(Role::Metrics).iter_mut().zip(sums).for_each(|(metric, sum)| *metric = sum / count);
}

fn backward<T: Real>(surface: &Surface, args: &Args) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let scale = T::from_f64(args.loss_scale());
    let points = args.read::<T>(Role::X(0)).chunks_exact(2);
    for (dx, point) in args.write::<T>(Role::Dx(0)).chunks_exact_mut(2).zip(points) {
        let [_, by_x, by_y] = surface.at(point[0], point[1]);
        (dx[0], dx[1]) = (by_x * scale, by_y * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn functions_have_their_values_and_slopes() {
        let sigmoid = 1.0 / (1.0 + 2f64.exp());
        let all = [
            (SurfaceFunction::Quadratic, 4.0, [2.0, 3.0], [5.0, 0.5, 3.0]),
            (SurfaceFunction::Saddle, 4.0, [2.0, 3.0], [-2.5, 2.0, -3.0]),
            // 1 - x = -1 and y - x^2 = -1.
            (SurfaceFunction::Ravine, 4.0, [2.0, 3.0], [2.5, 1.0 + 16.0, -4.0]),
            (SurfaceFunction::Ravine, 4.0, [1.0, 1.0], [0.0, 0.0, 0.0]),
            (SurfaceFunction::Cliff, 4.0, [0.0, 2.0], [0.2 + 0.5, 1.0, 0.2]),
            (
                SurfaceFunction::Cliff,
                4.0,
                [-0.5, 0.0],
                [0.0125 + sigmoid, -0.05 + 4.0 * sigmoid * (1.0 - sigmoid), 0.0],
            ),
        ];
        for (function, condition, point, [value, by_x, by_y]) in all {
            let layer = Surface { function, condition };
            let mut one = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 2)], &Setup::of_rows(2)).unwrap();
            one.values_mut(Role::X(0)).copy_from_slice(&[point, [1.0, 1.0]].concat());
            one.forward().unwrap();
            one.backward().unwrap();
            let [other, ..] = layer.at(1.0, 1.0);
            let expected = [(value + other) / 2.0, (point[0] + 1.0) / 2.0, (point[1] + 1.0) / 2.0];
            let close = |got: &[f64], expected: &[f64]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15);
            assert!(close(one.values(Role::Metrics), &expected), "{function:?}: {:?}", one.values(Role::Metrics));
            assert!(close(&one.values(Role::Dx(0))[..2], &[by_x / 2.0, by_y / 2.0]), "{:?}", one.values(Role::Dx(0)));
        }
    }
}
