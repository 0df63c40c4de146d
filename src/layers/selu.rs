//! Scaled exponential linear unit, which keeps mean 0 and variance 1: y = s x where x > 0, otherwise s a (exp(x) - 1), with
//! s = 1.0507009873554805 and a = 1.6732632423543772 (Klambauer et al. 2017, <https://arxiv.org/abs/1706.02515>).
//!
//! x, y: (N, H, W, C). Backward: dx = s dy where y > 0, otherwise dy (y + s a). No settings.

use super::elementwise::{Elementwise, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

/// The scale s.
const SCALE: f64 = 1.0507009873554805;
/// s a, minus the limit of y for small x.
const LIMIT: f64 = SCALE * 1.6732632423543772;

settings! {
    /// The `selu` layer.
    pub struct Selu {}
}

impl Elementwise for Selu {
    const KEY: &'static str = "selu";
    const COST: u64 = 10;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        if x > T::ZERO { T::from_f64(SCALE) * x } else { T::from_f64(LIMIT) * vector_math::exp_m1(x) }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO { T::from_f64(SCALE) * dy } else { dy * (y + T::from_f64(LIMIT)) }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::selu_forward, any::selu_backward)
    }
}
