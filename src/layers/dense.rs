//! Fully connected layer: y[n, o] = sum_i x[n, i] w[o, i] + b[o].
//!
//! x: (N, H, W, C) read as N vectors of I = H * W * C; weight: (O, H, W, C) in memory, (O, C * H * W) in files;
//! bias: (O); y: (N, 1, 1, O). dw = dy^T x, db = sum over n of dy, dx = dy w.
//!
//! Splits: `columns` shards the outputs, `rows` the input channels (y is partial and the bias is added only once),
//! `batch` the samples, and `none` nothing.

use super::reparam::{self, Reparam};
use super::split_k::{SplitK, sum_rows_on, tiles};
use super::{
    Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Phase, Role, Split, by_precision,
};
use crate::cpu::{Implementation, Matrix, Scalar, sum_lanes, vectorized};
use crate::device::{Epilogue, LibraryUse, Target};
use crate::error::{Fault, Result, number};
use crate::gpu::kernels::any;
use crate::gpu::libraries::{Factors, PRODUCT_WORKSPACE, Product, ProductOf, Workspace};
use crate::gpu::{AnyConst, ComputeType, int};
use crate::settings::{AT_LEAST_ONE, Settings, settings, values};
use crate::tensor::{Dim, Layout, Mesh, Placement, Precision, Shape};
use serde::Deserialize;
use std::sync::atomic::{AtomicU32, Ordering};

settings! {
    /// The `dense` layer.
    pub struct Dense {
        /// Number of outputs O.
        pub units: usize, in AT_LEAST_ONE, example "10";
        /// Initial bias: a number, `true` for 0, or `false` for no bias.
        pub bias: Bias = Bias::default();
        /// How the weight follows from other parameters: w = g v / |v| for each output, where g starts as `gain`, or as |v|.
        pub reparam: Option<Reparam> = None;
    }
}

/// The bias of a layer with weights: absent, or its initial value.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a number (the initial bias), true (0.0) or false (no bias)")]
pub enum Bias {
    /// `true` for a bias that starts at 0, `false` for no bias.
    Switch(bool),
    /// A bias that starts at this value.
    Value(f64),
}

impl Default for Bias {
    fn default() -> Self {
        Bias::Value(0.0)
    }
}

values! {
    Bias, "number, true or false", bias => bias.value().map_or("false".to_string(), number);
}

impl Bias {
    /// Returns the initial value, or none if there is no bias.
    pub fn value(self) -> Option<f64> {
        match self {
            Bias::Switch(false) => None,
            Bias::Switch(true) => Some(0.0),
            Bias::Value(value) => Some(value),
        }
    }
}

/// The placements of all tensors along the columns axis. That of dw equals that of the weight except with `batch`.
struct Places {
    x: Placement,
    w: Placement,
    b: Placement,
    y: Placement,
    dy: Placement,
    dx: Placement,
    dw: Placement,
    db: Placement,
}

/// Returns the placements of each split, for a layer whose weight has the outputs as its first dim and the input
/// channels as its last.
fn places(split: Split) -> Places {
    use Placement::{Partial as P, Replicate as R, Shard as S};
    let [batch, channels, outputs, inputs] = [Dim::BATCH, Dim::CHANNELS, Dim::OUTPUTS, Dim::INPUTS].map(S);
    let param = |w, b| Places { x: R, w, b, y: R, dy: R, dx: R, dw: w, db: b };
    match split {
        Split::Columns => Places { y: channels, dy: channels, dx: P, ..param(outputs, outputs) },
        Split::Rows => Places { x: channels, y: P, dx: channels, ..param(inputs, R) },
        Split::Batch => Places { x: batch, y: batch, dy: batch, dx: batch, dw: P, db: P, ..param(R, R) },
        Split::None => Places { x: R, w: R, b: R, y: R, dy: R, dx: R, dw: R, db: R },
    }
}

