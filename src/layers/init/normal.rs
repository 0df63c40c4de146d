//! The normal distribution with a standard deviation that does not depend on the layer: Caffe's `gaussian`.

use super::{InitialElement, Initializer};
use crate::settings::{Range, settings};

/// A standard deviation.
pub(super) const STD: Range<f64> =
    Range { text: "a number above 0; for zeros write init = \"zeros\"", contains: |std| std.is_finite() && *std > 0.0 };

settings! {
    /// Normal with mean 0 and standard deviation `std`: `{ normal = { std = 0.01 } }`.
    pub struct NormalValues {
        /// The standard deviation.
        pub std: f64, in STD, example "0.01";
    }
}

impl Initializer for NormalValues {
    fn key(&self) -> &'static str {
        "normal"
    }
    fn value(&self, at: InitialElement) -> f64 {
        self.std * at.random.normal(at.index)
    }
    fn examples() -> Vec<Self> {
        vec![NormalValues { std: 0.01 }]
    }
}
