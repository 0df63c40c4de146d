//! RMSProp: the gradient is divided by the root of a moving average of its square (Tieleman and Hinton 2012,
//! <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>): v = decay v + (1 - decay) g^2; then
//! g = g / (sqrt(v) + epsilon).
//!
//! Centered (Graves 2013, <https://arxiv.org/abs/1308.0850>), an estimate of the variance stands for v: v - a^2 with
//! a = decay a + (1 - decay) g. With momentum, u = momentum u + g follows, and g = u. All averages are 0 initially. As in
//! PyTorch, epsilon is outside the root; unlike there, a variance that rounding makes negative counts as 0.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{RmspropSettings, TransformSettings};
use crate::settings::{FRACTION, SINGLE, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `rmsprop = {}`.
    #[derive(Copy)]
    pub struct Rmsprop {
        /// The fraction of the averages that is kept from step to step.
        pub decay: f64 = 0.99, in FRACTION;
        /// What is added to the root.
        pub epsilon: f64 = 1e-8, in SINGLE;
        /// The fraction of the velocity that is kept from step to step; with 0, there is no velocity.
        pub momentum: f64 = 0.0, in FRACTION;
        /// Whether an estimate of the variance stands for the mean square.
        pub centered: bool = false;
    }
}

impl Transform for Rmsprop {
    fn key(&self) -> &'static str {
        "rmsprop"
    }
    fn slots(&self) -> &'static [&'static str] {
        match (self.centered, self.momentum != 0.0) {
            (false, false) => &["square"],
            (false, true) => &["square", "velocity"],
            (true, false) => &["square", "mean"],
            (true, true) => &["square", "mean", "velocity"],
        }
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => divide(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let Rmsprop { decay, epsilon, momentum, centered } = *self;
        let (epsilon, momentum) = (epsilon as f32, momentum as f32);
        RmspropSettings { decay, epsilon, momentum, centered: centered.into() }.into()
    }
    fn examples() -> Vec<Self> {
        let plain = Rmsprop::default();
        let centered = Rmsprop { decay: 0.9, epsilon: 1e-3, centered: true, ..plain };
        vec![plain, Rmsprop { decay: 0.999, momentum: 0.9, ..plain }, centered, Rmsprop { momentum: 0.5, ..centered }]
    }
}

fn divide<T: Real>(mut e: Elements<T>, s: &Rmsprop) {
    let [decay, rest, epsilon, momentum] = [s.decay, 1.0 - s.decay, s.epsilon, s.momentum].map(T::from_f64);
    let mut take = |slot, taken: bool| if taken { e.slots.take(slot) } else { &mut [] };
    let (v, a, u) = (take("square", true), take("mean", s.centered), take("velocity", s.momentum != 0.0));
    let g = e.g;
    vectorized(
        #[inline(always)]
        || {
            if s.centered {
                for ((g, v), a) in g.iter_mut().zip(v).zip(a) {
                    *v = decay * *v + rest * (*g * *g);
                    *a += rest * (*g - *a);
                    *g = *g / ((*v - *a * *a).max(T::ZERO).sqrt() + epsilon);
                }
            } else {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = decay * *v + rest * (*g * *g);
                    *g = *g / (v.sqrt() + epsilon);
                }
            }
            for (g, u) in g.iter_mut().zip(u) {
                *u = momentum * *u + *g;
                *g = *u;
            }
        },
    );
}
