//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>). A short form of
//! `{ adam = { beta1, beta2, epsilon } }, { weight_decay = decay }`. As in PyTorch, the decay is multiplied by the learning
//! rate.

use super::entry::ChainEntry;
use super::transform::Transform;
use super::{Adam, WeightDecay};
use crate::settings::{FRACTION, SINGLE, SINGLE_OR_ZERO, settings};

settings! {
    /// Short for `adam`, then `weight_decay`: `adamw = {}`.
    pub struct Adamw {
        /// The fraction of the mean gradient that is kept from step to step.
        pub beta1: f64 = 0.9, in FRACTION;
        /// The fraction of the mean square that is kept from step to step.
        pub beta2: f64 = 0.999, in FRACTION;
        /// What is added to the root.
        pub epsilon: f64 = 1e-8, in SINGLE;
        /// The decoupled weight decay.
        pub decay: f64 = 0.01, in SINGLE_OR_ZERO;
    }
}

impl Adamw {
    /// Returns an entry for the shared test suite.
    pub fn examples() -> Vec<Self> {
        vec![Adamw { decay: 0.05, ..Adamw::default() }]
    }
}

impl ChainEntry for Adamw {
    fn kind(&self) -> &'static str {
        "adamw"
    }
    fn transforms(&self) -> Vec<Box<dyn Transform>> {
        let Adamw { beta1, beta2, epsilon, decay } = *self;
        let adam = Adam { beta1, beta2, epsilon, bias_correction: true };
        vec![Box::new(adam), Box::new(WeightDecay { decay })]
    }
}
