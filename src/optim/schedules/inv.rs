//! Caffe's `inv`: lr (1 + gamma t)^-power after t updates.

use super::schedule::{RunProgress, Schedule};
use crate::settings::{POSITIVE, settings};

settings! {
    /// The `inv` schedule.
    pub struct Inv {
        /// The speed of the decay, per update.
        pub gamma: f64 = 1e-4, in POSITIVE, unit "1/updates";
        /// The power.
        pub power: f64 = 0.75, in POSITIVE;
    }
}

impl Schedule for Inv {
    fn key(&self) -> &'static str {
        "inv"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        (1.0 + self.gamma * at.step as f64).powf(-self.power)
    }
    fn examples() -> Vec<Self> {
        vec![Inv::default(), Inv { gamma: 0.5, power: 2.0 }]
    }
}
