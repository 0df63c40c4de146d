//! Exponential decay: lr factor^(t / n) after t updates, where n is the number of updates of `every`. Unlike `step`, the rate
//! falls at each update. Caffe's `exp` has `every = 1` and its `gamma` as the factor.

use super::schedule::{RunProgress, Schedule};
use super::step::DECAY;
use crate::optim::Interval;
use crate::settings::settings;

settings! {
    /// The `exponential` schedule.
    pub struct Exponential {
        /// How long the rate takes to change by the factor.
        pub every: Interval = Interval::Epochs(1);
        /// The factor.
        pub factor: f64 = 0.9, in DECAY;
    }
}

impl Schedule for Exponential {
    fn key(&self) -> &'static str {
        "exponential"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        self.factor.powf(at.step as f64 / at.updates(self.every).max(1) as f64)
    }
    fn examples() -> Vec<Self> {
        vec![Exponential::default(), Exponential { every: Interval::Steps(3), factor: 0.5 }]
    }
}
