//! PCA whitening: W = diag(1 / sqrt(variances + epsilon)) U^T.

use super::whitener::Whitener;
use crate::settings::{SINGLE, settings};

settings! {
    /// `{ pca = { epsilon = 0.01 } }`: the principal components of the images, in falling order of their variances v, each divided by
    /// sqrt(v + epsilon).
    pub struct Pca from epsilon {
        /// Added to the variances, so that components with hardly any are not blown up; in squared units of the normalised values.
        pub epsilon: f64 = 0.01, in SINGLE;
    }
}

impl Whitener for Pca {
    fn key(&self) -> &'static str {
        "pca"
    }
    fn factor(&self, variance: f64) -> f64 {
        1.0 / (variance + self.epsilon).sqrt()
    }
    fn examples() -> Vec<Self> {
        vec![Pca { epsilon: 0.01 }, Pca { epsilon: 1e-12 }]
    }
}
