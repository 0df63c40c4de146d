//! Gaussian error linear unit: y = x P(x), where P is the distribution function of the normal distribution (Hendrycks and
//! Gimpel 2016, <https://arxiv.org/abs/1606.08415>): P(x) = (1 + erf(x / sqrt 2)) / 2, or its approximation
//! (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
//!
//! x, y: (N, H, W, C). Backward: dx = dy (P(x) + x P'(x)).

use super::elementwise::{Elementwise, Keeps, Maps};
use super::vector_math;
use crate::gpu::kernels::any;
use crate::settings::{settings, values};
use crate::tensor::Real;
use serde::Deserialize;

/// How `gelu` computes the distribution function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeluForm {
    /// By the error function.
    Erf,
    /// By the hyperbolic tangent.
    Tanh,
}

values! {
    GeluForm, "\"erf\" or \"tanh\"", form => match form {
        GeluForm::Erf => "\"erf\"".to_string(),
        GeluForm::Tanh => "\"tanh\"".to_string(),
    };
}

settings! {
    /// The `gelu` layer.
    pub struct Gelu {
        /// How the distribution function is computed: exactly, by the error function, or by its approximation with tanh.
        pub form: GeluForm = GeluForm::Erf;
    }
}

/// 1 / sqrt(2 pi), sqrt(2 / pi) and the factor of x^3.
const DENSITY: f64 = 0.3989422804014327;
const SLOPE: f64 = 0.7978845608028654;
const CUBE: f64 = 0.044715;

impl Elementwise for Gelu {
    const KEY: &'static str = "gelu";
    const COST: u64 = 20;
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn forward<T: Real>(&self, x: T) -> T {
        let real = T::from_f64;
        let odd = match self.form {
            GeluForm::Erf => vector_math::erf(x * real(std::f64::consts::FRAC_1_SQRT_2)),
            GeluForm::Tanh => vector_math::tanh(real(SLOPE) * x * (T::ONE + real(CUBE) * x * x)),
        };
        real(0.5) * x * (T::ONE + odd)
    }
    #[inline(always)]
    fn backward<T: Real>(&self, x: T, dy: T) -> T {
        let (real, half) = (T::from_f64, T::from_f64(0.5));
        match self.form {
            GeluForm::Erf => {
                let p = half * (T::ONE + vector_math::erf(x * real(std::f64::consts::FRAC_1_SQRT_2)));
                dy * (p + x * real(DENSITY) * vector_math::exp(-half * x * x))
            }
            GeluForm::Tanh => {
                let t = vector_math::tanh(real(SLOPE) * x * (T::ONE + real(CUBE) * x * x));
                let inner = real(SLOPE) * (T::ONE + real(3.0 * CUBE) * x * x);
                dy * half * (T::ONE + t + x * (T::ONE - t * t) * inner)
            }
        }
    }
    fn kernels(&self) -> Maps {
        match self.form {
            GeluForm::Erf => Maps::Plain(any::gelu_erf_forward, any::gelu_erf_backward),
            GeluForm::Tanh => Maps::Plain(any::gelu_tanh_forward, any::gelu_tanh_backward),
        }
    }
    fn examples() -> Vec<Self> {
        vec![Gelu::default(), Gelu { form: GeluForm::Tanh }]
    }
}
