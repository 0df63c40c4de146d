//! Rectified linear unit: y = max(x, 0) (Nair and Hinton 2010, <https://dl.acm.org/doi/10.5555/3104322.3104425>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, otherwise 0. No settings.

use super::elementwise;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, by_precision};
use crate::device::Epilogue;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::tensor::Real;
use serde::Deserialize;

/// The `relu` layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relu {}

impl Layer for Relu {
    fn key(&self) -> &'static str {
        "relu"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(elementwise::phases(cx))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => elementwise::run::<T>(
            phase,
            args,
            #[inline(always)]
            |x| if x > T::ZERO { x } else { T::ZERO },
            #[inline(always)]
            |y, dy| if y > T::ZERO { dy } else { T::ZERO },
        ))
    }
    fn as_epilogue(&self) -> Option<Epilogue> {
        Some(Epilogue::Relu)
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        elementwise::launch(phase, launch, any::relu_forward, any::relu_backward)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Relu {}, vec![Activation::new(3, 2, 4)])]
    }
}
