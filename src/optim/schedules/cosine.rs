//! Cosine annealing (Loshchilov and Hutter 2017, <https://arxiv.org/abs/1608.03983>): the rate falls from lr to
//! final_factor lr along half a period: lr (f + (1 - f) (1 + cos(pi t / T)) / 2) after t of T updates, with
//! f = final_factor.
//!
//! T is the rest of the run from where the schedule begins. The last update, at t = T - 1, is still above final_factor, as in
//! PyTorch's `CosineAnnealingLR`.

use super::schedule::{RunProgress, Schedule};
use crate::settings::{FRACTION, settings};
use std::f64::consts::PI;

settings! {
    /// The `cosine` schedule.
    pub struct Cosine {
        /// The factor of the rate at the end.
        pub final_factor: f64 = 0.0, in FRACTION;
    }
}

impl Schedule for Cosine {
    fn key(&self) -> &'static str {
        "cosine"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let done = at.step.min(at.steps) as f64 / at.steps.max(1) as f64;
        self.final_factor + (1.0 - self.final_factor) * (1.0 + (PI * done).cos()) / 2.0
    }
    fn depends_on_length(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![Cosine::default(), Cosine { final_factor: 0.1 }]
    }
}
