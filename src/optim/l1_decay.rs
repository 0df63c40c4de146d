//! L1 weight decay: g = g + decay * decay_mult * sign(w), which adds the gradient of decay * |w|_1 to that of the loss
//! (Tibshirani 1996, <https://doi.org/10.1111/j.2517-6161.1996.tb02080.x>), with sign(0) = 0.
//!
//! It moves small weights towards 0, around which they then change their sign: they are not exactly 0. Before a transform that
//! scales it is coupled, after it decoupled, as `weight_decay` is.

use super::transform::{Block, Elements, Transform, by_block, sign};
use crate::cpu::vectorized;
use crate::gpu::kernels::{L1DecaySettings, TransformSettings};
use crate::settings::{SINGLE_OR_ZERO, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `l1_decay = 1e-5`.
    #[derive(Copy)]
    pub struct L1Decay from decay {
        /// The decay; 0 disables it.
        pub decay: f64 = 1e-5, in SINGLE_OR_ZERO;
    }
}

impl Transform for L1Decay {
    fn key(&self) -> &'static str {
        "l1_decay"
    }
    fn is_identity(&self) -> bool {
        self.decay == 0.0
    }
    fn uses_decay_mult(&self) -> bool {
        self.decay != 0.0
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => decay(e, self.decay))
    }
    fn on_gpu(&self) -> TransformSettings {
        L1DecaySettings { decay: self.decay as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![L1Decay { decay: 1e-3 }]
    }
}

fn decay<T: Real>(e: Elements<T>, decay: f64) {
    let decay = T::from_f64(decay * e.decay_mult);
    vectorized(
        #[inline(always)]
        || e.g.iter_mut().zip(e.w).for_each(|(g, &w)| *g += decay * sign(w)),
    );
}
