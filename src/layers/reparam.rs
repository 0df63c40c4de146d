//! Weights that follow from other parameters: the key `reparam` of layers with weights.
//!
//! Weight normalisation (Salimans and Kingma 2016, <https://arxiv.org/abs/1602.07868>): w = g v / |v| for each output, whose weights are
//! the values w[o, ...]. Parameters: weight_v, with the shape and the initial values of the weight, in its place; and weight_g: (O), the
//! norms of the initial v unless `gain` says otherwise, so that w starts as v. With `gain`, g starts as this number: 1 / 1.21 is that of
//! normalisation propagation (Arpit et al. 2016, <https://arxiv.org/abs/1603.01431>), whose relu is the layer `normalized_relu`.
//! Where |v| is 0, w and the gradients of its parameters are 0.
//!
//! Backward, for each output: dg = dw v / |v|; dv = g / |v| (dw - v (dw v) / |v|^2).
//!
//! A layer calls [`params`] and [`phases`] at the end of its own methods of these names. Its phases then read w and write dw where the
//! weight and its gradient were, and there are phases before and after them, for which it calls [`run`] and [`launch`].

use super::init::Init;
use super::layer::unknown_phase;
use super::{Args, Launch, LayerContext, LayerPhases, Operands, Param, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::{any, weight_norm_backward, weight_norm_dots};
use crate::gpu::{Grid, int, threads};
use crate::layers::init::NormsOfWeight;
use crate::settings::{SINGLE, Settings, settings, values};
use crate::tensor::{Axis, Dim, Layout, Placement, Real, Shape};
use serde::Deserialize;

/// The name of the parameter by which the outputs of a layer can be scaled, if its weight is normalised.
pub const GAIN: &str = "weight_g";

/// How the weight follows from other parameters.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reparam {
    /// w = g v / |v| for each output.
    WeightNorm(WeightNorm),
}

impl Reparam {
    /// Weight normalisation with its defaults.
    pub const WEIGHT_NORM: Reparam = Reparam::WeightNorm(WeightNorm { gain: None });
}

settings! {
    /// Weight normalisation.
    pub struct WeightNorm {
        /// The initial value of every g.
        pub gain: Option<f64> = None, in SINGLE, default "the norm of the initial v";
    }
}

values! {
    Reparam, "{ weight_norm = {} } or { weight_norm = { gain = NUMBER } }", reparam => {
        let Reparam::WeightNorm(norm) = reparam;
        let gain: Vec<String> = norm.values().iter().map(|(key, value)| format!(" {key} = {value} ")).collect();
        format!("{{ weight_norm = {{{}}} }}", gain.concat())
    };
}

/// The phases of a reparametrisation, and which tensors they save: |v|^2, w, dw, and the products dw v.
const SQUARES: &str = "squares";
const NORMALIZE: &str = "normalize";
const PROJECT: &str = "project";
const PULL_BACK: &str = "pull_back";

/// The roles by which these phases know their operands.
const V: Role = Role::Param(0);
const D_V: Role = Role::DParam(0);
const NORM: Role = Role::Saved(0);
const W: Role = Role::Saved(1);
const D_W: Role = Role::Saved(2);
const DOTS: Role = Role::Saved(3);

/// Returns which parameter g is: the last one.
fn gain(operands: &Operands) -> usize {
    let index = |role| if let Role::Param(index) = role { Some(index) } else { None };
    operands.roles().filter_map(index).max().unwrap_or(0)
}

/// Checks the settings.
///
/// # Errors
/// If one of them is out of range.
pub fn check(reparam: Option<&Reparam>) -> Result<(), Fault> {
    let Some(Reparam::WeightNorm(norm)) = reparam else { return Ok(()) };
    norm.check_ranges().map_err(|fault| Fault::at("reparam", format!("reparam.weight_norm: {}", fault.message)))
}

/// Puts the parameters of a reparametrisation in the place of the weight, the first one, and after the others.
pub fn params(reparam: Option<&Reparam>, mut params: Vec<Param>) -> Vec<Param> {
    let Some(Reparam::WeightNorm(norm)) = reparam else { return params };
    params[0].name = "weight_v";
    let (outputs, rank) = (params[0].shape.0[0], params[0].file_shape.rank());
    let mut file_shape = vec![1; rank];
    file_shape[0] = outputs;
    let init = norm.gain.map_or(Init::of(NormsOfWeight {}), Init::constant);
    params.push(Param { file_shape: Shape(file_shape), init: Some(init), ..Param::vector(GAIN, outputs, 0.0) });
    params
}

