//! Clipping by the norm of each layer: g = g * min(1, max_norm / |g|), where |g| is the Euclidean norm of the gradients of
//! all parameters of the layer together (after Pascanu et al. 2013, <https://proceedings.mlr.press/v28/pascanu13.html>).
//!
//! The norm is that of the whole layer, whichever devices hold its parts. Unlike `clip_by_global_norm`, one layer with a large
//! gradient does not slow the others down; the direction of the gradient of the network changes.

use super::transform::{Block, Norm, Transform, by_block, limit};
use crate::gpu::kernels::{ClipByLayerNormSettings, TransformSettings};
use crate::settings::{Range, SINGLE, settings};
use crate::tensor::Real;

const MAX_NORM: Range<f64> = Range {
    text: "a number above 0 within single precision; leave clip_by_layer_norm out to disable clipping",
    ..SINGLE
};

settings! {
    /// The transform: `clip_by_layer_norm = 1.0`. Without it, nothing is clipped.
    #[derive(Copy)]
    pub struct ClipByLayerNorm from max_norm {
        /// The largest norm of a layer that is left as it is.
        pub max_norm: f64 = 1.0, in MAX_NORM;
    }
}

impl Transform for ClipByLayerNorm {
    fn key(&self) -> &'static str {
        "clip_by_layer_norm"
    }
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Gradients]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => limit(e.g, e.norms.layer(), Real::from_f64(self.max_norm)))
    }
    fn on_gpu(&self) -> TransformSettings {
        ClipByLayerNormSettings { max_norm: self.max_norm as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        [0.25, 1e6].map(|max_norm| ClipByLayerNorm { max_norm }).into()
    }
}
