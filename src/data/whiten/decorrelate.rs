//! Principal components: W = U^T.

use super::whitener::Whitener;
use crate::settings::settings;

settings! {
    /// `"decorrelate"`: the principal components of the images, in falling order of their variances, which are kept.
    pub struct Decorrelate {}
}

impl Whitener for Decorrelate {
    fn key(&self) -> &'static str {
        "decorrelate"
    }
    fn factor(&self, _: f64) -> f64 {
        1.0
    }
    fn examples() -> Vec<Self> {
        vec![Decorrelate {}]
    }
}
