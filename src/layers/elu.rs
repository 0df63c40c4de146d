//! Exponential linear unit: y = x where x > 0, otherwise alpha (exp(x) - 1) (Clevert et al. 2016,
//! <https://arxiv.org/abs/1511.07289>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, otherwise dy (y + alpha).

use super::elementwise::{Elementwise, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::{POSITIVE, settings};
use crate::tensor::Real;

settings! {
    /// The `elu` layer.
    pub struct Elu {
        /// Minus the limit of y for small x.
        pub alpha: f64 = 1.0, in POSITIVE;
    }
}

impl Elementwise for Elu {
    const KEY: &'static str = "elu";
    const COST: u64 = 10;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        if x > T::ZERO { x } else { T::from_f64(self.alpha) * vector_math::exp_m1(x) }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO { dy } else { dy * (y + T::from_f64(self.alpha)) }
    }
    fn kernels(&self) -> Maps {
        Maps::With(self.alpha, any::elu_forward, any::elu_backward)
    }
    fn examples() -> Vec<Self> {
        vec![Elu::default(), Elu { alpha: 0.5 }]
    }
}
