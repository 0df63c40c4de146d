//! Smooth rectifier: y = ln(1 + exp(beta x)) / beta (Dugas et al. 2001,
//! <https://papers.nips.cc/paper/1920-incorporating-second-order-functional-knowledge-for-better-option-pricing>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy / (1 + exp(-beta x)).

use super::elementwise::{Elementwise, Keeps, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::{POSITIVE, settings};
use crate::tensor::Real;

settings! {
    /// The `softplus` layer.
    pub struct Softplus {
        /// Steepness of the bend at 0.
        pub beta: f64 = 1.0, in POSITIVE;
    }
}

impl Elementwise for Softplus {
    const KEY: &'static str = "softplus";
    const COST: u64 = 20;
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        vector_math::softplus(T::from_f64(self.beta) * x) * T::from_f64(1.0 / self.beta)
    }
    #[inline(always)]
    fn backward<T: Real>(&self, x: T, dy: T) -> T {
        dy * vector_math::sigmoid(T::from_f64(self.beta) * x)
    }
    fn kernels(&self) -> Maps {
        Maps::With(self.beta, any::softplus_forward, any::softplus_backward)
    }
    fn examples() -> Vec<Self> {
        vec![Softplus::default(), Softplus { beta: 2.5 }]
    }
}
