//! Hyperbolic tangent: y = tanh(x) (LeCun et al. 1998, <https://doi.org/10.1109/5.726791>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy (1 - y^2). No settings.

use super::elementwise::{Elementwise, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `tanh` layer.
    pub struct Tanh {}
}

impl Elementwise for Tanh {
    const KEY: &'static str = "tanh";
    const COST: u64 = 10;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        vector_math::tanh(x)
    }
    #[inline(always)]
    fn backward<T: Real>(&self, y: T, dy: T) -> T {
        dy * (T::ONE - y * y)
    }
    fn kernels(&self) -> Maps {
        Maps::Plain(any::tanh_forward, any::tanh_backward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Activation, Role, Setup, SingleLayer};

    #[test]
    fn known_values() {
        let mut tanh = SingleLayer::<f64>::new(&Tanh {}, &[Activation::new(1, 1, 3)], &Setup::of_rows(1)).unwrap();
        tanh.values_mut(Role::X(0)).copy_from_slice(&[0.0, 1.0, -40.0]);
        tanh.values_mut(Role::Dy).fill(2.0);
        tanh.forward().unwrap();
        tanh.backward().unwrap();
        assert_eq!(tanh.values(Role::Y), [0.0, 1f64.tanh(), -1.0]);
        assert_eq!(tanh.values(Role::Dx(0))[0], 2.0);
        assert_eq!(tanh.values(Role::Dx(0))[2], 0.0);
    }
}