/// Lowers a layer with a weight, an optional bias, and one phase per pass. `aligned` means that the outputs of each
/// column need only the inputs of that column.
pub(super) fn weighted_phases(cx: &LayerContext, bias: bool, aligned: bool) -> LayerPhases {
    use Placement::{Partial, Replicate, Shard};
    let mut at = places(cx.split);
    if aligned {
        (at.x, at.dx) = (Shard(Dim::CHANNELS), Shard(Dim::CHANNELS));
    }
    let param = |columns| Layout::new(Replicate, columns);
    let gradient = |columns| Layout::new(Partial, columns);
    let mut forward = Phase::new("forward")
        .read(Role::X(0), cx.batch_layout(at.x))
        .read(Role::WEIGHT, param(at.w))
        .low_precision()
        .write(Role::Y, cx.batch_layout(at.y))
        .accepts(Epilogue::Relu);
    let mut backward = Phase::new("backward")
        .read(Role::X(0), cx.batch_layout(at.x))
        .read(Role::WEIGHT, param(at.w))
        .low_precision()
        .read(Role::Dy, cx.batch_layout(at.dy))
        .write(Role::D_WEIGHT, gradient(at.dw))
        .write(Role::Dx(0), cx.batch_layout(at.dx));
    let mut params = vec![param(at.w)];
    if bias {
        forward = forward.read(Role::BIAS, param(at.b)).low_precision();
        backward = backward.write(Role::D_BIAS, gradient(at.db));
        params.push(param(at.b));
    }
    LayerPhases { params, statistics: vec![], saved: vec![], forward: vec![forward], backward: vec![backward] }
}

/// Returns the placement along the columns axis that a layer with weights requires for its input.
pub(super) fn preferred_weighted(split: Option<Split>) -> Option<Placement> {
    Some(places(split.unwrap_or(Split::Columns)).x)
}

