//! Lion: the sign of a moving average of the gradient (Chen et al. 2023, <https://arxiv.org/abs/2302.06675>):
//! d = sign(beta1 m + (1 - beta1) g), m = beta2 m + (1 - beta2) g, and g = d, with m = 0 initially and sign(0) = 0.
//!
//! Every weight moves by the learning rate, which the paper sets to a tenth or a third of Adam's. Weight decay after Lion is
//! decoupled, as in the paper.

use super::transform::{Block, Elements, Transform, by_block, sign};
use crate::cpu::vectorized;
use crate::gpu::kernels::{LionSettings, TransformSettings};
use crate::settings::{FRACTION, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `lion = {}`.
    #[derive(Copy)]
    pub struct Lion {
        /// The weight of the mean gradient in the update.
        pub beta1: f64 = 0.9, in FRACTION;
        /// The fraction of the mean gradient that is kept from step to step.
        pub beta2: f64 = 0.99, in FRACTION;
    }
}

impl Transform for Lion {
    fn key(&self) -> &'static str {
        "lion"
    }
    fn slots(&self) -> &'static [&'static str] {
        &["mean"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => turn(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        LionSettings { beta1: self.beta1, beta2: self.beta2 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Lion::default(), Lion { beta1: 0.5, beta2: 0.999 }]
    }
}

fn turn<T: Real>(mut e: Elements<T>, s: &Lion) {
    let [beta1, rest1, rest2] = [s.beta1, 1.0 - s.beta1, 1.0 - s.beta2].map(T::from_f64);
    let m = e.slots.take("mean");
    vectorized(
        #[inline(always)]
        || {
            for (g, m) in e.g.iter_mut().zip(m) {
                let mixed = beta1 * *m + rest1 * *g;
                *m += rest2 * (*g - *m);
                *g = sign(mixed);
            }
        },
    );
}
