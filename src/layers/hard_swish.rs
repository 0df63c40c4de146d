//! Piecewise form of silu: y = x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, <https://arxiv.org/abs/1905.02244>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy (2 x + 3) / 6 where -3 < x < 3, dy above, 0 below. No settings.

use super::elementwise::{Elementwise, Keeps, Maps};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `hard_swish` layer.
    pub struct HardSwish {}
}

impl Elementwise for HardSwish {
    const KEY: &'static str = "hard_swish";
    const COST: u64 = 3;
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        let three = T::from_f64(3.0);
        if x <= -three {
            T::ZERO
        } else if x >= three {
            x
        } else {
            x * (x + three) * T::from_f64(1.0 / 6.0)
        }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, x: T, dy: T) -> T {
        let three = T::from_f64(3.0);
        if x <= -three {
            T::ZERO
        } else if x >= three {
            dy
        } else {
            dy * (x * T::from_f64(1.0 / 3.0) + T::from_f64(0.5))
        }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::hard_swish_forward, any::hard_swish_backward)
    }
}