impl Layer for Dense {
    fn key(&self) -> &'static str {
        "dense"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        reparam::check(self.reparam.as_ref())
    }
    fn output(&self, _: &[Activation]) -> Result<Activation, Fault> {
        Ok(Activation::new(1, 1, self.units))
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let (x, units) = (inputs[0], self.units);
        let weight = Param {
            name: "weight",
            shape: Shape::from([units, x.h, x.w, x.c]),
            file_shape: Shape::from([units, x.features()]),
            file_order: vec![0, 3, 1, 2],
            fan_in: x.features(),
            fan_out: units,
            init: None,
        };
        let bias = self.bias.value().map(|value| Param::vector("bias", units, value));
        reparam::params(self.reparam.as_ref(), [weight].into_iter().chain(bias).collect())
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        2 * (inputs[0].features() * self.units) as u64
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Columns, Split::Rows, Split::Batch, Split::None]
    }
    fn preferred_input(&self, _: Activation, _: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        preferred_weighted(split)
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let columns = cx.mesh.columns;
        if cx.split == Split::Columns && !self.units.is_multiple_of(columns) {
            let fit = self.units.div_ceil(columns) * columns;
            return Err(Fault::at(
                "units",
                format!(
                    "units = {} does not divide by {columns} devices (split = \"columns\"); use {fit} or \
                     split = \"batch\"",
                    self.units
                ),
            ));
        }
        let phases = weighted_phases(cx, self.bias.value().is_some(), false);
        Ok(reparam::phases(self.reparam.as_ref(), phases, cx, self.params(cx.inputs)[0].shape.clone()))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match (phase, args.implementation) {
            ("forward", Implementation::Fast) => forward::<T>(args),
            ("forward", Implementation::Reference) => plain_forward::<T>(args),
            ("backward", Implementation::Fast) => backward::<T>(args),
            ("backward", Implementation::Reference) => plain_backward::<T>(args),
            _ => reparam::run(phase, args),
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let Target::Gpu { libraries, .. } = target else { return 0 };
        if reparam::has(phase) {
            return 0;
        }
        let library = if libraries == LibraryUse::Off { 0 } else { Workspace::elements(PRODUCT_WORKSPACE) };
        if phase == "forward" {
            return library;
        }
        let (rows, inputs, units) = sizes(shapes);
        let weight = SplitK::of_products(rows, units, inputs, 1).scratch(units * inputs);
        let bias = if self.bias.value().is_some() { SplitK::of_rows(rows, units).scratch(units) } else { 0 };
        library.max(weight).max(bias)
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        match phase {
            "forward" => self.launch_forward(launch),
            "backward" => self.launch_backward(launch),
            _ => reparam::launch(phase, launch),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let dense = |units, bias| Dense { units, bias, reparam: None };
        vec![
            (dense(8, Bias::Value(0.5)), vec![Activation::new(1, 1, 12)]),
            (dense(4, Bias::Switch(false)), vec![Activation::new(2, 3, 4)]),
            (dense(300, Bias::default()), vec![Activation::new(1, 1, 20)]),
            (
                Dense { reparam: Some(Reparam::WEIGHT_NORM), ..dense(8, Bias::Value(0.5)) },
                vec![Activation::new(2, 3, 4)],
            ),
        ]
    }
}

impl Dense {
    /// Computes a product of two operands with a library. Returns false if no library supports it.
    fn library(
        &self,
        launch: &Launch,
        which: ProductOf,
        factors: [Role; 2],
        bias: Option<Role>,
        to: Role,
        relu: bool,
    ) -> Result<bool> {
        let (rows, inputs, outputs) = sizes(launch.operands);
        let (operands, result) = (launch.format(factors[0]), launch.operand(to).element);
        let result = ComputeType::of(result, false);
        let at = |role| launch.operand(role).address();
        let product = Product { which, rows, inputs, outputs, operands, result, relu };
        let [samples, other] = factors.map(at);
        let factors = Factors { samples, other, bias: bias.map(at), result: at(to) };
        // SAFETY: x and dx are (n, i), w and dw (o, i), the bias (o), y and dy (n, o).
        unsafe { launch.multiply(&product, &factors) }
    }

    fn launch_forward(&self, launch: &Launch) -> Result<()> {
        let (rows, inputs, units) = sizes(launch.operands);
        let adds_bias = self.bias.value().is_some() && launch.operand(Role::WEIGHT).start(3) == 0;
        let bias = adds_bias.then_some(Role::BIAS);
        let factors = [Role::X(0), Role::WEIGHT];
        if self.library(launch, ProductOf::Output, factors, bias, Role::Y, launch.relu())? {
            return Ok(());
        }
        let bias = bias.map_or(AnyConst::NONE, |bias| launch.any(bias));
        let (x, w, y) = (launch.any(Role::X(0)), launch.any(Role::WEIGHT), launch.any_mut(Role::Y));
        let (n, i, o, relu) = (int(rows)?, int(inputs)?, int(units)?, i32::from(launch.relu()));
        let grid = tiles(rows, units, 1);
        // SAFETY: x is (n, i), w (o, i), the bias (o), y (n, o).
        unsafe { any::dense_forward(&launch.issue, grid, x, w, bias, y, n, i, o, relu) }
    }

    fn launch_backward(&self, launch: &Launch) -> Result<()> {
        let (rows, inputs, units) = sizes(launch.operands);
        let (x, w, dy) = (launch.any(Role::X(0)), launch.any(Role::WEIGHT), launch.any(Role::Dy));
        let (n, i, o) = (int(rows)?, int(inputs)?, int(units)?);
        if !self.library(launch, ProductOf::Weight, [Role::X(0), Role::Dy], None, Role::D_WEIGHT, false)? {
            let parts = SplitK::of_products(rows, units, inputs, 1);
            let sums = parts.target(launch, Role::D_WEIGHT);
            // SAFETY: x is (n, i), dy (n, o), the sums (parts, o, i).
            unsafe {
                let grid = tiles(units, inputs, parts.count);
                any::dense_backward_weight(&launch.issue, grid, x, dy, sums, n, i, o, int(parts.each)?)?;
            }
            parts.add(launch, Role::D_WEIGHT)?;
        }
        let factors = [Role::Dy, Role::WEIGHT];
        if launch.has(Role::Dx(0)) && !self.library(launch, ProductOf::Input, factors, None, Role::Dx(0), false)? {
            // SAFETY: dy is (n, o), w (o, i), dx (n, i).
            unsafe {
                let (grid, dx) = (tiles(rows, inputs, 1), launch.any_mut(Role::Dx(0)));
                any::dense_backward_input(&launch.issue, grid, dy, w, dx, n, i, o)?;
            }
        }
        if self.bias.value().is_some() { sum_rows_on(launch, Role::Dy, rows, Role::D_BIAS) } else { Ok(()) }
    }
}

/// Returns (N, I, O) on this device.
fn sizes(operands: &Operands) -> (usize, usize, usize) {
    let (x, w) = (&operands[Role::X(0)], &operands[Role::WEIGHT]);
    let outputs = w.len(0);
    (x.len(0), w.elements() / outputs.max(1), outputs)
}

const ROWS: usize = 128;
const UNITS: usize = 128;
const INPUTS: usize = 256;

fn forward<T: Scalar>(args: &Args) {
    let (rows, inputs, units) = sizes(args.operands);
    let (x, w) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT));
    let bias = (args.has(Role::BIAS) && args.operand(Role::WEIGHT).start(3) == 0).then(|| args.read::<T>(Role::BIAS));
    let columns = units.div_ceil(UNITS);
    // SAFETY: each task writes its own tile of y.
    unsafe {
        args.strided(rows.div_ceil(ROWS) * columns, args.write::<T>(Role::Y), &mut [], |task, y, _| {
            let (row, unit) = (task / columns * ROWS, task % columns * UNITS);
            let (m, n) = (ROWS.min(rows - row), UNITS.min(units - unit));
            let y = &mut y[row * units + unit..];
            for i in 0..m {
                let y = &mut y[i * units..][..n];
                match bias {
                    Some(b) => y.copy_from_slice(&b[unit..unit + n]),
                    None => y.fill(T::ZERO),
                }
            }
            let a = Matrix::rows(&x[row * inputs..], inputs);
            T::gemm(m, n, inputs, a, Matrix::transposed(&w[unit * inputs..], inputs), y, units, true);
        });
    }
}

