//! Leaky rectified linear unit: y = x where x > 0, otherwise slope x (Maas, Hannun and Ng 2013,
//! <https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, otherwise slope dy; y has the sign of x, because slope > 0.

use super::elementwise::{Elementwise, Maps};
use crate::gpu::kernels::any;
use crate::settings::{POSITIVE, settings};
use crate::tensor::Real;

settings! {
    /// The `leaky_relu` layer.
    pub struct LeakyRelu {
        /// Slope where x is not above 0.
        pub slope: f64 = 0.01, in POSITIVE;
    }
}

impl Elementwise for LeakyRelu {
    const KEY: &'static str = "leaky_relu";

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
