//! AdaGrad: the gradient is divided by the root of the sum of all its squares (Duchi, Hazan and Singer 2011,
//! <https://jmlr.org/papers/v12/duchi11a.html>): s = s + g^2, from s = `initial`; then g = g / (sqrt(s) + epsilon).
//!
//! The rate of a weight only falls. As in PyTorch, epsilon is outside the root; its `lr_decay` is the schedule `inverse`.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{AdagradSettings, TransformSettings};
use crate::settings::{SINGLE, SINGLE_OR_ZERO, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `adagrad = {}`.
    #[derive(Copy)]
    pub struct Adagrad {
        /// What is added to the root.
        pub epsilon: f64 = 1e-10, in SINGLE;
        /// The sum of squares before the first update.
        pub initial: f64 = 0.0, in SINGLE_OR_ZERO;
    }
}

impl Transform for Adagrad {
    fn key(&self) -> &'static str {
        "adagrad"
    }
    fn slots(&self) -> &'static [&'static str] {
        &["sum"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => divide(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        AdagradSettings { epsilon: self.epsilon as f32, initial: self.initial as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Adagrad::default(), Adagrad { epsilon: 1e-3, initial: 0.1 }]
    }
}

fn divide<T: Real>(mut e: Elements<T>, s: &Adagrad) {
    let [epsilon, initial] = [s.epsilon, s.initial].map(T::from_f64);
    let sum = e.slots.take("sum");
    vectorized(
        #[inline(always)]
        || {
            for (g, sum) in e.g.iter_mut().zip(sum) {
                *sum += *g * *g;
                *g = *g / ((*sum + initial).sqrt() + epsilon);
            }
        },
    );
}