fn backward<T: Scalar>(args: &Args) {
    let (rows, inputs, units) = sizes(args.operands);
    let (x, w, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.read::<T>(Role::Dy));
    // Every task packs all of x, so there are few tasks. The tiles of dx below are large for the same reason: each part
    // of w is packed only once per ROWS samples.
    let tasks = units.div_ceil(UNITS);
    let bound = ProductBound::default();
    args.chunks(args.write::<T>(Role::D_WEIGHT), UNITS * inputs, |task, dw, _| {
        let unit = task * UNITS;
        let a = if rows == 0 { Matrix::transposed(dy, units) } else { Matrix::transposed(&dy[unit..], units) };
        T::gemm(dw.len() / inputs, inputs, rows, a, Matrix::rows(x, inputs), dw, inputs, false);
        bound.add(part_of(x, task, tasks), part_of(dy, task, tasks));
    });
    args.tell_finite(T::PRECISION != Precision::Dual && bound.is_finite(tasks));
    if args.has(Role::Dx(0)) {
        let columns = inputs.div_ceil(INPUTS);
        // SAFETY: each task writes its own tile of dx.
        unsafe {
            args.strided(rows.div_ceil(ROWS) * columns, args.write::<T>(Role::Dx(0)), &mut [], |task, dx, _| {
                let (row, input) = (task / columns * ROWS, task % columns * INPUTS);
                let (m, n) = (ROWS.min(rows - row), INPUTS.min(inputs - input));
                let dx = &mut dx[row * inputs + input..];
                let a = Matrix::rows(&dy[row * units..], units);
                T::gemm(m, n, units, a, Matrix::rows(&w[input..], inputs), dx, inputs, false);
            });
        }
    }
    if args.has(Role::D_BIAS) {
        sum_rows(dy, args.write::<T>(Role::D_BIAS));
    }
}

/// Shows from its factors that a product dw = dy^T x is finite, without reading it: by Cauchy and Schwarz, no element
/// exceeds ||x|| ||dy||.
#[derive(Default)]
struct ProductBound {
    /// The largest sums of squares of a part of x and of dy, as bits of f32, whose order is that of the numbers.
    largest: [AtomicU32; 2],
}

impl ProductBound {
    fn add<T: Scalar>(&self, x: &[T], dy: &[T]) {
        for (largest, part) in self.largest.iter().zip([x, dy]) {
            // NaN is above all other bits without its sign.
            let squares = sum_lanes(part, |v| v * v).to_f64() as f32;
            largest.fetch_max(squares.abs().to_bits(), Ordering::Relaxed);
        }
    }

