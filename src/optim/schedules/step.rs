//! Step decay: lr factor^floor(t / every) after t updates.

use super::schedule::{RunProgress, Schedule};
use crate::optim::{Interval, power};
use crate::settings::{Range, settings};

/// The factor of a decay.
pub(super) const DECAY: Range<f64> = Range {
    text: "a number above 0 other than 1, such as 0.1",
    contains: |&factor| factor.is_finite() && factor > 0.0 && factor != 1.0,
};

settings! {
    /// The `step` schedule.
    pub struct StepDecay {
        /// How long it is from one decay to the next.
        pub every: Interval, example "\"30 epochs\"";
        /// The factor of each decay.
        pub factor: f64, in DECAY, example "0.1";
    }
}

impl Schedule for StepDecay {
    fn key(&self) -> &'static str {
        "step"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        power(self.factor, self.every.passed(at.step, at.epoch))
    }
    fn examples() -> Vec<Self> {
        vec![
            StepDecay { every: Interval::Steps(3), factor: 0.1 },
            StepDecay { every: Interval::Epochs(2), factor: 0.5 },
        ]
    }
}
