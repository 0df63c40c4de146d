//! Sigmoid linear unit, also called swish: y = x s with s = 1 / (1 + exp(-x)) (Elfwing et al. 2018, <https://arxiv.org/abs/1702.03118>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy s (1 + x (1 - s)). No settings.

use super::elementwise::{Elementwise, Keeps, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `silu` layer.
    pub struct Silu {}
}

impl Elementwise for Silu {
    const KEY: &'static str = "silu";
    const COST: u64 = 11;
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        x * vector_math::sigmoid(x)
    }
    #[inline(always)]
    fn backward<T: Real>(&self, x: T, dy: T) -> T {
        let s = vector_math::sigmoid(x);
        dy * s * (T::ONE + x * (T::ONE - s))
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::silu_forward, any::silu_backward)
    }
}
