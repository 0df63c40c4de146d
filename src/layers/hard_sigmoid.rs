//! Piecewise linear sigmoid: y = min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, <https://arxiv.org/abs/1905.02244>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy / 6 where 0 < y < 1, otherwise 0. No settings.

use super::elementwise::{Elementwise, Maps};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `hard_sigmoid` layer.
    pub struct HardSigmoid {}
}

impl Elementwise for HardSigmoid {
    const KEY: &'static str = "hard_sigmoid";
    const COST: u64 = 2;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        let three = T::from_f64(3.0);
        if x <= -three {
            T::ZERO
        } else if x >= three {
            T::ONE
        } else {
            (x + three) * T::from_f64(1.0 / 6.0)
        }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO && y < T::ONE { dy * T::from_f64(1.0 / 6.0) } else { T::ZERO }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::hard_sigmoid_forward, any::hard_sigmoid_backward)
    }
}
