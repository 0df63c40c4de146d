//! Clipping by the global norm: g = g * min(1, max_norm / |g|), where |g| is the Euclidean norm of the gradients of
//! all parameters together (Pascanu et al. 2013, <https://proceedings.mlr.press/v28/pascanu13.html>).
//!
//! The norm is that of the whole network, whichever devices hold its parts; a parameter that several devices hold
//! counts once. NaN gradients remain NaN.

use super::transform::{Block, Elements, Norm, Transform, by_block, is_single};
use crate::cpu::vectorized;
use crate::error::{Fault, number};
use crate::gpu::kernels::{ClipByGlobalNormSettings, TransformSettings};
use crate::tensor::Real;
use serde::Deserialize;

/// The transform, given by its maximum norm, which is above 0.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct ClipByGlobalNorm(pub f64);

impl Transform for ClipByGlobalNorm {
    fn key(&self) -> &'static str {
        "clip_by_global_norm"
    }
    fn check(&self) -> Result<(), Fault> {
        if is_single(self.0) {
            return Ok(());
        }
        Err(Fault::whole(format!(
            "clip_by_global_norm = {}, expected the maximum norm, a number above 0 within single precision; leave \
             clip_by_global_norm out to disable clipping",
            number(self.0)
        )))
    }
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Gradients]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => clip(e, self.0))
    }
    fn on_gpu(&self) -> TransformSettings {
        ClipByGlobalNormSettings { max_norm: self.0 as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![ClipByGlobalNorm(0.5), ClipByGlobalNorm(1e6)]
    }
}

fn clip<T: Real>(e: Elements<T>, max_norm: f64) {
    let max_norm = T::from_f64(max_norm);
    let norm = e.norms.global();
    if norm > max_norm {
        let factor = max_norm / norm;
        vectorized(
            #[inline(always)]
            || e.g.iter_mut().for_each(|g| *g *= factor),
        );
    }
}
