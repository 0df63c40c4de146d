//! Zeros. If a layer and the one after it start from zeros, neither learns: all their gradients are 0.

use super::{InitialElement, Initializer};
use crate::settings::settings;

settings! {
    /// 0 everywhere.
    pub struct Zeros {}
}

impl Initializer for Zeros {
    fn key(&self) -> &'static str {
        "zeros"
    }
    fn value(&self, _: InitialElement) -> f64 {
        0.0
    }
    fn constant(&self) -> Option<f64> {
        Some(0.0)
    }
    fn examples() -> Vec<Self> {
        vec![Zeros {}]
    }
}
