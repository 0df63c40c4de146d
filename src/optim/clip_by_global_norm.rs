//! Clipping by the global norm: g = g * min(1, max_norm / |g|), where |g| is the Euclidean norm of the gradients of
//! all parameters together (Pascanu et al. 2013, <https://proceedings.mlr.press/v28/pascanu13.html>).
//!
//! The norm is that of the whole network, whichever devices hold its parts; a parameter that several devices hold
//! counts once. NaN gradients remain NaN.

use super::transform::{Block, Norm, Transform, by_block, limit};
use crate::gpu::kernels::{ClipByGlobalNormSettings, TransformSettings};
use crate::settings::{Range, SINGLE, settings};
use crate::tensor::Real;

const MAX_NORM: Range<f64> = Range {
    text: "a number above 0 within single precision; leave clip_by_global_norm out to disable clipping",
    ..SINGLE
};

settings! {
    /// The transform: `clip_by_global_norm = 1.0`. Without it, nothing is clipped.
    #[derive(Copy)]
    pub struct ClipByGlobalNorm from max_norm {
        /// The largest norm that is left as it is.
        pub max_norm: f64 = 1.0, in MAX_NORM;
    }
}

impl Transform for ClipByGlobalNorm {
    fn key(&self) -> &'static str {
        "clip_by_global_norm"
    }
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Gradients]
    }
    fn max_norm(&self) -> Option<f64> {
        Some(self.max_norm)
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => limit(e.g, e.norms.global(), Real::from_f64(self.max_norm)))
    }
    fn on_gpu(&self) -> TransformSettings {
        ClipByGlobalNormSettings { max_norm: self.max_norm as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        [0.5, 1e6].map(|max_norm| ClipByGlobalNorm { max_norm }).into()
    }
}