/// Adds the phases of a reparametrisation to those of a layer, whose weight has the outputs as its first dim.
pub fn phases(reparam: Option<&Reparam>, mut phases: LayerPhases, cx: &LayerContext, weight: Shape) -> LayerPhases {
    if reparam.is_none() {
        return phases;
    }
    let first = phases.saved.len();
    let saved = |role: Role| match role {
        Role::Saved(i) => Role::Saved(first + i),
        other => other,
    };
    let g = Role::Param(phases.params.len());
    let d_g = Role::DParam(phases.params.len());
    let vector = Shape::from([weight.0[0]]);
    let mut gradient = None;
    for operand in phases.forward.iter_mut().chain(&mut phases.backward).flat_map(|phase| &mut phase.operands) {
        match operand.role {
            Role::WEIGHT => operand.role = saved(W),
            Role::D_WEIGHT => {
                operand.role = saved(D_W);
                gradient = Some(operand.layout);
            }
            _ => {}
        }
    }
    let v = phases.params[0];
    // Where the inputs of the outputs are divided, sums over them are, too.
    let over_inputs = |layout: Layout, sum: Placement| match layout.on(Axis::Columns) {
        Placement::Shard(Dim::INPUTS) => Layout::new(layout.on(Axis::Data), sum),
        _ => layout,
    };
    let (term, all) = (over_inputs(v, Placement::Partial), over_inputs(v, Placement::Replicate));
    let squares = Phase::new(SQUARES).read(V, v).write(saved(NORM), term).known_as(NORM);
    let normalize = Phase::new(NORMALIZE)
        .read(V, v)
        .read(g, all)
        .read(saved(NORM), all)
        .known_as(NORM)
        .write(saved(W), v)
        .low_precision()
        .known_as(W);
    phases.forward.splice(0..0, [squares, normalize]);
    phases.params.push(all);
    phases.saved.extend([vector.clone(), weight.clone()]);
    if let (Some(dw), true) = (gradient, cx.training()) {
        let (term, sum) = (over_inputs(dw, Placement::Partial), over_inputs(dw, Placement::Replicate));
        let project = Phase::new(PROJECT).read(V, v).read(saved(D_W), dw).known_as(D_W);
        let pull_back = Phase::new(PULL_BACK)
            .read(V, v)
            .read(g, all)
            .read(saved(NORM), all)
            .known_as(NORM)
            .read(saved(D_W), dw)
            .known_as(D_W)
            .read(saved(DOTS), sum)
            .known_as(DOTS);
        phases.backward.push(project.write(saved(DOTS), term).known_as(DOTS));
        phases.backward.push(pull_back.write(D_V, dw).write(d_g, sum));
        phases.saved.extend([weight, vector]);
    }
    phases
}

/// Returns true if a phase is one of a reparametrisation, which needs no scratch memory.
pub fn has(phase: &str) -> bool {
    matches!(phase, SQUARES | NORMALIZE | PROJECT | PULL_BACK)
}

/// Runs a phase of a reparametrisation on a CPU device.
///
/// # Panics
/// If there is no phase of this name.
pub fn run(phase: &str, args: &Args) {
    by_precision!(args, T => match phase {
        SQUARES => dots::<T>(args, V, V, NORM),
        NORMALIZE => normalize::<T>(args),
        PROJECT => dots::<T>(args, V, D_W, DOTS),
        PULL_BACK => pull_back::<T>(args),
        _ => unknown_phase(phase),
    });
}

