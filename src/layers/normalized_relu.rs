//! Rectified linear unit whose output has mean 0 and variance 1 where its input is standard normal:
//! y = (max(x, 0) - 1 / sqrt(2 pi)) / sqrt(1/2 - 1 / (2 pi)) (Arpit et al. 2016, <https://arxiv.org/abs/1603.01431>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy / sqrt(1/2 - 1 / (2 pi)) where x > 0, otherwise 0. No settings.
//!
//! In normalisation propagation it follows each `conv` or `dense` with `reparam = { weight_norm = { gain = 0.826 } }`, for inputs that are
//! normalised: the values then keep their mean and variance from layer to layer without statistics of the batch.

use super::elementwise::{Elementwise, Keeps, Maps};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;
use std::f64::consts::{FRAC_1_PI, FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

settings! {
    /// The `normalized_relu` layer.
    pub struct NormalizedRelu {}
}

/// The mean of max(x, 0), 1 / sqrt(2 pi).
const MEAN: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0;

/// Returns 1 over the standard deviation of max(x, 0).
#[inline(always)]
fn scale() -> f64 {
    1.0 / (0.5 - FRAC_1_PI / 2.0).sqrt()
}

impl Elementwise for NormalizedRelu {
    const KEY: &'static str = "normalized_relu";
    const COST: u64 = 3;
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        let y = if x <= T::ZERO { T::ZERO } else { x };
        (y - T::from_f64(MEAN)) * T::from_f64(scale())
    }
    #[inline(always)]
    fn backward<T: Real>(&self, x: T, dy: T) -> T {
        if x > T::ZERO { dy * T::from_f64(scale()) } else { T::ZERO }
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::normalized_relu_forward, any::normalized_relu_backward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_normal_keeps_its_mean_and_variance() {
        let layer = NormalizedRelu {};
        let (mut mean, mut square) = (0.0, 0.0);
        for i in -80_000..80_000 {
            let x = (f64::from(i) + 0.5) / 1e4;
            let weight = (-x * x / 2.0).exp() * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0 / 1e4;
            mean += layer.forward(x) * weight;
            square += layer.forward(x).powi(2) * weight;
        }
        assert!(mean.abs() < 1e-8 && (square - 1.0).abs() < 1e-8, "{mean} {square}");
    }
}
