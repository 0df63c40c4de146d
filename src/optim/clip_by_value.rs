//! Clipping by value: g = min(max(g, -`limit`), `limit`) for each element (Mikolov 2012,
//! <https://www.fit.vut.cz/study/phd-thesis/283/.en>). It changes the direction of the gradient.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{ClipByValueSettings, TransformSettings};
use crate::settings::{Range, SINGLE, settings};
use crate::tensor::Real;

const LIMIT: Range<f64> =
    Range { text: "a number above 0 within single precision; leave clip_by_value out to disable clipping", ..SINGLE };

settings! {
    /// The transform: `clip_by_value = 0.5`. Without it, nothing is clipped.
    #[derive(Copy)]
    pub struct ClipByValue from limit {
        /// The largest magnitude of an element.
        pub limit: f64 = 1.0, in LIMIT;
    }
}

impl Transform for ClipByValue {
    fn key(&self) -> &'static str {
        "clip_by_value"
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => clip(e, self.limit))
    }
    fn on_gpu(&self) -> TransformSettings {
        ClipByValueSettings { limit: self.limit as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        [1e-3, 0.5].map(|limit| ClipByValue { limit }).into()
    }
}

fn clip<T: Real>(e: Elements<T>, limit: f64) {
    let limit = T::from_f64(limit);
    vectorized(
        #[inline(always)]
        || e.g.iter_mut().for_each(|g| *g = g.min(limit).max(-limit)),
    );
}