/// Launches a phase of a reparametrisation on a GPU.
///
/// # Errors
/// If the device reports an error.
///
/// # Panics
/// If there is no phase of this name.
pub fn launch(phase: &str, launch: &Launch) -> Result<()> {
    let (v, gain) = (launch.operand(V), gain(launch.operands));
    let (rows, n) = (v.len(0), v.elements());
    if n == 0 {
        return Ok(());
    }
    let k = int(n / rows)?;
    let dots = |other: Role, to: Role| {
        let (a, b, dots, grid) = (launch.read(V), launch.read(other), launch.write(to), Grid::cover(rows, WARPS));
        // SAFETY: both factors are (rows, k), the sums (rows).
        unsafe { weight_norm_dots(&launch.issue, grid, a, b, dots, int(rows)?, k) }
    };
    match phase {
        SQUARES => dots(V, NORM),
        PROJECT => dots(D_W, DOTS),
        NORMALIZE => {
            let (v, g, norm, w) =
                (launch.read(V), launch.read(Role::Param(gain)), launch.read(NORM), launch.any_mut(W));
            // SAFETY: v and w have n elements, g and the squares one for each k of them.
            unsafe { any::weight_norm_apply(&launch.issue, launch.vectors(W), v, g, norm, w, n as i64, k) }
        }
        PULL_BACK => {
            let [v, g, norm, dw, dots] = [V, Role::Param(gain), NORM, D_W, DOTS].map(|role| launch.read(role));
            let (dv, dg) = (launch.write(D_V), launch.write(Role::DParam(gain)));
            // SAFETY: v, dw and dv have n elements, the others one for each k of them.
            unsafe { weight_norm_backward(&launch.issue, threads(n), v, g, norm, dw, dots, dv, dg, n as i64, k) }
        }
        _ => unknown_phase(phase),
    }
}

/// Rows that a block of threads sums on a GPU.
const WARPS: usize = 8;
/// Approximate number of elements per task.
const BLOCK: usize = 1 << 13;

/// Computes to[o] = sum of a[o, i] b[o, i].
fn dots<T: Real>(args: &Args, a: Role, b: Role, to: Role) {
    let rows = args.operand(a).len(0);
    let (a, b) = (args.read::<T>(a), args.read::<T>(b));
    let k = a.len() / rows.max(1);
    let size = (BLOCK / k.max(1)).max(1);
    args.chunks(args.write::<T>(to), size, |task, to, _| {
        for (i, to) in to.iter_mut().enumerate() {
            let at = (task * size + i) * k;
            *to = dot(&a[at..at + k], &b[at..at + k]);
        }
    });
}

/// Returns the sum of the products, in a fixed order.
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 16;
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [T::ZERO; LANES];
            for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
                lanes.iter_mut().zip(a).zip(b).for_each(|((lane, &a), &b)| *lane += a * b);
            }
            lanes.iter().fold(T::ZERO, |sum, &lane| sum + lane)
        },
    )
}

/// Returns 1 / |v|, or 0 for 0; that of a NaN is NaN.
fn inverse<T: Real>(square: T) -> T {
    if square > T::ZERO { T::ONE / square.sqrt() } else { square * T::ZERO }
}

/// Computes w.
fn normalize<T: Real>(args: &Args) {
    let g = args.read::<T>(Role::Param(gain(args.operands)));
    let (v, norm) = (args.read::<T>(V), args.read::<T>(NORM));
    let k = v.len() / g.len().max(1);
    args.chunks(args.write::<T>(W), k, |row, w, _| {
        let factor = g[row] * inverse(norm[row]);
        let v = &v[row * k..][..w.len()];
        vectorized(
            #[inline(always)]
            || w.iter_mut().zip(v).for_each(|(w, &v)| *w = factor * v),
        );
    });
}

