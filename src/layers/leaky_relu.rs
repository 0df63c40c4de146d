//! Leaky rectified linear unit: y = x where x > 0, otherwise slope x (Maas, Hannun and Ng 2013,
//! <https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, otherwise slope dy; y has the sign of x, because slope > 0.

use super::elementwise::{Elementwise, Maps};
use crate::error::Fault;
use crate::gpu::kernels::any;
use crate::tensor::Real;
use serde::Deserialize;

/// The `leaky_relu` layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakyRelu {
    /// Slope where x is not above 0; above 0, 0.01 by default.
    pub slope: f64,
}

impl Default for LeakyRelu {
    fn default() -> Self {
        LeakyRelu { slope: 0.01 }
    }
}

impl Elementwise for LeakyRelu {
    const KEY: &'static str = "leaky_relu";

    fn check(&self) -> Result<(), Fault> {
        Fault::unless_positive("slope", self.slope)
    }
    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        if x > T::ZERO { x } else { T::from_f64(self.slope) * x }
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        if y > T::ZERO { dy } else { T::from_f64(self.slope) * dy }
    }
    fn kernels(&self) -> Maps {
        Maps::With(self.slope, any::leaky_relu_forward, any::leaky_relu_backward)
    }
}