    /// Returns true if the elements of dw are finite in f32, given the number of parts, in whatever order their terms
    /// were added, as are their sums over the devices of a mesh.
    fn is_finite(&self, parts: usize) -> bool {
        let norm =
            |largest: &AtomicU32| (f64::from(f32::from_bits(largest.load(Ordering::Relaxed))) * parts as f64).sqrt();
        norm(&self.largest[0]) * norm(&self.largest[1]) < 2f64.powi(100)
    }
}

/// Returns a part of a slice that is divided evenly.
fn part_of<T>(values: &[T], part: usize, parts: usize) -> &[T] {
    &values[values.len() * part / parts..values.len() * (part + 1) / parts]
}

/// Computes sums[c] = sum over rows of x[row, c], in row order.
pub(super) fn sum_rows<T: Scalar>(x: &[T], sums: &mut [T]) {
    sums.fill(T::ZERO);
    vectorized(
        #[inline(always)]
        || {
            for row in x.chunks_exact(sums.len().max(1)) {
                sums.iter_mut().zip(row).for_each(|(s, &v)| *s += v);
            }
        },
    );
}

fn plain_forward<T: Scalar>(args: &Args) {
    let (rows, inputs, units) = sizes(args.operands);
    let (x, w, y) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.write::<T>(Role::Y));
    let bias = (args.has(Role::BIAS) && args.operand(Role::WEIGHT).start(3) == 0).then(|| args.read::<T>(Role::BIAS));
    for n in 0..rows {
        for o in 0..units {
            let start = bias.map_or(T::ZERO, |b| b[o]);
            y[n * units + o] = (0..inputs).fold(start, |s, i| s + x[n * inputs + i] * w[o * inputs + i]);
        }
    }
}

fn plain_backward<T: Scalar>(args: &Args) {
    let (rows, inputs, units) = sizes(args.operands);
    let (x, w, dy, dw) = (
        args.read::<T>(Role::X(0)),
        args.read::<T>(Role::WEIGHT),
        args.read::<T>(Role::Dy),
        args.write::<T>(Role::D_WEIGHT),
    );
    for o in 0..units {
        for i in 0..inputs {
            dw[o * inputs + i] = (0..rows).fold(T::ZERO, |s, n| s + dy[n * units + o] * x[n * inputs + i]);
        }
    }
    if args.has(Role::Dx(0)) {
        let dx = args.write::<T>(Role::Dx(0));
        for n in 0..rows {
            for i in 0..inputs {
                dx[n * inputs + i] = (0..units).fold(T::ZERO, |s, o| s + dy[n * units + o] * w[o * inputs + i]);
            }
        }
    }
    if args.has(Role::D_BIAS) {
        sum_rows(dy, args.write::<T>(Role::D_BIAS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn a_weight_gradient_is_known_to_be_finite_only_if_it_is() {
        for (x, dy, known) in [
            (1.0, 1.0, true),
            (1e-15, 1e15, true),
            (1e14, 1e14, true),
            (1e16, 1e16, false),
            (1e20, 1e20, false),
            (1e-30, 1e20, false),
            (f32::NAN, 0.0, false),
            (0.0, -f32::NAN, false),
            (f32::NEG_INFINITY, 1.0, false),
        ] {
            let bound = ProductBound::default();
            for task in 0..3 {
                let mut part = [[0.5f32; 40]; 2];
                if task == 1 {
                    (part[0][7], part[1][30]) = (x, -dy);
                }
                bound.add(&part[0], &part[1]);
            }
            assert_eq!(bound.is_finite(3), known, "{x} {dy}");
            // The single layer panics where a gradient that is known to be finite is not.
            let layer = Dense { units: 300, bias: Bias::Switch(false), reparam: None };
            let mut dense = SingleLayer::<f32>::new(&layer, &[Activation::new(1, 1, 20)], &Setup::of_rows(4)).unwrap();
            dense.values_mut(Role::X(0)).fill(0.5);
            dense.values_mut(Role::X(0))[33] = x;
            dense.values_mut(Role::Dy).fill(-0.5);
            dense.values_mut(Role::Dy)[599] = dy;
            dense.backward().unwrap();
        }
    }
}
