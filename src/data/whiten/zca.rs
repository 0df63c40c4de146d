//! ZCA whitening: W = U diag(1 / sqrt(variances + epsilon)) U^T (Bell and Sejnowski 1997, <https://doi.org/10.1016/S0042-6989(97)00121-1>;
//! Krizhevsky 2009, <https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf>).

use super::whitener::Whitener;
use crate::settings::{SINGLE, settings};

settings! {
    /// `{ zca = { epsilon = 0.01 } }`: as `pca`, and turned back to the pixels: of all whitened images, those nearest to the originals.
    pub struct Zca from epsilon {
        /// Added to the variances, as in `pca`.
        pub epsilon: f64 = 0.01, in SINGLE;
    }
}

impl Whitener for Zca {
    fn key(&self) -> &'static str {
        "zca"
    }
    fn factor(&self, variance: f64) -> f64 {
        1.0 / (variance + self.epsilon).sqrt()
    }
    fn turns_back(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![Zca { epsilon: 0.01 }, Zca { epsilon: 1e-12 }]
    }
}
