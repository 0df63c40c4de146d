//! Logistic sigmoid: y = 1 / (1 + exp(-x)).
//!
//! x, y: (N, H, W, C). Backward: dx = dy y (1 - y) (Rumelhart et al. 1986, <https://doi.org/10.1038/323533a0>).
//! No settings.

use super::elementwise::{Elementwise, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `sigmoid` layer.
    pub struct Sigmoid {}
}

impl Elementwise for Sigmoid {
    const KEY: &'static str = "sigmoid";
    const COST: u64 = 10;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        vector_math::sigmoid(x)
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        dy * y * (T::ONE - y)
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::sigmoid_forward, any::sigmoid_backward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Activation, Role, Setup, SingleLayer};

    #[test]
    fn known_values() {
        let mut sigmoid =
            SingleLayer::<f64>::new(&Sigmoid {}, &[Activation::new(1, 1, 3)], &Setup::of_rows(1)).unwrap();
        sigmoid.values_mut(Role::X(0)).copy_from_slice(&[0.0, 3f64.ln(), -800.0]);
        sigmoid.values_mut(Role::Dy).fill(1.0);
        sigmoid.forward().unwrap();
        sigmoid.backward().unwrap();
        let y = sigmoid.values(Role::Y);
        assert!(y[0] == 0.5 && (y[1] - 0.75).abs() < 1e-15 && y[2] == 0.0, "{y:?}");
        assert_eq!(sigmoid.values(Role::Dx(0))[0], 0.25);
    }
}
