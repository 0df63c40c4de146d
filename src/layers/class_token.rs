//! A learned position before those of every sample, from which a classifier reads (Dosovitskiy et al. 2021,
//! <https://arxiv.org/abs/2010.11929>): y[n, 0, 0] = w, y[n, 0, 1 + i W + j] = x[n, i, j].
//!
//! x: (N, H, W, C); weight: (C); y: (N, 1, 1 + H W, C). Backward: dx = dy without the first position, dw = sum of dy there over the
//! samples. To classify, `crop = { height = 1, width = 1 }` takes the first position.

use super::init::TruncatedNormal;
use super::layer::unknown_phase;
use super::row_sums::{self, Launches};
use super::{
    Activation, Args, Init, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Phase, Role, by_precision,
};
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::{NOT_NEGATIVE, settings};
use crate::tensor::{Dim, Real};
use std::sync::Arc;

settings! {
    /// The `class_token` layer.
    pub struct ClassToken {
        /// Standard deviation of its values at first.
        pub std: f64 = 0.02, in NOT_NEGATIVE;
    }
}

impl Layer for ClassToken {
    fn key(&self) -> &'static str {
        "class_token"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat {
            return Err(Fault::whole("class_token needs the pixels of images as positions; put it before flatten"));
        }
        Ok(Activation::new(1, 1 + x.h * x.w, x.c))
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let init = Some(Init(Arc::new(TruncatedNormal { std: self.std, ..TruncatedNormal::default() })));
        vec![Param { init, ..Param::vector("weight", inputs[0].c, 0.0) }]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let (param, gradient) = cx.param_layouts(Some(Dim::OUTPUTS));
        Ok(LayerPhases {
            params: vec![param],
            ..LayerPhases::simple(
                Phase::new("forward").read(Role::X(0), x).read(Role::WEIGHT, param).write(Role::Y, x),
                Phase::new("backward").read(Role::Dy, x).write(Role::Dx(0), x).write(Role::D_WEIGHT, gradient),
            )
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        if phase == "forward" {
            return 0;
        }
        let (samples, c) = (shapes[Role::Dy].len(0), shapes[Role::Dy].len(3));
        match target {
            Target::Cpu { .. } => row_sums::scratch(samples * c, c),
            _ => Launches::new(samples, c).scratch(),
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(args),
            "backward" => backward::<T>(args),
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let y = launch.operand(if phase == "forward" { Role::Y } else { Role::Dy });
        let (samples, c, image) = (y.len(0), y.len(3), ((y.len(2).max(1) - 1) * y.len(3)) as i64);
        let channels = int(c)?;
        match phase {
            "forward" => {
                let (grid, n) = (launch.vectors(Role::Y), launch.count(Role::Y));
                let (x, w, y) = (launch.any(Role::X(0)), launch.read(Role::WEIGHT), launch.any_mut(Role::Y));
                // SAFETY: y has n elements, in samples of c values and those of a sample of x.
                unsafe { any::class_token_forward(&launch.issue, grid, x, w, y, n, image, channels) }
            }
            "backward" => {
                let dy = launch.any(Role::Dy);
                if launch.has(Role::Dx(0)) {
                    let (grid, n) = (launch.vectors(Role::Dx(0)), launch.count(Role::Dx(0)));
                    let dx = launch.any_mut(Role::Dx(0));
                    // SAFETY: dx has n elements, and dy those and c for each sample.
                    unsafe { any::class_token_backward(&launch.issue, grid, dy, dx, n, image, channels)? };
                }
                Launches::new(samples, c).run(launch, Role::D_WEIGHT, |grid, to, each| {
                    // SAFETY: dy is (samples, c + image); the parts fit where `to` points.
                    unsafe {
                        any::class_token_sums(&launch.issue, grid, dy, to, samples as i64, image, channels, int(each)?)
                    }
                })
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(ClassToken::default(), vec![Activation::new(2, 2, 4)])]
    }
}

/// Computes y; each task handles one sample.
fn forward<T: Real>(args: &Args) {
    let (x, w) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT));
    let y = args.operand(Role::Y);
    let all = y.len(2) * y.len(3);
    args.chunks(args.write::<T>(Role::Y), all, |n, y, _| {
        let (token, rest) = y.split_at_mut(w.len());
        token.copy_from_slice(w);
        rest.copy_from_slice(&x[n * rest.len()..][..rest.len()]);
    });
}

fn backward<T: Real>(args: &Args) {
    let (dy, o) = (args.read::<T>(Role::Dy), args.operand(Role::Dy));
    let (all, c) = (o.len(2) * o.len(3), o.len(3));
    if args.has(Role::Dx(0)) {
        args.chunks(args.write::<T>(Role::Dx(0)), all - c, |n, dx, _| {
            dx.copy_from_slice(&dy[n * all + c..][..all - c]);
        });
    }
    row_sums::sum(args, o.len(0) * c, args.write::<T>(Role::D_WEIGHT), args.scratch::<T>(), |first, sums| {
        let dy = &dy[first / c * all..][..c];
        sums.iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy);
    });
}
