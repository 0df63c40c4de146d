//! A learned vector for each position, added to every sample: y[n, i, j, c] = x[n, i, j, c] + w[i W + j, c] (Dosovitskiy et al. 2021,
//! <https://arxiv.org/abs/2010.11929>).
//!
//! x, y: (N, H, W, C); weight: (H W, C). Backward: dx = dy, dw = sum of dy over the samples.

use super::init::TruncatedNormal;
use super::layer::unknown_phase;
use super::row_sums;
use super::split_k::{SplitK, sum_rows_on};
use super::{
    Activation, Args, Init, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Phase, Role, by_precision,
};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{NOT_NEGATIVE, settings};
use crate::tensor::{Dim, Real, Shape};
use std::sync::Arc;

settings! {
    /// The `positional_embedding` layer.
    pub struct PositionalEmbedding {
        /// Standard deviation of the vectors at first.
        pub std: f64 = 0.02, in NOT_NEGATIVE;
    }
}

/// The channels of a parameter (positions, C).
const PARAM_CHANNELS: Dim = Dim(1);

impl Layer for PositionalEmbedding {
    fn key(&self) -> &'static str {
        "positional_embedding"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        if inputs[0].flat && inputs[0].h * inputs[0].w > 1 {
            return Err(Fault::whole(
                "positional_embedding needs the pixels of images as positions; put it before flatten",
            ));
        }
        Ok(inputs[0])
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let (positions, c) = (inputs[0].h * inputs[0].w, inputs[0].c);
        let shape = Shape::from([positions, c]);
        let init = Some(Init(Arc::new(TruncatedNormal { std: self.std, ..TruncatedNormal::default() })));
        vec![Param {
            name: "weight",
            file_shape: shape.clone(),
            shape,
            file_order: vec![0, 1],
            fan_in: 1,
            fan_out: 1,
            init,
        }]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let (param, gradient) = cx.param_layouts(Some(PARAM_CHANNELS));
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
        let (dy, columns) = (&shapes[Role::Dy], shapes[Role::D_WEIGHT].elements());
        match target {
            Target::Cpu { .. } => row_sums::scratch(dy.elements(), columns),
            _ => SplitK::of_rows(dy.len(0), columns).scratch(columns),
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
        match phase {
            "forward" => {
                let (x, w, y) = (launch.any(Role::X(0)), launch.read(Role::WEIGHT), launch.any_mut(Role::Y));
                let (grid, n, image) =
                    (launch.vectors(Role::X(0)), launch.count(Role::X(0)), launch.count(Role::WEIGHT));
                // SAFETY: x and y have n elements, in samples of as many as w has.
                unsafe { any::positional_embedding_forward(&launch.issue, grid, x, w, y, n, image) }
            }
            "backward" => {
                if launch.has(Role::Dx(0)) {
                    launch.copy(Role::Dy, 0, Role::Dx(0))?;
                }
                sum_rows_on(launch, Role::Dy, launch.operand(Role::Dy).len(0), Role::D_WEIGHT)
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(PositionalEmbedding::default(), vec![Activation::new(3, 2, 4)])]
    }
}

/// Computes y; each task handles one sample.
fn forward<T: Real>(args: &Args) {
    let (x, w) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT));
    args.chunks(args.write::<T>(Role::Y), w.len(), |n, y, _| {
        let x = &x[n * w.len()..][..w.len()];
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(x).zip(w).for_each(|((y, &x), &w)| *y = x + w),
        );
    });
}

fn backward<T: Real>(args: &Args) {
    let dy = args.read::<T>(Role::Dy);
    if args.has(Role::Dx(0)) {
        args.write::<T>(Role::Dx(0)).copy_from_slice(dy);
    }
    let dw = args.write::<T>(Role::D_WEIGHT);
    let image = dw.len();
    row_sums::sum(args, dy.len(), dw, args.scratch::<T>(), |first, sums| {
        let dy = &dy[first..first + image];
        vectorized(
            #[inline(always)]
            || sums.iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy),
        );
    });
}
