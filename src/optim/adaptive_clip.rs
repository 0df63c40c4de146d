//! Adaptive gradient clipping (Brock et al. 2021, <https://arxiv.org/abs/2102.06171>): the gradient of each unit, which is the
//! weights of one output of a layer, is scaled so that its norm is at most a share of that of the unit's weights:
//! g = g * min(1, clipping max(|w|, epsilon) / |g|).
//!
//! A vector, such as a bias, is one unit. Norms are those of whole units, whichever devices hold their parts. The authors leave the
//! last layer out, which a group with a chain of its own does: `groups = { fc = { chain = [..] } }`.

use super::transform::{Block, Elements, Norm, Transform, by_block, limit};
use crate::gpu::kernels::{AdaptiveClipSettings, TransformSettings};
use crate::settings::{SINGLE, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `adaptive_clip = {}`.
    #[derive(Copy)]
    pub struct AdaptiveClip from clipping {
        /// The largest ratio of the norms of a unit's gradient and weights.
        pub clipping: f64 = 0.01, in SINGLE;
        /// The norm that smaller weights count as, so that weights of 0 can move.
        pub epsilon: f64 = 1e-3, in SINGLE;
    }
}

impl Transform for AdaptiveClip {
    fn key(&self) -> &'static str {
        "adaptive_clip"
    }
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Gradients, Norm::Weights, Norm::Units]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => clip(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        AdaptiveClipSettings { clipping: self.clipping as f32, epsilon: self.epsilon as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![AdaptiveClip::default(), AdaptiveClip { clipping: 0.5, epsilon: 0.1 }]
    }
}

fn clip<T: Real>(e: Elements<T>, s: &AdaptiveClip) {
    let [clipping, epsilon] = [s.clipping, s.epsilon].map(T::from_f64);
    let mut rest = e.g;
    for unit in e.norms.units(rest.len()) {
        let (g, others) = rest.split_at_mut(unit.len);
        let most = clipping * unit.weights.max(epsilon);
        limit(g, unit.gradient, most);
        rest = others;
    }
}
