//! A learned factor for each channel: y = w x (Touvron et al. 2021, <https://arxiv.org/abs/2103.17239>).
//!
//! x, y: (N, H, W, C); weight: (C). Backward: dx = w dy; dw = sum of dy x over all samples and pixels.

use super::layer::unknown_phase;
use super::row_sums::{self, Launches};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::{FINITE, settings};
use crate::tensor::{Dim, Real};

settings! {
    /// The `layer_scale` layer.
    pub struct LayerScale {
        /// The factor at first.
        pub init: f64 = 1e-6, in FINITE;
    }
}

/// Values per task.
const BLOCK: usize = 1 << 14;

impl Layer for LayerScale {
    fn key(&self) -> &'static str {
        "layer_scale"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("layer_scale has a factor for each channel of images; put it before flatten"));
        }
        Ok(x)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        vec![Param::vector("weight", inputs[0].c, self.init)]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let (param, gradient) = cx.param_layouts(Some(Dim::OUTPUTS));
        let backward = Phase::new("backward").read(Role::X(0), x).read(Role::WEIGHT, param).read(Role::Dy, x);
        Ok(LayerPhases {
            params: vec![param],
            ..LayerPhases::simple(
                Phase::new("forward").read(Role::X(0), x).read(Role::WEIGHT, param).write(Role::Y, x),
                backward.write(Role::Dx(0), x).write(Role::D_WEIGHT, gradient),
            )
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let x = &shapes[Role::X(0)];
        match (phase, target) {
            ("backward", Target::Cpu { .. }) => row_sums::scratch(x.elements(), x.len(3)),
            ("backward", _) => Launches::new(x.len(0) * x.len(1) * x.len(2), x.len(3)).scratch(),
            _ => 0,
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => scale::<T>(args, Role::X(0), Role::Y),
            "backward" => {
                if args.has(Role::Dx(0)) {
                    scale::<T>(args, Role::Dy, Role::Dx(0));
                }
                sum_gradients::<T>(args);
            }
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (o, n) = (launch.operand(Role::X(0)), launch.count(Role::X(0)));
        let (rows, c, grid) = (o.len(0) * o.len(1) * o.len(2), o.len(3), launch.vectors(Role::X(0)));
        let channels = int(c)?;
        let scale = |from: Role, to: Role| {
            let (from, w, to) = (launch.any(from), launch.read(Role::WEIGHT), launch.any_mut(to));
            // SAFETY: both have n elements in rows of c channels, and w has c.
            unsafe { any::layer_scale_apply(&launch.issue, grid, from, w, to, n, channels) }
        };
        match phase {
            "forward" => scale(Role::X(0), Role::Y),
            "backward" => {
                if launch.has(Role::Dx(0)) {
                    scale(Role::Dy, Role::Dx(0))?;
                }
                let (x, dy) = (launch.any(Role::X(0)), launch.any(Role::Dy));
                Launches::new(rows, c).run(launch, Role::D_WEIGHT, |grid, to, each| {
                    // SAFETY: x and dy are (rows, c); the parts fit where `to` points.
                    unsafe { any::layer_scale_sums(&launch.issue, grid, x, dy, to, rows as i64, channels, int(each)?) }
                })
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(LayerScale { init: 0.5 }, vec![Activation::new(3, 2, 4)])]
    }
}

/// Multiplies every row of channels by the factors.
fn scale<T: Real>(args: &Args, from: Role, to: Role) {
    let (from, w) = (args.read::<T>(from), args.read::<T>(Role::WEIGHT));
    let c = w.len();
    let size = (BLOCK / c.max(1)).max(1) * c;
    args.chunks(args.write::<T>(to), size, |task, to, _| {
        let from = &from[task * size..][..to.len()];
        for (to, from) in to.chunks_exact_mut(c).zip(from.chunks_exact(c)) {
            vectorized(
                #[inline(always)]
                || to.iter_mut().zip(from).zip(w).for_each(|((to, &from), &w)| *to = from * w),
            );
        }
    });
}

fn sum_gradients<T: Real>(args: &Args) {
    let (x, dy, c) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy), args.operand(Role::X(0)).len(3));
    row_sums::sum(args, x.len(), args.write::<T>(Role::D_WEIGHT), args.scratch::<T>(), |first, sums| {
        let (x, dy) = (&x[first..first + c], &dy[first..first + c]);
        vectorized(
            #[inline(always)]
            || sums.iter_mut().zip(x).zip(dy).for_each(|((sum, &x), &dy)| *sum += x * dy),
        );
    });
}
