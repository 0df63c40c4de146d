//! L2 weight decay: g = g + decay * decay_mult * w, which adds the gradient of decay / 2 * |w|^2 to that of the loss
//! (Krogh and Hertz 1991,
//! <https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html>).
//!
//! Equals `weight_decay` of PyTorch's SGD if it comes before `momentum`.

use super::transform::{Block, Elements, Transform, by_block, is_single};
use crate::cpu::vectorized;
use crate::error::{Fault, number};
use crate::gpu::kernels::{TransformSettings, WeightDecaySettings};
use crate::tensor::Real;
use serde::Deserialize;

/// The transform, given by its decay: at least 0, where 0 disables it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct WeightDecay(pub f64);

impl Transform for WeightDecay {
    fn key(&self) -> &'static str {
        "weight_decay"
    }
    fn check(&self) -> Result<(), Fault> {
        if self.0 == 0.0 || is_single(self.0) {
            return Ok(());
        }
        let decay = number(self.0);
        Err(Fault::whole(format!("weight_decay = {decay}, expected 0 or a number above it within single precision")))
    }
    fn is_identity(&self) -> bool {
        self.0 == 0.0
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => decay(e, self.0))
    }
    fn decay(&self) -> f64 {
        self.0
    }
    fn on_gpu(&self) -> TransformSettings {
        WeightDecaySettings { decay: self.0 as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![WeightDecay(5e-4)]
    }
}

fn decay<T: Real>(e: Elements<T>, decay: f64) {
    let decay = T::from_f64(decay * e.decay_mult);
    vectorized(
        #[inline(always)]
        || e.g.iter_mut().zip(e.w).for_each(|(g, &w)| *g += decay * w),
    );
}
