//! Layer-sequential unit variance (Mishkin and Matas 2016, <https://arxiv.org/abs/1511.06422>): weights are orthogonal, and then
//! scaled, layer by layer in the order of the network, until the outputs of the layer have unit variance over a batch.
//!
//! The batch is the first one of the run, of which at most 64 samples are used; the scales are computed on the CPU in f64, so that they are the
//! same on every mesh and device. Weights that the run starts from (`model.from`) are used as they are. Layers between the scaled ones behave as in training.

use super::orthogonal::orthogonal;
use super::{InitialElement, Initializer};
use crate::device::Random;
use crate::settings::settings;
use crate::tensor::Shape;

settings! {
    /// Orthogonal, scaled so that the outputs of each layer have unit variance over the first batch (Mishkin and Matas 2016).
    pub struct Lsuv {}
}

impl Initializer for Lsuv {
    fn key(&self) -> &'static str {
        "lsuv"
    }
    fn value(&self, at: InitialElement) -> f64 {
        at.random.normal(at.index)
    }
    fn whole(&self, shape: &Shape, random: &Random) -> Option<Vec<f64>> {
        Some(orthogonal(shape, 1.0, random))
    }
    fn scales_outputs(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![Lsuv {}]
    }
}
