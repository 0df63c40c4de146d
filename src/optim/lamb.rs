//! LAMB: the update of AdamW, scaled for each parameter to the norm of its weights (You et al. 2020,
//! <https://arxiv.org/abs/1904.00962>): u = adam(g) + decay decay_mult w, and then g = |w| / |u| u, or u where |w| or |u| is 0.
//!
//! A short form of `{ adam = { beta1, beta2, epsilon, bias_correction } }, { weight_decay = decay },
//! { lars = { trust = 1.0, epsilon = 0.0 } }`. The norms are those of whole parameters, whichever devices hold their parts.

use super::entry::ChainEntry;
use super::transform::Transform;
use super::{Adam, Lars, WeightDecay};
use crate::settings::{FRACTION, SINGLE, SINGLE_OR_ZERO, settings};

settings! {
    /// Short for `adam`, then `weight_decay`, then `lars`: `lamb = {}`.
    pub struct Lamb {
        /// The fraction of the mean gradient that is kept from step to step.
        pub beta1: f64 = 0.9, in FRACTION;
        /// The fraction of the mean square that is kept from step to step.
        pub beta2: f64 = 0.999, in FRACTION;
        /// What is added to the root.
        pub epsilon: f64 = 1e-6, in SINGLE;
        /// The decoupled weight decay, which is part of what is scaled.
        pub decay: f64 = 0.01, in SINGLE_OR_ZERO;
        /// Whether both means are divided by the weight that gradients have in them so far.
        pub bias_correction: bool = true;
    }
}

impl Lamb {
    /// Returns an entry for the shared test suite.
    pub fn examples() -> Vec<Self> {
        vec![Lamb::default()]
    }
}

impl ChainEntry for Lamb {
    fn kind(&self) -> &'static str {
        "lamb"
    }
    fn transforms(&self) -> Vec<Box<dyn Transform>> {
        let Lamb { beta1, beta2, epsilon, decay, bias_correction } = *self;
        let adam = Adam { beta1, beta2, epsilon, bias_correction };
        vec![Box::new(adam), Box::new(WeightDecay { decay }), Box::new(Lars { trust: 1.0, decay: 0.0, epsilon: 0.0 })]
    }
}
