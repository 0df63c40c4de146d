//! The same value everywhere. All outputs of a layer then compute the same, and go on doing so.

use super::{InitialElement, Initializer};
use crate::settings::{FINITE, settings};

settings! {
    /// The value everywhere: `constant = 0.1`.
    pub struct ConstantValues from value {
        /// The value.
        pub value: f64, in FINITE, example "0.1";
    }
}

impl Initializer for ConstantValues {
    fn key(&self) -> &'static str {
        "constant"
    }
    fn value(&self, _: InitialElement) -> f64 {
        self.value
    }
    fn constant(&self) -> Option<f64> {
        Some(self.value)
    }
    fn examples() -> Vec<Self> {
        vec![ConstantValues { value: 0.1 }]
    }
}