/// Computes dv and dg.
fn pull_back<T: Real>(args: &Args) {
    let gain = gain(args.operands);
    let [v, g, norm, dw, dots] = [V, Role::Param(gain), NORM, D_W, DOTS].map(|role| args.read::<T>(role));
    let k = v.len() / g.len().max(1);
    for ((dg, &norm), &dot) in args.write::<T>(Role::DParam(gain)).iter_mut().zip(norm).zip(dots) {
        *dg = dot * inverse(norm);
    }
    args.chunks(args.write::<T>(D_V), k, |row, dv, _| {
        let inverse = inverse(norm[row]);
        let (factor, along) = (g[row] * inverse, dots[row] * inverse * inverse);
        let part = row * k..row * k + dv.len();
        let (v, dw) = (&v[part.clone()], &dw[part]);
        vectorized(
            #[inline(always)]
            || dv.iter_mut().zip(v).zip(dw).for_each(|((dv, &v), &dw)| *dv = factor * (dw - v * along)),
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};
    use crate::layers::{Activation, Layer, Setup, SingleLayer, read};

    fn layer(kind: &str, settings: &str) -> Box<dyn Layer> {
        let settings: serde_json::Value = serde_json::from_str(settings).unwrap();
        read(kind, settings).unwrap().unwrap()
    }

    #[test]
    fn known_values() {
        let dense = layer("dense", r#"{"units": 2, "bias": false, "reparam": {"weight_norm": {}}}"#);
        let mut single = SingleLayer::<f64>::new(&*dense, &[Activation::new(1, 1, 2)], &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0]);
        // |v| is 5 and 0.
        single.values_mut(Role::Param(0)).copy_from_slice(&[3.0, 4.0, 0.0, 0.0]);
        single.values_mut(Role::Param(1)).copy_from_slice(&[10.0, 1.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[1.0, 1.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        let near = |values: &[f64], expected: &[f64]| {
            let same = values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(same && values.len() == expected.len(), "{values:?}, expected {expected:?}");
        };
        near(single.values(Role::Y), &[22.0, 0.0]);
        // dw is x. Its part along v/|v| = (0.6, 0.8) is 2.2; the rest is (-0.32, 0.24), times g / |v| = 2.
        near(single.values(Role::DParam(1)), &[2.2, 0.0]);
        near(single.values(Role::DParam(0)), &[-0.64, 0.48, 0.0, 0.0]);
        near(single.values(Role::Dx(0)), &[6.0, 8.0]);
    }

    #[test]
    fn parameters_have_pytorchs_names_and_shapes() {
        let conv = layer("conv", r#"{"filters": 6, "kernel": 3, "reparam": {"weight_norm": {"gain": 0.5}}}"#);
        let params = conv.params(&[Activation::new(5, 5, 4)]);
        assert_eq!(params.iter().map(|param| param.name).collect::<Vec<_>>(), ["weight_v", "bias", "weight_g"]);
        assert_eq!((&params[2].shape, &params[2].file_shape), (&[6].into(), &[6, 1, 1, 1].into()));
        assert_eq!(params[2].init, Some(Init::constant(0.5)));
        assert_eq!(conv.values().last().unwrap().1, "{ weight_norm = { gain = 0.5 } }");
        let wrong = layer("conv", r#"{"filters": 6, "kernel": 3, "reparam": {"weight_norm": {"gain": 0}}}"#);
        let fault = wrong.check().unwrap_err();
        assert_eq!(fault.message, "reparam.weight_norm: gain = 0, expected a number above 0 within single precision");
    }

    /// Normalisation propagation: without statistics, values keep their mean and variance from layer to layer.
    #[test]
    fn values_keep_their_variance_through_many_layers() {
        let dense = layer("dense", r#"{"units": 300, "bias": false, "reparam": {"weight_norm": {"gain": 1}}}"#);
        let relu = layer("normalized_relu", "{}");
        let (image, setup) = ([Activation::new(1, 1, 300)], Setup::of_rows(200));
        let draw = |time, values: &mut [f64]| {
            let random = Random::new(1, RandomStream::Probe, time, 0);
            values.iter_mut().zip(0..).for_each(|(value, index)| *value = random.normal(index));
        };
        let mut x = vec![0.0; 200 * 300];
        draw(0, &mut x);
        for depth in 1..=10 {
            for layer in [&*dense, &*relu] {
                let mut single = SingleLayer::<f64>::new(layer, &image, &setup).unwrap();
                single.values_mut(Role::X(0)).copy_from_slice(&x);
                if layer.key() == "dense" {
                    draw(depth, single.values_mut(Role::Param(0)));
                    single.values_mut(Role::Param(1)).fill(1.0);
                }
                single.forward().unwrap();
                x.copy_from_slice(single.values(Role::Y));
            }
            let count = x.len() as f64;
            let mean = x.iter().sum::<f64>() / count;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            println!("layer {depth}: mean {mean:.3}, variance {variance:.3}");
            assert!(mean.abs() < 0.2 && (0.7..1.4).contains(&variance), "layer {depth}: {mean}, {variance}");
        }
    }
}
