//! The norms of the weight of the same layer, one for each output: the start of g in weight normalisation. Layers give them to parameters
//! of theirs; the file cannot.

use super::{InitialElement, Initializer};
use crate::settings::settings;

settings! {
    /// The norms of the weight of the same layer.
    pub struct NormsOfWeight {}
}

impl Initializer for NormsOfWeight {
    fn key(&self) -> &'static str {
        "norms"
    }
    fn value(&self, _: InitialElement) -> f64 {
        1.0
    }
    fn of_weight(&self, weight: &dyn Fn() -> Vec<f64>, outputs: usize) -> Option<Vec<f64>> {
        let weight = weight();
        let rows = weight.chunks_exact(weight.len() / outputs.max(1));
        Some(rows.map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect())
    }
    fn examples() -> Vec<Self> {
        vec![NormsOfWeight {}]
    }
}
