//! Layer-wise adaptive rate scaling: each parameter moves by a fraction of its own norm (You, Gitman and Ginsburg 2017,
//! <https://arxiv.org/abs/1708.03888>): g = r (g + decay decay_mult w) with
//! r = trust |w| / (|g| + decay decay_mult |w| + epsilon), and r = 1 where |w| or |g| is 0.
//!
//! The norms are those of the whole parameter, whichever devices hold its parts. LARS as published is
//! `[{ lars = { decay = 5e-4 } }, { momentum = 0.9 }]`, whose learning rate is that of all layers together.

use super::transform::{Block, Elements, Norm, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{LarsSettings, TransformSettings};
use crate::settings::{SINGLE, SINGLE_OR_ZERO, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `lars = {}`.
    #[derive(Copy)]
    pub struct Lars {
        /// The ratio of the norms of a parameter's update, before the learning rate, and of its weights.
        pub trust: f64 = 0.001, in SINGLE;
        /// The weight decay, which is part of what is scaled.
        pub decay: f64 = 0.0, in SINGLE_OR_ZERO;
        /// What is added to the norm of the gradient.
        pub epsilon: f64 = 1e-9, in SINGLE_OR_ZERO;
    }
}

impl Transform for Lars {
    fn key(&self) -> &'static str {
        "lars"
    }
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Gradients, Norm::Weights]
    }
    fn decay(&self) -> f64 {
        self.decay
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => scale(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let [trust, decay, epsilon] = [self.trust, self.decay, self.epsilon].map(|x| x as f32);
        LarsSettings { trust, decay, epsilon }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Lars::default(), Lars { trust: 0.02, decay: 5e-4, epsilon: 0.0 }]
    }
}

fn scale<T: Real>(e: Elements<T>, s: &Lars) {
    let [trust, decay, epsilon] = [s.trust, s.decay * e.decay_mult, s.epsilon].map(T::from_f64);
    let (weights, gradient) = (e.norms.weights(), e.norms.gradient());
    let adapts = weights > T::ZERO && gradient > T::ZERO;
    let ratio = if adapts { trust * weights / (gradient + decay * weights + epsilon) } else { T::ONE };
    vectorized(
        #[inline(always)]
        || e.g.iter_mut().zip(e.w).for_each(|(g, &w)| *g = ratio * (*g + decay * w)),
    );
}
