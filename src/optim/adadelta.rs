//! AdaDelta: the gradient is scaled by the ratio of the root mean squares of past updates and of gradients (Zeiler 2012,
//! <https://arxiv.org/abs/1212.5701>): v = decay v + (1 - decay) g^2, d = sqrt(u + epsilon) / sqrt(v + epsilon) g,
//! u = decay u + (1 - decay) d^2, and g = d. Both means are 0 initially.
//!
//! The learning rate that the paper proposes is 1. As in the paper and in PyTorch, epsilon is within the roots here.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{AdadeltaSettings, TransformSettings};
use crate::settings::{FRACTION, SINGLE, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `adadelta = {}`.
    #[derive(Copy)]
    pub struct Adadelta {
        /// The fraction of the mean squares that is kept from step to step.
        pub decay: f64 = 0.9, in FRACTION;
        /// What is added within the roots.
        pub epsilon: f64 = 1e-6, in SINGLE;
    }
}

impl Transform for Adadelta {
    fn key(&self) -> &'static str {
        "adadelta"
    }
    fn slots(&self) -> &'static [&'static str] {
        &["square", "update"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => scale(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        AdadeltaSettings { decay: self.decay, epsilon: self.epsilon as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Adadelta::default(), Adadelta { decay: 0.999, epsilon: 1e-4 }]
    }
}

fn scale<T: Real>(mut e: Elements<T>, s: &Adadelta) {
    let [decay, rest, epsilon] = [s.decay, 1.0 - s.decay, s.epsilon].map(T::from_f64);
    let (v, u) = (e.slots.take("square"), e.slots.take("update"));
    vectorized(
        #[inline(always)]
        || {
            for ((g, v), u) in e.g.iter_mut().zip(v).zip(u) {
                *v = decay * *v + rest * (*g * *g);
                *g = (*u + epsilon).sqrt() / (*v + epsilon).sqrt() * *g;
                *u = decay * *u + rest * (*g * *g);
            }
        },
    );
}
