//! Rectified linear unit: y = max(x, 0) (Nair and Hinton 2010, <https://dl.acm.org/doi/10.5555/3104322.3104425>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, otherwise 0. NaN stays NaN. No settings.

use super::elementwise::{Elementwise, Maps};
use crate::device::Epilogue;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `relu` layer.
    pub struct Relu {}
}

impl Elementwise for Relu {
    const KEY: &'static str = "relu";

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        if x <= T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO { dy } else { T::ZERO }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::relu_forward, any::relu_backward)
    }
    fn as_epilogue(&self) -> Option<Epilogue> {
        Some(Epilogue::Relu)
    }
}
