//! Rectified linear unit with a ceiling: y = min(max(x, 0), 6) (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where 0 < y < 6, otherwise 0. No settings.

use super::elementwise::{Elementwise, Maps};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `relu6` layer.
    pub struct Relu6 {}
}

impl Elementwise for Relu6 {
    const KEY: &'static str = "relu6";
    const COST: u64 = 1;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        let six = T::from_f64(6.0);
        if x <= T::ZERO {
            T::ZERO
        } else if x >= six {
            six
        } else {
            x
        }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO && y < T::from_f64(6.0) { dy } else { T::ZERO }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::relu6_forward, any::relu6_backward)
    }
}
