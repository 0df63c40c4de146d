//! Nadam: Adam with Nesterov's look-ahead (Dozat 2016, <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>):
//! m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and then
//! g = (a g + b m) / (sqrt(v / (1 - beta2^t)) + epsilon).
//!
//! In update t, a = (1 - mu(t)) / (1 - M(t)) and b = mu(t + 1) / (1 - M(t + 1)), where
//! mu(t) = beta1 (1 - 0.5 * 0.96^(t momentum_decay)) and M(t) = mu(1) mu(2) .. mu(t), as in PyTorch. Updates count from the one
//! with which Nadam joined the chain.

use super::transform::{Block, Elements, Transform, by_block, power};
use crate::cpu::vectorized;
use crate::gpu::kernels::{NadamSettings, TransformSettings};
use crate::settings::{FRACTION, SINGLE, SINGLE_OR_ZERO, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `nadam = {}`.
    #[derive(Copy)]
    pub struct Nadam {
        /// The fraction of the mean gradient that is kept from step to step.
        pub beta1: f64 = 0.9, in FRACTION;
        /// The fraction of the mean square that is kept from step to step.
        pub beta2: f64 = 0.999, in FRACTION;
        /// What is added to the root.
        pub epsilon: f64 = 1e-8, in SINGLE;
        /// How fast the weight of the look-ahead grows from beta1 / 2 to beta1.
        pub momentum_decay: f64 = 4e-3, in SINGLE_OR_ZERO;
    }
}

impl Nadam {
    /// Returns 0.96^momentum_decay.
    fn ratio(&self) -> f64 {
        0.96f64.powf(self.momentum_decay)
    }

    /// Returns a and b of update t.
    fn weights(&self, t: u64) -> [f64; 2] {
        let ratio = self.ratio();
        // Below 1e-18, the product no longer changes 1 - M.
        let (mut product, mut power_of_ratio, mut i) = (1.0, 1.0, 0);
        while i < t && product > 1e-18 {
            power_of_ratio *= ratio;
            product *= self.beta1 * (1.0 - 0.5 * power_of_ratio);
            i += 1;
        }
        let [now, next] = [t, t + 1].map(|t| self.beta1 * (1.0 - 0.5 * power(ratio, t)));
        [(1.0 - now) / (1.0 - product), next / (1.0 - product * next)]
    }
}

impl Transform for Nadam {
    fn key(&self) -> &'static str {
        "nadam"
    }
    fn slots(&self) -> &'static [&'static str] {
        &["mean", "square"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => adapt(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let Nadam { beta1, beta2, epsilon, .. } = *self;
        NadamSettings { beta1, beta2, ratio: self.ratio(), epsilon: epsilon as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        let plain = Nadam::default();
        vec![plain, Nadam { beta1: 0.5, beta2: 0.75, epsilon: 1e-3, momentum_decay: 0.5 }]
    }
}

fn adapt<T: Real>(mut e: Elements<T>, s: &Nadam) {
    let [a, b] = s.weights(e.update).map(T::from_f64);
    let root = T::from_f64(1.0 / (1.0 - power(s.beta2, e.update)).sqrt());
    let [rest1, beta2, rest2, epsilon] = [1.0 - s.beta1, s.beta2, 1.0 - s.beta2, s.epsilon].map(T::from_f64);
    let (m, v) = (e.slots.take("mean"), e.slots.take("square"));
    vectorized(
        #[inline(always)]
        || {
            for ((g, m), v) in e.g.iter_mut().zip(m).zip(v) {
                *m += rest1 * (*g - *m);
                *v = beta2 * *v + rest2 * (*g * *g);
                *g = (a * *g + b * *m) / (v.sqrt() * root + epsilon);
            }
        },
    );
}
