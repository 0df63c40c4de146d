//! Momentum: v = mu * v + g, with v = 0 initially; then g = v or, with Nesterov's look-ahead, g = g + mu * v
//! (Sutskever et al. 2013, <https://proceedings.mlr.press/v28/sutskever13.html>).
//!
//! As in PyTorch's SGD without dampening, the learning rate multiplies v when it is used, not when it is accumulated.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{MomentumSettings, TransformSettings};
use crate::settings::{FRACTION, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `momentum = 0.9`, or `momentum = { mu = 0.9, nesterov = true }`.
    #[derive(Copy)]
    pub struct Momentum from mu {
        /// The fraction of the velocity that is kept from step to step; 0 disables it.
        pub mu: f64, in FRACTION, example "0.9";
        /// Whether to look ahead along the new velocity.
        pub nesterov: bool = false;
    }
}

impl Transform for Momentum {
    fn key(&self) -> &'static str {
        "momentum"
    }
    fn is_identity(&self) -> bool {
        self.mu == 0.0
    }
    fn slots(&self) -> &'static [&'static str] {
        &["velocity"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => accelerate(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        MomentumSettings { mu: self.mu as f32, nesterov: self.nesterov.into() }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Momentum { mu: 0.9, nesterov: false }, Momentum { mu: 0.5, nesterov: true }]
    }
}

fn accelerate<T: Real>(mut e: Elements<T>, momentum: &Momentum) {
    let mu = T::from_f64(momentum.mu);
    let v = e.slots.take("velocity");
    let g = e.g;
    vectorized(
        #[inline(always)]
        || {
            if momentum.nesterov {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = mu * *v + *g;
                    *g += mu * *v;
                }
            } else {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = mu * *v + *g;
                    *g = *v;
                }
            }
        },
    );
}
