//! cuda-convnet2's `dexp`: exponential decay in stages of equal length. Of n stages, stage i (from 0) has the rate
//! lr final_factor^(i / (n - 1)). Its `tgtFactor` is 1 / final_factor, and its `numSteps` is n.

use super::schedule::{RunProgress, Schedule};
use crate::settings::{INSIDE, Range, settings};

const STAGES: Range<u64> = Range { text: "at least 2", contains: |&stages| stages >= 2 };

settings! {
    /// The `dexp` schedule.
    pub struct Dexp {
        /// The factor of the last stage.
        pub final_factor: f64 = 0.01, in INSIDE;
        /// The number of stages.
        pub stages: u64 = 3, in STAGES;
    }
}

impl Schedule for Dexp {
    fn key(&self) -> &'static str {
        "dexp"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        // The stages are closed on the right, as there.
        let done = u128::from(at.step.min(at.steps)) * u128::from(self.stages);
        let stage = done.div_ceil(u128::from(at.steps.max(1))).saturating_sub(1);
        self.final_factor.powf(stage as f64 / (self.stages - 1) as f64)
    }
    fn depends_on_length(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![Dexp::default(), Dexp { final_factor: 0.1, stages: 5 }]
    }
}
