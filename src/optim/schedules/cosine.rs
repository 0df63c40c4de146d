//! Cosine annealing, also with warm restarts (Loshchilov and Hutter 2017, <https://arxiv.org/abs/1608.03983>): the rate falls
//! from lr to final_factor lr along half a period: lr (f + (1 - f) (1 + cos(pi t / T)) / 2) after t of T updates, with
//! f = final_factor.
//!
//! T is the rest of the run from where the schedule begins, or with restarts, the length of a cycle: there are restarts + 1,
//! each `growth` times as long as the one before, which together are the rest of the run. At each restart the rate is lr again. The
//! last update of a cycle, at t = T - 1, is still above final_factor, as in PyTorch's `CosineAnnealingLR` and
//! `CosineAnnealingWarmRestarts`.

use super::schedule::{RunProgress, Schedule};
use crate::optim::power;
use crate::settings::{FRACTION, Range, settings};
use std::f64::consts::PI;

const RESTARTS: Range<u64> = Range { text: "at most 1000", contains: |&restarts| restarts <= 1000 };
const GROWTH: Range<f64> = Range { text: "a number from 1 to 10", contains: |growth| (1.0..=10.0).contains(growth) };

settings! {
    /// The `cosine` schedule.
    pub struct Cosine {
        /// The factor of the rate at the end.
        pub final_factor: f64 = 0.0, in FRACTION;
        /// How often the rate jumps back to lr.
        pub restarts: u64 = 0, in RESTARTS;
        /// The length of a cycle, as a factor of that of the cycle before.
        pub growth: f64 = 1.0, in GROWTH;
    }
}

impl Cosine {
    /// Returns the share of its cycle that has passed after `step` of `steps` updates.
    fn passed(&self, step: u64, steps: u64) -> f64 {
        let (step, steps) = (step.min(steps) as f64, steps.max(1) as f64);
        let cycles = self.restarts + 1;
        let all = match self.growth == 1.0 {
            true => cycles as f64,
            false => (power(self.growth, cycles) - 1.0) / (self.growth - 1.0),
        };
        let (mut start, mut length) = (0.0, steps / all);
        for _ in 0..self.restarts {
            if step < start + length {
                break;
            }
            start += length;
            length *= self.growth;
        }
        ((step - start) / length).min(1.0)
    }
}

impl Schedule for Cosine {
    fn key(&self) -> &'static str {
        "cosine"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let done = self.passed(at.step, at.steps);
        self.final_factor + (1.0 - self.final_factor) * (1.0 + (PI * done).cos()) / 2.0
    }
    fn depends_on_length(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        let plain = Cosine::default();
        vec![
            plain.clone(),
            Cosine { final_factor: 0.1, ..plain },
            Cosine { restarts: 2, growth: 2.0, ..Cosine::default() },
        ]
    }
}
