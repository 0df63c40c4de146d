//! Adam: a moving average of the gradient, divided by the root of one of its square (Kingma and Ba 2015,
//! <https://arxiv.org/abs/1412.6980>): m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and then
//! g = m/c1 / (sqrt(v/c2) + epsilon).
//!
//! m and v are 0 initially, so that they are too small by the factors c1 = 1 - beta1^t and c2 = 1 - beta2^t after t
//! updates; without bias correction, these are taken as 1. Updates count from the one with which Adam joined the chain; those
//! that were skipped count as well. As in PyTorch, epsilon is outside the root. Weight decay before Adam is L2 regularisation;
//! after it, decoupled decay (AdamW, Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>).

use super::transform::{Block, Elements, Transform, by_block, power};
use crate::cpu::vectorized;
use crate::gpu::kernels::{AdamSettings, TransformSettings};
use crate::settings::{FRACTION, SINGLE, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `adam = {}`.
    #[derive(Copy)]
    pub struct Adam {
        /// The fraction of the mean gradient that is kept from step to step.
        pub beta1: f64 = 0.9, in FRACTION;
        /// The fraction of the mean square that is kept from step to step.
        pub beta2: f64 = 0.999, in FRACTION;
        /// What is added to the root.
        pub epsilon: f64 = 1e-8, in SINGLE;
        /// Whether both means are divided by the weight that gradients have in them so far.
        pub bias_correction: bool = true;
    }
}

impl Transform for Adam {
    fn key(&self) -> &'static str {
        "adam"
    }
    fn slots(&self) -> &'static [&'static str] {
        &["mean", "square"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => adapt(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let Adam { beta1, beta2, epsilon, bias_correction } = *self;
        AdamSettings { beta1, beta2, epsilon: epsilon as f32, bias_correction: bias_correction.into() }.into()
    }
    fn examples() -> Vec<Self> {
        let plain = Adam::default();
        vec![plain, Adam { beta1: 0.5, beta2: 0.75, epsilon: 1e-3, bias_correction: false }]
    }
}

fn adapt<T: Real>(mut e: Elements<T>, s: &Adam) {
    let weight = |beta| if s.bias_correction { 1.0 - power(beta, e.update) } else { 1.0 };
    let (mean, root) = (T::from_f64(1.0 / weight(s.beta1)), T::from_f64(1.0 / weight(s.beta2).sqrt()));
    let [rest1, beta2, rest2, epsilon] = [1.0 - s.beta1, s.beta2, 1.0 - s.beta2, s.epsilon].map(T::from_f64);
    let (m, v) = (e.slots.take("mean"), e.slots.take("square"));
    vectorized(
        #[inline(always)]
        || {
            for ((g, m), v) in e.g.iter_mut().zip(m).zip(v) {
                *m += rest1 * (*g - *m);
                *v = beta2 * *v + rest2 * (*g * *g);
                *g = *m * mean / (v.sqrt() * root + epsilon);
            }
        },
    );
}
